//! Queries to measure a segment with: points between its vectors.
//!
//! Rows would be easy ones: where each has near copies, as texts that overlap or were written twice have, its nearest
//! are all in one place. Questions lie between texts. A row that is moved some way towards another one, drawn from all,
//! asks for about as much effort as a question does: of 100,000 and of 250,000 texts, copies among them, walks find the
//! nearest of both alike (docs/benchmarks.md, "A million").

use crate::distance::VectorRef;
use crate::types::Ordinal;

/// How much of another row comes to one of a row.
const OF_ANOTHER: f32 = 0.45;

/// Which rows the queries are made of.
#[derive(Clone, Debug)]
pub struct SampledQueries {
    rows: Vec<Ordinal>,
}

impl SampledQueries {
    /// At most `count` queries, of evenly spaced rows of `rows`, at least one.
    pub fn new(rows: usize, count: usize) -> Self {
        Self { rows: (0..rows).step_by(rows.div_ceil(count)).map(|row| row as Ordinal).collect() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Query `at`: f32, shape `[dim]`, on the way from its row to the one half of the list further on.
    pub fn query<'a>(&self, at: usize, vector: impl Fn(Ordinal) -> VectorRef<'a>) -> Vec<f32> {
        let other = self.rows[(at + self.rows.len() / 2) % self.rows.len()];
        let (row, other) = (vector(self.rows[at]).in_full(), vector(other).in_full());
        row.iter().zip(other.iter()).map(|(row, other)| (row + OF_ANOTHER * other) / (1.0 + OF_ANOTHER)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_lie_between_rows_that_are_far_apart_in_the_list() {
        let rows: Vec<Vec<f32>> = (0..1_000).map(|row| vec![row as f32, 1.0]).collect();
        let sampled = SampledQueries::new(rows.len(), 256);
        assert_eq!(sampled.count(), 250);
        for at in 0..sampled.count() {
            let query = sampled.query(at, |row| VectorRef::Float32(&rows[row as usize]));
            let (row, other) = ((at * 4) as f32, ((at + 125) % 250 * 4) as f32);
            let (low, high) = (row.min(other), row.max(other));
            assert!(query[0] > low && query[0] < high, "{row}, {other}: {query:?}");
            assert!((query[0] - row).abs() < (query[0] - other).abs(), "nearer to the first");
            assert!((query[1] - 1.0).abs() < 1e-6);
        }
        assert_eq!(SampledQueries::new(1, 32).count(), 1);
    }
}
