//! What can go wrong between this process and the files of a data directory.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation on a file or directory failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused an operation.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb: "write", "sync".
        action: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process, or another handle in this one, has the directory open.
    #[error(
        "{path} is held by {holder}; stop it, or use another data directory",
        path = path.display(),
        holder = holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Process id of the holder, where the lock file could be read.
        holder: Option<u32>,
    },
}

impl StorageError {
    /// An operating system's refusal, with its path and action.
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source }
    }
}
