//! What walks and scans of a segment read: its nibbles, codes and vectors as rows, and the links of its graph.

use super::error::SegmentError;
use super::format::{GraphHeader, Section};
use super::graph::{level0_range, upper_range};
use super::nibbles::{self, NibbleQuantizer};
use super::quantize::{Quantizer, stride};
use super::reader::{SectionView, Segment, VectorsView, row_range};
use super::scratch::Scratch;
use super::walk::{Links, Rows};
use crate::distance::{CodeQuery, NibbleQuery, VectorQuery, prefetch};
use crate::types::Ordinal;

/// Standard deviations of rounding that a candidate is allowed to seem too far: one in 30,000 is farther.
const ROUNDING_ERRORS: f32 = 4.0;
/// The same of nibbles: one in 700. They are compared by codes first, so that more costs more.
const NIBBLE_ROUNDING_ERRORS: f32 = 3.0;

impl Segment {
    pub(super) fn nibble_rows(
        &self,
        quantizer: &NibbleQuantizer,
        query: &VectorQuery,
        scratch: &mut Scratch,
    ) -> NibbleRows<'_> {
        let query = quantizer.query(query.vector(), std::mem::take(&mut scratch.nibbles));
        NibbleRows { nibbles: self.section(Section::Nibbles), query, stride: nibbles::stride(self.header.spec.dim) }
    }

    pub(super) fn code_rows(&self, quantizer: Quantizer, query: &VectorQuery, scratch: &mut Scratch) -> CodeRows<'_> {
        let query = quantizer.query(query, std::mem::take(&mut scratch.codes));
        let dim = self.header.spec.dim;
        CodeRows { codes: self.section(Section::Codes), query, dim: dim as usize, stride: stride(dim) }
    }

    pub(super) fn full_rows<'a>(&'a self, query: &'a VectorQuery) -> FullRows<'a> {
        FullRows { vectors: self.vectors_view(), query, dim: self.dim() }
    }

    pub(super) fn links(&self, graph: GraphHeader) -> StoredLinks<'_> {
        StoredLinks {
            segment: self,
            graph,
            m: self.spec().index.m,
            level0: self.section(Section::Level0),
            upper_index: self.section(Section::UpperIndex),
            upper: self.section(Section::Upper),
        }
    }
}

/// The closeness of the last of the `top_k` nearest in the pool, and its row; `None` where the pool holds no more.
fn last_of(top_k: usize, scratch: &Scratch) -> Option<super::pool::Candidate> {
    let last = scratch.pool.nearest(top_k).last();
    last.filter(|_| scratch.pool.nearest(top_k + 1).len() > top_k)
}

/// The rows of a segment as nibbles.
pub(super) struct NibbleRows<'a> {
    nibbles: SectionView<'a, u8>,
    pub(super) query: NibbleQuery,
    stride: usize,
}

impl NibbleRows<'_> {
    /// The least closeness by nibbles that may still be among the `top_k` in f32, as far as the pool tells.
    pub(super) fn floor(&self, top_k: usize, scratch: &Scratch) -> f32 {
        last_of(top_k, scratch).map_or(f32::NEG_INFINITY, |last| last.closeness - self.error())
    }

    fn error(&self) -> f32 {
        // As of codes.
        NIBBLE_ROUNDING_ERRORS * std::f32::consts::SQRT_2 * self.query.rounding_error()
    }
}

impl Rows for NibbleRows<'_> {
    type Error = SegmentError;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        prefetch(self.nibbles.unchecked(row_range(ordinal, self.stride)));
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, SegmentError> {
        Ok(self.query.closeness(self.nibbles.get(row_range(ordinal, self.stride))?))
    }

    #[inline]
    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), SegmentError> {
        if !self.nibbles.is_verified() {
            for &ordinal in ordinals {
                self.nibbles.get(row_range(ordinal, self.stride))?;
            }
        }
        self.query.compare(self.nibbles.all_unchecked(), ordinals, closeness);
        Ok(())
    }

    fn margin(&self, _: Ordinal) -> Option<f32> {
        Some(self.error())
    }
}

