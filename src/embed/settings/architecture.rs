//! config.json: which encoder a model is, and its shape.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::read_json;
use crate::embed::{Dimensions, EmbedError};
use crate::types::limits::MAX_DIM;

/// Shape of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Architecture {
    /// As in the file.
    model_type: String,
    pub family: Family,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    pub vocab_size: usize,
    /// 0 where tokens have no types.
    pub type_vocab_size: usize,
    /// Rows of the table of positions; of an encoder without one, the positions it was made for.
    pub max_positions: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: String,
    pub pad_token_id: usize,
}

/// What sets an encoder apart from BERT.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Family {
    Bert,
    /// RoBERTa and what is built like it: positions are counted from `pad_token_id + 1`.
    Roberta,
    /// Positions as RoBERTa's; scores get a bias by distance, of which there are so many buckets; no types.
    Mpnet {
        buckets: usize,
    },
    /// BERT under other names, without types.
    DistilBert,
    /// Rotated queries and keys, SwiGLU.
    NomicBert(Rotary),
    /// Rotated queries and keys, GeGLU, layers that look at their neighbourhood only.
    ModernBert(Local),
}

/// How queries and keys are rotated by their position (Su et al. 2021).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    pub base: f64,
    /// Pairs are neighbours; otherwise they are half a head apart.
    pub interleaved: bool,
    /// Whether the products have a bias: query, key and value; the first of the feed-forward layer; its second.
    pub biases: [bool; 3],
}

/// Layers of ModernBERT that see all tokens, and the others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Local {
    /// Every so many layers, the first among them, one sees all tokens.
    pub global_every: usize,
    pub global_base: f64,
    /// Tokens that the others see, around each.
    pub window: usize,
    pub local_base: f64,
}

#[derive(Deserialize)]
struct BertConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    vocab_size: usize,
    #[serde(default)]
    type_vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "bert_epsilon")]
    layer_norm_eps: f64,
    #[serde(alias = "hidden_activation")]
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    pad_token_id: Option<usize>,
    #[serde(default = "buckets")]
    relative_attention_num_buckets: usize,
}

#[derive(Deserialize)]
struct DistilBertConfig {
    dim: usize,
    hidden_dim: usize,
    n_layers: usize,
    n_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    activation: String,
    #[serde(default)]
    pad_token_id: usize,
}

#[derive(Deserialize)]
struct NomicBertConfig {
    n_embd: usize,
    n_inner: Option<usize>,
    n_layer: usize,
    n_head: usize,
    n_positions: usize,
    vocab_size: usize,
    #[serde(default)]
    type_vocab_size: usize,
    layer_norm_epsilon: f64,
    activation_function: String,
    rotary_emb_fraction: f64,
    rotary_emb_base: f64,
    #[serde(default)]
    rotary_emb_interleaved: bool,
    rotary_emb_scale_base: Option<f64>,
    rotary_scaling_factor: Option<f64>,
    #[serde(default)]
    qkv_proj_bias: bool,
    #[serde(default)]
    mlp_fc1_bias: bool,
    #[serde(default)]
    mlp_fc2_bias: bool,
    #[serde(default)]
    prenorm: bool,
    #[serde(default)]
    parallel_block: bool,
    #[serde(default)]
    causal: bool,
    #[serde(default)]
    use_rms_norm: Option<bool>,
    num_experts: Option<usize>,
}

#[derive(Deserialize)]
struct ModernBertConfig {
    global_attn_every_n_layers: usize,
    global_rope_theta: f64,
    local_attention: usize,
    local_rope_theta: f64,
    norm_eps: Option<f64>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    norm_bias: bool,
}

#[derive(Deserialize)]
struct MatryoshkaConfig {
    #[serde(default)]
    is_matryoshka: bool,
    #[serde(default)]
    matryoshka_dimensions: Option<Vec<usize>>,
}

