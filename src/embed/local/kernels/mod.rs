//! The encoder's arithmetic: matrix products, attention and normalisation, for the instruction set the CPU has.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod layer_norm;
mod level;
mod math;
mod matmul;
mod relative_bias;
mod rows;
mod scalar;
mod simd;
mod tile;

pub(crate) use level::CpuLevel;
pub(crate) use matmul::PackedMatrix;
pub(crate) use relative_bias::RelativeBias;
pub(crate) use rows::{Aligned, Rows};

use simd::Simd;
use tile::Finish;

/// Every width that a kernel meets (rows, heads) must be a multiple of this: two registers of the widest set.
pub(crate) const WIDTH_MULTIPLE: usize = 32;

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
    /// Keys, values and scores of one head.
    attention: Aligned,
}

/// The kernels of one instruction set. A value is proof that this CPU runs them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    level: CpuLevel,
}

/// Calls the named function of the level's module.
macro_rules! run {
    ($level:expr, $function:ident, $args:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 => avx512::$function($args),
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 => avx2::$function($args),
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

    /// Room for weights in the layout that these kernels read, shape `[columns, depth]`.
    ///
    /// # Panics
    /// If `columns` is not a multiple of [`WIDTH_MULTIPLE`].
    pub(crate) fn packed_matrix(&self, columns: usize, depth: usize) -> PackedMatrix {
        assert!(columns.is_multiple_of(WIDTH_MULTIPLE), "columns={columns}");
        PackedMatrix::new(columns, depth, self.panel_columns())
    }

    /// `out = epilogue(x * weights)`: shapes `[count, depth]`, `[depth, columns]` and `[count, columns]`. A row's result
    /// does not depend on the rows beside it.
    ///
    /// # Panics
    /// If the shapes do not fit, or the weights were packed by other kernels.
    pub(crate) fn matmul(&self, x: &Rows, weights: &PackedMatrix, epilogue: Epilogue, out: &mut Rows) {
        assert_eq!(x.width(), weights.depth(), "depth");
        assert_eq!(self.panel_columns(), weights.panel_columns, "packed by other kernels");
        out.set_count(x.count());
        assert_eq!(out.width(), weights.columns(), "columns");
        let finish = match epilogue {
            Epilogue::Bias => Finish::Bias,
            Epilogue::BiasGelu => Finish::BiasGelu,
            Epilogue::BiasResidual(residual) => {
                assert_eq!((residual.count(), residual.width()), (out.count(), out.width()), "residual");
                Finish::BiasResidual { residual: residual.as_ptr(), stride: residual.stride() }
            }
            Epilogue::BiasSiluTimes(factor) => {
                assert_eq!((factor.count(), factor.width()), (out.count(), out.width()), "factor");
                Finish::BiasSiluTimes { factor: factor.as_ptr(), stride: factor.stride() }
            }
        };
        let args = matmul::Args {
            x: x.as_ptr(),
            x_stride: x.stride(),
            count: x.count(),
            weights,
            out: out.as_mut_ptr(),
            out_stride: out.stride(),
            finish,
        };
        // SAFETY: `self` proves the instruction set; the shapes were checked above. Covered by `matmul_*`.
        unsafe { run!(self.level, run_matmul, &args) }
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
    /// `[tokens, 3 * heads * head_width]`; `lengths`: tokens of each sequence, in order, none of them 0; `bias` is added to
    /// the scores.
    ///
    /// # Panics
    /// If the shapes do not fit, or a sequence is longer than the bias reaches.
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

    /// Columns that packed weights hold side by side.
    fn panel_columns(&self) -> usize {
        match self.level {
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx512 => avx512::Avx512::TILE_COLUMNS,
            #[cfg(target_arch = "x86_64")]
            CpuLevel::Avx2 => avx2::Avx2::TILE_COLUMNS,
            _ => scalar::Scalar::TILE_COLUMNS,
        }
    }
}

#[cfg(test)]
mod tests;
