//! Searches: by a body, and by a URL in short form.

use axum::extract::State;

use super::error::ApiError;
use super::extract::{InCollection, JsonBody, Params};
use super::problem::Problem;
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::search::{SearchBody, SearchParams, SearchView, plan_name};
use crate::telemetry;
use crate::types::{CollectionName, SearchRequest};

/// Finds the documents nearest to a text, a vector or a document.
#[utoipa::path(
    post, path = "/v1/collections/{collection}/search", operation_id = "search", tag = "search",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = SearchBody,
    responses(
        (status = 200, body = SearchView, description = "Nearest first."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection or document."),
    )
)]
pub(crate) async fn search(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<JsonText, ApiError> {
    run(&state, name, body.into_request()?).await
}

/// Finds the documents nearest to a text.
#[utoipa::path(
    get, path = "/v1/collections/{collection}/search", operation_id = "searchByText", tag = "search",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`"), SearchParams),
    responses(
        (status = 200, body = SearchView, description = "Nearest first."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn search_by_url(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    Params(params): Params<SearchParams>,
) -> Result<JsonText, ApiError> {
    run(&state, name, params.into_request()?).await
}

async fn run(state: &AppState, name: CollectionName, request: SearchRequest) -> Result<JsonText, ApiError> {
    let search = state.on_collection(name, move |collection| {
        let response = collection.search(&request)?;
        let seconds = response.took.as_secs_f64();
        metrics::histogram!(telemetry::SEARCH_DURATION_SECONDS, "plan" => plan_name(response.plan)).record(seconds);
        JsonText::of(&SearchView::of(&response))
    });
    search.await
}
