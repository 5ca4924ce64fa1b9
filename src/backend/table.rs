//! The table of a collection: made, taken over, checked, dropped.

use std::collections::BTreeMap;

use crate::collection::difference;
use crate::log::{Change, creation_of_text, creation_to_text};
use crate::postgres::{PostgresError, Session, Trouble, Type, quote_identifier, quote_literal};
use crate::types::{CollectionId, CollectionName, Definition, Language, Metric, VectorStorage};

use super::columns::{MEND, made_as, words};
use super::pool::Failure;
use super::settings::{Placement, REGISTER};

/// The oldest pgvector: 0.8.2 and 0.8.3 fixed an overflow and the corruption of an index.
const OLDEST: &str = "0.8.4";
/// What Postgres says where [`guard`] fails a statement.
const DIVISION_BY_ZERO: &str = "22012";
/// Within a transaction that makes or drops a table: they come one after the other, whoever's they are. Nobody else's
/// statements wait longer than this behind a table that somebody holds.
const ALONE: &str = "set local lock_timeout = '3s'; select pg_advisory_xact_lock(7117, 3)";
/// Largest dimension that pgvector indexes, of `vector` and of `halfvec`.
const MAX_DIM: u32 = 2_000;
const MAX_HALF_DIM: u32 = 4_000;
/// Largest `ef_construction` of pgvector.
const MAX_EF_CONSTRUCTION: u32 = 1_000;

/// The first setting that collections in Postgres do not support, worded to follow "which"; `None` if all are.
pub(super) fn unsupported(definition: &Definition) -> Option<String> {
    if definition.chunks.is_some() {
        let clause = "keeps one vector a document; leave \"chunks\" out, or leave \"backend\" out and replicate";
        return Some(clause.to_owned());
    }
    let (dim, index) = (definition.dim, definition.index);
    match index.storage {
        VectorStorage::Float32 if dim > MAX_DIM => {
            return Some(format!(
                "indexes vectors of up to {MAX_DIM} numbers, or {MAX_HALF_DIM} with \"index.storage\": \"float16\", and \
                 \"dim\" is {dim}"
            ));
        }
        VectorStorage::Float16 if dim > MAX_HALF_DIM => {
            return Some(format!(
                "indexes vectors of up to {MAX_HALF_DIM} numbers of half precision, and \"dim\" is {dim}"
            ));
        }
        _ => {}
    }
    let least = 2 * index.m;
    if !(least..=MAX_EF_CONSTRUCTION).contains(&index.ef_construction) {
        return Some(format!(
            "takes an \"index.ef_construction\" of twice \"index.m\" ({least}) to {MAX_EF_CONSTRUCTION}, and it is {}",
            index.ef_construction
        ));
    }
    None
}

/// pgvector, as it is installed in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extension {
    /// Its schema, quoted.
    schema: String,
}

impl Extension {
    /// The type of a definition's vectors: what its storage is, the column is.
    pub fn vector(&self, definition: &Definition) -> String {
        format!("{}.{}({})", self.schema, vector_type(definition), definition.dim)
    }

    /// What is between two vectors to get their distance.
    pub fn operator(&self, metric: Metric) -> String {
        let sign = match metric {
            Metric::Cosine => "<=>",
            Metric::Dot => "<#>",
            Metric::L2 => "<->",
        };
        format!("operator({}.{sign})", self.schema)
    }

    fn operators(&self, definition: &Definition) -> String {
        let class = match definition.metric {
            Metric::Cosine => "cosine_ops",
            Metric::Dot => "ip_ops",
            Metric::L2 => "l2_ops",
        };
        format!("{}.{}_{class}", self.schema, vector_type(definition))
    }
}

/// pgvector's type without its modifier.
fn vector_type(definition: &Definition) -> &'static str {
    match definition.index.storage {
        VectorStorage::Float32 => "vector",
        VectorStorage::Float16 => "halfvec",
    }
}

/// A table that was found to be as it was made.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub extension: Extension,
    /// Its number in the catalogue, which one that is made in its place has not.
    pub table: i64,
}

/// A condition without which no statement reads or writes the table: it fails the statement where another table has the
/// name since, by division by zero.
///
/// It is evaluated once a statement, while the statement holds the table: so nothing comes between.
pub(super) fn guard(placement: &Placement, checked: &Checked) -> String {
    let table = quote_literal(&placement.qualified().to_string());
    format!("1 / coalesce(to_regclass({table})::oid = '{}'::oid, false)::int = 1", checked.table)
}

