//! The shapes of tables: which column holds what of a document, and how such a table is made.

mod build;
mod tables;

use sha2::{Digest, Sha256};

use crate::postgres::{Oid, QualifiedName, Type, quote_identifier, quote_literal};
use crate::types::Metric;

use super::settings::{IndexKind, VectorType};
use super::shape::Shape;

pub(super) use build::{build, canonical_uuid, check, check_collection, shares_rows};

/// The extension as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extension {
    /// The schema that holds its types and operators.
    pub(super) schema: String,
    /// The type `vector[]`, for parameters.
    pub(super) array: Type,
}

impl Extension {
    /// From what `pg_type` says of `vector`.
    pub(super) fn new(schema: String, oid: Oid, array_oid: Oid) -> Self {
        let vector = Type::new("vector".into(), oid, crate::postgres::Kind::Simple, schema.clone());
        let array = Type::new("_vector".into(), array_oid, crate::postgres::Kind::Array(vector), schema.clone());
        Self { schema, array }
    }

    /// A type or an operator class of it, qualified.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(name))
    }
}

/// What a column can hold, told from its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Text,
    Uuid,
    Integer,
    Boolean,
    Double,
    /// Numbers with all their digits.
    Numeric,
    Timestamp,
    Jsonb,
    Vector,
    Halfvec,
}

impl ColumnKind {
    /// By the name in `pg_type`; `None` for a type that no column of ours can have.
    pub(super) fn of_type(name: &str) -> Option<Self> {
        Some(match name {
            "text" | "varchar" | "bpchar" => Self::Text,
            "uuid" => Self::Uuid,
            "int8" | "int4" | "int2" => Self::Integer,
            "bool" => Self::Boolean,
            "float8" | "float4" => Self::Double,
            "numeric" => Self::Numeric,
            "timestamptz" => Self::Timestamp,
            "jsonb" => Self::Jsonb,
            "vector" => Self::Vector,
            "halfvec" => Self::Halfvec,
            _ => return None,
        })
    }

    /// As people write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Uuid => "uuid",
            Self::Integer => "bigint",
            Self::Boolean => "boolean",
            Self::Double => "double precision",
            Self::Numeric => "numeric",
            Self::Timestamp => "timestamptz",
            Self::Jsonb => "jsonb",
            Self::Vector => "vector",
            Self::Halfvec => "halfvec",
        }
    }
}

/// What of a document a column holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// The id: as it is in a text, as a number, or as a UUID (made of the id where it is none).
    Id,
    /// The text.
    Text,
    /// The vector.
    Vector,
    /// All metadata.
    Metadata,
    /// One field of the metadata, by its path; else the default.
    Field { path: String, default: Option<String> },
    /// The same in every row.
    Constant(Option<String>),
    /// When it was first written.
    CreatedAt,
    /// When it was last written.
    UpdatedAt,
    /// The change that wrote it.
    Seq,
}

/// A column that we write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    /// What it is; that of an adopted table may be another of `accepts`.
    pub(super) kind: ColumnKind,
    pub(super) accepts: Vec<ColumnKind>,
    pub(super) source: Source,
    pub(super) not_null: bool,
}

/// How documents are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mode {
    /// A row a document.
    Rows,
    /// The vector into a field of a JSON column of rows that somebody else makes.
    Inside { column: String, field: String },
}

/// The shape of one table, for one collection.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) table: QualifiedName,
    pub(super) columns: Vec<Column>,
    /// The columns of the key.
    pub(super) key: Vec<usize>,
    /// Constant columns that tell our rows from others'.
    pub(super) scope: Vec<usize>,
    /// The column that guards a row from being overwritten by an older change.
    pub(super) seq: Option<usize>,
    pub(super) mode: Mode,
    /// Makes the table; empty where only an existing one will do.
    pub(super) create: Vec<String>,
    /// What finds rows by vector in the database, where the layout has such a function.
    pub(super) function: Option<QualifiedName>,
    /// The tenant for row-level security.
    pub(super) tenant: Option<String>,
    pub(super) collection: String,
    pub(super) dim: u32,
    pub(super) metric: Metric,
    pub(super) index: IndexKind,
    pub(super) vector_type: VectorType,
    pub(super) extension: Extension,
    /// Rows that the collection lacks are somebody else's, and stay.
    pub(super) keeps_extra: bool,
}

impl Layout {
    /// The vector column, where rows have one.
    pub(super) fn vector(&self) -> Option<usize> {
        self.columns.iter().position(|column| column.source == Source::Vector)
    }

    /// The quoted name of a column.
    pub(super) fn quoted(&self, index: usize) -> String {
        quote_identifier(&self.columns[index].name)
    }

    /// The type of a column as statements write it.
    pub(super) fn type_sql(&self, column: &Column) -> String {
        match column.kind {
            ColumnKind::Vector | ColumnKind::Halfvec => {
                format!("{}({})", self.extension.name(column.kind.name()), self.dim)
            }
            kind => kind.name().to_owned(),
        }
    }

    /// A condition that holds for our rows, over the alias `t`.
    pub(super) fn scope_condition(&self) -> String {
        let conditions = self.scope.iter().filter_map(|&index| match &self.columns[index].source {
            Source::Constant(Some(value)) => Some(format!("t.{} = {}", self.quoted(index), quote_literal(value))),
            _ => None,
        });
        let all: Vec<String> = conditions.collect();
        if all.is_empty() { "true".to_owned() } else { all.join(" and ") }
    }

    /// What stands in the rows, of a collection by its number. A change of how sources are shown costs a comparison of
    /// all rows, no more.
    pub(in crate::replicate) fn shape(&self, collection: u32) -> Shape {
        let columns: Vec<String> = self.columns.iter().map(|c| format!("{:?} {:?}", c.name, c.source)).collect();
        let place = format!("{:?} {:?}", self.table, self.scope_condition());
        Shape { collection, columns: digest(&columns.join("\n")), place: digest(&place) }
    }

    /// The operator class of the index.
    pub(super) fn operator_class(&self) -> String {
        let metric = match self.metric {
            Metric::Cosine => "cosine",
            Metric::Dot => "ip",
            Metric::L2 => "l2",
        };
        let kind = match self.vector_type {
            VectorType::Vector => "vector",
            VectorType::Halfvec => "halfvec",
        };
        format!("{kind}_{metric}_ops")
    }
}

/// The first 8 bytes of the SHA-256.
fn digest(text: &str) -> u64 {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

impl Column {
    /// One that must have a value.
    pub(super) fn needed(name: &str, kind: ColumnKind, source: Source) -> Self {
        Self { name: name.to_owned(), kind, accepts: vec![kind], source, not_null: true }
    }

    /// One that may be NULL.
    pub(super) fn optional(name: &str, kind: ColumnKind, source: Source) -> Self {
        Self { not_null: false, ..Self::needed(name, kind, source) }
    }

    /// It may have one of these types in an adopted table, too.
    pub(super) fn or(mut self, kinds: &[ColumnKind]) -> Self {
        self.accepts.extend(kinds);
        self
    }
}
