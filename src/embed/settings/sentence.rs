//! The files of a sentence-transformers directory that say how texts are read: lengths, case, prompts.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{read_json, read_optional};
use crate::embed::EmbedError;

/// How a text is prepared.
pub(super) struct Lengths {
    /// Tokens of a text, special tokens included; `None` where only the architecture limits them.
    pub max_tokens: Option<usize>,
    pub lower_case: bool,
}

#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    /// A float, since files that mean "no limit" say 1e30.
    model_max_length: Option<f64>,
}

#[derive(Default, Deserialize)]
struct PromptsConfig {
    #[serde(default)]
    prompts: BTreeMap<String, Option<String>>,
    default_prompt_name: Option<String>,
}

/// Names under which prompts of stored texts stand, the first that is there counts.
const DOCUMENT_PROMPTS: [&str; 3] = ["document", "passage", "corpus"];

/// Reads the files beside the transformer. The tokenizer's own length counts where the other file has none.
///
/// # Errors
/// [`EmbedError::Malformed`], [`EmbedError::Storage`].
pub(super) fn read_lengths(dir: &Path) -> Result<Lengths, EmbedError> {
    let sentence: SentenceConfig = read_optional(&dir.join("sentence_bert_config.json"))?;
    let max_tokens = match sentence.max_seq_length {
        Some(max_tokens) => Some(max_tokens),
        None => {
            let tokenizer: TokenizerConfig = read_optional(&dir.join("tokenizer_config.json"))?;
            // Numbers beyond usize become the largest one, which limits nothing.
            tokenizer.model_max_length.filter(|length| *length >= 0.0).map(|length| length as usize)
        }
    };
    Ok(Lengths { max_tokens, lower_case: sentence.do_lower_case })
}

/// What stands before queries, and before documents.
///
/// # Errors
/// [`EmbedError::Malformed`] also where the default prompt is not among the prompts.
pub(super) fn read_prompts(path: &Path) -> Result<(String, String), EmbedError> {
    if !path.exists() {
        return Ok(Default::default());
    }
    let config: PromptsConfig = read_json(path)?;
    let named = |name: &str| config.prompts.get(name).cloned().flatten();
    let default = match &config.default_prompt_name {
        None => String::new(),
        Some(name) => named(name).ok_or_else(|| {
            EmbedError::malformed(path, format!("default_prompt_name is {name:?}, which is not among its prompts"))
        })?,
    };
    let document = DOCUMENT_PROMPTS.iter().find_map(|name| named(name));
    Ok((named("query").unwrap_or_else(|| default.clone()), document.unwrap_or(default)))
}
