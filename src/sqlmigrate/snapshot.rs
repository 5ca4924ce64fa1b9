//! Copies of tables before a migration changes them: their rows by COPY, and how to make the tables again.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::affected::{Affected, Change, Named};
use super::error::NO_LOCK;
use super::manifest::{MANIFEST, VERSION};
use super::{MigrateError, Step, manifest};
use crate::postgres::{Session, quote_identifier, quote_literal};
use crate::storage::{Publishing, create_dir_all, remove_dir_all};

/// The catalog's letter for a table that has partitions.
pub(super) const PARTITIONED: &str = "p";

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

/// How rows and expressions are written: with every digit, and as no role's or database's settings change it.
const SETTINGS: [(&str, &str); 3] =
    [("extra_float_digits", "1"), ("DateStyle", "ISO, YMD"), ("IntervalStyle", "postgres")];

/// The affected tables that there are. Until the transaction ends nobody else writes to them: what is copied is what
/// the migration of the file `path` changes.
///
/// # Errors
/// [`MigrateError::Held`], [`MigrateError::Postgres`].
pub(super) async fn locked(session: &Session, path: &Path, affected: &Affected) -> Result<Vec<Named>, MigrateError> {
    let mut names = reached(session, affected).await?;
    loop {
        lock(session, path, &names, "share row exclusive").await?;
        let now = reached(session, affected).await?;
        if now == names {
            return Ok(names);
        }
        // Others came while it was waited for the locks.
        names = now;
    }
}

/// Copies tables into a directory of their own below `root`, which is removed again where that fails.
///
/// # Errors
/// [`MigrateError::Postgres`], [`MigrateError::Storage`].
pub(super) async fn take(
    session: &Session,
    names: &[Named],
    root: &Path,
    step: &Step,
) -> Result<Vec<TakenTable>, MigrateError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    set_locally(session, SETTINGS).await?;
    let tables = describe(session, names).await?;
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    let dir = root.join(format!("{}_{}-{now}", step.digits, step.name));
    create_dir_all(&dir)?;
    let taken = copy_all(session, tables, &dir, step).await;
    if taken.is_err() {
        discard(&dir);
    }
    taken
}

/// Has settings hold until the transaction ends.
///
/// # Errors
/// [`MigrateError::Postgres`].
pub(super) async fn set_locally<'a>(
    session: &Session,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), MigrateError> {
    for (name, value) in settings {
        let sql = format!("select set_config({}, {}, true)", quote_literal(name), quote_literal(value));
        session.batch("have values written in one way", &sql).await?;
    }
    Ok(())
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
    // A copy of the rows that a policy lets through would pass for all of them.
    session.batch("have policies refuse", "set local row_security = off").await?;
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
    session.batch("have policies act", "reset row_security").await?;
    for (name, _) in SETTINGS {
        session.batch("have values written as before", &format!("reset {name}")).await?;
    }
    let settings: BTreeMap<&str, &str> = SETTINGS.into();
    let manifest = json!({"version": VERSION, "migration": step.digits, "name": step.name, "settings": settings,
        "tables": described});
    manifest::write(dir, &manifest)?;
    Ok(taken)
}

async fn copy_out(session: &Session, table: &Value, path: &Path) -> Result<(u64, String), MigrateError> {
    let sql = format!("copy (select {} from {}) to stdout", columns_of(table), own_rows(table));
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

/// The table without those that inherit from it, which are copied for themselves. Partitions hold the rows of theirs.
pub(super) fn own_rows(table: &Value) -> String {
    let only = if table["kind"] == PARTITIONED { "" } else { "only " };
    format!("{only}{}", qualified(table))
}

/// The table's name.
pub(super) fn named(table: &Value) -> Named {
    let part = |key: &str| table[key].as_str().unwrap_or_default().to_owned();
    Named { schema: Some(part("schema")), name: part("name") }
}

/// What the catalog calls tables of these names, each `NULL` where there is none.
pub(super) fn oids<'a>(names: impl IntoIterator<Item = &'a Named>) -> String {
    let oid = |Named { schema, name }: &Named| {
        let schema = schema.as_deref().map(|schema| format!("{}.", quote_identifier(schema))).unwrap_or_default();
        format!("to_regclass({})", quote_literal(&format!("{schema}{}", quote_identifier(name))))
    };
    let oids: Vec<String> = names.into_iter().map(oid).collect();
    format!("array[{}]::regclass[]::oid[]", oids.join(", "))
}

/// Locks the tables that are there, those that inherit from them, and partitions. A role that may only insert locks
/// nothing: it takes no rows away. `path`: what they are locked for, for messages.
///
/// # Errors
/// [`MigrateError::Held`] where others hold them for longer than the session waits, [`MigrateError::Postgres`].
pub(super) async fn lock(session: &Session, path: &Path, names: &[Named], mode: &str) -> Result<(), MigrateError> {
    let sql = format!(
        "select format('%I.%I', n.nspname, c.relname) \
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where c.oid = any ({}) and has_table_privilege(c.oid, 'update, delete, truncate') order by 1",
        oids(names)
    );
    let there: Vec<String> = session.texts("look for tables to lock", &sql).await?.into_iter().flatten().collect();
    if there.is_empty() {
        return Ok(());
    }
    let tables = there.join(", ");
    let sql = format!("lock table {tables} in {mode} mode");
    session.batch("lock the affected tables", &sql).await.map_err(|source| match source.code() {
        Some(NO_LOCK) => MigrateError::Held { path: path.to_owned(), tables, source },
        _ => source.into(),
    })
}

