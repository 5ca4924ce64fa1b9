//! Where documents are read from: tables and queries of a Postgres, and streams of change events.

mod debezium;
mod environment;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod json;
mod key;
mod postgres;
mod schedule;
mod state;

pub use debezium::{Change, Events, KeyKinds};
pub use environment::{EmbeddingVariables, Found, connection, embedding};
pub use error::SourceError;
pub use postgres::{Begin, Deletions, LeftOut, Relation, Row, TableReader, TableSource};
pub use schedule::{Schedule, duration};
pub use state::{Boundary, SourceState};
