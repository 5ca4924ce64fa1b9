//! What a sentence-transformers directory says about its model: architecture, pooling, lengths, prefixes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::EmbedError;
use super::store::Place;
use crate::types::limits::MAX_DIM;

/// Everything beside weights and tokenizer that decides a model's vectors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub architecture: Architecture,
    pub pooling: Pooling,
    /// Whether vectors are scaled to length 1.
    pub normalise: bool,
    /// Tokens read of a text, special tokens included.
    pub max_tokens: usize,
    pub query_prefix: String,
    pub document_prefix: String,
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    FirstToken,
}

/// Shape of a BERT encoder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Architecture {
    model_type: String,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    #[serde(rename = "num_hidden_layers")]
    pub layers: usize,
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    pub vocab_size: usize,
    pub type_vocab_size: usize,
    #[serde(rename = "max_position_embeddings")]
    pub max_positions: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default)]
    pub pad_token_id: usize,
}

fn absolute() -> String {
    "absolute".to_owned()
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

#[derive(Default, Deserialize)]
struct PromptsConfig {
    #[serde(default)]
    prompts: Prompts,
}

#[derive(Default, Deserialize)]
struct Prompts {
    query: Option<String>,
    #[serde(alias = "passage")]
    document: Option<String>,
}

/// Longest file of settings that is read; genuine ones take a few hundred bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// More layers than any encoder has; a hostile number must not be believed.
const MAX_LAYERS: usize = 256;
const MAX_WIDTH: usize = 1 << 16;
const MAX_POSITIONS: usize = 1 << 17;
const MAX_VOCABULARY: usize = 1 << 22;

impl Settings {
    /// Reads the settings of an installed model. What the registry says of prefixes stands above the files.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::Storage`].
    pub(crate) fn read(place: &Place) -> Result<Self, EmbedError> {
        let dir = &place.dir;
        let architecture = read_architecture(&dir.join("config.json"))?;
        let modules = read_modules(&dir.join("modules.json"))?;
        let pooling = read_pooling(&dir.join(&modules.pooling).join("config.json"))?;
        let sentence: SentenceConfig = read_optional(&dir.join("sentence_bert_config.json"))?;
        let prompts = read_optional::<PromptsConfig>(&dir.join("config_sentence_transformers.json"))?.prompts;
        let (query_prefix, document_prefix) = match place.known {
            Some(known) => (known.query_prefix.to_owned(), known.document_prefix.to_owned()),
            None => (prompts.query.unwrap_or_default(), prompts.document.unwrap_or_default()),
        };
        let max_tokens = sentence.max_seq_length.unwrap_or(architecture.max_positions).min(architecture.max_positions);
        if max_tokens < 3 {
            return Err(EmbedError::malformed(
                dir,
                format!("it reads at most {max_tokens} tokens, too few for a text"),
            ));
        }
        Ok(Self { architecture, pooling, normalise: modules.normalise, max_tokens, query_prefix, document_prefix })
    }

    /// One line that differs wherever these settings make other vectors.
    pub(crate) fn identity(&self) -> String {
        let Self { architecture: a, pooling, normalise, max_tokens, query_prefix, document_prefix } = self;
        format!(
            "{} hidden={} intermediate={} layers={} heads={} vocabulary={} positions={} epsilon={:e} activation={} \
             pooling={pooling:?} normalise={normalise} max_tokens={max_tokens} query={query_prefix:?} \
             document={document_prefix:?}",
            a.model_type,
            a.hidden_size,
            a.intermediate_size,
            a.layers,
            a.heads,
            a.vocab_size,
            a.max_positions,
            a.layer_norm_eps,
            a.hidden_act,
        )
    }
}

impl Architecture {
    /// Numbers in one head.
    pub(crate) fn head_width(&self) -> usize {
        self.hidden_size / self.heads
    }

    fn check(&self, path: &Path) -> Result<(), EmbedError> {
        let unsupported =
            |feature: String, supported| Err(EmbedError::Unsupported { path: path.to_owned(), feature, supported });
        if self.model_type != "bert" {
            return unsupported(format!("the architecture {:?}", self.model_type), "\"bert\"");
        }
        if !matches!(self.hidden_act.as_str(), "gelu" | "relu" | "gelu_new" | "gelu_pytorch_tanh") {
            return unsupported(format!("the activation {:?}", self.hidden_act), "\"gelu\", \"gelu_new\" and \"relu\"");
        }
        if self.position_embedding_type != "absolute" {
            return unsupported(format!("{:?} positions", self.position_embedding_type), "\"absolute\" positions");
        }
        let ranges = [
            ("hidden_size", self.hidden_size, MAX_DIM),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_hidden_layers", self.layers, MAX_LAYERS),
            ("num_attention_heads", self.heads, self.hidden_size),
            ("vocab_size", self.vocab_size, MAX_VOCABULARY),
            ("type_vocab_size", self.type_vocab_size, MAX_VOCABULARY),
            ("max_position_embeddings", self.max_positions, MAX_POSITIONS),
        ];
        for (name, got, max) in ranges {
            if !(1..=max).contains(&got) {
                return Err(EmbedError::malformed(path, format!("{name} is {got}, allowed are 1 to {max}")));
            }
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

fn read_architecture(path: &Path) -> Result<Architecture, EmbedError> {
    // The architecture's name comes first: another one may lack the fields of this one.
    #[derive(Deserialize)]
    struct Kind {
        model_type: Option<String>,
    }
    let kind: Kind = read_json(path)?;
    if let Some(kind) = kind.model_type.filter(|kind| kind != "bert") {
        let (path, feature) = (path.to_owned(), format!("the architecture {kind:?}"));
        return Err(EmbedError::Unsupported { path, feature, supported: "\"bert\"" });
    }
    let architecture: Architecture = read_json(path)?;
    architecture.check(path)?;
    Ok(architecture)
}

struct Modules {
    /// Directory of the pooling module.
    pooling: PathBuf,
    normalise: bool,
}

/// Reads which modules a text passes: a transformer, pooling, and perhaps normalisation.
fn read_modules(path: &Path) -> Result<Modules, EmbedError> {
    let modules: Vec<Module> = read_json(path)?;
    let kinds: Vec<&str> = modules.iter().map(|m| m.kind.rsplit('.').next().unwrap_or_default()).collect();
    let normalise = match kinds.as_slice() {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        _ => {
            return Err(EmbedError::Unsupported {
                path: path.to_owned(),
                feature: format!("the modules {}", kinds.join(", ")),
                supported: "Transformer, Pooling and an optional Normalize",
            });
        }
    };
    // The only directory whose files are checked against their hashes.
    if !modules[0].path.is_empty() || modules[1].path != "1_Pooling" {
        return Err(EmbedError::malformed(path, "the transformer must lie in \"\" and the pooling in \"1_Pooling\""));
    }
    Ok(Modules { pooling: PathBuf::from("1_Pooling"), normalise })
}

fn read_pooling(path: &Path) -> Result<Pooling, EmbedError> {
    let config: PoolingConfig = read_json(path)?;
    let modes = [
        (config.pooling_mode_mean_tokens, "mean_tokens"),
        (config.pooling_mode_cls_token, "cls_token"),
        (config.pooling_mode_max_tokens, "max_tokens"),
        (config.pooling_mode_mean_sqrt_len_tokens, "mean_sqrt_len_tokens"),
        (config.pooling_mode_weightedmean_tokens, "weightedmean_tokens"),
        (config.pooling_mode_lasttoken, "lasttoken"),
    ];
    let chosen: Vec<&str> = modes.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    match chosen.as_slice() {
        ["mean_tokens"] => Ok(Pooling::Mean),
        ["cls_token"] => Ok(Pooling::FirstToken),
        _ => Err(EmbedError::Unsupported {
            path: path.to_owned(),
            feature: format!(
                "pooling by {}",
                if chosen.is_empty() { "nothing".to_owned() } else { chosen.join(" + ") }
            ),
            supported: "either mean_tokens or cls_token",
        }),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, EmbedError> {
    let size = fs::metadata(path).map_err(|e| EmbedError::io(path, "read", e))?.len();
    if size > MAX_FILE_BYTES {
        return Err(EmbedError::malformed(path, format!("it has {size} bytes, at most {MAX_FILE_BYTES} are allowed")));
    }
    let bytes = fs::read(path).map_err(|e| EmbedError::io(path, "read", e))?;
    serde_json::from_slice(&bytes).map_err(|e| EmbedError::malformed(path, e))
}

fn read_optional<T: DeserializeOwned + Default>(path: &Path) -> Result<T, EmbedError> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        _ => read_json(path),
    }
}
