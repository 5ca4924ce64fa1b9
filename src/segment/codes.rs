//! The codes of a row as the bytes that a segment holds, whatever their kind.

use super::SegmentSpec;
use super::bits::{self, BitQuantizer};
use super::error::SegmentError;
use super::format::Section;
use super::quantize::{self, Quantizer};
use super::reader::Segment;
use crate::distance::VectorRef;
use crate::types::{Ordinal, Quantization};

/// Makes the codes of one row after the other.
pub(super) enum RowCodes {
    /// One byte a component.
    Int8 { quantizer: Quantizer, codes: Vec<i8>, bytes: Vec<u8> },
    /// One bit a component.
    Bits { quantizer: BitQuantizer, bytes: Vec<u8> },
}

impl RowCodes {
    /// That suit `rows`; `None` where the segment has no codes.
    pub(super) fn fit(spec: &SegmentSpec, rows: &[VectorRef<'_>]) -> Option<Self> {
        let (dim, vector) = (spec.dim as usize, |row: usize| rows[row]);
        match spec.index.quantization {
            Quantization::None => None,
            Quantization::Int8 => Some(Self::int8(Quantizer::fit(spec.metric, rows.len(), dim, vector), spec.dim)),
            Quantization::Binary => Some(Self::bits(BitQuantizer::fit(spec.metric, rows.len(), dim, vector))),
        }
    }

    /// Those of a stored segment; `None` where it has none.
    pub(super) fn of(segment: &Segment) -> Result<Option<Self>, SegmentError> {
        if let Some(bits) = segment.bit_quantizer()? {
            return Ok(Some(Self::bits(bits.clone())));
        }
        Ok(segment.quantizer().map(|quantizer| Self::int8(quantizer, segment.header.spec.dim)))
    }

    fn int8(quantizer: Quantizer, dim: u32) -> Self {
        let stride = quantize::stride(dim);
        Self::Int8 { quantizer, codes: vec![0; stride], bytes: vec![0; stride] }
    }

    fn bits(quantizer: BitQuantizer) -> Self {
        let bytes = vec![0; quantizer.stride()];
        Self::Bits { quantizer, bytes }
    }

    /// The scale that the header holds.
    pub(super) fn scale(&self) -> Option<f32> {
        match self {
            Self::Int8 { quantizer, .. } => Some(quantizer.scale()),
            Self::Bits { .. } => None,
        }
    }

    /// What stands before the rows.
    pub(super) fn preamble(&self) -> Vec<u8> {
        match self {
            Self::Int8 { .. } => Vec::new(),
            Self::Bits { quantizer, .. } => quantizer.preamble(),
        }
    }

    /// The codes of a row. `vector`: f32, shape `[dim]`.
    pub(super) fn encode(&mut self, vector: &[f32]) -> &[u8] {
        match self {
            Self::Int8 { quantizer, codes, bytes } => {
                quantizer.encode(vector, codes);
                for (byte, code) in bytes.iter_mut().zip(codes.iter()) {
                    *byte = code.cast_unsigned();
                }
                bytes
            }
            Self::Bits { quantizer, bytes } => {
                quantizer.encode(vector, bytes);
                bytes
            }
        }
    }
}

impl Segment {
    /// The codes of a row as they are in the file. The segment has codes and the row exists.
    pub(super) fn code_bytes(&self, ordinal: Ordinal, codes: &RowCodes) -> Result<&[u8], SegmentError> {
        let dim = self.header.spec.dim;
        let (first, stride) = match codes {
            RowCodes::Int8 { .. } => (0, quantize::stride(dim)),
            RowCodes::Bits { .. } => (bits::center_bytes(dim), bits::stride(dim)),
        };
        let start = first + ordinal as usize * stride;
        self.bytes(Section::Codes, start..start + stride)
    }
}
