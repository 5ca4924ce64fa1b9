//! What can be wrong with migrations, and what to do about it.

use std::path::PathBuf;

use super::Version;
use crate::postgres::PostgresError;
use crate::storage::StorageError;

/// Why migrations cannot be applied, taken back or read. The first group is for whoever writes the files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A file's name is not one of a migration.
    #[error("{}: name it NNN_name.sql, or NNN_name.down.sql for the way back", path.display())]
    FileName {
        /// The file.
        path: PathBuf,
    },
    /// Two files have one version, or a way back has no way there.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A statement cannot be run as the file stands.
    #[error("{}:{line}: {statement} {reason}", path.display())]
    Statement {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Its first words.
        statement: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A migration depends on one that is not there, or on itself.
    #[error("{}: it depends on {version}, {reason}", path.display())]
    Dependency {
        /// The file.
        path: PathBuf,
        /// What it depends on.
        version: Version,
        /// What is wrong with that.
        reason: &'static str,
    },
    /// A file was edited after it was applied.
    #[error("{} was changed after it was applied; put it back, and write the change as a new migration", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// What was applied has no file.
    #[error("migration {version} was applied and has no file; bring the file back, or go on with --allow-missing")]
    Missing {
        /// Its version.
        version: Version,
    },
    /// There is nothing of this version.
    #[error("there is no migration {version}{place}")]
    Unknown {
        /// The version asked for.
        version: Version,
        /// Where it was looked for.
        place: &'static str,
    },
    /// A migration has no way back.
    #[error("{} has no way back; write {}", path.display(), path.with_extension("down.sql").display())]
    NoWayBack {
        /// The file.
        path: PathBuf,
    },
    /// Another applied migration needs this one.
    #[error("migration {version} cannot be taken back: {by} depends on it; take that back first")]
    DependedOn {
        /// What was to be taken back.
        version: Version,
        /// What needs it.
        by: Version,
    },
    /// The table of applied migrations is not one.
    #[error("table {table} cannot hold migrations: {reason}")]
    Table {
        /// The table.
        table: String,
        /// What is wrong.
        reason: String,
    },
    /// A snapshot cannot be taken or put back.
    #[error("{}: {reason}", path.display())]
    Snapshot {
        /// Its directory or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },

    /// The database refused a statement; the migration's transaction was rolled back.
    #[error("{}:{line}: {statement} failed{after}{}", path.display(), of_lock(source))]
    Failed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Its first words.
        statement: String,
        /// What that leaves.
        after: &'static str,
        /// What the database said.
        #[source]
        source: PostgresError,
    },
    /// Others held tables for longer than a statement waits.
    #[error("{}: no lock on {tables} came; nothing of it was done{}", path.display(), of_lock(source))]
    Held {
        /// The migration's file, or the snapshot that was to be put back.
        path: PathBuf,
        /// The tables that were to be locked.
        tables: String,
        /// What the database said.
        #[source]
        source: PostgresError,
    },
    /// The COMMIT was refused, or a dry run found deferred constraints for which it would be.
    #[error("{}: its COMMIT is refused; nothing was changed", path.display())]
    CommitRefused {
        /// The file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: PostgresError,
    },
    /// A migration changed tables that its text does not name.
    #[error(
        "{}: it drops, or drops or changes columns of, tables that its text does not name, so that no copy holds them: \
         {tables}; begin it with LOCK TABLE and their names, which has them copied, or leave copies out with \
         --no-snapshot; nothing was changed",
        path.display()
    )]
    Uncopied {
        /// The file.
        path: PathBuf,
        /// The tables.
        tables: String,
    },
    /// The connection that held the lock for a migration without a transaction has ended.
    #[error(
        "{}: its statements ran, but the connection that holds the lock of migrations ended meanwhile, so that another \
         process may have run them too; it was not noted: look at what it did, then run the command again",
        path.display()
    )]
    LockLost {
        /// The file.
        path: PathBuf,
        /// How it ended.
        #[source]
        source: PostgresError,
    },
    /// The database answered a COMMIT with success and the migration is not there.
    #[error(
        "the server answered the COMMIT of migration {version} with success, but it is not there; run the command again"
    )]
    CommitLost {
        /// The migration.
        version: Version,
    },
    /// The connection or a statement of ours failed.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A file could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What Postgres says where a lock did not come in time.
pub(super) const NO_LOCK: &str = "55P03";

/// What to do where a lock did not come in time; nothing for other failures.
fn of_lock(error: &PostgresError) -> &'static str {
    match error.code() {
        Some(NO_LOCK) => {
            "; see in pg_stat_activity who holds what it waited for, then run it again, or give --lock-timeout more seconds"
        }
        _ => "",
    }
}
