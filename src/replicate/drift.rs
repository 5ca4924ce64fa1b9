//! Tells a table that is no longer as the sink needs it from rows that Postgres refuses for what they hold.
//!
//! The difference matters: a row is put aside and the others go on, but a table that refuses one for its own sake
//! refuses all of them.

use crate::postgres::{PostgresError, Session, Type, quote_identifier, value};

use super::fence::Fence;
use super::layout::{Column, ColumnKind, Layout, Mode};
use super::{ReplicateError, inspect};

/// What Postgres says where a column that must have a value gets none.
const NOT_NULL: &str = "23502";

/// Looks, after a statement was refused and outside of a transaction, whether something is not there or not ours to
/// use.
///
/// # Errors
/// As [`look_at_table`], and [`ReplicateError::StateGone`].
pub(super) async fn look(session: &Session, layout: &Layout, fence: &Fence) -> Result<(), ReplicateError> {
    if Fence::prepare(session, fence.schema()).await? {
        return Err(ReplicateError::StateGone { schema: fence.schema().to_owned() });
    }
    look_at_table(session, layout).await
}

/// Looks, first of all in a transaction that puts rows aside, whether the table is as it was when the session began. It
/// stays so until the transaction ends.
///
/// # Errors
/// [`ReplicateError::Drift`], [`ReplicateError::Dim`], [`ReplicateError::Rights`]; [`ReplicateError::Changed`] where it
/// is another and will do.
pub(super) async fn hold_table(session: &Session, layout: &Layout) -> Result<(), ReplicateError> {
    session.batch("hold the table", &format!("select 1 from {} limit 0", layout.table)).await?;
    look_at_table(session, layout).await
}

async fn look_at_table(session: &Session, layout: &Layout) -> Result<(), ReplicateError> {
    let mut now = layout.clone();
    let table = layout.table.plain();
    if !inspect::adopt(session, &mut now).await? {
        return Err(ReplicateError::Drift { table, differences: vec!["it is not there".to_owned()] });
    }
    rights(session, layout).await?;
    match now.columns == layout.columns {
        true => Ok(()),
        false => Err(ReplicateError::Changed { table }),
    }
}

/// Looks whether the role may read and write the table.
///
/// # Errors
/// [`ReplicateError::Rights`].
pub(super) async fn rights(session: &Session, layout: &Layout) -> Result<(), ReplicateError> {
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
    Err(ReplicateError::Rights { table: layout.table.plain(), role, missing, mend })
}

/// A refusal that lies in a column that is not ours, which rows would meet whatever they hold.
pub(super) fn of_another_column(layout: &Layout, error: &ReplicateError) -> Option<ReplicateError> {
    let ReplicateError::Postgres(PostgresError::Statement { code, column: Some(column), .. }) = error else {
        return None;
    };
    if code != NOT_NULL || layout.columns.iter().any(|own| own.name == *column) {
        return None;
    }
    let differences = vec![must_be_given(layout, column)];
    Some(ReplicateError::Drift { table: layout.table.plain(), differences })
}

/// That a column of ours is not there.
pub(super) fn missing(layout: &Layout, column: &Column) -> String {
    let (name, kind) = (&column.name, layout.type_sql(column));
    format!(
        "column {name} is missing (to mend: alter table {} add column {} {kind})",
        layout.table,
        quote_identifier(name)
    )
}

/// That a column of ours has a type that will not do.
pub(super) fn of_type(layout: &Layout, column: &Column, found: &str) -> String {
    let names: Vec<&str> = column.accepts.iter().map(|kind| kind.name()).collect();
    let (name, kind) = (quote_identifier(&column.name), layout.type_sql(column));
    format!(
        "column {} is {found}, needed is {} (to mend: alter table {} alter column {name} type {kind} using {name}::{kind})",
        column.name,
        names.join(" or "),
        layout.table,
    )
}

/// That a column of ours changes what is written to it.
pub(super) fn too_narrow(layout: &Layout, column: &Column, found: &str, kind: ColumnKind) -> String {
    let (name, kind) = (quote_identifier(&column.name), kind.name());
    format!(
        "column {} is {found}, which cannot hold every {kind}, needed is {kind} (to mend: alter table {} alter column \
         {name} type {kind} using {name}::{kind})",
        column.name, layout.table,
    )
}

/// That a column of ours takes no value.
pub(super) fn generated(layout: &Layout, column: &Column, how: &str) -> String {
    let (table, name, kind) = (&layout.table, quote_identifier(&column.name), layout.type_sql(column));
    let mend = match how {
        "a" => format!("alter table {table} alter column {name} set generated by default"),
        "s" => format!("alter table {table} alter column {name} drop expression"),
        // One that is computed when it is read holds nothing.
        _ => format!("alter table {table} drop column {name}, add column {name} {kind}"),
    };
    format!("column {} is generated always, and the sink writes to it (to mend: {mend})", column.name)
}

/// That a column which is not ours must have a value.
pub(super) fn must_be_given(layout: &Layout, column: &str) -> String {
    format!(
        "column {column} must be given a value, and the sink has none (to mend: alter table {} alter column {} drop not \
         null, or set a default)",
        layout.table,
        quote_identifier(column)
    )
}

/// That nothing keeps a key from standing there twice.
pub(super) fn no_unique_key(layout: &Layout) -> String {
    let names: Vec<&str> = layout.key.iter().map(|&index| layout.columns[index].name.as_str()).collect();
    let quoted: Vec<String> = layout.key.iter().map(|&index| layout.quoted(index)).collect();
    format!(
        "there is no primary key or unique index on ({}) (to mend: create unique index on {} ({}))",
        names.join(", "),
        layout.table,
        quoted.join(", ")
    )
}

/// What gives the vector column the dimension of the collection. The vectors that stand there are lost; comparing finds
/// their rows.
pub(super) fn dimension(layout: &Layout, column: &Column, is_nullable: bool) -> String {
    let (name, kind) = (quote_identifier(&column.name), layout.type_sql(column));
    let nullable = if is_nullable { String::new() } else { format!("alter column {name} drop not null, ") };
    format!(
        "alter table {} {nullable}alter column {name} type {kind} using null::{kind}, then repair the sink",
        layout.table
    )
}
