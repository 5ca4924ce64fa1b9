//! Copies of collections in Postgres: kept up to date change by change, compared by hashes, mended where they differ.

mod apply;
mod copy;
mod drift;
mod error;
mod fence;
mod function;
mod half;
mod index;
mod inspect;
mod layout;
mod mend;
mod rights;
mod row;
mod search;
mod settings;
mod shape;
mod sink;
mod sql;
mod start;
mod state;
mod status;
mod supervisor;
mod verify;
mod worker;

pub use error::ReplicateError;
pub use settings::{ExtraRows, IndexKind, LayoutKind, SecretFrom, SinkName, SinkSettings, VectorType};
pub use sink::Shown;
pub use status::{Phase, SinkStatus};
pub use supervisor::{Replicator, Summary};
pub use verify::{Difference, Kind, RepairReport, VerifyReport};
