//! Kernels for rows of four bits a component on x86-64 with AVX2.

use std::arch::x86_64::*;

use super::nibbles::row_of;

/// Bytes in one register.
const LANES: usize = 32;

/// Whether this machine has what the kernels below need.
#[inline]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// The dot product of `query` with each of `rows`, to `take` in their order; see [`super::NibbleQuery`]. `codes`: shape
/// `[rows, query.len() / 2]`.
///
/// # Safety
/// [`is_available`], and `query` is a whole number of blocks.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn dot_nibble_rows(codes: &[u8], query: &[i8], rows: &[u32], mut take: impl FnMut(i32)) {
    for &row in rows {
        // SAFETY: the instructions are there as the caller says, and `row_of` returns half as many bytes.
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
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sum = _mm256_setzero_si256();
    for at in (0..row.len()).step_by(LANES) {
        // The codes of a block stand in two halves of 64, the first for the lower halves of its 64 bytes.
        let codes = 2 * (at / 64) * 64 + at % 64;
        // SAFETY: `at + 32 <= row.len()` and `codes + 64 + 32 <= query.len()`, since both are whole blocks. Covered by
        // `kernels_agree_with_scalar`.
        let (bytes, lower, upper) = unsafe {
            (
                _mm256_loadu_si256(row.as_ptr().add(at).cast()),
                _mm256_loadu_si256(query.as_ptr().add(codes).cast()),
                _mm256_loadu_si256(query.as_ptr().add(codes + 64).cast()),
            )
        };
        // Two products are at most 2 * 15 * 128 and do not leave 16 bits, nor do two such sums.
        let low = _mm256_maddubs_epi16(_mm256_and_si256(bytes, mask), lower);
        let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask), upper);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(low, high), ones));
    }
    let halves = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let quarters = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b01_00_11_10>(halves));
    _mm_cvtsi128_si32(_mm_add_epi32(quarters, _mm_shuffle_epi32::<0b10_11_00_01>(quarters)))
}
