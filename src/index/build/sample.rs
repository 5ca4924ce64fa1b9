//! Queries that a finished graph is measured with.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::distance::VectorRef;
use crate::segment::SampledQueries;
use crate::types::Ordinal;

/// How many queries there are: recall@10 over so many is known to about half a hundredth.
const QUERIES: usize = 256;
/// Queries that are answered exactly by one pass over the rows, so that each row is read once for all of them.
const TOGETHER: usize = 16;

/// A query, and how close the last of its exact answer is.
pub(super) struct Sample {
    /// f32, shape `[dim]`.
    pub(super) query: Vec<f32>,
    pub(super) tenth: f32,
}

/// Queries between `rows` rows, at least one, on the threads of the current rayon pool. `tenths`: how close the last of
/// the exact answer to each of some queries is, in their order; of no meaning once `cancel` is true.
pub(super) fn sample<'a>(
    rows: usize,
    vector: impl Fn(Ordinal) -> VectorRef<'a> + Sync,
    tenths: impl Fn(&[Vec<f32>]) -> Vec<f32> + Sync + Send,
    cancel: &AtomicBool,
) -> Vec<Sample> {
    let sampled = SampledQueries::new(rows, QUERIES);
    let queries: Vec<Vec<f32>> = (0..sampled.count()).map(|at| sampled.query(at, &vector)).collect();
    let tenths_unless = |queries: &[Vec<f32>]| match cancel.load(Ordering::Relaxed) {
        true => vec![0.0; queries.len()],
        false => tenths(queries),
    };
    let tenths: Vec<Vec<f32>> = queries.par_chunks(TOGETHER).map(tenths_unless).collect();
    queries.into_iter().zip(tenths.into_iter().flatten()).map(|(query, tenth)| Sample { query, tenth }).collect()
}
