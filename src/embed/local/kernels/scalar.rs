//! Plain Rust: registers of 4 numbers that any compiler turns into what its target has, tiles of 4 rows by 8 columns.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one comment stands for all blocks of an implementation")]

use super::int8::{Int8, Int8Tile};
use super::quantise::{self, TOGETHER};
use super::simd::Simd;
use super::tile::{self, Kind, Order, Tile, Weight};
use super::{attention, half, int8, layer_norm, matmul, pack};

/// See [`matmul::run`].
pub(super) unsafe fn run_matmul(args: &matmul::Args) {
    // SAFETY: every CPU runs plain Rust; the rest is the caller's promise.
    unsafe { matmul::run::<Scalar>(args) }
}

/// See [`attention::run`].
pub(super) unsafe fn run_attention(args: &attention::Args) {
    // SAFETY: as above.
    unsafe { attention::run::<Scalar>(args) }
}

/// See [`layer_norm::run`].
pub(super) unsafe fn run_layer_norm(args: &layer_norm::Args) {
    // SAFETY: as above.
    unsafe { layer_norm::run::<Scalar>(args) }
}

/// See [`int8::run`].
pub(super) unsafe fn run_int8(args: &int8::Args) {
    // SAFETY: as above.
    unsafe { int8::run::<Scalar>(args) }
}

/// See [`quantise::run`].
pub(super) unsafe fn run_quantise(args: &quantise::Args) {
    // SAFETY: as above.
    unsafe { quantise::run::<Scalar>(args) }
}

/// See [`pack::run`].
pub(super) unsafe fn run_pack(args: &pack::Args) {
    // SAFETY: as above.
    unsafe { pack::run::<Scalar>(args) }
}

unsafe fn tile_of<K: Kind, const M: usize>(tile: &Tile<K::Weight>) {
    // SAFETY: as above.
    unsafe { tile::compute::<Scalar, K::Weight, K::Order, M>(tile) }
}

unsafe fn int8_tile_of<I: Int8, const M: usize>(tile: &Int8Tile<I>) {
    // SAFETY: as above.
    unsafe { int8::compute::<I, M>(tile) }
}

#[derive(Clone, Copy)]
pub(super) struct Scalar;

type Four = [f32; 4];

#[inline(always)]
fn zip(a: Four, b: Four, f: impl Fn(f32, f32) -> f32) -> Four {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

// SAFETY of every function below: the caller's promise of `Simd`.
impl Simd for Scalar {
    type F32 = Four;
    const LANES: usize = 4;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Four {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Four {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Four {
        unsafe { from.cast::<Four>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Four) {
        unsafe { to.cast::<Four>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Four {
        unsafe { from.cast::<[u16; 4]>().read_unaligned() }.map(half::widen)
    }
    #[inline(always)]
    unsafe fn prefetch<T>(_from: *const T) {}
    #[inline(always)]
    unsafe fn add(a: Four, b: Four) -> Four {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Four, b: Four) -> Four {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Four, b: Four) -> Four {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Four, b: Four) -> Four {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: Four, b: Four, c: Four) -> Four {
        zip(zip(a, b, |a, b| a * b), c, |ab, c| ab + c)
    }
    #[inline(always)]
    unsafe fn neg_mul_add(a: Four, b: Four, c: Four) -> Four {
        zip(zip(a, b, |a, b| a * b), c, |ab, c| c - ab)
    }
    #[inline(always)]
    unsafe fn max(a: Four, b: Four) -> Four {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Four, b: Four) -> Four {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(x: Four) -> Four {
        x.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn round(x: Four) -> Four {
        // Adding 1.5 * 2^23 leaves no bits below one: the sum is rounded to a whole number.
        const WHOLE: f32 = 12_582_912.0;
        x.map(|x| (x + WHOLE) - WHOLE)
    }
    #[inline(always)]
    unsafe fn scale_by_power_of_two(x: Four, n: Four) -> Four {
        zip(x, n, |x, n| x * f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn reciprocal(x: Four) -> Four {
        x.map(|x| 1.0 / x)
    }
    #[inline(always)]
    unsafe fn sum(x: Four) -> f32 {
        (x[0] + x[1]) + (x[2] + x[3])
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, to: *mut f32, to_stride: usize) {
        for column in 0..4 {
            let mut x = [0.0; 4];
            for (row, x) in x.iter_mut().enumerate().take(rows) {
                *x = unsafe { *from.wrapping_add(row * stride + column) };
            }
            unsafe { Self::store(to.wrapping_add(column * to_stride), x) };
        }
    }
    #[inline(always)]
    unsafe fn tile<W: Weight, O: Order>(rows: usize, tile: &Tile<W>) {
        unsafe { tile::by_rows!(rows, tile, tile_of, (W, O), [1, 2, 3, 4]) }
    }
}

// SAFETY of every function below: the caller's promise of `Int8`.
impl Int8 for Scalar {
    type Float = Scalar;
    type Code = i16;
    type Sums = [i32; 4];
    type Weights = [[i8; 2]; 4];
    type Codes = [i16; 2];

    #[inline(always)]
    unsafe fn zero_sums() -> [i32; 4] {
        [0; 4]
    }
    #[inline(always)]
    unsafe fn load_weights(from: *const i8) -> [[i8; 2]; 4] {
        unsafe { from.cast::<[[i8; 2]; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_codes(from: *const i16) -> [i16; 2] {
        unsafe { from.cast::<[i16; 2]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn add_products(mut sums: [i32; 4], codes: [i16; 2], weights: [[i8; 2]; 4]) -> [i32; 4] {
        // Within 2^31: depths are at most 2^16, and 2^16 * 255 * 127 is less.
        for (sum, weights) in sums.iter_mut().zip(weights) {
            let product = |i: usize| i32::from(codes[i]).wrapping_mul(i32::from(weights[i]));
            *sum = sum.wrapping_add(product(0).wrapping_add(product(1)));
        }
        sums
    }
    #[inline(always)]
    unsafe fn to_float(sums: [i32; 4]) -> Four {
        sums.map(|sum| sum as f32)
    }
    #[inline(always)]
    unsafe fn store_codes(to: *mut i16, x: [Four; TOGETHER], zero: i32) {
        for (i, x) in x.into_iter().enumerate() {
            let codes = unsafe { Self::round(x) }.map(|x| (x as i32).saturating_add(zero).clamp(0, 255) as i16);
            unsafe { to.wrapping_add(i * Self::LANES).cast::<[i16; 4]>().write_unaligned(codes) }
        }
    }
    #[inline(always)]
    unsafe fn tile(rows: usize, tile: &Int8Tile<Self>) {
        unsafe { tile::by_rows!(rows, tile, int8_tile_of, Self, [1, 2, 3, 4]) }
    }
}
