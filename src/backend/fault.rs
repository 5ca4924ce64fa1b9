//! What went wrong with the database of a collection, told apart by what is to be done about it.

use crate::collection::{BackendFault, CollectionError};
use crate::postgres::{PostgresError, Trouble};
use crate::types::{Chain, CollectionName};

use super::pool::{Failure, MAX_SESSIONS};
use super::table::TableError;

/// Brings what is wrong with a table past the pool, which tries failures of the database again.
pub(super) fn settled<T>(result: Result<T, TableError>) -> Result<Result<T, TableError>, PostgresError> {
    match result {
        Err(TableError::Postgres(error)) => Err(error),
        settled => Ok(settled),
    }
}

pub(super) fn settle<T>(
    name: &CollectionName,
    settled: Result<Result<T, TableError>, Failure>,
) -> Result<T, CollectionError> {
    let of = |fault, detail| CollectionError::Backend { name: name.clone(), fault, detail };
    settled.map_err(|failure| failed(name, failure))?.map_err(|error| match error {
        TableError::Conflict(detail) => of(BackendFault::Conflict, detail),
        TableError::Drift(detail) => of(BackendFault::Drift, detail),
        TableError::Dim(detail) => of(BackendFault::Dim, detail),
        TableError::Lacking(detail) => of(BackendFault::Extension, detail),
        TableError::Postgres(error) => failed(name, Failure::Clear(error)),
    })
}

pub(super) fn failed(name: &CollectionName, failure: Failure) -> CollectionError {
    let of = |fault, detail| CollectionError::Backend { name: name.clone(), fault, detail };
    let error = match failure {
        Failure::Busy => return CollectionError::SessionsBusy { name: name.clone(), sessions: MAX_SESSIONS },
        Failure::Gone(gone) => return gone.into(),
        Failure::Unknown(error) => {
            let why = Chain(&error).to_string();
            let detail = format!("{why}; whether the write was done is not known. Send it again, which does no harm");
            return of(BackendFault::Unknown, detail);
        }
        Failure::Clear(error) => error,
    };
    let (fault, why) = (fault_of(&error), Chain(&error).to_string());
    let advice = match fault {
        BackendFault::Unreachable | BackendFault::Busy => "; nothing was changed. Try again shortly",
        BackendFault::Timeout => {
            "; nothing was changed. Ask for less: a statement may take 22.9 s, or the statement_timeout of the role or the \
             URL where that is less"
        }
        BackendFault::Drift => "; the table is not as it was made",
        BackendFault::Dim => {
            "; give its column \"embedding\" the dimension of the collection again, or DELETE the collection, which drops \
             the table with all of its documents, and PUT it again"
        }
        BackendFault::Rights => {
            "; grant the role of the URL USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on the table, and to make \
             a table CREATE on the schema, or on the database where that is not there"
        }
        _ => "",
    };
    of(fault, format!("{why}{advice}"))
}

fn fault_of(error: &PostgresError) -> BackendFault {
    match error.trouble() {
        Trouble::Unreachable => BackendFault::Unreachable,
        Trouble::Conflict => BackendFault::Busy,
        Trouble::Timeout => BackendFault::Timeout,
        Trouble::Authentication => BackendFault::Authentication,
        Trouble::Tls => BackendFault::Tls,
        Trouble::Rights => BackendFault::Rights,
        Trouble::Settings => BackendFault::Settings,
        // There is no such database.
        Trouble::Schema if matches!(error, PostgresError::Connect { .. }) => BackendFault::Settings,
        Trouble::Schema => BackendFault::Drift,
        Trouble::Row if is_of_dimensions(error) => BackendFault::Dim,
        Trouble::Row => BackendFault::Refused,
        Trouble::Other => BackendFault::Failed,
    }
}

/// pgvector's words where a column or a stored vector has another dimension. What is sent was held to the definition
/// before, so it is the table that has another.
fn is_of_dimensions(error: &PostgresError) -> bool {
    let said = |message: &str| {
        message.starts_with("different vector dimensions")
            || message.starts_with("different halfvec dimensions")
            || message.starts_with("expected ") && message.contains(" dimensions, not ")
    };
    matches!(error, PostgresError::Statement { code, message, .. } if code == "22000" && said(message))
}
