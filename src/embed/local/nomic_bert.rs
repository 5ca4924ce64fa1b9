//! NomicBERT's weights into the blocks of an encoder: rotated queries and keys, SwiGLU, no biases.

use super::super::EmbedError;
use super::super::settings::{Architecture, Rotary};
use super::blocks::{self, Added, Attention, Embeddings, FeedForward, Linear, Loader, Norm, Part, Position, Widths};
use super::kernels::Kernels;
use super::transformer::{Layer, Transformer};
use super::weights::Weights;
use crate::embed::Precision;

/// Packs the weights for `kernels`. The originals are not kept, but for the table of tokens, which stays mapped.
///
/// # Errors
/// [`EmbedError::Malformed`], [`EmbedError::Storage`].
pub(super) fn load(
    weights: Weights,
    architecture: &Architecture,
    rotary: &Rotary,
    kernels: Kernels,
    precision: Precision,
) -> Result<Transformer, EmbedError> {
    let loader = Loader { weights: &weights, kernels, precision };
    let hidden = architecture.hidden_size;
    let layers = (0..architecture.layers)
        .map(|index| weights.lend(|| layer(&loader, architecture, rotary, index)))
        .collect::<Result<_, _>>()?;
    let added = match architecture.type_vocab_size {
        0 => vec![0.0; hidden],
        types => weights.tensor("embeddings.token_type_embeddings.weight", &[types, hidden])?[..hidden].to_vec(),
    };
    let norm = Norm::load(&loader, "emb_ln", hidden, architecture.layer_norm_eps)?;
    let shape = [architecture.vocab_size, hidden];
    let embeddings = Embeddings::load(weights, architecture.word_table(), shape, Added::Constant(added), norm)?;
    let rotation = blocks::Rotary::new(architecture.max_positions, architecture.head_width(), rotary.base);
    let widths = Widths { hidden, intermediate: architecture.intermediate_size };
    Ok(Transformer::new(embeddings, Position::Rotary(rotation), layers, widths))
}

fn layer(loader: &Loader, architecture: &Architecture, rotary: &Rotary, index: usize) -> Result<Layer, EmbedError> {
    let (hidden, wide) = (architecture.hidden_size, architecture.intermediate_size);
    let name = |part: &str| format!("encoder.layers.{index}.{part}");
    let norm = |part: &str| Norm::load(loader, &name(part), hidden, architecture.layer_norm_eps);
    let [attention_bias, inner_bias, output_bias] = rotary.biases;
    let linear = |part: &str, shape, with_bias| linear(loader, &name(part), shape, with_bias);
    Ok(Layer {
        attention: Attention {
            kernels: loader.kernels,
            qkv: qkv(loader, architecture, &name("attn.Wqkv"), attention_bias)?,
            output: linear("attn.out_proj", [hidden, hidden], attention_bias)?,
            heads: architecture.heads,
        },
        attention_norm: norm("norm1")?,
        feed_forward: FeedForward::SwiGlu {
            gate: linear("mlp.fc12", [wide, hidden], inner_bias)?,
            up: linear("mlp.fc11", [wide, hidden], inner_bias)?,
            output: linear("mlp.fc2", [hidden, wide], output_bias)?,
        },
        output_norm: norm("norm2")?,
    })
}

fn linear(loader: &Loader, name: &str, shape: [usize; 2], with_bias: bool) -> Result<Linear, EmbedError> {
    if with_bias {
        return Linear::load(loader, name, shape);
    }
    let weight = loader.weights.tensor(&format!("{name}.weight"), &shape)?;
    Linear::new(loader, shape[1], &[Part { weight: &weight, bias: None, scale: 1.0 }])
}

/// Queries, keys and values, which the file holds as one tensor; the queries are divided by the root of the head's
/// width.
fn qkv(loader: &Loader, architecture: &Architecture, name: &str, with_bias: bool) -> Result<Linear, EmbedError> {
    let hidden = architecture.hidden_size;
    let weight = loader.weights.tensor(&format!("{name}.weight"), &[3 * hidden, hidden])?;
    let bias = match with_bias {
        true => Some(loader.weights.tensor(&format!("{name}.bias"), &[3 * hidden])?),
        false => None,
    };
    let root = 1.0 / (architecture.head_width() as f32).sqrt();
    let (queries, others) = weight.split_at(hidden * hidden);
    let (query_bias, other_biases) = bias.as_ref().map(|bias| bias.split_at(hidden)).unzip();
    let parts = [
        Part { weight: queries, bias: query_bias, scale: root },
        Part { weight: others, bias: other_biases, scale: 1.0 },
    ];
    Linear::new(loader, hidden, &parts)
}
