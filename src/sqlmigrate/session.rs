//! What migrations and restores want of their session: one process at a time, and nothing of what ran before.

use std::time::Duration;

use crate::postgres::{PostgresError, Session};

/// The key of the lock under which migrations run: "pannier" in a telephone's letters, then the letters of SQL.
const LOCK_KEY: i64 = 7_266_437_775;

/// Begins a transaction under the lock, without what earlier ones left behind. `lock_timeout`: how long a statement in
/// it may wait for a lock on a table.
///
/// # Errors
/// [`PostgresError`].
pub(super) async fn begin(session: &Session, lock_timeout: Duration) -> Result<(), PostgresError> {
    // Whatever the database's default: a transaction that keeps one view of the data misses what is committed while it
    // waits for locks, and index builds wait for it.
    session.batch("begin a migration", "begin isolation level read committed").await?;
    forget(session).await?;
    let free = format!("select pg_try_advisory_xact_lock({LOCK_KEY})");
    if session.texts("begin a migration", &free).await?.first() == Some(&Some("f".to_owned())) {
        tracing::warn!("another process migrates this database; waiting until it is done");
    }
    // The wait for another process's migrations has no limit; waits for tables do.
    let sql = format!(
        "{}; set local lock_timeout = 0; select pg_advisory_xact_lock({LOCK_KEY}); set local lock_timeout = {}",
        no_limits(true),
        lock_timeout.as_millis()
    );
    session.batch("begin a migration", &sql).await
}

/// Takes back what statements set for the whole session, such as `search_path` and the role. Limits on time are then
/// those of [`begin`].
///
/// # Errors
/// [`PostgresError`].
pub(super) async fn reset(session: &Session, lock_timeout: Duration) -> Result<(), PostgresError> {
    let sql = format!(
        "reset session authorization; reset role; reset all; {}; set local lock_timeout = {}",
        no_limits(true),
        lock_timeout.as_millis()
    );
    session.batch("reset a migration's settings", &sql).await
}

/// Takes back what statements left in the session beside settings: temporary tables, which hide others of their name,
/// cursors, prepared statements, numbers of sequences, channels, and the session's advisory locks.
///
/// # Errors
/// [`PostgresError`].
pub(super) async fn forget(session: &Session) -> Result<(), PostgresError> {
    let sql = "close all; discard temp; discard sequences; deallocate all; unlisten *; select pg_advisory_unlock_all()";
    session.batch("clear what another migration left in the session", sql).await
}

/// Lets statements outside of a transaction take as long as those within, until [`reset`].
///
/// # Errors
/// [`PostgresError`].
pub(super) async fn lift_limits(session: &Session) -> Result<(), PostgresError> {
    session.batch("lift the limits on time", &no_limits(false)).await
}

/// Lifts the server's limits on statements and transactions. Not each version knows all of them.
fn no_limits(within_transaction: bool) -> String {
    format!(
        "select set_config(name, '0', {within_transaction}) from pg_catalog.pg_settings \
         where name in ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')"
    )
}
