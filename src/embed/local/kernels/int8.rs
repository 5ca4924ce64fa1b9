//! Products of 8-bit weights and activations, summed exactly in 32 bits.
//!
//! Rows and columns are cut into blocks of products, each rounded on its own, so that a large number coarsens its block
//! alone. Within a block `x = scale * (code - zero)` with codes in 0..=255 and `w = step * weight_code`, so that
//! `sum(x * w) = scale * step * (sum(code * weight_code) - zero * sum(weight_code))`.

use std::ops::Range;

use super::matmul::GROUP_BYTES;
use super::packed::{Int8Panels, PackedMatrix};
use super::simd::Simd;
use super::tile::{FROM_CACHE_BYTES, FROM_MEMORY_BYTES, Finish};

/// Operations on registers of `Float::LANES` sums of 32 bits.
///
/// # Safety
/// As for [`Simd`].
pub(super) trait Int8: Copy {
    /// The same registers as f32.
    type Float: Simd;
    /// What an activation's code is stored as.
    type Code: Copy;
    /// `Float::LANES` sums.
    type Sums: Copy;
    /// `GROUP` weights of each of `Float::LANES` columns.
    type Weights: Copy;
    /// One group of codes in every lane.
    type Codes: Copy;
    /// Products summed by one [`Int8::add_products`].
    const GROUP: usize;
    /// Rows of an output tile.
    const TILE_ROWS: usize;

    unsafe fn zero_sums() -> Self::Sums;
    unsafe fn load_weights(from: *const i8) -> Self::Weights;
    unsafe fn splat_codes(from: *const Self::Code) -> Self::Codes;
    unsafe fn add_products(sums: Self::Sums, codes: Self::Codes, weights: Self::Weights) -> Self::Sums;
    unsafe fn store_sums(to: *mut i32, sums: Self::Sums);
    /// Stores whole numbers in 0..=255 as codes.
    unsafe fn store_codes(to: *mut Self::Code, x: <Self::Float as Simd>::F32);
    /// Computes the sums of a tile of `rows` rows, 1 to `TILE_ROWS`.
    unsafe fn sums(rows: usize, tile: &SumTile<Self>);
}

/// One tile of sums: rows by two registers.
pub(super) struct SumTile<I: Int8> {
    /// First code of the first row.
    pub codes: *const I::Code,
    /// Codes from one row to the next.
    pub codes_stride: usize,
    /// Panel of weights, shape `[groups, TILE_COLUMNS, GROUP]`.
    pub weights: *const i8,
    pub groups: usize,
    /// How far ahead of their use weights are fetched, in bytes.
    pub ahead: usize,
    /// Room for the sums, shape `[rows, TILE_COLUMNS]`.
    pub out: *mut i32,
}

/// Operands of [`quantise`].
#[derive(Clone, Copy)]
pub(super) struct QuantiseArgs {
    /// First element of the matrix, shape `[count, width]`.
    pub x: *const f32,
    pub x_stride: usize,
    pub count: usize,
    pub width: usize,
    /// Numbers of a block.
    pub block: usize,
    pub rows: QuantisedRows,
}

/// Where quantised rows lie.
#[derive(Clone, Copy)]
pub(super) struct QuantisedRows {
    /// First code, as `Int8::Code`.
    pub codes: *mut u8,
    /// Codes from one row to the next.
    pub stride: usize,
    /// Shape `[count, blocks]`.
    pub scales: *mut f32,
    /// Shape `[count, blocks]`.
    pub zeros: *mut f32,
}

/// Operands of [`run`].
#[derive(Clone)]
pub(super) struct Args<'a> {
    pub rows: QuantisedRows,
    pub count: usize,
    pub weights: &'a PackedMatrix,
    pub int8: &'a Int8Panels,
    /// The panels to compute.
    pub panels: Range<usize>,
    /// First element of the product, shape `[count, weights.columns]`.
    pub out: *mut f32,
    pub out_stride: usize,
    pub finish: Finish,
}

