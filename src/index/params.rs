//! How hard a search tries where nobody said: the least effort that reaches the wanted recall.

use crate::segment::{CALIBRATED_TOP_K, Calibration, Graph, Segment};
use crate::types::limits::MAX_EF;

/// Recall of searches that name no `ef_search`.
pub const WANTED_RECALL: f64 = 0.95;
/// Share of what is missing to a recall of 1 that is asked of the sample of queries when the graph was built: a few
/// hundred tell recall to about half a hundredth, and other queries may be harder. With 0.5 a graph of 100,000
/// embeddings of sentences found 0.940 of what questions ask for, with 0.4 it finds 0.957.
const MISSING_SHARE: f64 = 0.4;
/// `m` that [`unmeasured`] was measured with.
const MEASURED_M: f64 = 16.0;

/// `ef_search` for recall@`top_k` of at least `recall` on a segment's graph, as measured when the graph was built.
pub fn ef_for(segment: &Segment, top_k: usize, recall: f64) -> usize {
    let ef = ef_of(segment.calibration(), segment.rows(), segment.spec().index.m, recall);
    scaled(ef, top_k)
}

/// The least effort of a search that names none, on a graph of so many rows.
pub(super) fn least_ef(graph: &Graph) -> usize {
    ef_of(Some(graph.calibration), graph.view().rows(), graph.m, WANTED_RECALL)
}

/// Whether some effort reached the recall of searches that name none.
pub(super) fn is_reached(calibration: &Calibration) -> bool {
    calibration.reaches(of_sample(WANTED_RECALL))
}

/// The recall that is asked of the sample of queries.
fn of_sample(recall: f64) -> f64 {
    1.0 - (1.0 - recall) * MISSING_SHARE
}

fn ef_of(calibration: Option<Calibration>, rows: u32, m: u32, recall: f64) -> usize {
    let measured = calibration.and_then(|calibration| calibration.ef_for(of_sample(recall)));
    measured.unwrap_or_else(|| unmeasured(rows, m))
}

/// The effort for `top_k` results where `ef` is that for [`CALIBRATED_TOP_K`]: the last of more results lie in a denser
/// neighbourhood, and each needs about two candidates more.
fn scaled(ef: usize, top_k: usize) -> usize {
    (ef + 2 * top_k.saturating_sub(CALIBRATED_TOP_K)).max(top_k).min(MAX_EF)
}

/// For recall@10 >= 0.95 with a wide margin: sentence embeddings of 384 numbers reach it at two thirds of this with m
/// 16. The need grows with the logarithm of the rows, and falls as rows have more links.
fn unmeasured(rows: u32, m: u32) -> usize {
    let doublings = (f64::from(rows.max(1_000)) / 1_000.0).log2();
    let links = (MEASURED_M / f64::from(m.max(1))).sqrt().clamp(0.75, 2.0);
    ((48.0 + 8.0 * doublings) * links) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effort_grows_with_rows_and_falls_with_links() {
        assert_eq!(unmeasured(100, 16), 48);
        assert_eq!(unmeasured(100_000, 16), 101);
        assert!(unmeasured(100_000, 8) > unmeasured(100_000, 16));
        assert!(unmeasured(100_000, 32) < unmeasured(100_000, 16));
    }

    #[test]
    fn results_always_fit_and_the_limit_holds() {
        assert_eq!((scaled(14, 1), scaled(14, 10), scaled(14, 100)), (14, 14, 194));
        assert_eq!((scaled(14, MAX_EF), scaled(MAX_EF, 10), scaled(1, 5)), (MAX_EF, MAX_EF, 5));
    }
}
