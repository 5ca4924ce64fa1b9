//! What is done to the state of sinks in the database by who does not hold it.

use crate::postgres::{Param, PostgresError, QualifiedName, Session, Type, quote_literal};

use super::ReplicateError;
use super::fence::{NEXT, Origin, ScanReason, tables};

/// Sinks other than `$1` that write rows of the table `$2` and the scope `$3`. The scope `true` is that of a sink that
/// shares its table with nobody.
pub(super) const SHARES: &str =
    "name <> $1 and target_table = $2 and (target_scope = $3 or 'true' in (target_scope, $3))";

/// Refuses a table of which another sink writes the same rows; nothing is changed.
///
/// # Errors
/// [`ReplicateError::TableTaken`].
pub(super) async fn refuse_others(
    session: &Session,
    schema: &str,
    name: &str,
    origin: &Origin,
    table: &str,
    scope: &str,
) -> Result<(), ReplicateError> {
    let sql = format!("select name, store_id from {} where {SHARES} order by name", tables(schema).0);
    let params: [Param<'_>; 3] = [(&name, Type::TEXT), (&table, Type::TEXT), (&scope, Type::TEXT)];
    let rows = session.query("look who writes to the table", &sql, &params).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let (sink, store): (String, String) = (row.get(0), row.get(1));
    let store = (store != origin.store_id).then_some(store);
    Err(ReplicateError::TableTaken { table: table.to_owned(), sink, store })
}

/// The statement that takes the cursors back of the sink `name` and of all that write to `table`, where that is not
/// there: each scans again. Connections that still hold one find that the state is not as they left it.
pub(super) fn begin_anew(schema: &str, name: &str, origin: &Origin, table: &QualifiedName) -> String {
    let ((sinks, _), first) = (tables(schema), ScanReason::First.name());
    let [name, store] = [name, &origin.store_id].map(quote_literal);
    let [plain, quoted] = [table.plain(), table.to_string()].map(|table| quote_literal(&table));
    format!(
        "update {sinks} as s set cursor_seq = 0, cursor_digest = null, scan_reason = '{first}', scan_after = null, {NEXT} \
         where to_regclass({quoted}) is null and (target_table = {plain} or (name = {name} and store_id = {store}))"
    )
}

/// Forgets what a sink of the store `origin` left; what stands there of another store's stays.
///
/// # Errors
/// [`PostgresError`].
pub(super) async fn forget(session: &Session, schema: &str, name: &str, origin: &Origin) -> Result<(), PostgresError> {
    let (sinks, dead) = tables(schema);
    let own = |column: &str| format!("({column} = $1 or starts_with({column}, $1 || '/'))");
    let sql = format!("delete from {sinks} where {} and store_id = $2", own("name"));
    let params: [Param<'_>; 2] = [(&name, Type::TEXT), (&origin.store_id, Type::TEXT)];
    session.execute("forget the sink", &sql, &params).await?;
    let sql = format!("delete from {dead} where {} and sink not in (select name from {sinks})", own("sink"));
    session.execute("forget the sink's dead letters", &sql, &params[..1]).await.map(drop)
}
