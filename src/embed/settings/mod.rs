//! What a sentence-transformers directory says about its model: architecture, modules, lengths, prefixes.

mod architecture;
mod cross_encoder;
mod modules;
mod sentence;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::local::most_tokens;
use super::store::Place;
use super::{Dimensions, EmbedError, Pooling};
pub(crate) use architecture::{Architecture, Family, Local, Rotary};
pub(crate) use cross_encoder::{CrossEncoderSettings, says_cross_encoder};
pub(crate) use modules::{Activation, Dense, Following, MODULES_FILE, Modules, Step};

/// Everything beside weights and tokenizer that decides a model's vectors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub architecture: Architecture,
    /// The directory of weights and tokenizer, below the model's; empty for that itself.
    pub transformer: String,
    pub pooling: Pooling,
    /// What a pooled vector passes before the last normalisation.
    pub steps: Vec<Step>,
    /// Whether vectors are scaled to length 1 at last.
    pub normalise: bool,
    /// To which lengths vectors may be cut.
    pub dimensions: Dimensions,
    /// Whether a whole vector passes a layer normalisation before it is cut.
    pub layer_norm_before_cut: bool,
    /// Tokens read of a text, special tokens included; see [`most_tokens`].
    pub max_tokens: usize,
    /// Whether texts are put in lower case before they are tokenised.
    pub lower_case: bool,
    pub query_prefix: String,
    pub document_prefix: String,
}

/// Longest file of settings that is read; genuine ones take a few hundred bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// A text needs one token beside the two special ones.
const MIN_TOKENS: usize = 3;

impl Settings {
    /// Reads the settings of an installed model. What the registry says of prefixes stands above the files.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::Storage`].
    pub(crate) fn read(place: &Place) -> Result<Self, EmbedError> {
        let dir = &place.dir;
        let modules = Modules::read(&dir.join(MODULES_FILE))?;
        let transformer = dir.join(&modules.transformer);
        let config = transformer.join("config.json");
        let (architecture, dimensions) = architecture::read(&config)?;
        let (pooling, include_prompt) = modules::read_pooling(&dir.join(&modules.pooling).join("config.json"))?;
        let (mut steps, dim) = modules::read_steps(dir, &modules, architecture.hidden_size)?;
        let normalise = steps.pop_if(|step| *step == Step::Normalise).is_some();
        let lengths = sentence::read_lengths(&transformer)?;
        let prompts = sentence::read_prompts(&dir.join("config_sentence_transformers.json"))?;
        let (query_prefix, document_prefix) = match place.known {
            Some(known) => (known.query_prefix.to_owned(), known.document_prefix.to_owned()),
            None => prompts,
        };
        let has_prefix = !query_prefix.is_empty() || !document_prefix.is_empty();
        if has_prefix && !include_prompt {
            return Err(EmbedError::Unsupported {
                path: dir.join(&modules.pooling).join("config.json"),
                feature: "pooling that leaves the prefix out (include_prompt)".to_owned(),
                supported: "pooling of all tokens",
            });
        }
        let usable = most_tokens(&architecture);
        let max_tokens = lengths.max_tokens.unwrap_or(usable).min(usable);
        if max_tokens < MIN_TOKENS {
            let reason = format!("it reads at most {max_tokens} tokens, too few for a text");
            return Err(EmbedError::malformed(&config, reason));
        }
        let dimensions = match place.known.and_then(|known| known.shortest) {
            Some(shortest) => Dimensions::From(shortest),
            None => dimensions,
        };
        let settings = Self {
            architecture,
            transformer: modules.transformer,
            pooling,
            steps,
            normalise,
            dimensions,
            layer_norm_before_cut: place.known.is_some_and(|known| known.layer_norm_before_cut),
            max_tokens,
            lower_case: lengths.lower_case,
            query_prefix,
            document_prefix,
        };
        settings.check_known(place, dim)?;
        Ok(settings)
    }

    /// Numbers in a vector.
    pub(crate) fn dim(&self) -> usize {
        let last = self.steps.iter().rev().find_map(|step| match step {
            Step::Dense(dense) => Some(dense.outputs),
            Step::Normalise => None,
        });
        last.unwrap_or(self.architecture.hidden_size)
    }

    /// One line that differs wherever these settings make other whole vectors.
    pub(crate) fn identity(&self) -> String {
        let Self { pooling, normalise, max_tokens, query_prefix, document_prefix, .. } = self;
        let mut line = format!(
            "{} pooling={pooling:?} normalise={normalise} max_tokens={max_tokens} query={query_prefix:?} \
             document={document_prefix:?}",
            self.architecture.identity(),
        );
        if self.lower_case {
            line.push_str(" lower_case");
        }
        self.steps.iter().for_each(|step| line.push_str(&format!(" {}", step.identity())));
        line
    }

    /// A model under a known name whose files say otherwise than the registry is another model.
    fn check_known(&self, place: &Place, dim: usize) -> Result<(), EmbedError> {
        let Some(known) = place.known else { return Ok(()) };
        if (known.dim, known.pooling) == (dim, self.pooling) {
            return Ok(());
        }
        let reason = format!(
            "its files make {dim} numbers by {:?} pooling, {} makes {} by {:?}; it is another model, give it another name",
            self.pooling, known.name, known.dim, known.pooling,
        );
        Err(EmbedError::malformed(&place.dir, reason))
    }
}

/// Reads a JSON file of settings.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, EmbedError> {
    let size = fs::metadata(path).map_err(|e| EmbedError::io(path, "read", e))?.len();
    if size > MAX_FILE_BYTES {
        return Err(EmbedError::malformed(path, format!("it has {size} bytes, at most {MAX_FILE_BYTES} are allowed")));
    }
    let bytes = fs::read(path).map_err(|e| EmbedError::io(path, "read", e))?;
    serde_json::from_slice(&bytes).map_err(|e| EmbedError::malformed(path, e))
}

/// As [`read_json`], for a file that may be absent.
fn read_optional<T: DeserializeOwned + Default>(path: &Path) -> Result<T, EmbedError> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        _ => read_json(path),
    }
}
