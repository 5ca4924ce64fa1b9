//! The encoder's arithmetic: matrix products, attention and normalisation, for the instruction set the CPU has.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod dotprod;
mod int8;
mod layer_norm;
mod level;
mod math;
mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod packed;
mod quantise;
mod relative_bias;
mod rows;
mod scalar;
mod share;
mod simd;
mod tile;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub(crate) use level::CpuLevel;
pub(crate) use packed::PackedMatrix;
pub(crate) use relative_bias::RelativeBias;
pub(crate) use rows::{Aligned, Rows};

use crate::embed::Precision;
use crate::storage::Arena;
use crate::types::half;
use int8::Int8;
use packed::{Layout, Panels};
use simd::Simd;
use tile::Finish;

/// Every width that a kernel meets (rows, heads) must be a multiple of this: two registers of the widest set.
pub(crate) const WIDTH_MULTIPLE: usize = 32;

/// Weights of fewer bytes are read faster than another thread is woken.
const MIN_SHARED_BYTES: usize = 256 << 10;

/// What is fused into a matrix product.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    /// `x * w + bias`.
    Bias,
    /// `gelu(x * w + bias)`, the exact GELU.
    BiasGelu,
    /// `x * w + bias + residual`, of the product's shape.
    BiasResidual(&'a Rows),
    /// `silu(x * w + bias) * factor`, of the product's shape.
    BiasSiluTimes(&'a Rows),
}

/// Room that the kernels need beside their operands; what it holds between two calls is unspecified.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Queries and scores of some of a sequence.
    attention: Aligned,
    /// The left matrix of a product, packed, or its codes.
    packed: Aligned,
    /// Scales, then zeros, of the blocks of codes.
    scales: Aligned,
    /// Threads of the current pool that may share a product, beside the caller's; they are only asked where it pays.
    pub helpers: usize,
}

/// The kernels of one instruction set. A value is proof that this CPU runs them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    level: CpuLevel,
}

/// Calls the named function of the level's module for f32.
macro_rules! run {
    ($level:expr, $function:ident, $args:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 | CpuLevel::Avx512Vnni => avx512::$function($args),
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 => avx2::$function($args),
            #[cfg(target_arch = "aarch64")]
            CpuLevel::Neon | CpuLevel::NeonDotprod => neon::$function($args),
            _ => scalar::$function($args),
        }
    };
}

/// Calls the named function of the level's module for int8.
macro_rules! run_int8 {
    ($level:expr, $function:ident, $args:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512Vnni => vnni::$function($args),
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 | CpuLevel::Avx512 => avx2::$function($args),
            #[cfg(target_arch = "aarch64")]
            CpuLevel::NeonDotprod => dotprod::$function($args),
            #[cfg(target_arch = "aarch64")]
            CpuLevel::Neon => neon::$function($args),
            _ => scalar::$function($args),
        }
    };
}

impl Kernels {
    /// The kernels of `level`, if this CPU runs them.
    pub(crate) fn new(level: CpuLevel) -> Option<Self> {
        level.is_available().then_some(Self { level })
    }

    /// The fastest kernels that this CPU runs.
    pub(crate) fn fastest() -> Self {
        Self { level: CpuLevel::fastest() }
    }

    /// Their instruction set.
    #[cfg(test)]
    pub(crate) fn level(&self) -> CpuLevel {
        self.level
    }

    /// Room for weights in the layout that these kernels read, shape `[columns, depth]`, in memory of `arena`.
    ///
    /// # Panics
    /// If `columns` or `depth` is not a multiple of [`WIDTH_MULTIPLE`].
    pub(crate) fn packed_matrix(
        &self,
        columns: usize,
        depth: usize,
        precision: Precision,
        arena: &Arena,
    ) -> PackedMatrix {
        assert!(columns.is_multiple_of(WIDTH_MULTIPLE), "columns={columns}");
        assert!(depth.is_multiple_of(WIDTH_MULTIPLE), "depth={depth}");
        PackedMatrix::new(columns, depth, precision, self.layout(precision), arena)
    }

