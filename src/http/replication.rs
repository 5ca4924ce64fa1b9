//! Sinks: add, list, show, pause, resume, compare, mend, remove.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, Code, RETRY_AFTER};
use super::extract::{InSink, JsonBody, NoParams, OptionalJsonBody};
use super::problem::Problem;
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::replication::{RemovedView, RepairBody, RepairedView, SinkBody, SinkView, SinksView, VerifiedView};
use crate::postgres::Trouble;
use crate::replicate::ReplicateError;
use crate::storage::StorageError;
use crate::types::CollectionName;

impl From<ReplicateError> for ApiError {
    fn from(error: ReplicateError) -> Self {
        let code = match &error {
            ReplicateError::NotFound { .. } => Code::SinkNotFound,
            ReplicateError::Exists { .. } | ReplicateError::TableTaken { .. } => Code::SinkConflict,
            ReplicateError::NoCollection { .. } => Code::CollectionNotFound,
            ReplicateError::Settings { .. } => Code::InvalidSink,
            ReplicateError::Postgres(error) if error.trouble() == Trouble::Settings => Code::InvalidSink,
            ReplicateError::Busy { .. } => Code::SinkBusy,
            ReplicateError::Storage(StorageError::Stopped { .. }) => Code::Stopped,
            ReplicateError::Storage(_) => return Self::storage(error),
            ReplicateError::Collection(_) | ReplicateError::Failed { code: "store", .. } => {
                return Self::internal(error);
            }
            error if error.is_of_the_table() => Code::SinkBusy,
            _ => Code::SinkFailed,
        };
        let retry_after = error.passes_by_itself().then_some(RETRY_AFTER);
        Self { retry_after, ..Self::new(code, error.chain()) }
    }
}

/// Adds a sink and sets it to work.
#[utoipa::path(
    post, path = "/admin/replication", operation_id = "addSink", tag = "replication", request_body = SinkBody,
    responses(
        (status = 201, body = SinkView, description = "Added."),
        (status = 200, body = SinkView, description = "Never: a sink of the name that stands is refused."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There is one of this name, or one that writes to the same table."),
    )
)]
pub(crate) async fn add(
    State(state): State<AppState>,
    _: NoParams,
    JsonBody(body): JsonBody<SinkBody>,
) -> Result<Response, ApiError> {
    let settings = body.into_settings()?;
    let name = settings.name.as_str().to_owned();
    refuse_remote(&state, &settings.collection)?;
    let replicator = state.replicator()?.clone();
    let add = state.engine(move |_| {
        replicator.add(settings)?;
        JsonText::of(&SinkView::of(replicator.status(&name)?))
    });
    let mut response = add.await?.into_response();
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// A sink reads the log, which has nothing of a collection that stands in a database.
fn refuse_remote(state: &AppState, collection: &str) -> Result<(), ApiError> {
    let found = CollectionName::new(collection).ok().and_then(|name| state.collections().get(&name).ok());
    match found.as_ref().and_then(|found| found.placement()) {
        Some(placement) => {
            let (schema, table) = (&placement.schema, &placement.table);
            let detail = format!(
                "collection {collection:?} stands in Postgres already, in {schema}.{table}; a sink copies collections of \
                 this store"
            );
            Err(ApiError::new(Code::NotOnBackend, detail))
        }
        None => Ok(()),
    }
}

/// Lists the sinks and how they are doing.
#[utoipa::path(
    get, path = "/admin/replication", operation_id = "listSinks", tag = "replication",
    responses((status = 200, body = SinksView, description = "All sinks."))
)]
pub(crate) async fn list(State(state): State<AppState>, _: NoParams) -> Result<JsonText, ApiError> {
    let sinks = state.replicator()?.list().into_iter().map(SinkView::of).collect();
    JsonText::of(&SinksView { sinks })
}

