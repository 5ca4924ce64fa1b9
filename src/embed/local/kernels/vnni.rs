//! AVX-512 VNNI: four products of 8 bits a lane and instruction, tiles of 14 rows by 32 columns.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one comment stands for all blocks of an implementation")]

use std::arch::x86_64::*;

use super::avx512::Avx512;
use super::int8::{self, Int8, Int8Tile};
use super::quantise::{self, TOGETHER};
use super::tile::by_rows;

/// Whether this CPU runs the kernels of this file.
pub(super) fn is_available() -> bool {
    super::avx512::is_available() && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni")
}

/// See [`int8::run`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn run_int8(args: &int8::Args) {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { int8::run::<Vnni>(args) }
}

/// See [`quantise::run`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn run_quantise(args: &quantise::Args) {
    // SAFETY: as above.
    unsafe { quantise::run::<Vnni>(args) }
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn int8_tile_of<I: Int8, const M: usize>(tile: &Int8Tile<I>) {
    // SAFETY: as above.
    unsafe { int8::compute::<I, M>(tile) }
}

#[derive(Clone, Copy)]
pub(super) struct Vnni;

// SAFETY of every function below: the caller's promise of `Int8`.
impl Int8 for Vnni {
    type Float = Avx512;
    type Code = u8;
    type Sums = __m512i;
    type Weights = __m512i;
    type Codes = __m512i;

    #[inline(always)]
    unsafe fn zero_sums() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_codes(from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_products(sums: __m512i, codes: __m512i, weights: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, codes, weights) }
    }
    #[inline(always)]
    unsafe fn to_float(sums: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
    #[inline(always)]
    unsafe fn store_codes(to: *mut u8, x: [__m512; TOGETHER], zero: i32) {
        unsafe {
            let whole = x.map(|x| _mm512_cvtps_epi32(x));
            let zero = _mm512_set1_epi16(zero as i16);
            let words = |a, b| _mm512_add_epi16(_mm512_packs_epi32(a, b), zero);
            let codes = _mm512_packus_epi16(words(whole[0], whole[1]), words(whole[2], whole[3]));
            // Both packings work on quarters: of each register's 16 numbers, quarter `i` has come to quarter `i`.
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi32(order, codes));
        }
    }
    #[inline(always)]
    unsafe fn tile(rows: usize, tile: &Int8Tile<Self>) {
        unsafe { by_rows!(rows, tile, int8_tile_of, Self, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]) }
    }
}
