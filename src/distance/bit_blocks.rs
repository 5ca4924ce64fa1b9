//! A query against blocks of 32 rows of one bit a component.
//!
//! A block holds the bytes of its rows' signs by position: first the first byte of each row, then the second of each.
//! What the query's numbers under four bits of a row add up to is one of 16 values, so a table of these answers for 32
//! rows at once with one instruction (the fast scan of André, Kermarrec & Le Scouarnec 2017, with the estimator of
//! RaBitQ, Gao & Long 2024).

use super::nibbles::row_of;

/// Rows of a block.
pub const BLOCK_ROWS: usize = 32;
/// Entries of a table, of one byte each: those of the lower half of a byte of signs, then those of the upper.
const TABLE: usize = 16;
/// Largest entry: two of them are added up in one byte.
const LARGEST: f32 = 127.0;
/// Bytes of the two numbers of a row, the factor and the offset.
const NUMBER_BYTES: usize = 4;

/// Bytes of a block of rows that have `positions` bytes of signs: these, then the factors, then the offsets.
pub const fn block_bytes(positions: usize) -> usize {
    BLOCK_ROWS * (positions + 2 * NUMBER_BYTES)
}

/// Whether this machine compares blocks faster than codes: where it has a kernel of its own.
pub fn blocks_are_fast() -> bool {
    avx2::is_available()
}

/// A query prepared for blocks of rows.
#[derive(Clone, Debug)]
pub struct BitBlockQuery {
    /// Shape `[positions, 2, TABLE]`.
    tables: Vec<u8>,
    /// What a row's entries add up to is `slope * sum + base` as a dot product with its signs.
    slope: f32,
    base: f32,
}

impl BitBlockQuery {
    /// `centered`: the query less the center, f32, shape `[dim]`.
    pub fn new(centered: &[f32]) -> Self {
        let mut sums = Vec::with_capacity(centered.len().div_ceil(8) * 2 * TABLE);
        // The least that each four components can add, which is left out of their table.
        let (mut least, mut widest) = (0.0f32, 0.0f32);
        for eight in centered.chunks(8) {
            let (lower, upper) = eight.split_at(eight.len().min(4));
            for four in [lower, upper] {
                let low: f32 = four.iter().map(|x| x.min(0.0)).sum();
                widest = widest.max(four.iter().map(|x| x.abs()).sum());
                least += low;
                // Each bit doubles what is there: without it, and with its component.
                let mut table = [-low; TABLE];
                for (at, x) in four.iter().enumerate() {
                    let (without, with) = table.split_at_mut(1 << at);
                    with.iter_mut().zip(without).for_each(|(with, without)| *with = *without + x);
                }
                sums.extend(table);
            }
        }
        // A query that is the center sees all rows alike.
        let scale = if widest > 0.0 { LARGEST / widest } else { 0.0 };
        let tables = sums.into_iter().map(|sum| (sum * scale + 0.5) as u8).collect();
        let slope = if scale > 0.0 { 2.0 / scale } else { 0.0 };
        let base = 2.0 * least - centered.iter().sum::<f32>();
        Self { tables, slope, base }
    }

    /// Bytes of signs of a row.
    fn positions(&self) -> usize {
        self.tables.len() / (2 * TABLE)
    }

    /// Replaces `closeness` by that of each row of a block, which rises as the row gets nearer. Returns which rows are
    /// not farther than `floor`: a bit each, from the lowest on.
    ///
    /// # Panics
    /// When `block` has another length than [`block_bytes`] says.
    #[inline]
    pub fn compare(&self, block: &[u8], floor: f32, closeness: &mut [f32; BLOCK_ROWS]) -> u32 {
        assert_eq!(block.len(), block_bytes(self.positions()), "bytes of a block");
        #[cfg(target_arch = "x86_64")]
        if avx2::is_available() {
            // SAFETY: the machine has AVX2; the block has the bytes that go with the tables.
            return unsafe { avx2::compare(block, &self.tables, [self.slope, self.base, floor], closeness) };
        }
        self.scalar_compare(block, floor, closeness)
    }