/// Shows a sink and how it is doing.
#[utoipa::path(
    get, path = "/admin/replication/{sink}", operation_id = "getSink", tag = "replication",
    params(("sink" = String, Path, description = "Its name.")),
    responses((status = 200, body = SinkView, description = "The sink."))
)]
pub(crate) async fn read(
    State(state): State<AppState>,
    InSink(name): InSink,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    JsonText::of(&SinkView::of(state.replicator()?.status(&name)?))
}

/// Removes a sink; its table stays.
#[utoipa::path(
    delete, path = "/admin/replication/{sink}", operation_id = "removeSink", tag = "replication",
    params(("sink" = String, Path, description = "Its name.")),
    responses((status = 200, body = RemovedView, description = "Removed."))
)]
pub(crate) async fn remove(
    State(state): State<AppState>,
    InSink(name): InSink,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let left_behind = state.replicator()?.remove(&name).await?;
    JsonText::of(&RemovedView { removed: name, left_behind })
}

/// Lets a sink rest.
#[utoipa::path(
    post, path = "/admin/replication/{sink}/pause", operation_id = "pauseSink", tag = "replication",
    params(("sink" = String, Path, description = "Its name.")),
    responses((status = 200, body = SinkView, description = "It rests."))
)]
pub(crate) async fn pause(
    State(state): State<AppState>,
    InSink(name): InSink,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    set_paused(&state, name, true).await
}

/// Sets a sink to work again, also one that waits after a failure or was fenced.
#[utoipa::path(
    post, path = "/admin/replication/{sink}/resume", operation_id = "resumeSink", tag = "replication",
    params(("sink" = String, Path, description = "Its name.")),
    responses((status = 200, body = SinkView, description = "It works."))
)]
pub(crate) async fn resume(
    State(state): State<AppState>,
    InSink(name): InSink,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    set_paused(&state, name, false).await
}

async fn set_paused(state: &AppState, name: String, paused: bool) -> Result<JsonText, ApiError> {
    let replicator = state.replicator()?.clone();
    let set = state.engine(move |_| {
        replicator.set_paused(&name, paused)?;
        JsonText::of(&SinkView::of(replicator.status(&name)?))
    });
    set.await
}

/// Compares a sink's tables with their collections, row by row where hashes of buckets differ.
#[utoipa::path(
    post, path = "/admin/replication/{sink}/verify", operation_id = "verifySink", tag = "replication",
    params(("sink" = String, Path, description = "Its name.")),
    responses(
        (status = 200, body = VerifiedView, description = "What differs."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It cannot compare now."),
    )
)]
pub(crate) async fn verify(
    State(state): State<AppState>,
    InSink(name): InSink,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let reports = state.replicator()?.verify(&name).await?;
    JsonText::of(&VerifiedView::of(reports))
}

/// Mends a sink's tables where they differ.
#[utoipa::path(
    post, path = "/admin/replication/{sink}/repair", operation_id = "repairSink", tag = "replication",
    params(("sink" = String, Path, description = "Its name.")),
    request_body(content = Option<RepairBody>, description = "Every key is optional."),
    responses(
        (status = 200, body = RepairedView, description = "What differed, what was done, and what is left."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It cannot repair now."),
    )
)]
pub(crate) async fn repair(
    State(state): State<AppState>,
    InSink(name): InSink,
    _: NoParams,
    OptionalJsonBody(body): OptionalJsonBody<RepairBody>,
) -> Result<JsonText, ApiError> {
    if body.take_over {
        state.replicator()?.take_over(&name).await?;
    }
    let reports = state.replicator()?.repair(&name, body.dry_run).await?;
    JsonText::of(&RepairedView::of(reports))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StorageError;

    #[test]
    fn a_full_disk_is_told_as_one() {
        let error = |errno| StorageError::Io {
            path: "replication.json".into(),
            action: "write",
            source: std::io::Error::from_raw_os_error(errno),
        };
        assert_eq!(ApiError::from(ReplicateError::Storage(error(28))).code, Code::StorageFull);
        assert_eq!(ApiError::from(ReplicateError::Storage(error(5))).code, Code::Storage);
    }
}
