//! From a sink's settings and a collection's definition to the layout of its table.

use crate::postgres::QualifiedName;
use crate::types::Definition;

use super::super::settings::{ALL_COLLECTIONS, ExtraRows, LayoutKind, SinkSettings, VectorType};
use super::super::{ReplicateError, fence};
use super::tables;
use super::{Column, ColumnKind, Extension, Layout, Mode, Source};

/// Longest name of a schema or a table: NAMEDATALEN - 1 of Postgres.
const MAX_NAME_BYTES: usize = 63;
/// The table beside collections that stand in Postgres which says what each of them is.
const COLLECTIONS_TABLE: &str = "pannier_collections";
/// The numbers of a vector that the name of the layout promises.
const LEARNING_DIM: u32 = 384;

/// What a layout is made for.
pub(super) struct Request<'a> {
    pub(super) settings: &'a SinkSettings,
    pub(super) collection: &'a str,
    pub(super) definition: &'a Definition,
    pub(super) extension: &'a Extension,
    pub(super) table: QualifiedName,
}

/// The layout of the table of one collection.
///
/// # Errors
/// [`ReplicateError::Settings`] where the layout needs more than the settings say.
pub(in crate::replicate) fn build(
    settings: &SinkSettings,
    collection: &str,
    definition: &Definition,
    extension: &Extension,
) -> Result<Layout, ReplicateError> {
    check_collection(settings, collection, definition)?;
    let table = table_of(settings, collection)?;
    let request = Request { settings, collection, definition, extension, table };
    match settings.layout {
        LayoutKind::Pannier => Ok(tables::pannier(&request)),
        LayoutKind::LearningVectors => Ok(tables::learning_vectors(&request)),
        LayoutKind::Embeddings => tables::embeddings(&request),
        LayoutKind::ProductEmbeddings => Ok(tables::product_embeddings(&request)),
        LayoutKind::Jobs => Ok(tables::jobs(&request)),
        LayoutKind::Vecs => Ok(tables::vecs(&request)),
        LayoutKind::MatchDocuments => Ok(tables::match_documents(&request)),
        LayoutKind::Custom => custom(&request),
    }
}

/// Refuses settings that no layout can be made of, before anything is connected to.
///
/// # Errors
/// [`ReplicateError::Settings`].
pub(in crate::replicate) fn check(settings: &SinkSettings) -> Result<(), ReplicateError> {
    let wrong = |reason: String| Err(ReplicateError::Settings { reason });
    let is_uuid = |tenant: &String| uuid::Uuid::parse_str(tenant).is_ok();
    match (settings.layout, &settings.tenant) {
        (LayoutKind::Embeddings, None) => return wrong("the layout embeddings needs a tenant".to_owned()),
        (LayoutKind::Embeddings, Some(tenant)) if settings.create && !is_uuid(tenant) => {
            return wrong(format!(
                "the tenant {tenant:?} is no UUID, which tenant_id is; for a table that stands with a text there, say \
                 that none is to be made (--no-create)"
            ));
        }
        _ => {}
    }
    match settings.layout {
        LayoutKind::Custom if settings.columns.is_empty() => wrong("the layout custom needs columns".to_owned())?,
        LayoutKind::Custom => _ = custom_key(settings)?,
        _ if !settings.columns.is_empty() => wrong("columns are mapped in the layout custom only".to_owned())?,
        _ => {}
    }
    if settings.state_schema.len() > MAX_NAME_BYTES {
        let schema = &settings.state_schema;
        wrong(format!("the schema of the state {schema:?} has more than {MAX_NAME_BYTES} bytes; name a shorter one"))?;
    }
    table_of(settings, "c").map(drop)
}

/// A UUID as Postgres shows it; `None` for a text that is none.
pub(in crate::replicate) fn canonical_uuid(text: &str) -> Option<String> {
    uuid::Uuid::parse_str(text).ok().map(|uuid| uuid.to_string())
}

/// Refuses a collection that the layout or the database has no place for.
///
/// # Errors
/// [`ReplicateError::Settings`].
pub(in crate::replicate) fn check_collection(
    settings: &SinkSettings,
    collection: &str,
    definition: &Definition,
) -> Result<(), ReplicateError> {
    let table = table_of(settings, collection)?;
    if let Some(fault) = fault_of_name(settings, &table) {
        let reason = format!("collection {collection:?} cannot have the table {}: {fault}", table.plain());
        return Err(ReplicateError::Settings { reason });
    }
    match settings.layout {
        LayoutKind::LearningVectors if definition.dim != LEARNING_DIM => Err(ReplicateError::Settings {
            reason: format!(
                "the layout learning_vectors_384_v1 is for vectors of {LEARNING_DIM} numbers, the collection has {}",
                definition.dim
            ),
        }),
        _ => Ok(()),
    }
}

