//! Queries of four bits a component against rows of one.
//!
//! A row is the signs of a vector's components as seen from the segment's center, and two numbers: its closeness to the
//! query is `factor * (query . signs) + offset` (the estimator of RaBitQ, Gao & Long 2024, without its rotation). With
//! whole numbers c for the query's components and bits b for signs, `c . signs = 2 * (c . b) - sum(c)`, and `c . b` is
//! the number of bits that b shares with each bit plane of c, weighted by the plane.

use super::prefetch;

/// Bit planes of a query: its components are whole numbers of four bits in two's complement.
const PLANES: usize = 4;
/// Largest size of a query's component, so that each has its negative.
const LARGEST: f32 = 7.0;
/// Bytes of a row that a kernel takes at once.
const BLOCK: usize = 64;
/// Most blocks of a row: the kernels count bits of up to 15 in one byte.
const MAX_BLOCKS: usize = 15;
/// The two numbers of a row, at its end.
const CORRECTION_BYTES: usize = 8;

/// Writes the two numbers of a row to its end.
///
/// # Panics
/// When the row is shorter than them.
pub fn set_corrections(row: &mut [u8], factor: f32, offset: f32) {
    let at = row.len() - CORRECTION_BYTES;
    row[at..at + 4].copy_from_slice(&factor.to_le_bytes());
    row[at + 4..].copy_from_slice(&offset.to_le_bytes());
}

/// A query prepared for rows of bits.
#[derive(Clone, Debug)]
pub struct BitQuery {
    /// Shape `[PLANES, stride]`, zero beyond the bits of a row.
    planes: Vec<u8>,
    /// The same numbers, one a byte, zero up to a multiple of [`BLOCK`].
    #[cfg_attr(not(any(target_arch = "x86_64", test)), expect(dead_code))]
    codes: Vec<i8>,
    stride: usize,
    /// What 1 stands for.
    step: f32,
    /// Of the whole numbers.
    sum: i32,
    kernel: BitKernel,
}

impl BitQuery {
    /// `centered`: the query less the center for dot products, or for distances: f32, shape `[dim]`. `stride`: bytes of
    /// a row, a multiple of 64 that has room for `dim` bits and the two numbers.
    ///
    /// # Panics
    /// When `stride` is not such a number.
    pub fn new(centered: &[f32], stride: usize) -> Self {
        let bits = centered.len().div_ceil(8);
        let fits = stride.is_multiple_of(BLOCK) && (bits + CORRECTION_BYTES..=MAX_BLOCKS * BLOCK).contains(&stride);
        assert!(fits, "rows of {stride} bytes for {} bits", centered.len());
        let largest = centered.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        // A query that is the center sees all rows alike.
        let scale = if largest > 0.0 { LARGEST / largest } else { 0.0 };
        let mut planes = vec![0u8; PLANES * stride];
        let mut codes = vec![0i8; centered.len().next_multiple_of(BLOCK)];
        for (at, &x) in centered.iter().enumerate() {
            let code = (x * scale).round() as i8;
            codes[at] = code;
            for plane in 0..PLANES {
                let bit = (code >> plane) as u8 & 1;
                planes[plane * stride + at / 8] |= bit << (at % 8);
            }
        }
        let sum = codes.iter().map(|&code| i32::from(code)).sum();
        let step = if scale > 0.0 { scale.recip() } else { 0.0 };
        Self { planes, codes, stride, step, sum, kernel: BitKernel::detect() }
    }

    /// Rises as the row gets nearer. `row`: u8, shape `[stride]`.
    ///
    /// # Panics
    /// When the row has another length.
    #[inline]
    pub fn closeness(&self, row: &[u8]) -> f32 {
        assert_eq!(row.len(), self.stride);
        let shared = self.kernel.shared(row, self);
        let (_, corrections) = row.split_at(row.len() - CORRECTION_BYTES);
        let number = |at: usize| f32::from_le_bytes([0, 1, 2, 3].map(|byte| corrections[at + byte]));
        number(0) * self.step * (2 * shared - self.sum) as f32 + number(4)
    }

    /// As [`BitQuery::closeness`], of a row among many. `rows`: u8, shape `[rows, stride]`.
    ///
    /// # Panics
    /// When the row lies beyond `rows`.
    #[inline]
    pub fn closeness_in(&self, rows: &[u8], ordinal: u32) -> f32 {
        let start = ordinal as usize * self.stride;
        self.closeness(&rows[start..start + self.stride])
    }

    /// Asks the processor to fetch a row, where there is such a one; see [`prefetch`].
    #[inline]
    pub fn prefetch(&self, rows: &[u8], ordinal: u32) {
        let start = ordinal as usize * self.stride;
        prefetch(rows.get(start..start + self.stride).unwrap_or_default());
    }
}