    /// `out = epilogue(x * weights)`: shapes `[count, depth]`, `[depth, columns]` and `[count, columns]`. A row's
    /// result does not depend on the rows beside it, nor on threads.
    ///
    /// # Panics
    /// If the shapes do not fit, or the weights were packed by other kernels.
    pub(crate) fn matmul(
        &self,
        x: &Rows,
        weights: &PackedMatrix,
        epilogue: Epilogue,
        scratch: &mut Scratch,
        out: &mut Rows,
    ) {
        assert_eq!(x.width(), weights.depth(), "depth");
        out.set_count(x.count());
        assert_eq!(out.width(), weights.columns(), "columns");
        let finish = epilogue.finish(out);
        let panels = weights.columns() / weights.layout.panel_columns;
        let shares = scratch.shares(weights);
        let (count, out, out_stride) = (x.count(), out.as_mut_ptr(), out.stride());
        if let Panels::Int8(int8) = &weights.panels {
            assert_eq!(weights.layout, self.layout(Precision::Int8), "packed by other kernels");
            let rows = self.quantise(x, int8.block, scratch);
            let args = int8::Args { rows, count, weights, int8, panels: 0..panels, out, out_stride, finish };
            let run = |args: &int8::Args, panels| {
                let args = int8::Args { panels, ..args.clone() };
                // SAFETY: as below; the codes are those of `x`.
                unsafe { run_int8!(self.level, run_int8, &args) }
            };
            // SAFETY: as below.
            unsafe { share::by_panels(panels, shares, args, run) }
        } else {
            assert_eq!(weights.layout, self.layout(Precision::Float32), "packed by other kernels");
            let x = self.pack(x, scratch);
            let args = matmul::Args { x, count, weights, panels: 0..panels, out, out_stride, finish };
            let run = |args: &matmul::Args, panels| {
                let args = matmul::Args { panels, ..args.clone() };
                // SAFETY: `self` proves the instruction set; the shapes were checked above. Covered by `matmul_*`.
                unsafe { run!(self.level, run_matmul, &args) }
            };
            // SAFETY: operands are borrowed until the end and only read, but for the product, of which no two threads
            // have a panel, and so a column, in common. Covered by `matmul_of_a_row_does_not_depend_on_*`.
            unsafe { share::by_panels(panels, shares, args, run) }
        }
    }

    /// Lays the rows of `x` out for the tiles of a product, in `scratch`.
    fn pack(&self, x: &Rows, scratch: &mut Scratch) -> *const f32 {
        scratch.packed.grow(pack::len(x.count(), x.width()));
        let out = scratch.packed.as_mut_slice().as_mut_ptr();
        let args = pack::Args { x: x.as_ptr(), stride: x.stride(), count: x.count(), width: x.width(), out };
        // SAFETY: `self` proves the instruction set; the room was grown above. Covered by `matmul_*`.
        unsafe { run!(self.level, run_pack, &args) }
        out
    }

    /// Rounds the rows of `x` in blocks to codes in `scratch`.
    fn quantise(&self, x: &Rows, block: usize, scratch: &mut Scratch) -> quantise::QuantisedRows {
        // A code takes two bytes at most.
        scratch.packed.grow(pack::len(x.count(), x.width().div_ceil(2)));
        let stride = quantise::stride(x.count());
        let blocks = x.width().div_ceil(block);
        scratch.scales.grow(2 * blocks * stride);
        let (scales, zeros) = scratch.scales.as_mut_slice().split_at_mut(blocks * stride);
        let rows = quantise::QuantisedRows {
            codes: scratch.packed.as_mut_slice().as_mut_ptr(),
            scales: scales.as_mut_ptr(),
            zeros: zeros.as_mut_ptr(),
            stride,
        };
        let args =
            quantise::Args { x: x.as_ptr(), x_stride: x.stride(), count: x.count(), width: x.width(), block, rows };
        // SAFETY: `self` proves the instruction set; the buffers were grown above. Covered by `int8_*`.
        unsafe { run_int8!(self.level, run_quantise, &args) }
        rows
    }