/// Rounds each block of each row to codes, whose 0..=255 span the block's smallest to largest number, and 0.
///
/// # Safety
/// `Simd`'s promise; pointers cover their matrices; `width` is a multiple of `LANES`.
#[inline(always)]
pub(super) unsafe fn quantise<I: Int8>(args: &QuantiseArgs) {
    let blocks = args.width.div_ceil(args.block);
    for row in 0..args.count {
        for block in 0..blocks {
            let from = block * args.block;
            let x = args.x.wrapping_add(row * args.x_stride + from);
            let codes = args.rows.codes.cast::<I::Code>().wrapping_add(row * args.rows.stride + from);
            let width = args.block.min(args.width - from);
            // SAFETY: the caller's promise; the block lies within the row.
            unsafe {
                let (scale, zero) = quantise_block::<I>(x, width, codes);
                *args.rows.scales.add(row * blocks + block) = scale;
                *args.rows.zeros.add(row * blocks + block) = zero;
            }
        }
    }
}

/// Rounds `width` numbers to codes. Returns their scale and zero.
#[inline(always)]
unsafe fn quantise_block<I: Int8>(x: *const f32, width: usize, codes: *mut I::Code) -> (f32, f32) {
    // SAFETY: the caller's promise; every offset is below `width`.
    unsafe {
        let load = |k| I::Float::load(x.wrapping_add(k));
        let (mut low, mut high) = (I::Float::zero(), I::Float::zero());
        for k in (0..width).step_by(I::Float::LANES) {
            let x = load(k);
            low = I::Float::min(low, x);
            high = I::Float::max(high, x);
        }
        let lowest = -I::Float::largest(I::Float::sub(I::Float::zero(), low));
        let highest = I::Float::largest(high);
        let scale = ((highest - lowest) / 255.0).max(f32::MIN_POSITIVE);
        let zero = (-lowest / scale).round_ties_even();
        let (inverse, shift) = (I::Float::splat(1.0 / scale), I::Float::splat(zero));
        let largest = I::Float::splat(255.0);
        for k in (0..width).step_by(I::Float::LANES) {
            let steps = I::Float::round(I::Float::mul(load(k), inverse));
            let code = I::Float::max(I::Float::zero(), I::Float::add(steps, shift));
            I::store_codes(codes.wrapping_add(k), I::Float::min(largest, code));
        }
        (scale, zero)
    }
}

/// Computes `finish(x * weights)` from quantised rows.
///
/// # Safety
/// `Simd`'s promise; pointers cover their matrices; `weights` was packed for this level.
#[inline(always)]
pub(super) unsafe fn run<I: Int8>(args: &Args) {
    let panel_bytes = args.weights.depth * I::Float::TILE_COLUMNS;
    let group = (GROUP_BYTES / panel_bytes).max(1);
    for group_from in args.panels.clone().step_by(group) {
        for row_from in (0..args.count).step_by(I::TILE_ROWS) {
            for panel in group_from..args.panels.end.min(group_from + group) {
                // SAFETY: the caller's promise; the tile lies within the matrices.
                unsafe { one_tile::<I>(args, row_from, panel) };
            }
        }
    }
}

#[inline(always)]
unsafe fn one_tile<I: Int8>(args: &Args, row_from: usize, panel: usize) {
    let depth = args.weights.depth;
    let column = panel * I::Float::TILE_COLUMNS;
    let rows = I::TILE_ROWS.min(args.count - row_from);
    let codes = args.rows.codes.cast::<I::Code>().wrapping_add(row_from * args.rows.stride);
    let weights = args.int8.codes.as_slice()[column * depth..].as_ptr();
    let mut sums = [0; MAX_TILE];
    for from in (0..depth).step_by(args.int8.block) {
        let block = args.int8.block.min(depth - from);
        let tile = SumTile::<I> {
            codes: codes.wrapping_add(from).cast_const(),
            codes_stride: args.rows.stride,
            weights: weights.wrapping_add(from * I::Float::TILE_COLUMNS),
            groups: block / I::GROUP,
            ahead: if args.count <= I::TILE_ROWS { FROM_MEMORY_BYTES } else { FROM_CACHE_BYTES },
            out: sums.as_mut_ptr(),
        };
        let finish = if from + block == depth { args.finish } else { Finish::Pause };
        let place = Place { row: row_from, column, rows, block: from / args.int8.block, finish };
        // SAFETY: the caller's promise; rows beyond `count` and columns beyond the panel are not touched.
        unsafe {
            I::sums(rows, &tile);
            accumulate::<I>(args, &place, &sums);
        }
    }
}

