//! The HTTP API: JSON in and out, one file a resource. Calls of the engine run in `spawn_blocking`, except for quick
//! searches, which run where they stand (`search.rs`).

mod auth;
mod bodies;
mod collections;
mod cors;
mod documents;
mod embedding;
mod error;
mod extract;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod guard;
mod health;
mod impatient;
mod import;
mod limits;
mod metrics;
mod models;
mod ndjson;
mod observe;
mod ollama;
mod openai;
mod openapi;
mod patch;
mod problem;
mod read_on;
mod ready;
mod replication;
mod router;
mod search;
mod server;
mod snapshots;
mod source_file;
mod sources;
mod starting;
mod state;
mod tei;
mod template;
#[cfg(test)]
mod tests;
mod trim;
pub(crate) mod wire;

pub use auth::{ApiKey, AuthPolicy, InvalidApiKey};
pub use limits::Limits;
pub use openapi::openapi_json;
pub use router::router;
pub use server::{ServeError, serve};
pub(crate) use snapshots::SnapshotsView;
pub(crate) use source_file::check_sources;
pub use starting::Starting;
pub use state::{AppState, HttpConfig};