    /// Normalises each row of `x` to mean 0 and variance 1, then multiplies by `weight` and adds `bias`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub(crate) fn layer_norm(&self, x: &mut Rows, weight: &[f32], bias: &[f32], epsilon: f32) {
        assert_eq!((x.width(), x.width()), (weight.len(), bias.len()), "width");
        assert!(x.width().is_multiple_of(WIDTH_MULTIPLE), "width={}", x.width());
        let (stride, count) = (x.stride(), x.count());
        let args = layer_norm::Args { x: x.as_mut_ptr(), stride, count, weight, bias, epsilon };
        // SAFETY: `self` proves the instruction set; the shapes were checked above. Covered by `layer_norm_*`.
        unsafe { run!(self.level, run_layer_norm, &args) }
    }

    /// Self-attention within each sequence. `qkv`: rows of queries (scaled), keys and values, shape
    /// `[tokens, 3 * heads * head_width]`; `lengths`: tokens of each sequence, in order, none of them 0; `bias` is
    /// added to the scores.
    ///
    /// # Panics
    /// If the shapes do not fit, or a sequence is longer than the bias reaches.
    #[expect(clippy::too_many_arguments, reason = "three inputs, their layout, the room to work in and the output")]
    pub(crate) fn attention(
        &self,
        qkv: &Rows,
        lengths: &[usize],
        heads: usize,
        bias: Option<&RelativeBias>,
        scratch: &mut Scratch,
        out: &mut Rows,
    ) {
        let hidden = out.width();
        assert_eq!(qkv.width(), 3 * hidden, "qkv");
        assert!(hidden.is_multiple_of(heads * WIDTH_MULTIPLE), "hidden={hidden} heads={heads}");
        assert_eq!(lengths.iter().sum::<usize>(), qkv.count(), "tokens");
        out.set_count(qkv.count());
        let (head_width, out_stride) = (hidden / heads, out.stride());
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if let Some(bias) = bias {
            assert!(bias.reach() >= longest && bias.heads() == heads, "longest={longest} heads={heads} {bias:?}");
        }
        scratch.attention.grow(attention::scratch_len(longest, head_width));
        let mut from = 0;
        for &count in lengths {
            let args = attention::Args {
                qkv: qkv.as_ptr().wrapping_add(from * qkv.stride()),
                qkv_stride: qkv.stride(),
                count,
                heads,
                head_width,
                out: out.as_mut_ptr().wrapping_add(from * out_stride),
                out_stride,
                bias,
                scratch: scratch.attention.as_mut_slice().as_mut_ptr(),
            };
            // SAFETY: `self` proves the instruction set; the shapes were checked above. Covered by `attention_*`.
            unsafe { run!(self.level, run_attention, &args) }
            from += count;
        }
    }

    /// How these kernels want weights of a precision.
    fn layout(&self, precision: Precision) -> Layout {
        fn of<I: Int8>() -> Layout {
            Layout { panel_columns: I::Float::TILE_COLUMNS, group: I::GROUP }
        }
        match (self.level, precision) {
            #[cfg(target_arch = "x86_64")]
            (CpuLevel::Avx512, Precision::Float32 | Precision::Float16) | (CpuLevel::Avx512Vnni, _) => {
                of::<vnni::Vnni>()
            }
            #[cfg(target_arch = "x86_64")]
            (CpuLevel::Avx2 | CpuLevel::Avx512, _) => of::<avx2::Avx2>(),
            #[cfg(target_arch = "aarch64")]
            (CpuLevel::NeonDotprod, _) => of::<dotprod::Dotprod>(),
            #[cfg(target_arch = "aarch64")]
            (CpuLevel::Neon, _) => of::<neon::Neon>(),
            _ => of::<scalar::Scalar>(),
        }
    }
}

impl Epilogue<'_> {
    /// The same, of operands that were found to have the shape of `out`.
    fn finish(self, out: &Rows) -> Finish {
        let shape = |other: &Rows| assert_eq!((other.count(), other.width()), (out.count(), out.width()), "epilogue");
        match self {
            Epilogue::Bias => Finish::Bias,
            Epilogue::BiasGelu => Finish::BiasGelu,
            Epilogue::BiasResidual(residual) => {
                shape(residual);
                Finish::BiasResidual { residual: residual.as_ptr(), stride: residual.stride() }
            }
            Epilogue::BiasSiluTimes(factor) => {
                shape(factor);
                Finish::BiasSiluTimes { factor: factor.as_ptr(), stride: factor.stride() }
            }
        }
    }
}

impl Scratch {
    /// How many threads share a product with these weights: reading them must take longer than waking a thread.
    fn shares(&self, weights: &PackedMatrix) -> usize {
        if weights.len_bytes() < MIN_SHARED_BYTES { 1 } else { 1 + self.helpers }
    }
}

#[cfg(test)]
mod tests;
