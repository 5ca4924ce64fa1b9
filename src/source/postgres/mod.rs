//! A table or a query of a Postgres as a source of documents: page by page, from where the last run ended.

mod existing;
mod reader;
mod shape;
mod statements;

use std::fmt;

use super::key;
use crate::postgres::QualifiedName;
use crate::types::Metadata;

pub use reader::TableReader;
use shape::Shape;

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct TableSource {
    /// The table or query.
    pub relation: Relation,
    /// Columns that name a row; their values joined by colons are the document's id, colons within them escaped.
    pub key: Vec<String>,
    /// A column whose value rises with every change of a row.
    pub cursor: Option<String>,
    /// Time or number before the last cursor that is read again, as the database writes it: rows whose transaction
    /// began earlier and ended later than others'.
    pub overlap: Option<String>,
    /// How rows that are gone are found.
    pub deletions: Deletions,
    /// Columns that become fields; every one where it is `None`.
    pub columns: Option<Vec<String>>,
    /// Columns that do not.
    pub exclude: Vec<String>,
    /// Rows read at a time.
    pub page_rows: usize,
}

/// A table or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// A table or view.
    Table(QualifiedName),
    /// The text of a SELECT.
    Query(String),
}

/// How rows that are gone are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletions {
    /// They are not.
    Ignored,
    /// A column says so: a boolean that is true, or anything else that is not null.
    Flag(String),
    /// Ids that the table does not have any more.
    Missing,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// All rows, after a key. For sources without a cursor.
    Keys(Option<Vec<String>>),
    /// Rows whose cursor is null, after a key.
    NullCursors(Option<Vec<String>>),
    /// Rows from a cursor on, its own included, less the overlap; all rows that have one where it is `None`.
    From(Option<String>),
    /// Rows after this one, by cursor and then by key.
    After {
        /// Its cursor.
        cursor: String,
        /// Its key.
        key: Vec<String>,
    },
}

/// A row that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The values of its key.
    pub key: Vec<String>,
    /// Its cursor, as the database writes it.
    pub cursor: Option<String>,
    /// Whether its flag says that it is gone.
    pub is_deleted: bool,
    /// Its columns, or why they cannot be fields.
    pub fields: Result<Metadata, String>,
    /// Of everything in it.
    pub hash: u64,
}

/// Rows that are no documents of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Rows of which a column of the key is null.
    pub without_key: u64,
    /// Rows beyond the first of every key.
    pub repeated: u64,
}

/// Rows, and where the next ones begin; `None` after the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// By cursor and key.
    pub rows: Vec<Row>,
    /// The next page.
    pub next: Option<Begin>,
}

impl Row {
    /// The key as a document's id.
    pub fn id(&self) -> String {
        key::id_of(&self.key)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(name) => write!(f, "table {}", name.plain()),
            Self::Query(_) => f.write_str("the query"),
        }
    }
}

impl TableSource {
    /// What tells this source from others: two runs of which this differs do not go on from each other.
    pub fn identity(&self, place: &str) -> String {
        let relation = match &self.relation {
            Relation::Table(name) => name.plain(),
            Relation::Query(query) => format!("({})", query.split_whitespace().collect::<Vec<_>>().join(" ")),
        };
        let cursor = self.cursor.as_deref().unwrap_or("-");
        format!("{place} {relation} key {} cursor {cursor}", self.key.join(","))
    }
}
