//! The weights of BERT and of what is built like it (RoBERTa, MPNet, DistilBERT) into the blocks of an encoder.

use super::super::EmbedError;
use super::super::settings::{Architecture, Family};
use super::blocks::{Added, Attention, Embeddings, FeedForward, Linear, Loader, Norm, Part, Position, Widths};
use super::kernels::Kernels;
use super::mpnet;
use super::transformer::{Layer, Transformer};
use super::weights::Weights;
use crate::embed::Precision;

/// What a family calls the tensors of a layer.
struct Names {
    layers: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    attention_output: &'static str,
    attention_norm: &'static str,
    inner: &'static str,
    output: &'static str,
    output_norm: &'static str,
}

const BERT: Names = Names {
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    output: "output.dense",
    output_norm: "output.LayerNorm",
};

const MPNET: Names = Names {
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..BERT
};

const DISTIL_BERT: Names = Names {
    layers: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    output: "ffn.lin2",
    output_norm: "output_layer_norm",
};

/// One layer to be loaded.
struct Source<'a> {
    loader: Loader<'a>,
    architecture: &'a Architecture,
    names: &'static Names,
    index: usize,
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
    let names = names(&architecture.family);
    let layers = (0..architecture.layers)
        .map(|index| weights.lend(|| Source { loader, architecture, names, index }.layer()))
        .collect::<Result<_, _>>()?;
    let position = match architecture.family {
        Family::Mpnet { buckets } => Position::Relative(mpnet::relative_bias(&weights, architecture, buckets)?),
        _ => Position::InEmbeddings,
    };
    let added = added(&weights, architecture)?;
    let norm = Norm::load(&loader, "embeddings.LayerNorm", hidden, architecture.layer_norm_eps)?;
    let shape = [architecture.vocab_size, hidden];
    let embeddings = Embeddings::load(weights, architecture.word_table(), shape, added, norm)?;
    let widths = Widths { hidden, intermediate: architecture.intermediate_size };
    Ok(Transformer::new(embeddings, position, layers, widths))
}

fn names(family: &Family) -> &'static Names {
    match family {
        Family::Mpnet { .. } => &MPNET,
        Family::DistilBert => &DISTIL_BERT,
        _ => &BERT,
    }
}

/// The names of a DistilBERT's tensors with those of BERT's beside them, below layer `index`.
pub(super) fn distil_bert_names(index: usize) -> [(String, String); 8] {
    let parts = |names: &Names| {
        let Names { query, key, value, attention_output, attention_norm, inner, output, output_norm, .. } = *names;
        [query, key, value, attention_output, attention_norm, inner, output, output_norm]
            .map(|part| format!("{}.{index}.{part}", names.layers))
    };
    let mut bert = parts(&BERT).into_iter();
    parts(&DISTIL_BERT).map(|name| (name, bert.next().unwrap_or_default()))
}

/// The vectors of positions, that of token type 0 added, and what type 1 adds to that.
fn added(weights: &Weights, architecture: &Architecture) -> Result<Added, EmbedError> {
    let hidden = architecture.hidden_size;
    let positions = weights.tensor("embeddings.position_embeddings.weight", &[architecture.max_positions, hidden])?;
    let types = match architecture.type_vocab_size {
        0 => None,
        types => Some(weights.tensor("embeddings.token_type_embeddings.weight", &[types, hidden])?),
    };
    let padding = (architecture.first_position() > 0).then_some(architecture.pad_token_id);
    let added = Added::by_position(&positions, padding, types.as_ref().map(|types| &types[..hidden]), hidden);
    Ok(match types {
        Some(types) if types.len() >= 2 * hidden => {
            let (first, second) = types.split_at(hidden);
            added.with_second(second.iter().zip(first).map(|(second, first)| second - first).collect())
        }
        _ => added,
    })
}

impl Source<'_> {
    fn name(&self, part: &str) -> String {
        format!("{}.{}.{part}", self.names.layers, self.index)
    }

    fn layer(&self) -> Result<Layer, EmbedError> {
        let (hidden, wide) = (self.architecture.hidden_size, self.architecture.intermediate_size);
        Ok(Layer {
            attention: self.attention()?,
            attention_norm: self.norm(self.names.attention_norm)?,
            feed_forward: FeedForward::Gelu {
                inner: self.linear(self.names.inner, [wide, hidden])?,
                output: self.linear(self.names.output, [hidden, wide])?,
            },
            output_norm: self.norm(self.names.output_norm)?,
        })
    }

    fn attention(&self) -> Result<Attention, EmbedError> {
        let hidden = self.architecture.hidden_size;
        let Names { query, key, value, attention_output, .. } = *self.names;
        let tensor = |part: &str, what: &str, shape: &[usize]| {
            self.loader.weights.tensor(&format!("{}.{what}", self.name(part)), shape)
        };
        let root = 1.0 / (self.architecture.head_width() as f32).sqrt();
        let mut loaded = Vec::with_capacity(3);
        for (part, scale) in [(query, root), (key, 1.0), (value, 1.0)] {
            loaded.push((tensor(part, "weight", &[hidden, hidden])?, tensor(part, "bias", &[hidden])?, scale));
        }
        let part = |(weight, bias, scale)| Part { weight, bias: Some(bias), scale };
        let parts: Vec<Part> = loaded.iter().map(|(weight, bias, scale)| part((&**weight, &**bias, *scale))).collect();
        Ok(Attention {
            kernels: self.loader.kernels,
            qkv: Linear::new(&self.loader, hidden, &parts)?,
            output: self.linear(attention_output, [hidden, hidden])?,
            heads: self.architecture.heads,
        })
    }

    fn linear(&self, part: &str, shape: [usize; 2]) -> Result<Linear, EmbedError> {
        Linear::load(&self.loader, &self.name(part), shape)
    }

    fn norm(&self, part: &str) -> Result<Norm, EmbedError> {
        let Architecture { hidden_size, layer_norm_eps, .. } = *self.architecture;
        Norm::load(&self.loader, &self.name(part), hidden_size, layer_norm_eps)
    }
}