/// Transformers' own, for files that leave it out; DistilBERT's is fixed.
fn bert_epsilon() -> f64 {
    1e-12
}

fn buckets() -> usize {
    32
}

/// More layers than any encoder has; a hostile number must not be believed.
const MAX_LAYERS: usize = 256;
const MAX_WIDTH: usize = 1 << 16;
const MAX_POSITIONS: usize = 1 << 15;
const MAX_VOCABULARY: usize = 1 << 22;
const SUPPORTED: &str = "bert, xlm-roberta, roberta, camembert, mpnet, distilbert, nomic_bert and modernbert";
/// The bucket function's second half needs a whole one.
const MIN_BUCKETS: usize = 4;
const MAX_BUCKETS: usize = 1 << 12;

/// Reads config.json, and to which lengths the model's vectors may be cut.
///
/// # Errors
/// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::Storage`].
pub(super) fn read(path: &Path) -> Result<(Architecture, Dimensions), EmbedError> {
    let json: Value = read_json(path)?;
    let architecture = Architecture::from_json(&json, path)?;
    // The switches that vLLM reads for the same purpose.
    let matryoshka: MatryoshkaConfig = parse(&json, path)?;
    let dimensions = match matryoshka.matryoshka_dimensions {
        Some(mut lengths) => {
            lengths.retain(|length| *length > 0);
            lengths.sort_unstable();
            Dimensions::OneOf(lengths)
        }
        None if matryoshka.is_matryoshka => Dimensions::From(1),
        None => Dimensions::Whole,
    };
    Ok((architecture, dimensions))
}

fn parse<T: DeserializeOwned>(json: &Value, path: &Path) -> Result<T, EmbedError> {
    T::deserialize(json).map_err(|e| EmbedError::malformed(path, e))
}

fn unsupported<T>(path: &Path, feature: String, supported: &'static str) -> Result<T, EmbedError> {
    Err(EmbedError::Unsupported { path: path.to_owned(), feature, supported })
}

impl Architecture {
    /// The shape that config.json, found at `path`, describes.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Unsupported`].
    pub(crate) fn from_json(json: &Value, path: &Path) -> Result<Self, EmbedError> {
        if !json.is_object() {
            return Err(EmbedError::malformed(path, "it is not a JSON object"));
        }
        let model_type = json["model_type"].as_str().unwrap_or_default();
        let architecture = match model_type {
            "bert" => Self::like_bert(parse(json, path)?, Family::Bert, path)?,
            "xlm-roberta" | "roberta" | "camembert" => Self::like_bert(parse(json, path)?, Family::Roberta, path)?,
            "mpnet" => {
                let config: BertConfig = parse(json, path)?;
                let family = Family::Mpnet { buckets: config.relative_attention_num_buckets };
                Self { type_vocab_size: 0, ..Self::like_bert(config, family, path)? }
            }
            "distilbert" => Self::distil_bert(parse(json, path)?),
            "nomic_bert" => Self::nomic_bert(parse(json, path)?, path)?,
            "modernbert" => Self::modern_bert(parse(json, path)?, parse(json, path)?, path)?,
            other => return unsupported(path, format!("the architecture {other:?}"), SUPPORTED),
        };
        let architecture = Self { model_type: model_type.to_owned(), ..architecture };
        architecture.check(path)?;
        Ok(architecture)
    }

    fn like_bert(config: BertConfig, family: Family, path: &Path) -> Result<Self, EmbedError> {
        if let Some(other) = config.position_embedding_type.filter(|kind| kind != "absolute") {
            return unsupported(path, format!("{other:?} positions"), "\"absolute\" positions");
        }
        // RoBERTa's padding is token 1, BERT's is 0, in files that do not say.
        let pad = usize::from(matches!(family, Family::Roberta | Family::Mpnet { .. }));
        Ok(Self {
            model_type: String::new(),
            family,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            vocab_size: config.vocab_size,
            type_vocab_size: config.type_vocab_size,
            max_positions: config.max_position_embeddings,
            layer_norm_eps: config.layer_norm_eps,
            hidden_act: config.hidden_act,
            pad_token_id: config.pad_token_id.unwrap_or(pad),
        })
    }