/// The rows of a segment as codes.
pub(super) struct CodeRows<'a> {
    codes: SectionView<'a, i8>,
    pub(super) query: CodeQuery,
    dim: usize,
    stride: usize,
}

impl CodeRows<'_> {
    /// The least closeness by codes that may still be among the `top_k` in f32, as far as the pool tells.
    pub(super) fn floor(&self, top_k: usize, scratch: &Scratch) -> f32 {
        last_of(top_k, scratch).map_or(f32::NEG_INFINITY, |last| last.closeness - self.error(last.ordinal))
    }

    fn error(&self, ordinal: Ordinal) -> f32 {
        let row = self.codes.unchecked(row_range(ordinal, self.stride));
        // Both of two candidates that are compared may err, in opposite directions.
        ROUNDING_ERRORS * std::f32::consts::SQRT_2 * self.query.rounding_error(row, self.dim)
    }
}

impl Rows for CodeRows<'_> {
    type Error = SegmentError;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        prefetch(self.codes.unchecked(row_range(ordinal, self.stride)));
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, SegmentError> {
        Ok(self.query.closeness(self.codes.get(row_range(ordinal, self.stride))?) as f32)
    }

    #[inline]
    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), SegmentError> {
        if !self.codes.is_verified() {
            for &ordinal in ordinals {
                self.codes.get(row_range(ordinal, self.stride))?;
            }
        }
        self.query.compare(self.codes.all_unchecked(), ordinals, closeness);
        Ok(())
    }

    fn margin(&self, of: Ordinal) -> Option<f32> {
        Some(self.error(of))
    }
}

/// The rows of a segment as vectors. Their closeness is the score: rows that users see as equally near are.
pub(super) struct FullRows<'a> {
    vectors: VectorsView<'a>,
    query: &'a VectorQuery,
    dim: usize,
}

impl Rows for FullRows<'_> {
    type Error = SegmentError;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        self.vectors.unchecked(row_range(ordinal, self.dim)).prefetch();
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, SegmentError> {
        Ok(self.query.score_of(self.vectors.get(row_range(ordinal, self.dim))?))
    }
}

/// The graph of a segment, checked list by list as it is walked.
pub(super) struct StoredLinks<'a> {
    segment: &'a Segment,
    graph: GraphHeader,
    m: u32,
    level0: SectionView<'a, u32>,
    upper_index: SectionView<'a, u32>,
    upper: SectionView<'a, u32>,
}

impl StoredLinks<'_> {
    /// Number of the list of a row on an upper level.
    fn upper_list(&self, ordinal: Ordinal, level: u32) -> Result<u32, SegmentError> {
        let index = ordinal as usize;
        let lists = self.upper_index.get(index..index + 2)?;
        let list = lists[0].checked_add(level - 1).filter(|&list| list < lists[1]);
        match list {
            Some(list) if lists[1] <= self.graph.upper_lists => Ok(list),
            _ => {
                let reason = format!("row {ordinal} is linked on level {level}, where it has no list");
                Err(self.segment.damaged(Section::UpperIndex, 4 * index, reason))
            }
        }
    }
}

impl Links for StoredLinks<'_> {
    type Error = SegmentError;

    fn rows(&self) -> u32 {
        self.segment.vector_count()
    }

    fn entry(&self) -> Ordinal {
        self.graph.entry
    }

    fn max_level(&self) -> u32 {
        self.graph.max_level
    }

    #[inline]
    fn list(&self, ordinal: Ordinal, level: u32) -> Result<&[u32], SegmentError> {
        if level == 0 {
            return self.level0.get(level0_range(self.m, ordinal));
        }
        self.upper.get(upper_range(self.m, self.upper_list(ordinal, level)?))
    }

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        prefetch(self.level0.unchecked(level0_range(self.m, ordinal)));
    }

    #[cold]
    fn out_of_range(&self, ordinal: Ordinal, level: u32, neighbour: u32) -> SegmentError {
        let rows = self.segment.vector_count();
        let reason = format!("row {ordinal} is linked on level {level} to row {neighbour} of {rows}");
        self.segment.damaged(Section::Level0, 4 * level0_range(self.m, ordinal).start, reason)
    }
}
