//! What the routes that answer with vectors share: OpenAI's, those of text-embeddings-inference, Ollama's.

use super::error::{ApiError, Code};
use super::wire::embeddings::Input;
use crate::embed::{Embeddings, InputKind, TextModel};
use crate::telemetry;

/// Embeds an input by a model and counts its tokens. `name`: the input's field, for errors.
///
/// # Errors
/// [`ApiError`] of the model, or of the input.
pub(crate) fn embed(
    model: &TextModel,
    input: &Input,
    kind: InputKind,
    name: &'static str,
) -> Result<Embeddings, ApiError> {
    let embeddings = match input {
        Input::Texts(texts) => model.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>(), kind),
        Input::Tokens(lists) => model.embed_tokens(lists),
    };
    let embeddings = embeddings.map_err(|error| ApiError::from(error).param(name))?;
    let tokens: usize = embeddings.token_counts.iter().sum();
    metrics::counter!(telemetry::EMBEDDING_TOKENS_TOTAL).increment(tokens as u64);
    Ok(embeddings)
}

/// Checks that a model makes vectors of the dimension that was asked for.
///
/// # Errors
/// [`Code::DimensionsNotSupported`].
pub(crate) fn check_dimensions(model: &TextModel, asked: Option<u32>) -> Result<(), ApiError> {
    match asked {
        Some(dim) if dim as usize != model.dim() => {
            let detail =
                format!("\"dimensions\" is {dim}, and model {} makes {}; leave it out", model.name(), model.dim());
            Err(ApiError::new(Code::DimensionsNotSupported, detail).param("dimensions"))
        }
        _ => Ok(()),
    }
}