/// The implementation that this machine runs fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BitKernel {
    Portable,
    /// Made only by `detect`, where the machine has the instructions, as those below.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Sums the query's components under the row's bits as a mask, which without an instruction that counts bits is
    /// twice as fast.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Popcount,
}

impl BitKernel {
    /// From the fastest.
    #[cfg(target_arch = "x86_64")]
    const ALL: [Self; 4] = [Self::Popcount, Self::Vnni, Self::Avx2, Self::Portable];
    #[cfg(not(target_arch = "x86_64"))]
    const ALL: [Self; 1] = [Self::Portable];

    fn detect() -> Self {
        Self::ALL.into_iter().find(|kernel| kernel.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine has the instructions.
    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => simd::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => simd::has_vnni(),
            #[cfg(target_arch = "x86_64")]
            Self::Popcount => simd::has_popcount(),
        }
    }

    /// The sum of the query's whole numbers under the row's bits.
    #[inline]
    fn shared(self, row: &[u8], query: &BitQuery) -> i32 {
        match self {
            Self::Portable => portable(row, &query.planes),
            // SAFETY: `detect` made these variants, so the machine has the instructions; `new` made planes and codes
            // of the lengths that a row of this stride, which `closeness` checks, asks for.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { simd::avx2(row.as_chunks().0, &query.planes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { simd::vnni(row, &query.codes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Popcount => unsafe { simd::popcount(row.as_chunks().0, &query.planes) },
        }
    }
}

/// `planes`: shape `[PLANES, row.len()]`.
#[inline]
fn portable(row: &[u8], planes: &[u8]) -> i32 {
    let shared = |plane: &[u8]| {
        let pairs = row.as_chunks::<8>().0.iter().zip(plane.as_chunks::<8>().0);
        pairs.map(|(a, b)| (u64::from_le_bytes(*a) & u64::from_le_bytes(*b)).count_ones() as i32).sum::<i32>()
    };
    let mut counts = planes.chunks_exact(row.len()).map(shared);
    let mut next = || counts.next().unwrap_or(0);
    // The last plane is the sign of two's complement.
    next() + 2 * next() + 4 * next() - 8 * next()
}

#[cfg(target_arch = "x86_64")]
mod simd {
    //! The kernels for x86-64. Covered by `kernels_agree_with_scalar`, each on machines that have its instructions.

    use std::arch::x86_64::*;

    use super::{BLOCK, PLANES};