/// Whether a call may have failed because another table has the name: by [`guard`], or since it lacks a column.
pub(super) fn may_be_another(failure: &Failure) -> bool {
    let is_so = |error: &PostgresError| error.code() == Some(DIVISION_BY_ZERO) || error.trouble() == Trouble::Schema;
    matches!(failure, Failure::Clear(error @ PostgresError::Statement { .. }) if is_so(error))
}

/// Why a table is not what is needed.
#[derive(Debug)]
pub(super) enum TableError {
    Postgres(PostgresError),
    /// What stands there, and what to do.
    Conflict(String),
    /// In what it is not as it was made.
    Drift(String),
    /// It differs in its dimension only.
    Dim(String),
    /// That pgvector is missing or too old.
    Lacking(String),
}

impl From<PostgresError> for TableError {
    fn from(error: PostgresError) -> Self {
        Self::Postgres(error)
    }
}

/// The name of the text search configuration, qualified.
pub(super) fn configuration(definition: &Definition) -> &'static str {
    match definition.text.language {
        Language::English => "pg_catalog.english",
        Language::Russian => "pg_catalog.russian",
        Language::None => "pg_catalog.simple",
    }
}

/// A table that was made or taken over.
pub(super) struct Standing {
    /// Its number in the catalogue.
    pub table: i64,
    pub created_at_ms: i64,
    /// As the register has it: kept in the data directory too.
    pub creation: String,
}

/// Makes the table of a collection, or takes over one that another process made with the same definition. Within a
/// transaction; what it does may be done twice.
///
/// # Errors
/// [`TableError`]; the transaction is to be rolled back then.
pub(super) async fn create(
    session: &Session,
    placement: &Placement,
    name: &CollectionName,
    definition: &Definition,
    created_at_ms: i64,
) -> Result<Standing, TableError> {
    let schema = quote_identifier(&placement.schema);
    // Two processes that begin at once come one after the other.
    session.batch("wait for others", ALONE).await?;
    let has_schema = "select to_regnamespace($1) is not null";
    let rows = session.query("look for the schema", has_schema, &[(&schema, Type::TEXT)]).await?;
    if !rows.iter().any(|row| row.get(0)) {
        session.batch("make the schema", &format!("create schema {schema}")).await?;
    }
    let extension = extension(session).await?;
    // To take a table over no right on the schema is needed.
    if !has_register(session, placement).await? {
        let make_register = format!(
            "create table if not exists {} (table_name text primary key, collection text not null, \
             dim integer not null, metric text not null, model text, definition text not null, \
             created_at timestamptz not null default now())",
            register(placement)
        );
        session.batch("make the register of collections", &make_register).await?;
    }
    let there = columns(session, placement).await?;
    let (created_at_ms, creation) = match (registered(session, placement).await?, there) {
        (Some(creation), Some(_)) => take_over(session, placement, name, definition, creation).await?,
        (None, Some(_)) => {
            let table = placement.qualified().plain();
            return Err(TableError::Conflict(format!(
                "table {table} is there and was not made by Pannier; name another in \"backend.table\""
            )));
        }
        // A table that was dropped by hand is made again.
        (_, None) => make(session, placement, name, definition, created_at_ms, &extension).await?,
    };
    Ok(Standing { table: number(session, placement).await?, created_at_ms, creation })
}

/// Finds pgvector, and installs it where it is missing and the role may.
async fn extension(session: &Session) -> Result<Extension, TableError> {
    if let Some(found) = installed(session).await? {
        return Ok(found);
    }
    let lacking = |why: String| {
        TableError::Lacking(format!("the database has no extension \"vector\"{why}; run CREATE EXTENSION vector there"))
    };
    match session.batch("install pgvector", "create extension if not exists vector").await {
        Err(error) if !error.ends_session() => return Err(lacking(format!(" ({error})"))),
        done => done?,
    }
    installed(session).await?.ok_or_else(|| lacking(String::new()))
}

