//! Rows rounded to codes of 8 bits, and laid out for the tiles of a product.
//!
//! Of each tile's rows one block is taken at a time. Smallest and largest numbers are gathered with a lane for each
//! row, so that no register is summed across; codes of one row stand together for a moment, then [`Simd::transpose`]
//! moves them, as words of 32 bits, to where the tile reads them.

use super::int8::Int8;
use super::simd::{MAX_LANES, Simd};
use super::tile;

/// Operands of [`run`].
#[derive(Clone, Copy)]
pub(super) struct Args {
    /// First element of the matrix, shape `[count, width]`.
    pub x: *const f32,
    pub x_stride: usize,
    pub count: usize,
    pub width: usize,
    /// Numbers of a block, at most [`MAX_BLOCK`].
    pub block: usize,
    pub rows: QuantisedRows,
}

/// Where quantised rows lie.
#[derive(Clone, Copy)]
pub(super) struct QuantisedRows {
    /// Codes as `Int8::Code`, in words of [`super::pack::len`]: tile after tile, each of shape
    /// `[width / GROUP, rows, GROUP]`.
    pub codes: *mut f32,
    /// Shape `[blocks, stride]`, of which the first `count` numbers of each row are in use.
    pub scales: *mut f32,
    /// As `scales`.
    pub zeros: *mut f32,
    /// [`stride`].
    pub stride: usize,
}

/// The longest block.
pub(super) const MAX_BLOCK: usize = 128;
/// Numbers that are rounded together, in registers.
pub(super) const TOGETHER: usize = 4;

/// Words between two rows of codes: they take two bytes at most.
const CODES_STRIDE: usize = MAX_BLOCK / 2;

/// Room for one block. Registers are as wide as cache lines, so it begins at one.
#[repr(align(64))]
struct Room {
    /// A register of each row's smallest numbers, then of its largest.
    extremes: [[f32; MAX_LANES * MAX_LANES]; 2],
    /// The same with a lane for each row.
    by_row: [f32; MAX_LANES * MAX_LANES],
    /// Codes of 1 in each row.
    inverses: [f32; MAX_LANES],
    /// Codes row by row.
    codes: [f32; MAX_LANES * CODES_STRIDE],
}

/// Numbers from one block's scales to the next one's: whole registers are written.
pub(super) fn stride(count: usize) -> usize {
    count + MAX_LANES
}

/// Some rows of one block.
struct Block {
    /// First element.
    x: *const f32,
    rows: usize,
    width: usize,
}

/// Rounds each block of each row to codes, which span the block's smallest to largest number, and 0.
///
/// # Safety
/// `Simd`'s promise; pointers cover their matrices; `width` and `block` are multiples of `WIDTH_MULTIPLE`.
#[inline(always)]
pub(super) unsafe fn run<I: Int8>(args: &Args) {
    const { assert!(I::Float::LANES <= MAX_LANES && I::Float::TILE_ROWS <= MAX_LANES) };
    let mut room = Room {
        extremes: [[0.0; MAX_LANES * MAX_LANES]; 2],
        by_row: [0.0; MAX_LANES * MAX_LANES],
        inverses: [0.0; MAX_LANES],
        codes: [0.0; MAX_LANES * CODES_STRIDE],
    };
    for (from, rows) in tile::heights(args.count, I::Float::TILE_ROWS) {
        for (index, column) in (0..args.width).step_by(args.block).enumerate() {
            let x = args.x.wrapping_add(from * args.x_stride + column);
            let block = Block { x, rows, width: args.block.min(args.width - column) };
            let at = index * args.rows.stride + from;
            let codes = args.rows.codes.wrapping_add((from * args.width + column * rows) / I::GROUP);
            // SAFETY: the caller's promise; the block lies within the matrix, and what is written behind a tile's end
            // is where the next one begins, or padding.
            unsafe {
                let (scales, zeros) = (args.rows.scales.wrapping_add(at), args.rows.zeros.wrapping_add(at));
                scale::<I::Float>(args, &block, &mut room, scales, zeros, I::LOWEST_CODE as f32);
                encode::<I>(args, &block, &mut room, zeros, codes);
            }
        }
    }
}