    fn distil_bert(config: DistilBertConfig) -> Self {
        Self {
            model_type: String::new(),
            family: Family::DistilBert,
            hidden_size: config.dim,
            intermediate_size: config.hidden_dim,
            layers: config.n_layers,
            heads: config.n_heads,
            vocab_size: config.vocab_size,
            type_vocab_size: 0,
            max_positions: config.max_position_embeddings,
            layer_norm_eps: bert_epsilon(),
            hidden_act: config.activation,
            pad_token_id: config.pad_token_id,
        }
    }

    fn nomic_bert(config: NomicBertConfig, path: &Path) -> Result<Self, EmbedError> {
        let strange = [
            (config.prenorm, "normalisation before the layers (prenorm)"),
            (config.parallel_block, "parallel blocks"),
            (config.causal, "attention to earlier tokens only"),
            (config.use_rms_norm == Some(true), "RMS normalisation"),
            (config.num_experts.is_some_and(|count| count > 1), "a mixture of experts"),
            (config.rotary_emb_fraction != 1.0, "rotation of a part of each head"),
            (config.rotary_emb_scale_base.is_some(), "scaled rotation (rotary_emb_scale_base)"),
            (config.rotary_scaling_factor.is_some(), "stretched rotation (rotary_scaling_factor)"),
            (config.activation_function != "swiglu", "another activation than swiglu"),
        ];
        if let Some((_, feature)) = strange.iter().find(|(set, _)| *set) {
            return unsupported(path, (*feature).to_owned(), "nomic_bert as of nomic-embed-text-v1.5");
        }
        let head_width = config.n_embd.checked_div(config.n_head).unwrap_or(0);
        let rotates = head_width.is_multiple_of(2) && config.rotary_emb_base > 1.0;
        if !rotates {
            let reason = format!("heads of {head_width} numbers cannot be rotated by base {}", config.rotary_emb_base);
            return Err(EmbedError::malformed(path, reason));
        }
        let rotary = Rotary {
            base: config.rotary_emb_base,
            interleaved: config.rotary_emb_interleaved,
            biases: [config.qkv_proj_bias, config.mlp_fc1_bias, config.mlp_fc2_bias],
        };
        Ok(Self {
            model_type: String::new(),
            family: Family::NomicBert(rotary),
            hidden_size: config.n_embd,
            intermediate_size: config.n_inner.unwrap_or(config.n_embd.saturating_mul(4)),
            layers: config.n_layer,
            heads: config.n_head,
            vocab_size: config.vocab_size,
            type_vocab_size: config.type_vocab_size,
            max_positions: config.n_positions,
            layer_norm_eps: config.layer_norm_epsilon,
            hidden_act: config.activation_function,
            pad_token_id: 0,
        })
    }

    fn modern_bert(config: BertConfig, more: ModernBertConfig, path: &Path) -> Result<Self, EmbedError> {
        if more.attention_bias || more.mlp_bias || more.norm_bias {
            return unsupported(path, "biases".to_owned(), "modernbert without biases");
        }
        let local = Local {
            global_every: more.global_attn_every_n_layers.max(1),
            global_base: more.global_rope_theta,
            window: more.local_attention,
            local_base: more.local_rope_theta,
        };
        let layer_norm_eps = more.norm_eps.unwrap_or(config.layer_norm_eps);
        Ok(Self { layer_norm_eps, ..Self::like_bert(config, Family::ModernBert(local), path)? })
    }

