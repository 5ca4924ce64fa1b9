//! `POST /v1/embeddings` in OpenAI's wire.

use axum::extract::State;

use super::error::{ApiError, Code};
use super::extract::JsonBody;
use super::problem::OpenAiError;
use super::state::AppState;
use super::wire::embeddings::{EmbeddingsBody, EmbeddingsView, Input};
use super::wire::json::JsonText;
use crate::embed::{InputKind, TextModel};
use crate::telemetry;

/// Embeds texts or tokens.
#[utoipa::path(
    post, path = "/v1/embeddings", operation_id = "createEmbeddings", tag = "openai",
    request_body = EmbeddingsBody,
    responses(
        (status = 200, body = EmbeddingsView, description = "Vectors in the order of the input."),
        (status = 404, body = OpenAiError, description = "There is no such model."),
    )
)]
pub(crate) async fn embeddings(
    State(state): State<AppState>,
    JsonBody(mut body): JsonBody<EmbeddingsBody>,
) -> Result<JsonText, ApiError> {
    let input = body.take_input()?;
    let embed = state.engine(move |database| {
        let model = database.models().load(&body.model).map_err(|error| ApiError::from(error).param("model"))?;
        check_dimensions(&model, body.dimensions)?;
        let embeddings = match &input {
            Input::Texts(texts) => {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                model.embed(&texts, InputKind::Document)
            }
            Input::Tokens(lists) => model.embed_tokens(lists),
        };
        let embeddings = embeddings.map_err(|error| ApiError::from(error).param("input"))?;
        let tokens: usize = embeddings.token_counts.iter().sum();
        metrics::counter!(telemetry::EMBEDDING_TOKENS_TOTAL).increment(tokens as u64);
        let format = body.encoding_format.unwrap_or_default();
        JsonText::of(&EmbeddingsView::of(embeddings, model.name().to_owned(), format))
    });
    embed.await
}

fn check_dimensions(model: &TextModel, asked: Option<u32>) -> Result<(), ApiError> {
    match asked {
        Some(dim) if dim as usize != model.dim() => {
            let detail =
                format!("\"dimensions\" is {dim}, and model {} makes {}; leave it out", model.name(), model.dim());
            Err(ApiError::new(Code::DimensionsNotSupported, detail).param("dimensions"))
        }
        _ => Ok(()),
    }
}
