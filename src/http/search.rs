//! Searches: by a body, and by a URL in short form.

use std::time::Instant;

use axum::extract::State;

use super::error::ApiError;
use super::extract::{InCollection, JsonBody, NoParams, Params};
use super::problem::Problem;
use super::state::AppState;
use super::wire::answer::{SearchView, SearchesView};
use super::wire::json::JsonText;
use super::wire::search::{SearchBody, SearchParams, SearchesBody, placed};
use crate::backend::AnyCollection;
use crate::telemetry;
use crate::types::{CollectionName, SearchRequest, SearchResponse};

/// Finds the documents that fit a text, a vector or other documents best.
#[utoipa::path(
    post, path = "/v1/collections/{collection}/search", operation_id = "search", tag = "search",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = SearchBody,
    responses(
        (status = 200, body = SearchView, description = "Best first."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection or document."),
    )
)]
pub(crate) async fn search(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<JsonText, ApiError> {
    let request = body.into_request(&name)?;
    run(&state, name, request).await
}

/// Finds the documents nearest to a text.
#[utoipa::path(
    get, path = "/v1/collections/{collection}/search", operation_id = "searchByText", tag = "search",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`"), SearchParams),
    responses(
        (status = 200, body = SearchView, description = "Best first."),
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

/// Answers several searches, or none of them.
#[utoipa::path(
    post, path = "/v1/collections/{collection}/search/batch", operation_id = "searchBatch", tag = "search",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body = SearchesBody,
    responses(
        (status = 200, body = SearchesView, description = "The answers in the order of the searches."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection or document."),
    )
)]
pub(crate) async fn search_batch(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    JsonBody(body): JsonBody<SearchesBody>,
) -> Result<JsonText, ApiError> {
    let mut requests = body.into_requests(&name)?;
    let max_bytes = Some(state.config().limits.answer_bytes);
    requests.iter_mut().for_each(|request| request.max_bytes = max_bytes);
    let search = state.on_collection(name, move |collection| {
        let started = Instant::now();
        let responses = collection.search_all(&requests).map_err(|(n, error)| placed(n, error.into()))?;
        responses.iter().for_each(measure);
        let asked = responses.iter().zip(&requests);
        let results = asked.map(|(answer, request)| SearchView::of(answer, request, collection.name())).collect();
        JsonText::of(&SearchesView { results, took_ms: started.elapsed().as_micros() as f64 / 1_000.0 })
    });
    search.await
}

async fn run(state: &AppState, name: CollectionName, mut request: SearchRequest) -> Result<JsonText, ApiError> {
    request.max_bytes = Some(state.config().limits.answer_bytes);
    let collection = state.collections().get(&name)?;
    if collection.answers_at_once(&request) {
        return answer(&collection, &request);
    }
    state.on_collection(name, move |collection| answer(collection, &request)).await
}

fn answer(collection: &AnyCollection, request: &SearchRequest) -> Result<JsonText, ApiError> {
    let response = collection.search(request)?;
    measure(&response);
    JsonText::of(&SearchView::of(&response, request, collection.name()))
}

fn measure(response: &SearchResponse) {
    let seconds = response.took.as_secs_f64();
    metrics::histogram!(telemetry::SEARCH_DURATION_SECONDS, "plan" => response.plan.name()).record(seconds);
}
