//! Templates: what they make of documents, before anything is written.

use axum::extract::State;

use super::error::ApiError;
use super::extract::{InCollection, JsonBody, NoParams};
use super::problem::Problem;
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::template::{PreviewBody, PreviewView, PreviewsView};

/// Shows the texts that a template makes of documents. Nothing is embedded and nothing is written.
#[utoipa::path(
    post, path = "/v1/collections/{collection}/template/preview", operation_id = "previewTemplate", tag = "collections",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = PreviewBody,
    responses(
        (status = 200, body = PreviewsView, description = "The texts, in the order of the documents."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn preview(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    JsonBody(body): JsonBody<PreviewBody>,
) -> Result<JsonText, ApiError> {
    let (documents, template) = body.into_parts()?;
    let preview = state.on_collection(name, move |collection| {
        let ids: Vec<String> = documents.iter().map(|document| document.id.to_string()).collect();
        let previews = collection.preview(documents, template.as_ref())?;
        let previews = ids.into_iter().zip(previews).map(|(id, preview)| PreviewView::of(id, preview)).collect();
        JsonText::of(&PreviewsView { previews })
    });
    preview.await
}
