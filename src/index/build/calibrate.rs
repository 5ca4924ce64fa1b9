//! Measures which recall walks of a finished graph reach, with a sample of queries.

use rayon::prelude::*;

use super::nibble_rows::NibbleTable;
use super::points::{Points, SearchedFor};
use super::sample::{Sample, sample};
use crate::segment::{CALIBRATED_EF, CALIBRATED_TOP_K, Calibration, Graph, Rows, walk_to_nearest};
use crate::types::Ordinal;

/// Rows whose closeness one look-up of the sample computes.
const CHUNK: usize = 256;
/// Nibbles are walked on where they reach this recall with no more than so many times the effort that codes need: half
/// of the memory is then read for each row.
const RECALL: f64 = 0.95;
const MOST_EFFORT: f64 = 1.7;

/// Measures on the threads of the current rayon pool, which takes about 50 ns for each row and query. `nibbles`: those of
/// the rows where walks may read them. Returns with the recalls whether they should.
pub(super) fn calibrate(points: &Points<'_>, graph: &Graph, nibbles: Option<&NibbleTable>) -> (Calibration, bool) {
    let rows = points.rows();
    if rows <= CALIBRATED_TOP_K {
        return (Calibration::default(), false);
    }
    let samples = sample(
        rows,
        |row| points.vector(row),
        |query| closeness_of_last(rows as Ordinal, &points.searched_for(query.to_vec())),
    );
    let by_codes = recalls(&samples, |sample| {
        let rows = points.searched_for(sample.query.clone());
        CALIBRATED_EF.map(|ef| hits(graph, &rows, ef, &rows, sample.tenth))
    });
    let Some(table) = nibbles else { return (by_codes, false) };
    let by_nibbles = recalls(&samples, |sample| {
        let rows = table.searched_for(&sample.query);
        CALIBRATED_EF.map(|ef| hits(graph, &rows, ef, &points.searched_for(sample.query.clone()), sample.tenth))
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

/// The closeness of the last of the exact answer.
fn closeness_of_last(rows: Ordinal, seen: &SearchedFor<'_>) -> f32 {
    let (mut nearest, mut closeness) = (Vec::with_capacity(CHUNK + CALIBRATED_TOP_K), Vec::new());
    for start in (0..rows).step_by(CHUNK) {
        let chunk: Vec<Ordinal> = (start..rows.min(start + CHUNK as Ordinal)).collect();
        let Ok(()) = seen.compare(&chunk, &mut closeness);
        nearest.append(&mut closeness);
        if nearest.len() > CALIBRATED_TOP_K {
            nearest.select_nth_unstable_by(CALIBRATED_TOP_K - 1, |a, b| b.total_cmp(a));
            nearest.truncate(CALIBRATED_TOP_K);
        }
    }
    nearest.into_iter().fold(f32::INFINITY, f32::min)
}

/// Rows of the exact answer among those that a walk over `rows` ends up with, of which the best are compared again as they
/// are `seen`.
fn hits(
    graph: &Graph,
    rows: &impl Rows<Error = std::convert::Infallible>,
    ef: usize,
    seen: &SearchedFor<'_>,
    tenth: f32,
) -> u64 {
    let Ok(found) = walk_to_nearest(&graph.view(), rows, ef);
    let is_right = |row: Ordinal| seen.closeness(row).is_ok_and(|closeness| closeness >= tenth);
    let right = found.iter().filter(|near| is_right(near.ordinal)).count();
    right.min(CALIBRATED_TOP_K) as u64
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
