//! A file that is read and written at any place, by several threads at once, and is never synced.

use std::path::PathBuf;

use super::StorageError;
use super::disk::DiskFile;

/// A file of derived data. Its writes reach the disk when the operating system sees fit, in any order: whatever is read
/// from it needs a checksum of its own.
#[derive(Debug)]
pub struct RandomAccessFile(DiskFile);

impl RandomAccessFile {
    /// Opens the file `path`, or makes it, empty, where there is none; its directory must exist.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        DiskFile::open_or_create(path.clone()).map(Self).map_err(|e| StorageError::io(&path, "open", e))
    }

    /// Reads from `offset` on as many bytes as there are, up to all of `bytes`; returns how many. What another thread
    /// writes meanwhile may be read in part.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, StorageError> {
        self.0.read_at(offset, bytes).map_err(|e| StorageError::io(self.0.path(), "read", e))
    }

    /// Writes all of `bytes` from `offset` on; a gap before them reads as zeros.
    ///
    /// # Errors
    /// [`StorageError::Io`]; a part of the bytes may then have been written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.0.write_at(offset, bytes).map_err(|e| StorageError::io(self.0.path(), "write", e))
    }

    /// Makes the file empty.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn clear(&self) -> Result<(), StorageError> {
        self.0.truncate(0).map_err(|e| StorageError::io(self.0.path(), "truncate", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fault::{Faults, Then};

    #[test]
    fn bytes_are_where_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = RandomAccessFile::open(&path).unwrap();
        file.write_at(5, b"abc").unwrap();
        file.write_at(6, b"X").unwrap();
        let mut bytes = [9; 10];
        assert_eq!(file.read_at(3, &mut bytes).unwrap(), 5);
        assert_eq!(bytes, [0, 0, b'a', b'X', b'c', 9, 9, 9, 9, 9]);
        assert_eq!(file.read_at(100, &mut bytes).unwrap(), 0);
        drop(file);
        let again = RandomAccessFile::open(&path).unwrap();
        assert_eq!(again.read_at(5, &mut bytes[..3]).unwrap(), 3);
        again.clear().unwrap();
        assert_eq!(again.read_at(0, &mut bytes).unwrap(), 0);
    }

    #[test]
    fn failures_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = RandomAccessFile::open(dir.path().join("a")).unwrap();
        let _faults = Faults::arm(dir.path(), 0, Then::Crash);
        assert!(file.write_at(0, b"x").unwrap_err().to_string().ends_with("/a"));
        assert!(file.clear().is_err());
        assert!(RandomAccessFile::open(dir.path().join("b")).is_err());
    }
}
