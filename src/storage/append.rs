//! A file that only grows at its end, and is cut only when it is recovered.

use std::path::{Path, PathBuf};

use super::StorageError;
use super::disk::DiskFile;

/// A file open for appending.
#[derive(Debug)]
pub struct AppendFile {
    file: DiskFile,
    len: u64,
}

impl AppendFile {
    /// Opens an existing file at its end.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        let file = DiskFile::open(path.clone()).map_err(|e| StorageError::io(&path, "open", e))?;
        let len = file.len().map_err(|e| StorageError::io(&path, "read the length of", e))?;
        Ok(Self { file, len })
    }

    /// A file of `len` bytes that is open already.
    pub(super) fn new(file: DiskFile, len: u64) -> Self {
        Self { file, len }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Writes `bytes` at the end. They are durable only after [`AppendFile::sync_data`].
    ///
    /// # Errors
    /// [`StorageError::Io`]; a part of the bytes may then stand behind the end, until they are overwritten or cut.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_at(self.len, bytes).map_err(|e| StorageError::io(self.path(), "write", e))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes everything appended durable, with its length (fdatasync).
    ///
    /// # Errors
    /// [`StorageError::Io`]. The kernel may have dropped the pages that it failed to write and forget the error, so a
    /// second sync that succeeds proves nothing: never retry.
    pub fn sync_data(&mut self) -> Result<(), StorageError> {
        self.file.sync_data().map_err(|e| StorageError::sync(self.path(), e))
    }

    /// Writes the bytes from `offset` to the end over themselves and makes them durable.
    ///
    /// After a failed sync in an earlier process, bytes can stand in the page cache, marked clean, and not on the disk:
    /// they read well until the machine loses power. Written once more they are dirty again, and this sync is honest.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn rewrite_from(&mut self, offset: u64) -> Result<(), StorageError> {
        let mut bytes = vec![0; self.len.saturating_sub(offset) as usize];
        let read = self.file.read_at(offset, &mut bytes).map_err(|e| StorageError::io(self.path(), "read", e))?;
        self.file.write_at(offset, &bytes[..read]).map_err(|e| StorageError::io(self.path(), "write", e))?;
        self.sync_data()
    }

    /// Cuts the file to `len` bytes and makes that durable.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn truncate(&mut self, len: u64) -> Result<(), StorageError> {
        self.file.truncate(len).map_err(|e| StorageError::io(self.path(), "truncate", e))?;
        self.len = len;
        self.file.sync_all().map_err(|e| StorageError::sync(self.path(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fault::{Faults, Operation, Then};

    #[test]
    fn appends_at_the_end_and_cuts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"ab").unwrap();
        let mut file = AppendFile::open(&path).unwrap();
        file.append(b"cdef").unwrap();
        file.sync_data().unwrap();
        assert_eq!((file.len(), file.path()), (6, path.as_path()));
        file.truncate(3).unwrap();
        file.append(b"x").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abcx");
    }

    #[test]
    fn rewriting_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"abcdef").unwrap();
        let mut file = AppendFile::open(&path).unwrap();
        let faults = Faults::watch(dir.path());
        file.rewrite_from(2).unwrap();
        assert_eq!(faults.seen(), [Operation::Write, Operation::Sync]);
        file.append(b"x").unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), file.len()), (b"abcdefx".to_vec(), 7));
    }

    #[test]
    fn a_failed_write_can_leave_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"ab").unwrap();
        let mut file = AppendFile::open(&path).unwrap();
        let _faults = Faults::arm_only(dir.path(), Operation::Write, 0, Then::Recover);
        assert!(file.append(b"cdef").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"abcd");
    }
}
