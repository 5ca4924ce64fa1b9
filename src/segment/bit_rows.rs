//! The rows of a segment as bits, for walks and scans.

use super::bits::{self, BitQuantizer};
use super::error::SegmentError;
use super::format::Section;
use super::reader::{SectionView, Segment, row_range};
use super::walk::Rows;
use crate::distance::{BitQuery, VectorQuery, prefetch};
use crate::types::{Ordinal, Quantization};

impl Segment {
    /// What made the bits that stand in place of codes; `None` where the segment has none.
    pub(super) fn bit_quantizer(&self) -> Result<Option<&BitQuantizer>, SegmentError> {
        match self.header.spec.index.quantization {
            Quantization::Binary => self.read_center(Section::Codes).map(Some),
            Quantization::Int8 | Quantization::None => Ok(None),
        }
    }

    /// What made the bits that scans of all rows read; `None` where the segment has none.
    pub(super) fn scan_bits(&self) -> Result<Option<&BitQuantizer>, SegmentError> {
        self.header.has_bits.then(|| self.read_center(Section::Bits)).transpose()
    }

    /// No segment has bits of both kinds, so one center is kept.
    #[inline]
    fn read_center(&self, section: Section) -> Result<&BitQuantizer, SegmentError> {
        if let Some(read) = self.bit_center.get() {
            return Ok(read);
        }
        let bytes = self.bytes(section, 0..4 * self.dim())?;
        let center = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(self.bit_center.get_or_init(|| BitQuantizer::with_center(center, self.header.spec.metric)))
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
