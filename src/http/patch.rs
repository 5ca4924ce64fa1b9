//! Patches: parts of documents are changed.

use axum::extract::State;

use super::documents::refreshed;
use super::error::ApiError;
use super::extract::{DocumentPath, InCollection, JsonBody, NoParams};
use super::problem::Problem;
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::patch::{PatchBody, PatchesBody, UpdatedView};
use crate::telemetry;
use crate::types::{CollectionName, DocumentPatch};

/// Changes a part of a document: what is not named stays.
#[utoipa::path(
    patch, path = "/v1/collections/{collection}/documents/{id}", operation_id = "patchDocument", tag = "documents",
    params(
        ("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`"),
        ("id" = String, Path, description = "The document's id, percent-encoded; a slash as %2F."),
    ),
    request_body = PatchBody,
    responses(
        (status = 200, body = UpdatedView, description = "On disk and visible."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection or document."),
    )
)]
pub(crate) async fn patch(
    State(state): State<AppState>,
    path: DocumentPath,
    _: NoParams,
    JsonBody(body): JsonBody<PatchBody>,
) -> Result<JsonText, ApiError> {
    let DocumentPath { collection, id } = path;
    let refresh = body.wants_refresh();
    write(state, collection, vec![body.into_patch(id)], refresh).await
}

/// Changes parts of documents: all of them or none.
#[utoipa::path(
    patch, path = "/v1/collections/{collection}/documents", operation_id = "patchDocuments", tag = "documents",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = PatchesBody,
    responses(
        (status = 200, body = UpdatedView, description = "On disk and visible."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection, or one of the documents is not there."),
    )
)]
pub(crate) async fn patch_many(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    JsonBody(body): JsonBody<PatchesBody>,
) -> Result<JsonText, ApiError> {
    let refresh = body.wants_refresh();
    let patches = body.into_patches()?;
    write(state, name, patches, refresh).await
}

async fn write(
    state: AppState,
    name: CollectionName,
    patches: Vec<DocumentPatch>,
    refresh: bool,
) -> Result<JsonText, ApiError> {
    let write = state.on_collection_writing(name, move |collection| {
        let updated = collection.patch(&patches)?;
        metrics::counter!(telemetry::DOCUMENTS_UPDATED_TOTAL).increment(updated.updated as u64);
        let mut view = UpdatedView::from(updated);
        view.refreshed = refresh.then(|| refreshed(collection));
        JsonText::of(&view)
    });
    write.await
}
