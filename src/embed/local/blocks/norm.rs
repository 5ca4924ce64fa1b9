//! Layer normalisation with its weight and bias.

use super::Loader;
use crate::embed::EmbedError;
use crate::embed::local::kernels::{Kernels, Rows};

/// A layer normalisation.
#[derive(Debug)]
pub(in crate::embed::local) struct Norm {
    kernels: Kernels,
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl Norm {
    /// Reads `{name}.weight` and `{name}.bias`, shape `[width]`.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`].
    pub(in crate::embed::local) fn load(
        loader: &Loader,
        name: &str,
        width: usize,
        epsilon: f64,
    ) -> Result<Self, EmbedError> {
        let part =
            |part: &str| loader.weights.tensor(&format!("{name}.{part}"), &[width]).map(|values| values.into_owned());
        let (weight, bias) = (part("weight")?, part("bias")?);
        Ok(Self { kernels: loader.kernels, weight, bias, epsilon: epsilon as f32 })
    }

    /// Normalises each row in place.
    pub(in crate::embed::local) fn apply(&self, x: &mut Rows) {
        self.kernels.layer_norm(x, &self.weight, &self.bias, self.epsilon);
    }
}
