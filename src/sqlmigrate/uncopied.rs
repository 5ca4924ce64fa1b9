//! What a migration takes from tables that were not copied. Functions, DO blocks and CASCADE change tables that no text
//! names; what they drop shows in the catalog before the COMMIT.

use std::collections::BTreeMap;
use std::path::Path;

use super::MigrateError;
use super::affected::Named;
use super::snapshot::{oids, unreadable};
use crate::postgres::Session;

/// The tables that were not copied, as they stood before the migration.
#[derive(Debug, Default)]
pub(super) struct Uncopied {
    tables: BTreeMap<String, Columns>,
}

/// Name of a table, and numbers and types of its columns.
type Columns = (String, Vec<String>);

impl Uncopied {
    /// All tables but the copied ones and their partitions.
    ///
    /// # Errors
    /// [`MigrateError::Postgres`].
    pub async fn before(session: &Session, copied: &[Named]) -> Result<Self, MigrateError> {
        let copied = oids(copied);
        let others = format!(
            "(c.oid = any ({copied}) or exists (select from pg_partition_ancestors(c.oid) a where a.relid = any ({copied}))) \
             is not true"
        );
        Ok(Self { tables: columns(session, &others).await? })
    }

    /// Looks at what the transaction did.
    ///
    /// # Errors
    /// [`MigrateError::Uncopied`] where it dropped one of them, or dropped or changed columns of it,
    /// [`MigrateError::Postgres`].
    pub async fn check(&self, session: &Session, path: &Path) -> Result<(), MigrateError> {
        if self.tables.is_empty() {
            return Ok(());
        }
        // Until its end the transaction holds this lock on every table that it dropped or altered; what is missing
        // without it was dropped by others.
        let sql = "select distinct relation::text from pg_catalog.pg_locks where locktype = 'relation' and granted \
                   and pid = pg_backend_pid() and mode = 'AccessExclusiveLock'";
        let locked: Vec<String> =
            session.texts("look at the altered tables", sql).await?.into_iter().flatten().collect();
        let now = columns(session, &format!("c.oid = any ('{{{}}}'::oid[])", locked.join(","))).await?;
        let stays = |oid: &String, before: &Columns| {
            now.get(oid).is_some_and(|now| before.1.iter().all(|column| now.1.contains(column)))
        };
        let lost: Vec<&str> = (locked.iter())
            .filter_map(|oid| self.tables.get(oid).filter(|before| !stays(oid, before)))
            .map(|(name, _)| name.as_str())
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        Err(MigrateError::Uncopied { path: path.to_owned(), tables: lost.join(", ") })
    }
}

/// Tables by their numbers in the catalog.
async fn columns(session: &Session, condition: &str) -> Result<BTreeMap<String, Columns>, MigrateError> {
    let sql = format!(
        "select json_build_array(c.oid::text, json_build_array(format('%I.%I', n.nspname, c.relname),
            array(select concat_ws(' ', a.attnum, a.atttypid, a.atttypmod) from pg_catalog.pg_attribute a
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)))::text
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname <> 'information_schema'
         and n.nspname !~ '^pg_' and {condition}"
    );
    let texts = session.texts("look at all tables", &sql).await?;
    texts.into_iter().flatten().map(|text| serde_json::from_str(&text).map_err(unreadable)).collect()
}
