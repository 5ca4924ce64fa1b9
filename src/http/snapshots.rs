//! Snapshots: take, list, read, verify, delete. Restoring is for a stopped server, and says so.

use std::path::Path;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{ApiError, Code};
use super::extract::{InSnapshot, NoParams, OptionalJsonBody};
use super::problem::Problem;
use super::state::AppState;
use super::wire::json::JsonText;
use super::wire::time::rfc3339;
use crate::snapshot::{self, Found, Snapshot, SnapshotError, SnapshotName};
use crate::storage::StorageError;

/// What to take.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotBody {
    /// `[a-z0-9][a-z0-9_-]{0,63}`; the time where it is left out.
    #[serde(default)]
    name: Option<String>,
}

/// A snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotView {
    name: String,
    /// RFC 3339, UTC.
    #[schema(format = DateTime)]
    created_at: String,
    /// The store that it was taken of.
    store_id: String,
    timeline: u32,
    /// The last change in it.
    seq: u64,
    files: usize,
    /// Bytes of its files, most of which it shares with the store.
    bytes: u64,
    /// SHA-256 of its contents: equal digests are equal states.
    digest: String,
}

/// All snapshots.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotsView {
    /// Oldest first.
    snapshots: Vec<SnapshotView>,
    /// Those that cannot be read.
    damaged: Vec<DamagedView>,
}

/// A snapshot that cannot be read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DamagedView {
    name: String,
    problem: String,
}

/// A snapshot that was just taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedView {
    #[serde(flatten)]
    snapshot: SnapshotView,
    /// Files whose bytes it shares with the store.
    linked: usize,
    /// Files that had to be copied.
    copied: usize,
    /// Bytes read to take their digests.
    hashed_bytes: u64,
}

/// What a verification found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerifiedSnapshotView {
    files: usize,
    bytes: u64,
    /// A sentence each; empty where all is well.
    problems: Vec<String>,
}

/// A snapshot that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedSnapshotView {
    deleted: bool,
}

impl SnapshotView {
    /// The snapshot as the API shows it.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        Self {
            name: snapshot.name.to_string(),
            created_at: rfc3339(snapshot.created_at_ms),
            store_id: snapshot.contents.store_id.to_string(),
            timeline: snapshot.contents.timeline,
            seq: snapshot.contents.seq.0,
            files: snapshot.contents.members.len(),
            bytes: snapshot.contents.bytes(),
            digest: snapshot.contents.digest().to_string(),
        }
    }
}

impl SnapshotsView {
    /// The snapshots of a data directory.
    ///
    /// # Errors
    /// [`SnapshotError`] when they cannot be listed.
    pub(crate) fn of(data: &Path) -> Result<Self, SnapshotError> {
        let mut view = Self { snapshots: Vec::new(), damaged: Vec::new() };
        for Found { name, snapshot } in snapshot::list(data)? {
            match snapshot {
                Ok(snapshot) => view.snapshots.push(SnapshotView::of(&snapshot)),
                Err(error) => view.damaged.push(DamagedView { name: name.to_string(), problem: error.to_string() }),
            }
        }
        Ok(view)
    }
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        let code = match &error {
            SnapshotError::Name { .. } | SnapshotError::Scheduled => Code::InvalidName,
            SnapshotError::Exists { .. } => Code::SnapshotExists,
            SnapshotError::NotFound { .. } => Code::SnapshotNotFound,
            SnapshotError::Damaged { .. } | SnapshotError::Unsupported { .. } => Code::SnapshotDamaged,
            SnapshotError::NoRoomToCopy { .. } => Code::StorageFull,
            SnapshotError::Storage(StorageError::Stopped { .. }) => Code::Stopped,
            _ => {
                return match error {
                    SnapshotError::Collection(error) => error.into(),
                    other => ApiError::storage(other),
                };
            }
        };
        ApiError::new(code, error.to_string())
    }
}

/// Lists the snapshots.
#[utoipa::path(
    get, path = "/admin/snapshots", operation_id = "listSnapshots", tag = "operations",
    responses((status = 200, body = SnapshotsView, description = "All snapshots."))
)]
pub(crate) async fn list(State(state): State<AppState>, _: NoParams) -> Result<JsonText, ApiError> {
    state.engine(|database| JsonText::of(&SnapshotsView::of(database.path())?)).await
}

