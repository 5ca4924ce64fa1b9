//! `POST /api/embed`, `POST /api/embeddings`, `GET /api/tags` and `GET /api/version` in Ollama's wire.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;

use super::embedding;
use super::error::{ApiError, Code};
use super::extract::UntypedJsonBody;
use super::models::embedders;
use super::problem::OllamaError;
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::ollama::{EmbedBody, EmbedView, PromptBody, PromptView, TagsView, VersionView, known_name};
use crate::embed::InputKind;

/// The routes' tag in the API's description.
pub(crate) const TAG: &str = "ollama";

/// Embeds texts.
#[utoipa::path(
    post, path = "/api/embed", operation_id = "ollamaEmbed", tag = TAG,
    request_body(content = EmbedBody),
    responses(
        (status = 200, body = EmbedView, description = "Vectors in the order of the input.", headers(
            ("x-pannier-truncated-count" = Option<usize>, description = "How many inputs were cut, where some were."),
            ("x-pannier-truncated" = Option<String>, description = "Positions of the first 100 of them, such as `0,3`."),
        )),
        (status = 404, body = OllamaError, description = "There is no such model."),
    )
)]
pub(crate) async fn embed(
    State(state): State<AppState>,
    UntypedJsonBody(mut body): UntypedJsonBody<EmbedBody>,
) -> Result<(HeaderMap, JsonText), ApiError> {
    let started = Instant::now();
    let texts = body.take_texts()?;
    let answer = state.embedding(move |database| {
        let model = database.models().load(known_name(&body.model))?;
        let load = started.elapsed();
        let mut embeddings = embedding::embed(&model, &texts, InputKind::Plain, "input", body.dimensions)?;
        model.scale(&mut embeddings)?;
        if body.truncate == Some(false) && embeddings.truncated.contains(&true) {
            let detail = format!("the input has more than the {} tokens that the model reads", model.max_tokens());
            return Err(ApiError::new(Code::TooLong, detail));
        }
        let headers = embedding::truncation(&embeddings.truncated);
        Ok((headers, JsonText::of(&EmbedView::of(embeddings, body.model, started.elapsed(), load))?))
    });
    answer.await
}

/// Embeds one text, as older clients ask.
#[utoipa::path(
    post, path = "/api/embeddings", operation_id = "ollamaEmbeddings", tag = TAG,
    request_body = PromptBody,
    responses(
        (status = 200, body = PromptView, description = "The text's vector; empty where there is no text.", headers(
            ("x-pannier-truncated-count" = Option<usize>, description = "1 where the text was cut."),
            ("x-pannier-truncated" = Option<String>, description = "0 where the text was cut."),
        )),
        (status = 404, body = OllamaError, description = "There is no such model."),
    )
)]
pub(crate) async fn embed_prompt(
    State(state): State<AppState>,
    UntypedJsonBody(mut body): UntypedJsonBody<PromptBody>,
) -> Result<(HeaderMap, JsonText), ApiError> {
    let text = body.take_text()?;
    let answer = state.embedding(move |database| {
        let model = database.models().load(known_name(&body.model))?;
        let mut embeddings = embedding::embed(&model, &text, InputKind::Plain, "prompt", None)?;
        let headers = embedding::truncation(&embeddings.truncated);
        Ok((headers, JsonText::of(&PromptView { embedding: embeddings.vectors.pop().unwrap_or_default() })?))
    });
    answer.await
}

/// Lists the installed models.
#[utoipa::path(
    get, path = "/api/tags", operation_id = "ollamaTags", tag = TAG,
    responses((status = 200, body = TagsView, description = "The installed models."))
)]
pub(crate) async fn tags(State(state): State<AppState>) -> Result<JsonText, ApiError> {
    state.engine(|database| JsonText::of(&TagsView::of(embedders(database)?))).await
}

/// Says which version answers.
#[utoipa::path(
    get, path = "/api/version", operation_id = "ollamaVersion", tag = TAG,
    responses((status = 200, body = VersionView, description = "The server's version."))
)]
pub(crate) async fn version() -> Json<VersionView> {
    Json(VersionView { version: env!("CARGO_PKG_VERSION") })
}
