//! What a pooled vector passes after the encoder: dense layers and normalisations.

use std::path::Path;

use super::EmbedError;
use super::files::WEIGHTS_FILE;
use super::local::read_linear;
use super::settings::{Activation, Dense, Step};

/// The steps of a model after its pooling.
#[derive(Debug)]
pub(super) struct Head {
    steps: Vec<Loaded>,
}

#[derive(Debug)]
enum Loaded {
    Dense(Linear),
    Normalise,
}

#[derive(Debug)]
struct Linear {
    /// Shape `[outputs, inputs]`.
    weight: Vec<f32>,
    /// Shape `[outputs]`; zeros where the layer has none.
    bias: Vec<f32>,
    activation: Activation,
}

impl Head {
    /// Loads the weights of the steps below the model's directory.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Storage`].
    pub(super) fn load(dir: &Path, steps: &[Step]) -> Result<Self, EmbedError> {
        let load = |step: &Step| match step {
            Step::Normalise => Ok(Loaded::Normalise),
            Step::Dense(dense) => Linear::load(dir, dense).map(Loaded::Dense),
        };
        Ok(Self { steps: steps.iter().map(load).collect::<Result<_, _>>()? })
    }

    /// Dense layers of given weights, shape `[outputs, inputs]`, and biases.
    pub(super) fn of_layers<const N: usize>(layers: [(WeightAndBias, Activation); N]) -> Self {
        let dense = |((weight, bias), activation)| Loaded::Dense(Linear { weight, bias, activation });
        Self { steps: layers.into_iter().map(dense).collect() }
    }

    /// The vector after all steps.
    pub(super) fn apply(&self, pooled: Vec<f64>) -> Vec<f64> {
        self.steps.iter().fold(pooled, |vector, step| match step {
            Loaded::Dense(linear) => linear.apply(&vector),
            Loaded::Normalise => normalised(vector),
        })
    }
}

/// Shapes `[outputs, inputs]` and `[outputs]`.
pub(super) type WeightAndBias = (Vec<f32>, Vec<f32>);

impl Linear {
    fn load(dir: &Path, dense: &Dense) -> Result<Self, EmbedError> {
        let path = dir.join(&dense.dir).join(WEIGHTS_FILE);
        let (weight, bias) = read_linear(&path, "linear", [dense.outputs, dense.inputs], dense.bias)?;
        Ok(Self { weight, bias, activation: dense.activation })
    }

    /// One vector costs as many products as there are weights, a thousandth of what the encoder spends on a token.
    fn apply(&self, x: &[f64]) -> Vec<f64> {
        let rows = self.weight.chunks_exact(x.len()).zip(&self.bias);
        let sum = |(row, bias): (&[f32], &f32)| {
            row.iter().zip(x).fold(f64::from(*bias), |sum, (weight, x)| sum + f64::from(*weight) * x)
        };
        rows.map(|row| activate(self.activation, sum(row))).collect()
    }
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Tanh => x.tanh(),
        // A vector that is not a number must stay so, to be refused: `max` would make it 0.
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Gelu => x * normal_cdf(x),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// The normal distribution's integral up to `x`, by its series (Abramowitz and Stegun 26.2.11); absolute error below
/// 1e-14.
fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut k) = (x, x, 1.0);
    while f64::abs(term) > f64::EPSILON * f64::abs(sum) {
        k += 2.0;
        term *= x * x / k;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

/// Scaled to length 1; a zero vector stays, and is refused at the end.
fn normalised(mut vector: Vec<f64>) -> Vec<f64> {
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_have_their_known_values() {
        // Values of the normal distribution's table.
        for (x, want) in [(0.0, 0.5), (1.0, 0.841_344_746_068_542_9), (-2.0, 0.022_750_131_948_179_2), (9.0, 1.0)] {
            assert!((normal_cdf(x) - want).abs() < 1e-14, "{x}: {}", normal_cdf(x));
        }
        for x in [-3.0, -0.5, 0.25, 2.0] {
            let all = |activation| activate(activation, x);
            assert_eq!(all(Activation::Identity), x);
            assert!((all(Activation::Tanh) - (1.0 - 2.0 / ((2.0 * x).exp() + 1.0))).abs() < 1e-12);
            assert_eq!(all(Activation::Relu), if x > 0.0 { x } else { 0.0 });
            assert!((all(Activation::Sigmoid) - 0.5 * (1.0 + (x / 2.0).tanh())).abs() < 1e-12);
        }
        assert!(activate(Activation::Relu, f64::NAN).is_nan() && activate(Activation::Gelu, f64::NAN).is_nan());
    }

    #[test]
    fn a_dense_layer_is_a_matrix_product() {
        let linear = Linear {
            weight: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            bias: vec![0.5, -1.0],
            activation: Activation::Identity,
        };
        assert_eq!(linear.apply(&[1.0, 10.0, 100.0]), [321.5, 653.0]);
        let head = Head { steps: vec![Loaded::Normalise, Loaded::Dense(linear)] };
        let got = head.apply(vec![0.0, 3.0, 4.0]);
        assert!((got[0] - 4.1).abs() < 1e-12 && (got[1] - 6.8).abs() < 1e-12, "{got:?}");
        assert_eq!(normalised(vec![0.0; 2]), [0.0, 0.0]);
    }
}