/// Takes a snapshot at the last acknowledged change; writes go on meanwhile.
#[utoipa::path(
    post, path = "/admin/snapshots", operation_id = "createSnapshot", tag = "operations",
    request_body(content = Option<SnapshotBody>, description = "Every key is optional."),
    responses(
        (status = 201, body = CreatedView, description = "Taken."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "One of this name exists."),
    )
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    _: NoParams,
    OptionalJsonBody(body): OptionalJsonBody<SnapshotBody>,
) -> Result<Response, ApiError> {
    let name = body.name.as_deref().map(SnapshotName::chosen).transpose()?;
    let create = state.engine(move |database| {
        let created = snapshot::create(database, name)?;
        let snapshot = SnapshotView::of(&created.snapshot);
        let (linked, copied, hashed_bytes) = (created.linked, created.copied, created.hashed_bytes);
        JsonText::of(&CreatedView { snapshot, linked, copied, hashed_bytes })
    });
    let mut response = create.await?.into_response();
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Reads what a snapshot holds.
#[utoipa::path(
    get, path = "/admin/snapshots/{snapshot}", operation_id = "getSnapshot", tag = "operations",
    params(("snapshot" = String, Path, description = "Its name.")),
    responses(
        (status = 200, body = SnapshotView, description = "The snapshot."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such snapshot."),
    )
)]
pub(crate) async fn read(
    State(state): State<AppState>,
    InSnapshot(name): InSnapshot,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let read = state.engine(move |database| JsonText::of(&SnapshotView::of(&snapshot::find(database.path(), &name)?)));
    read.await
}

/// Deletes a snapshot.
#[utoipa::path(
    delete, path = "/admin/snapshots/{snapshot}", operation_id = "deleteSnapshot", tag = "operations",
    params(("snapshot" = String, Path, description = "Its name.")),
    responses(
        (status = 200, body = DeletedSnapshotView, description = "Deleted."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such snapshot."),
    )
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    InSnapshot(name): InSnapshot,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let delete = state.engine(move |database| {
        database.change_files(|| snapshot::delete(database.path(), &name))?;
        JsonText::of(&DeletedSnapshotView { deleted: true })
    });
    delete.await
}

/// Reads every byte of a snapshot against its digest, and every segment against its format.
#[utoipa::path(
    post, path = "/admin/snapshots/{snapshot}/verify", operation_id = "verifySnapshot", tag = "operations",
    params(("snapshot" = String, Path, description = "Its name.")),
    responses(
        (status = 200, body = VerifiedSnapshotView, description = "What was read, and what is wrong."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such snapshot."),
    )
)]
pub(crate) async fn verify(
    State(state): State<AppState>,
    InSnapshot(name): InSnapshot,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let verify = state.engine(move |database| {
        let snapshot = snapshot::find(database.path(), &name)?;
        let report = snapshot::verify(&snapshot, &mut |_, _| {})?;
        JsonText::of(&VerifiedSnapshotView { files: report.members, bytes: report.bytes, problems: report.problems })
    });
    verify.await
}

/// Says how a snapshot is restored: by the command line, while no server holds the directory.
#[utoipa::path(
    post, path = "/admin/snapshots/{snapshot}/restore", operation_id = "restoreSnapshot", tag = "operations",
    params(("snapshot" = String, Path, description = "Its name.")),
    responses(
        (status = 200, description = "Never: a running server is not restored."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such snapshot."),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The command to use."),
    )
)]
pub(crate) async fn restore(
    State(state): State<AppState>,
    InSnapshot(name): InSnapshot,
    _: NoParams,
) -> Result<JsonText, ApiError> {
    let refuse = state.engine(move |database| {
        let name = snapshot::find(database.path(), &name)?.name;
        let data = database.path().display();
        let detail = format!(
            "a running server is not restored; stop it and run `pannier snapshot restore {name} --data {data}`"
        );
        Err(ApiError::new(Code::RestoreNeedsStop, detail))
    });
    refuse.await
}
