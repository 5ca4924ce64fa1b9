//! The table of applied migrations, `schema_migrations`: ours, or one that another program made, with `version` and
//! perhaps `name`.

use serde_json::Value;

use super::{MigrateError, Step, Version};
use crate::postgres::{Session, quote_identifier, quote_literal};

/// The table's name unless another is asked for.
pub const DEFAULT_TABLE: &str = "schema_migrations";
/// Where our own steps are noted.
pub(super) const OWN_TABLE: &str = "pannier_migrations";

/// A table of applied migrations.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Quoted, with its schema.
    sql: String,
    plain: String,
}

/// A row of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub version: Version,
    pub name: Option<String>,
    /// `None` where another program wrote the row.
    pub checksum: Option<String>,
    pub applied_at: Option<String>,
}

/// A column of it.
struct Column {
    name: String,
    kind: String,
}

impl Table {
    /// `name` or `schema.name`. A table without a schema is the one that the search path finds now, or would be made
    /// in: a migration may set another search path.
    pub async fn find(session: &Session, name: &str) -> Result<Self, MigrateError> {
        let parts: Vec<String> = name.split('.').map(quote_identifier).collect();
        let (mut sql, plain) = (parts.join("."), name.to_owned());
        if parts.len() == 1 {
            let schema = format!(
                "select quote_ident(coalesce((select n.nspname from pg_catalog.pg_class c \
                 join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass({})), \
                 current_schema()))",
                quote_literal(&sql)
            );
            // Where there is no schema to make it in, the server says so when it is to be made.
            if let Some(schema) =
                session.texts("find the table of migrations", &schema).await?.into_iter().flatten().next()
            {
                sql = format!("{schema}.{sql}");
            }
        }
        Ok(Self { sql, plain })
    }

    /// The rows, by version; none where there is no table yet.
    ///
    /// # Errors
    /// [`MigrateError::Table`] where it is of another shape.
    pub async fn rows(&self, session: &Session) -> Result<Vec<Row>, MigrateError> {
        if self.columns(session).await?.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!("select to_jsonb(t.*)::text from {} t", self.sql);
        let mut rows = Vec::new();
        for text in session.texts("read the applied migrations", &sql).await?.into_iter().flatten() {
            let row: Value = serde_json::from_str(&text).map_err(|error| self.wrong(error.to_string()))?;
            rows.push(self.row(&row)?);
        }
        rows.sort_by_key(|row| row.version);
        Ok(rows)
    }

    fn row(&self, row: &Value) -> Result<Row, MigrateError> {
        let version = match &row["version"] {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.split(['_', '-']).next().and_then(|digits| digits.trim().parse().ok()),
            _ => None,
        };
        let version = version.ok_or_else(|| self.wrong(format!("version {} is no number", row["version"])))?;
        let text = |key: &str| row[key].as_str().map(str::to_owned);
        Ok(Row {
            version: Version(version),
            name: text("name"),
            checksum: text("checksum"),
            applied_at: text("applied_at"),
        })
    }

    /// Makes the table, or the columns that it lacks.
    pub async fn ensure(&self, session: &Session) -> Result<(), MigrateError> {
        let columns = self.columns(session).await?;
        let sql = &self.sql;
        if columns.is_empty() {
            let create = format!(
                "create table {sql} (version text primary key, name text not null, checksum text, \
                 applied_at timestamptz not null default now())"
            );
            return Ok(session.batch("create the table of migrations", &create).await?);
        }
        if !columns.iter().any(|column| column.name == "version") {
            return Err(self.wrong("it has no column \"version\"".to_owned()));
        }
        // The default comes after the column: when steps of before were applied, nobody knows.
        let applied_at = format!("timestamptz; alter table {sql} alter column applied_at set default now()");
        for (name, kind) in [("name", "text"), ("checksum", "text"), ("applied_at", applied_at.as_str())] {
            if !columns.iter().any(|column| column.name == name) {
                let add = format!("alter table {sql} add column {name} {kind}");
                session.batch("add a column to the table of migrations", &add).await?;
            }
        }
        Ok(())
    }

    /// Notes a step as applied.
    pub async fn insert(&self, session: &Session, step: &Step) -> Result<(), MigrateError> {
        let columns = self.columns(session).await?;
        let kind_of =
            |name: &str| columns.iter().find(|c| c.name == name).map_or("text", |c| c.kind.as_str()).to_owned();
        let cast = |name: &str, value: &str| format!("{}::{}", quote_literal(value), kind_of(name));
        let insert = format!(
            "insert into {} (version, name, checksum, applied_at) values ({}, {}, {}, now())",
            self.sql,
            cast("version", &step.digits),
            cast("name", &step.name),
            cast("checksum", &step.checksum),
        );
        Ok(session.batch("note a migration as applied", &insert).await?)
    }

    /// Notes a step as taken back.
    pub async fn remove(&self, session: &Session, version: Version) -> Result<(), MigrateError> {
        // The version may be a number, or digits with zeros before them and a name after.
        let delete =
            format!("delete from {} where substring(version::text from '^[0-9]+')::numeric = {}", self.sql, version.0);
        Ok(session.batch("note a migration as taken back", &delete).await?)
    }

    async fn columns(&self, session: &Session) -> Result<Vec<Column>, MigrateError> {
        let sql = format!(
            "select json_build_object('name', attname, 'type', format_type(atttypid, atttypmod))::text \
             from pg_catalog.pg_attribute where attrelid = to_regclass({}) and attnum > 0 and not attisdropped \
             order by attnum",
            quote_literal(&self.sql)
        );
        let texts = session.texts("look at the table of migrations", &sql).await?;
        let read = |text: String| -> Option<Column> {
            let value: Value = serde_json::from_str(&text).ok()?;
            Some(Column { name: value["name"].as_str()?.to_owned(), kind: value["type"].as_str()?.to_owned() })
        };
        Ok(texts.into_iter().flatten().filter_map(read).collect())
    }

    fn wrong(&self, reason: String) -> MigrateError {
        MigrateError::Table { table: self.plain.clone(), reason }
    }
}
