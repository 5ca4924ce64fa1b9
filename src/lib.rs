//! Pannier: a vector database that lives beside an application.
//!
//! Open a [`Database`], create a [`Collection`], then `upsert`, `search`, `get` and `delete`. The same engine serves
//! HTTP when the `pannier` binary runs. The module `http` has the routes, and `http::serve` for programs that serve
//! them themselves (feature `server`).

#![warn(missing_docs)]
// Some tests are long lists.
#![cfg_attr(not(test), warn(clippy::too_many_lines))]

#[cfg(feature = "postgres")]
pub mod backend;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod cli;
pub mod collection;
mod database;
mod distance;
pub mod embed;
#[cfg(test)]
mod faults;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "server")]
pub mod http;
mod index;
mod ingest;
mod log;
mod manifest;
mod meta;
pub mod migrate;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "postgres")]
pub mod replicate;
pub mod salvage;
mod segment;
pub mod snapshot;
#[cfg(feature = "server")]
mod source;
#[cfg(feature = "server")]
#[expect(clippy::result_large_err, reason = "an error ends the whole migration; it is made once")]
mod sqlmigrate;
mod storage;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod telemetry;
#[cfg(feature = "text")]
mod text;
pub mod types;

pub use collection::{Collection, CollectionError, DefinitionRequest};
pub use database::{Database, Health, MergeFigures, OpenError, Options};

/// The program in README.md, held to compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