/// Stores each row's step and zero point; the row's smallest number has `lowest_code`. A row that is not finite gets a
/// zero point that is not a number, so that its products are none either: smallest, largest and codes would hide it.
///
/// # Safety
/// `Simd`'s promise; the block lies within the matrix of `args`; `scales` and `zeros` have room for `S::LANES` numbers,
/// however few rows the block has.
#[inline(always)]
unsafe fn scale<S: Simd>(
    args: &Args,
    block: &Block,
    room: &mut Room,
    scales: *mut f32,
    zeros: *mut f32,
    lowest_code: f32,
) {
    let [low, high] = room.extremes.each_mut().map(|extreme| extreme.as_mut_ptr());
    let by_row = room.by_row.as_mut_ptr();
    // SAFETY: the caller's promise; a tile has at most `LANES` rows.
    unsafe {
        for row in 0..block.rows {
            let x = block.x.wrapping_add(row * args.x_stride);
            let (mut lowest, mut highest, mut zero) = (S::zero(), S::zero(), S::zero());
            for k in (0..block.width).step_by(S::LANES) {
                let x = S::load(x.wrapping_add(k));
                lowest = S::min(lowest, x);
                highest = S::max(highest, x);
                zero = S::mul_add(x, S::zero(), zero);
            }
            S::store(low.wrapping_add(row * S::LANES), S::add(lowest, zero));
            S::store(high.wrapping_add(row * S::LANES), highest);
        }
        let lane = |lane: usize| S::load(by_row.wrapping_add(lane * S::LANES));
        S::transpose(low, S::LANES, block.rows, by_row, S::LANES);
        let lowest = (1..S::LANES).fold(lane(0), |lowest, i| S::min(lowest, lane(i)));
        let zero = (0..S::LANES).fold(S::zero(), |zero, i| S::mul_add(lane(i), S::zero(), zero));
        S::transpose(high, S::LANES, block.rows, by_row, S::LANES);
        let highest = (1..S::LANES).fold(lane(0), |highest, i| S::max(highest, lane(i)));
        let range = S::mul(S::sub(highest, lowest), S::splat(1.0 / 255.0));
        let scale = S::max(range, S::splat(f32::MIN_POSITIVE));
        let inverse = S::div(S::splat(1.0), scale);
        S::store(scales, scale);
        let above_lowest = S::round(S::mul(S::sub(S::zero(), lowest), inverse));
        S::store(zeros, S::add(S::add(above_lowest, S::splat(lowest_code)), zero));
        S::store(room.inverses.as_mut_ptr(), inverse);
    }
}

/// Writes the codes.
///
/// # Safety
/// `Int8`'s promise; the block lies within the matrix of `args`; `zeros` has a number for each of its rows, and `codes`
/// room for its numbers in whole groups.
#[inline(always)]
unsafe fn encode<I: Int8>(args: &Args, block: &Block, room: &mut Room, zeros: *const f32, codes: *mut f32) {
    let (lanes, unordered) = (I::Float::LANES, room.codes.as_mut_ptr());
    // SAFETY: the caller's promise; `MAX_BLOCK` is a multiple of what is rounded together.
    unsafe {
        for row in 0..block.rows {
            let x = block.x.wrapping_add(row * args.x_stride);
            let to = unordered.wrapping_add(row * CODES_STRIDE).cast::<I::Code>();
            let inverse = I::Float::splat(room.inverses[row]);
            let zero = *zeros.wrapping_add(row) as i32;
            for k in (0..block.width).step_by(TOGETHER * lanes) {
                let mut numbers = [I::Float::zero(); TOGETHER];
                for (i, number) in numbers.iter_mut().enumerate() {
                    if k + i * lanes < block.width {
                        *number = I::Float::mul(I::Float::load(x.wrapping_add(k + i * lanes)), inverse);
                    }
                }
                I::store_codes(to.wrapping_add(k), numbers, zero);
            }
        }
        for word in (0..block.width / I::GROUP).step_by(lanes) {
            let to = codes.wrapping_add(word * block.rows);
            I::Float::transpose(unordered.wrapping_add(word), CODES_STRIDE, block.rows, to, block.rows);
        }
    }
}
