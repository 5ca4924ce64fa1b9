//! Queries that a finished graph is measured with.
//!
//! Rows would be easy ones: where each has near copies, as texts that overlap or were written twice have, its nearest are all
//! in one place. Questions lie between texts. A row that is moved some way towards another one, drawn from all, asks for
//! about as much effort as a question does: of 100,000 and of 250,000 texts, copies among them, walks find the nearest of
//! both alike (docs/benchmarks.md, "A million").

use rayon::prelude::*;

use crate::distance::VectorRef;
use crate::types::Ordinal;

/// How many queries there are: recall@10 over so many is known to about half a hundredth.
const QUERIES: usize = 256;
/// How much of another row comes to one of a row.
const OF_ANOTHER: f32 = 0.45;

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
    let queries: Vec<Ordinal> = (0..rows).step_by(rows.div_ceil(QUERIES)).map(|row| row as Ordinal).collect();
    let far = queries.len() / 2;
    let make = |at: usize| {
        let (row, other) = (vector(queries[at]), vector(queries[(at + far) % queries.len()]));
        let query = between(&row.in_full(), &other.in_full());
        let tenth = tenth(&query);
        Sample { query, tenth }
    };
    (0..queries.len()).into_par_iter().map(make).collect()
}

/// A point on the way from `row` to `other`.
fn between(row: &[f32], other: &[f32]) -> Vec<f32> {
    row.iter().zip(other).map(|(row, other)| (row + OF_ANOTHER * other) / (1.0 + OF_ANOTHER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_lie_between_rows_that_are_far_apart_in_the_list() {
        let rows: Vec<Vec<f32>> = (0..1_000).map(|row| vec![row as f32, 1.0]).collect();
        let samples = sample(rows.len(), |row| VectorRef::Float32(&rows[row as usize]), |query| query[0]);
        assert_eq!(samples.len(), 250);
        for (at, sample) in samples.iter().enumerate() {
            let (row, other) = ((at * 4) as f32, ((at + 125) % 250 * 4) as f32);
            let (low, high) = (row.min(other), row.max(other));
            assert!(sample.query[0] > low && sample.query[0] < high, "{row}, {other}: {:?}", sample.query);
            assert!((sample.query[0] - row).abs() < (sample.query[0] - other).abs(), "nearer to the first");
            assert!((sample.query[1] - 1.0).abs() < 1e-6);
            assert_eq!(sample.tenth, sample.query[0]);
        }
    }
}
