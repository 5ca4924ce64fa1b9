//! Documents: upsert, read, list, delete.

use axum::extract::State;

use super::error::{ApiError, Code};
use super::extract::{DocumentPath, InCollection, JsonBody, NoParams, Params};
use super::problem::Problem;
use super::state::AppState;
use super::wire::cursor;
use super::wire::document::{
    CountBody, CountView, DeleteBody, DeletedView, Deletion, DocumentView, ListParams, PageView, ReadParams,
    UpsertBody, UpsertedView, include_of_documents,
};
use super::wire::filter::WireFilter;
use super::wire::json::JsonText;
use crate::backend::AnyCollection;
use crate::collection::{Deleted, ListRequest};
use crate::telemetry;

/// Documents on a page when the client does not say.
const DEFAULT_PAGE: usize = 100;

/// Writes documents: all of them or none.
#[utoipa::path(
    post, path = "/v1/collections/{collection}/documents", operation_id = "upsertDocuments", tag = "documents",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = UpsertBody,
    responses(
        (status = 200, body = UpsertedView, description = "On disk and visible."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn upsert(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    JsonBody(body): JsonBody<UpsertBody>,
) -> Result<JsonText, ApiError> {
    let refresh = body.wants_refresh();
    let (documents, if_seq) = body.into_documents()?;
    let upsert = state.on_collection_writing(name, move |collection| {
        let upserted = collection.upsert_if(documents, &if_seq)?;
        metrics::counter!(telemetry::DOCUMENTS_UPSERTED_TOTAL).increment(upserted.upserted as u64);
        let mut view = UpsertedView::from(upserted);
        view.refreshed = refresh.then(|| refreshed(collection));
        JsonText::of(&view)
    });
    upsert.await
}

/// Waits until keyword search sees what was written. That it is late is no failure of the write, which is safe.
pub(super) fn refreshed(collection: &AnyCollection) -> bool {
    let refreshed = collection.refresh();
    if let Err(error) = &refreshed {
        tracing::warn!(collection = %collection.name(), %error, "keyword search is behind a write");
    }
    refreshed.is_ok()
}

/// Reads one document.
#[utoipa::path(
    get, path = "/v1/collections/{collection}/documents/{id}", operation_id = "getDocument", tag = "documents",
    params(
        ("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`"),
        ("id" = String, Path, description = "The document's id, percent-encoded; a slash as %2F."),
        ReadParams,
    ),
    responses(
        (status = 200, body = DocumentView, description = "The document."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection or document."),
    )
)]
pub(crate) async fn read(
    State(state): State<AppState>,
    path: DocumentPath,
    Params(params): Params<ReadParams>,
) -> Result<JsonText, ApiError> {
    let include = include_of_documents(params.include.as_deref())?;
    let DocumentPath { collection, id } = path;
    let read = state.on_collection(collection, move |collection| match collection.get(&id)? {
        Some(document) => JsonText::of(&DocumentView::of(&document, include.of(&document))),
        None => Err(not_found(collection.name().as_str(), id.as_str())),
    });
    read.await
}

fn not_found(collection: &str, id: &str) -> ApiError {
    ApiError::new(Code::DocumentNotFound, format!("there is no document {id:?} in collection {collection:?}"))
}

/// Lists documents by ascending id.
#[utoipa::path(
    get, path = "/v1/collections/{collection}/documents", operation_id = "listDocuments", tag = "documents",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`"), ListParams),
    responses(
        (status = 200, body = PageView, description = "A page."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    Params(params): Params<ListParams>,
) -> Result<JsonText, ApiError> {
    let include = include_of_documents(params.include.as_deref())?;
    let request = ListRequest {
        after: params.cursor.as_deref().map(cursor::decode).transpose()?,
        limit: params.limit.unwrap_or(DEFAULT_PAGE),
        filter: params.filter.as_deref().map(WireFilter::from_parameter).transpose()?,
        max_bytes: Some(state.config().limits.answer_bytes),
    };
    let list = state.on_collection(name, move |collection| {
        let page = collection.list(&request)?;
        let documents =
            page.documents.iter().map(|document| DocumentView::of(document, include.of(document))).collect();
        JsonText::of(&PageView { documents, next_cursor: page.next.as_ref().map(cursor::encode) })
    });
    list.await
}

/// Deletes one document.
#[utoipa::path(
    delete, path = "/v1/collections/{collection}/documents/{id}", operation_id = "deleteDocument", tag = "documents",
    params(
        ("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`"),
        ("id" = String, Path, description = "The document's id, percent-encoded; a slash as %2F."),
    ),
    responses(
        (status = 200, body = DeletedView, description = "Gone; 0 where it was not there, so that a retry is safe."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    path: DocumentPath,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let DocumentPath { collection, id } = path;
    state.on_collection(collection, move |collection| deleted(&collection.delete(&[id])?)).await
}

/// Deletes documents by id or by filter.
#[utoipa::path(
    post, path = "/v1/collections/{collection}/documents/delete", operation_id = "deleteDocuments", tag = "documents",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = DeleteBody,
    responses(
        (status = 200, body = DeletedView, description = "Gone."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn delete_many(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    JsonBody(body): JsonBody<DeleteBody>,
) -> Result<JsonText, ApiError> {
    let deletion = body.into_deletion()?;
    let delete = state.on_collection(name, move |collection| match &deletion {
        Deletion::Ids(ids) => deleted(&collection.delete(ids)?),
        Deletion::Matching(filter) => deleted(&collection.delete_matching(filter)?),
    });
    delete.await
}

/// Counts documents.
#[utoipa::path(
    post, path = "/v1/collections/{collection}/documents/count", operation_id = "countDocuments", tag = "documents",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = CountBody,
    responses(
        (status = 200, body = CountView, description = "How many pass, with every write that was answered before."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn count(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    JsonBody(body): JsonBody<CountBody>,
) -> Result<JsonText, ApiError> {
    let filter = body.into_filter()?;
    let count = state.on_collection(name, move |collection| {
        let count = collection.count(filter.as_ref())?;
        JsonText::of(&CountView { count })
    });
    count.await
}

fn deleted(deleted: &Deleted) -> Result<JsonText, ApiError> {
    metrics::counter!(telemetry::DOCUMENTS_DELETED_TOTAL).increment(deleted.deleted as u64);
    JsonText::of(&DeletedView { deleted: deleted.deleted, seq: deleted.seq.0 })
}
