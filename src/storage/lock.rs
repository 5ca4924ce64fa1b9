//! The lock that keeps a second process out of a data directory.

use std::fs::TryLockError;
use std::path::PathBuf;

use super::StorageError;
use super::disk::DiskFile;

/// Holds a data directory until dropped. The operating system frees it when the process dies, so a lock file that is
/// left behind locks nobody out.
#[derive(Debug)]
pub struct DirectoryLock {
    file: DiskFile,
}

impl DirectoryLock {
    /// Takes the lock on the file `path`, which is made where it is missing; its directory must exist.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when another handle has it, [`StorageError::Io`] when the file cannot be used.
    pub fn acquire(path: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let path = path.into();
        let file = DiskFile::open_or_create(path.clone()).map_err(|e| StorageError::io(&path, "open", e))?;
        match file.handle().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(&file);
                return Err(StorageError::Locked { path, holder });
            }
            Err(TryLockError::Error(e)) => return Err(StorageError::io(&path, "lock", e)),
        }
        write_holder(&file).map_err(|e| StorageError::io(&path, "write", e))?;
        Ok(Self { file })
    }
}

impl Drop for DirectoryLock {
    /// Closing the file would do, but for a child process that is being started at this moment: until it runs its program
    /// it has the file open too.
    fn drop(&mut self) {
        if let Err(error) = self.file.handle().unlock() {
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
    fn what_an_earlier_holder_left_does_not_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        std::fs::write(&path, "123456789012\n").unwrap();
        let _lock = DirectoryLock::acquire(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }
}
