//! The tables that people have: their columns, and the statements that make them.

use crate::postgres::{quote_identifier, quote_literal};

use super::super::ReplicateError;
use super::build::Request;
use super::{Column, ColumnKind, Layout, Mode, Source};
use ColumnKind::{Boolean, Integer, Jsonb, Text, Timestamp, Uuid};

/// What an example of the learning system is by default.
const SIGNALS: &str = "signals_v1";

fn field(path: &str) -> Source {
    Source::Field { path: path.to_owned(), default: None }
}

fn field_or(path: &str, default: &str) -> Source {
    Source::Field { path: path.to_owned(), default: Some(default.to_owned()) }
}

/// Makes the schema, where it is not one that is always there. `if not exists` alone asks for the right to make one
/// also where it is there.
fn schema(request: &Request<'_>) -> Option<String> {
    let name = quote_identifier(&request.table.schema);
    let is_missing = format!("to_regnamespace({}) is null", quote_literal(&name));
    let make = format!("begin if {is_missing} then create schema if not exists {name}; end if; end");
    (request.table.schema != "public").then(|| format!("do {}", quote_literal(&make)))
}

/// The name of a policy of the table, within the 63 bytes that a name has.
fn policy_name(request: &Request<'_>, suffix: &str) -> String {
    let mut name: String = request.table.name.chars().take(40).collect();
    while name.len() > 40 {
        name.pop();
    }
    quote_identifier(&format!("{name}_{suffix}"))
}

/// The schema, a `create table` of these column definitions, and what follows it.
fn create(request: &Request<'_>, definitions: &[String], after: Vec<String>) -> Vec<String> {
    let table = format!("create table if not exists {} (\n  {}\n)", request.table, definitions.join(",\n  "));
    schema(request).into_iter().chain([table]).chain(after).collect()
}

/// An index of a name that Postgres chooses: a table that was renamed keeps the names of its indexes.
fn index_on(request: &Request<'_>, column: &str) -> String {
    format!("create index on {} ({})", request.table, quote_identifier(column))
}

/// One for what the metadata contain.
fn index_on_metadata(request: &Request<'_>) -> String {
    format!("create index on {} using gin (metadata jsonb_path_ops)", request.table)
}

/// Everything that a document has.
pub(super) fn pannier(request: &Request<'_>) -> Layout {
    let columns = vec![
        Column::needed("id", Text, Source::Id),
        Column::optional("content", Text, Source::Text),
        Column::needed("metadata", Jsonb, Source::Metadata),
        request.vector_column("embedding"),
        Column::optional("model", Text, Source::Constant(request.model())),
        Column::needed("created_at", Timestamp, Source::CreatedAt),
        Column::needed("updated_at", Timestamp, Source::UpdatedAt),
        Column::needed("seq", Integer, Source::Seq),
    ];
    let definitions = [
        "id text primary key".to_owned(),
        "content text".to_owned(),
        "metadata jsonb not null default '{}'".to_owned(),
        format!("embedding {}", request.vector_sql()),
        "model text".to_owned(),
        "created_at timestamptz not null".to_owned(),
        "updated_at timestamptz not null".to_owned(),
        "seq bigint not null".to_owned(),
    ];
    Layout { create: create(request, &definitions, Vec::new()), ..request.layout(columns) }
}

/// Examples of a learning system.
pub(super) fn learning_vectors(request: &Request<'_>) -> Layout {
    let columns = vec![
        Column::needed("id", Uuid, Source::Id).or(&[Text, Integer]),
        Column::needed("example_id", Text, Source::Id).or(&[Uuid, Integer]),
        Column::needed("created_at", Timestamp, Source::CreatedAt),
        request.vector_column("embedding"),
        Column::needed("schema_version", Text, field_or("schema_version", SIGNALS)),
        Column::optional("source", Text, field("source")),
        Column::optional("industry_key", Text, field("industry_key")),
        Column::needed("pii_scrubbed", Boolean, field_or("pii_scrubbed", "false")),
        Column::needed("metadata", Jsonb, Source::Metadata),
    ];
    let definitions = [
        "id uuid primary key default gen_random_uuid()".to_owned(),
        "example_id text not null".to_owned(),
        "created_at timestamptz not null default now()".to_owned(),
        format!("embedding {}", request.vector_sql()),
        format!("schema_version text not null default {}", quote_literal(SIGNALS)),
        "source text".to_owned(),
        "industry_key text".to_owned(),
        "pii_scrubbed boolean not null default false".to_owned(),
        "metadata jsonb not null default '{}'".to_owned(),
    ];
    let indexes = ["example_id", "source", "industry_key"].map(|column| index_on(request, column));
    Layout { create: create(request, &definitions, indexes.into()), ..request.layout(columns) }
}

