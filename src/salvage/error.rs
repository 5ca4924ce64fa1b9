//! Why nothing could be salvaged at all.

use std::path::PathBuf;

use crate::collection::CollectionError;
use crate::database::OpenError;
use crate::storage::StorageError;

/// Why a salvage could not be done. Damage is none of it: that stands in the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SalvageError {
    /// There is nothing to salvage.
    #[error("there is no directory {}", path.display())]
    NoDirectory {
        /// The directory asked for.
        path: PathBuf,
    },
    /// Nothing in the directory is a part of a store.
    #[error("{} holds no part of a store: no manifest, log or segment; name the damaged directory with --data", path.display())]
    NotAStore {
        /// The directory asked for.
        path: PathBuf,
    },
    /// A restore was begun there, and its parts are on their way.
    #[error("a restore into {} was begun and not finished; start the server, which finishes it", path.display())]
    HalfRestored {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The new store would stand in the damaged one.
    #[error("{} is in the damaged directory, which is only read; name a new directory beside it", path.display())]
    Inside {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The place where the new store is put together holds the damaged one.
    #[error("the new store would be put together in {}, which holds the damaged one; salvage to another name", path.display())]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// The place for the new store is taken.
    #[error("{} is not empty; name a new directory to salvage to", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The new store, which is put together beside it, cannot take the place of the directory.
    #[error("{} cannot be replaced, as a mounted volume cannot; name a directory in it that does not exist yet", path.display())]
    InTheWay {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: StorageError,
    },
    /// The damaged directory is in use or cannot be listed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The new store could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new store could not be written.
    #[error(transparent)]
    Collection(#[from] CollectionError),
}
