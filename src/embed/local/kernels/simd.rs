//! The vector operations that the kernels are written in; each instruction set implements them once.

use super::tile::{Order, Tile, Weight};

/// The largest register, in numbers; no tile has more rows. Who makes room by it asserts that a set keeps to it.
pub(super) const MAX_LANES: usize = 16;

/// Operations on one register of `LANES` f32 numbers.
///
/// # Safety
/// Every function needs a CPU that has the instruction set of the implementing type, and is meant to be inlined into
/// a function that enables it; pointers must be valid for what is read or written, with no need for alignment.
pub(super) trait Simd: Copy {
    /// One register.
    type F32: Copy;
    /// Numbers in a register.
    const LANES: usize;
    /// Columns of an output tile, and of a panel of packed weights: two registers.
    const TILE_COLUMNS: usize = 2 * Self::LANES;
    /// Rows of an output tile: what the register file holds beside two columns of weights.
    const TILE_ROWS: usize;

    unsafe fn zero() -> Self::F32;
    unsafe fn splat(x: f32) -> Self::F32;
    unsafe fn load(from: *const f32) -> Self::F32;
    unsafe fn store(to: *mut f32, x: Self::F32);
    /// Half-precision numbers, widened.
    unsafe fn load_f16(from: *const u16) -> Self::F32;
    /// Asks for the cache line at `from`, which need not be readable.
    unsafe fn prefetch<T>(from: *const T);
    unsafe fn add(a: Self::F32, b: Self::F32) -> Self::F32;
    unsafe fn sub(a: Self::F32, b: Self::F32) -> Self::F32;
    unsafe fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    unsafe fn div(a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where the set has it.
    unsafe fn mul_add(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c - a * b`, rounded once where the set has it.
    unsafe fn neg_mul_add(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// No number where `b` is none; where `a` alone is none, `b` or no number. So does `min`.
    unsafe fn max(a: Self::F32, b: Self::F32) -> Self::F32;
    unsafe fn min(a: Self::F32, b: Self::F32) -> Self::F32;
    unsafe fn abs(x: Self::F32) -> Self::F32;
    /// The nearest whole number, ties to even, for x within 2^22.
    unsafe fn round(x: Self::F32) -> Self::F32;
    /// `x * 2^n` for whole `n` in -126..=127.
    unsafe fn scale_by_power_of_two(x: Self::F32, n: Self::F32) -> Self::F32;
    /// `1 / x` within 3e-7 of its value, for x in 1..=1e18.
    unsafe fn reciprocal(x: Self::F32) -> Self::F32;
    unsafe fn sum(x: Self::F32) -> f32;
    /// Writes `LANES` columns of at most `LANES` rows as `LANES` rows, in order, each followed by zeros up to `LANES`
    /// numbers. Bits are kept, so that any numbers of 32 bits may be moved.
    unsafe fn transpose(from: *const f32, stride: usize, rows: usize, to: *mut f32, to_stride: usize);
    /// Computes a tile of `rows` rows, 1 to `TILE_ROWS`.
    unsafe fn tile<W: Weight, O: Order>(rows: usize, tile: &Tile<W>);
}
