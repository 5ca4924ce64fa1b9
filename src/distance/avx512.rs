//! Kernels for int8 codes on x86-64 with AVX-512 VNNI, which simsimd uses only from Ice Lake on.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes. A code `c` becomes unsigned by flipping its top bit, which adds 128:
//! sum((c + 128) * q) = dot(c, q) + 128 * sum(q).

use std::arch::x86_64::*;

use super::kernels::codes_of;

/// Bytes in one register.
const LANES: usize = 64;

/// Whether this machine has what the kernels below need.
#[inline]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// The first `left` bytes from `bytes`, then zeros.
///
/// # Safety
/// `left` bytes are readable at `bytes`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn load(bytes: *const i8, left: usize) -> __m512i {
    if left >= LANES {
        // SAFETY: at least 64 bytes are readable; the load needs no alignment.
        return unsafe { _mm512_loadu_epi8(bytes) };
    }
    // SAFETY: only the `left` < 64 bytes of the mask are read.
    unsafe { _mm512_maskz_loadu_epi8((1u64 << left) - 1, bytes) }
}

/// [`dot_shifted`] of `query` with each of `rows`, to `take` in their order. `codes`: shape `[rows, query.len()]`.
///
/// # Safety
/// [`is_available`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn dot_rows(codes: &[i8], query: &[i8], rows: &[u32], mut take: impl FnMut(i32)) {
    for &row in rows {
        // SAFETY: the instructions are there as the caller says, and `codes_of` returns as many codes as the query has.
        take(unsafe { dot_shifted(codes_of(codes, query.len(), row), query) });
    }
}

/// [`l2sq`] of `query` and each of `rows`, to `take` in their order. `codes`: shape `[rows, query.len()]`.
///
/// # Safety
/// [`is_available`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn l2sq_rows(codes: &[i8], query: &[i8], rows: &[u32], mut take: impl FnMut(i32)) {
    for &row in rows {
        // SAFETY: as in `dot_rows`.
        take(unsafe { l2sq(codes_of(codes, query.len(), row), query) });
    }
}

/// sum((row + 128) * query). Exact for up to 65,536 components.
///
/// # Safety
/// [`is_available`] and `row.len() == query.len()`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn dot_shifted(row: &[i8], query: &[i8]) -> i32 {
    let flip = _mm512_set1_epi8(i8::MIN);
    let (mut even, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let len = row.len();
    let mut at = 0;
    while at < len {
        // SAFETY: `at < len`, both slices have `len` bytes, and `load` reads no more than `len - at`. Masked lanes of
        // `query` are zero and so contribute nothing. Covered by `codes_agree_with_scalar`.
        let (r, q) = unsafe { (load(row.as_ptr().add(at), len - at), load(query.as_ptr().add(at), len - at)) };
        even = _mm512_dpbusd_epi32(even, _mm512_xor_si512(r, flip), q);
        at += LANES;
        if at >= len {
            break;
        }
        // SAFETY: as above.
        let (r, q) = unsafe { (load(row.as_ptr().add(at), len - at), load(query.as_ptr().add(at), len - at)) };
        odd = _mm512_dpbusd_epi32(odd, _mm512_xor_si512(r, flip), q);
        at += LANES;
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd))
}

/// Squared Euclidean distance of codes. Exact for up to 32,768 components.
///
/// # Safety
/// [`is_available`] and `a.len() == b.len()`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn l2sq(a: &[i8], b: &[i8]) -> i32 {
    let flip = _mm512_set1_epi8(i8::MIN);
    let zero = _mm512_setzero_si512();
    let (mut low, mut high) = (zero, zero);
    let len = a.len();
    let mut at = 0;
    while at < len {
        // SAFETY: as in `dot_shifted`. Masked lanes are zero in both, so their difference is zero.
        let (x, y) = unsafe { (load(a.as_ptr().add(at), len - at), load(b.as_ptr().add(at), len - at)) };
        let (x, y) = (_mm512_xor_si512(x, flip), _mm512_xor_si512(y, flip));
        // One of the two saturating differences is |x - y|, the other 0.
        let difference = _mm512_or_si512(_mm512_subs_epu8(x, y), _mm512_subs_epu8(y, x));
        let (even, odd) = (_mm512_unpacklo_epi8(difference, zero), _mm512_unpackhi_epi8(difference, zero));
        low = _mm512_dpwssd_epi32(low, even, even);
        high = _mm512_dpwssd_epi32(high, odd, odd);
        at += LANES;
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(low, high))
}
