//! Products of 8-bit weights and activations, summed exactly in 32 bits.
//!
//! Rows and columns are cut into blocks of products, each rounded on its own, so that a large number coarsens its block
//! alone. Within a block `x = scale * (code - zero)` with codes in 0..=255, or in -128..=127 where the instructions
//! multiply signed numbers, and `w = step * weight_code`, so that
//! `sum(x * w) = scale * step * (sum(code * weight_code) - zero * sum(weight_code))`.

use std::ops::Range;

use super::matmul::GROUP_BYTES;
use super::packed::{Int8Panels, PackedMatrix};
use super::quantise::{QuantisedRows, TOGETHER};
use super::simd::Simd;
use super::tile::{self, Finish};

/// Operations on registers of `Float::LANES` sums of 32 bits.
///
/// # Safety
/// As for [`Simd`].
pub(super) trait Int8: Copy {
    /// The same registers as f32.
    type Float: Simd;
    /// What an activation's code is stored as: [`Int8::GROUP`] of them are a word of 32 bits.
    type Code: Copy;
    /// `Float::LANES` sums.
    type Sums: Copy;
    /// `GROUP` weights of each of `Float::LANES` columns.
    type Weights: Copy;
    /// One group of codes in every lane.
    type Codes: Copy;
    /// Products summed by one [`Int8::add_products`].
    const GROUP: usize = size_of::<u32>() / size_of::<Self::Code>();
    /// The smallest code. The largest is 255 more.
    const LOWEST_CODE: i32 = 0;

    unsafe fn zero_sums() -> Self::Sums;
    unsafe fn load_weights(from: *const i8) -> Self::Weights;
    unsafe fn splat_codes(from: *const Self::Code) -> Self::Codes;
    unsafe fn add_products(sums: Self::Sums, codes: Self::Codes, weights: Self::Weights) -> Self::Sums;
    /// The sums, rounded to what f32 holds.
    unsafe fn to_float(sums: Self::Sums) -> <Self::Float as Simd>::F32;
    /// Stores `round(x) + zero` as codes, what is outside them as the nearest one; ties are rounded to even. Numbers
    /// are in order, `x` is within 2^15 and `zero` a code.
    unsafe fn store_codes(to: *mut Self::Code, x: [<Self::Float as Simd>::F32; TOGETHER], zero: i32);
    /// Computes a tile of `rows` rows, 1 to `TILE_ROWS` of `Float`.
    unsafe fn tile(rows: usize, tile: &Int8Tile<Self>);
}

