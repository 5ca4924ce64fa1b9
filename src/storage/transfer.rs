//! Files that take another name, or a second one.

use std::fs::File;
use std::io;
use std::path::Path;

use super::StorageError;
use super::directory::{open_directory, parent_of, sync_opened};
use super::disk;
use super::publish::Publishing;

/// Gives a file or directory another name on the same file system, durably. What stood at `to` as a file is replaced.
///
/// # Errors
/// [`StorageError::Io`]; the name is then the old one or, if only a sync failed, the new one.
pub fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    let (old, new) = (parent_of(from), parent_of(to));
    let opened = (open_directory(old)?, open_directory(new)?);
    disk::rename(from, to).map_err(|e| StorageError::io(from, "rename", e))?;
    sync_opened(&opened.1)?;
    if old == new { Ok(()) } else { sync_opened(&opened.0) }
}

/// Gives a published file, which never changes, a second name, or the same bytes where it can have none. Its directory
/// must exist and is the caller's to sync: of many files, once.
///
/// # Errors
/// [`StorageError::Io`]; nothing then stands at `to`.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    match link(from, to)? {
        true => Ok(()),
        false => copy(from, to),
    }
}

/// Gives a published file a second name. `false` where it can have none: another file system, one without links, or too
/// many of them; bytes can always be copied.
///
/// # Errors
/// [`StorageError::Io`].
pub fn link(from: &Path, to: &Path) -> Result<bool, StorageError> {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    match disk::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported) => Ok(false),
        Err(e) => Err(StorageError::io(from, "link", e)),
    }
}

/// Copies a file, durably.
///
/// # Errors
/// [`StorageError::Io`]; nothing then stands at `to`.
pub fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let mut file = File::open(from).map_err(|e| StorageError::io(from, "open", e))?;
    let mut copy = Publishing::create(to)?;
    io::copy(&mut file, &mut copy).map_err(|e| StorageError::io(to, "write", e))?;
    copy.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fault::{Faults, Operation, Then};
    use std::fs;

    #[test]
    fn a_link_shares_its_bytes_and_a_copy_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a"), "bytes").unwrap();
        link_or_copy(&path("a"), &path("b")).unwrap();
        copy(&path("a"), &path("c")).unwrap();
        fs::write(path("a"), "other").unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!((read("b"), read("c")), ("other".into(), "bytes".into()));
        assert!(link_or_copy(&path("a"), &path("b")).is_err(), "a name that is taken is not replaced");
        assert!(link_or_copy(&path("absent"), &path("d")).is_err());
    }

    #[test]
    fn a_rename_syncs_both_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("a"), "x").unwrap();
        let faults = Faults::watch(dir.path());
        rename(&dir.path().join("a"), &dir.path().join("sub/b")).unwrap();
        assert_eq!(faults.seen(), [Operation::Rename, Operation::Sync, Operation::Sync]);
        drop(faults);
        let _faults = Faults::arm(dir.path(), 0, Then::Recover);
        assert!(rename(&dir.path().join("sub/b"), &dir.path().join("a")).is_err());
        assert!(dir.path().join("sub/b").exists());
    }
}
