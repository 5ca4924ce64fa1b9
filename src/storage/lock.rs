//! The lock that keeps a second process out of a data directory.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::StorageError;
use super::disk::DiskFile;

/// Holds a data directory until dropped. The operating system frees it when the process dies, so a lock file that is
/// left behind locks nobody out.
#[derive(Debug)]
pub struct DirectoryLock {
    file: DiskFile,
    /// Somebody may take the lock's file for stale and remove it; the directory stays.
    directory: Option<File>,
}

impl DirectoryLock {
    /// Takes the lock on the file `path`, which is made where it is missing; its directory must exist.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when another handle has it, [`StorageError::ReadOnly`] where nothing can be written,
    /// [`StorageError::Io`] when the file cannot be used.
    pub fn acquire(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        let file = DiskFile::open_or_create(path.clone()).map_err(|error| match error.kind() {
            ErrorKind::ReadOnlyFilesystem => StorageError::ReadOnly { path: path.clone() },
            _ => StorageError::io(&path, "open", error),
        })?;
        match file.handle().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(&file);
                return Err(StorageError::Locked { path, holder });
            }
            Err(TryLockError::Error(e)) => return Err(StorageError::io(&path, "lock", e)),
        }
        write_holder(&file).map_err(|e| StorageError::io(&path, "write", e))?;
        Ok(Self { file, directory: None })
    }

    /// As [`DirectoryLock::acquire`], and takes the lock on the file's directory too, where the system has such locks.
    ///
    /// # Errors
    /// As there; [`StorageError::Locked`] also where only the directory is locked.
    pub fn acquire_with_directory(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let mut lock = Self::acquire(path)?;
        let path = lock.file.path();
        let Ok(directory) = File::open(path.parent().unwrap_or(Path::new("."))) else { return Ok(lock) };
        match directory.try_lock() {
            Ok(()) => lock.directory = Some(directory),
            Err(TryLockError::WouldBlock) => {
                return Err(StorageError::Locked { path: path.to_owned(), holder: None });
            }
            // Not every file system can.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(lock)
    }
}

impl Drop for DirectoryLock {
    /// Closing the file would do, but for a child process that is being started at this moment: until it runs its
    /// program it has the file open too.
    fn drop(&mut self) {
        let unlocked = self.directory.iter().try_for_each(File::unlock);
        if let Err(error) = self.file.handle().unlock().and(unlocked) {
            tracing::warn!(%error, "the data directory's lock could not be given back");
        }
    }
}

/// The pid is only for the message of whoever comes second, so what cannot be read is left out.
fn read_holder(file: &DiskFile) -> Option<u32> {
    let mut bytes = [0; 16];
    let len = file.read_at(0, &mut bytes).ok()?;
    std::str::from_utf8(&bytes[..len]).ok()?.trim().parse().ok()
}

fn write_holder(file: &DiskFile) -> std::io::Result<()> {
    file.truncate(0)?;
    file.write_at(0, format!("{}\n", std::process::id()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fault::{Faults, Plan, Then};

    #[test]
    fn a_second_holder_learns_who_is_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = DirectoryLock::acquire(&path).unwrap();
        let error = DirectoryLock::acquire(&path).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(&error, StorageError::Locked { holder: Some(holder), .. } if *holder == pid), "{error}");
        assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
        drop(first);
        DirectoryLock::acquire(&path).unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn a_file_system_that_takes_no_writes_is_named_with_what_reads_it() {
        const EROFS: i32 = 30;
        let dir = tempfile::tempdir().unwrap();
        let refused = Plan { only: &[], fail_at: 0, then: Then::Crash, errno: EROFS };
        let _faults = Faults::with(dir.path(), refused);
        let error = DirectoryLock::acquire(dir.path().join("LOCK")).unwrap_err();
        assert!(matches!(error, StorageError::ReadOnly { .. }) && error.to_string().contains("salvage"), "{error}");
    }

    #[test]
    #[cfg(unix)]
    fn a_lock_whose_file_was_removed_still_locks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let first = DirectoryLock::acquire_with_directory(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = DirectoryLock::acquire_with_directory(&path).unwrap_err();
        assert!(matches!(&error, StorageError::Locked { holder: None, .. }), "{error}");
        drop(first);
        DirectoryLock::acquire_with_directory(&path).unwrap();
    }

    #[test]
    fn what_an_earlier_holder_left_does_not_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        std::fs::write(&path, "123456789012\n").unwrap();
        let _lock = DirectoryLock::acquire(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }
}