/// pgvector, where it is there.
///
/// # Errors
/// [`TableError::Lacking`] for one that is too old.
pub(super) async fn installed(session: &Session) -> Result<Option<Extension>, TableError> {
    let sql = "select e.extversion, n.nspname::text from pg_extension e join pg_namespace n on n.oid = e.extnamespace \
               where e.extname = 'vector'";
    let rows = session.query("look for pgvector", sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let version: String = row.get(0);
    let numbers = |text: &str| text.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    if numbers(&version) < numbers(OLDEST) {
        return Err(TableError::Lacking(format!(
            "pgvector is {version}, needed is {OLDEST} or later; run ALTER EXTENSION vector UPDATE"
        )));
    }
    Ok(Some(Extension { schema: quote_identifier(row.get(1)) }))
}

fn register(placement: &Placement) -> String {
    format!("{}.{REGISTER}", quote_identifier(&placement.schema))
}

async fn has_register(session: &Session, placement: &Placement) -> Result<bool, PostgresError> {
    let sql = "select to_regclass($1) is not null";
    let rows = session.query("look for the register", sql, &[(&register(placement), Type::TEXT)]).await?;
    Ok(rows.iter().any(|row| row.get(0)))
}

/// What the register says of the table; `None` where it knows none.
async fn registered(session: &Session, placement: &Placement) -> Result<Option<String>, PostgresError> {
    let sql = format!("select definition from {} where table_name = $1", register(placement));
    let rows = session.query("read the register of collections", &sql, &[(&placement.table, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

async fn take_over(
    session: &Session,
    placement: &Placement,
    name: &CollectionName,
    definition: &Definition,
    creation: String,
) -> Result<(i64, String), TableError> {
    let table = placement.qualified().plain();
    let Some(Change::CreateCollection { definition: theirs, created_at_ms, name: made_as, .. }) =
        creation_of_text(&creation)
    else {
        return Err(TableError::Conflict(format!(
            "table {table} was made by a later version of Pannier, whose definition this one cannot read"
        )));
    };
    if let Some(difference) = difference(&theirs, definition) {
        return Err(TableError::Conflict(format!(
            "table {table} was made for collection {:?} with another definition ({difference})",
            made_as.as_str()
        )));
    }
    check_columns(session, placement, definition).await?;
    tracing::info!(collection = %name, %table, "a table that stands already was taken over");
    Ok((created_at_ms, creation))
}

/// The columns of the table with type and modifier.
fn needed(definition: &Definition) -> [(&'static str, &'static str, i32); 9] {
    [
        ("id", "text", -1),
        ("content", "text", -1),
        ("metadata", "jsonb", -1),
        ("embedding", vector_type(definition), definition.dim as i32),
        ("embedded", "bool", -1),
        ("created_at", "timestamptz", -1),
        ("updated_at", "timestamptz", -1),
        ("version", "int8", -1),
        ("words", "tsvector", -1),
    ]
}

type Columns = BTreeMap<String, (String, i32)>;

/// The columns as they stand; `None` where there is no table.
async fn columns(session: &Session, placement: &Placement) -> Result<Option<Columns>, PostgresError> {
    let sql = "select a.attname::text, t.typname::text, a.atttypmod from pg_attribute a \
               join pg_type t on t.oid = a.atttypid \
               where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped";
    let table = placement.qualified().to_string();
    let rows = session.query("look at the table", sql, &[(&table, Type::TEXT)]).await?;
    let columns = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    Ok((!rows.is_empty()).then_some(columns))
}

/// Checks that the table has the columns of its definition.
///
/// # Errors
/// [`TableError::Drift`] with every difference, [`TableError::Dim`] where that is the only one.
pub(super) async fn check_columns(
    session: &Session,
    placement: &Placement,
    definition: &Definition,
) -> Result<(), TableError> {
    let table = placement.qualified().plain();
    let Some(found) = columns(session, placement).await? else {
        return Err(TableError::Drift(format!(
            "table {table} is gone; somebody dropped it. PUT the collection again with the same definition, which makes it anew"
        )));
    };
    let (mut differences, mut is_of_dim) = (Vec::new(), false);
    for (column, kind, modifier) in needed(definition) {
        match found.get(column) {
            Some((there, its)) if there == kind && *its == modifier => {}
            Some((there, its)) if there == kind => {
                is_of_dim = true;
                differences.push(format!("column {column} is {there}({its}), needed is {kind}({modifier})"));
            }
            Some((there, _)) => differences.push(format!("column {column} is {there}, needed is {kind}")),
            None => {
                let needed = made_as(definition, column, kind);
                differences.push(format!("column {column} is missing, needed is {needed}"));
            }
        }
    }
    let detail = format!("table {table} is not as it was made: {}{MEND}", differences.join("; "));
    match differences.len() {
        0 => Ok(()),
        1 if is_of_dim => Err(TableError::Dim(detail)),
        _ => Err(TableError::Drift(detail)),
    }
}

/// Checks that the register has no other definition of the table. Returns whether it has one.
///
/// # Errors
/// [`TableError::Conflict`].
async fn check_registered(
    session: &Session,
    placement: &Placement,
    definition: &Definition,
) -> Result<bool, TableError> {
    let Some(creation) = registered(session, placement).await? else { return Ok(false) };
    let difference = match creation_of_text(&creation) {
        Some(Change::CreateCollection { definition: theirs, .. }) => difference(&theirs, definition),
        _ => Some("of a later version of Pannier, which this one cannot read".to_owned()),
    };
    match difference {
        None => Ok(true),
        Some(difference) => Err(TableError::Conflict(format!(
            "table {} was made anew with another definition ({difference}); DELETE the collection with \
             \"keep_table=true\" and create it again",
            placement.qualified().plain()
        ))),
    }
}

/// The number of the table in the catalogue; 0 where there is none.
pub(super) async fn number(session: &Session, placement: &Placement) -> Result<i64, PostgresError> {
    let sql = "select coalesce(to_regclass($1)::oid::int8, 0)";
    let table = placement.qualified().to_string();
    let rows = session.query("look for the table", sql, &[(&table, Type::TEXT)]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Checks that the table stands and is still that of the definition.
///
/// # Errors
/// [`TableError`].
pub(super) async fn check(
    session: &Session,
    placement: &Placement,
    definition: &Definition,
) -> Result<Checked, TableError> {
    // First: where the table is made anew while it is looked at, this is not the number of that one.
    let table = number(session, placement).await?;
    check_registered(session, placement, definition).await?;
    check_columns(session, placement, definition).await?;
    let lost = || TableError::Lacking("the database has lost its extension \"vector\"; make it again".to_owned());
    let extension = installed(session).await?.ok_or_else(lost)?;
    Ok(Checked { extension, table })
}

async fn make(
    session: &Session,
    placement: &Placement,
    name: &CollectionName,
    definition: &Definition,
    created_at_ms: i64,
    extension: &Extension,
) -> Result<(i64, String), TableError> {
    let change = Change::CreateCollection {
        id: CollectionId(0),
        name: name.clone(),
        definition: definition.clone(),
        created_at_ms,
    };
    let creation = creation_to_text(&change).map_err(|error| TableError::Conflict(error.to_string()))?;
    let (table, register) = (placement.qualified(), register(placement));
    let (vector, index) = (extension.vector(definition), definition.index);
    let (class, words) = (extension.operators(definition), words(definition));
    let model = definition.embedding.as_ref().map_or("null".to_owned(), |e| quote_literal(&e.model));
    let metric = match definition.metric {
        Metric::Cosine => "cosine",
        Metric::Dot => "dot",
        Metric::L2 => "l2",
    };
    let sql = format!(
        "create table {table} (\
           id text collate \"C\" primary key, \
           content text, \
           metadata jsonb not null default '{{}}', \
           embedding {vector} not null, \
           embedded boolean not null default false, \
           created_at timestamptz not null default now(), \
           updated_at timestamptz not null default now(), \
           version bigint generated by default as identity, \
           words tsvector generated always as ({words}) stored);\n\
         create index on {table} using hnsw (embedding {class}) with (m = {m}, ef_construction = {ef});\n\
         create index on {table} using gin (metadata jsonb_path_ops);\n\
         create index on {table} using gin (words);\n\
         delete from {register} where table_name = {table_name};\n\
         insert into {register} (table_name, collection, dim, metric, model, definition) \
         values ({table_name}, {collection}, {dim}, '{metric}', {model}, {creation_text})",
        m = index.m,
        ef = index.ef_construction,
        dim = definition.dim,
        table_name = quote_literal(&placement.table),
        collection = quote_literal(name.as_str()),
        creation_text = quote_literal(&creation),
    );
    session.batch("make the table", &sql).await?;
    Ok((created_at_ms, creation))
}

/// Drops the table and what the register has of it. What is not there is passed over. Returns the number of the change.
/// Within a transaction; what it does may be done twice. `used`: the number of the table that was made or used last.
///
/// # Errors
/// [`TableError::Conflict`] where another's table has the name, or one that was made since; the transaction is to be
/// rolled back then, as after any other.
pub(super) async fn drop_table(
    session: &Session,
    placement: &Placement,
    definition: &Definition,
    used: Option<i64>,
) -> Result<i64, TableError> {
    // Nobody makes the table anew between looking at it and dropping it.
    session.batch("wait for others", ALONE).await?;
    let (table, has_register) = (placement.qualified(), has_register(session, placement).await?);
    let now = number(session, placement).await?;
    let is_registered = has_register && check_registered(session, placement, definition).await?;
    let is_there = columns(session, placement).await?.is_some();
    if is_there && !is_registered && check_columns(session, placement, definition).await.is_err() {
        return Err(TableError::Conflict(format!(
            "table {} is none that Pannier made: its columns are others, and {} does not name it; DELETE the collection \
             with \"keep_table=true\"",
            table.plain(),
            register(placement)
        )));
    }
    if is_there && used != Some(now) {
        return Err(TableError::Conflict(format!(
            "table {} was made anew since this server used it, and others may have written to it; DELETE the collection \
             with \"keep_table=true\", which leaves the table; to drop it, read from the collection and DELETE it again",
            table.plain()
        )));
    }
    // A table that somebody changed may lack the column or its sequence.
    let next = "select nextval(pg_get_serial_sequence($1, attname)) from pg_attribute \
                where attrelid = to_regclass($1) and attname = 'version' and not attisdropped";
    let rows = session.query("number the change", next, &[(&table.to_string(), Type::TEXT)]).await?;
    let version = rows.first().and_then(|row| row.get::<_, Option<i64>>(0)).unwrap_or(0);
    if has_register {
        let forget = format!("delete from {} where table_name = $1", register(placement));
        session.execute("forget the table", &forget, &[(&placement.table, Type::TEXT)]).await?;
    }
    session.batch("drop the table", &format!("drop table if exists {table}")).await?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IndexDefinition;

    fn definition() -> Definition {
        Definition {
            dim: 3,
            metric: Metric::Cosine,
            embedding: None,
            index: IndexDefinition::default(),
            fields: BTreeMap::new(),
            text: Default::default(),
            template: None,
            guard: None,
            chunks: None,
        }
    }

    #[test]
    fn a_creation_survives_as_text() {
        let name = CollectionName::new("c").unwrap();
        let change = Change::CreateCollection { id: CollectionId(0), name, definition: definition(), created_at_ms: 7 };
        let text = creation_to_text(&change).unwrap();
        assert_eq!(creation_of_text(&text), Some(change));
        // What a database holds is read by later versions: these bytes never change.
        assert_eq!(
            text,
            concat!(
                "3:00000000010000000000000063030000000000000000100000008000000000000000",
                "000000000000000000000000000000000000000700000000000000"
            )
        );
        for other in ["", "3:", "3:zz", "99:00", "3:00"] {
            assert_eq!(creation_of_text(other), None, "{other}");
        }
    }

    #[test]
    fn what_pgvector_has_not_is_named() {
        assert_eq!(unsupported(&definition()), None);
        let half = IndexDefinition { storage: VectorStorage::Float16, ..IndexDefinition::default() };
        for (dim, index, wanted) in [
            (2_000, IndexDefinition::default(), None),
            (2_001, IndexDefinition::default(), Some("4000 with \"index.storage\": \"float16\", and \"dim\" is 2001")),
            (4_000, half, None),
            (4_001, half, Some("4001")),
        ] {
            let said = unsupported(&Definition { dim, index, ..definition() });
            assert_eq!(said.is_some(), wanted.is_some(), "{dim}");
            assert!(said.unwrap_or_default().contains(wanted.unwrap_or_default()), "{dim}");
        }
        let index = IndexDefinition { m: 16, ef_construction: 20, ..IndexDefinition::default() };
        assert!(unsupported(&Definition { index, ..definition() }).unwrap().contains("(32)"));
    }
}
