//! BERT's weights into the blocks of an encoder.

use super::super::EmbedError;
use super::super::settings::Architecture;
use super::blocks::{Added, Attention, Embeddings, FeedForward, Linear, Loader, Norm, Part, Position, Widths};
use super::kernels::{Kernels, WIDTH_MULTIPLE};
use super::transformer::{Layer, Transformer};
use super::weights::Weights;
use crate::embed::Precision;

/// Whether the kernels can run this shape.
pub(super) fn fits(architecture: &Architecture) -> bool {
    architecture.hidden_act == "gelu"
        && architecture.intermediate_size.is_multiple_of(WIDTH_MULTIPLE)
        && architecture.head_width().is_multiple_of(WIDTH_MULTIPLE)
}

/// Packs the weights for `kernels`. The originals are not kept, but for the table of tokens, which stays mapped.
///
/// # Errors
/// [`EmbedError::Malformed`], [`EmbedError::Storage`].
pub(super) fn load(
    weights: Weights,
    architecture: &Architecture,
    kernels: Kernels,
    precision: Precision,
) -> Result<Transformer, EmbedError> {
    let loader = Loader { weights: &weights, kernels, precision };
    let hidden = architecture.hidden_size;
    let layers = (0..architecture.layers).map(|index| layer(&loader, architecture, index)).collect::<Result<_, _>>()?;
    let positions = weights.tensor("embeddings.position_embeddings.weight", &[architecture.max_positions, hidden])?;
    let types = weights.tensor("embeddings.token_type_embeddings.weight", &[architecture.type_vocab_size, hidden])?;
    let added = Added::by_position(&positions, 0, Some(&types[..hidden]), hidden);
    let norm = Norm::load(&loader, "embeddings.LayerNorm", hidden, architecture.layer_norm_eps)?;
    drop((positions, types));
    let shape = [architecture.vocab_size, hidden];
    let embeddings = Embeddings::load(weights, "embeddings.word_embeddings.weight", shape, added, norm)?;
    let widths = Widths { hidden, intermediate: architecture.intermediate_size };
    Ok(Transformer::new(embeddings, Position::InEmbeddings, layers, widths))
}

fn layer(loader: &Loader, architecture: &Architecture, index: usize) -> Result<Layer, EmbedError> {
    let (hidden, wide) = (architecture.hidden_size, architecture.intermediate_size);
    let name = |part: &str| format!("encoder.layer.{index}.{part}");
    let norm = |part: &str| Norm::load(loader, &name(part), hidden, architecture.layer_norm_eps);
    let feed_forward = FeedForward::Gelu {
        inner: Linear::load(loader, &name("intermediate.dense"), [wide, hidden])?,
        output: Linear::load(loader, &name("output.dense"), [hidden, wide])?,
    };
    Ok(Layer {
        attention: attention(loader, architecture, index)?,
        attention_norm: norm("attention.output.LayerNorm")?,
        feed_forward,
        output_norm: norm("output.LayerNorm")?,
    })
}

fn attention(loader: &Loader, architecture: &Architecture, index: usize) -> Result<Attention, EmbedError> {
    let hidden = architecture.hidden_size;
    let name = |part: &str| format!("encoder.layer.{index}.attention.{part}");
    let weight = |part: &str| loader.weights.tensor(&name(&format!("self.{part}.weight")), &[hidden, hidden]);
    let bias = |part: &str| loader.weights.tensor(&name(&format!("self.{part}.bias")), &[hidden]);
    let (query, key, value) = (weight("query")?, weight("key")?, weight("value")?);
    let (query_bias, key_bias, value_bias) = (bias("query")?, bias("key")?, bias("value")?);
    let root = 1.0 / (architecture.head_width() as f32).sqrt();
    let parts = [
        Part { weight: &query, bias: Some(&query_bias), scale: root },
        Part { weight: &key, bias: Some(&key_bias), scale: 1.0 },
        Part { weight: &value, bias: Some(&value_bias), scale: 1.0 },
    ];
    Ok(Attention {
        kernels: loader.kernels,
        qkv: Linear::new(loader, hidden, &parts),
        output: Linear::load(loader, &name("output.dense"), [hidden, hidden])?,
        heads: architecture.heads,
    })
}
