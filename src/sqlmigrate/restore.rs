//! Putting the tables of a snapshot back, all of them or none.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::affected::Named;
use super::manifest::{self, MANIFEST};
use super::session::begin;
use super::snapshot::{PARTITIONED, columns_of, describe, lock, named, oids, own_rows, qualified, set_locally};
use super::{MigrateError, sequences, triggers};
use crate::postgres::{Session, quote_identifier, quote_literal};

/// Bytes of a file that are sent at once. A server takes no message of 1 GiB.
const CHUNK_BYTES: u64 = 1 << 20;

/// A table that was put back, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredTable {
    /// `schema.name`.
    pub table: String,
    /// Rows written.
    pub rows: u64,
    /// Whether it had to be made anew.
    pub was_made: bool,
}

/// Puts the tables of a snapshot back in one transaction: rows that are there are replaced, tables that are gone are
/// made again. Nobody else writes to them meanwhile, and their triggers rest. `lock_timeout`: how long a statement may
/// wait for a lock on a table. `dry_run`: does it all and takes it back.
///
/// # Errors
/// [`MigrateError::Snapshot`] when the snapshot is damaged, a table's columns are others, with every difference, or a
/// table is gone that cannot be made again as it was, [`MigrateError::Held`], [`MigrateError::Postgres`].
/// Nothing is changed then.
pub async fn restore(
    session: &Session,
    dir: &Path,
    lock_timeout: Duration,
    dry_run: bool,
) -> Result<Vec<RestoredTable>, MigrateError> {
    let manifest = manifest::read(dir)?;
    let tables = load(dir, &manifest)?;
    let names: Vec<Named> = tables.iter().map(|(table, _)| named(table)).collect();
    begin(session, lock_timeout).await?;
    let restored = async {
        // As the rows were written. The oldest snapshots do not say how.
        let settings = manifest["settings"].as_object().into_iter().flatten();
        set_locally(session, settings.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))).await?;
        // Where a policy hides rows from the role, they are not to stay: it is refused.
        session.batch("begin to restore", "set constraints all deferred; set local row_security = off").await?;
        lock(session, dir, &names, "exclusive").await?;
        let there = check_tables(session, dir, &tables).await?;
        let standing = || tables.iter().map(|(table, _)| table).zip(&there).filter(|(_, is_there)| **is_there);
        for (table, _) in standing() {
            check_references(session, dir, table, &tables).await?;
        }
        let keys = defer_references(session, &names).await?;
        let resting = triggers::disable(session, dir, &names).await?;
        // All before any is filled: a key that cascades takes rows of tables that come earlier.
        for (table, _) in standing() {
            session.batch("empty a table", &format!("delete from {}", own_rows(table))).await?;
        }
        let mut restored = Vec::new();
        for ((table, rows), is_there) in tables.iter().zip(&there) {
            restored.push(put_back(session, table, rows, *is_there).await?);
        }
        session.batch("look at the constraints", "set constraints all immediate").await?;
        triggers::enable(session, &resting).await?;
        for key in &keys {
            session.batch("make a key as it was", &format!("alter table {key} not deferrable")).await?;
        }
        // Foreign keys last: they may point to a table that comes later.
        for ((table, _), done) in tables.iter().zip(&restored) {
            if done.was_made {
                add_constraints(session, table, true).await?;
            }
        }
        Ok(restored)
    };
    let restored = restored.await;
    let end = if restored.is_ok() && !dry_run { "commit" } else { "rollback" };
    session.batch("end to restore", end).await?;
    restored
}

/// Descriptions of tables, each with the file of its rows.
type Tables = Vec<(Value, PathBuf)>;

/// Checks every file of a snapshot against its sum.
fn load(dir: &Path, manifest: &Value) -> Result<Tables, MigrateError> {
    let wrong = |reason: String| MigrateError::Snapshot { path: dir.to_owned(), reason };
    let mut tables = Vec::new();
    for table in manifest["tables"].as_array().into_iter().flatten() {
        let name = table["file"].as_str().unwrap_or_default();
        if name.is_empty() || name.contains(['/', '\\']) {
            return Err(wrong(format!("{MANIFEST} names a file {name:?}")));
        }
        let path = dir.join(name);
        let mut hash = Sha256::new();
        for chunk in chunks(&path)? {
            hash.update(chunk.map_err(|source| MigrateError::Io { path: path.clone(), source })?);
        }
        let sum: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if table["sha256"].as_str() != Some(&sum) {
            return Err(wrong(format!("{name} is damaged: its sha256 is {sum}")));
        }
        tables.push((table.clone(), path));
    }
    Ok(tables)
}

/// A file, piece by piece.
fn chunks(path: &Path) -> Result<impl Iterator<Item = std::io::Result<Vec<u8>>> + use<>, MigrateError> {
    let mut file = std::fs::File::open(path).map_err(|source| MigrateError::Io { path: path.to_owned(), source })?;
    Ok(std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        match file.by_ref().take(CHUNK_BYTES).read_to_end(&mut chunk) {
            Ok(0) => None,
            Ok(_) => Some(Ok(chunk)),
            Err(error) => Some(Err(error)),
        }
    }))
}

