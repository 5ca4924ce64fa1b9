//! Deletes log files that no view needs any more.

use super::LogError;
use super::files::{self, LogFile};
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

/// Files that a reader beside recovery still wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// It has read the changes up to here.
    pub after: Seq,
    /// Most bytes of files that are kept for it alone; beyond that, it has to do without.
    pub max_bytes: u64,
}

/// As [`trim_keeping`], for nobody.
#[cfg(test)]
pub fn trim(paths: &DataPaths, up_to: Seq) -> Result<Trimmed, LogError> {
    trim_keeping(paths, up_to, Keep { after: up_to, max_bytes: 0 })
}

/// Deletes, oldest first, the files in which every change is at most `up_to`; never the newest file. The youngest of
/// them stay while they hold changes after `keep.after` and have together at most `keep.max_bytes`.
///
/// Publish a manifest whose `log_start` is at least `up_to` before, or the next open will miss the deleted files. It
/// may run beside a writer: that only ever adds newer files.
///
/// # Errors
/// [`LogError::Storage`]; the files before the one that could not be deleted are gone, and the log is whole.
pub fn trim_keeping(paths: &DataPaths, up_to: Seq, keep: Keep) -> Result<Trimmed, LogError> {
    let files = files::list(paths)?;
    let mut free: Vec<(&LogFile, Seq)> = Vec::new();
    for pair in files.windows(2) {
        let (file, next) = (&pair[0], &pair[1]);
        // A file's last change is the one before the next file's first.
        if next.first_seq > up_to.next() {
            break;
        }
        free.push((file, Seq(next.first_seq.0 - 1)));
    }
    let mut kept_bytes = 0;
    while let Some((file, last_seq)) = free.last() {
        kept_bytes += len_bytes(file)?;
        if *last_seq <= keep.after || kept_bytes > keep.max_bytes {
            break;
        }
        free.pop();
    }
    let mut trimmed = Trimmed::default();
    for (file, _) in free {
        let len = len_bytes(file)?;
        // Each removal is synced before the next, so a crash cannot leave a hole in the run of files.
        remove_file(&file.path)?;
        trimmed.files += 1;
        trimmed.bytes += len;
    }
    Ok(trimmed)
}

/// Bytes of the files that hold changes after `log_start`: what recovery would replay.
///
/// # Errors
/// [`LogError::Storage`].
pub fn needed_bytes(paths: &DataPaths, log_start: Seq) -> Result<u64, LogError> {
    let files = files::list(paths)?;
    let first = files.windows(2).take_while(|pair| pair[1].first_seq <= log_start.next()).count();
    files.iter().skip(first).map(len_bytes).sum()
}

fn len_bytes(file: &LogFile) -> Result<u64, LogError> {
    Ok(file_len(&file.path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_for_a_slow_reader_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        std::fs::create_dir_all(paths.log_dir()).unwrap();
        for first in [1, 11, 21, 31, 41] {
            std::fs::write(paths.log_file(first), [0; 100]).unwrap();
        }
        let left = || files::list(&paths).unwrap().iter().map(|file| file.first_seq.0).collect::<Vec<_>>();
        let keep = |after, max_bytes| Keep { after: Seq(after), max_bytes };
        assert_eq!(needed_bytes(&paths, Seq(30)).unwrap(), 200);
        trim_keeping(&paths, Seq(30), keep(5, 1_000)).unwrap();
        assert_eq!(left(), [1, 11, 21, 31, 41], "it has read to 5");
        trim_keeping(&paths, Seq(30), keep(12, 1_000)).unwrap();
        assert_eq!(left(), [11, 21, 31, 41]);
        assert_eq!(trim_keeping(&paths, Seq(30), keep(12, 150)).unwrap(), Trimmed { files: 1, bytes: 100 });
        assert_eq!(left(), [21, 31, 41], "two files are more than the bound");
        assert_eq!(needed_bytes(&paths, Seq(30)).unwrap(), 200);
        trim(&paths, Seq(100)).unwrap();
        assert_eq!(left(), [41]);
    }
}