    /// What the kernels must give.
    fn scalar_compare(&self, block: &[u8], floor: f32, closeness: &mut [f32; BLOCK_ROWS]) -> u32 {
        let (signs, numbers) = block.split_at(BLOCK_ROWS * self.positions());
        let (factors, offsets) = numbers.split_at(BLOCK_ROWS * NUMBER_BYTES);
        let (factors, offsets) = (factors.as_chunks().0, offsets.as_chunks().0);
        let sums = scalar_sums(signs, &self.tables);
        let mut near = 0;
        for (row, (((closeness, sum), factor), offset)) in
            closeness.iter_mut().zip(sums).zip(factors).zip(offsets).enumerate()
        {
            let product = self.slope * sum as f32 + self.base;
            *closeness = f32::from_le_bytes(*factor) * product + f32::from_le_bytes(*offset);
            near |= u32::from(*closeness >= floor) << row;
        }
        near
    }
}

/// What the entries of each row add up to.
fn scalar_sums(signs: &[u8], tables: &[u8]) -> [u32; BLOCK_ROWS] {
    let mut sums = [0u32; BLOCK_ROWS];
    for (signs, tables) in signs.as_chunks::<BLOCK_ROWS>().0.iter().zip(tables.as_chunks::<{ 2 * TABLE }>().0) {
        for (sum, &byte) in sums.iter_mut().zip(signs) {
            *sum += u32::from(tables[usize::from(byte & 15)]) + u32::from(tables[TABLE + usize::from(byte >> 4)]);
        }
    }
    sums
}

