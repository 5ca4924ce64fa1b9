//! What migrations and restores want of their session: one process at a time, and settings as they were.

use std::time::Duration;

use crate::postgres::{PostgresError, Session};

/// The key of the lock under which migrations run: "pannier" in a telephone's letters, then the letters of SQL.
const LOCK_KEY: i64 = 7_266_437_775;

/// Begins a transaction under the lock. `lock_timeout`: how long a statement in it may wait for a lock on a table.
///
/// # Errors
/// [`PostgresError`].
pub(super) async fn begin(session: &Session, lock_timeout: Duration) -> Result<(), PostgresError> {
    let free = format!("begin; select pg_try_advisory_xact_lock({LOCK_KEY})");
    if session.texts("begin a migration", &free).await?.first() == Some(&Some("f".to_owned())) {
        tracing::warn!("another process migrates this database; waiting until it is done");
    }
    // The wait for another process's migrations has no limit; waits for tables do.
    let sql = format!(
        "set local statement_timeout = 0; set local lock_timeout = 0; \
         select pg_advisory_xact_lock({LOCK_KEY}); \
         set local lock_timeout = {}",
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
        "reset session authorization; reset role; reset all; \
         set local statement_timeout = 0; set local lock_timeout = {}",
        lock_timeout.as_millis()
    );
    session.batch("reset a migration's settings", &sql).await
}
