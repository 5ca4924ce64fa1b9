//! Which log files a data directory holds.

use std::path::{Path, PathBuf};

use super::LogError;
use crate::storage::{DataPaths, list_files};
use crate::types::Seq;

/// A log file, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) first_seq: Seq,
    pub(super) path: PathBuf,
}

/// The log files, oldest first. Names that no log file has are passed over.
pub(super) fn list(paths: &DataPaths) -> Result<Vec<LogFile>, LogError> {
    let files = list_files(&paths.log_dir())?;
    // 20 digits sort as the numbers do.
    Ok(files.into_iter().filter_map(|path| Some(LogFile { first_seq: first_seq(paths, &path)?, path })).collect())
}

fn first_seq(paths: &DataPaths, path: &Path) -> Option<Seq> {
    let seq = path.file_stem()?.to_str()?.parse().ok()?;
    // Only the one spelling that we write counts.
    (paths.log_file(seq) == path).then_some(Seq(seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_count_and_they_are_in_order() {
        let root = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(root.path());
        assert_eq!(list(&paths).unwrap(), []);
        std::fs::create_dir(paths.log_dir()).unwrap();
        for name in ["7.log", "00000000000000000008.log.0.tmp", "00000000000000000009.txt", "x.log"] {
            std::fs::write(paths.log_dir().join(name), "").unwrap();
        }
        for seq in [1_000, 1, 20] {
            std::fs::write(paths.log_file(seq), "").unwrap();
        }
        let seqs: Vec<u64> = list(&paths).unwrap().iter().map(|file| file.first_seq.0).collect();
        assert_eq!(seqs, [1, 20, 1_000]);
    }
}
