//! NEON: registers of 4 numbers taken in twos, tiles of 6 rows by 16 columns.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one comment stands for all blocks of an implementation")]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::int8::{Int8, Int8Tile};
use super::quantise::{self, TOGETHER};
use super::simd::Simd;
use super::tile::{self, Kind, Order, Tile, Weight};
use super::{attention, int8, layer_norm, matmul, pack};

/// Whether this CPU runs the kernels of this file.
pub(super) fn is_available() -> bool {
    is_aarch64_feature_detected!("neon")
}

/// See [`matmul::run`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn run_matmul(args: &matmul::Args) {
    // SAFETY: the feature is enabled here; the rest is the caller's promise.
    unsafe { matmul::run::<Neon>(args) }
}

/// See [`attention::run`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn run_attention(args: &attention::Args) {
    // SAFETY: as above.
    unsafe { attention::run::<Neon>(args) }
}

/// See [`layer_norm::run`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn run_layer_norm(args: &layer_norm::Args) {
    // SAFETY: as above.
    unsafe { layer_norm::run::<Neon>(args) }
}

/// See [`int8::run`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn run_int8(args: &int8::Args) {
    // SAFETY: as above.
    unsafe { int8::run::<Neon>(args) }
}

/// See [`quantise::run`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn run_quantise(args: &quantise::Args) {
    // SAFETY: as above.
    unsafe { quantise::run::<Neon>(args) }
}

/// See [`pack::run`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn run_pack(args: &pack::Args) {
    // SAFETY: as above.
    unsafe { pack::run::<Neon>(args) }
}

#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn tile_of<K: Kind, const M: usize>(tile: &Tile<K::Weight>) {
    // SAFETY: as above.
    unsafe { tile::compute::<Neon, K::Weight, K::Order, M>(tile) }
}

#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn int8_tile_of<I: Int8, const M: usize>(tile: &Int8Tile<I>) {
    // SAFETY: as above.
    unsafe { int8::compute::<I, M>(tile) }
}

/// Its registers are pairs: a tile of 6 rows then takes 24 of the 32 that there are, and each number of the left matrix
/// is used four times.
#[derive(Clone, Copy)]
pub(super) struct Neon;

type Pair = float32x4x2_t;

#[inline(always)]
fn map(x: Pair, f: impl Fn(float32x4_t) -> float32x4_t) -> Pair {
    float32x4x2_t(f(x.0), f(x.1))
}

