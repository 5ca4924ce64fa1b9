//! Measures which recall walks of a finished graph reach, with a sample of its rows as queries.

use rayon::prelude::*;

use super::points::{Points, SeenFrom};
use super::select::Near;
use crate::segment::{CALIBRATED_EF, CALIBRATED_TOP_K, Calibration, Graph, Rows, walk_to_nearest};
use crate::types::Ordinal;

/// Rows that are queries: recall@10 over so many is known to about half a hundredth.
pub(super) const QUERIES: usize = 256;
/// Rows whose distances one look-up of the sample computes.
const CHUNK: usize = 256;

/// Measures on the threads of the current rayon pool, which takes about 50 ns for each row and query.
///
/// A row that is a query is left out of its own search, both of the answer and of the way to it, since real queries
/// have no row of theirs in the graph.
pub(super) fn calibrate(points: &Points<'_>, graph: &Graph) -> Calibration {
    let rows = points.rows();
    if rows <= CALIBRATED_TOP_K {
        return Calibration::default();
    }
    let queries: Vec<Ordinal> = (0..rows).step_by(rows.div_ceil(QUERIES)).map(|row| row as Ordinal).collect();
    let hits: Vec<[u64; CALIBRATED_EF.len()]> = queries
        .par_iter()
        .map(|&query| {
            let tenth = distance_of_last(points, query);
            CALIBRATED_EF.map(|ef| hits(points, graph, query, ef, tenth))
        })
        .collect();
    recall_of(hits)
}

/// `hits`: by query, how many of the exact answer each of [`CALIBRATED_EF`] finds.
pub(super) fn recall_of(hits: Vec<[u64; CALIBRATED_EF.len()]>) -> Calibration {
    let wanted = (hits.len() * CALIBRATED_TOP_K) as f64;
    let at = |effort: usize| hits.iter().map(|hits| hits[effort]).sum::<u64>() as f64 / wanted;
    Calibration::measured(std::array::from_fn(at))
}

/// The distance of the last of the exact answer.
fn distance_of_last(points: &Points<'_>, query: Ordinal) -> f32 {
    let mut nearest: Vec<Near> = Vec::with_capacity(CHUNK + CALIBRATED_TOP_K);
    let rows = points.rows() as Ordinal;
    for start in (0..rows).step_by(CHUNK) {
        let chunk: Vec<Ordinal> = (start..rows.min(start + CHUNK as Ordinal)).filter(|&row| row != query).collect();
        let mut rest = chunk.iter();
        points.distances(query, &chunk, |distance| nearest.extend(rest.next().map(|&row| Near { distance, row })));
        if nearest.len() > CALIBRATED_TOP_K {
            nearest.select_nth_unstable_by(CALIBRATED_TOP_K, Near::order);
            nearest.truncate(CALIBRATED_TOP_K);
        }
    }
    nearest.iter().map(|near| near.distance).fold(0.0, f32::max)
}

fn hits(points: &Points<'_>, graph: &Graph, query: Ordinal, ef: usize, tenth: f32) -> u64 {
    let rows = WithoutItself(SeenFrom { points, row: query });
    let Ok(found) = walk_to_nearest(&graph.view(), &rows, ef);
    let nearest = found.iter().take(CALIBRATED_TOP_K);
    nearest.filter(|near| near.ordinal != query && -near.closeness <= tenth).count() as u64
}

/// The rows as one sees them that is infinitely far from itself.
struct WithoutItself<'a>(SeenFrom<'a>);

impl Rows for WithoutItself<'_> {
    type Error = std::convert::Infallible;

    fn prefetch(&self, ordinal: Ordinal) {
        self.0.prefetch(ordinal);
    }

    fn closeness(&self, ordinal: Ordinal) -> Result<f32, Self::Error> {
        if ordinal == self.0.row { Ok(f32::NEG_INFINITY) } else { self.0.closeness(ordinal) }
    }

    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), Self::Error> {
        self.0.compare(ordinals, closeness)?;
        if let Some(itself) = ordinals.iter().position(|&ordinal| ordinal == self.0.row) {
            closeness[itself] = f32::NEG_INFINITY;
        }
        Ok(())
    }
}
