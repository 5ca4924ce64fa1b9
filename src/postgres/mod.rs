//! Connections to Postgres: settings, TLS, sessions, quoting, metadata as `jsonb`, and what went wrong there.
//! Nothing else about documents.
//!
//! Everything works through a pooler that hands a server to each transaction anew: statements are simple or unnamed,
//! settings are `SET LOCAL`, and locks end with their transaction.

mod error;
pub mod jsonb;
mod session;
mod settings;
mod sql;
mod tls;
mod vectors;

pub use error::{PostgresError, Trouble};
pub use session::{Param, Session, value};
pub use settings::{ConnectParts, ConnectSettings, SslMode};
pub use sql::{QualifiedName, identifier_of, quote_identifier, quote_literal};
pub use tokio_postgres::Row;
pub use tokio_postgres::types::{FromSql, Kind, Oid, ToSql, Type};
pub use vectors::VectorArray;
