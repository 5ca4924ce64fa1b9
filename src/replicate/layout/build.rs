//! From a sink's settings and a collection's definition to the layout of its table.

use crate::postgres::QualifiedName;
use crate::types::Definition;

use super::super::ReplicateError;
use super::super::settings::{ALL_COLLECTIONS, ExtraRows, LayoutKind, SinkSettings, VectorType};
use super::tables;
use super::{Column, ColumnKind, Extension, Layout, Mode, Source};

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
    check_definition(settings, definition)?;
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
    let wrong = |reason: &str| Err(ReplicateError::Settings { reason: reason.to_owned() });
    match settings.layout {
        LayoutKind::Embeddings if settings.tenant.is_none() => wrong("the layout embeddings needs a tenant"),
        LayoutKind::Custom if settings.columns.is_empty() => wrong("the layout custom needs columns"),
        kind if kind != LayoutKind::Custom && !settings.columns.is_empty() => {
            wrong("columns are mapped in the layout custom only")
        }
        _ => table_of(settings, "c").map(drop),
    }
}

/// Refuses a collection that the layout has no place for.
///
/// # Errors
/// [`ReplicateError::Settings`].
pub(in crate::replicate) fn check_definition(
    settings: &SinkSettings,
    definition: &Definition,
) -> Result<(), ReplicateError> {
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

/// The table, where two copies of one database would write the same rows: of one table, unless tenant or entity type tell
/// them apart.
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
            Some((settings.tenant.clone(), entity_type))
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
    let settings = request.settings;
    let wrong = |reason: String| ReplicateError::Settings { reason };
    let mut columns = Vec::new();
    for (name, field) in &settings.columns {
        columns.push(custom_column(request, name, field).ok_or_else(|| {
            wrong(format!(
                "column {name:?} is mapped to {field:?}: use id, text, vector, metadata, metadata.PATH, created_at, \
                 updated_at, seq, or a constant in single quotes"
            ))
        })?);
    }
    let is_key = |column: &Column| match &settings.key {
        Some(key) => column.name == *key,
        None => column.source == Source::Id,
    };
    let Some(key) = columns.iter().position(is_key) else {
        return Err(wrong("the layout custom needs a column that is mapped to id".to_owned()));
    };
    if columns[key].source != Source::Id {
        return Err(wrong(format!("the key column {:?} must be mapped to id", columns[key].name)));
    }
    columns.swap(0, key);
    columns[0].not_null = true;
    let create = tables::create_custom(request, &columns);
    Ok(Layout { create, ..request.layout(columns) })
}

fn custom_column(request: &Request<'_>, name: &str, field: &str) -> Option<Column> {
    use ColumnKind::{Boolean, Double, Integer, Jsonb, Text, Timestamp, Uuid};
    let optional = |kind, source| Column::optional(name, kind, source);
    let scalar = [Text, Uuid, Integer, Boolean, Double, Jsonb, Timestamp];
    Some(match field {
        "id" => optional(Text, Source::Id).or(&[Uuid, Integer]),
        "text" => optional(Text, Source::Text),
        "vector" => request.vector_column(name),
        "metadata" => optional(Jsonb, Source::Metadata),
        "created_at" => optional(Timestamp, Source::CreatedAt),
        "updated_at" => optional(Timestamp, Source::UpdatedAt),
        "seq" => optional(Integer, Source::Seq),
        _ => match (field.strip_prefix("metadata."), field.strip_prefix('\'').and_then(|f| f.strip_suffix('\''))) {
            (Some(path), _) if !path.is_empty() => {
                optional(Text, Source::Field { path: path.to_owned(), default: None }).or(&scalar)
            }
            (_, Some(constant)) => optional(Text, Source::Constant(Some(constant.to_owned()))).or(&scalar),
            _ => return None,
        },
    })
}
