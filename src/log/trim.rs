//! Deletes log files that no view needs any more.

use super::LogError;
use super::files;
use crate::storage::{DataPaths, file_len, remove_file};
use crate::types::Seq;

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Deletes, oldest first, the files in which every change is at most `up_to`; never the newest file.
///
/// Publish a manifest whose `log_start` is at least `up_to` before, or the next open will miss the deleted files. It may
/// run beside a writer: that only ever adds newer files.
///
/// # Errors
/// [`LogError::Storage`]; the files before the one that could not be deleted are gone, and the log is whole.
pub fn trim(paths: &DataPaths, up_to: Seq) -> Result<Trimmed, LogError> {
    let files = files::list(paths)?;
    let mut trimmed = Trimmed::default();
    for pair in files.windows(2) {
        let (file, next) = (&pair[0], &pair[1]);
        // A file's last change is the one before the next file's first.
        if next.first_seq > up_to.next() {
            break;
        }
        let len = file_len(&file.path)?;
        // Each removal is synced before the next, so a crash cannot leave a hole in the run of files.
        remove_file(&file.path)?;
        trimmed.files += 1;
        trimmed.bytes += len;
    }
    Ok(trimmed)
}
