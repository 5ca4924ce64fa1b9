//! The HTTP API over real connections, against a server in this process on a port of its own.

mod bad_input;
#[cfg(feature = "text")]
mod chunks;
pub mod client;
mod collections;
mod documents;
mod embeddings;
mod filters;
mod import;
mod limits;
mod ollama;
mod on_postgres;
mod operations;
#[cfg(feature = "text")]
mod pages;
mod patches;
#[cfg(feature = "text")]
mod ranking;
#[cfg(feature = "text")]
mod rerank;
mod search;
pub mod server;
mod shutdown;
mod snapshots;
mod tei;
mod templates;
mod vectors;
