//! Weights of a linear layer in the layout that a level's kernels read.

use super::half::narrow;
use crate::embed::Precision;
use crate::storage::{Arena, Piece};

/// Products of a block: a tile's rows of this depth stay in the first-level cache. Panels are stored block after block,
/// so that a product of a few rows reads its weights from front to back.
pub(super) const DEPTH_BLOCK: usize = 384;

/// int8 products of a block, of which a large weight or activation coarsens the others.
const INT8_BLOCK: usize = 96;

/// How a level's kernels want weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Columns side by side in a panel.
    pub panel_columns: usize,
    /// int8 products that are summed by one instruction, and so stand side by side.
    pub group: usize,
}

/// Weights of a linear layer, shape `[columns, depth]` as stored, laid out in panels of some columns: within a panel,
/// row `k` holds the panel's columns of product `k` side by side.
#[derive(Debug)]
pub(crate) struct PackedMatrix {
    pub(super) columns: usize,
    pub(super) depth: usize,
    pub(super) layout: Layout,
    pub(super) panels: Panels,
    pub(super) bias: Vec<f32>,
}

/// The numbers of the panels.
#[derive(Debug)]
pub(super) enum Panels {
    /// Shape `[blocks, panels, block depth, panel columns]`.
    Float32(Piece<f32>),
    /// As [`Panels::Float32`], in half precision.
    Float16(Piece<u16>),
    Int8(Int8Panels),
}

/// Weights of 8 bits: `weight = code * step of its column and block`.
#[derive(Debug)]
pub(super) struct Int8Panels {
    /// Products that share a step; a multiple of `group`. The last block may have fewer.
    pub block: usize,
    /// Shape `[panels, depth / group, panel columns, group]`.
    pub codes: Piece<i8>,
    /// Shape `[blocks, columns]`.
    pub steps: Vec<f32>,
    /// Sums of a column's codes in a block, shape `[blocks, columns]`.
    pub sums: Vec<f32>,
}

impl PackedMatrix {
    /// An unfilled matrix in memory of `arena`; `columns` is a multiple of the panel's.
    pub(super) fn new(columns: usize, depth: usize, precision: Precision, layout: Layout, arena: &Arena) -> Self {
        assert!(columns.is_multiple_of(layout.panel_columns), "columns={columns} {layout:?}");
        let count = columns * depth;
        let panels = match precision {
            Precision::Float32 => Panels::Float32(arena.zeroed(count)),
            Precision::Float16 => Panels::Float16(arena.zeroed(count)),
            Precision::Int8 => {
                assert!(depth.is_multiple_of(layout.group), "depth={depth} {layout:?}");
                let block = INT8_BLOCK;
                let blocks = depth.div_ceil(block);
                Panels::Int8(Int8Panels {
                    block,
                    codes: arena.zeroed(count),
                    steps: vec![0.0; blocks * columns],
                    sums: vec![0.0; blocks * columns],
                })
            }
        };
        Self { columns, depth, layout, panels, bias: vec![0.0; columns] }
    }

    /// Fills columns `at..at + bias.len()` with `scale` times the weights, shape `[bias.len(), depth]`, and bias.
    ///
    /// # Panics
    /// If the columns or the weights do not fit.
    pub(crate) fn fill(&mut self, at: usize, weights: &[f32], bias: &[f32], scale: f32) {
        assert_eq!(weights.len(), bias.len() * self.depth, "at={at} depth={}", self.depth);
        for (target, source) in self.bias[at..at + bias.len()].iter_mut().zip(bias) {
            *target = source * scale;
        }
        let (columns, depth, layout) = (self.columns, self.depth, self.layout);
        match &mut self.panels {
            Panels::Float32(panels) => {
                fill_panels(panels.as_mut_slice(), [columns, depth], layout, at, weights, |weight| weight * scale);
            }
            Panels::Float16(panels) => {
                let convert = |weight| narrow(weight * scale);
                fill_panels(panels.as_mut_slice(), [columns, depth], layout, at, weights, convert);
            }
            Panels::Int8(panels) => {
                for (offset, row) in weights.chunks_exact(depth).enumerate() {
                    panels.fill_column(at + offset, row, scale, columns, layout);
                }
            }
        }
    }

    /// What a product reads of it.
    pub(super) fn len_bytes(&self) -> usize {
        let number = match &self.panels {
            Panels::Float32(_) => size_of::<f32>(),
            Panels::Float16(_) => size_of::<u16>(),
            Panels::Int8(_) => size_of::<i8>(),
        };
        number * self.columns * self.depth
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

/// Writes rows of `weights` as columns `at..`, so many columns of a panel at a time as the weights have.
fn fill_panels<T>(
    panels: &mut [T],
    [columns, depth]: [usize; 2],
    layout: Layout,
    at: usize,
    weights: &[f32],
    convert: impl Fn(f32) -> T,
) {
    let wide = layout.panel_columns;
    for (offset, row) in weights.chunks_exact(depth).enumerate() {
        let (panel, slot) = ((at + offset) / wide, (at + offset) % wide);
        for (index, block) in row.chunks(DEPTH_BLOCK).enumerate() {
            let from = index * DEPTH_BLOCK * columns + panel * block.len() * wide;
            let slots = panels[from..from + block.len() * wide].chunks_exact_mut(wide);
            for (slots, &weight) in slots.zip(block) {
                slots[slot] = convert(weight);
            }
        }
    }
}

impl Int8Panels {
    /// Rounds `scale * weights` to codes within -127..=127, of which the largest stands for a block's largest weight.
    fn fill_column(&mut self, column: usize, weights: &[f32], scale: f32, columns: usize, layout: Layout) {
        let (wide, group) = (layout.panel_columns, layout.group);
        let panel = &mut self.codes.as_mut_slice()[column / wide * wide * weights.len()..][..wide * weights.len()];
        for (index, block) in weights.chunks(self.block).enumerate() {
            let largest = block.iter().fold(0f32, |largest, weight| largest.max(weight.abs())) * scale.abs();
            let step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            let (factor, mut sum) = (scale / step, 0);
            let rows = panel[index * self.block * wide..][..block.len() * wide].chunks_exact_mut(wide * group);
            for (row, block) in rows.zip(block.chunks_exact(group)) {
                let slots = &mut row[column % wide * group..][..group];
                for (slot, weight) in slots.iter_mut().zip(block) {
                    *slot = round(weight * factor).clamp(-127.0, 127.0) as i8;
                    sum += i32::from(*slot);
                }
            }
            self.steps[index * columns + column] = step;
            self.sums[index * columns + column] = sum as f32;
        }
    }
}

/// The nearest whole number, ties to even, for x within 2^22: the sum leaves no bits below one. Processors of the
/// oldest x86-64 kind have no instruction for it.
fn round(x: f32) -> f32 {
    const WHOLE: f32 = 12_582_912.0;
    (x + WHOLE) - WHOLE
}
