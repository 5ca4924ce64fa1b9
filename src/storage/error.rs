//! What can go wrong between this process and the files of a data directory.

use std::error::Error;
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
    /// The file system takes no writes at all.
    #[error(
        "{path} is on a read-only file system; copy the data directory to where it can be written, or mount it so; \
         `pannier salvage` reads it where it is",
        path = path.display()
    )]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
    },
    /// Nothing more is written: what the disk holds is not known.
    #[error("the store has stopped: {reason}")]
    Stopped {
        /// The write or sync that failed, with its causes.
        reason: String,
    },
    /// Another process, or another handle in this one, has the directory open.
    #[error(
        "{path} is held by {holder}; stop it first",
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

    /// A failed sync. [`is_failed_sync`] finds it below other errors.
    pub(crate) fn sync(path: &Path, source: io::Error) -> Self {
        Self::io(path, "sync", io::Error::new(source.kind(), FailedSync(source)))
    }
}

/// Marks an operating system's answer to a sync.
#[derive(Debug, thiserror::Error)]
#[error("{0}; what was written last may not be on the disk")]
struct FailedSync(#[source] io::Error);

/// Whether a failed sync is at the root of an error: what the disk holds is not known then, a second sync that succeeds
/// proves nothing, and the process is to stop.
pub fn is_failed_sync(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<FailedSync>())
    })
}

/// Whether a full disk is at the root of an error.
pub fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    })
}

/// An error, its cause, that one's cause, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error(transparent)]
        Same(#[from] StorageError),
        #[error("above")]
        Above(#[source] StorageError),
    }

    #[test]
    fn a_failed_sync_is_found_below_other_errors() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let path = Path::new("a");
        for error in [Outer::Same(StorageError::sync(path, full())), Outer::Above(StorageError::sync(path, full()))] {
            assert!(is_failed_sync(&error) && is_disk_full(&error));
        }
        let error = Outer::Above(StorageError::io(path, "write", full()));
        assert!(!is_failed_sync(&error) && is_disk_full(&error));
        assert!(!is_disk_full(&StorageError::io(path, "write", io::ErrorKind::NotFound.into())));
    }
}
