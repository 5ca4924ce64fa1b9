//! How far sources were read: kept for the programs that read them, beside what they wrote.

use axum::extract::State;
use serde_json::value::to_raw_value;

use super::error::{ApiError, Code};
use super::extract::{InSource, JsonBody, NoParams};
use super::problem::Problem;
use super::source_file::{DIRECTORY, damaged, decode, encode, path};
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::value::{MetadataView, WireMetadata};
use crate::collection::CollectionError;
use crate::manifest::ManifestError;
use crate::storage::{StorageError, create_dir_all, publish, read_file, remove_file};

/// Reads what was kept of a source.
#[utoipa::path(
    get, path = "/admin/sources/{source}", operation_id = "getSourceState", tag = "sources",
    params(("source" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    responses(
        (status = 200, body = Object, description = "As it was kept."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nothing is kept of it."),
    )
)]
pub(crate) async fn read(
    State(state): State<AppState>,
    InSource(name): InSource,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let read = state.engine(move |database| {
        let path = path(database.path(), &name);
        match read_file(&path).map_err(storage)? {
            Some(bytes) => match decode(&bytes) {
                Ok(kept) => JsonText::of(&kept),
                Err(reason) => Err(ApiError::new(Code::Storage, damaged(&path, &reason))),
            },
            None => {
                let detail = format!("nothing is kept of source {name}; it was never read here");
                Err(ApiError::new(Code::SourceNotFound, detail))
            }
        }
    });
    read.await
}

/// Keeps how far a source was read, in place of what was kept before. It is on disk before the answer.
#[utoipa::path(
    put, path = "/admin/sources/{source}", operation_id = "putSourceState", tag = "sources",
    params(("source" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = Object,
    responses((status = 200, body = Object, description = "As it is kept."))
)]
pub(crate) async fn write(
    State(state): State<AppState>,
    InSource(name): InSource,
    _: NoParams,
    JsonBody(WireMetadata(kept)): JsonBody<WireMetadata>,
) -> Result<JsonText, ApiError> {
    let write = state.engine(move |database| {
        let kept = to_raw_value(&MetadataView(&kept)).map_err(ApiError::internal)?;
        let bytes = encode(&kept).map_err(ApiError::internal)?;
        let change = || {
            create_dir_all(&database.path().join(DIRECTORY))?;
            publish(&path(database.path(), &name), &bytes)
        };
        database.change_files(change).map_err(storage)?;
        JsonText::of(&kept)
    });
    write.await
}

/// Forgets how far a source was read.
#[utoipa::path(
    delete, path = "/admin/sources/{source}", operation_id = "deleteSourceState", tag = "sources",
    params(("source" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    responses((status = 200, body = Object, description = "Nothing is kept of it any more."))
)]
pub(crate) async fn forget(
    State(state): State<AppState>,
    InSource(name): InSource,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let forget = state.engine(move |database| {
        let path = path(database.path(), &name);
        let was_there = path.exists();
        if was_there {
            database.change_files(|| remove_file(&path)).map_err(storage)?;
        }
        JsonText::of(&serde_json::json!({ "deleted": was_there }))
    });
    forget.await
}

fn storage(error: StorageError) -> ApiError {
    match error {
        StorageError::Stopped { reason } => CollectionError::Stopped { reason }.into(),
        other => CollectionError::Manifest(ManifestError::Storage(other)).into(),
    }
}
