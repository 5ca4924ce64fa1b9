//! `POST /v1/embeddings` in OpenAI's wire.

use axum::extract::State;

use super::embedding::embed;
use super::error::ApiError;
use super::extract::JsonBody;
use super::problem::OpenAiError;
use super::state::AppState;
use super::wire::embeddings::{EmbeddingsBody, EmbeddingsView};
use super::wire::json::JsonText;
use crate::embed::InputKind;

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
    let answer = state.embedding(move |database| {
        let model = database.models().load(&body.model).map_err(|error| ApiError::from(error).param("model"))?;
        let kind = body.input_type.map_or(InputKind::Document, InputKind::from);
        let embeddings = embed(&model, &input, kind, "input", body.dimensions)?;
        let format = body.encoding_format.unwrap_or_default();
        JsonText::of(&EmbeddingsView::of(embeddings, model.name().to_owned(), format))
    });
    answer.await
}
