//! What every handler shares: the database, the settings, the gate, the metrics.

use std::sync::Arc;

use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Notify, watch};

use super::auth::AuthPolicy;
use super::bodies::Room;
use super::error::{ApiError, Code};
use super::limits::{At, Gate, Limits};
use super::ready::{Readiness, Unready};
use crate::backend::{AnyCollection, Collections};
use crate::database::Database;
use crate::embed::DEFAULT_MODEL;
use crate::replicate::Replicator;
use crate::types::CollectionName;

/// Settings of the HTTP API.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Names that clients may put into `Host` beside loopback and the bound address, with or without a port.
    pub allowed_hosts: Vec<String>,
    /// Origins whose web pages may call, such as `https://app.example`, beside the server's own.
    pub allowed_origins: Vec<String>,
    /// Who may call.
    pub auth: AuthPolicy,
    /// Limits on time and on work at once.
    pub limits: Limits,
    /// The model of the routes whose requests name none: those of text-embeddings-inference.
    pub default_model: String,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            auth: AuthPolicy::default(),
            limits: Limits::default(),
            default_model: DEFAULT_MODEL.to_owned(),
        }
    }
}

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    collections: Collections,
    config: HttpConfig,
    gate: Gate,
    body_room: Arc<Room>,
    readiness: Readiness,
    started_at: Timestamp,
    metrics: Option<PrometheusHandle>,
    /// `Err` with why the sinks are not known.
    replicator: Result<Replicator, String>,
    stopped: Notify,
    shutting_down: watch::Sender<bool>,
}

impl AppState {
    /// `metrics`: what `/metrics` renders, from [`crate::telemetry::install_recorder`]; `None` answers an empty page.
    pub fn new(database: Database, config: HttpConfig, metrics: Option<PrometheusHandle>) -> Self {
        let (gate, body_room) = (Gate::new(&config.limits), Room::new(config.limits.bodies_bytes));
        let started_at = Timestamp::now();
        let replicator = Replicator::open(&database).map_err(|error| error.chain());
        let (collections, readiness) = (Collections::open(&database), Readiness::default());
        let (stopped, shutting_down) = (Notify::new(), watch::Sender::new(false));
        let inner = Inner {
            database,
            collections,
            config,
            gate,
            body_room,
            readiness,
            started_at,
            metrics,
            replicator,
            stopped,
            shutting_down,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The database behind the API.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    /// Its collections, and those in databases.
    pub(crate) fn collections(&self) -> &Collections {
        &self.inner.collections
    }

    /// The settings.
    pub fn config(&self) -> &HttpConfig {
        &self.inner.config
    }

    /// Memory for long bodies.
    pub(crate) fn body_room(&self) -> &Arc<Room> {
        &self.inner.body_room
    }

    /// The sinks; at rest until they are started.
    pub(crate) fn replicator(&self) -> Result<&Replicator, ApiError> {
        self.inner.replicator.as_ref().map_err(|reason| ApiError::new(Code::Storage, reason.clone()))
    }

    /// Sets the sinks to work.
    ///
    /// # Errors
    /// Why the sinks are not known, or no thread can be started.
    pub fn start_replication(&self) -> Result<(), String> {
        self.inner.replicator.as_ref().map_err(Clone::clone)?.start().map_err(|error| error.chain())
    }

    /// Ends the sinks' work, so that the store can be closed.
    pub fn stop_replication(&self) {
        if let Ok(replicator) = &self.inner.replicator {
            replicator.stop();
        }
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.inner.started_at
    }

    pub(crate) fn metrics(&self) -> Option<&PrometheusHandle> {
        self.inner.metrics.as_ref()
    }

    /// Runs a call on the engine behind the gate.
    pub(crate) async fn engine<T, F>(&self, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ApiError> + Send + 'static,
    {
        let database = self.inner.database.clone();
        self.noticing(self.inner.gate.run(At::Here, move || call(&database)).await)
    }

    /// Runs a call on the collections behind the gate.
    pub(crate) async fn on_collections<T, F>(&self, at: At, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Collections) -> Result<T, ApiError> + Send + 'static,
    {
        let collections = self.inner.collections.clone();
        self.noticing(self.inner.gate.run(at, move || call(&collections)).await)
    }

    /// Runs a call that does nothing but embed, behind the gate.
    pub(crate) async fn embedding<T, F>(&self, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ApiError> + Send + 'static,
    {
        let database = self.inner.database.clone();
        self.inner.gate.run_embedding(move || call(&database)).await
    }

    /// Runs a look at the server itself, beside what the gate holds back.
    pub(crate) async fn measuring<T, F>(&self, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ApiError> + Send + 'static,
    {
        let database = self.inner.database.clone();
        self.inner.gate.run_measuring(move || call(&database)).await
    }

    fn noticing<T>(&self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        result.inspect_err(|error| self.notice(error))
    }

    /// Tells the server at once where a write was refused because the database has stopped, and remembers where the
    /// disk refused one.
    pub(crate) fn notice(&self, error: &ApiError) {
        self.inner.readiness.notice(error);
        if error.code == Code::Stopped {
            self.inner.stopped.notify_one();
        }
    }

    /// Why the server is not ready; `None` where it is.
    ///
    /// # Errors
    /// [`Code::Internal`] where looking panics.
    pub(crate) async fn unready(&self) -> Result<Option<Unready>, ApiError> {
        let state = self.clone();
        let look = move || Ok(state.inner.readiness.look(&state.inner.database, &state.inner.collections));
        self.inner.gate.run_checking(look).await
    }

    /// Whether the disk takes writes. May block.
    pub(crate) fn disk_takes_writes(&self) -> bool {
        self.inner.readiness.disk_takes_writes(&self.inner.database)
    }

    /// Runs a call that writes documents of one collection behind the gate.
    pub(crate) async fn on_collection_writing<T, F>(&self, name: CollectionName, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&AnyCollection) -> Result<T, ApiError> + Send + 'static,
    {
        let (at, collections) = (self.place_of(&name), self.inner.collections.clone());
        let call = move || call(&collections.get(&name)?);
        self.noticing(self.inner.gate.run_write(at, call).await)
    }

    /// Runs a call on one collection behind the gate.
    pub(crate) async fn on_collection<T, F>(&self, name: CollectionName, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&AnyCollection) -> Result<T, ApiError> + Send + 'static,
    {
        self.on_collections(self.place_of(&name), move |collections| call(&collections.get(&name)?)).await
    }

    /// Whose work calls on a collection wait for.
    pub(crate) fn place_of(&self, name: &CollectionName) -> At {
        match self.inner.collections.is_remote(name) {
            true => At::Remote,
            false => At::Here,
        }
    }

    /// Tells streams, which may go on for hours, that the server wants to end.
    pub(crate) fn begin_shutdown(&self) {
        self.inner.shutting_down.send_replace(true);
    }

    /// Whether the server wants to end.
    pub(crate) fn is_shutting_down(&self) -> bool {
        *self.inner.shutting_down.borrow()
    }

    /// Waits until the server wants to end.
    pub(crate) async fn shutdown_began(&self) {
        // The sender is this state's own.
        _ = self.inner.shutting_down.subscribe().wait_for(|began| *began).await;
    }

    /// Waits until a write was refused because the database has stopped.
    pub(crate) async fn write_was_refused(&self) {
        self.inner.stopped.notified().await;
    }
}
