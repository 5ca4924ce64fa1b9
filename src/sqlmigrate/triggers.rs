//! What would run by itself while rows are put back: triggers on what is deleted and inserted, and rules on deletes.

use std::path::Path;

use serde_json::Value;

use super::MigrateError;
use super::affected::Named;
use super::snapshot::oids;
use crate::postgres::Session;

/// Has them rest, those of partitions too. Returns the statements that let them act again.
///
/// # Errors
/// [`MigrateError::Snapshot`] with their names where the role does not own a table of theirs,
/// [`MigrateError::Postgres`].
pub(super) async fn disable(session: &Session, dir: &Path, names: &[Named]) -> Result<Vec<String>, MigrateError> {
    let oids = oids(names);
    // In a trigger's type, 4 stands for INSERT and 8 for DELETE.
    let sql = format!(
        "select json_build_object('table', format('%I.%I', n.nspname, c.relname), 'what', w.what,
            'always', w.enabled = 'A', 'owned', pg_catalog.pg_has_role(c.relowner, 'usage'))::text
         from (
            select tgrelid as relation, 'trigger ' || quote_ident(tgname) as what, tgenabled as enabled
                from pg_catalog.pg_trigger where not tgisinternal and tgtype & 12 <> 0
            union all
            select ev_class, 'rule ' || quote_ident(rulename), ev_enabled
                from pg_catalog.pg_rewrite where ev_type = '4'
         ) w
         join pg_catalog.pg_class c on c.oid = w.relation join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where w.enabled in ('O', 'A') and (c.oid = any ({oids})
            or c.oid in (select p.relid from unnest({oids}) t (oid), pg_partition_tree(t.oid) p))
         order by 1"
    );
    let mut found: Vec<Value> = Vec::new();
    for text in session.texts("look for triggers", &sql).await?.into_iter().flatten() {
        let unreadable = |error| MigrateError::Snapshot { path: dir.to_owned(), reason: format!("a trigger: {error}") };
        found.push(serde_json::from_str(&text).map_err(unreadable)?);
    }
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let others: Vec<String> = (found.iter().filter(|trigger| trigger["owned"] != true))
        .map(|trigger| format!("{} of {}", text(trigger, "what"), text(trigger, "table")))
        .collect();
    if !others.is_empty() {
        let reason = format!(
            "these would act on the rows that are put back, and only the tables' owner can have them rest: {}; restore \
             as the owner",
            others.join(", ")
        );
        return Err(MigrateError::Snapshot { path: dir.to_owned(), reason });
    }
    let mut enabling = Vec::with_capacity(found.len());
    for trigger in &found {
        let (table, what) = (text(trigger, "table"), text(trigger, "what"));
        session.batch("have a trigger rest", &format!("alter table only {table} disable {what}")).await?;
        let always = if trigger["always"] == true { "always " } else { "" };
        enabling.push(format!("alter table only {table} enable {always}{what}"));
    }
    Ok(enabling)
}

/// Lets them act again.
///
/// # Errors
/// [`MigrateError::Postgres`].
pub(super) async fn enable(session: &Session, enabling: &[String]) -> Result<(), MigrateError> {
    for statement in enabling {
        session.batch("let a trigger act again", statement).await?;
    }
    Ok(())
}
