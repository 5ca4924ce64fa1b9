//! Self-attention of one sequence: every token looks at every token, head by head.

use super::math::exp;
use super::simd::Simd;

/// Operands of [`run`]. A row of `qkv` holds the token's queries, already divided by the root of the head's width, then
/// its keys, then its values, each `heads * head_width` numbers.
pub(super) struct Args {
    /// First row of the sequence, shape `[count, 3 * heads * head_width]`.
    pub qkv: *const f32,
    pub qkv_stride: usize,
    /// Tokens of the sequence, at least 1.
    pub count: usize,
    pub heads: usize,
    /// A multiple of `2 * LANES` of every instruction set.
    pub head_width: usize,
    /// First row of the result, shape `[count, heads * head_width]`.
    pub out: *mut f32,
    pub out_stride: usize,
    /// [`scratch_len`] numbers.
    pub scratch: *mut f32,
}

/// The widest block of columns of any instruction set.
const MAX_COLUMNS: usize = 32;
/// The most rows of any instruction set.
const MAX_ROWS: usize = 8;

/// Numbers of scratch that a sequence of `count` tokens needs: keys turned on their side, and a block of scores.
pub(super) fn scratch_len(count: usize, head_width: usize) -> usize {
    (head_width + MAX_ROWS) * count.next_multiple_of(MAX_COLUMNS)
}

/// What one head's blocks of rows share.
struct Head {
    queries: *const f32,
    values: *const f32,
    out: *mut f32,
    /// Keys turned on their side, shape `[head_width, padded]`, zero beyond `count`.
    keys: *const f32,
    /// Room for scores, shape `[ATTENTION_ROWS, padded]`.
    scores: *mut f32,
    /// `count` rounded up to whole blocks of columns.
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
    let keys = args.scratch;
    for index in 0..args.heads {
        // SAFETY: the caller's promise; the scratch holds `head_width + ATTENTION_ROWS` rows of `padded` numbers.
        unsafe {
            let queries = args.qkv.add(index * args.head_width);
            transpose_keys(args, queries.add(hidden), keys, padded);
            let head = Head {
                queries,
                values: queries.add(2 * hidden),
                out: args.out.add(index * args.head_width),
                keys,
                scores: keys.add(args.head_width * padded),
                padded,
            };
            let mut row = 0;
            while row < args.count {
                row += match args.count - row {
                    8.. if S::ATTENTION_ROWS == 8 => rows::<S, 8>(args, &head, row),
                    4.. => rows::<S, 4>(args, &head, row),
                    2.. => rows::<S, 2>(args, &head, row),
                    _ => rows::<S, 1>(args, &head, row),
                };
            }
        }
    }
}

#[inline(always)]
unsafe fn transpose_keys(args: &Args, from: *const f32, to: *mut f32, padded: usize) {
    // SAFETY: the caller's promise; `to` has `head_width` rows of `padded` numbers.
    unsafe {
        for token in 0..args.count {
            let key = from.add(token * args.qkv_stride);
            let mut slot = to.add(token);
            for k in 0..args.head_width {
                *slot = *key.add(k);
                slot = slot.wrapping_add(padded);
            }
        }
        for k in 0..args.head_width {
            std::slice::from_raw_parts_mut(to.add(k * padded), padded)[args.count..].fill(0.0);
        }
    }
}

/// Attends for the tokens `row..row + M`; returns `M`.
#[inline(always)]
unsafe fn rows<S: Simd, const M: usize>(args: &Args, head: &Head, row: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let largest = score::<S, M>(args, head, row);
        let scores: [*mut f32; M] = std::array::from_fn(|i| head.scores.wrapping_add(i * head.padded));
        let mut scale = [0.0; M];
        for i in 0..M {
            scale[i] = 1.0 / softmax::<S>(scores[i], head.padded, largest[i]);
        }
        for column in (0..args.head_width).step_by(S::TILE_COLUMNS) {
            let mut sums = [[S::zero(); 2]; M];
            let mut value = head.values.add(column);
            for token in 0..args.count {
                let (left, right) = (S::load(value), S::load(value.add(S::LANES)));
                for i in 0..M {
                    let p = S::splat(*scores[i].add(token));
                    sums[i] = [S::mul_add(p, left, sums[i][0]), S::mul_add(p, right, sums[i][1])];
                }
                value = value.wrapping_add(args.qkv_stride);
            }
            for i in 0..M {
                let out = head.out.add((row + i) * args.out_stride + column);
                S::store(out, S::mul(sums[i][0], S::splat(scale[i])));
                S::store(out.add(S::LANES), S::mul(sums[i][1], S::splat(scale[i])));
            }
        }
    }
    M
}

/// Writes the scores of `M` tokens against all, negative infinity beyond the last; returns the largest of each.
#[inline(always)]
unsafe fn score<S: Simd, const M: usize>(args: &Args, head: &Head, row: usize) -> [f32; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let queries: [*const f32; M] = std::array::from_fn(|i| head.queries.wrapping_add((row + i) * args.qkv_stride));
        let mut largest = [S::splat(f32::NEG_INFINITY); M];
        for column in (0..head.padded).step_by(S::TILE_COLUMNS) {
            let mut sums = [[S::zero(); 2]; M];
            let mut key = head.keys.add(column);
            for k in 0..args.head_width {
                let (left, right) = (S::load(key), S::load(key.add(S::LANES)));
                for i in 0..M {
                    let q = S::splat(*queries[i].add(k));
                    sums[i] = [S::mul_add(q, left, sums[i][0]), S::mul_add(q, right, sums[i][1])];
                }
                key = key.wrapping_add(head.padded);
            }
            let left = args.count - column;
            for i in 0..M {
                if left < S::TILE_COLUMNS {
                    sums[i][0] = S::keep_first(sums[i][0], left.min(S::LANES));
                    sums[i][1] = S::keep_first(sums[i][1], left.saturating_sub(S::LANES));
                }
                largest[i] = S::max(S::max(sums[i][0], sums[i][1]), largest[i]);
                let to = head.scores.add(i * head.padded + column);
                S::store(to, sums[i][0]);
                S::store(to.add(S::LANES), sums[i][1]);
            }
        }
        std::array::from_fn(|i| S::largest(largest[i]))
    }
}

/// Replaces scores by e^(score - largest) and returns their sum.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: *mut f32, len: usize, largest: f32) -> f32 {
    // SAFETY: the caller's promise; `len` is a multiple of `LANES`.
    unsafe {
        let shift = S::splat(largest);
        let mut total = S::zero();
        for column in (0..len).step_by(S::LANES) {
            let weight = exp::<S>(S::sub(S::load(scores.add(column)), shift));
            total = S::add(total, weight);
            S::store(scores.add(column), weight);
        }
        S::sum(total)
    }
}
