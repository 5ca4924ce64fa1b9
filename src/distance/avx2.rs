//! Kernels for codes and for rows of four bits a component on x86-64 with AVX2.
//!
//! `vpmaddubsw` multiplies unsigned by signed bytes and saturates sums of two products at 16 bits. Codes within
//! -127..=127 never get there: `a * b = |b| * (a with the sign of b)`, and two such products are at most 2 * 127 * 127.

use std::arch::x86_64::*;

use super::kernels::codes_of;
use super::nibbles::{NIBBLE_BLOCK, row_of};

/// Bytes in one register.
const LANES: usize = 32;
/// Rows compared at once: they share what is read of the query, and are summed up together.
const FOUR: usize = 4;

/// Whether this machine has what the kernels below need.
#[inline]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// The bytes from `bytes`, then zeros, where only `left` are readable.
///
/// # Safety
/// [`is_available`], and `left` bytes are readable at `bytes`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(bytes: *const i8, left: usize) -> __m256i {
    if left >= LANES {
        // SAFETY: at least 32 bytes are readable; the load needs no alignment.
        return unsafe { _mm256_loadu_si256(bytes.cast()) };
    }
    let mut padded = [0i8; LANES];
    // SAFETY: `left` < 32 bytes are readable, and the array has room for them.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes, padded.as_mut_ptr(), left);
        _mm256_loadu_si256(padded.as_ptr().cast())
    }
}

/// Adds the products of 32 codes and those of a query, whose sizes are `sizes`, to eight sums.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(sums: __m256i, row: __m256i, query: __m256i, sizes: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(row, query));
    _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// The dot product of `row` and `query`, codes within -127..=127. Exact for up to 65,536 components.
///
/// # Safety
/// [`is_available`] and `row.len() == query.len()`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot(row: &[i8], query: &[i8]) -> i32 {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (step, at) in (0..row.len()).step_by(LANES).enumerate() {
        let left = row.len() - at;
        // SAFETY: `at < len`, both slices have `len` bytes, and `load` reads no more than `len - at`.
        let (r, q) = unsafe { (load(row.as_ptr().add(at), left), load(query.as_ptr().add(at), left)) };
        sums[step % 2] = add_products(sums[step % 2], r, q, _mm256_abs_epi8(q));
    }
    sum_up_one(_mm256_add_epi32(sums[0], sums[1]))
}

/// [`dot`] of `query` with each of `rows`, to `take` in their order. `codes`: shape `[rows, query.len()]`.
///
/// # Safety
/// [`is_available`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot_rows(codes: &[i8], query: &[i8], rows: &[u32], mut take: impl FnMut(i32)) {
    let (fours, rest) = rows.as_chunks::<FOUR>();
    for &[a, b, c, d] in fours {
        let row = |row| codes_of(codes, query.len(), row);
        // SAFETY: the instructions are there as the caller says, and `codes_of` returns as many codes as the query has.
        let sums = unsafe { dot_four([row(a), row(b), row(c), row(d)], query) };
        for sum in sums {
            take(sum);
        }
    }
    for &row in rest {
        // SAFETY: as above.
        take(unsafe { dot(codes_of(codes, query.len(), row), query) });
    }
}

/// [`dot`] of four rows.
///
/// # Safety
/// [`is_available`] and every row is as long as `query`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_four(rows: [&[i8]; FOUR], query: &[i8]) -> [i32; FOUR] {
    let mut sums = [_mm256_setzero_si256(); FOUR];
    for at in (0..query.len()).step_by(LANES) {
        let left = query.len() - at;
        // SAFETY: as in `dot`.
        let q = unsafe { load(query.as_ptr().add(at), left) };
        let sizes = _mm256_abs_epi8(q);
        for (sum, row) in sums.iter_mut().zip(rows) {
            // SAFETY: as above.
            let r = unsafe { load(row.as_ptr().add(at), left) };
            *sum = add_products(*sum, r, q, sizes);
        }
    }
    sum_up(sums)
}

/// Squared Euclidean distance of codes. Exact for up to 32,768 components.
///
/// # Safety
/// [`is_available`] and `a.len() == b.len()`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn l2sq(a: &[i8], b: &[i8]) -> i32 {
    let mut sums = [_mm256_setzero_si256(); 2];
    for at in (0..a.len()).step_by(LANES) {
        let left = a.len() - at;
        // SAFETY: as in `dot`.
        let (x, y) = unsafe { (load(a.as_ptr().add(at), left), load(b.as_ptr().add(at), left)) };
        let halves = [
            (_mm256_castsi256_si128(x), _mm256_castsi256_si128(y)),
            (_mm256_extracti128_si256::<1>(x), _mm256_extracti128_si256::<1>(y)),
        ];
        for (sum, (x, y)) in sums.iter_mut().zip(halves) {
            let difference = _mm256_sub_epi16(_mm256_cvtepi8_epi16(x), _mm256_cvtepi8_epi16(y));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(difference, difference));
        }
    }
    sum_up_one(_mm256_add_epi32(sums[0], sums[1]))
}

