//! Which log file is the newest and how long it is at least, beside the log's directory: without it, a log whose newest
//! file was deleted, or whose end was cut off, reads like a shorter one.
//!
//! The mark is written once what it names is durable: when the log is opened, before a change in a new file is
//! answered, and when the log is closed. So the file that it names, or a later one, is there with at least as many
//! bytes, unless somebody removed them. Nothing else depends on it: stores without a mark, or with a damaged one, are
//! read as they are, and get one when they are opened for writing.

use std::path::Path;

use super::LogError;
use super::files::LogFile;
use crate::storage::{DataPaths, StorageError, crc32c, publish, read_file};
use crate::types::Seq;

const MAGIC: [u8; 8] = *b"PANNNEWL";
const VERSION: u32 = 2;
/// Magic, version, zero, first seq, length, checksum.
const BYTES: usize = 36;

/// What was durable of the newest file when the mark was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The first seq of the file.
    pub first_seq: Seq,
    /// Its bytes; all are whole records.
    pub len: u64,
}

/// Publishes a mark, durably.
pub(super) fn mark(paths: &DataPaths, mark: Mark) -> Result<(), StorageError> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(mark.first_seq.0.to_le_bytes());
    bytes.extend(mark.len.to_le_bytes());
    bytes.extend(crc32c(&bytes).to_le_bytes());
    publish(&paths.newest_log_mark(), &bytes)
}

/// The present mark; `None` where there is none, or a damaged one.
///
/// # Errors
/// [`LogError::Unsupported`] when a newer program wrote it; [`LogError::Storage`].
pub(super) fn marked(paths: &DataPaths) -> Result<Option<Mark>, LogError> {
    let Some(bytes) = read_file(&paths.newest_log_mark())? else { return Ok(None) };
    let path = paths.newest_log_mark();
    match decode(&bytes) {
        Some(Decoded::Mark(mark)) => Ok(Some(mark)),
        Some(Decoded::Newer(found)) => {
            Err(LogError::Unsupported { path, what: "format version", found, supported: VERSION })
        }
        None => {
            tracing::warn!(path = %path.display(), "the mark of the newest log file is damaged and is made again");
            Ok(None)
        }
    }
}

/// What a file with a right checksum says.
#[derive(Debug, PartialEq, Eq)]
enum Decoded {
    Mark(Mark),
    /// It has this version, which only a newer program reads.
    Newer(u32),
}

fn decode(bytes: &[u8]) -> Option<Decoded> {
    let (content, checksum) = bytes.split_last_chunk::<4>()?;
    if !content.starts_with(&MAGIC) || crc32c(content).to_le_bytes() != *checksum {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(*content.get(at..)?.first_chunk()?));
    match u32::from_le_bytes(*content.get(8..)?.first_chunk()?) {
        VERSION if bytes.len() == BYTES => Some(Decoded::Mark(Mark { first_seq: Seq(number(16)?), len: number(24)? })),
        newer if newer > VERSION => Some(Decoded::Newer(newer)),
        _ => None,
    }
}

/// Looks whether the newest file of a log is there, whoever writes it.
///
/// # Errors
/// [`LogError::Missing`] when it is not; [`LogError::Unsupported`], [`LogError::Storage`].
#[cfg(feature = "server")]
pub fn check_newest(paths: &DataPaths) -> Result<(), LogError> {
    check(paths, &super::files::list(paths)?).map(drop)
}

/// Returns how many bytes the last of `files` has at least.
///
/// # Errors
/// [`LogError::Missing`] when neither the marked file nor a later one is among `files`; [`LogError::Unsupported`] when
/// a newer program wrote the mark.
pub(super) fn check(paths: &DataPaths, files: &[LogFile]) -> Result<u64, LogError> {
    let Some(mark) = marked(paths)? else { return Ok(0) };
    match files.last() {
        Some(newest) if newest.first_seq == mark.first_seq => Ok(mark.len),
        Some(newest) if newest.first_seq > mark.first_seq => Ok(0),
        _ => Err(LogError::Missing { seq: mark.first_seq, path: paths.log_file(mark.first_seq.0) }),
    }
}

/// Refuses the newest file where it has `len` bytes of whole records and had `durable_len` or more when it was marked.
///
/// # Errors
/// [`LogError::Damaged`].
pub(super) fn check_len(path: &Path, len: u64, durable_len: u64) -> Result<(), LogError> {
    if len >= durable_len {
        return Ok(());
    }
    let reason = "changes that were durable when it was last opened or closed are gone";
    let gone = len..durable_len;
    Err(LogError::Damaged { path: path.to_owned(), offset: len, reason, ranges: vec![gone] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_without_its_newest_file_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(root.path());
        let file = |seq: u64| LogFile { first_seq: Seq(seq), path: paths.log_file(seq) };
        assert!(check(&paths, &[]).is_ok() && check(&paths, &[file(1)]).is_ok());
        let made = Mark { first_seq: Seq(7), len: 104 };
        mark(&paths, made).unwrap();
        assert_eq!(marked(&paths).unwrap(), Some(made));
        assert_eq!((check(&paths, &[file(1), file(7)]).unwrap(), check(&paths, &[file(9)]).unwrap()), (104, 0));
        for left in [&[][..], &[file(1)]] {
            let error = check(&paths, left).unwrap_err().to_string();
            assert!(error.contains("00000000000000000007.log is missing"), "{error}");
        }
        let whole = std::fs::read(paths.newest_log_mark()).unwrap();
        for at in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            std::fs::write(paths.newest_log_mark(), &bytes).unwrap();
            assert_eq!(marked(&paths).unwrap(), None, "bit {at}");
            assert_eq!(decode(&whole[..at / 8]), None);
        }
    }

    #[test]
    fn a_mark_of_another_version_is_made_again_only_where_it_is_older() {
        let root = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(root.path());
        let file = LogFile { first_seq: Seq(7), path: paths.log_file(7) };
        mark(&paths, Mark { first_seq: Seq(7), len: 104 }).unwrap();
        let whole = std::fs::read(paths.newest_log_mark()).unwrap();
        for (version, more) in [(VERSION - 1, 0), (VERSION + 1, 0), (VERSION + 1, 8)] {
            let mut bytes = whole[..BYTES - 4].to_vec();
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            bytes.extend(vec![1; more]);
            bytes.extend(crc32c(&bytes).to_le_bytes());
            std::fs::write(paths.newest_log_mark(), &bytes).unwrap();
            let checked = check(&paths, std::slice::from_ref(&file));
            if version < VERSION {
                assert_eq!(checked.unwrap(), 0);
                continue;
            }
            let refused = checked.unwrap_err().to_string();
            assert!(refused.contains("NEWEST has format version 3, this program supports 2"), "{refused}");
            assert_eq!(std::fs::read(paths.newest_log_mark()).unwrap(), bytes);
        }
    }
}
