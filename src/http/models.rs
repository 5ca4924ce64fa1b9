//! `GET /v1/models` in OpenAI's wire: the models that are installed.

use axum::extract::State;

use super::error::{ApiError, Code};
use super::extract::InModel;
use super::problem::OpenAiError;
use super::state::AppState;
use super::wire::embeddings::{ModelView, ModelsView};
use super::wire::json::JsonText;
use crate::database::Database;
use crate::embed::{InstalledModel, ModelKind};

/// Lists the installed models.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "listModels", tag = "openai",
    responses((status = 200, body = ModelsView, description = "The installed models."))
)]
pub(crate) async fn list(State(state): State<AppState>) -> Result<JsonText, ApiError> {
    state.engine(|database| JsonText::of(&ModelsView::of(embedders(database)?))).await
}

/// Reads one installed model.
#[utoipa::path(
    get, path = "/v1/models/{model}", operation_id = "getModel", tag = "openai",
    params(("model" = String, Path, description = "The model's name, with its slash as it is or percent-encoded.")),
    responses(
        (status = 200, body = ModelView, description = "The model."),
        (status = 404, body = OpenAiError, description = "There is no such model here."),
    )
)]
pub(crate) async fn read(State(state): State<AppState>, InModel(name): InModel) -> Result<JsonText, ApiError> {
    let read = state.engine(move |database| {
        let installed = embedders(database)?;
        let name = crate::embed::find(&name).map_or(name.as_str(), |known| known.name);
        match installed.into_iter().find(|model| model.name == name) {
            Some(model) => JsonText::of(&ModelView::of(model)),
            None => {
                let detail = format!("model {name:?} is not installed here; GET /v1/models lists what is");
                Err(ApiError::new(Code::ModelNotFound, detail).param("model"))
            }
        }
    });
    read.await
}

/// The installed models that make vectors.
pub(crate) fn embedders(database: &Database) -> Result<Vec<InstalledModel>, ApiError> {
    let mut models = database.models().installed()?;
    models.retain(|model| model.kind == ModelKind::Embedding);
    Ok(models)
}
