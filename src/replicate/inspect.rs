//! Looks at a database before a sink writes to it: the extension, the table, and in what the table is not as needed.

use std::collections::BTreeMap;

use crate::postgres::{Session, Type, value};

use super::layout::{ColumnKind, Extension, Layout, Mode, Source, canonical_uuid};
use super::row::unfit_constant;
use super::settings::VectorType;
use super::{ReplicateError, drift, rights};

/// The oldest pgvector: 0.8.2 and 0.8.3 fixed an overflow and the corruption of an index.
const OLDEST: &str = "0.8.4";

/// Finds pgvector.
///
/// # Errors
/// [`ReplicateError::NoExtension`], [`ReplicateError::OldExtension`].
pub(super) async fn extension(session: &Session) -> Result<Extension, ReplicateError> {
    let sql = "select e.extversion, n.nspname, t.oid::int8, t.typarray::int8 from pg_extension e \
               join pg_namespace n on n.oid = e.extnamespace \
               join pg_type t on t.typnamespace = n.oid and t.typname = 'vector' where e.extname = 'vector'";
    let rows = session.query("look for pgvector", sql, &[]).await?;
    let Some(row) = rows.first() else { return Err(ReplicateError::NoExtension) };
    let found: String = value(row, 0)?;
    if numbers(&found) < numbers(OLDEST) {
        return Err(ReplicateError::OldExtension { found, needed: OLDEST });
    }
    Ok(Extension::new(value(row, 1)?, value::<i64>(row, 2)? as u32, value::<i64>(row, 3)? as u32))
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// A column as the catalogue has it.
struct Found {
    type_name: String,
    shown: String,
    modifier: i32,
    /// `a` for an identity that takes no value of ours, `s` or `v` for a column that is computed; else empty.
    generated: String,
    /// Must have a value, and nothing fills it in.
    must_be_given: bool,
    nullable: bool,
}

/// Digits after the second that our times have.
const TIME_DIGITS: i32 = 3;

impl Found {
    /// Whether every value of its kind stands there as it was written: else every comparison finds it different. A
    /// `varchar` is not asked for its length, beyond which a row becomes a dead letter.
    fn holds_every_value(&self) -> bool {
        match self.type_name.as_str() {
            "float4" | "bpchar" => false,
            "numeric" => self.modifier < 0,
            "timestamptz" => !(0..TIME_DIGITS).contains(&self.modifier),
            _ => true,
        }
    }
}

/// Compares the table with the layout, and takes over what may differ: the types of columns.
///
/// Returns `false` where there is no table.
///
/// # Errors
/// [`ReplicateError::Drift`] with every difference, [`ReplicateError::Dim`] where that is the only one.
pub(super) async fn adopt(session: &Session, layout: &mut Layout) -> Result<bool, ReplicateError> {
    let Some(found) = columns(session, layout).await? else { return Ok(false) };
    let (mut differences, mut wrong_dim) = (Vec::new(), None);
    for index in 0..layout.columns.len() {
        let column = &layout.columns[index];
        let Some(there) = found.get(&column.name) else {
            differences.push(drift::missing(layout, column));
            continue;
        };
        match ColumnKind::of_type(&there.type_name).filter(|kind| column.accepts.contains(kind)) {
            Some(kind) => {
                // Where we make no rows, the key is only compared.
                let is_written = layout.mode == Mode::Rows || !layout.key.contains(&index);
                if is_written && !there.holds_every_value() {
                    differences.push(drift::too_narrow(layout, column, &there.shown, kind));
                }
                if is_written && !there.generated.is_empty() {
                    differences.push(drift::generated(layout, column, &there.generated));
                }
                layout.columns[index].kind = kind;
                differences.extend(unfit_constant(&layout.columns[index]));
                spell_uuid(layout, index);
            }
            None => differences.push(drift::of_type(layout, column, &there.shown)),
        }
        let column = &layout.columns[index];
        let is_vector = column.source == Source::Vector && column.kind != ColumnKind::Jsonb;
        if is_vector && there.modifier > 0 && there.modifier != layout.dim as i32 {
            let mend = drift::dimension(layout, column, there.nullable);
            wrong_dim = Some((column.name.clone(), there.modifier, mend));
        }
    }
    if layout.mode == Mode::Rows {
        let ours = |name: &String| layout.columns.iter().any(|column| column.name == *name);
        let others = found.iter().filter(|(name, column)| column.must_be_given && !ours(name));
        differences.extend(others.map(|(name, _)| drift::must_be_given(layout, name)));
        if !has_unique_key(session, layout).await? {
            differences.push(drift::no_unique_key(layout));
        }
    }
    let (table, expected) = (layout.table.plain(), layout.dim);
    if let Some((column, got, mend)) = wrong_dim {
        // Alone it has a code of its own; it hides no other difference.
        if differences.is_empty() {
            return Err(ReplicateError::Dim { table, column, expected, got, mend });
        }
        let text = format!("column {column} has {got} dimensions, the collection has {expected} (to mend: {mend})");
        differences.push(text);
    }
    if !differences.is_empty() {
        return Err(ReplicateError::Drift { table, differences });
    }
    if let Some(vector) = layout.vector() {
        layout.vector_type = match layout.columns[vector].kind {
            ColumnKind::Halfvec => VectorType::Halfvec,
            _ => VectorType::Vector,
        };
    }
    Ok(true)
}

/// Spells a constant UUID as the database does: by it rows are told apart, and two spellings are one tenant.
fn spell_uuid(layout: &mut Layout, index: usize) {
    let column = &mut layout.columns[index];
    let (ColumnKind::Uuid, Source::Constant(Some(constant))) = (column.kind, &mut column.source) else { return };
    let Some(canonical) = canonical_uuid(constant) else { return };
    if layout.tenant.as_ref() == Some(constant) {
        layout.tenant = Some(canonical.clone());
    }
    *constant = canonical;
}

/// The table's columns by name; `None` where there is no table.
async fn columns(session: &Session, layout: &Layout) -> Result<Option<BTreeMap<String, Found>>, ReplicateError> {
    let sql = "select a.attname::text, t.typname::text, format_type(a.atttypid, a.atttypmod), a.atttypmod, \
               a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attgenerated = '', not a.attnotnull, \
               case when a.attidentity = 'a' then 'a' else a.attgenerated::text end \
               from pg_attribute a join pg_type t on t.oid = a.atttypid \
               where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped";
    let rows = session.query("look at the table", sql, &[(&layout.table.to_string(), Type::TEXT)]).await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        let (type_name, shown, modifier) = (value(row, 1)?, value(row, 2)?, value(row, 3)?);
        let (must_be_given, nullable, generated) = (value(row, 4)?, value(row, 5)?, value(row, 6)?);
        found.insert(value(row, 0)?, Found { type_name, shown, modifier, generated, must_be_given, nullable });
    }
    Ok((!found.is_empty()).then_some(found))
}