/// Why no copy can have a table of this name.
fn fault_of_name(settings: &SinkSettings, table: &QualifiedName) -> Option<String> {
    if let Some(name) = [&table.schema, &table.name].into_iter().find(|name| name.len() > MAX_NAME_BYTES) {
        // Postgres would cut it, and two of one beginning would be one table.
        return Some(format!(
            "{name:?} has {} bytes and names in Postgres {MAX_NAME_BYTES} at most; copy the collection by a sink of its own \
             that names a shorter table",
            name.len()
        ));
    }
    let is_state = table.schema == settings.state_schema && fence::TABLES.contains(&table.name.as_str());
    (is_state || table.name == COLLECTIONS_TABLE).then(|| {
        "Pannier keeps its own state in a table of this name; copy the collection by a sink of its own that names another \
         table"
            .to_owned()
    })
}

/// The table, where two copies of one database would write the same rows: of one table, unless tenant or entity type
/// tell them apart.
///
/// # Errors
/// [`ReplicateError::Settings`].
pub(in crate::replicate) fn shares_rows(
    one: (&SinkSettings, &str),
    other: (&SinkSettings, &str),
) -> Result<Option<QualifiedName>, ReplicateError> {
    let table = table_of(one.0, one.1)?;
    let scope = |(settings, collection): (&SinkSettings, &str)| match settings.layout {
        LayoutKind::Embeddings => {
            let entity_type = settings.entity_type.clone().unwrap_or_else(|| collection.to_owned());
            // A UUID is one tenant in whichever spelling.
            let tenant = |tenant: &String| canonical_uuid(tenant).unwrap_or_else(|| tenant.clone());
            Some((settings.tenant.as_ref().map(tenant), entity_type))
        }
        _ => None,
    };
    let (ours, theirs) = (scope(one), scope(other));
    let is_apart = ours.is_some() && theirs.is_some() && ours != theirs;
    Ok((table == table_of(other.0, other.1)? && !is_apart).then_some(table))
}

/// The table of a collection; `{collection}` in the settings stands for its name.
fn table_of(settings: &SinkSettings, collection: &str) -> Result<QualifiedName, ReplicateError> {
    let (schema, name) = match settings.layout {
        LayoutKind::Pannier => ("pannier", collection),
        LayoutKind::LearningVectors => ("public", "learning_vectors_384_v1"),
        LayoutKind::Embeddings => ("public", "embeddings"),
        LayoutKind::ProductEmbeddings => ("public", "product_embeddings"),
        LayoutKind::Jobs => ("public", "jobs"),
        LayoutKind::Vecs => ("vecs", collection),
        LayoutKind::MatchDocuments => ("public", "documents"),
        LayoutKind::Custom => ("public", collection),
    };
    let named = settings.table.as_ref().map(|table| table.replace("{collection}", collection));
    let shares = settings.collection == ALL_COLLECTIONS && named.as_deref().unwrap_or(name) != collection;
    let tells_apart = settings.table.as_ref().is_some_and(|table| table.contains("{collection}"))
        || (settings.table.is_none() && name == collection)
        || (settings.layout == LayoutKind::Embeddings && settings.entity_type.is_none());
    if shares && !tells_apart {
        let reason = "a sink of all collections needs {collection} in its table's name".to_owned();
        return Err(ReplicateError::Settings { reason });
    }
    Ok(named.map_or_else(|| QualifiedName::new(schema, name), |named| QualifiedName::parse(&named)))
}

