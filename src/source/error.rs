//! What can be wrong with a source, and what to do about it.

use crate::postgres::PostgresError;

/// Why documents cannot be read from a source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No variable says where the database is.
    #[error(
        "nothing says where the database is: set DATABASE_URL, or {prefix}_URL, or {prefix}_HOST and its like, or name a \
         file with --url-file"
    )]
    NoConnection {
        /// The variables' first part.
        prefix: String,
    },
    /// A variable cannot be understood. Its value is not shown: it may be secret.
    #[error("the variable {name} {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The table or query has no such column.
    #[error("there is no column {column:?} in {place}; there are {present}")]
    NoColumn {
        /// The column asked for.
        column: String,
        /// The table or query.
        place: String,
        /// The columns that there are.
        present: String,
    },
    /// A column's type cannot become a field.
    #[error(
        "column {column:?} of {place} is {kind}, which cannot become a field; leave it out with --exclude-columns {column}"
    )]
    Kind {
        /// The column.
        column: String,
        /// The table or query.
        place: String,
        /// Its type.
        kind: String,
    },
    /// What is read once more before the cursor is not such a value.
    #[error("--overlap {overlap:?} {reason}; beside the cursor {cursor} it is such as --overlap {example}")]
    Overlap {
        /// As it came.
        overlap: String,
        /// What is wrong with it.
        reason: String,
        /// The cursor's column.
        cursor: String,
        /// One that could be meant.
        example: &'static str,
    },
    /// A row cannot become a document.
    #[error("the row with key {key}: {reason}")]
    Row {
        /// Its key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// A page ends where it began.
    #[error(
        "the pages of {place} do not go on after a row: the key {key} cannot be compared by its text ({kinds}); read it with \
         --query and cast the key to text"
    )]
    Stuck {
        /// The table or query.
        place: String,
        /// The columns of the key.
        key: String,
        /// Their types.
        kinds: String,
    },
    /// Deletions cannot be found in this way.
    #[error("{reason}")]
    Deletions {
        /// Why not, and what to do instead.
        reason: String,
    },
    /// What was kept of an earlier run belongs to another source.
    #[error(
        "what is kept of this source is of {found}, and this is {asked}; name the source with --source-name, or begin anew with --restart"
    )]
    Other {
        /// The source that was kept.
        found: String,
        /// The source of this run.
        asked: String,
    },
    /// What was kept of an earlier run cannot be understood.
    #[error("what is kept of this source cannot be read ({reason}); begin anew with --restart")]
    State {
        /// Why not.
        reason: String,
    },
    /// A time or a pattern of times cannot be understood.
    #[error("{text:?} is no {what}; write {example}")]
    Schedule {
        /// As given.
        text: String,
        /// What it should be.
        what: &'static str,
        /// What to write.
        example: &'static str,
    },
    /// A change event cannot be understood.
    #[error("{reason}")]
    Event {
        /// What is wrong with it.
        reason: String,
    },
    /// The database.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}
