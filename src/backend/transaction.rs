//! Transactions of collections' statements. Their settings end with them, as poolers need it, and the server ends a
//! statement before we give it up: none goes on there once a call was answered.

use futures_util::future::join3;

use crate::postgres::{Param, PostgresError, Row, Session};

/// Begins a transaction that sees what was committed before each of its statements, whatever the role's default is:
/// what waits for a lock is to see what its holder wrote. `mode`: what else stands after `begin`, with a blank before
/// it. A shorter limit of the role stays.
pub(super) fn begin(session: &Session, mode: &str) -> String {
    let limit = session.limit().as_millis();
    let server = limit * 11 / 12;
    format!(
        "begin isolation level read committed{mode}; select set_config('statement_timeout', '{server}ms', true) \
         where current_setting('statement_timeout')::interval not between '1 ms' and '{server} ms'; \
         set local idle_in_transaction_session_timeout = {limit}"
    )
}

/// Runs one statement that changes nothing, under `settings`.
///
/// # Errors
/// [`PostgresError`]; no transaction is left where the session goes on.
pub(super) async fn read(
    session: &Session,
    doing: &'static str,
    settings: &str,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Vec<Row>, PostgresError> {
    let begin = format!("{}; {settings}", begin(session, " read only"));
    // They go out together, in this order. After a failure `commit` rolls back.
    let (begun, rows, ended) =
        join3(session.batch(doing, &begin), session.query(doing, sql, params), session.batch(doing, "commit")).await;
    // First what may have ended the session.
    ended?;
    begun?;
    rows
}
