//! Collections: create, list, read, drop, figures.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::extract::{InCollection, NoParams, OptionalJsonBody, Params};
use super::limits::At;
use super::problem::Problem;
use super::state::AppState;
use super::wire::definition::{CollectionView, CollectionsView, DefinitionBody, DropParams, DroppedView, StatsView};
use super::wire::json::JsonText;

/// Creates a collection, or finds that it stands already.
#[utoipa::path(
    put, path = "/v1/collections/{collection}", operation_id = "createCollection", tag = "collections",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body(content = Option<DefinitionBody>, description = "Every key is optional."),
    responses(
        (status = 201, body = CollectionView, description = "Created; what was left out is filled in."),
        (status = 200, body = CollectionView, description = "The same collection stands already."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It exists with another definition."),
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    OptionalJsonBody(body): OptionalJsonBody<DefinitionBody>,
) -> Result<Response, ApiError> {
    let (request, placement) = body.into_request(&name)?;
    let at = if placement.is_some() { At::Remote } else { At::Here };
    let create = state.on_collections(at, move |collections| {
        let created = match placement {
            Some(placement) => collections.create_remote(&name, &request, placement)?,
            None => collections.create_local(&name, &request)?,
        };
        Ok((created.created, JsonText::of(&CollectionView::of(&created.collection))?))
    });
    let (created, view) = create.await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = view.into_response();
    *response.status_mut() = status;
    Ok(response)
}

/// Lists all collections by name.
#[utoipa::path(
    get, path = "/v1/collections", operation_id = "listCollections", tag = "collections",
    responses((status = 200, body = CollectionsView, description = "All collections."))
)]
pub(crate) async fn list(State(state): State<AppState>, _: NoParams) -> Result<JsonText, ApiError> {
    let list = state.on_collections(At::Here, |all| {
        let collections = all.all().iter().map(CollectionView::of).collect();
        JsonText::of(&CollectionsView { collections })
    });
    list.await
}

/// Reads a collection's definition.
#[utoipa::path(
    get, path = "/v1/collections/{collection}", operation_id = "getCollection", tag = "collections",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    responses(
        (status = 200, body = CollectionView, description = "The definition."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn read(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    state.on_collection(name, |collection| JsonText::of(&CollectionView::of(collection))).await
}

/// Drops a collection with all its documents.
#[utoipa::path(
    delete, path = "/v1/collections/{collection}", operation_id = "deleteCollection", tag = "collections",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`"), DropParams),
    responses(
        (status = 200, body = DroppedView, description = "Dropped."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn drop(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    Params(params): Params<DropParams>,
) -> Result<JsonText, ApiError> {
    let drop = state.on_collections(state.place_of(&name), move |collections| {
        let seq = collections.drop_collection(&name, params.keep_table)?;
        JsonText::of(&DroppedView { deleted: true, seq: seq.0 })
    });
    drop.await
}

/// Reads a collection's figures.
#[utoipa::path(
    get, path = "/v1/collections/{collection}/stats", operation_id = "getCollectionStats", tag = "collections",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    responses(
        (status = 200, body = StatsView, description = "The figures."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn stats(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    state.on_collection(name, |collection| JsonText::of(&StatsView::from(collection.stats()?))).await
}