impl Request<'_> {
    /// A layout of these columns, whose first is the key.
    pub(super) fn layout(&self, columns: Vec<Column>) -> Layout {
        let seq = columns.iter().position(|column| column.source == Source::Seq);
        Layout {
            table: self.table.clone(),
            columns,
            key: vec![0],
            scope: Vec::new(),
            seq,
            mode: Mode::Rows,
            create: Vec::new(),
            function: None,
            tenant: None,
            collection: self.collection.to_owned(),
            dim: self.definition.dim,
            metric: self.definition.metric,
            index: self.settings.index,
            vector_type: self.settings.vector_type,
            extension: self.extension.clone(),
            keeps_extra: self.settings.extra_rows == ExtraRows::Keep,
        }
    }

    /// The vector column in the type that is asked for.
    pub(super) fn vector_column(&self, name: &str) -> Column {
        let kind = match self.settings.vector_type {
            VectorType::Vector => ColumnKind::Vector,
            VectorType::Halfvec => ColumnKind::Halfvec,
        };
        Column::optional(name, kind, Source::Vector).or(&[ColumnKind::Vector, ColumnKind::Halfvec])
    }

    /// The type of the vector column in SQL.
    pub(super) fn vector_sql(&self) -> String {
        let name = match self.settings.vector_type {
            VectorType::Vector => "vector",
            VectorType::Halfvec => "halfvec",
        };
        format!("{}({})", self.extension.name(name), self.definition.dim)
    }

    pub(super) fn model(&self) -> Option<String> {
        self.definition.embedding.as_ref().map(|embedding| embedding.model.clone())
    }
}

/// The columns that the settings map to fields of a document.
fn custom(request: &Request<'_>) -> Result<Layout, ReplicateError> {
    let key = custom_key(request.settings)?;
    let mut columns = Vec::new();
    for (name, field) in &request.settings.columns {
        columns.push(custom_column(request, name, source_of(name, field)?));
    }
    columns.swap(0, key);
    columns[0].not_null = true;
    let create = tables::create_custom(request, &columns);
    Ok(Layout { create, ..request.layout(columns) })
}

/// The place of the key among the columns, all of which are mapped to something.
///
/// # Errors
/// [`ReplicateError::Settings`] for a column that is mapped to nothing, or where no column is the key.
fn custom_key(settings: &SinkSettings) -> Result<usize, ReplicateError> {
    let wrong = |reason: String| ReplicateError::Settings { reason };
    let mut key = None;
    for (place, (name, field)) in settings.columns.iter().enumerate() {
        let is_id = source_of(name, field)? == Source::Id;
        match &settings.key {
            Some(wanted) if wanted == name && !is_id => {
                return Err(wrong(format!("the key column {name:?} must be mapped to id, and is to {field:?}")));
            }
            Some(wanted) if wanted != name => {}
            _ if is_id && key.is_none() => key = Some(place),
            _ => {}
        }
    }
    key.ok_or_else(|| match &settings.key {
        Some(wanted) => wrong(format!("the key column {wanted:?} is not among the columns")),
        None => wrong("the layout custom needs a column that is mapped to id".to_owned()),
    })
}

/// What a column is mapped to.
fn source_of(name: &str, field: &str) -> Result<Source, ReplicateError> {
    let path = field.strip_prefix("metadata.").filter(|path| path.split('.').all(|part| !part.is_empty()));
    let constant = field.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let source = match field {
        "id" => Some(Source::Id),
        "text" => Some(Source::Text),
        "vector" => Some(Source::Vector),
        "metadata" => Some(Source::Metadata),
        "created_at" => Some(Source::CreatedAt),
        "updated_at" => Some(Source::UpdatedAt),
        "seq" => Some(Source::Seq),
        _ => match (path, constant) {
            (Some(path), _) => Some(Source::Field { path: path.to_owned(), default: None }),
            (_, Some(constant)) => Some(Source::Constant(Some(constant.to_owned()))),
            _ => None,
        },
    };
    source.filter(|_| !name.is_empty()).ok_or_else(|| ReplicateError::Settings {
        reason: format!(
            "column {name:?} is mapped to {field:?}: use id, text, vector, metadata, metadata.PATH, created_at, \
             updated_at, seq, or a constant in single quotes"
        ),
    })
}

fn custom_column(request: &Request<'_>, name: &str, source: Source) -> Column {
    use ColumnKind::{Boolean, Double, Integer, Jsonb, Numeric, Text, Timestamp, Uuid};
    let scalar = [Text, Uuid, Integer, Boolean, Double, Numeric, Jsonb, Timestamp];
    let (kind, others): (ColumnKind, &[ColumnKind]) = match &source {
        Source::Vector => return request.vector_column(name),
        Source::Id => (Text, &[Uuid, Integer]),
        Source::Text => (Text, &[]),
        Source::Metadata => (Jsonb, &[]),
        Source::CreatedAt | Source::UpdatedAt => (Timestamp, &[]),
        Source::Seq => (Integer, &[]),
        Source::Field { .. } | Source::Constant(_) => (Text, &scalar),
    };
    Column::optional(name, kind, source).or(others)
}
