//! What can keep a sink from its work.

use crate::collection::CollectionError;
use crate::postgres::{PostgresError, Trouble};
use crate::storage::StorageError;

/// Why a sink cannot go on, or why a command on it was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicateError {
    /// The settings are wrong.
    #[error("{reason}")]
    Settings {
        /// What is wrong with them.
        reason: String,
    },
    /// There is no sink of this name.
    #[error("there is no sink {name:?}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// A sink of this name is there.
    #[error("there is a sink {name:?} already; remove it first, or choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// The sink cannot do this now.
    #[error("the sink is {phase}: {reason}")]
    Busy {
        /// What it is doing.
        phase: String,
        /// What would have to happen before, and why it has not.
        reason: String,
    },
    /// The database lacks pgvector.
    #[error("the database has no extension \"vector\"; run: CREATE EXTENSION vector")]
    NoExtension,
    /// Its pgvector is too old.
    #[error(
        "pgvector is {found}, at least {needed} is needed (older ones can corrupt an index); run: ALTER EXTENSION vector UPDATE"
    )]
    OldExtension {
        /// Its version.
        found: String,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// The vector column has another dimension.
    #[error("column {column} of {table} has {got} dimensions, the collection has {expected} (to mend: {mend})")]
    Dim {
        /// The table.
        table: String,
        /// Its vector column.
        column: String,
        /// Of the collection.
        expected: u32,
        /// Of the column.
        got: i32,
        /// The statement that mends it.
        mend: String,
    },
    /// The table is not as the layout needs it.
    #[error("table {table} is not as the sink needs it: {}", differences.join("; "))]
    Drift {
        /// The table.
        table: String,
        /// Each thing that differs, with the statement that mends it.
        differences: Vec<String>,
    },
    /// Another sink writes to the table.
    #[error(
        "the table {table} is written by the sink {sink:?} of {} already, and each would delete the other's rows; \
         remove that sink or name another table{}",
        store.as_ref().map_or("this store".to_owned(), |store| format!("store {store}")),
        if store.is_some() { "; where that store is no more, repair this one with take-over" } else { "" }
    )]
    TableTaken {
        /// The table.
        table: String,
        /// The other sink's name.
        sink: String,
        /// Its store; `None` where that is this one.
        store: Option<String>,
    },
    /// The table has rows that the collection lacks.
    #[error(
        "table {table} has {count} rows that the collection lacks; remove the sink and add it again with extra_rows \
         \"keep\" to leave them where they are, or \"delete\" to delete them"
    )]
    ExtraRows {
        /// The table.
        table: String,
        /// How many.
        count: u64,
    },
    /// The role may not do what the sink does, or makes.
    #[error("the role {role} lacks {missing} on {object} (to mend: {mend})")]
    Rights {
        /// The table, the schema or the database.
        object: String,
        /// Who we are there.
        role: String,
        /// The rights.
        missing: String,
        /// The statement that mends it.
        mend: String,
    },
    /// The table's columns are of other types than when the session began, and will do as well.
    #[error("the columns of table {table} or their types were changed; looking at it again")]
    Changed {
        /// The table.
        table: String,
    },
    /// The tables of the sink's state were dropped.
    #[error("tables of the sink's state were dropped from schema {schema}; they are made again")]
    StateGone {
        /// Their schema.
        schema: String,
    },
    /// Another process writes to this sink.
    #[error("another process took over this sink (epoch {found}, ours is {ours}); resume it here to take it back")]
    Fenced {
        /// The epoch that stands in the database.
        found: i64,
        /// Ours.
        ours: i64,
    },
    /// The sink's rows are another store's.
    #[error(
        "the sink's state is that of store {found}, this is store {ours}; give it another name or table, or repair it with take-over"
    )]
    Foreign {
        /// The store in the database.
        found: String,
        /// Ours.
        ours: String,
    },
    /// A COMMIT was answered with success and is not there.
    #[error("the server answered a COMMIT with success, but the cursor stands at {found}, not at {expected}")]
    CommitLost {
        /// What was committed.
        expected: i64,
        /// What is there.
        found: i64,
    },
    /// The cursor was moved as if by us, on another connection.
    #[error(
        "the cursor was moved on another connection of this process, as when its bytes arrive twice; connecting again"
    )]
    Overtaken,
    /// The sink's state is an older one of ours.
    #[error(
        "the sink's state in the database is an older one (epoch {found}, ours is {ours}), as when a backup is \
         restored there; connecting again"
    )]
    WentBack {
        /// The epoch that stands in the database.
        found: i64,
        /// Ours.
        ours: i64,
    },
    /// The sink's task broke off by a mistake of ours.
    #[error("the sink's task broke off, which is a mistake of Pannier's and worth a report; it starts again: {reason}")]
    Panicked {
        /// What it said.
        reason: String,
    },
    /// A command failed with an error that also ended the sink's session, which begins again by itself.
    #[error("{reason}")]
    Failed {
        /// The error's code.
        code: &'static str,
        /// The error and its causes.
        reason: String,
        /// Whether somebody has to mend the table.
        is_of_the_table: bool,
        /// Whether the next attempt may well succeed.
        passes_by_itself: bool,
    },
    /// The collection is gone.
    #[error("the collection {name} is not there")]
    NoCollection {
        /// Its name.
        name: String,
    },
    /// Postgres or the way there.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Our own store.
    #[error(transparent)]
    Collection(#[from] CollectionError),
    /// Our own files.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ReplicateError {
    /// Its stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Settings { .. } => "settings",
            Self::NotFound { .. } => "sink_not_found",
            Self::Exists { .. } => "sink_exists",
            Self::Busy { .. } => "sink_busy",
            Self::NoExtension => "no_extension",
            Self::OldExtension { .. } => "old_extension",
            Self::Dim { .. } => "dim_mismatch",
            Self::Drift { .. } => "schema_drift",
            Self::Rights { .. } => "missing_rights",
            Self::TableTaken { .. } => "table_taken",
            Self::ExtraRows { .. } => "extra_rows",
            Self::Changed { .. } => "table_changed",
            Self::StateGone { .. } => "state_gone",
            Self::Fenced { .. } => "fenced",
            Self::Foreign { .. } => "foreign",
            Self::CommitLost { .. } => "commit_lost",
            Self::Overtaken => "overtaken",
            Self::WentBack { .. } => "state_restored",
            Self::Panicked { .. } => "internal",
            Self::Failed { code, .. } => code,
            Self::NoCollection { .. } => "no_collection",
            Self::Postgres(error) => error.trouble().name(),
            Self::Collection(_) | Self::Storage(_) => "store",
        }
    }

    /// Whether a row is at fault, so that the others can be written without it.
    pub(super) fn is_of_a_row(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.trouble() == Trouble::Row)
    }

    /// Whether the table is not as the sink needs it, which somebody has to mend there.
    pub(crate) fn is_of_the_table(&self) -> bool {
        match self {
            Self::Drift { .. } | Self::Dim { .. } | Self::Rights { .. } | Self::ExtraRows { .. } => true,
            Self::Failed { is_of_the_table, .. } => *is_of_the_table,
            _ => false,
        }
    }

    /// Whether a table, a column or a right may be at fault.
    pub(super) fn may_be_of_a_table(&self) -> bool {
        matches!(self, Self::Postgres(error) if matches!(error.trouble(), Trouble::Schema | Trouble::Rights))
    }

    /// Whether Postgres refused a statement and the session is as good as before.
    pub(super) fn is_of_a_statement(&self) -> bool {
        matches!(self, Self::Postgres(error) if !error.ends_session())
    }

    /// Whether the next attempt may well succeed, so that it comes soon.
    pub(crate) fn passes_by_itself(&self) -> bool {
        match self {
            Self::Postgres(error) => {
                matches!(error.trouble(), Trouble::Unreachable | Trouble::Conflict | Trouble::Timeout)
            }
            Self::CommitLost { .. } | Self::Overtaken | Self::WentBack { .. } => true,
            Self::Changed { .. } | Self::StateGone { .. } => true,
            Self::Failed { passes_by_itself, .. } => *passes_by_itself,
            _ => false,
        }
    }

    /// What to tell whoever gave the command that failed; the error itself ends the session.
    pub(super) fn told(&self) -> Self {
        match self {
            Self::Busy { phase, reason } => Self::Busy { phase: phase.clone(), reason: reason.clone() },
            error => Self::Failed {
                code: error.code(),
                reason: error.chain(),
                is_of_the_table: error.is_of_the_table(),
                passes_by_itself: error.passes_by_itself(),
            },
        }
    }

    /// What may be written down, as in a log: [`chain`](Self::chain), with nothing of what a row holds.
    pub(super) fn without_values(&self) -> String {
        match self {
            Self::Postgres(error) if error.code().is_some() => error.without_values(),
            other => other.chain(),
        }
    }

    /// The message with its causes, on one line, without line breaks. Postgres' own detail may hold what a row holds.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            next = cause.source();
        }
        text.replace(['\n', '\r'], " ")
    }
}
