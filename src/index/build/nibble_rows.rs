//! The rows as walks on nibbles see them: those that look for neighbours of a row that is inserted, and those that
//! measure a finished graph before it is written.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::points::Points;
use crate::distance::{NibbleQuery, prefetch};
use crate::segment::{NibbleQuantizer, Rows};
use crate::storage::{Arena, Piece};
use crate::types::Ordinal;

/// Nibbles look for neighbours only if this `SHARE` of a row's `NEAREST` is among its `LOOKED_AT` nearest by nibbles.
const NEAREST: usize = 32;
const LOOKED_AT: usize = 2 * NEAREST;
const SHARE: f64 = 0.99;
/// Rows that this is measured on, and how many of them are queries.
const SAMPLE_ROWS: usize = 8_192;
const SAMPLE_QUERIES: usize = 64;

/// The nibbles of all rows.
pub(super) struct NibbleTable {
    quantizer: NibbleQuantizer,
    nibbles: Piece<u8>,
    clips: bool,
}

impl NibbleTable {
    /// On the threads of the current rayon pool.
    pub(super) fn new(points: &Points<'_>) -> Self {
        let dim = points.vector(0).dim();
        let quantizer = NibbleQuantizer::fit(points.rows(), dim, |row| points.vector(row as Ordinal));
        let stride = quantizer.query(points.vector(0).read(&mut Vec::new()), Vec::new()).stride();
        let mut nibbles = Arena::default().zeroed(points.rows() * stride);
        let clips = AtomicBool::new(false);
        nibbles.as_mut_slice().par_chunks_exact_mut(stride).enumerate().for_each_init(
            Vec::new,
            |memory, (row, nibbles)| {
                let vector = points.vector(row as Ordinal);
                let vector = vector.read(memory);
                quantizer.encode(vector, nibbles);
                if quantizer.clips(vector) {
                    clips.store(true, Ordering::Relaxed);
                }
            },
        );
        Self { quantizer, nibbles, clips: clips.into_inner() }
    }

    /// Whether a row lies so far from the others that its nibbles do not tell what it is near.
    pub(super) fn clips(&self) -> bool {
        self.clips
    }

    /// Whether those that look nearest by nibbles hold those that are, among a sample of the rows.
    pub(super) fn finds_neighbours(&self, points: &Points<'_>) -> bool {
        let step = points.rows().div_ceil(SAMPLE_ROWS);
        let rows: Vec<Ordinal> = (0..points.rows() as Ordinal).step_by(step).collect();
        if rows.len() <= LOOKED_AT {
            return true;
        }
        let queries: Vec<Ordinal> = rows.iter().copied().step_by(rows.len().div_ceil(SAMPLE_QUERIES)).collect();
        let found: usize = queries.par_iter().map(|&query| self.found(points, query, &rows)).sum();
        found as f64 >= SHARE * (NEAREST * queries.len()) as f64
    }

    /// How many of the nearest to `query` among `rows` are among those that look nearest by nibbles.
    fn found(&self, points: &Points<'_>, query: Ordinal, rows: &[Ordinal]) -> usize {
        let (mut seen, mut distances) = (Vec::new(), Vec::with_capacity(rows.len()));
        let Ok(()) = self.searched_for(&points.vector(query).in_full()).compare(rows, &mut seen);
        points.distances(query, rows, |distance| distances.push(distance));
        let mut looked_at: Vec<usize> = (0..rows.len()).collect();
        looked_at.select_nth_unstable_by(LOOKED_AT - 1, |&a, &b| seen[b].total_cmp(&seen[a]));
        let looked_at: Vec<f32> = looked_at[..LOOKED_AT].iter().map(|&at| distances[at]).collect();
        let (_, farthest, _) = distances.select_nth_unstable_by(NEAREST - 1, f32::total_cmp);
        looked_at.iter().filter(|distance| *distance <= farthest).count().min(NEAREST)
    }

    /// The rows as a search for `vector` sees them.
    pub(super) fn searched_for(&self, vector: &[f32]) -> SeenByNibbles<'_> {
        SeenByNibbles { table: self, query: self.quantizer.query(vector, Vec::new()) }
    }
}

/// Rows, and a query that their nibbles are compared with.
pub(super) struct SeenByNibbles<'a> {
    table: &'a NibbleTable,
    query: NibbleQuery,
}

impl SeenByNibbles<'_> {
    fn nibbles(&self, row: Ordinal) -> &[u8] {
        let stride = self.query.stride();
        &self.table.nibbles.as_slice()[row as usize * stride..(row as usize + 1) * stride]
    }
}

impl Rows for SeenByNibbles<'_> {
    type Error = std::convert::Infallible;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        prefetch(self.nibbles(ordinal));
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, Self::Error> {
        Ok(self.query.closeness(self.nibbles(ordinal)))
    }

    #[inline]
    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), Self::Error> {
        self.query.compare(self.table.nibbles.as_slice(), ordinals, closeness);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::VectorRef;
    use crate::types::{Metric, Quantization};

    /// Rows of length 1 around `centers` points, each `spread` away from its own in every component at most.
    fn clustered(rows: usize, centers: usize, spread: f32) -> Vec<Vec<f32>> {
        const DIM: usize = 128;
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let centers: Vec<Vec<f32>> = (0..centers).map(|_| (0..DIM).map(|_| next()).collect()).collect();
        let row = |at: usize| {
            let row: Vec<f32> = centers[at % centers.len()].iter().map(|x| x + spread * next()).collect();
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.into_iter().map(|x| x / length).collect()
        };
        (0..rows).map(row).collect()
    }

    fn finds_neighbours(vectors: &[Vec<f32>]) -> bool {
        let rows: Vec<VectorRef<'_>> = vectors.iter().map(|vector| VectorRef::Float32(vector)).collect();
        let points = Points::new(&rows, Metric::Cosine, Quantization::Int8);
        NibbleTable::new(&points).finds_neighbours(&points)
    }

    #[test]
    fn nibbles_find_neighbours_unless_steps_are_wider_than_what_keeps_rows_apart() {
        assert!(finds_neighbours(&clustered(4_000, 100, 0.7)));
        assert!(!finds_neighbours(&clustered(4_000, 10, 0.02)), "400 rows that nibbles hardly tell apart");
        assert!(finds_neighbours(&clustered(4_000, 10, 0.0)), "which of equal rows are neighbours does not matter");
        assert!(finds_neighbours(&clustered(LOOKED_AT, 10, 0.02)), "all are looked at");
    }
}