#[inline(always)]
fn zip(a: Pair, b: Pair, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Pair {
    float32x4x2_t(f(a.0, b.0), f(a.1, b.1))
}

// SAFETY of every function below: the caller's promise of `Simd`.
impl Simd for Neon {
    type F32 = Pair;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn zero() -> Pair {
        unsafe { Self::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Pair {
        unsafe { float32x4x2_t(vdupq_n_f32(x), vdupq_n_f32(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Pair {
        unsafe { float32x4x2_t(vld1q_f32(from), vld1q_f32(from.wrapping_add(4))) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Pair) {
        unsafe {
            vst1q_f32(to, x.0);
            vst1q_f32(to.wrapping_add(4), x.1);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Pair {
        unsafe {
            let half = vld1q_u16(from);
            let (low, high): (float32x4_t, float32x4_t);
            // The intrinsics take vectors of f16, which stable Rust cannot load.
            asm!(
                "fcvtl {low:v}.4s, {half:v}.4h",
                "fcvtl2 {high:v}.4s, {half:v}.8h",
                low = out(vreg) low,
                high = lateout(vreg) high,
                half = in(vreg) half,
                options(pure, nomem, nostack, preserves_flags),
            );
            float32x4x2_t(low, high)
        }
    }
    #[inline(always)]
    unsafe fn prefetch<T>(from: *const T) {
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) from, options(readonly, nostack, preserves_flags)) }
    }
    #[inline(always)]
    unsafe fn add(a: Pair, b: Pair) -> Pair {
        zip(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(a: Pair, b: Pair) -> Pair {
        zip(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul(a: Pair, b: Pair) -> Pair {
        zip(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn div(a: Pair, b: Pair) -> Pair {
        zip(a, b, |a, b| unsafe { vdivq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn mul_add(a: Pair, b: Pair, c: Pair) -> Pair {
        unsafe { float32x4x2_t(vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn neg_mul_add(a: Pair, b: Pair, c: Pair) -> Pair {
        unsafe { float32x4x2_t(vfmsq_f32(c.0, a.0, b.0), vfmsq_f32(c.1, a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn max(a: Pair, b: Pair) -> Pair {
        zip(a, b, |a, b| unsafe { vmaxq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn min(a: Pair, b: Pair) -> Pair {
        zip(a, b, |a, b| unsafe { vminq_f32(a, b) })
    }
    #[inline(always)]
    unsafe fn abs(x: Pair) -> Pair {
        map(x, |x| unsafe { vabsq_f32(x) })
    }
    #[inline(always)]
    unsafe fn round(x: Pair) -> Pair {
        map(x, |x| unsafe { vrndnq_f32(x) })
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: Pair, n: Pair) -> Pair {
        zip(x, n, |x, n| unsafe {
            let exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        })
    }
    #[inline(always)]
    unsafe fn reciprocal(x: Pair) -> Pair {
        map(x, |x| unsafe { vdivq_f32(vdupq_n_f32(1.0), x) })
    }
    #[inline(always)]
    unsafe fn sum(x: Pair) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(x.0, x.1)) }
    }
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "indices that are constants after unrolling keep rows in registers")]
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            // Four columns of all rows at a time.
            for half in [0, 4usize] {
                let mut x = [vdupq_n_f32(0.0); 8];
                for i in 0..8usize {
                    if i < rows {
                        x[i] = vld1q_f32(from.wrapping_add(i.wrapping_mul(stride) + half));
                    }
                }
                let (low, high) = (transpose_four([x[0], x[1], x[2], x[3]]), transpose_four([x[4], x[5], x[6], x[7]]));
                for j in 0..4usize {
                    Self::store(to.wrapping_add((half + j).wrapping_mul(to_stride)), float32x4x2_t(low[j], high[j]));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn tile<W: Weight, O: Order>(rows: usize, tile: &Tile<W>) {
        unsafe { tile::by_rows!(rows, tile, tile_of, (W, O), [1, 2, 3, 4, 5, 6]) }
    }
}

/// Columns of four rows.
#[inline(always)]
unsafe fn transpose_four(x: [float32x4_t; 4]) -> [float32x4_t; 4] {
    unsafe {
        let doubles = |x: float32x4_t| vreinterpretq_f64_f32(x);
        let (even, odd) = (|a, b| doubles(vtrn1q_f32(a, b)), |a, b| doubles(vtrn2q_f32(a, b)));
        // Pairs of rows, of which the first holds the even columns and the second the odd ones.
        let (a, b, c, d) = (even(x[0], x[1]), odd(x[0], x[1]), even(x[2], x[3]), odd(x[2], x[3]));
        [vzip1q_f64(a, c), vzip1q_f64(b, d), vzip2q_f64(a, c), vzip2q_f64(b, d)].map(|x| vreinterpretq_f32_f64(x))
    }
}

// Two products of codes in -128..=127 and weights in -127..=127 are within 2 * 128 * 127, less than 2^15: they are
// summed in 16 bits, then pairs of such sums in 32. The sums, weights, codes and products in work take all 32
// registers, so both steps are written out and not `pure`: the compiler keeps their order, and no codes wait in
// registers for their turn.
// SAFETY of every function below: the caller's promise of `Int8`.
impl Int8 for Neon {
    type Float = Neon;
    type Code = i8;
    type Sums = int32x4x2_t;
    /// The first two weights of each column, then the others.
    type Weights = int8x16x2_t;
    /// The first two codes, eight times, then the others.
    type Codes = int8x16x2_t;
    const LOWEST_CODE: i32 = -128;

    #[inline(always)]
    unsafe fn zero_sums() -> int32x4x2_t {
        unsafe { int32x4x2_t(vdupq_n_s32(0), vdupq_n_s32(0)) }
    }
    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> int8x16x2_t {
        unsafe {
            let pairs = |from| vreinterpretq_s16_s8(vld1q_s8(from));
            let (a, b) = (pairs(from), pairs(from.wrapping_add(16)));
            int8x16x2_t(vreinterpretq_s8_s16(vuzp1q_s16(a, b)), vreinterpretq_s8_s16(vuzp2q_s16(a, b)))
        }
    }
    #[inline(always)]
    unsafe fn splat_codes(from: *const i8) -> int8x16x2_t {
        unsafe {
            let group = from.cast::<i32>().read_unaligned();
            let (first, second): (int8x16_t, int8x16_t);
            asm!(
                "dup {first:v}.8h, {group:v}.h[0]",
                "dup {second:v}.8h, {group:v}.h[1]",
                group = in(vreg) group,
                first = out(vreg) first,
                second = lateout(vreg) second,
                options(nomem, nostack, preserves_flags),
            );
            int8x16x2_t(first, second)
        }
    }
    #[inline(always)]
    unsafe fn add_products(sums: int32x4x2_t, codes: int8x16x2_t, weights: int8x16x2_t) -> int32x4x2_t {
        let int32x4x2_t(mut low, mut high) = sums;
        unsafe {
            asm!(
                "smull {a:v}.8h, {codes0:v}.8b, {weights0:v}.8b",
                "smull2 {b:v}.8h, {codes0:v}.16b, {weights0:v}.16b",
                "smlal {a:v}.8h, {codes1:v}.8b, {weights1:v}.8b",
                "smlal2 {b:v}.8h, {codes1:v}.16b, {weights1:v}.16b",
                "sadalp {low:v}.4s, {a:v}.8h",
                "sadalp {high:v}.4s, {b:v}.8h",
                a = out(vreg) _,
                b = out(vreg) _,
                low = inout(vreg) low,
                high = inout(vreg) high,
                codes0 = in(vreg) codes.0,
                codes1 = in(vreg) codes.1,
                weights0 = in(vreg) weights.0,
                weights1 = in(vreg) weights.1,
                options(nomem, nostack, preserves_flags),
            );
        }
        int32x4x2_t(low, high)
    }
    #[inline(always)]
    unsafe fn to_float(sums: int32x4x2_t) -> Pair {
        unsafe { float32x4x2_t(vcvtq_f32_s32(sums.0), vcvtq_f32_s32(sums.1)) }
    }
    #[inline(always)]
    unsafe fn store_codes(to: *mut i8, x: [Pair; TOGETHER], zero: i32) {
        unsafe {
            let whole = |x| vqmovn_s32(vaddq_s32(vcvtnq_s32_f32(x), vdupq_n_s32(zero)));
            for (i, x) in x.into_iter().enumerate() {
                vst1_s8(to.wrapping_add(i * Self::Float::LANES), vqmovn_s16(vcombine_s16(whole(x.0), whole(x.1))));
            }
        }
    }
    #[inline(always)]
    unsafe fn tile(rows: usize, tile: &Int8Tile<Self>) {
        unsafe { tile::by_rows!(rows, tile, int8_tile_of, Self, [1, 2, 3, 4, 5, 6]) }
    }
}
