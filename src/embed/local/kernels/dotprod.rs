//! NEON with dot products: four products of 8 bits a lane and instruction, tiles of 6 rows by 16 columns.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one comment stands for all blocks of an implementation")]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::int8::{self, Int8, Int8Tile};
use super::neon::Neon;
use super::quantise::{self, TOGETHER};
use super::tile::by_rows;

/// Whether this CPU runs the kernels of this file.
pub(super) fn is_available() -> bool {
    super::neon::is_available() && is_aarch64_feature_detected!("dotprod")
}

/// See [`int8::run`].
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_int8(args: &int8::Args) {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { int8::run::<Dotprod>(args) }
}

/// See [`quantise::run`].
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_quantise(args: &quantise::Args) {
    // SAFETY: as above.
    unsafe { quantise::run::<Dotprod>(args) }
}

#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
unsafe fn int8_tile_of<I: Int8, const M: usize>(tile: &Int8Tile<I>) {
    // SAFETY: as above.
    unsafe { int8::compute::<I, M>(tile) }
}

#[derive(Clone, Copy)]
pub(super) struct Dotprod;

// SAFETY of every function below: the caller's promise of `Int8`.
impl Int8 for Dotprod {
    type Float = Neon;
    type Code = i8;
    type Sums = int32x4x2_t;
    type Weights = int8x16x2_t;
    /// A group in the first lane alone, where the instruction takes it from.
    type Codes = i32;
    const LOWEST_CODE: i32 = Neon::LOWEST_CODE;

    #[inline(always)]
    unsafe fn zero_sums() -> int32x4x2_t {
        unsafe { Neon::zero_sums() }
    }
    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> int8x16x2_t {
        unsafe { int8x16x2_t(vld1q_s8(from), vld1q_s8(from.wrapping_add(16))) }
    }
    #[inline(always)]
    unsafe fn splat_codes(from: *const i8) -> i32 {
        unsafe { from.cast::<i32>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn add_products(sums: int32x4x2_t, codes: i32, weights: int8x16x2_t) -> int32x4x2_t {
        unsafe { int32x4x2_t(sdot(sums.0, weights.0, codes), sdot(sums.1, weights.1, codes)) }
    }
    #[inline(always)]
    unsafe fn to_float(sums: int32x4x2_t) -> float32x4x2_t {
        unsafe { Neon::to_float(sums) }
    }
    #[inline(always)]
    unsafe fn store_codes(to: *mut i8, x: [float32x4x2_t; TOGETHER], zero: i32) {
        unsafe { Neon::store_codes(to, x, zero) }
    }
    #[inline(always)]
    unsafe fn tile(rows: usize, tile: &Int8Tile<Self>) {
        unsafe { by_rows!(rows, tile, int8_tile_of, Self, [1, 2, 3, 4, 5, 6]) }
    }
}

/// Adds four products to each sum. Its intrinsic is not stable (rust-lang/rust#117224).
#[inline(always)]
unsafe fn sdot(mut sums: int32x4_t, weights: int8x16_t, codes: i32) -> int32x4_t {
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {codes:v}.4b[0]",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            codes = in(vreg) codes,
            options(pure, nomem, nostack, preserves_flags),
        );
        sums
    }
}
