//! Self-attention of one sequence: every token looks at every token, head by head.
//!
//! Scores are kept the other way round, a row for each key and a column for each query, so that registers hold the
//! scores of several queries: softmax then needs no sums across a register, and its result has the order in which the
//! second product reads it. Only queries are laid out anew; keys and values are read where they lie.

use super::RelativeBias;
use super::math::exp;
use super::simd::Simd;
use super::tile::{self, ByProduct, ByRow, FROM_CACHE_BYTES, Finish, Tile};

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

/// The widest tile of any instruction set.
const MAX_TILE_COLUMNS: usize = 32;

/// Numbers of scratch that a sequence of `count` tokens needs: the queries and the scores of one block.
pub(super) fn scratch_len(count: usize, head_width: usize) -> usize {
    (head_width + count) * MAX_TILE_COLUMNS
}

/// Some queries of one head, at most `TILE_COLUMNS`.
struct Block {
    head: usize,
    /// The first query's token.
    from: usize,
    queries: usize,
    /// Shape `[head_width, TILE_COLUMNS]`; zero beyond the last query.
    panel: *mut f32,
    /// Shape `[count, TILE_COLUMNS]`.
    scores: *mut f32,
}

/// Computes softmax(queries * keys) * values for each head.
///
/// # Safety
/// `Simd`'s promise; pointers cover their matrices.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(args: &Args) {
    for head in 0..args.heads {
        for from in (0..args.count).step_by(S::TILE_COLUMNS) {
            let block = Block {
                head,
                from,
                queries: S::TILE_COLUMNS.min(args.count - from),
                panel: args.scratch,
                scores: args.scratch.wrapping_add(args.head_width * S::TILE_COLUMNS),
            };
            // SAFETY: the caller's promise; the scratch holds both parts.
            unsafe {
                pack_queries::<S>(args, &block);
                score::<S>(args, &block);
                let scales = softmax::<S>(block.scores, args.count);
                gather::<S>(args, &block, &scales);
            }
        }
    }
}

/// Copies the block's queries into its panel.
///
/// # Safety
/// As [`run`]; the block lies within the matrices of `args`.
#[inline(always)]
unsafe fn pack_queries<S: Simd>(args: &Args, block: &Block) {
    let queries = args.qkv.wrapping_add(block.from * args.qkv_stride + block.head * args.head_width);
    for half in [0, S::LANES] {
        let rows = block.queries.saturating_sub(half).min(S::LANES);
        for k in (0..args.head_width).step_by(S::LANES) {
            let from = queries.wrapping_add(half * args.qkv_stride + k);
            let to = block.panel.wrapping_add(k * S::TILE_COLUMNS + half);
            // SAFETY: the caller's promise; `rows` queries stand there.
            unsafe { S::transpose(from, args.qkv_stride, rows, to, S::TILE_COLUMNS) };
        }
    }
}

/// Computes the block's scores.
#[inline(always)]
unsafe fn score<S: Simd>(args: &Args, block: &Block) {
    let keys = args.qkv.wrapping_add((args.heads + block.head) * args.head_width);
    for (row, rows) in tile::heights(args.count, S::TILE_ROWS) {
        let scores = Tile {
            a: keys.wrapping_add(row * args.qkv_stride),
            a_stride: args.qkv_stride,
            b: block.panel.cast_const(),
            b_stride: S::TILE_COLUMNS,
            depth: args.head_width,
            ahead: FROM_CACHE_BYTES,
            out: block.scores.wrapping_add(row * S::TILE_COLUMNS),
            out_stride: S::TILE_COLUMNS,
            resume: false,
            bias: std::ptr::null(),
            finish: Finish::Pause,
        };
        // SAFETY: the caller's promise; the tile covers `rows` keys.
        unsafe { S::tile::<f32, ByRow>(rows, &scores) };
    }
    let Some(bias) = args.bias else { return };
    for key in 0..args.count {
        let score = block.scores.wrapping_add(key * S::TILE_COLUMNS);
        let bias = bias.at_distance_0(block.head).wrapping_add(block.from).wrapping_sub(key);
        for column in [0, S::LANES] {
            let score = score.wrapping_add(column);
            // SAFETY: the caller's promise; what is read beyond the last query lies within the table's padding.
            unsafe { S::store(score, S::add(S::load(score), S::load(bias.wrapping_add(column)))) };
        }
    }
}

/// Replaces the scores of each column by e^(score - the largest) and returns what makes their sums one. Columns without
/// a query hold some finite numbers.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: *mut f32, count: usize) -> [f32; MAX_TILE_COLUMNS] {
    let mut scales = [0.0; MAX_TILE_COLUMNS];
    for column in [0, S::LANES] {
        let row = |key: usize| scores.wrapping_add(key * S::TILE_COLUMNS + column);
        // SAFETY: the caller's promise.
        unsafe {
            let mut largest = S::load(row(0));
            for key in 1..count {
                largest = S::max(largest, S::load(row(key)));
            }
            let mut total = S::zero();
            for key in 0..count {
                let weight = exp::<S>(S::sub(S::load(row(key)), largest));
                total = S::add(total, weight);
                S::store(row(key), weight);
            }
            S::store(scales[column..].as_mut_ptr(), S::reciprocal(total));
        }
    }
    scales
}

/// Adds the values up by their weights.
///
/// # Safety
/// As [`run`]; the block lies within the matrices of `args`.
#[inline(always)]
unsafe fn gather<S: Simd>(args: &Args, block: &Block, scales: &[f32; MAX_TILE_COLUMNS]) {
    let values = args.qkv.wrapping_add((2 * args.heads + block.head) * args.head_width);
    let out = args.out.wrapping_add(block.from * args.out_stride + block.head * args.head_width);
    for (row, rows) in tile::heights(block.queries, S::TILE_ROWS) {
        for column in (0..args.head_width).step_by(S::TILE_COLUMNS) {
            let out = out.wrapping_add(row * args.out_stride + column);
            let gathered = Tile {
                a: block.scores.wrapping_add(row).cast_const(),
                a_stride: S::TILE_COLUMNS,
                b: values.wrapping_add(column),
                b_stride: args.qkv_stride,
                depth: args.count,
                ahead: AHEAD_ROWS * args.qkv_stride * size_of::<f32>(),
                out,
                out_stride: args.out_stride,
                resume: false,
                bias: std::ptr::null(),
                finish: Finish::Pause,
            };
            // SAFETY: the caller's promise; the tile covers `rows` queries.
            unsafe {
                S::tile::<f32, ByProduct>(rows, &gathered);
                for (i, scale) in scales[row..row + rows].iter().enumerate() {
                    let out = out.wrapping_add(i * args.out_stride);
                    for out in [out, out.wrapping_add(S::LANES)] {
                        S::store(out, S::mul(S::load(out), S::splat(*scale)));
                    }
                }
            }
        }
    }
}

/// How many tokens ahead of their use values are fetched.
const AHEAD_ROWS: usize = 8;
