//! Rows with several vectors: which vectors are whose, and where their chunks stand in the row's text.
//!
//! Vectors stand in the order of their rows, those of a row in the order of its chunks. What compares vectors (codes,
//! graph, walks, scans) counts vectors; what knows documents (seqs, frames, the dead, the document and field indexes)
//! counts rows. So a row that dies takes all of its vectors with it, by the one bit that there is.

use std::ops::Range;

use super::error::SegmentError;
use super::format::Section;
use super::reader::Segment;
use crate::distance::VectorRef;
use crate::types::{ChunkSpan, Ordinal};

impl Segment {
    /// Vectors in the segment: as many as rows, but for chunks.
    pub fn vector_count(&self) -> u32 {
        self.header.vectors
    }

    /// By vector the row that it belongs to, ascending and without gaps; `None` where vector and row are the same.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`].
    pub fn owners(&self) -> Result<Option<&[Ordinal]>, SegmentError> {
        match self.header.has_chunks {
            true => Ok(Some(self.numbers(Section::Chunks, 0..self.header.vectors as usize)?)),
            false => Ok(None),
        }
    }

    /// The vectors of a row.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    pub fn vectors_of(&self, row: Ordinal) -> Result<Range<Ordinal>, SegmentError> {
        self.check_row(row)?;
        let Some(owners) = self.owners()? else { return Ok(row..row + 1) };
        let first = owners.partition_point(|&owner| owner < row);
        let count = owners[first..].partition_point(|&owner| owner == row);
        Ok(first as Ordinal..(first + count) as Ordinal)
    }

    /// The vectors of a row, shape `[vectors, dim]`; one where it has no chunks.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    #[inline]
    pub fn vectors(&self, row: Ordinal) -> Result<VectorRef<'_>, SegmentError> {
        let Range { start, end } = self.vectors_of(row)?;
        self.vector_numbers(start as usize * self.dim()..end as usize * self.dim())
    }

    /// Where the chunks of a row stand in its text, one for each of its vectors; none in a segment without chunks.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    pub fn chunks(&self, row: Ordinal) -> Result<Vec<ChunkSpan>, SegmentError> {
        if !self.header.has_chunks {
            return Ok(Vec::new());
        }
        let Range { start, end } = self.vectors_of(row)?;
        // After the owners, which take one number each.
        let at = |vector: Ordinal| self.header.vectors as usize + 2 * vector as usize;
        let numbers = self.numbers::<u32>(Section::Chunks, at(start)..at(end))?;
        Ok(numbers.chunks_exact(2).map(|span| ChunkSpan { start: span[0], end: span[1] }).collect())
    }

    /// Refuses owners that are out of order or name no row: everything else relies on them.
    pub(super) fn check_owners(&self) -> Result<(), SegmentError> {
        let Some(owners) = self.owners()? else { return Ok(()) };
        let rows = self.rows();
        let mut next = 0;
        for (vector, &owner) in owners.iter().enumerate() {
            if owner == next && owner < rows {
                next += 1;
            } else if next == 0 || owner != next - 1 {
                let reason = format!("vector {vector} is said to be of row {owner} of {rows}, after row {next}");
                return Err(self.damaged(Section::Chunks, 4 * vector, reason));
            }
        }
        match next == rows {
            true => Ok(()),
            false => Err(self.damaged(Section::Chunks, 0, format!("row {next} of {rows} has no vector"))),
        }
    }
}