/// One output tile: rows by two registers.
pub(super) struct Int8Tile<I: Int8> {
    /// Codes, shape `[groups, rows, GROUP]`.
    pub codes: *const I::Code,
    /// Panel of weights, shape `[groups, TILE_COLUMNS, GROUP]`.
    pub weights: *const i8,
    /// Groups of all products.
    pub groups: usize,
    /// Groups of a block; the last may have fewer.
    pub block_groups: usize,
    /// How far ahead of their use weights are fetched, in bytes.
    pub ahead: usize,
    /// Scales and zeros of the first block's rows; those of the next block stand `rows_stride` numbers later.
    pub scales: *const f32,
    pub zeros: *const f32,
    pub rows_stride: usize,
    /// Steps and sums of the first block's columns; those of the next block stand `columns_stride` numbers later.
    pub steps: *const f32,
    pub weight_sums: *const f32,
    pub columns_stride: usize,
    /// Biases of the tile's columns.
    pub bias: *const f32,
    /// Shape `[rows, TILE_COLUMNS]`.
    pub out: *mut f32,
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

/// Numbers of the largest tile.
const MAX_TILE: usize = 14 * 32;

/// Room for a tile. Registers are as wide as cache lines, so it begins at one.
#[repr(align(64))]
struct Room([f32; MAX_TILE]);

/// Computes `finish(x * weights)` from quantised rows.
///
/// # Safety
/// `Simd`'s promise; pointers cover their matrices; `weights` was packed for this level.
#[inline(always)]
pub(super) unsafe fn run<I: Int8>(args: &Args) {
    let panel_bytes = args.weights.depth * I::Float::TILE_COLUMNS;
    let group = (GROUP_BYTES / panel_bytes).max(1);
    let mut room = Room([0.0; MAX_TILE]);
    for group_from in args.panels.clone().step_by(group) {
        for rows in tile::heights(args.count, I::Float::TILE_ROWS) {
            for panel in group_from..args.panels.end.min(group_from + group) {
                // SAFETY: the caller's promise; the tile lies within the matrices.
                unsafe { one_tile::<I>(args, rows, panel, &mut room) };
            }
        }
    }
}

#[inline(always)]
unsafe fn one_tile<I: Int8>(args: &Args, (row, rows): (usize, usize), panel: usize, room: &mut Room) {
    let (depth, columns) = (args.weights.depth, args.weights.columns);
    let column = panel * I::Float::TILE_COLUMNS;
    let tile = Int8Tile::<I> {
        codes: args.rows.codes.wrapping_add(row * (depth / I::GROUP)).cast_const().cast(),
        weights: args.int8.codes.as_slice()[column * depth..].as_ptr(),
        groups: depth / I::GROUP,
        block_groups: args.int8.block / I::GROUP,
        ahead: tile::ahead(row),
        scales: args.rows.scales.wrapping_add(row),
        zeros: args.rows.zeros.wrapping_add(row),
        rows_stride: args.rows.stride,
        steps: args.int8.steps[column..].as_ptr(),
        weight_sums: args.int8.sums[column..].as_ptr(),
        columns_stride: columns,
        bias: args.weights.bias[column..].as_ptr(),
        out: room.0.as_mut_ptr(),
    };
    let finish = args.finish.for_int8().at(row, column);
    let out = |i: usize| args.out.wrapping_add((row + i) * args.out_stride + column);
    // SAFETY: the caller's promise; rows beyond `count` and columns beyond the panel are not touched.
    unsafe {
        // The output is written long after its lines have come.
        for i in 0..rows {
            I::Float::prefetch(out(i));
            I::Float::prefetch(out(i).wrapping_add(I::Float::LANES));
        }
        I::tile(rows, &tile);
        for i in 0..rows {
            let out = out(i);
            for register in [0, I::Float::LANES] {
                let x = I::Float::load(room.0[i * I::Float::TILE_COLUMNS + register..].as_ptr());
                I::Float::store(out.wrapping_add(register), finish.apply::<I::Float>(x, i, register));
            }
        }
    }
}

/// Computes a tile of `M` rows, its bias added. Sums of a block live in registers, what they stand for gathers in
/// `out`.
///
/// # Safety
/// `Simd`'s promise, and every pointer of the tile covers `M` rows.
#[inline(always)]
pub(super) unsafe fn compute<I: Int8, const M: usize>(tile: &Int8Tile<I>) {
    let half = I::Float::LANES * I::GROUP;
    // SAFETY: the caller's promise.
    unsafe {
        let (mut codes, mut weights) = (tile.codes, tile.weights);
        let (mut scales, mut zeros) = (tile.scales, tile.zeros);
        let (mut steps, mut weight_sums) = (tile.steps, tile.weight_sums);
        // What the next block is added to: each row the bias, later what has gathered.
        let (mut addend, mut addend_stride) = (tile.bias, 0);
        let mut remaining = tile.groups;
        while remaining > 0 {
            let groups = remaining.min(tile.block_groups);
            remaining -= groups;
            let (mut left, mut right) = ([I::zero_sums(); M], [I::zero_sums(); M]);
            for _ in 0..groups {
                let (low, high) = (I::load_weights(weights), I::load_weights(weights.wrapping_add(half)));
                I::Float::prefetch(weights.wrapping_add(tile.ahead));
                I::Float::prefetch(weights.wrapping_add(tile.ahead).wrapping_add(half));
                for i in 0..M {
                    let x = I::splat_codes(codes.wrapping_add(i * I::GROUP));
                    left[i] = I::add_products(left[i], x, low);
                    right[i] = I::add_products(right[i], x, high);
                }
                codes = codes.wrapping_add(M * I::GROUP);
                weights = weights.wrapping_add(2 * half);
            }
            // Were it known to hold what the block before left there, that would stay in registers, which the sums
            // need.
            let out = std::hint::black_box(tile.out);
            let block = Block { scales, zeros, steps, weight_sums, addend, addend_stride, out };
            settle::<I, M>(&block, &left);
            settle::<I, M>(&block.at(I::Float::LANES), &right);
            (addend, addend_stride) = (out.cast_const(), I::Float::TILE_COLUMNS);
            (scales, zeros) = (scales.wrapping_add(tile.rows_stride), zeros.wrapping_add(tile.rows_stride));
            (steps, weight_sums) =
                (steps.wrapping_add(tile.columns_stride), weight_sums.wrapping_add(tile.columns_stride));
        }
    }
}

/// What the sums of one block stand for, and where it goes.
#[derive(Clone, Copy)]
struct Block {
    scales: *const f32,
    zeros: *const f32,
    steps: *const f32,
    weight_sums: *const f32,
    /// Rows are `addend_stride` numbers apart.
    addend: *const f32,
    addend_stride: usize,
    out: *mut f32,
}

impl Block {
    /// The same for columns further on.
    fn at(self, column: usize) -> Self {
        let Self { steps, weight_sums, addend, out, .. } = self;
        let (steps, weight_sums) = (steps.wrapping_add(column), weight_sums.wrapping_add(column));
        Self { steps, weight_sums, addend: addend.wrapping_add(column), out: out.wrapping_add(column), ..self }
    }
}

/// Stores what a block's sums stand for, the addend added, as one register of each row of the output. Two short loops,
/// one for each register, are unrolled, a long one is not.
///
/// # Safety
/// As for [`compute`].
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "indices that are constants after unrolling keep sums in registers")]
unsafe fn settle<I: Int8, const M: usize>(block: &Block, sums: &[I::Sums; M]) {
    // SAFETY: the caller's promise.
    unsafe {
        let (step, weight_sum) = (I::Float::load(block.steps), I::Float::load(block.weight_sums));
        for i in 0..M {
            let out = block.out.wrapping_add(i * I::Float::TILE_COLUMNS);
            let zero = I::Float::splat(*block.zeros.wrapping_add(i));
            let scale = I::Float::splat(*block.scales.wrapping_add(i));
            let term = I::Float::neg_mul_add(zero, weight_sum, I::to_float(sums[i]));
            let addend = I::Float::load(block.addend.wrapping_add(i.wrapping_mul(block.addend_stride)));
            I::Float::store(out, I::Float::mul_add(I::Float::mul(term, step), scale, addend));
        }
    }
}
