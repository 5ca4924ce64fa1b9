//! The rows of a segment as bits, for walks and scans.

use super::bits::{self, BitQuantizer};
use super::error::SegmentError;
use super::format::Section;
use super::reader::{SectionView, Segment, row_range};
use super::walk::Rows;
use crate::distance::{BitQuery, VectorQuery, prefetch};
use crate::types::{Ordinal, Quantization};

impl Segment {
    /// What made the bits; `None` where the segment has none.
    pub(super) fn bit_quantizer(&self) -> Result<Option<BitQuantizer>, SegmentError> {
        let spec = &self.header.spec;
        if spec.index.quantization != Quantization::Binary {
            return Ok(None);
        }
        let bytes = self.bytes(Section::Codes, 0..4 * self.dim())?;
        let center = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Some(BitQuantizer::with_center(center, spec.metric)))
    }

    pub(super) fn bit_rows(&self, quantizer: &BitQuantizer, query: &VectorQuery) -> BitRows<'_> {
        let dim = self.header.spec.dim;
        let (first, stride) = (bits::center_bytes(dim), bits::stride(dim));
        BitRows { codes: self.section(Section::Codes), first, stride, query: quantizer.query(query) }
    }
}

/// The rows of a segment as bits.
pub(super) struct BitRows<'a> {
    /// The center, and the rows after it.
    codes: SectionView<'a, u8>,
    first: usize,
    stride: usize,
    query: BitQuery,
}

impl Rows for BitRows<'_> {
    type Error = SegmentError;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        let range = row_range(ordinal, self.stride);
        prefetch(self.codes.unchecked(self.first + range.start..self.first + range.end));
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, SegmentError> {
        let range = row_range(ordinal, self.stride);
        Ok(self.query.closeness(self.codes.get(self.first + range.start..self.first + range.end)?))
    }
}