/// The tables that statements change, with those that change with them: what inherits from them, what refers to them by
/// keys that act, what a view that is written to shows, and what rules name. A partition beside its parent is left out,
/// since its rows are those of the parent.
///
/// # Errors
/// [`MigrateError::Postgres`].
pub(super) async fn reached(session: &Session, affected: &Affected) -> Result<Vec<Named>, MigrateError> {
    let letter = |change: &Change| match change {
        Change::Insert => "'i'",
        Change::Update => "'u'",
        Change::Delete => "'d'",
        Change::Whole => "'w'",
        Change::TruncateCascade => "'t'",
    };
    let changes: Vec<&str> = affected.tables.iter().map(|(_, change)| letter(change)).collect();
    let schemas: Vec<String> = affected.schemas.iter().map(|schema| quote_literal(schema)).collect();
    let sql = format!(
        "with recursive edges (parent, child, kind, on_update, on_delete) as (
            select inhparent, inhrelid, 'inherits', null::\"char\", null::\"char\" from pg_catalog.pg_inherits
            union all
            select confrelid, conrelid, 'key', confupdtype, confdeltype from pg_catalog.pg_constraint where contype = 'f'
            union all
            select w.ev_class, d.refobjid, k.kind, null, null
                from pg_catalog.pg_rewrite w
                join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
                    and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> w.ev_class
                cross join unnest(case when w.ev_type = '1' then array['view'] else array['u', 'd'] end) k (kind)
        ), reached (oid, change) as (
            select v.oid, v.change from unnest({}, array[{}]::text[]) v (oid, change)
            union all
            select c.oid, 'w' from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                where n.nspname = any (array[{}]::text[])
            union
            select e.child, case when e.kind in ('u', 'd') then e.kind
                    when r.change = 'd' and e.on_delete in ('n', 'd') then 'u' else r.change end
                from reached r join edges e on e.parent = r.oid and case
                    when e.kind = 'inherits' then r.change <> 'i'
                    when e.kind <> 'key' then r.change in ('i', 'u', 'd')
                    when r.change = 't' then true
                    when r.change = 'd' then e.on_delete in ('c', 'n', 'd')
                    when r.change = 'u' then e.on_update in ('c', 'n', 'd')
                    else false end)
         select json_build_array(n.nspname, c.relname)::text
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p') and c.oid in (select oid from reached)
         and not (c.relispartition and exists (select from pg_partition_ancestors(c.oid) a
            where a.relid <> c.oid and a.relid in (select oid from reached)))
         order by n.nspname, c.relname",
        oids(affected.tables.iter().map(|(named, _)| named)),
        changes.join(", "),
        schemas.join(", ")
    );
    let texts = session.texts("look for the affected tables", &sql).await?;
    let read = |text: String| {
        let (schema, name) = serde_json::from_str(&text).map_err(unreadable)?;
        Ok(Named { schema: Some(schema), name })
    };
    texts.into_iter().flatten().map(read).collect()
}

pub(super) fn unreadable(error: serde_json::Error) -> MigrateError {
    let reason = format!("a table's description cannot be read: {error}");
    MigrateError::Snapshot { path: PathBuf::from(MANIFEST), reason }
}

/// What the catalog knows of the tables that are there: enough to make them again, or to tell why they cannot be.
pub(super) async fn describe(session: &Session, names: &[Named]) -> Result<Vec<Value>, MigrateError> {
    let sql = format!(
        "select json_build_object('schema', n.nspname, 'name', c.relname, 'kind', c.relkind::text,
            'partition_key', pg_get_partkeydef(c.oid),
            'parents', (select coalesce(json_agg(h.inhparent::regclass::text order by h.inhseqno), '[]')
                from pg_catalog.pg_inherits h where h.inhrelid = c.oid),
            'has_children', exists (select from pg_catalog.pg_inherits h where h.inhparent = c.oid),
            'columns', (select json_agg(json_build_object('name', a.attname,
                    'type', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
                    'identity', a.attidentity::text, 'generated', a.attgenerated::text,
                    'default', pg_get_expr(d.adbin, d.adrelid),
                    'sequence', s.name,
                    'numbers', (select json_build_object('type', format_type(q.seqtypid, null), 'start', q.seqstart,
                            'increment', q.seqincrement, 'min', q.seqmin, 'max', q.seqmax, 'cache', q.seqcache,
                            'cycle', q.seqcycle, 'last', case when has_sequence_privilege(q.seqrelid, 'usage, select')
                                then pg_sequence_last_value(q.seqrelid) end)
                        from pg_catalog.pg_sequence q where q.seqrelid = s.name::regclass)) order by a.attnum)
                from pg_catalog.pg_attribute a
                cross join pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname) s (name)
                left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
            'constraints', (select coalesce(json_agg(json_build_object('name', k.conname,
                    'definition', pg_get_constraintdef(k.oid)) order by k.contype = 'f', k.conname), '[]')
                from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype not in ('n', 't')),
            'indexes', (select coalesce(json_agg(pg_get_indexdef(i.indexrelid) order by i.indexrelid), '[]')
                from pg_catalog.pg_index i where i.indrelid = c.oid
                and not exists (select from pg_catalog.pg_constraint k where k.conindid = i.indexrelid and k.contype <> 'f'))
            )::text
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p') and c.oid = any ({})
         order by n.nspname, c.relname",
        oids(names)
    );
    let texts = session.texts("look at the affected tables", &sql).await?;
    texts.into_iter().flatten().map(|text| serde_json::from_str(&text).map_err(unreadable)).collect()
}
