//! Measures which recall walks of a finished graph reach, with a sample of queries.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::nibble_rows::NibbleTable;
use super::points::{Points, SearchedFor};
use super::sample::{Sample, sample};
use crate::segment::{CALIBRATED_EF, CALIBRATED_TOP_K, Calibration, Graph, Rows, walk_to_nearest};
use crate::types::Ordinal;

/// Rows that some queries are compared with before the next rows: few enough for the second-level cache.
const CHUNK: usize = 256;
/// Passed as the recall that is enough, to measure every `ef`: none reaches it.
pub(super) const ALL: f64 = f64::INFINITY;
/// Nibbles are walked on where they reach this recall with no more than so many times the effort that codes need: half
/// of the memory is then read for each row.
const RECALL: f64 = 0.95;
const MOST_EFFORT: f64 = 1.7;

/// Measures on the threads of the current rayon pool, which compares every row with every query. `nibbles`: those of
/// the rows where walks may read them. Returns with the recalls whether they should; soon, and something without
/// meaning, once `cancel` is true.
pub(super) fn calibrate(
    points: &Points<'_>,
    graph: &Graph,
    nibbles: Option<&NibbleTable>,
    cancel: &AtomicBool,
) -> (Calibration, bool) {
    let rows = points.rows();
    if rows <= CALIBRATED_TOP_K {
        return (Calibration::default(), false);
    }
    let samples = sample(rows, |row| points.vector(row), |queries| tenths(points, queries, cancel), cancel);
    let with_codes = |sample: &Sample, ef: usize| {
        let rows = points.searched_for(sample.query.clone());
        hits(graph, &rows, ef, &rows, sample.tenth)
    };
    if let Some(table) = nibbles {
        let by_nibbles = recalls(&samples, ALL, cancel, |sample, ef| {
            let rows = table.searched_for(&sample.query);
            hits(graph, &rows, ef, &points.searched_for(sample.query.clone()), sample.tenth)
        });
        // What is beyond does not decide.
        if is_worth_it(&recalls(&samples, RECALL, cancel, with_codes), &by_nibbles) {
            return (by_nibbles, true);
        }
    }
    (recalls(&samples, ALL, cancel, with_codes), false)
}

/// Whether walks on nibbles need little more effort than those on codes.
fn is_worth_it(by_codes: &Calibration, by_nibbles: &Calibration) -> bool {
    let effort = |calibration: &Calibration| calibration.ef_for(RECALL).unwrap_or(usize::MAX) as f64;
    by_nibbles.reaches(RECALL) && effort(by_nibbles) <= MOST_EFFORT * effort(by_codes)
}

/// By effort. Those beyond the first that reaches `enough` are not measured, and count as 1. `hits`: how many of the
/// exact answer to a query an effort finds. Of no meaning once `cancel` is true.
pub(super) fn recalls(
    samples: &[Sample],
    enough: f64,
    cancel: &AtomicBool,
    hits: impl Fn(&Sample, usize) -> u64 + Sync,
) -> Calibration {
    let hits = |sample: &Sample, ef: usize| match cancel.load(Ordering::Relaxed) {
        true => 0,
        false => hits(sample, ef),
    };
    let wanted = (samples.len() * CALIBRATED_TOP_K) as f64;
    let mut reached = 0.0;
    Calibration::measured(CALIBRATED_EF.map(|ef| {
        reached = match reached >= enough {
            true => 1.0,
            false => samples.par_iter().map(|sample| hits(sample, ef)).sum::<u64>() as f64 / wanted,
        };
        reached
    }))
}

/// How close the last of the exact answer to each query is.
fn tenths(points: &Points<'_>, queries: &[Vec<f32>], cancel: &AtomicBool) -> Vec<f32> {
    let seen: Vec<SearchedFor<'_>> = queries.iter().map(|query| points.searched_for(query.clone())).collect();
    let mut nearest = vec![Vec::with_capacity(CHUNK + CALIBRATED_TOP_K); queries.len()];
    let (mut closeness, rows) = (Vec::new(), points.rows() as Ordinal);
    for start in (0..rows).step_by(CHUNK).take_while(|_| !cancel.load(Ordering::Relaxed)) {
        let chunk: Vec<Ordinal> = (start..rows.min(start + CHUNK as Ordinal)).collect();
        for (seen, nearest) in seen.iter().zip(&mut nearest) {
            let Ok(()) = seen.compare(&chunk, &mut closeness);
            nearest.append(&mut closeness);
            if nearest.len() > CALIBRATED_TOP_K {
                nearest.select_nth_unstable_by(CALIBRATED_TOP_K - 1, |a, b| b.total_cmp(a));
                nearest.truncate(CALIBRATED_TOP_K);
            }
        }
    }
    nearest.into_iter().map(|nearest| nearest.into_iter().fold(f32::INFINITY, f32::min)).collect()
}

/// Rows of the exact answer among those that a walk over `rows` ends up with, of which the best are compared again as
/// they are `seen`.
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
    fn no_more_is_measured_than_is_enough() {
        let samples: Vec<Sample> = (0..8).map(|_| Sample { query: Vec::new(), tenth: 0.0 }).collect();
        let hits = |_: &Sample, ef: usize| match ef {
            0..16 => 8,
            16..24 => 9,
            _ => panic!("16 reaches what is enough, and {ef} was measured"),
        };
        let go_on = AtomicBool::new(false);
        let calibration = recalls(&samples, 0.9, &go_on, hits);
        assert_eq!((calibration.ef_for(0.8), calibration.ef_for(0.9)), (Some(10), Some(16)));
        assert!(recalls(&samples, ALL, &go_on, |_, ef| (ef / 39) as u64).ef_for(0.9) == Some(384));
    }

    #[test]
    fn nothing_is_measured_once_it_is_cancelled() {
        let samples: Vec<Sample> = (0..8).map(|_| Sample { query: Vec::new(), tenth: 0.0 }).collect();
        recalls(&samples, ALL, &AtomicBool::new(true), |_, ef| panic!("{ef} was measured"));
    }

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
