//! A matrix product against packed weights, blocked for the caches.

use super::rows::Aligned;
use super::simd::Simd;
use super::tile::{self, Finish, Tile};

/// Products summed before moving on: a tile's rows of this depth stay in the first-level cache.
const DEPTH_BLOCK: usize = 384;
/// Bytes of weights that stay in the second-level cache while all rows pass by.
const GROUP_BYTES: usize = 400 << 10;

/// Weights of a linear layer, shape `[columns, depth]` as stored, laid out in panels of `panel_columns` columns: within a
/// panel, row `k` holds the panel's columns of product `k` side by side.
#[derive(Debug)]
pub(crate) struct PackedMatrix {
    pub(super) columns: usize,
    pub(super) depth: usize,
    pub(super) panel_columns: usize,
    pub(super) panels: Aligned,
    pub(super) bias: Vec<f32>,
}

impl PackedMatrix {
    /// An unfilled matrix; `columns` is a multiple of `panel_columns`.
    pub(super) fn new(columns: usize, depth: usize, panel_columns: usize) -> Self {
        assert!(columns.is_multiple_of(panel_columns), "columns={columns} panel_columns={panel_columns}");
        let panels = Aligned::zeroed(columns * depth);
        Self { columns, depth, panel_columns, panels, bias: vec![0.0; columns] }
    }

    /// Fills columns `at..at + bias.len()` with `scale` times the weights, shape `[bias.len(), depth]`, and bias.
    ///
    /// # Panics
    /// If the columns or the weights do not fit.
    pub(crate) fn fill(&mut self, at: usize, weights: &[f32], bias: &[f32], scale: f32) {
        assert_eq!(weights.len(), bias.len() * self.depth, "at={at} depth={}", self.depth);
        let (wide, depth) = (self.panel_columns, self.depth);
        for (target, source) in self.bias[at..at + bias.len()].iter_mut().zip(bias) {
            *target = source * scale;
        }
        let panels = self.panels.as_mut_slice();
        for (offset, row) in weights.chunks_exact(depth).enumerate() {
            let column = at + offset;
            let panel = &mut panels[column / wide * depth * wide..][..depth * wide];
            for (slots, weight) in panel.chunks_exact_mut(wide).zip(row) {
                slots[column % wide] = weight * scale;
            }
        }
    }

    /// Columns of the product.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Products summed for each number.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }
}

/// Operands of [`run`].
pub(super) struct Args<'a> {
    /// First element of the left matrix, shape `[count, weights.depth]`.
    pub x: *const f32,
    pub x_stride: usize,
    /// Rows of the left matrix.
    pub count: usize,
    pub weights: &'a PackedMatrix,
    /// First element of the product, shape `[count, weights.columns]`.
    pub out: *mut f32,
    pub out_stride: usize,
    /// Applied to each sum; a residual has the product's shape.
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
    let weights = args.weights;
    let panel_count = weights.columns / S::TILE_COLUMNS;
    let block = DEPTH_BLOCK.min(weights.depth);
    let group = (GROUP_BYTES / (block * S::TILE_COLUMNS * size_of::<f32>())).max(1);
    for depth_from in (0..weights.depth).step_by(DEPTH_BLOCK) {
        for group_from in (0..panel_count).step_by(group) {
            for row_from in (0..args.count).step_by(S::TILE_ROWS) {
                for panel in group_from..panel_count.min(group_from + group) {
                    // SAFETY: the caller's promise; the tile lies within the matrices.
                    unsafe { one_tile::<S>(args, depth_from, row_from, panel) };
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn one_tile<S: Simd>(args: &Args, depth_from: usize, row_from: usize, panel: usize) {
    let weights = args.weights;
    let depth = DEPTH_BLOCK.min(weights.depth - depth_from);
    let column = panel * S::TILE_COLUMNS;
    let finish = match args.finish {
        _ if depth_from + depth < weights.depth => Finish::Pause,
        Finish::BiasResidual { residual, stride } => {
            Finish::BiasResidual { residual: residual.wrapping_add(row_from * stride + column), stride }
        }
        Finish::BiasSiluTimes { factor, stride } => {
            Finish::BiasSiluTimes { factor: factor.wrapping_add(row_from * stride + column), stride }
        }
        other => other,
    };
    let panels = weights.panels.as_slice();
    let tile = Tile {
        a: args.x.wrapping_add(row_from * args.x_stride + depth_from),
        a_stride: args.x_stride,
        b: panels[column * weights.depth + depth_from * S::TILE_COLUMNS..].as_ptr(),
        depth,
        out: args.out.wrapping_add(row_from * args.out_stride + column),
        out_stride: args.out_stride,
        resume: depth_from > 0,
        bias: weights.bias[column..].as_ptr(),
        finish,
    };
    // SAFETY: the caller's promise; rows beyond `count` and columns beyond the panel are not touched.
    unsafe {
        let rows = S::TILE_ROWS.min(args.count - row_from);
        S::tile(rows, &tile);
        tile::finish::<S>(rows, &tile);
    }
}
