//! What the role of a connection may not do, and the statement that lets it.

use crate::postgres::{PostgresError, Session, Trouble, Type, quote_identifier, value};

use super::ReplicateError;
use super::layout::{Layout, Mode};

/// Looks whether the role may read and write the table.
///
/// # Errors
/// [`ReplicateError::Rights`].
pub(super) async fn of_table(session: &Session, layout: &Layout) -> Result<(), ReplicateError> {
    let sql = "select current_user::text, has_any_column_privilege(t, 'select'), has_any_column_privilege(t, 'insert'), \
               has_any_column_privilege(t, 'update'), has_table_privilege(t, 'delete') \
               from (select to_regclass($1)::oid as t) x where t is not null";
    let rows = session.query("look at our rights", sql, &[(&layout.table.to_string(), Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let needed: &[(usize, &str)] = match layout.mode {
        Mode::Rows => &[(1, "SELECT"), (2, "INSERT"), (3, "UPDATE"), (4, "DELETE")],
        Mode::Inside { .. } => &[(1, "SELECT"), (3, "UPDATE")],
    };
    let mut missing = Vec::new();
    for (at, name) in needed {
        if !value::<bool>(row, *at)? {
            missing.push(*name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let (role, missing) = (value::<String>(row, 0)?, missing.join(", "));
    let mend = format!("grant {} on {} to {}", missing.to_lowercase(), layout.table, quote_identifier(&role));
    Err(ReplicateError::Rights { object: format!("table {}", layout.table.plain()), role, missing, mend })
}

/// Why something in a schema was refused to a role: by what the role lacks, else in Postgres' words. A transaction that
/// the refusal left open is rolled back.
pub(super) async fn of_schema(session: &Session, schema: &str, refused: PostgresError) -> ReplicateError {
    if refused.trouble() != Trouble::Rights || refused.ends_session() {
        return refused.into();
    }
    lacking(session, schema).await.unwrap_or_else(|error| Some(error.into())).unwrap_or_else(|| refused.into())
}

/// What the role lacks to make the schema, or to look and make something in it.
async fn lacking(session: &Session, schema: &str) -> Result<Option<ReplicateError>, PostgresError> {
    session.batch("roll back", "rollback").await?;
    let sql = "select current_user::text, current_database()::text, to_regnamespace($1) is not null, \
               has_database_privilege(current_database(), 'create'), \
               coalesce(has_schema_privilege(to_regnamespace($1)::oid, 'usage'), false), \
               coalesce(has_schema_privilege(to_regnamespace($1)::oid, 'create'), false)";
    let quoted = quote_identifier(schema);
    let rows = session.query("look at our rights", sql, &[(&quoted, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (role, database): (String, String) = (value(row, 0)?, value(row, 1)?);
    let (is_there, may_make_it): (bool, bool) = (value(row, 2)?, value(row, 3)?);
    let (object, name, needed) = match is_there {
        false => (format!("database {database}"), quote_identifier(&database), vec![("CREATE", may_make_it)]),
        true => (format!("schema {schema}"), quoted, vec![("USAGE", value(row, 4)?), ("CREATE", value(row, 5)?)]),
    };
    let missing: Vec<&str> = needed.into_iter().filter(|(_, has)| !has).map(|(right, _)| right).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let (missing, kind) = (missing.join(", "), if is_there { "schema" } else { "database" });
    let mend = format!("grant {} on {kind} {name} to {}", missing.to_lowercase(), quote_identifier(&role));
    Ok(Some(ReplicateError::Rights { object, role, missing, mend }))
}