/// Writes 32 rows of bits, as `distance/binary.rs` has them, as a block. `rows`: u8, shape `[rows, stride]`, at most 32
/// rows, each its signs and at its end its two numbers; where there are fewer, the others are zero. `block`: u8, of
/// [`block_bytes`] for `positions`.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn fill_block(rows: &[u8], stride: usize, positions: usize, block: &mut [u8]) {
    assert_eq!(block.len(), block_bytes(positions), "bytes of a block");
    block.fill(0);
    let (signs, numbers) = block.split_at_mut(BLOCK_ROWS * positions);
    let (factors, offsets) = numbers.split_at_mut(BLOCK_ROWS * NUMBER_BYTES);
    for at in 0..rows.len() / stride {
        let row = row_of(rows, stride, at as u32);
        for (position, &byte) in row[..positions].iter().enumerate() {
            signs[BLOCK_ROWS * position + at] = byte;
        }
        let (factor, offset) = row[stride - 2 * NUMBER_BYTES..].split_at(NUMBER_BYTES);
        factors[NUMBER_BYTES * at..NUMBER_BYTES * (at + 1)].copy_from_slice(factor);
        offsets[NUMBER_BYTES * at..NUMBER_BYTES * (at + 1)].copy_from_slice(offset);
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod avx2 {
    pub(super) fn is_available() -> bool {
        false
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! The kernel for x86-64. Covered by `kernels_agree_with_scalar`.

    use std::arch::x86_64::*;

    use super::{BLOCK_ROWS, NUMBER_BYTES, TABLE};

    /// Positions whose sums of two entries add up in 16 bits.
    const POSITIONS: usize = 256;
    /// Rows whose numbers fill a register.
    const LANES: usize = 8;

    #[inline]
    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("avx2")
    }

    /// `line`: slope and base, and the floor.
    ///
    /// # Safety
    /// The machine has AVX2; `block` is one with two tables for every 32 bytes of signs, and as many tables has
    /// `tables`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn compare(
        block: &[u8],
        tables: &[u8],
        line: [f32; 3],
        closeness: &mut [f32; BLOCK_ROWS],
    ) -> u32 {
        let (signs, numbers) = block.split_at(tables.len());
        let [slope, base, floor] = [_mm256_set1_ps(line[0]), _mm256_set1_ps(line[1]), _mm256_set1_ps(line[2])];
        let (factors, offsets) = numbers.split_at(BLOCK_ROWS * NUMBER_BYTES);
        let (factors, offsets) =
            (factors.chunks_exact(NUMBER_BYTES * LANES), offsets.chunks_exact(NUMBER_BYTES * LANES));
        // SAFETY: as the caller says.
        let sums = unsafe { sums(signs, tables) };
        let mut near = 0;
        for (at, (((sums, factors), offsets), closeness)) in
            sums.into_iter().zip(factors).zip(offsets).zip(closeness.as_chunks_mut::<LANES>().0).enumerate()
        {
            // SAFETY: eight numbers of 32 bits are readable, and writable in `closeness`; no alignment is needed.
            unsafe {
                // Every sum is far below 2^31.
                let product = _mm256_add_ps(_mm256_mul_ps(slope, _mm256_cvtepi32_ps(sums)), base);
                let scaled = _mm256_mul_ps(_mm256_loadu_ps(factors.as_ptr().cast()), product);
                let eight = _mm256_add_ps(scaled, _mm256_loadu_ps(offsets.as_ptr().cast()));
                _mm256_storeu_ps(closeness.as_mut_ptr(), eight);
                let nearer = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(eight, floor));
                near |= (nearer as u32) << (LANES * at);
            }
        }
        near
    }

    /// What the entries of each row add up to: 32 bits each, eight rows a register, in their order.
    ///
    /// # Safety
    /// The machine has AVX2; `tables` has two tables for every 32 bytes of `signs`.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums(signs: &[u8], tables: &[u8]) -> [__m256i; BLOCK_ROWS / LANES] {
        let mut sums = [_mm256_setzero_si256(); BLOCK_ROWS / LANES];
        let low = _mm256_set1_epi8(15);
        let (signs, tables) = (signs.as_chunks::<BLOCK_ROWS>().0, tables.as_chunks::<{ 2 * TABLE }>().0);
        for (signs, tables) in signs.chunks(POSITIONS).zip(tables.chunks(POSITIONS)) {
            // Of 16 bits each: of every row what its bytes add up to, of those at even places with the bytes after them
            // above.
            let (mut even, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for (signs, tables) in signs.iter().zip(tables) {
                // SAFETY: 32 bytes of each are readable; no alignment is needed.
                let (signs, lower, upper) = unsafe {
                    let tables = tables.as_ptr();
                    (
                        _mm256_loadu_si256(signs.as_ptr().cast()),
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(tables.cast())),
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(tables.add(TABLE).cast())),
                    )
                };
                let lower = _mm256_shuffle_epi8(lower, _mm256_and_si256(signs, low));
                let upper = _mm256_shuffle_epi8(upper, _mm256_and_si256(_mm256_srli_epi16::<4>(signs), low));
                // At most 254 a byte.
                let both = _mm256_add_epi8(lower, upper);
                even = _mm256_add_epi16(even, both);
                odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(both));
            }
            even = _mm256_sub_epi16(even, _mm256_slli_epi16::<8>(odd));
            let (first, second) = (_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd));
            // Rows 0 to 7 and 16 to 23, then 8 to 15 and 24 to 31.
            let eights = [
                _mm256_castsi256_si128(first),
                _mm256_castsi256_si128(second),
                _mm256_extracti128_si256::<1>(first),
                _mm256_extracti128_si256::<1>(second),
            ];
            for (sums, eight) in sums.iter_mut().zip(eights) {
                *sums = _mm256_add_epi32(*sums, _mm256_cvtepu16_epi32(eight));
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BitQuery, set_corrections};
    use super::*;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn kernels_agree_with_scalar() {
        let mut state = 9u64;
        for dim in (1..=70usize).chain([384, 447, 768, 1_536, 2_047, 2_048, 2_049, 4_096]) {
            for fill in [0, 1, 2] {
                // The largest entries everywhere, then any.
                let number = |state: &mut u64| if fill == 1 { 1.0 } else { (random(state) % 2_001) as f32 - 1_000.0 };
                let vector: Vec<f32> = (0..dim).map(|_| number(&mut state)).collect();
                let query = BitBlockQuery::new(&vector);
                let byte = |state: &mut u64| [0, 0xff, random(state) as u8][fill];
                let mut block: Vec<u8> = (0..BLOCK_ROWS * dim.div_ceil(8)).map(|_| byte(&mut state)).collect();
                let factors = (0..2 * BLOCK_ROWS).map(|_| (random(&mut state) % 1_000) as f32 - 500.0);
                block.extend(factors.flat_map(f32::to_le_bytes));
                let (mut got, mut wanted) = ([0.0; BLOCK_ROWS], [0.0; BLOCK_ROWS]);
                query.scalar_compare(&block, 0.0, &mut wanted);
                for floor in [f32::NEG_INFINITY, wanted[3], wanted[31], f32::INFINITY] {
                    let near = query.scalar_compare(&block, floor, &mut wanted);
                    assert_eq!(query.compare(&block, floor, &mut got), near, "dim {dim}, fill {fill}, floor {floor}");
                    assert_eq!(got, wanted, "dim {dim}, fill {fill}");
                }
            }
        }
    }

    #[test]
    fn closeness_is_that_of_single_rows() {
        let mut state = 3u64;
        for dim in [3usize, 8, 100, 384, 1_000] {
            let stride = (dim.div_ceil(8) + 8).next_multiple_of(64);
            let vector: Vec<f32> = (0..dim).map(|_| (random(&mut state) % 2_001) as f32 / 1_000.0 - 1.0).collect();
            for count in [0, 1, 31, 32] {
                let mut rows = vec![0u8; count * stride];
                for (at, row) in rows.chunks_exact_mut(stride).enumerate() {
                    (0..dim).for_each(|bit| row[bit / 8] |= (random(&mut state) as u8 & 1) << (bit % 8));
                    set_corrections(row, 0.5 + at as f32, at as f32 - 7.0);
                }
                let mut block = vec![1; block_bytes(dim.div_ceil(8))];
                fill_block(&rows, stride, dim.div_ceil(8), &mut block);
                let mut closeness = [9.0; BLOCK_ROWS];
                assert_eq!(BitBlockQuery::new(&vector).compare(&block, f32::NEG_INFINITY, &mut closeness), u32::MAX);
                let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                for (at, row) in rows.chunks_exact(stride).enumerate() {
                    let sign = |bit: usize| if row[bit / 8] >> (bit % 8) & 1 == 1 { 1.0 } else { -1.0 };
                    let dot: f32 = (0..dim).map(|bit| vector[bit] * sign(bit)).sum();
                    let expected = (0.5 + at as f32) * dot + at as f32 - 7.0;
                    let error = (closeness[at] - expected).abs() / (0.5 + at as f32);
                    assert!(error < 0.06 * norm, "dim {dim}, row {at}: {} and {expected}", closeness[at]);
                    // Rows alone have queries of four bits: so much coarser.
                    let alone = BitQuery::new(&vector, stride).closeness(row);
                    assert!((alone - expected).abs() / (0.5 + at as f32) < 0.5 * norm + 0.2, "{alone} and {expected}");
                }
                assert!(closeness[count..].iter().all(|&closeness| closeness == 0.0), "no row, no numbers");
            }
        }
    }

    #[test]
    fn a_query_that_is_the_center_sees_offsets_alone() {
        let mut row = vec![0xffu8; 64];
        set_corrections(&mut row, 3.0, 4.0);
        let mut block = vec![0; block_bytes(1)];
        fill_block(&row, 64, 1, &mut block);
        let mut closeness = [0.0; BLOCK_ROWS];
        assert_eq!(BitBlockQuery::new(&[0.0; 5]).compare(&block, 3.5, &mut closeness), 1);
        assert_eq!(closeness[0], 4.0);
    }

    #[test]
    #[should_panic(expected = "bytes of a block")]
    fn blocks_of_another_length_are_refused() {
        BitBlockQuery::new(&[1.0; 9]).compare(&[0; 31], 0.0, &mut [0.0; BLOCK_ROWS]);
    }
}
