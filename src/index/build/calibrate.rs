//! Measures which recall walks of a finished graph reach, with a sample of its rows as queries.

use rayon::prelude::*;

use super::nibble_rows::NibbleTable;
use super::points::{AskedFor, Points};
use super::select::Near;
use crate::segment::{CALIBRATED_EF, CALIBRATED_TOP_K, Calibration, Graph, Rows, walk_to_nearest};
use crate::types::Ordinal;

/// Rows that are queries: recall@10 over so many is known to about half a hundredth.
pub(super) const QUERIES: usize = 256;
/// Rows whose distances one look-up of the sample computes.
const CHUNK: usize = 256;
/// Nibbles are walked on where they reach this recall with no more than so many times the effort that codes need: half
/// of the memory is then read for each row.
const RECALL: f64 = 0.95;
const MOST_EFFORT: f64 = 1.7;

/// A row that is a query, and the distance of the last of its exact answer.
struct Sample {
    query: Ordinal,
    tenth: f32,
}

/// Measures on the threads of the current rayon pool, which takes about 50 ns for each row and query. `nibbles`: those of
/// the rows where walks may read them. Returns with the recalls whether they should.
///
/// A row that is a query is left out of its own search, both of the answer and of the way to it, since real queries
/// have no row of theirs in the graph.
pub(super) fn calibrate(points: &Points<'_>, graph: &Graph, nibbles: Option<&NibbleTable>) -> (Calibration, bool) {
    let rows = points.rows();
    if rows <= CALIBRATED_TOP_K {
        return (Calibration::default(), false);
    }
    let queries: Vec<Ordinal> = (0..rows).step_by(rows.div_ceil(QUERIES)).map(|row| row as Ordinal).collect();
    let sample = |&query: &Ordinal| Sample { query, tenth: distance_of_last(points, query) };
    let samples: Vec<Sample> = queries.par_iter().map(sample).collect();
    let by_codes = recalls(&samples, |sample| {
        let rows = WithoutItself { rows: AskedFor { points, row: sample.query }, itself: sample.query };
        CALIBRATED_EF.map(|ef| hits(points, graph, &rows, ef, sample))
    });
    let Some(table) = nibbles else { return (by_codes, false) };
    let by_nibbles = recalls(&samples, |sample| {
        let rows = WithoutItself { rows: table.seen_from(points, sample.query), itself: sample.query };
        CALIBRATED_EF.map(|ef| hits(points, graph, &rows, ef, sample))
    });
    match is_worth_it(&by_codes, &by_nibbles) {
        true => (by_nibbles, true),
        false => (by_codes, false),
    }
}

/// Whether walks on nibbles need little more effort than those on codes.
fn is_worth_it(by_codes: &Calibration, by_nibbles: &Calibration) -> bool {
    let effort = |calibration: &Calibration| calibration.ef_for(RECALL).unwrap_or(usize::MAX) as f64;
    by_nibbles.reaches(RECALL) && effort(by_nibbles) <= MOST_EFFORT * effort(by_codes)
}

fn recalls(samples: &[Sample], hits: impl Fn(&Sample) -> [u64; CALIBRATED_EF.len()] + Sync + Send) -> Calibration {
    recall_of(&samples.par_iter().map(hits).collect::<Vec<_>>())
}

/// `hits`: by query, how many of the exact answer each of [`CALIBRATED_EF`] finds.
pub(super) fn recall_of(hits: &[[u64; CALIBRATED_EF.len()]]) -> Calibration {
    let wanted = (hits.len() * CALIBRATED_TOP_K) as f64;
    let at = |effort: usize| hits.iter().map(|hits| hits[effort]).sum::<u64>() as f64 / wanted;
    Calibration::measured(std::array::from_fn(at))
}

/// The distance of the last of the exact answer.
fn distance_of_last(points: &Points<'_>, query: Ordinal) -> f32 {
    let mut nearest: Vec<Near> = Vec::with_capacity(CHUNK + CALIBRATED_TOP_K);
    let (rows, asked) = (points.rows() as Ordinal, AskedFor { points, row: query });
    for start in (0..rows).step_by(CHUNK) {
        let chunk: Vec<Ordinal> = (start..rows.min(start + CHUNK as Ordinal)).filter(|&row| row != query).collect();
        let mut rest = chunk.iter();
        asked.distances(&chunk, |distance| nearest.extend(rest.next().map(|&row| Near { distance, row })));
        if nearest.len() > CALIBRATED_TOP_K {
            nearest.select_nth_unstable_by(CALIBRATED_TOP_K, Near::order);
            nearest.truncate(CALIBRATED_TOP_K);
        }
    }
    nearest.iter().map(|near| near.distance).fold(0.0, f32::max)
}

/// Rows of the exact answer among those that a walk ends up with, of which the best are compared again.
fn hits(
    points: &Points<'_>,
    graph: &Graph,
    rows: &impl Rows<Error = std::convert::Infallible>,
    ef: usize,
    sample: &Sample,
) -> u64 {
    let Ok(found) = walk_to_nearest(&graph.view(), rows, ef);
    let asked = AskedFor { points, row: sample.query };
    let is_right = |row: Ordinal| row != sample.query && asked.distance(row) <= sample.tenth;
    let right = found.iter().filter(|near| is_right(near.ordinal)).count();
    right.min(CALIBRATED_TOP_K) as u64
}

/// Rows as one sees them that is infinitely far from itself.
struct WithoutItself<R> {
    rows: R,
    itself: Ordinal,
}

impl<R: Rows> Rows for WithoutItself<R> {
    type Error = R::Error;

    fn prefetch(&self, ordinal: Ordinal) {
        self.rows.prefetch(ordinal);
    }

    fn closeness(&self, ordinal: Ordinal) -> Result<f32, Self::Error> {
        if ordinal == self.itself { Ok(f32::NEG_INFINITY) } else { self.rows.closeness(ordinal) }
    }

    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), Self::Error> {
        self.rows.compare(ordinals, closeness)?;
        if let Some(itself) = ordinals.iter().position(|&ordinal| ordinal == self.itself) {
            closeness[itself] = f32::NEG_INFINITY;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_are_taken_where_they_need_little_more_effort() {
        let reaching =
            |from: usize| Calibration::measured(std::array::from_fn(|at| if at >= from { 0.96 } else { 0.5 }));
        assert!(is_worth_it(&reaching(2), &reaching(2)));
        assert!(is_worth_it(&reaching(2), &reaching(3)), "24 for 16");
        assert!(!is_worth_it(&reaching(2), &reaching(6)));
        assert!(!is_worth_it(&reaching(11), &reaching(99)), "what is never reached");
        assert!(!is_worth_it(&reaching(99), &reaching(99)));
    }
}
