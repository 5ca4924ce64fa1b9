//! The rows as walks on nibbles will see them, to measure these before they are written.

use super::points::Points;
use crate::distance::{NibbleQuery, prefetch};
use crate::segment::{NibbleQuantizer, Rows};
use crate::types::Ordinal;

/// The nibbles of all rows.
pub(super) struct NibbleTable {
    quantizer: NibbleQuantizer,
    nibbles: Vec<u8>,
}

impl NibbleTable {
    pub(super) fn new(points: &Points<'_>) -> Self {
        let dim = points.vector(0).dim();
        let quantizer = NibbleQuantizer::fit(points.rows(), dim, |row| points.vector(row as Ordinal));
        let mut memory = Vec::new();
        let stride = quantizer.query(points.vector(0).read(&mut memory), Vec::new()).stride();
        let mut nibbles = vec![0; points.rows() * stride];
        for (row, nibbles) in nibbles.chunks_exact_mut(stride).enumerate() {
            quantizer.encode(points.vector(row as Ordinal).read(&mut memory), nibbles);
        }
        Self { quantizer, nibbles }
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
        &self.table.nibbles[row as usize * stride..(row as usize + 1) * stride]
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
        self.query.compare(&self.table.nibbles, ordinals, closeness);
        Ok(())
    }
}
