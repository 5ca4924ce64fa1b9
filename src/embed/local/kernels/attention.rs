//! Self-attention of one sequence: every token looks at every token, head by head.

use super::RelativeBias;
use super::math::exp;
use super::simd::Simd;
use super::tile::{FROM_CACHE_BYTES, Finish, Tile};

/// Operands of [`run`]. A row of `qkv` holds the token's queries, already divided by the root of the head's width, then
/// its keys, then its values, each `heads * head_width` numbers.
pub(super) struct Args<'a> {
    /// First row of the sequence, shape `[count, 3 * heads * head_width]`.
    pub qkv: *const f32,
    pub qkv_stride: usize,
    /// Tokens of the sequence, at least 1.
    pub count: usize,
    pub heads: usize,
    /// A multiple of the `TILE_COLUMNS` of every instruction set.
    pub head_width: usize,
    /// First row of the result, shape `[count, heads * head_width]`.
    pub out: *mut f32,
    pub out_stride: usize,
    /// Added to the scores; it reaches `count` tokens and has `heads` heads.
    pub bias: Option<&'a RelativeBias>,
    /// [`scratch_len`] numbers.
    pub scratch: *mut f32,
}

/// The widest and highest tiles of any instruction set.
const MAX_TILE_COLUMNS: usize = 32;
const MAX_TILE_ROWS: usize = 14;

/// Numbers of scratch that a sequence of `count` tokens needs: one head's keys and values, and a block of scores.
pub(super) fn scratch_len(count: usize, head_width: usize) -> usize {
    (2 * head_width + MAX_TILE_ROWS) * count.next_multiple_of(MAX_TILE_COLUMNS)
}

/// Where the parts of one head lie.
struct Head {
    index: usize,
    queries: *const f32,
    out: *mut f32,
    /// Panels of `TILE_COLUMNS` keys, each of shape `[head_width, TILE_COLUMNS]`; zero beyond the last key.
    keys: *mut f32,
    /// Panels of `TILE_COLUMNS` columns of the values, each of shape `[count, TILE_COLUMNS]`.
    values: *mut f32,
    /// Room for scores, shape `[TILE_ROWS, padded]`.
    scores: *mut f32,
    /// `count` rounded up to whole panels.
    padded: usize,
}

/// Computes softmax(queries * keys) * values for each head.
///
/// # Safety
/// `Simd`'s promise; pointers cover their matrices.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(args: &Args) {
    let hidden = args.heads * args.head_width;
    let padded = args.count.next_multiple_of(S::TILE_COLUMNS);
    for index in 0..args.heads {
        let queries = args.qkv.wrapping_add(index * args.head_width);
        let values = args.scratch.wrapping_add(args.head_width * padded);
        let head = Head {
            index,
            queries,
            out: args.out.wrapping_add(index * args.head_width),
            keys: args.scratch,
            values,
            scores: values.wrapping_add(args.head_width * padded),
            padded,
        };
        // SAFETY: the caller's promise; the scratch holds the three parts.
        unsafe {
            pack_keys::<S>(args, &head, queries.wrapping_add(hidden));
            pack_values::<S>(args, &head, queries.wrapping_add(2 * hidden));
            for row in (0..args.count).step_by(S::TILE_ROWS) {
                rows::<S>(args, &head, row, S::TILE_ROWS.min(args.count - row));
            }
        }
    }
}

#[inline(always)]
unsafe fn pack_keys<S: Simd>(args: &Args, head: &Head, mut key: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let last_panel = (head.padded - S::TILE_COLUMNS) * args.head_width;
        for i in (0..S::TILE_COLUMNS * args.head_width).step_by(S::LANES) {
            S::store(head.keys.wrapping_add(last_panel + i), S::zero());
        }
        for token in 0..args.count {
            let column = token % S::TILE_COLUMNS;
            let mut slot = head.keys.wrapping_add((token - column) * args.head_width + column);
            for k in 0..args.head_width {
                *slot = *key.wrapping_add(k);
                slot = slot.wrapping_add(S::TILE_COLUMNS);
            }
            key = key.wrapping_add(args.qkv_stride);
        }
    }
}

