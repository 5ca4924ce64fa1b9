//! `POST /embed`, `POST /tokenize` and `GET /info` in the wire of text-embeddings-inference.
//!
//! Its requests name no model: they are for the default model of [`super::HttpConfig`].

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;

use super::embedding;
use super::error::{ApiError, Code};
use super::extract::JsonBody;
use super::problem::TeiError;
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::tei::{EmbedBody, InfoView, PieceView, TokenizeBody, TruncationDirection, kind_of};
use crate::database::Database;
use crate::embed::{Embeddings, TextModel};

/// The routes' tag in the API's description.
pub(crate) const TAG: &str = "text-embeddings-inference";

/// Embeds texts or tokens by the default model.
#[utoipa::path(
    post, path = "/embed", operation_id = "teiEmbed", tag = TAG,
    request_body = EmbedBody,
    responses(
        (status = 200, body = Vec<Vec<f32>>, description = "Vectors in the order of the inputs.", headers(
            ("x-pannier-truncated-count" = Option<usize>, description = "How many inputs were cut, where some were."),
            ("x-pannier-truncated" = Option<String>, description = "Positions of the first 100 of them, such as `0,3`."),
        )),
        (status = 503, body = TeiError, description = "The model is not installed."),
    )
)]
pub(crate) async fn embed(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<EmbedBody>,
) -> Result<(HeaderMap, JsonText), ApiError> {
    run(&state, body).await
}

/// The same as `/embed`: clients that know a server's address only post there.
#[utoipa::path(
    post, path = "/", operation_id = "teiEmbedAtRoot", tag = TAG,
    request_body = EmbedBody,
    responses(
        (status = 200, body = Vec<Vec<f32>>, description = "Vectors in the order of the inputs.", headers(
            ("x-pannier-truncated-count" = Option<usize>, description = "How many inputs were cut, where some were."),
            ("x-pannier-truncated" = Option<String>, description = "Positions of the first 100 of them, such as `0,3`."),
        )),
        (status = 503, body = TeiError, description = "The model is not installed."),
    )
)]
pub(crate) async fn embed_at_root(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<EmbedBody>,
) -> Result<(HeaderMap, JsonText), ApiError> {
    run(&state, body).await
}

async fn run(state: &AppState, mut body: EmbedBody) -> Result<(HeaderMap, JsonText), ApiError> {
    let inputs = body.take_inputs()?;
    let kind = kind_of(body.prompt_name.as_deref())?;
    let name = state.config().default_model.clone();
    let answer = state.embedding(move |database| {
        let model = load(database, &name)?;
        let scaled = body.normalize.unwrap_or(true);
        check_length(&model, scaled, body.dimensions)?;
        let mut embeddings = embedding::embed(&model, &inputs, kind, "inputs", body.dimensions)?;
        check_truncation(&embeddings, &body, &model)?;
        if scaled {
            model.scale(&mut embeddings)?;
        }
        Ok((embedding::truncation(&embeddings.truncated), JsonText::of(&embeddings.vectors)?))
    });
    answer.await
}

/// Takes texts apart into the default model's tokens.
#[utoipa::path(
    post, path = "/tokenize", operation_id = "teiTokenize", tag = TAG,
    request_body = TokenizeBody,
    responses(
        (status = 200, body = Vec<Vec<PieceView>>, description = "The tokens of each text, however long it is."),
        (status = 503, body = TeiError, description = "The model is not installed."),
    )
)]
pub(crate) async fn tokenize(
    State(state): State<AppState>,
    JsonBody(mut body): JsonBody<TokenizeBody>,
) -> Result<JsonText, ApiError> {
    let texts = body.take_texts()?;
    let kind = kind_of(body.prompt_name.as_deref())?;
    let with_special = body.add_special_tokens.unwrap_or(true);
    let name = state.config().default_model.clone();
    let answer = state.embedding(move |database| {
        let model = load(database, &name)?;
        let pieces = |text: &String| -> Result<Vec<PieceView>, ApiError> {
            Ok(model.tokenize(text, kind, with_special)?.into_iter().map(PieceView::from).collect())
        };
        JsonText::of(&texts.iter().map(pieces).collect::<Result<Vec<_>, _>>()?)
    });
    answer.await
}

/// Describes the default model.
#[utoipa::path(
    get, path = "/info", operation_id = "teiInfo", tag = TAG,
    responses(
        (status = 200, body = InfoView, description = "The model, and how much it takes at once."),
        (status = 503, body = TeiError, description = "The model is not installed."),
    )
)]
pub(crate) async fn info(State(state): State<AppState>) -> Result<JsonText, ApiError> {
    let (name, calls) = (state.config().default_model.clone(), state.config().limits.embedding_calls);
    state.engine(move |database| JsonText::of(&InfoView::of(&*load(database, &name)?, calls))).await
}

/// The default model. A name that is not known is the operator's mistake, not the client's.
fn load(database: &Database, name: &str) -> Result<Arc<TextModel>, ApiError> {
    database.models().load(name).map_err(|error| match ApiError::from(error) {
        error if matches!(error.code, Code::ModelNotFound | Code::ModelNotSupported) => {
            ApiError { code: Code::ModelNotInstalled, ..error }
        }
        error => error,
    })
}

/// What a model scales itself, or what is scaled after a cut, is not to be had as it was.
fn check_length(model: &TextModel, scaled: bool, dimensions: Option<u32>) -> Result<(), ApiError> {
    let detail = if scaled {
        return Ok(());
    } else if model.normalises() {
        format!("model {} scales its vectors itself; leave \"normalize\" out", model.name())
    } else if dimensions.is_some_and(|dimensions| (dimensions as usize) < model.dim()) {
        "vectors that are cut are scaled again; leave \"normalize\" or \"dimensions\" out".to_owned()
    } else {
        return Ok(());
    };
    Err(ApiError::new(Code::InvalidValue, detail).param("normalize"))
}

fn check_truncation(embeddings: &Embeddings, body: &EmbedBody, model: &TextModel) -> Result<(), ApiError> {
    let Some(index) = embeddings.truncated.iter().position(|cut| *cut) else { return Ok(()) };
    let what = if body.truncate == Some(false) {
        "and \"truncate\" is false"
    } else if body.truncation_direction == Some(TruncationDirection::Left) {
        "and texts are cut at their end only, not at the left"
    } else {
        return Ok(());
    };
    let detail = format!("input {index} has more than the {} tokens that the model reads, {what}", model.max_tokens());
    Err(ApiError::new(Code::TooLong, detail).param("inputs"))
}
