//! A linear layer: packed weights of some precision, and what is fused into its product.

use super::Loader;
use crate::embed::local::kernels::{Epilogue, Kernels, PackedMatrix, Rows, Scratch};
use crate::embed::{EmbedError, Precision};
use crate::types::half;

/// Stored weights of some columns of a linear layer.
#[derive(Clone, Copy, Debug)]
pub(in crate::embed::local) struct Part<'a> {
    /// Shape `[columns, depth]`.
    pub weight: &'a [f32],
    /// Shape `[columns]`; `None` for zeros.
    pub bias: Option<&'a [f32]>,
    /// Both are multiplied by it.
    pub scale: f32,
}

/// A linear layer, `x * weight^T + bias`.
#[derive(Debug)]
pub(in crate::embed::local) struct Linear {
    kernels: Kernels,
    matrix: PackedMatrix,
}

impl Linear {
    /// Reads `{name}.weight`, shape `[columns, depth]`, and `{name}.bias`.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`].
    pub(in crate::embed::local) fn load(
        loader: &Loader,
        name: &str,
        [columns, depth]: [usize; 2],
    ) -> Result<Self, EmbedError> {
        let weight = loader.weights.tensor(&format!("{name}.weight"), &[columns, depth])?;
        let bias = loader.weights.tensor(&format!("{name}.bias"), &[columns])?;
        Self::new(loader, depth, &[Part { weight: &weight, bias: Some(&bias), scale: 1.0 }])
    }

    /// Packs parts side by side, so that one product computes them all.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`] for weights beyond what the precision holds.
    ///
    /// # Panics
    /// If a part's weights are not whole columns of `depth`, or its bias has another number of columns.
    pub(in crate::embed::local) fn new(loader: &Loader, depth: usize, parts: &[Part]) -> Result<Self, EmbedError> {
        if loader.precision == Precision::Float16 {
            check_halves(loader, parts)?;
        }
        let columns = parts.iter().map(|part| part.weight.len() / depth).sum();
        let mut matrix = loader.kernels.packed_matrix(columns, depth, loader.precision, loader.weights.arena());
        let mut at = 0;
        for part in parts {
            let zeros = vec![0.0; part.weight.len() / depth];
            let bias = part.bias.unwrap_or(&zeros);
            matrix.fill(at, part.weight, bias, part.scale);
            at += bias.len();
        }
        Ok(Self { kernels: loader.kernels, matrix })
    }

    /// `out = epilogue(x * weight^T + bias)`; `out` gets `x`'s number of rows.
    pub(in crate::embed::local) fn apply(&self, x: &Rows, epilogue: Epilogue, scratch: &mut Scratch, out: &mut Rows) {
        self.kernels.matmul(x, &self.matrix, epilogue, scratch, out);
    }
}

/// Half precision would make another weight of one beyond its range.
fn check_halves(loader: &Loader, parts: &[Part]) -> Result<(), EmbedError> {
    let weights = parts.iter().flat_map(|part| part.weight.iter().map(|weight| weight * part.scale));
    match weights.map(f32::abs).fold(0.0, f32::max) {
        largest if largest > half::MAX => {
            let reason =
                format!("it has a weight of {largest:e}, and float16 holds {} at most; choose float32", half::MAX);
            Err(EmbedError::malformed(loader.weights.path(), reason))
        }
        _ => Ok(()),
    }
}
