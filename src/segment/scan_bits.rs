//! Bits beside int8 codes, for scans of segments that have no graph yet.
//!
//! What was just written is scanned by every search until a graph is built over it, and a scan compares far more rows
//! than it keeps. In blocks of 32 (`distance/bit_blocks.rs`) a row of bits is compared in a sixth of the time of a row
//! of codes: with 384 components and AVX2 3.4 ns. What bits misplace is put right by comparing the best of them again
//! by codes, and the best of these in f32. How many have to be compared depends on the vectors, so it is measured
//! before the bits are written, and where they do not find what codes find, there are none.

use super::SegmentSpec;
use super::bits::{self, BitQuantizer};
use super::calibration::CALIBRATED_TOP_K;
use super::error::SegmentError;
use super::format::Section;
use super::pool::Candidate;
use super::reader::Segment;
use super::sampled::SampledQueries;
use super::sieve::Sieve;
use crate::distance::{BLOCK_ROWS, BitBlockQuery, VectorQuery, VectorRef, block_bytes, blocks_are_fast, fill_block};
use crate::types::{IndexDefinition, Ordinal, Quantization};

/// Below so many components the signs say too little, and codes take few cache lines anyway.
const MIN_DIM: u32 = 128;
/// Fewer vectors than this have no bits: scanning their codes takes less time than the rest of a search.
const MIN_VECTORS: usize = 1_024;
/// One vector in so many takes as long to compare by its code as these by their bits.
const FEW_OF_ALL: u32 = 8;
/// Queries that the bits are measured with.
const QUERIES: usize = 32;
/// Share of the exact answers that must be among the best by bits.
pub(super) const MIN_RECALL: f64 = 0.99;

/// Candidates of bits that are compared again for `top_k` results where a scan chooses them from all rows.
pub(super) fn bit_over_fetch(top_k: usize) -> usize {
    10 * top_k + 100
}

/// Whether segments without a graph may have bits beside their codes.
pub(super) fn suits_bits(dim: u32, index: &IndexDefinition) -> bool {
    index.quantization == Quantization::Int8 && dim >= MIN_DIM
}

/// Bytes of the section: the center, then the blocks.
pub(super) fn section_bytes(vectors: u64, dim: u32) -> u64 {
    let block = block_bytes(bits::sign_bytes(dim));
    bits::center_bytes(dim) as u64 + vectors.div_ceil(BLOCK_ROWS as u64) * block as u64
}

/// Makes one block after the other.
pub(super) struct BlockEncoder<'a> {
    quantizer: &'a BitQuantizer,
    rows: Vec<u8>,
    block: Vec<u8>,
    memory: Vec<f32>,
}

impl<'a> BlockEncoder<'a> {
    pub(super) fn new(quantizer: &'a BitQuantizer) -> Self {
        let (rows, block) = (vec![0; BLOCK_ROWS * quantizer.stride()], vec![0; block_bytes(quantizer.sign_bytes())]);
        Self { quantizer, rows, block, memory: Vec::new() }
    }

