//! As `calibrate.rs`, for walks that read one bit a component: of as many candidates as a walk keeps, the nearest by
//! their vectors are its answer.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::calibrate::{ALL, recalls};
use super::sample::sample;
use crate::distance::{BitQuery, VectorQuery, VectorRef};
use crate::segment::{BitQuantizer, CALIBRATED_TOP_K, Calibration, Graph, Rows, walk_to_nearest};
use crate::types::{Metric, Ordinal};

/// Measures on the threads of the current rayon pool, which takes about 100 ns for each row and query.
///
/// Walks see rows as they will in a segment, and the exact answer is that of the vectors: so what bits lose is measured
/// too, and the effort that searches go by makes up for it.
/// Returns soon, and something without meaning, once `cancel` is true.
pub(super) fn calibrate(
    rows: &[VectorRef<'_>],
    metric: Metric,
    graph: &Graph,
    table: &BitTable,
    cancel: &AtomicBool,
) -> Calibration {
    if rows.len() <= CALIBRATED_TOP_K {
        return Calibration::default();
    }
    let query_of = |vector: &[f32]| VectorQuery::new(metric, vector.to_vec());
    let tenth = |query: &Vec<f32>| match cancel.load(Ordering::Relaxed) {
        true => 0.0,
        false => closeness_of_last(rows, &query_of(query)),
    };
    let tenths = |queries: &[Vec<f32>]| queries.iter().map(tenth).collect();
    let samples = sample(rows.len(), |row| rows[row as usize], tenths, cancel);
    recalls(&samples, ALL, cancel, |sample, ef| {
        let (query, seen) = (query_of(&sample.query), table.searched_for(&sample.query));
        let Ok(found) = walk_to_nearest(&graph.view(), &seen, ef);
        let closeness = found.iter().map(|near| query.closeness_of(rows[near.ordinal as usize]));
        closeness.filter(|&closeness| closeness >= sample.tenth).take(CALIBRATED_TOP_K).count() as u64
    })
}

/// The closeness of the last of the exact answer.
fn closeness_of_last(rows: &[VectorRef<'_>], query: &VectorQuery) -> f32 {
    let mut closeness: Vec<f32> = rows.iter().map(|row| query.closeness_of(*row)).collect();
    let (_, last, _) = closeness.select_nth_unstable_by(CALIBRATED_TOP_K - 1, |a, b| b.total_cmp(a));
    *last
}

/// The bits of all rows.
pub(super) struct BitTable {
    quantizer: BitQuantizer,
    metric: Metric,
    bits: Vec<u8>,
}

impl BitTable {
    /// Encodes on the threads of the current rayon pool.
    pub(super) fn new(rows: &[VectorRef<'_>], metric: Metric) -> Self {
        let quantizer = BitQuantizer::fit(metric, rows.len(), rows[0].dim(), |row| rows[row]);
        let stride = quantizer.stride();
        let mut bits = vec![0u8; rows.len() * stride];
        bits.par_chunks_exact_mut(stride)
            .zip(rows)
            .for_each_init(Vec::new, |memory, (bits, row)| quantizer.encode(row.read(memory), bits));
        Self { quantizer, metric, bits }
    }

    /// The rows as a search for `vector` sees them.
    pub(super) fn searched_for(&self, vector: &[f32]) -> SeenByBits<'_> {
        let query = self.quantizer.query(&VectorQuery::new(self.metric, vector.to_vec()));
        SeenByBits { query, bits: &self.bits }
    }
}

/// Rows, and a query that their bits are compared with.
pub(super) struct SeenByBits<'a> {
    query: BitQuery,
    bits: &'a [u8],
}

impl Rows for SeenByBits<'_> {
    type Error = Infallible;

    fn prefetch(&self, ordinal: Ordinal) {
        self.query.prefetch(self.bits, ordinal);
    }

    fn closeness(&self, ordinal: Ordinal) -> Result<f32, Infallible> {
        Ok(self.query.closeness_in(self.bits, ordinal))
    }
}
