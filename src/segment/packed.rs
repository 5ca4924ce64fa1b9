//! Rows that are searched again and again, packed: their bits side by side in memory, in blocks as `scan_bits.rs` has
//! them of all rows of a segment without a graph.
//!
//! What passes a filter lies scattered over a segment, and each row that a search compares is a few cache lines to wait
//! for. Packed, 32 rows are compared at once, one after the other in memory. The center is that of these rows, so that
//! bits say how they differ among themselves. How many of the best by bits have to be compared again is measured when
//! rows are packed.

use super::SegmentSpec;
use super::apart::ReadRow;
use super::bits::BitQuantizer;
use super::calibration::CALIBRATED_TOP_K;
use super::error::SegmentError;
use super::pool::Candidate;
use super::reader::Segment;
use super::sampled::SampledQueries;
use super::scan_bits::{BlockEncoder, MIN_RECALL, offer_block, suits_bits};
use super::sieve::Sieve;
use super::walk::SearchStats;
use crate::distance::{BLOCK_ROWS, VectorQuery, VectorRef, block_bytes, blocks_are_fast};
use crate::types::Ordinal;

/// Rows whose mean is the center, at most.
const CENTER_ROWS: usize = 1_024;
/// Queries to measure with: half of them near packed rows, half near any.
const QUERIES: usize = 32;
/// Safety factor on the measured number of candidates, for queries unlike those measured. To compare one more by its
/// code takes as long as ten rows by their bits.
const MARGIN: usize = 2;
/// Candidates for each result at least.
const LEAST_PER_RESULT: usize = 4;
/// Bits are not worth their memory where more than all rows divided by this would have to be compared again.
const MOST_COMPARED_AGAIN_DIVISOR: usize = 2;

/// The bits of some rows of one segment.
pub struct PackedRows {
    /// Ascending.
    ordinals: Box<[Ordinal]>,
    quantizer: BitQuantizer,
    /// Shape `[blocks, block_bytes]`.
    blocks: Box<[u8]>,
    /// Candidates by bits for every [`CALIBRATED_TOP_K`] results.
    pub(super) over_fetch: usize,
}

impl PackedRows {
    /// Memory that packing so many rows of `dim` components takes.
    pub fn bytes_for(rows: u32, dim: usize) -> usize {
        let blocks = rows.div_ceil(BLOCK_ROWS as u32) as usize;
        size_of::<Self>() + blocks * block_bytes(dim.div_ceil(8)) + (4 * dim) + size_of::<Ordinal>() * rows as usize
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        Self::bytes_for(self.ordinals.len() as u32, self.quantizer.dim())
    }

    /// The blocks, each with the place of its first row among those packed and how many it holds.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize, &[u8])> {
        let rows = self.ordinals.len();
        let blocks = self.blocks.chunks_exact(block_bytes(self.quantizer.sign_bytes()));
        (0..rows)
            .step_by(BLOCK_ROWS)
            .zip(blocks)
            .map(move |(first, block)| (first, BLOCK_ROWS.min(rows - first), block))
    }

    /// Candidates by bits for `top_k` results.
    fn candidates(&self, top_k: usize) -> usize {
        self.over_fetch * top_k.div_ceil(CALIBRATED_TOP_K)
    }

    /// Of each row how near it is by bits.
    fn closeness(&self, query: &VectorQuery) -> Vec<f32> {
        let (query, mut closeness) = (self.quantizer.block_query(query), Vec::new());
        for (_, rows, block) in self.blocks() {
            let mut block_closeness = [0.0; BLOCK_ROWS];
            query.compare(block, f32::NEG_INFINITY, &mut block_closeness);
            closeness.extend_from_slice(&block_closeness[..rows]);
        }
        closeness
    }
}

impl Segment {
    /// Whether rows can be packed: where there are int8 codes of enough components, each row has one vector, and the
    /// machine compares blocks fast.
    pub fn packs(&self) -> bool {
        let SegmentSpec { dim, index, .. } = &self.header.spec;
        blocks_are_fast() && suits_bits(*dim, index) && !self.header.has_chunks
    }

