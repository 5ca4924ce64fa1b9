//! Queries that a finished graph is measured with.

use rayon::prelude::*;

use crate::distance::VectorRef;
use crate::segment::SampledQueries;
use crate::types::Ordinal;

/// How many queries there are: recall@10 over so many is known to about half a hundredth.
const QUERIES: usize = 256;

/// A query, and how close the last of its exact answer is.
pub(super) struct Sample {
    /// f32, shape `[dim]`.
    pub(super) query: Vec<f32>,
    pub(super) tenth: f32,
}

/// Queries between `rows` rows, at least one, on the threads of the current rayon pool. `tenth`: how close the last of a
/// query's exact answer is.
pub(super) fn sample<'a>(
    rows: usize,
    vector: impl Fn(Ordinal) -> VectorRef<'a> + Sync,
    tenth: impl Fn(&[f32]) -> f32 + Sync,
) -> Vec<Sample> {
    let sampled = SampledQueries::new(rows, QUERIES);
    let make = |at: usize| {
        let query = sampled.query(at, &vector);
        let tenth = tenth(&query);
        Sample { query, tenth }
    };
    (0..sampled.count()).into_par_iter().map(make).collect()
}
