//! A file that is read at any place, by several threads at once, by calls and not through a map.

use std::io::ErrorKind;
use std::path::PathBuf;

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

#[cfg(test)]
mod tests {
    use super::*;

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
