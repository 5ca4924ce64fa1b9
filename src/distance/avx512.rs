//! Kernels for int8 codes on x86-64 with AVX-512 VNNI, which simsimd uses only from Ice Lake on.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes. A code `c` becomes unsigned by flipping its top bit, which adds 128:
//! sum((c + 128) * q) = dot(c, q) + 128 * sum(q).

use std::arch::x86_64::*;

use super::kernels::codes_of;
use super::nibbles::row_of;

/// Bytes in one register.
const LANES: usize = 64;
/// Rows compared at once: they share what is read of the query, and are summed up together.
const FOUR: usize = 4;

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
    let (fours, rest) = rows.as_chunks::<FOUR>();
    for &[a, b, c, d] in fours {
        let row = |row| codes_of(codes, query.len(), row);
        // SAFETY: the instructions are there as the caller says, and `codes_of` returns as many codes as the query has.
        let sums = unsafe { dot_shifted_four([row(a), row(b), row(c), row(d)], query) };
        for sum in sums {
            take(sum);
        }
    }
    for &row in rest {
        // SAFETY: as above.
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

/// The dot product of `query` with each of `rows` of four bits a component, to `take` in their order; see
/// [`super::NibbleQuery`]. `codes`: shape `[rows, query.len() / 2]`.
///
/// # Safety
/// [`is_available`], and `query` is a whole number of blocks.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn dot_nibble_rows(codes: &[u8], query: &[i8], rows: &[u32], mut take: impl FnMut(i32)) {
    let (fours, rest) = rows.as_chunks::<FOUR>();
    for &[a, b, c, d] in fours {
        let row = |row| row_of(codes, query.len() / 2, row);
        // SAFETY: as in `dot_rows`; `row_of` returns half as many bytes as the query has codes.
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
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn dot_nibbles(row: &[u8], query: &[i8]) -> i32 {
    let mask = _mm512_set1_epi8(15);
    let (mut low, mut high) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for at in (0..row.len()).step_by(LANES) {
        // SAFETY: `at + 64 <= row.len()` and `2 * at + 128 <= query.len()`, since both are whole blocks; the loads need
        // no alignment. Covered by `kernels_agree_with_scalar`.
        let (bytes, lower, upper) = unsafe {
            (
                _mm512_loadu_epi8(row.as_ptr().add(at).cast()),
                _mm512_loadu_epi8(query.as_ptr().add(2 * at)),
                _mm512_loadu_epi8(query.as_ptr().add(2 * at + LANES)),
            )
        };
        low = _mm512_dpbusd_epi32(low, _mm512_and_si512(bytes, mask), lower);
        high = _mm512_dpbusd_epi32(high, _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask), upper);
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(low, high))
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

/// [`dot_shifted`] of four rows.
///
/// # Safety
/// [`is_available`] and every row is as long as `query`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dot_shifted_four(rows: [&[i8]; FOUR], query: &[i8]) -> [i32; FOUR] {
    let flip = _mm512_set1_epi8(i8::MIN);
    let mut sums = [_mm512_setzero_si512(); FOUR];
    for at in (0..query.len()).step_by(LANES) {
        let left = query.len() - at;
        // SAFETY: as in `dot_shifted`.
        let q = unsafe { load(query.as_ptr().add(at), left) };
        for (sum, row) in sums.iter_mut().zip(rows) {
            // SAFETY: as above.
            let r = unsafe { load(row.as_ptr().add(at), left) };
            *sum = _mm512_dpbusd_epi32(*sum, _mm512_xor_si512(r, flip), q);
        }
    }
    sum_up(sums)
}

/// [`dot_nibbles`] of four rows.
///
/// # Safety
/// [`is_available`], `query.len()` is twice the length of every row, and that is a multiple of 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dot_nibbles_four(rows: [&[u8]; FOUR], query: &[i8]) -> [i32; FOUR] {
    let mask = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); FOUR];
    for at in (0..query.len() / 2).step_by(LANES) {
        // SAFETY: as in `dot_nibbles`.
        let (lower, upper) = unsafe {
            let codes = query.as_ptr().add(2 * at);
            (_mm512_loadu_epi8(codes), _mm512_loadu_epi8(codes.add(LANES)))
        };
        for (sum, row) in sums.iter_mut().zip(rows) {
            // SAFETY: as above.
            let bytes = unsafe { _mm512_loadu_epi8(row.as_ptr().add(at).cast()) };
            *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(bytes, mask), lower);
            *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask), upper);
        }
    }
    sum_up(sums)
}

/// The sum of the numbers of each of four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn sum_up([a, b, c, d]: [__m512i; FOUR]) -> [i32; FOUR] {
    // In each quarter: a0 + a2, b0 + b2, a1 + a3, b1 + b3; then the sums of a, b, c and d.
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let quarters = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let halves = _mm256_add_epi32(_mm512_castsi512_si256(quarters), _mm512_extracti64x4_epi64::<1>(quarters));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    [
        _mm_extract_epi32::<0>(sums),
        _mm_extract_epi32::<1>(sums),
        _mm_extract_epi32::<2>(sums),
        _mm_extract_epi32::<3>(sums),
    ]
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

/// Rows looked up at once.
const ROWS_AT_ONCE: usize = 16;

/// As [`super::members::select_members`].
///
/// # Safety
/// [`is_available`]; `words` has a bit for each of `rows` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn select_members<const IN: bool>(
    words: &[u64],
    rows: u32,
    list: &[u32],
    out: &mut Vec<u32>,
) -> usize {
    let (end, one, low_bits) = (_mm512_set1_epi32(rows as i32), _mm512_set1_epi32(1), _mm512_set1_epi32(31));
    for (at, sixteen) in list.chunks(ROWS_AT_ONCE).enumerate() {
        let lanes = u16::MAX >> (ROWS_AT_ONCE - sixteen.len());
        // SAFETY: only as many are read as there are.
        let numbers = unsafe { _mm512_maskz_loadu_epi32(lanes, sixteen.as_ptr().cast()) };
        // The look-up takes all rows that are below `rows` and need not wait for which of them come before one that is
        // not.
        let below = _mm512_mask_cmplt_epu32_mask(lanes, numbers, end);
        // SAFETY: these rows are below `rows`, whose words in halves of 32 bits, the lower first, lie in `words`.
        let halves = unsafe {
            let indices = _mm512_srli_epi32::<5>(numbers);
            _mm512_mask_i32gather_epi32::<4>(_mm512_setzero_si512(), below, indices, words.as_ptr().cast())
        };
        let bits = _mm512_sllv_epi32(one, _mm512_and_epi32(numbers, low_bits));
        let before = below.trailing_ones();
        let lanes = ((1u32 << before) - 1) as u16;
        let chosen = match IN {
            true => _mm512_mask_test_epi32_mask(lanes, halves, bits),
            false => _mm512_mask_testn_epi32_mask(lanes, halves, bits),
        };
        out.reserve(ROWS_AT_ONCE);
        // SAFETY: there is room for sixteen more, of which the first are those chosen.
        unsafe {
            _mm512_storeu_epi32(out.as_mut_ptr().add(out.len()).cast(), _mm512_maskz_compress_epi32(chosen, numbers));
            out.set_len(out.len() + chosen.count_ones() as usize);
        }
        if (before as usize) < sixteen.len() {
            return at * ROWS_AT_ONCE + before as usize;
        }
    }
    list.len()
}