    pub(super) fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2")
    }

    pub(super) fn has_vnni() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
    }

    pub(super) fn has_popcount() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq")
    }

    /// Counts bits of half bytes by a table (Muła, Kurz & Lemire 2018).
    ///
    /// # Safety
    /// The machine has AVX2; `planes` has [`PLANES`] times the bytes of `row`, of which there are at most 15 blocks.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(row: &[[u8; BLOCK]], planes: &[u8]) -> i32 {
        let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
        let low = _mm256_set1_epi8(15);
        let mut counts = [_mm256_setzero_si256(); PLANES];
        for half in 0..2 * row.len() {
            // SAFETY: the row has `64 * row.len()` bytes, and so has each plane; no alignment is needed.
            let bits = unsafe { _mm256_loadu_si256(row.as_ptr().cast::<u8>().add(32 * half).cast()) };
            for (plane, counts) in counts.iter_mut().enumerate() {
                // SAFETY: as above.
                let of_query =
                    unsafe { _mm256_loadu_si256(planes.as_ptr().add(plane * BLOCK * row.len() + 32 * half).cast()) };
                let shared = _mm256_and_si256(bits, of_query);
                let lower = _mm256_shuffle_epi8(table, _mm256_and_si256(shared, low));
                let upper = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(shared), low));
                // At most 8 a byte in each of up to 30 steps.
                *counts = _mm256_add_epi8(*counts, _mm256_add_epi8(lower, upper));
            }
        }
        let sums = counts.map(|counts| _mm256_sad_epu8(counts, _mm256_setzero_si256()));
        let positive = _mm256_add_epi64(sums[0], _mm256_slli_epi64::<1>(sums[1]));
        let positive = _mm256_add_epi64(positive, _mm256_slli_epi64::<2>(sums[2]));
        let all = _mm256_sub_epi64(positive, _mm256_slli_epi64::<3>(sums[3]));
        let two = _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
        (_mm_cvtsi128_si64(two) + _mm_extract_epi64::<1>(two)) as i32
    }

    /// # Safety
    /// The machine has AVX-512 F, BW and VNNI; `codes` has a multiple of 64 numbers, and `row` a byte for each 8.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn vnni(row: &[u8], codes: &[i8]) -> i32 {
        let ones = _mm512_set1_epi8(1);
        let mut sums = [_mm512_setzero_si512(); 2];
        let masks = row.as_chunks::<8>().0.iter();
        for (at, (mask, codes)) in masks.zip(codes.as_chunks::<BLOCK>().0).enumerate() {
            // SAFETY: 64 bytes are readable; no alignment is needed.
            let under = unsafe { _mm512_maskz_loadu_epi8(u64::from_le_bytes(*mask), codes.as_ptr()) };
            sums[at % 2] = _mm512_dpbusd_epi32(sums[at % 2], ones, under);
        }
        _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
    }

    /// # Safety
    /// The machine has AVX-512 F and VPOPCNTDQ; `planes` has [`PLANES`] times the bytes of `row`.
    #[target_feature(enable = "avx512f,avx512vpopcntdq")]
    pub(super) unsafe fn popcount(row: &[[u8; BLOCK]], planes: &[u8]) -> i32 {
        let mut counts = [_mm512_setzero_si512(); PLANES];
        for (at, block) in row.iter().enumerate() {
            // SAFETY: 64 bytes are readable; no alignment is needed.
            let bits = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            for (plane, counts) in counts.iter_mut().enumerate() {
                // SAFETY: each plane has as many bytes as the row.
                let of_query =
                    unsafe { _mm512_loadu_si512(planes.as_ptr().add(BLOCK * (plane * row.len() + at)).cast()) };
                *counts = _mm512_add_epi64(*counts, _mm512_popcnt_epi64(_mm512_and_si512(bits, of_query)));
            }
        }
        let positive = _mm512_add_epi64(counts[0], _mm512_slli_epi64::<1>(counts[1]));
        let positive = _mm512_add_epi64(positive, _mm512_slli_epi64::<2>(counts[2]));
        _mm512_reduce_add_epi64(_mm512_sub_epi64(positive, _mm512_slli_epi64::<3>(counts[3]))) as i32
    }
}

#[cfg(test)]
mod tests {
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
        for dim in (1..=200usize).chain([384, 447, 448, 449, 768, 1_000, 1_024, 1_536, 4_096]) {
            let stride = (dim.div_ceil(8) + CORRECTION_BYTES).next_multiple_of(BLOCK);
            let vector: Vec<f32> = (0..dim).map(|_| (random(&mut state) % 2_001) as f32 - 1_000.0).collect();
            let query = BitQuery::new(&vector, stride);
            for fill in [0, 1, 2] {
                // What stands beyond the bits must not count.
                let byte = |state: &mut u64| [0, 0xff, random(state) as u8][fill];
                let row: Vec<u8> = (0..stride).map(|_| byte(&mut state)).collect();
                let is_set = |at: usize| row[at / 8] >> (at % 8) & 1 == 1;
                let expected: i32 = (0..dim).filter(|&at| is_set(at)).map(|at| i32::from(query.codes[at])).sum();
                for kernel in BitKernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
                    assert_eq!(kernel.shared(&row, &query), expected, "{kernel:?}, dim {dim}, fill {fill}");
                }
            }
        }
    }

    #[test]
    fn closeness_is_the_formula() {
        let query = BitQuery::new(&[7.0, -7.0, 3.5, 0.0], 64);
        assert_eq!((query.step, query.sum), (1.0, 4));
        let mut rows = vec![0u8; 128];
        // Signs +, -, +, -: 7 + 7 + 4 - 0; then all -.
        rows[0] = 0b101;
        set_corrections(&mut rows[..64], 0.5, 10.0);
        set_corrections(&mut rows[64..], 2.0, -1.0);
        assert_eq!([0, 1].map(|row| query.closeness_in(&rows, row)), [0.5 * 18.0 + 10.0, 2.0 * -4.0 - 1.0]);
        assert_eq!(query.closeness(&rows[64..]), -9.0);
        query.prefetch(&rows, 0);
        query.prefetch(&rows, 9);
    }

    #[test]
    fn a_query_that_is_the_center_sees_offsets_alone() {
        let mut row = vec![0xffu8; 64];
        set_corrections(&mut row, 3.0, 4.0);
        assert_eq!(BitQuery::new(&[0.0; 5], 64).closeness(&row), 4.0);
    }

    #[test]
    #[should_panic(expected = "rows of 64 bytes for 449 bits")]
    fn rows_without_room_are_refused() {
        BitQuery::new(&[0.0; 449], 64);
    }
}