#[inline(always)]
unsafe fn pack_values<S: Simd>(args: &Args, head: &Head, from: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        for column in (0..args.head_width).step_by(S::TILE_COLUMNS) {
            let mut value = from.wrapping_add(column);
            let mut slot = head.values.wrapping_add(column * args.count);
            for _ in 0..args.count {
                S::store(slot, S::load(value));
                S::store(slot.wrapping_add(S::LANES), S::load(value.wrapping_add(S::LANES)));
                value = value.wrapping_add(args.qkv_stride);
                slot = slot.wrapping_add(S::TILE_COLUMNS);
            }
        }
    }
}

/// Attends for the tokens `row..row + rows`, at most `TILE_ROWS`.
#[inline(always)]
unsafe fn rows<S: Simd>(args: &Args, head: &Head, row: usize, rows: usize) {
    // SAFETY: the caller's promise; a tile's pointers cover `rows` rows.
    unsafe {
        for column in (0..head.padded).step_by(S::TILE_COLUMNS) {
            let scores = Tile {
                a: head.queries.wrapping_add(row * args.qkv_stride),
                a_stride: args.qkv_stride,
                b: head.keys.wrapping_add(column * args.head_width),
                depth: args.head_width,
                ahead: FROM_CACHE_BYTES,
                out: head.scores.wrapping_add(column),
                out_stride: head.padded,
                resume: false,
                bias: std::ptr::null(),
                finish: Finish::Pause,
            };
            S::tile(rows, &scores);
        }
        if let Some(bias) = args.bias {
            for i in 0..rows {
                let from = std::ptr::from_ref(bias.at_distance_0(head.index)).wrapping_sub(row + i);
                add_bias::<S>(head.scores.wrapping_add(i * head.padded), from, args.count);
            }
        }
        let mut scales = [0.0; MAX_TILE_ROWS];
        for (i, scale) in scales.iter_mut().enumerate().take(rows) {
            *scale = 1.0 / softmax::<S>(head.scores.wrapping_add(i * head.padded), args.count);
        }
        for column in (0..args.head_width).step_by(S::TILE_COLUMNS) {
            let out = head.out.wrapping_add(row * args.out_stride + column);
            let gathered = Tile {
                a: head.scores,
                a_stride: head.padded,
                b: head.values.wrapping_add(column * args.count),
                depth: args.count,
                ahead: FROM_CACHE_BYTES,
                out,
                out_stride: args.out_stride,
                resume: false,
                bias: std::ptr::null(),
                finish: Finish::Pause,
            };
            S::tile(rows, &gathered);
            for (i, scale) in scales.iter().enumerate().take(rows) {
                let out = out.wrapping_add(i * args.out_stride);
                for out in [out, out.wrapping_add(S::LANES)] {
                    S::store(out, S::mul(S::load(out), S::splat(*scale)));
                }
            }
        }
    }
}

/// Adds `count` biases to as many scores. What follows the scores in the last register is overwritten, and what follows
/// the biases is read.
#[inline(always)]
unsafe fn add_bias<S: Simd>(scores: *mut f32, bias: *const f32, count: usize) {
    for column in (0..count).step_by(S::LANES) {
        let score = scores.wrapping_add(column);
        // SAFETY: the caller's promise; scores are padded to whole registers, and so is the last row of biases.
        unsafe { S::store(score, S::add(S::load(score), S::load(bias.wrapping_add(column)))) };
    }
}

/// Replaces `count` scores by e^(score - the largest) and returns their sum. What follows the scores in the last register
/// is overwritten.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: *mut f32, count: usize) -> f32 {
    // SAFETY: the caller's promise; scores are padded to whole registers.
    unsafe {
        let whole = count - count % S::LANES;
        let tail = scores.wrapping_add(whole);
        let mut largest = S::splat(f32::NEG_INFINITY);
        for column in (0..whole).step_by(S::LANES) {
            largest = S::max(largest, S::load(scores.wrapping_add(column)));
        }
        if whole < count {
            let kept = S::keep_first(S::load(tail), count - whole);
            S::store(tail, kept);
            largest = S::max(largest, kept);
        }
        let shift = S::splat(S::largest(largest));
        let mut total = S::zero();
        for column in (0..count).step_by(S::LANES) {
            let score = scores.wrapping_add(column);
            let weight = exp::<S>(S::sub(S::load(score), shift));
            total = S::add(total, weight);
            S::store(score, weight);
        }
        S::sum(total)
    }
}
