//! Which log file is the newest, beside the files: without it, a log whose newest file was deleted reads like a shorter one.
//!
//! The mark is written once a file and its name are durable, and before a change that stands in it is answered. So the
//! file that it names, or a later one, is there, unless somebody removed it. Nothing else depends on it: stores without a
//! mark, or with a damaged one, are read as they are, and get one when they are opened for writing.

use std::path::PathBuf;

use super::LogError;
use super::files::LogFile;
use crate::storage::{DataPaths, StorageError, crc32c, publish, read_file};
use crate::types::Seq;

const MAGIC: [u8; 8] = *b"PANNNEWL";
const VERSION: u32 = 1;
/// Magic, version, zero, first seq, checksum.
const BYTES: usize = 28;

fn path(paths: &DataPaths) -> PathBuf {
    paths.log_dir().join("NEWEST")
}

/// Marks the file that begins with `first_seq`, durably.
pub(super) fn mark(paths: &DataPaths, first_seq: Seq) -> Result<(), StorageError> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(first_seq.0.to_le_bytes());
    bytes.extend(crc32c(&bytes).to_le_bytes());
    publish(&path(paths), &bytes)
}

/// The first seq of the marked file; `None` where there is no mark that can be read.
pub(super) fn marked(paths: &DataPaths) -> Result<Option<Seq>, LogError> {
    let Some(bytes) = read_file(&path(paths))? else { return Ok(None) };
    let seq = decode(&bytes);
    if seq.is_none() {
        tracing::warn!(path = %path(paths).display(), "the mark of the newest log file is damaged and is made again");
    }
    Ok(seq)
}

fn decode(bytes: &[u8]) -> Option<Seq> {
    let (content, checksum) = bytes.split_last_chunk::<4>()?;
    let seq = content.last_chunk::<8>()?;
    let is_ours = bytes.len() == BYTES && content.starts_with(&MAGIC) && content[8..12] == VERSION.to_le_bytes();
    (is_ours && crc32c(content).to_le_bytes() == *checksum).then(|| Seq(u64::from_le_bytes(*seq)))
}

/// Looks whether the newest file of a log is there, whoever writes it.
///
/// # Errors
/// [`LogError::Missing`] when it is not; [`LogError::Storage`].
#[cfg(feature = "server")]
pub fn check_newest(paths: &DataPaths) -> Result<(), LogError> {
    check(paths, &super::files::list(paths)?)
}

/// # Errors
/// [`LogError::Missing`] when neither the marked file nor a later one is among `files`.
pub(super) fn check(paths: &DataPaths, files: &[LogFile]) -> Result<(), LogError> {
    let Some(seq) = marked(paths)? else { return Ok(()) };
    match files.last() {
        Some(newest) if newest.first_seq >= seq => Ok(()),
        _ => Err(LogError::Missing { seq, path: paths.log_file(seq.0) }),
    }
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
        std::fs::create_dir(paths.log_dir()).unwrap();
        mark(&paths, Seq(7)).unwrap();
        assert!(check(&paths, &[file(1), file(7)]).is_ok() && check(&paths, &[file(9)]).is_ok());
        for left in [&[][..], &[file(1)]] {
            let error = check(&paths, left).unwrap_err().to_string();
            assert!(error.contains("00000000000000000007.log is missing"), "{error}");
        }
        let whole = std::fs::read(path(&paths)).unwrap();
        for at in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            std::fs::write(path(&paths), &bytes).unwrap();
            assert_eq!(marked(&paths).unwrap(), None, "bit {at}");
            assert_eq!(decode(&whole[..at / 8]), None);
        }
    }
}