/// [`l2sq`] of `query` and each of `rows`, to `take` in their order. `codes`: shape `[rows, query.len()]`.
///
/// # Safety
/// [`is_available`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn l2sq_rows(codes: &[i8], query: &[i8], rows: &[u32], mut take: impl FnMut(i32)) {
    for &row in rows {
        // SAFETY: as in `dot_rows`.
        take(unsafe { l2sq(codes_of(codes, query.len(), row), query) });
    }
}

/// The dot product of `query` with each of `rows` of four bits a component, to `take` in their order; see
/// [`super::NibbleQuery`]. `codes`: shape `[rows, query.len() / 2]`.
///
/// # Safety
/// [`is_available`], and `query` is a whole number of blocks.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot_nibble_rows(codes: &[u8], query: &[i8], rows: &[u32], mut take: impl FnMut(i32)) {
    let (fours, rest) = rows.as_chunks::<FOUR>();
    for &[a, b, c, d] in fours {
        let row = |row| row_of(codes, query.len() / 2, row);
        // SAFETY: the instructions are there as the caller says, and `row_of` returns half as many bytes.
        let sums = unsafe { dot_nibbles_four([row(a), row(b), row(c), row(d)], query) };
        for sum in sums {
            take(sum);
        }
    }
    for &row in rest {
        // SAFETY: as above.
        take(unsafe { dot_nibbles(row_of(codes, query.len() / 2, row), query) });
    }
}

/// The dot product of a row of four bits a component and `query`.
///
/// # Safety
/// [`is_available`], `query.len() == 2 * row.len()`, and `row.len()` is a multiple of 64.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot_nibbles(row: &[u8], query: &[i8]) -> i32 {
    let mut sum = _mm256_setzero_si256();
    for at in (0..row.len()).step_by(NIBBLE_BLOCK / 2) {
        // SAFETY: both are whole blocks.
        let pairs = unsafe { products_of_block(row.as_ptr().add(at), &halves_of_block(query.as_ptr().add(2 * at))) };
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    sum_up_one(sum)
}

/// [`dot_nibbles`] of four rows.
///
/// # Safety
/// [`is_available`], `query.len()` is twice the length of every row, and that is a multiple of 64.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot_nibbles_four(rows: [&[u8]; FOUR], query: &[i8]) -> [i32; FOUR] {
    let mut sums = [_mm256_setzero_si256(); FOUR];
    for at in (0..query.len() / 2).step_by(NIBBLE_BLOCK / 2) {
        // SAFETY: as in `dot_nibbles`.
        let halves = unsafe { halves_of_block(query.as_ptr().add(2 * at)) };
        for (sum, row) in sums.iter_mut().zip(rows) {
            // SAFETY: as above.
            let pairs = unsafe { products_of_block(row.as_ptr().add(at), &halves) };
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
    }
    sum_up(sums)
}

/// The 128 codes of a block: those for the lower halves of its first and last 32 bytes, then for their upper halves.
///
/// # Safety
/// [`is_available`], and so many bytes are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn halves_of_block(query: *const i8) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    unsafe { [0, 1, 2, 3].map(|i| _mm256_loadu_si256(query.add(i * LANES).cast())) }
}

/// The products of the 64 bytes of a block and the query's, in sums of eight of 16 bits. Two products are at most
/// 2 * 15 * 128, and four such sums do not leave 16 bits.
///
/// # Safety
/// [`is_available`], and 64 bytes are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn products_of_block(row: *const u8, query: &[__m256i; 4]) -> __m256i {
    let mask = _mm256_set1_epi8(15);
    // SAFETY: the caller's promise. Covered by `kernels_agree_with_scalar`.
    let [a, b] = unsafe { [0, LANES].map(|at| _mm256_loadu_si256(row.add(at).cast())) };
    let lower = |bytes, query| _mm256_maddubs_epi16(_mm256_and_si256(bytes, mask), query);
    let upper = |bytes, query| _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask), query);
    let low = _mm256_add_epi16(lower(a, query[0]), lower(b, query[1]));
    let high = _mm256_add_epi16(upper(a, query[2]), upper(b, query[3]));
    _mm256_add_epi16(low, high)
}

/// The sum of the numbers of a register.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_up_one(sum: __m256i) -> i32 {
    let halves = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let quarters = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b01_00_11_10>(halves));
    _mm_cvtsi128_si32(_mm_add_epi32(quarters, _mm_shuffle_epi32::<0b10_11_00_01>(quarters)))
}

/// The sum of the numbers of each of four registers.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_up([a, b, c, d]: [__m256i; FOUR]) -> [i32; FOUR] {
    // In each half: a0 + a2, b0 + b2, a1 + a3, b1 + b3; then the sums of a, b, c and d.
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    let halves = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    [
        _mm_extract_epi32::<0>(sums),
        _mm_extract_epi32::<1>(sums),
        _mm_extract_epi32::<2>(sums),
        _mm_extract_epi32::<3>(sums),
    ]
}