    /// Packs `rows`, which ascend. `None` where the segment does not [pack](Self::packs), or bits would not find what
    /// codes find among few enough candidates. Takes 2 to 5 us a row of 384 components.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    pub fn pack(&self, rows: &[Ordinal]) -> Result<Option<PackedRows>, SegmentError> {
        if !self.packs() || rows.is_empty() {
            return Ok(None);
        }
        let (dim, metric) = (self.dim(), self.header.spec.metric);
        let (mut memory, mut vectors) = (ReadRow::default(), Vec::new());
        let sample = rows.iter().step_by(rows.len().div_ceil(CENTER_ROWS));
        self.copy_vectors(sample.copied(), &mut memory, &mut vectors)?;
        let quantizer = BitQuantizer::fit(metric, vectors.len() / dim, dim, |row| vector_at(&vectors, dim, row));
        let mut blocks = Vec::with_capacity(rows.len().div_ceil(BLOCK_ROWS) * block_bytes(quantizer.sign_bytes()));
        let mut encoder = BlockEncoder::new(&quantizer);
        for rows in rows.chunks(BLOCK_ROWS) {
            self.copy_vectors(rows.iter().copied(), &mut memory, &mut vectors)?;
            let vectors: Vec<VectorRef<'_>> = vectors.chunks_exact(dim).map(VectorRef::Float32).collect();
            blocks.extend(encoder.encode(&vectors));
        }
        let blocks = blocks.into_boxed_slice();
        let packed = PackedRows { ordinals: rows.into(), quantizer, blocks, over_fetch: 0 };
        let needed = self.candidates_needed(&packed)?;
        let over_fetch = needed.saturating_mul(MARGIN).max(LEAST_PER_RESULT * CALIBRATED_TOP_K);
        Ok((over_fetch <= rows.len() / MOST_COMPARED_AGAIN_DIVISOR).then_some(PackedRows { over_fetch, ..packed }))
    }

    /// How many of the best by bits hold what is nearest, as far as [`MIN_RECALL`] wants.
    fn candidates_needed(&self, packed: &PackedRows) -> Result<usize, SegmentError> {
        let (dim, metric, all) = (self.dim(), self.header.spec.metric, self.vector_count());
        let of_packed = packed.ordinals.iter().step_by(packed.ordinals.len().div_ceil(QUERIES / 2)).copied();
        let of_all = (0..all).step_by(all.div_ceil(QUERIES as u32 / 2) as usize);
        let mut vectors = Vec::new();
        self.copy_vectors(of_packed.chain(of_all), &mut ReadRow::default(), &mut vectors)?;
        let count = vectors.len() / dim;
        // Each lies between one row and the one half of the list further on, and so between packed rows and any.
        let sampled = SampledQueries::new(count, count);
        let (mut ranks, mut nearest) = (Vec::new(), Vec::new());
        for at in 0..sampled.count() {
            let query = sampled.query(at, |row| vector_at(&vectors, dim, row as usize));
            let query = VectorQuery::new(metric, query);
            let closeness = packed.closeness(&query);
            self.scan_rows(&query, CALIBRATED_TOP_K, packed.ordinals.iter().copied(), |_| true, &mut nearest)?;
            ranks.extend(nearest.iter().filter_map(|near| {
                let own = closeness[packed.ordinals.binary_search(&near.ordinal).ok()?];
                // Of rows that look as near any may come first.
                Some(closeness.iter().filter(|&&other| other >= own).count())
            }));
        }
        ranks.sort_unstable();
        let wanted = (ranks.len() as f64 * MIN_RECALL).ceil() as usize;
        Ok(ranks.get(wanted.saturating_sub(1)).copied().unwrap_or(usize::MAX))
    }

    /// Replaces `vectors` by those of `rows`, f32, shape `[rows, dim]`.
    fn copy_vectors(
        &self,
        rows: impl Iterator<Item = Ordinal>,
        memory: &mut ReadRow,
        vectors: &mut Vec<f32>,
    ) -> Result<(), SegmentError> {
        vectors.clear();
        for row in rows {
            self.check_vector(row)?;
            let vector = match &self.apart {
                Some(file) => self.read_vector(file, row, memory)?,
                None => self.vector_at(row)?,
            };
            vectors.extend_from_slice(&vector.in_full());
        }
        Ok(())
    }

    /// Finds the `top_k` nearest of the packed rows for which `live` holds: the best by bits are compared by codes, and
    /// the best of these in f32. `packed`: of this segment. `out` as for [`Segment::scan_rows`].
    ///
    /// # Errors
    /// As [`Segment::search`].
    ///
    /// # Panics
    /// When the query has another dim.
    pub fn scan_packed(
        &self,
        packed: &PackedRows,
        query: &VectorQuery,
        top_k: usize,
        mut live: impl FnMut(Ordinal) -> bool,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, SegmentError> {
        let keep = packed.candidates(top_k);
        if top_k == 0 || keep >= packed.ordinals.len() || self.clips(query) {
            return self.scan_rows(
                query,
                top_k,
                packed.ordinals.iter().copied().filter(|&row| live(row)),
                |_| true,
                out,
            );
        }
        self.check_query(query);
        let (by_bits, mut sieve) = (packed.quantizer.block_query(query), Sieve::new(keep));
        let mut live = |at: Ordinal| live(packed.ordinals[at as usize]);
        for (first, rows, block) in packed.blocks() {
            offer_block(&by_bits, block, first as Ordinal, rows, &mut sieve, &mut live);
        }
        let near = sieve.nearest().map(|near| packed.ordinals[near.ordinal as usize]);
        let stats = self.scan_rows(query, top_k, near, |_| true, out)?;
        Ok(SearchStats { compared: packed.ordinals.len() as u64, ..stats })
    }
}

fn vector_at(vectors: &[f32], dim: usize, row: usize) -> VectorRef<'_> {
    VectorRef::Float32(&vectors[row * dim..(row + 1) * dim])
}
