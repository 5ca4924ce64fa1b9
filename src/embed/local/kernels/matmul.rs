//! A matrix product against packed weights, blocked for the caches.

use std::ops::Range;

use super::packed::{DEPTH_BLOCK, PackedMatrix, Panels};
use super::simd::Simd;
use super::tile::{self, ByProduct, Finish, Tile, Weight};

/// Bytes of weights that stay in the second-level cache while all rows pass by.
pub(super) const GROUP_BYTES: usize = 400 << 10;

/// Operands of [`run`].
#[derive(Clone)]
pub(super) struct Args<'a> {
    /// The left matrix, shape `[count, weights.depth]`, as [`super::pack`] leaves it.
    pub x: *const f32,
    /// Rows of the left matrix.
    pub count: usize,
    pub weights: &'a PackedMatrix,
    /// The panels to compute.
    pub panels: Range<usize>,
    /// First element of the product, shape `[count, weights.columns]`.
    pub out: *mut f32,
    pub out_stride: usize,
    /// Applied to each sum; another operand has the product's shape.
    pub finish: Finish,
}

/// Computes `finish(x * weights)`.
///
/// Each number is summed in ascending order of its products whatever the number of rows, so that a row's result does
/// not depend on the rows beside it.
///
/// # Safety
/// `Simd`'s promise; pointers cover their matrices; `weights` was packed for `S::TILE_COLUMNS`.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(args: &Args) {
    // SAFETY: the caller's promise.
    unsafe {
        match &args.weights.panels {
            Panels::Float32(panels) => run_panels::<S, f32>(args, panels.as_slice()),
            Panels::Float16(panels) => run_panels::<S, u16>(args, panels.as_slice()),
            Panels::Int8(_) => unreachable!("int8 weights have a product of their own"),
        }
    }
}

/// [`run`] for weights of one kind.
///
/// # Safety
/// As [`run`]; `panels` are those of `args`.
#[inline(always)]
unsafe fn run_panels<S: Simd, W: Weight>(args: &Args, panels: &[W]) {
    let depth = args.weights.depth;
    let block = DEPTH_BLOCK.min(depth);
    let group = (GROUP_BYTES / (block * S::TILE_COLUMNS * size_of::<W>())).max(1);
    for depth_from in (0..depth).step_by(DEPTH_BLOCK) {
        for group_from in args.panels.clone().step_by(group) {
            for rows in tile::heights(args.count, S::TILE_ROWS) {
                for panel in group_from..args.panels.end.min(group_from + group) {
                    // SAFETY: the caller's promise; the tile lies within the matrices.
                    unsafe { one_tile::<S, W>(args, panels, depth_from, rows, panel) };
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn one_tile<S: Simd, W: Weight>(
    args: &Args,
    panels: &[W],
    depth_from: usize,
    (row_from, rows): (usize, usize),
    panel: usize,
) {
    let weights = args.weights;
    let depth = DEPTH_BLOCK.min(weights.depth - depth_from);
    let column = panel * S::TILE_COLUMNS;
    let last = depth_from + depth == weights.depth;
    let tile = Tile {
        a: args.x.wrapping_add(row_from * weights.depth + depth_from * rows),
        a_stride: rows,
        b: panels[depth_from * weights.columns + column * depth..].as_ptr(),
        b_stride: S::TILE_COLUMNS,
        depth,
        ahead: tile::ahead(row_from),
        out: args.out.wrapping_add(row_from * args.out_stride + column),
        out_stride: args.out_stride,
        resume: depth_from > 0,
        bias: weights.bias[column..].as_ptr(),
        finish: if last { args.finish.at(row_from, column) } else { Finish::Pause },
    };
    // SAFETY: the caller's promise; rows beyond `count` and columns beyond the panel are not touched.
    unsafe {
        S::tile::<W, ByProduct>(rows, &tile);
        tile::finish::<S, W>(rows, &tile);
    }
}