    /// The block of at most 32 vectors.
    pub(super) fn encode(&mut self, vectors: &[VectorRef<'_>]) -> &[u8] {
        let stride = self.quantizer.stride();
        let rows = &mut self.rows[..vectors.len() * stride];
        for (row, vector) in rows.chunks_exact_mut(stride).zip(vectors) {
            self.quantizer.encode(vector.read(&mut self.memory), row);
        }
        fill_block(rows, stride, self.quantizer.sign_bytes(), &mut self.block);
        &self.block
    }
}

/// The bits of a segment to be written.
pub(super) struct ScanBits {
    quantizer: BitQuantizer,
    /// Shape `[blocks, block_bytes]`.
    blocks: Vec<u8>,
}

impl ScanBits {
    /// Those of `vectors`, where scans on this machine are the better for them.
    pub(super) fn worth_it(spec: &SegmentSpec, vectors: &[VectorRef<'_>]) -> Option<Self> {
        if !suits_bits(spec.dim, &spec.index) || vectors.len() < MIN_VECTORS || !blocks_are_fast() {
            return None;
        }
        let bits = Self::new(spec, vectors);
        (bits.recall(spec, vectors) >= MIN_RECALL).then_some(bits)
    }

    fn new(spec: &SegmentSpec, vectors: &[VectorRef<'_>]) -> Self {
        let quantizer = BitQuantizer::fit(spec.metric, vectors.len(), spec.dim as usize, |row| vectors[row]);
        let mut blocks = Vec::with_capacity(section_bytes(vectors.len() as u64, spec.dim) as usize);
        let mut encoder = BlockEncoder::new(&quantizer);
        vectors.chunks(BLOCK_ROWS).for_each(|vectors| blocks.extend(encoder.encode(vectors)));
        Self { quantizer, blocks }
    }

    /// What stands before the blocks.
    pub(super) fn preamble(&self) -> Vec<u8> {
        self.quantizer.preamble()
    }

    /// The blocks of 32 vectors each.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.chunks_exact(block_bytes(self.quantizer.sign_bytes()))
    }

    /// The share of the exact answers to queries between the vectors that is among the candidates by bits.
    fn recall(&self, spec: &SegmentSpec, vectors: &[VectorRef<'_>]) -> f64 {
        let sampled = SampledQueries::new(vectors.len(), QUERIES);
        let hits = |at: usize| {
            let query = VectorQuery::new(spec.metric, sampled.query(at, |row| vectors[row as usize]));
            self.hits(&query, vectors)
        };
        let wanted = sampled.count() * CALIBRATED_TOP_K.min(vectors.len());
        (0..sampled.count()).map(hits).sum::<usize>() as f64 / wanted as f64
    }

    /// How many candidates by bits are as near as the last of the exact answer.
    fn hits(&self, query: &VectorQuery, vectors: &[VectorRef<'_>]) -> usize {
        let by_bits = self.quantizer.block_query(query);
        let mut candidates = Sieve::new(bit_over_fetch(CALIBRATED_TOP_K));
        for (first, block) in (0..vectors.len()).step_by(BLOCK_ROWS).zip(self.blocks()) {
            let rows = BLOCK_ROWS.min(vectors.len() - first);
            offer_block(&by_bits, block, first as Ordinal, rows, &mut candidates, &mut |_| true);
        }
        let mut nearest = Sieve::new(CALIBRATED_TOP_K);
        for (ordinal, &vector) in (0..).zip(vectors) {
            let closeness = query.closeness_of(vector);
            if nearest.admits(closeness) {
                nearest.insert(Candidate { closeness, ordinal });
            }
        }
        let last = nearest.nearest().fold(f32::INFINITY, |last, near| last.min(near.closeness));
        let is_near = |found: &Candidate| query.closeness_of(vectors[found.ordinal as usize]) >= last;
        candidates.nearest().filter(is_near).count().min(CALIBRATED_TOP_K)
    }
}

/// Offers the first `rows` rows of a block, the first of which is row `first`, to `sieve`.
#[inline]
pub(super) fn offer_block(
    query: &BitBlockQuery,
    block: &[u8],
    first: Ordinal,
    rows: usize,
    sieve: &mut Sieve,
    live: &mut impl FnMut(Ordinal) -> bool,
) {
    let mut closeness = [0.0; BLOCK_ROWS];
    let mut near = query.compare(block, sieve.floor(), &mut closeness);
    if rows < BLOCK_ROWS {
        near &= (1 << rows) - 1;
    }
    while near != 0 {
        let row = near.trailing_zeros();
        near &= near - 1;
        let (ordinal, closeness) = (first + row, closeness[row as usize]);
        if sieve.admits(closeness) && live(ordinal) {
            sieve.insert(Candidate { closeness, ordinal });
        }
    }
}

impl Segment {
    /// Whether to compare the bits of all vectors in blocks ([`Segment::scan`]) rather than the codes of these
    /// candidates: faster once they are more than an eighth of the vectors.
    pub fn scans_in_blocks(&self, candidates: u32) -> bool {
        self.header.has_bits && blocks_are_fast() && candidates > self.vector_count() / FEW_OF_ALL
    }

    /// The `keep` nearest rows for which `live` holds, by bits, in no order. `live` is asked of those near enough.
    pub(super) fn sift(
        &self,
        quantizer: &BitQuantizer,
        query: &VectorQuery,
        keep: usize,
        mut live: impl FnMut(Ordinal) -> bool,
    ) -> Result<Vec<Ordinal>, SegmentError> {
        let (query, mut sieve) = (quantizer.block_query(query), Sieve::new(keep));
        let (blocks, width) = (self.section::<u8>(Section::Bits), block_bytes(quantizer.sign_bytes()));
        let mut start = bits::center_bytes(self.header.spec.dim);
        for first in (0..self.vector_count()).step_by(BLOCK_ROWS) {
            let rows = (self.vector_count() - first).min(BLOCK_ROWS as Ordinal) as usize;
            offer_block(&query, blocks.get(start..start + width)?, first, rows, &mut sieve, &mut live);
            start += width;
        }
        Ok(sieve.nearest().map(|near| near.ordinal).collect())
    }
}