    /// The table of token vectors among the weights.
    pub(crate) fn word_table(&self) -> &'static str {
        match self.family {
            Family::ModernBert(_) => "embeddings.tok_embeddings.weight",
            _ => "embeddings.word_embeddings.weight",
        }
    }

    /// Numbers in one head.
    pub(crate) fn head_width(&self) -> usize {
        self.hidden_size / self.heads
    }

    /// The position of a sequence's first token.
    pub(crate) fn first_position(&self) -> usize {
        match self.family {
            Family::Roberta | Family::Mpnet { .. } => self.pad_token_id + 1,
            _ => 0,
        }
    }

    /// Tokens of the longest sequence that has a position for each.
    pub(crate) fn usable_positions(&self) -> usize {
        self.max_positions.saturating_sub(self.first_position())
    }

    /// What of [`super::Settings::identity`] is the encoder's.
    pub(super) fn identity(&self) -> String {
        let mut line = format!(
            "{} hidden={} intermediate={} layers={} heads={} vocabulary={} positions={} epsilon={:e} activation={}",
            self.model_type,
            self.hidden_size,
            self.intermediate_size,
            self.layers,
            self.heads,
            self.vocab_size,
            self.max_positions,
            self.layer_norm_eps,
            self.hidden_act,
        );
        match &self.family {
            Family::Bert => {}
            Family::Roberta | Family::Mpnet { .. } => {
                line.push_str(&format!(" family={:?} pad={}", self.family, self.pad_token_id));
            }
            family => line.push_str(&format!(" family={family:?}")),
        }
        // A table of types among the weights goes unread then; of the others the weights tell how many there are.
        if matches!(self.family, Family::NomicBert(_)) && self.type_vocab_size == 0 {
            line.push_str(" no types");
        }
        line
    }

    fn check(&self, path: &Path) -> Result<(), EmbedError> {
        let activations: &[&str] = match self.family {
            Family::NomicBert(_) => &["swiglu"],
            Family::ModernBert(_) => &["gelu"],
            _ => &["gelu", "relu", "gelu_new", "gelu_pytorch_tanh"],
        };
        if !activations.contains(&self.hidden_act.as_str()) {
            let supported = "\"gelu\", \"gelu_new\" and \"relu\"";
            return unsupported(path, format!("the activation {:?}", self.hidden_act), supported);
        }
        let types = usize::from(matches!(self.family, Family::Bert | Family::Roberta));
        let ranges = [
            ("hidden size", self.hidden_size, 1, MAX_DIM),
            ("intermediate size", self.intermediate_size, 1, MAX_WIDTH),
            ("number of layers", self.layers, 1, MAX_LAYERS),
            ("number of heads", self.heads, 1, self.hidden_size),
            ("vocabulary", self.vocab_size, 1, MAX_VOCABULARY),
            ("number of token types", self.type_vocab_size, types, MAX_VOCABULARY),
            ("number of positions", self.max_positions, 1, MAX_POSITIONS),
            ("padding token", self.pad_token_id, 0, self.vocab_size.saturating_sub(1)),
        ];
        for (name, got, min, max) in ranges {
            if !(min..=max).contains(&got) {
                return Err(EmbedError::malformed(path, format!("the {name} is {got}, allowed are {min} to {max}")));
            }
        }
        if let Family::Mpnet { buckets } = self.family
            && !(MIN_BUCKETS..=MAX_BUCKETS).contains(&buckets)
        {
            let reason = format!("it has {buckets} buckets, allowed are {MIN_BUCKETS} to {MAX_BUCKETS}");
            return Err(EmbedError::malformed(path, reason));
        }
        if !self.hidden_size.is_multiple_of(self.heads) {
            let reason = format!("hidden_size {} is not a multiple of {} heads", self.hidden_size, self.heads);
            return Err(EmbedError::malformed(path, reason));
        }
        if !(self.layer_norm_eps >= 0.0 && self.layer_norm_eps < 1.0) {
            return Err(EmbedError::malformed(path, format!("layer_norm_eps is {}", self.layer_norm_eps)));
        }
        Ok(())
    }
}
