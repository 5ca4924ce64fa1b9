//! What the routes that answer with vectors share: OpenAI's, those of text-embeddings-inference, Ollama's.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::error::ApiError;
use super::wire::embeddings::Input;
use crate::embed::{EmbedError, Embeddings, InputKind, TextModel};
use crate::telemetry;

/// Header of answers whose bodies have no place for it: how many inputs were longer than the model reads,
const TRUNCATED_COUNT: HeaderName = HeaderName::from_static("x-pannier-truncated-count");
/// and the positions, from 0, of the first of them.
const TRUNCATED: HeaderName = HeaderName::from_static("x-pannier-truncated");
/// Most inputs that a header names: clients bound the length of headers.
const MAX_LISTED: usize = 100;

/// Headers that name the inputs that were cut; none where none was.
pub(crate) fn truncation(truncated: &[bool]) -> HeaderMap {
    let cut: Vec<usize> = (0..truncated.len()).filter(|&at| truncated[at]).collect();
    let mut headers = HeaderMap::new();
    if !cut.is_empty() {
        let listed: Vec<String> = cut.iter().take(MAX_LISTED).map(usize::to_string).collect();
        headers.insert(TRUNCATED_COUNT, HeaderValue::from(cut.len()));
        headers.extend(HeaderValue::try_from(listed.join(",")).ok().map(|listed| (TRUNCATED, listed)));
    }
    headers
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_counted_and_its_beginning_listed() {
        assert!(truncation(&[]).is_empty() && truncation(&[false]).is_empty());
        let headers = truncation(&[true, false, true]);
        assert_eq!((&headers[TRUNCATED_COUNT], &headers[TRUNCATED]), (&"2".parse().unwrap(), &"0,2".parse().unwrap()));
        let headers = truncation(&[true; 2_048]);
        assert_eq!(headers[TRUNCATED_COUNT], "2048");
        assert!(headers[TRUNCATED].to_str().unwrap().ends_with(",98,99"), "{headers:?}");
    }
}
