//! Migrations of a Postgres database: our own steps and a directory of SQL files, each applied once, in a transaction.

mod affected;
mod apply;
mod error;
mod files;
mod kinds;
mod lexer;
mod manifest;
mod own;
mod restore;
mod scaffold;
mod sequences;
mod session;
mod snapshot;
mod split;
mod status;
mod table;
mod triggers;
mod uncopied;

pub use apply::{Applied, Migrator, Options};
pub use error::MigrateError;
pub use files::{Step, Version, read_directory};
pub use restore::restore;
pub use scaffold::scaffold;
pub use status::Status;
pub use table::DEFAULT_TABLE;