/// Whether a unique index without a condition stands on exactly the key's columns.
async fn has_unique_key(session: &Session, layout: &Layout) -> Result<bool, ReplicateError> {
    let mut key: Vec<&str> = layout.key.iter().map(|&index| layout.columns[index].name.as_str()).collect();
    key.sort_unstable();
    let sql = "select 1 from pg_index i where i.indrelid = to_regclass($1) and i.indisunique and i.indisvalid \
               and i.indpred is null and i.indexprs is null and i.indimmediate and $2 = \
               (select array_agg(a.attname::text order by a.attname::text collate \"C\") from pg_attribute a \
                where a.attrelid = i.indrelid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1]))";
    let rows = session
        .query("look at the table's keys", sql, &[(&layout.table.to_string(), Type::TEXT), (&key, Type::TEXT_ARRAY)])
        .await?;
    Ok(!rows.is_empty())
}

/// Makes the table, in one transaction with `before`, which comes first.
///
/// # Errors
/// [`ReplicateError::Rights`], [`ReplicateError::Postgres`].
pub(super) async fn create(session: &Session, layout: &Layout, before: &str) -> Result<(), ReplicateError> {
    let statements = layout.create.join(";\n");
    let sql = format!("begin;\nselect pg_advisory_xact_lock(7117, 2);\n{before};\n{statements};\ncommit");
    match session.batch("make the table", &sql).await {
        Ok(()) => Ok(()),
        Err(error) if error.ends_session() => Err(error.into()),
        Err(error) => {
            session.batch("roll back", "rollback").await?;
            Err(rights::of_schema(session, &layout.table.schema, error).await)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("0.8.10") > numbers(OLDEST));
        assert!(numbers("0.8.3") < numbers(OLDEST));
        assert!(numbers("1.0") > numbers(OLDEST));
        assert!(numbers("0.8") < numbers(OLDEST));
    }
}
