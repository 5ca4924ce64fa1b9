//! Whether the server is well, what it is, and where to go from `/`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::ready::Unready;
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::time::rfc3339;
use crate::replicate::Summary;

/// Whether the server is well, and no more than that.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthView {
    /// `ok` or `unavailable`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// Of a server that is not ready alone: `starting` while its store is opened, `disk` where the disk takes no
    /// writes, `model` where the model of a collection is not there or has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "disk")]
    reason: Option<&'static str>,
}

/// Whether the server is well, and how far its copies elsewhere are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadyView {
    /// `ok` or `unavailable`; a copy that lags makes nothing unavailable.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// Left out where no copies are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    replication: Option<ReplicationView>,
}

/// How the copies are doing together.
#[derive(Debug, Serialize, ToSchema)]
struct ReplicationView {
    copies: usize,
    /// Copies that follow the changes now.
    streaming: usize,
    /// The most changes that one of them lacks.
    lag_seqs: u64,
    /// The age of the oldest change that one of them lacks.
    lag_seconds: f64,
}

/// Which program answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionView {
    #[schema(value_type = String, example = "pannier")]
    name: &'static str,
    #[schema(value_type = String, example = "0.1.0")]
    version: &'static str,
    /// Identifies the data directory.
    store_id: String,
    /// Counts the histories of the store: a snapshot that is restored begins another.
    timeline: u32,
    /// RFC 3339, UTC.
    #[schema(format = DateTime)]
    started_at: String,
}

/// Where to go.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HelloView {
    #[schema(value_type = String, example = "pannier")]
    name: &'static str,
    #[schema(value_type = String, example = "0.1.0")]
    version: &'static str,
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
struct Links {
    #[schema(value_type = String)]
    collections: &'static str,
    #[schema(value_type = String)]
    models: &'static str,
    #[schema(value_type = String)]
    openapi: &'static str,
    #[schema(value_type = String)]
    metrics: &'static str,
    #[schema(value_type = String)]
    ready: &'static str,
}

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Says what this is.
#[utoipa::path(
    get, path = "/", operation_id = "hello", tag = "operations",
    responses((status = 200, body = HelloView, description = "Name, version, links."))
)]
pub(crate) async fn hello() -> Json<HelloView> {
    let links = Links {
        collections: "/v1/collections",
        models: "/v1/models",
        openapi: "/openapi.json",
        metrics: "/metrics",
        ready: "/readyz",
    };
    Json(HelloView { name: NAME, version: VERSION, links })
}

/// Says that the process answers.
#[utoipa::path(
    get, path = "/livez", operation_id = "live", tag = "operations",
    responses((status = 200, body = HealthView, description = "It does."))
)]
pub(crate) async fn livez() -> Json<HealthView> {
    Json(HealthView { status: "ok", reason: None })
}

/// Says whether reads and writes are taken: the store is open, its disk takes writes, and the models of its collections
/// are loaded.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "operations",
    responses(
        (status = 200, body = ReadyView, description = "They are."),
        (status = 503, body = HealthView, description = "They are not; the server's log says more."),
    )
)]
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<Response, ApiError> {
    if let Some(unready) = state.unready().await? {
        return Ok(unavailable(unready));
    }
    let summary = state.replicator().ok().and_then(|replicator| replicator.summary());
    let replication = summary.map(|Summary { copies, streaming, lag_seqs, lag_seconds }| ReplicationView {
        copies,
        streaming,
        lag_seqs,
        lag_seconds,
    });
    Ok(Json(ReadyView { status: "ok", replication }).into_response())
}

/// The same as `/readyz`.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "operations",
    responses(
        (status = 200, body = HealthView, description = "Reads and writes are taken."),
        (status = 503, body = HealthView, description = "They are not; the server's log says more."),
    )
)]
pub(crate) async fn healthz(State(state): State<AppState>) -> Result<Response, ApiError> {
    ready(&state).await
}

/// The same as `/readyz`.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "operations",
    responses(
        (status = 200, body = HealthView, description = "Reads and writes are taken."),
        (status = 503, body = HealthView, description = "They are not; the server's log says more."),
    )
)]
pub(crate) async fn health(State(state): State<AppState>) -> Result<Response, ApiError> {
    ready(&state).await
}

/// Not behind the gate: a server whose every place is taken by searches is still well.
async fn ready(state: &AppState) -> Result<Response, ApiError> {
    Ok(match state.unready().await? {
        None => livez().await.into_response(),
        Some(unready) => unavailable(unready),
    })
}

/// What a server answers that is not ready.
pub(crate) fn unavailable(unready: Unready) -> Response {
    let view = HealthView { status: "unavailable", reason: Some(unready.as_str()) };
    (StatusCode::SERVICE_UNAVAILABLE, Json(view)).into_response()
}

/// Says which program answers, since when, and over which data.
#[utoipa::path(
    get, path = "/version", operation_id = "version", tag = "operations",
    responses((status = 200, body = VersionView, description = "Name, version, store."))
)]
pub(crate) async fn version(State(state): State<AppState>) -> Result<JsonText, ApiError> {
    JsonText::of(&VersionView {
        name: NAME,
        version: VERSION,
        store_id: state.database().health().store_id.to_string(),
        timeline: state.database().timeline(),
        started_at: rfc3339(state.started_at().as_millisecond()),
    })
}