/// Sums of the largest tile.
const MAX_TILE: usize = 14 * 32;

/// Where a tile stands in the product.
struct Place {
    row: usize,
    column: usize,
    rows: usize,
    /// The block of products that was summed.
    block: usize,
    /// What follows it.
    finish: Finish,
}

/// Sums one tile in registers; `M` rows.
///
/// # Safety
/// `Simd`'s promise, and every pointer of the tile covers `M` rows.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices that are constants after unrolling keep `sums` in registers")]
pub(super) unsafe fn sum_tile<I: Int8, const M: usize>(tile: &SumTile<I>) {
    let half = I::Float::LANES * I::GROUP;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[I::zero_sums(); 2]; M];
        let mut codes = tile.codes;
        let mut weights = tile.weights;
        for _ in 0..tile.groups {
            let left = I::load_weights(weights);
            let right = I::load_weights(weights.wrapping_add(half));
            I::Float::prefetch(weights.wrapping_add(tile.ahead));
            I::Float::prefetch(weights.wrapping_add(tile.ahead + half));
            for i in 0..M {
                let x = I::splat_codes(codes.wrapping_add(i.wrapping_mul(tile.codes_stride)));
                sums[i][0] = I::add_products(sums[i][0], x, left);
                sums[i][1] = I::add_products(sums[i][1], x, right);
            }
            codes = codes.wrapping_add(I::GROUP);
            weights = weights.wrapping_add(2 * half);
        }
        for i in 0..M {
            let out = tile.out.wrapping_add(i * I::Float::TILE_COLUMNS);
            I::store_sums(out, sums[i][0]);
            I::store_sums(out.wrapping_add(I::Float::LANES), sums[i][1]);
        }
    }
}

/// Adds what the sums of a block stand for to the product, or to the bias where the block is the first; then does what
/// follows.
#[inline(always)]
unsafe fn accumulate<I: Int8>(args: &Args, place: &Place, sums: &[i32; MAX_TILE]) {
    let at = place.block * args.weights.columns + place.column;
    let (steps, weight_sums) = (&args.int8.steps[at..], &args.int8.sums[at..]);
    let bias = &args.weights.bias[place.column..];
    let blocks = args.weights.depth.div_ceil(args.int8.block);
    let finish = place.finish.at(place.row, place.column);
    // SAFETY: the caller's promise; two registers of every row lie within the matrices.
    unsafe {
        let pair = |from: &[f32]| [I::Float::load(from.as_ptr()), I::Float::load(from[I::Float::LANES..].as_ptr())];
        let (steps, weight_sums, bias) = (pair(steps), pair(weight_sums), pair(bias));
        for i in 0..place.rows {
            let row = place.row + i;
            let scale = I::Float::splat(*args.rows.scales.wrapping_add(row * blocks + place.block));
            let zero = I::Float::splat(*args.rows.zeros.wrapping_add(row * blocks + place.block));
            let out = args.out.wrapping_add(row * args.out_stride + place.column);
            let sums = sums.as_ptr().wrapping_add(i * I::Float::TILE_COLUMNS);
            for side in 0..2 {
                let register = side * I::Float::LANES;
                let out = out.wrapping_add(register);
                let sum = I::Float::load_i32(sums.wrapping_add(register));
                let sum = I::Float::neg_mul_add(zero, weight_sums[side], sum);
                let before = if place.block == 0 { bias[side] } else { I::Float::load(out) };
                let x = I::Float::mul_add(sum, I::Float::mul(scale, steps[side]), before);
                I::Float::store(out, finish.apply::<I::Float>(x, i, register));
            }
        }
    }
}
