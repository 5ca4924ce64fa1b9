//! AVX2 with FMA: registers of 8 numbers, tiles of 6 rows by 16 columns.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one comment stands for all blocks of an implementation")]

use std::arch::x86_64::*;

use super::int8::{Int8, Int8Tile};
use super::quantise::{self, TOGETHER};
use super::simd::Simd;
use super::tile::{self, Kind, Order, Tile, Weight};
use super::{attention, int8, layer_norm, matmul, pack};

/// Whether this CPU runs the kernels of this file.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// See [`matmul::run`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_matmul(args: &matmul::Args) {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { matmul::run::<Avx2>(args) }
}

/// See [`attention::run`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_attention(args: &attention::Args) {
    // SAFETY: as above.
    unsafe { attention::run::<Avx2>(args) }
}

/// See [`layer_norm::run`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_layer_norm(args: &layer_norm::Args) {
    // SAFETY: as above.
    unsafe { layer_norm::run::<Avx2>(args) }
}

/// See [`int8::run`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_int8(args: &int8::Args) {
    // SAFETY: as above.
    unsafe { int8::run::<Avx2>(args) }
}

/// See [`quantise::run`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_quantise(args: &quantise::Args) {
    // SAFETY: as above.
    unsafe { quantise::run::<Avx2>(args) }
}

/// See [`pack::run`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run_pack(args: &pack::Args) {
    // SAFETY: as above.
    unsafe { pack::run::<Avx2>(args) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile_of<K: Kind, const M: usize>(tile: &Tile<K::Weight>) {
    // SAFETY: as above.
    unsafe { tile::compute::<Avx2, K::Weight, K::Order, M>(tile) }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn int8_tile_of<I: Int8, const M: usize>(tile: &Int8Tile<I>) {
    // SAFETY: as above.
    unsafe { int8::compute::<I, M>(tile) }
}

#[derive(Clone, Copy)]
pub(super) struct Avx2;

// SAFETY of every function below: the caller's promise of `Simd`.
impl Simd for Avx2 {
    type F32 = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn prefetch<T>(from: *const T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn neg_mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(x: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) }
    }
    #[inline(always)]
    unsafe fn round(x: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: __m256, n: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    unsafe fn reciprocal(x: __m256) -> __m256 {
        unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), x) }
    }
    #[inline(always)]
    unsafe fn sum(x: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "indices that are constants after unrolling keep rows in registers")]
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            let pairs = |a, b| (_mm256_castps_pd(a), _mm256_castps_pd(b));
            let mut x = [_mm256_setzero_ps(); 8];
            for i in 0..8usize {
                if i < rows {
                    x[i] = _mm256_loadu_ps(from.wrapping_add(i.wrapping_mul(stride)));
                }
            }
            // Pairs of rows, fours of rows (register 4 i + j then holds column j of each half), all.
            let mut y = x;
            for i in 0..4 {
                y[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
                y[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
            }
            for i in 0..2 {
                let (a, b) = pairs(y[4 * i], y[4 * i + 2]);
                x[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                x[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
                let (a, b) = pairs(y[4 * i + 1], y[4 * i + 3]);
                x[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                x[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
            }
            for j in 0..4 {
                y[j] = _mm256_permute2f128_ps::<0x20>(x[j], x[4 + j]);
                y[4 + j] = _mm256_permute2f128_ps::<0x31>(x[j], x[4 + j]);
            }
            for j in 0..8usize {
                _mm256_storeu_ps(to.wrapping_add(j.wrapping_mul(to_stride)), y[j]);
            }
        }
    }
    #[inline(always)]
    unsafe fn tile<W: Weight, O: Order>(rows: usize, tile: &Tile<W>) {
        unsafe { tile::by_rows!(rows, tile, tile_of, (W, O), [1, 2, 3, 4, 5, 6]) }
    }
}

// Codes and weights are widened to 16 bits, whose products are summed in pairs without saturation.
// SAFETY of every function below: the caller's promise of `Int8`.
impl Int8 for Avx2 {
    type Float = Avx2;
    type Code = i16;
    type Sums = __m256i;
    type Weights = __m256i;
    type Codes = __m256i;

    #[inline(always)]
    unsafe fn zero_sums() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_codes(from: *const i16) -> __m256i {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_products(sums: __m256i, codes: __m256i, weights: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(codes, weights)) }
    }
    #[inline(always)]
    unsafe fn to_float(sums: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(sums) }
    }
    #[inline(always)]
    unsafe fn store_codes(to: *mut i16, x: [__m256; TOGETHER], zero: i32) {
        unsafe {
            for (i, x) in x.into_iter().enumerate() {
                let whole = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(zero));
                let packed = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
                let codes = _mm_min_epi16(_mm_max_epi16(packed, _mm_setzero_si128()), _mm_set1_epi16(255));
                _mm_storeu_si128(to.wrapping_add(i * Self::LANES).cast(), codes);
            }
        }
    }
    #[inline(always)]
    unsafe fn tile(rows: usize, tile: &Int8Tile<Self>) {
        unsafe { tile::by_rows!(rows, tile, int8_tile_of, Self, [1, 2, 3, 4, 5, 6]) }
    }
}
