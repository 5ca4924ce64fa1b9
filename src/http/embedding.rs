//! What the routes that answer with vectors share: OpenAI's, those of text-embeddings-inference, Ollama's.

use super::error::ApiError;
use super::wire::embeddings::Input;
use crate::embed::{EmbedError, Embeddings, InputKind, TextModel};
use crate::telemetry;

/// Embeds an input by a model and counts its tokens. `name`: the input's field, for errors; `dimensions`: to how many
/// numbers the vectors are cut, where the model was trained for that.
///
/// # Errors
/// [`ApiError`] of the model, or of the input.
pub(crate) fn embed(
    model: &TextModel,
    input: &Input,
    kind: InputKind,
    name: &'static str,
    dimensions: Option<u32>,
) -> Result<Embeddings, ApiError> {
    let dimensions = dimensions.map(|dimensions| dimensions as usize);
    let at_dimensions = |error: EmbedError| ApiError::from(error).param("dimensions");
    // Before the model runs.
    dimensions.map_or(Ok(()), |dimensions| model.check_dimensions(dimensions)).map_err(at_dimensions)?;
    let embeddings = match input {
        Input::Texts(texts) => model.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>(), kind),
        Input::Tokens(lists) => model.embed_tokens(lists),
    };
    let mut embeddings = embeddings.map_err(|error| ApiError::from(error).param(name))?;
    if let Some(dimensions) = dimensions {
        model.shorten(&mut embeddings, dimensions).map_err(at_dimensions)?;
    }
    let tokens: usize = embeddings.token_counts.iter().sum();
    metrics::counter!(telemetry::EMBEDDING_TOKENS_TOTAL).increment(tokens as u64);
    Ok(embeddings)
}
