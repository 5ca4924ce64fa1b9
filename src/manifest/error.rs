//! What can go wrong with `FORMAT` and `MANIFEST`.

use std::path::PathBuf;

use super::StoreId;
use crate::storage::StorageError;

/// Why a store could not be recognised, or its manifest not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file could not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The directory is no store yet.
    #[error("{root} is not a data directory: it has no FORMAT file", root = root.display())]
    NotInitialised {
        /// The directory.
        root: PathBuf,
    },
    /// The directory is a store already.
    #[error("{path} exists: the directory is a store already", path = path.display())]
    AlreadyInitialised {
        /// Its `FORMAT` file.
        path: PathBuf,
    },
    /// The directory holds something else than a store.
    #[error(
        "{root} holds {found} and no FORMAT file, so it is not a data directory; choose an empty or a new directory, \
         or put FORMAT back",
        root = root.display(),
        found = found.display()
    )]
    NotAStore {
        /// The directory.
        root: PathBuf,
        /// What stands in it.
        found: PathBuf,
    },
    /// The directory holds a snapshot, whose files are shared with the store that it was taken of.
    #[error("{root} is a snapshot, which must not change; restore it into a data directory with `pannier snapshot restore`", root = root.display())]
    IsSnapshot {
        /// The directory.
        root: PathBuf,
    },
    /// A store has no manifest.
    #[error("{path} is missing and FORMAT is there; restore it from a snapshot", path = path.display())]
    Missing {
        /// The manifest's path.
        path: PathBuf,
    },
    /// A file's bytes are not what was written.
    #[error("{path} is damaged at offset {offset}: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first byte of the field that is wrong.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file was written by a newer program.
    #[error("{path} has {what} {found}, this program supports {supported}; use a newer program", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not known: "format version", "flags", "header length".
        what: &'static str,
        /// As found.
        found: u32,
        /// As supported.
        supported: u32,
    },
    /// `FORMAT` and `MANIFEST` are of two stores.
    #[error("{path} belongs to store {found}, FORMAT to store {expected}; was it copied here?", path = path.display())]
    Foreign {
        /// The manifest's path.
        path: PathBuf,
        /// Store id in the manifest.
        found: StoreId,
        /// Store id in `FORMAT`.
        expected: StoreId,
    },
    /// A manifest to be published contradicts itself: a fault of the program.
    #[error("a manifest that contradicts itself was not published: {reason}")]
    Invalid {
        /// How.
        reason: String,
    },
    /// The system has no randomness for a store id.
    #[error("the operating system gives no random numbers: {reason}")]
    Random {
        /// The system's answer.
        reason: String,
    },
}
