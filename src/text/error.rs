//! What can go wrong in a keyword index.

use std::path::PathBuf;

use crate::storage::StorageError;

/// Why a keyword index could not be read or written. It is derived: making it again mends all of them but a full disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A directory could not be made or removed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The index could not do its work.
    #[error("the keyword index in {path} failed", path = path.display())]
    Index {
        /// The index's directory.
        path: PathBuf,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