async fn put_back(
    session: &Session,
    table: &Value,
    rows: &Path,
    is_there: bool,
) -> Result<RestoredTable, MigrateError> {
    let (name, was_made) = (qualified(table), !is_there);
    if was_made {
        make(session, table).await?;
    }
    let copy = format!("copy {name} ({}) from stdin", columns_of(table));
    let mut failed = None;
    let rows_sent = chunks(rows)?.map_while(|chunk| chunk.map_err(|error| failed = Some(error)).ok());
    let written = session.copy_in("write a table's rows", &copy, rows_sent).await?;
    if let Some(source) = failed {
        return Err(MigrateError::Io { path: rows.to_owned(), source });
    }
    if was_made {
        add_constraints(session, table, false).await?;
        for index in table["indexes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            session.batch("make an index again", index).await?;
        }
    }
    sequences::advance(session, table, was_made).await?;
    let plain = |key: &str| table[key].as_str().unwrap_or_default();
    Ok(RestoredTable { table: format!("{}.{}", plain("schema"), plain("name")), rows: written, was_made })
}

/// Which tables are there. Those must have the columns of the snapshot, no more and no fewer: rows that are put back
/// would lose what is in another. Those that are gone must be plain ones: what partitions or inherits cannot be made
/// again.
///
/// # Errors
/// [`MigrateError::Snapshot`] with every difference.
async fn check_tables(session: &Session, dir: &Path, tables: &Tables) -> Result<Vec<bool>, MigrateError> {
    let (mut there, mut differences, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for (table, _) in tables {
        let text = |key: &str| table[key].as_str().unwrap_or_default();
        let shown = format!("table {}.{}", text("schema"), text("name"));
        let now = describe(session, &[named(table)]).await?.into_iter().next();
        there.push(now.is_some());
        let Some(now) = now else {
            lost.extend(unmakable(table).map(|reason| format!("{shown} {reason}")));
            continue;
        };
        let mut differing = differences_of(&columns_by_name(table), &columns_by_name(&now));
        differing.extend(differing_kind(table, &now).map(str::to_owned));
        if !differing.is_empty() {
            differences.push(format!("{shown}: {}", differing.join(", ")));
        }
    }
    let reason = if !differences.is_empty() {
        format!(
            "the columns are others now than those of the snapshot: {}; take the migrations since back before (`down`), \
             then `restore`, or drop the table, which is then made again",
            differences.join("; ")
        )
    } else if !lost.is_empty() {
        format!(
            "gone, and not to be made again from the snapshot: {}; make that by hand, then `restore`",
            lost.join("; ")
        )
    } else {
        return Ok(there);
    };
    Err(MigrateError::Snapshot { path: dir.to_owned(), reason })
}

/// Why a table cannot be made again as it was.
fn unmakable(table: &Value) -> Option<String> {
    if table["kind"] == PARTITIONED {
        let key = table["partition_key"].as_str().unwrap_or_default();
        return Some(format!("was partitioned by {key}; its partitions are not in the snapshot"));
    }
    let parents: Vec<&str> = table["parents"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    (!parents.is_empty()).then(|| format!("was a partition of {0}, or inherited from {0}", parents.join(", ")))
}

/// In what other tables a table's rows stand now than then.
fn differing_kind(then: &Value, now: &Value) -> Option<&'static str> {
    let is_partitioned = |table: &Value| table["kind"] == PARTITIONED;
    match (is_partitioned(then), is_partitioned(now)) {
        (false, true) => Some("it is partitioned now, and was not"),
        (true, false) => Some("it is not partitioned now, and was"),
        // Written before snapshots told rows of a table from those of what inherits from it.
        _ if then["kind"].is_null() && now["has_children"] == true => {
            Some("others inherit from it, whose rows an old snapshot does not tell apart")
        }
        _ => None,
    }
}

/// What rows depend on, of each column: type, NOT NULL, identity, generated.
fn columns_by_name(table: &Value) -> BTreeMap<String, String> {
    let shown = |column: &Value| {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        let mut shown = text("type").to_owned();
        if column["not_null"] == true {
            shown.push_str(" not null");
        }
        match (text("identity"), text("generated")) {
            ("", "") => {}
            ("", _) => shown.push_str(&format!(" generated always as ({})", text("default"))),
            ("a", _) => shown.push_str(" generated always as identity"),
            _ => shown.push_str(" generated by default as identity"),
        }
        (text("name").to_owned(), shown)
    };
    table["columns"].as_array().into_iter().flatten().map(shown).collect()
}

fn differences_of(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let changed = then.iter().filter_map(|(name, then)| match now.get(name) {
        None => Some(format!("column {name} ({then}) is not there now")),
        Some(now) if now != then => Some(format!("column {name} is {now} now, and was {then}")),
        Some(_) => None,
    });
    let added = now.iter().filter(|(name, _)| !then.contains_key(*name));
    changed.chain(added.map(|(name, now)| format!("column {name} ({now}) was not there"))).collect()
}

/// Deleting rows must not change those of tables that are not put back, and must be let. A key with RESTRICT lets it
/// nowhere: it is looked at before the rows come back.
async fn check_references(session: &Session, dir: &Path, table: &Value, all: &Tables) -> Result<(), MigrateError> {
    let sql = format!(
        "select concat_ws('|', k.confdeltype, k.conrelid::regclass, format('%I.%I', n.nspname, c.relname)) \
         from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where k.contype = 'f' and k.confrelid = to_regclass({}) and k.confdeltype in ('c', 'n', 'd', 'r') \
         and not exists (select from pg_catalog.pg_constraint p where p.oid = k.conparentid and p.confrelid = k.confrelid)",
        quote_literal(&qualified(table))
    );
    let is_ours = |name: &str| all.iter().any(|(table, _)| qualified(table).replace('"', "") == name.replace('"', ""));
    let refuse = |reason: String| Err(MigrateError::Snapshot { path: dir.to_owned(), reason });
    for found in session.texts("look for references", &sql).await?.into_iter().flatten() {
        let mut parts = found.splitn(3, '|');
        let mut part = || parts.next().unwrap_or_default();
        let (kind, shown, name) = (part(), part(), part());
        if kind == "r" {
            let rows = format!("select exists (select from {name})");
            if session.texts("look for rows", &rows).await?.contains(&Some("t".to_owned())) {
                return refuse(format!(
                    "rows of {shown} hold those of {}: its foreign key says ON DELETE RESTRICT; drop that key first, and \
                     make it again afterwards",
                    qualified(table)
                ));
            }
        } else if !is_ours(name) {
            return refuse(format!(
                "rows of {shown} would go with those of {}: its foreign key cascades; drop that key first",
                qualified(table)
            ));
        }
    }
    Ok(())
}

/// Has foreign keys to the tables wait for the rows that come back, where nothing defers them and the role may. Returns
/// what begins the statements that alter them.
async fn defer_references(session: &Session, names: &[Named]) -> Result<Vec<String>, MigrateError> {
    let sql = format!(
        "select format('%I.%I alter constraint %I', n.nspname, c.relname, k.conname) \
         from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid \
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where k.contype = 'f' and k.confrelid = any ({}) and not k.condeferrable and k.conparentid = 0 \
         and pg_catalog.pg_has_role(c.relowner, 'usage')",
        oids(names)
    );
    let keys: Vec<String> = session.texts("look for keys", &sql).await?.into_iter().flatten().collect();
    for key in &keys {
        let sql = format!("alter table {key} deferrable initially deferred");
        session.batch("have a key wait for its rows", &sql).await?;
    }
    Ok(keys)
}

async fn make(session: &Session, table: &Value) -> Result<(), MigrateError> {
    let schema = quote_identifier(table["schema"].as_str().unwrap_or_default());
    session.batch("make a schema again", &format!("create schema if not exists {schema}")).await?;
    let mut columns = Vec::new();
    for column in table["columns"].as_array().into_iter().flatten() {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        let mut sql = format!("{} {}", quote_identifier(text("name")), text("type"));
        if column["not_null"] == true {
            sql.push_str(" not null");
        }
        let numbers = match sequences::options(column) {
            options if options.is_empty() => options,
            options => format!(" ({options})"),
        };
        match (text("identity"), text("generated"), text("default")) {
            ("a", ..) => sql.push_str(&format!(" generated always as identity{numbers}")),
            ("d", ..) => sql.push_str(&format!(" generated by default as identity{numbers}")),
            (_, "s", expression) => sql.push_str(&format!(" generated always as ({expression}) stored")),
            (_, "v", expression) => sql.push_str(&format!(" generated always as ({expression}) virtual")),
            (_, _, "") => {}
            (_, _, expression) => sql.push_str(&format!(" default {expression}")),
        }
        if text("identity").is_empty() {
            sequences::make(session, column).await?;
        }
        columns.push(sql);
    }
    let sql = format!("create table {} ({})", qualified(table), columns.join(", "));
    Ok(session.batch("make a table again", &sql).await?)
}

async fn add_constraints(session: &Session, table: &Value, foreign: bool) -> Result<(), MigrateError> {
    for constraint in table["constraints"].as_array().into_iter().flatten() {
        let text = |key: &str| constraint[key].as_str().unwrap_or_default();
        // Triggers are not restored; older snapshots have those that are constraints too.
        let is_trigger = text("definition").starts_with("TRIGGER");
        if !is_trigger && text("definition").starts_with("FOREIGN KEY") == foreign {
            let (name, definition) = (quote_identifier(text("name")), text("definition"));
            let sql = format!("alter table {} add constraint {name} {definition}", qualified(table));
            session.batch("make a constraint again", &sql).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_in_pieces_that_a_server_takes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000.copy");
        let bytes: Vec<u8> = (0..CHUNK_BYTES * 5 / 2).map(|byte| (byte % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let pieces: Vec<Vec<u8>> = chunks(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1 << 20, 1 << 20, 1 << 19]);
        assert_eq!(pieces.concat(), bytes);
    }
}
