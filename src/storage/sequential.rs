//! A file that is written from front to back, with jumps where a header is filled in at the end.

use std::io::{self, Seek, SeekFrom, Write};
#[cfg(feature = "text")]
use std::path::PathBuf;

#[cfg(feature = "text")]
use super::StorageError;
use super::disk::DiskFile;

/// A new file and the place where the next byte goes.
#[derive(Debug)]
pub struct SequentialFile {
    file: DiskFile,
    position: u64,
}

impl SequentialFile {
    pub(super) fn new(file: DiskFile) -> Self {
        Self { file, position: 0 }
    }

    /// Makes a file that is never synced, for derived data that carries its own checksum.
    ///
    /// # Errors
    /// [`StorageError::Io`], also where there is one of this name.
    #[cfg(feature = "text")]
    pub fn create_new(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        DiskFile::create_new(path.clone()).map(Self::new).map_err(|e| StorageError::io(&path, "create", e))
    }

    /// Locks the file until it is closed.
    pub(super) fn try_lock(&self) -> Result<(), std::fs::TryLockError> {
        self.file.handle().try_lock()
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    pub(super) fn into_disk(self) -> DiskFile {
        self.file
    }

    /// Makes everything written durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Write for SequentialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.position, bytes)?;
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SequentialFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.file.len()?.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_from_the_start_the_end_or_here() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut file = SequentialFile::new(DiskFile::create(path.clone()).unwrap());
        file.write_all(b"abcdef").unwrap();
        for (to, byte) in [(SeekFrom::Start(1), b"1"), (SeekFrom::End(-1), b"2"), (SeekFrom::Current(-3), b"3")] {
            file.seek(to).unwrap();
            file.write_all(byte).unwrap();
        }
        assert!(file.seek(SeekFrom::Current(-9)).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a1c3e2");
    }
}
