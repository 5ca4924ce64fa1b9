//! Searches of a segment of binary codes: bits choose, and everything that they choose is compared by its vector.

use super::bits::{self, BitQuantizer};
use super::error::SegmentError;
use super::filtered_walk::{FilteredOptions, FilteredStats, walk_filtered};
use super::format::{GraphHeader, Section};
use super::pool::Candidate;
use super::reader::{SectionView, Segment, row_range};
use super::scratch::{Scratch, with_scratch};
use super::walk::{Rows, SearchStats, WalkOptions, walk};
use crate::distance::{BitQuery, VectorQuery, prefetch};
use crate::types::{Ordinal, Quantization};

/// Candidates of a scan that are compared again for `top_k` results: bits of 768 components misplace a tenth of the
/// nearest by no more than this.
fn over_fetch(top_k: usize) -> usize {
    10 * top_k + 100
}

impl Segment {
    /// Whether the codes are bits.
    #[inline]
    pub(super) fn has_bits(&self) -> bool {
        self.header.spec.index.quantization == Quantization::Binary
    }

    /// What made the bits of a segment that has them.
    pub(super) fn bit_quantizer(&self) -> Result<BitQuantizer, SegmentError> {
        let bytes = self.bytes(Section::Codes, 0..4 * self.dim())?;
        let center = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(BitQuantizer::with_center(center, self.header.spec.metric))
    }

    /// As [`Segment::search`]: as many candidates as the walk keeps are compared again.
    pub(super) fn search_bits(
        &self,
        graph: GraphHeader,
        query: &VectorQuery,
        options: WalkOptions,
        live: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        let rows = self.bit_rows(query)?;
        with_scratch(|scratch| {
            let ef = options.ef.max(options.top_k);
            let stats = walk(&self.links(graph), &rows, ef, live, scratch)?;
            Ok(SearchStats { rescored: self.rescore_pool(query, options.top_k, scratch, out)?, ..stats })
        })
    }

    /// As [`Segment::search_filtered`].
    pub(super) fn search_bits_filtered(
        &self,
        graph: GraphHeader,
        query: &VectorQuery,
        options: FilteredOptions,
        seeds: &[Ordinal],
        passes: &impl Fn(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<FilteredStats, SegmentError> {
        let rows = self.bit_rows(query)?;
        with_scratch(|scratch| {
            let walked = walk_filtered(&self.links(graph), &rows, options, seeds, passes, scratch)?;
            let FilteredStats { mut stats, finished } = walked;
            if finished {
                stats.rescored = self.rescore_pool(query, options.top_k, scratch, out)?;
            }
            Ok(FilteredStats { stats, finished })
        })
    }

    /// As [`Segment::scan_rows`].
    pub(super) fn scan_bits(
        &self,
        query: &VectorQuery,
        top_k: usize,
        ordinals: impl IntoIterator<Item = Ordinal>,
        admit: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        let rows = self.bit_rows(query)?;
        with_scratch(|scratch| {
            let stats = self.compare_all(&rows, over_fetch(top_k), ordinals, admit, scratch)?;
            Ok(SearchStats { rescored: self.rescore_pool(query, top_k, scratch, out)?, ..stats })
        })
    }

    /// Bits err by more than the candidates are apart, so that no bound on the error would spare any of them.
    fn rescore_pool(
        &self,
        query: &VectorQuery,
        top_k: usize,
        scratch: &Scratch,
        out: &mut Vec<Candidate>,
    ) -> Result<u64, SegmentError> {
        self.rescore(query, top_k, usize::MAX, f32::NEG_INFINITY, scratch, out)
    }

    fn bit_rows(&self, query: &VectorQuery) -> Result<BitRows<'_>, SegmentError> {
        let dim = self.header.spec.dim;
        Ok(BitRows {
            codes: self.section(Section::Codes),
            first: bits::center_bytes(dim),
            stride: bits::stride(dim),
            query: self.bit_quantizer()?.query(query),
        })
    }
}

/// The rows of a segment as bits.
struct BitRows<'a> {
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