/// One table of many tenants, under row-level security: enabled and forced, a tenant sees its rows, and the role that
/// made the table, which is the sink's, sees all.
pub(super) fn embeddings(request: &Request<'_>) -> Result<Layout, ReplicateError> {
    let Some(tenant) = &request.settings.tenant else {
        return Err(ReplicateError::Settings { reason: "the layout embeddings needs a tenant".to_owned() });
    };
    let tenant_kind = if uuid::Uuid::parse_str(tenant).is_ok() { Uuid } else { Text };
    let entity_type = request.settings.entity_type.clone().unwrap_or_else(|| request.collection.to_owned());
    let columns = vec![
        Column::needed("tenant_id", tenant_kind, Source::Constant(Some(tenant.clone()))).or(&[Text, Uuid]),
        Column::needed("entity_type", Text, Source::Constant(Some(entity_type))),
        Column::needed("entity_id", Text, Source::Id).or(&[Uuid, Integer]),
        Column::optional("content", Text, Source::Text),
        request.vector_column("embedding"),
        Column::needed("metadata", Jsonb, Source::Metadata),
        Column::optional("model", Text, Source::Constant(request.model())),
        Column::needed("created_at", Timestamp, Source::CreatedAt),
        Column::needed("updated_at", Timestamp, Source::UpdatedAt),
    ];
    let definitions = [
        "id uuid primary key default gen_random_uuid()".to_owned(),
        format!("tenant_id {} not null", tenant_kind.name()),
        "entity_type text not null".to_owned(),
        "entity_id text not null".to_owned(),
        "content text".to_owned(),
        format!("embedding {}", request.vector_sql()),
        "metadata jsonb not null default '{}'".to_owned(),
        "model text".to_owned(),
        "created_at timestamptz not null default now()".to_owned(),
        "updated_at timestamptz not null default now()".to_owned(),
        "unique (tenant_id, entity_type, entity_id)".to_owned(),
    ];
    let table = &request.table;
    // The sub-select is evaluated once a statement, not once a row.
    let own = "(select current_setting('app.tenant_id', true)) = tenant_id::text";
    let after = vec![
        index_on_metadata(request),
        format!("alter table {table} enable row level security"),
        format!("alter table {table} force row level security"),
        format!("create policy {} on {table} using ({own}) with check ({own})", policy_name(request, "tenant")),
        format!(
            "create policy {} on {table} to current_user using (true) with check (true)",
            policy_name(request, "service")
        ),
    ];
    let layout = request.layout(columns);
    let create = create(request, &definitions, after);
    Ok(Layout { key: vec![0, 1, 2], scope: vec![0, 1], tenant: Some(tenant.clone()), create, ..layout })
}

/// A number as the key, the vector, a time.
pub(super) fn product_embeddings(request: &Request<'_>) -> Layout {
    let key = request.settings.key.as_deref().unwrap_or("product_id");
    let columns = vec![
        Column::needed(key, Integer, Source::Id).or(&[Text, Uuid]),
        request.vector_column("embedding"),
        Column::optional("updated_at", Timestamp, Source::UpdatedAt),
    ];
    let definitions = [
        format!("{} bigint primary key", quote_identifier(key)),
        format!("embedding {}", request.vector_sql()),
        "updated_at timestamptz not null default now()".to_owned(),
    ];
    Layout { create: create(request, &definitions, Vec::new()), ..request.layout(columns) }
}

/// The vector within `raw` of rows that are there already.
pub(super) fn jobs(request: &Request<'_>) -> Layout {
    let key = request.settings.key.as_deref().unwrap_or("id");
    let columns = vec![
        Column::needed(key, Text, Source::Id).or(&[Uuid, Integer]),
        Column::optional("raw", Jsonb, Source::Vector),
    ];
    let mode = Mode::Inside { column: "raw".to_owned(), field: "embedding".to_owned() };
    Layout { mode, ..request.layout(columns) }
}

/// As the vecs client reads it.
pub(super) fn vecs(request: &Request<'_>) -> Layout {
    let columns = vec![
        Column::needed("id", Text, Source::Id),
        Column { not_null: true, ..request.vector_column("vec") },
        Column::needed("metadata", Jsonb, Source::Metadata),
    ];
    let definitions = [
        "id varchar primary key".to_owned(),
        format!("vec {} not null", request.vector_sql()),
        "metadata jsonb not null default '{}'".to_owned(),
    ];
    Layout { create: create(request, &definitions, Vec::new()), ..request.layout(columns) }
}

/// As LangChain and supabase-js read it; `function.rs` makes the function that they call.
pub(super) fn match_documents(request: &Request<'_>) -> Layout {
    let columns = vec![
        Column::needed("id", Text, Source::Id).or(&[Uuid, Integer]),
        Column::optional("content", Text, Source::Text),
        Column::optional("metadata", Jsonb, Source::Metadata),
        request.vector_column("embedding"),
    ];
    let definitions = [
        "id text primary key".to_owned(),
        "content text".to_owned(),
        "metadata jsonb".to_owned(),
        format!("embedding {}", request.vector_sql()),
    ];
    let function = Some(super::super::function::name_of(&request.table));
    let create = create(request, &definitions, vec![index_on_metadata(request)]);
    Layout { function, create, ..request.layout(columns) }
}

/// A table of mapped columns, the first of which is the key.
pub(super) fn create_custom(request: &Request<'_>, columns: &[Column]) -> Vec<String> {
    let definition = |(index, column): (usize, &Column)| {
        let name = quote_identifier(&column.name);
        let kind = match column.source {
            Source::Vector => request.vector_sql(),
            _ => column.kind.name().to_owned(),
        };
        format!("{name} {kind}{}", if index == 0 { " primary key" } else { "" })
    };
    let definitions: Vec<String> = columns.iter().enumerate().map(definition).collect();
    create(request, &definitions, Vec::new())
}
