//! Pannier: a vector database that lives beside an application.

#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod telemetry;
pub mod types;
