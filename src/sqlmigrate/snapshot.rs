//! Copies of tables before a migration changes them: their rows by COPY, and how to make the tables again.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::affected::{Affected, Named};
use super::{MigrateError, Step};
use crate::postgres::{Session, quote_identifier, quote_literal};
use crate::storage::{Publishing, create_dir_all, publish, remove_dir_all};

/// Written last: a directory without it is not a snapshot.
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const VERSION: u64 = 1;

/// A table that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenTable {
    /// `schema.name`.
    pub table: String,
    /// Bytes of its rows.
    pub bytes: u64,
    /// The snapshot's directory.
    pub dir: PathBuf,
}

/// Copies the affected tables that there are into a directory of their own below `root`, which is removed again where
/// that fails.
///
/// # Errors
/// [`MigrateError::Postgres`], [`MigrateError::Storage`].
pub(super) async fn take(
    session: &Session,
    affected: &Affected,
    root: &Path,
    step: &Step,
) -> Result<Vec<TakenTable>, MigrateError> {
    let tables = describe(session, affected).await?;
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    let dir = root.join(format!("{}_{}-{now}", step.digits, step.name));
    create_dir_all(&dir)?;
    let taken = copy_all(session, tables, &dir, step).await;
    if taken.is_err() {
        discard(&dir);
    }
    taken
}

/// Removes the snapshot of a migration that was not applied: nothing was changed that it could bring back.
pub(super) fn discard(dir: &Path) {
    if let Err(error) = remove_dir_all(dir) {
        tracing::warn!(%error, dir = %dir.display(), "a snapshot that nothing needs could not be removed");
    }
}

async fn copy_all(
    session: &Session,
    tables: Vec<Value>,
    dir: &Path,
    step: &Step,
) -> Result<Vec<TakenTable>, MigrateError> {
    let mut described = Vec::with_capacity(tables.len());
    let mut taken = Vec::with_capacity(tables.len());
    for (number, mut table) in tables.into_iter().enumerate() {
        let file = format!("{number:03}.copy");
        let (bytes, sha256) = copy_out(session, &table, &dir.join(&file)).await?;
        let text = |key: &str| table[key].as_str().unwrap_or_default().to_owned();
        let name = format!("{}.{}", text("schema"), text("name"));
        table["file"] = json!(file);
        table["bytes"] = json!(bytes);
        table["sha256"] = json!(sha256);
        taken.push(TakenTable { table: name, bytes, dir: dir.to_owned() });
        described.push(table);
    }
    let manifest = json!({"version": VERSION, "migration": step.digits, "name": step.name, "tables": described});
    publish(&dir.join(MANIFEST), manifest.to_string().as_bytes())?;
    Ok(taken)
}

async fn copy_out(session: &Session, table: &Value, path: &Path) -> Result<(u64, String), MigrateError> {
    let sql = format!("copy (select {} from {}) to stdout", columns_of(table), qualified(table));
    let mut file = Publishing::create(path)?;
    let mut hash = Sha256::new();
    let mut failed = None;
    session
        .copy_out("copy a table", &sql, &mut |chunk| {
            hash.update(chunk);
            if failed.is_none() {
                failed = file.write_all(chunk).err();
            }
        })
        .await?;
    if let Some(source) = failed {
        return Err(MigrateError::Io { path: path.to_owned(), source });
    }
    let bytes = file.position();
    file.commit()?;
    Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// The columns that can be written, quoted and joined.
pub(super) fn columns_of(table: &Value) -> String {
    let columns = table["columns"].as_array().into_iter().flatten();
    let written = columns.filter(|column| column["generated"].as_str() == Some(""));
    written.filter_map(|column| column["name"].as_str().map(quote_identifier)).collect::<Vec<_>>().join(", ")
}

/// The table's name, quoted, with its schema.
pub(super) fn qualified(table: &Value) -> String {
    let part = |key: &str| quote_identifier(table[key].as_str().unwrap_or_default());
    format!("{}.{}", part("schema"), part("name"))
}

/// What the catalog knows of the tables that are there: enough to make them again.
pub(super) async fn describe(session: &Session, affected: &Affected) -> Result<Vec<Value>, MigrateError> {
    let quoted = |Named { schema, name }: &Named| match schema {
        Some(schema) => format!("{}.{}", quote_identifier(schema), quote_identifier(name)),
        None => quote_identifier(name),
    };
    let names: Vec<String> =
        affected.tables.iter().map(|named| format!("to_regclass({})", quote_literal(&quoted(named)))).collect();
    let schemas: Vec<String> = affected.schemas.iter().map(|schema| quote_literal(schema)).collect();
    let sql = format!(
        "select json_build_object('schema', n.nspname, 'name', c.relname,
            'columns', (select json_agg(json_build_object('name', a.attname,
                    'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
                    'identity', a.attidentity::text, 'generated', a.attgenerated::text,
                    'default', pg_get_expr(d.adbin, d.adrelid),
                    'sequence', pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname)) order by a.attnum)
                from pg_catalog.pg_attribute a
                left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
            'constraints', (select coalesce(json_agg(json_build_object('name', k.conname,
                    'definition', pg_get_constraintdef(k.oid)) order by k.contype = 'f', k.conname), '[]')
                from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype <> 'n'),
            'indexes', (select coalesce(json_agg(pg_get_indexdef(i.indexrelid) order by i.indexrelid), '[]')
                from pg_catalog.pg_index i where i.indrelid = c.oid
                and not exists (select from pg_catalog.pg_constraint k where k.conindid = i.indexrelid and k.contype <> 'f'))
            )::text
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p') and (c.oid = any (array[{}]::regclass[]) or n.nspname = any (array[{}]::text[]))
         order by n.nspname, c.relname",
        names.join(", "),
        schemas.join(", ")
    );
    let texts = session.texts("look at the affected tables", &sql).await?;
    let read = |text: String| {
        serde_json::from_str(&text).map_err(|error| {
            let reason = format!("a table's description cannot be read: {error}");
            MigrateError::Snapshot { path: PathBuf::from(MANIFEST), reason }
        })
    };
    texts.into_iter().flatten().map(read).collect()
}
