//! AVX-512: registers of 16 numbers, tiles of 14 rows by 32 columns.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one comment stands for all blocks of an implementation")]

use std::arch::x86_64::*;

use super::simd::Simd;
use super::tile::{self, Kind, Order, Tile, Weight};
use super::{attention, layer_norm, matmul, pack};

/// Whether this CPU runs the kernels of this file.
pub(super) fn is_available() -> bool {
    super::avx2::is_available() && is_x86_feature_detected!("avx512f")
}

/// See [`matmul::run`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn run_matmul(args: &matmul::Args) {
    // SAFETY: the feature is enabled here; the rest is the caller's promise.
    unsafe { matmul::run::<Avx512>(args) }
}

/// See [`attention::run`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn run_attention(args: &attention::Args) {
    // SAFETY: as above.
    unsafe { attention::run::<Avx512>(args) }
}

/// See [`layer_norm::run`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn run_layer_norm(args: &layer_norm::Args) {
    // SAFETY: as above.
    unsafe { layer_norm::run::<Avx512>(args) }
}

/// See [`pack::run`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn run_pack(args: &pack::Args) {
    // SAFETY: as above.
    unsafe { pack::run::<Avx512>(args) }
}

#[target_feature(enable = "avx512f")]
unsafe fn tile_of<K: Kind, const M: usize>(tile: &Tile<K::Weight>) {
    // SAFETY: as above.
    unsafe { tile::compute::<Avx512, K::Weight, K::Order, M>(tile) }
}

#[derive(Clone, Copy)]
pub(super) struct Avx512;

// SAFETY of every function below: the caller's promise of `Simd`.
impl Simd for Avx512 {
    type F32 = __m512;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 14;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn prefetch<T>(from: *const T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn neg_mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(x: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(x) }
    }
    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<0>(x) }
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(x, n) }
    }
    #[inline(always)]
    unsafe fn reciprocal(x: __m512) -> __m512 {
        unsafe {
            // One step of Newton takes the 14 bits of the estimate to all that f32 has.
            let estimate = _mm512_rcp14_ps(x);
            _mm512_mul_ps(estimate, _mm512_fnmadd_ps(x, estimate, _mm512_set1_ps(2.0)))
        }
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "indices that are constants after unrolling keep rows in registers")]
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            let pairs = |a, b| (_mm512_castps_pd(a), _mm512_castps_pd(b));
            let mut x = [_mm512_setzero_ps(); 16];
            for i in 0..16usize {
                if i < rows {
                    x[i] = _mm512_loadu_ps(from.wrapping_add(i.wrapping_mul(stride)));
                }
            }
            // Each step doubles what stands together: pairs of rows, fours of rows (register 4 i + j then holds column
            // j of each quarter, of rows 4 i to 4 i + 3), eights, all.
            let mut y = x;
            for i in 0..8 {
                y[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
                y[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
            }
            for i in 0..4 {
                let (a, b) = pairs(y[4 * i], y[4 * i + 2]);
                x[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                x[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                let (a, b) = pairs(y[4 * i + 1], y[4 * i + 3]);
                x[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                x[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
            for j in 0..4 {
                y[j] = _mm512_shuffle_f32x4::<0x88>(x[j], x[4 + j]);
                y[4 + j] = _mm512_shuffle_f32x4::<0xdd>(x[j], x[4 + j]);
                y[8 + j] = _mm512_shuffle_f32x4::<0x88>(x[8 + j], x[12 + j]);
                y[12 + j] = _mm512_shuffle_f32x4::<0xdd>(x[8 + j], x[12 + j]);
            }
            for j in 0..4 {
                x[j] = _mm512_shuffle_f32x4::<0x88>(y[j], y[8 + j]);
                x[4 + j] = _mm512_shuffle_f32x4::<0x88>(y[4 + j], y[12 + j]);
                x[8 + j] = _mm512_shuffle_f32x4::<0xdd>(y[j], y[8 + j]);
                x[12 + j] = _mm512_shuffle_f32x4::<0xdd>(y[4 + j], y[12 + j]);
            }
            for j in 0..16usize {
                _mm512_storeu_ps(to.wrapping_add(j.wrapping_mul(to_stride)), x[j]);
            }
        }
    }
    #[inline(always)]
    unsafe fn tile<W: Weight, O: Order>(rows: usize, tile: &Tile<W>) {
        unsafe { tile::by_rows!(rows, tile, tile_of, (W, O), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]) }
    }
}
