//! A file that is read at any place, by several threads at once, by calls and not through a map: what a disk does not
//! give back is an error then, where reading a map of it ends the process (SIGBUS).

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::StorageError;
use super::disk::DiskFile;

/// A published file, which never changes. What is read of it is copied, so that it does not become memory of this
/// process as the pages of a map do.
#[derive(Debug)]
pub struct ReadOnlyFile(DiskFile);

impl ReadOnlyFile {
    /// Opens the file `path`.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        DiskFile::open_to_read(path.clone()).map(Self).map_err(|e| StorageError::io(&path, "open", e))
    }

    /// Bytes of the file.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn len_bytes(&self) -> Result<u64, StorageError> {
        self.0.len().map_err(|e| StorageError::io(self.0.path(), "read the length of", e))
    }

    /// Fills `bytes` with those from `offset` on.
    ///
    /// # Errors
    /// [`StorageError::Io`], also where the file ends before.
    pub fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
        let fail = |error| StorageError::io(self.0.path(), "read", error);
        match self.0.read_at(offset, bytes).map_err(fail)? {
            read if read == bytes.len() => Ok(()),
            _ => Err(fail(ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// A whole file in memory.
#[derive(Debug)]
pub struct WholeFile {
    /// Its bytes; zeros where they cannot be read.
    pub bytes: Vec<u8>,
    /// What cannot be read, in order.
    pub unreadable: Vec<Unreadable>,
}

/// Bytes of a file that its disk does not give back.
#[derive(Debug)]
pub struct Unreadable {
    /// Which.
    pub bytes: Range<u64>,
    /// The system's answer.
    pub reason: String,
}

/// Bytes read by a call.
const CALL_BYTES: usize = 64 << 10;
/// Where these cannot be read: so many are passed over, as the system reads no fewer from a disk.
const PAGE_BYTES: usize = 4 << 10;

impl WholeFile {
    /// Reads the file `path` as far as it can be read.
    ///
    /// # Errors
    /// [`StorageError::Io`] when it cannot be opened.
    pub fn read(path: &Path) -> Result<Self, StorageError> {
        let fail = |action: &'static str| move |error| StorageError::io(path, action, error);
        let file = DiskFile::open_to_read(path.to_owned()).map_err(fail("open"))?;
        let len = file.len().map_err(fail("read the length of"))?;
        let (mut bytes, mut unreadable) = (vec![0; len as usize], Vec::new());
        for start in (0..bytes.len()).step_by(CALL_BYTES) {
            let end = bytes.len().min(start + CALL_BYTES);
            if file.read_at(start as u64, &mut bytes[start..end]).is_ok() {
                continue;
            }
            for page in (start..end).step_by(PAGE_BYTES) {
                let part = page..end.min(page + PAGE_BYTES);
                if let Err(error) = file.read_at(page as u64, &mut bytes[part.clone()]) {
                    bytes[part.clone()].fill(0);
                    let range = part.start as u64..part.end as u64;
                    unreadable.push(Unreadable { bytes: range, reason: format!("it cannot be read: {error}") });
                }
            }
        }
        Ok(Self { bytes, unreadable })
    }

    /// Why bytes in `range` cannot be read, if so.
    pub fn fault(&self, range: Range<u64>) -> Option<&Unreadable> {
        self.unreadable.iter().find(|part| part.bytes.start < range.end && range.start < part.bytes.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fault::DeadSector;

    #[test]
    fn what_cannot_be_read_is_left_out_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251 + 1) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let dead = DeadSector::new(&path, 70_000..70_512);
        let read = WholeFile::read(&path).unwrap();
        assert_eq!((read.unreadable.len(), read.unreadable[0].bytes.clone()), (1, 69_632..73_728));
        assert!(read.fault(70_000..70_001).is_some_and(|part| part.reason.contains("cannot be read")));
        assert!(read.fault(0..69_632).is_none() && read.fault(73_728..200_000).is_none());
        assert_eq!((&read.bytes[..69_632], &read.bytes[73_728..]), (&bytes[..69_632], &bytes[73_728..]));
        assert_eq!(read.bytes[69_632..73_728], [0; 4_096]);
        drop(dead);
        let read = WholeFile::read(&path).unwrap();
        assert!(read.unreadable.is_empty() && read.bytes == bytes);
        assert!(WholeFile::read(&dir.path().join("b")).is_err());
    }

    #[test]
    fn bytes_are_read_where_they_stand() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = ReadOnlyFile::open(&path).unwrap();
        let mut bytes = [0; 3];
        for (offset, expected) in [(7, b"789"), (0, b"012"), (4, b"456")] {
            file.read_exact_at(offset, &mut bytes).unwrap();
            assert_eq!(&bytes, expected);
        }
        let error = file.read_exact_at(8, &mut bytes).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
        assert!(ReadOnlyFile::open(dir.path().join("b")).is_err());
    }
}
