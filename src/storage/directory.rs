//! Changes to directories that last: each is followed by a sync of the directory that it changed.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use super::StorageError;
use super::disk::{self, DiskDirectory};

/// Makes the entries of a directory durable: names created, renamed and removed.
///
/// # Errors
/// [`StorageError::Io`]. After a failed sync the caller must not assume that a second one would help.
pub fn sync_directory(dir: &Path) -> Result<(), StorageError> {
    sync_opened(&open_directory(dir)?)
}

/// As [`sync_directory`], of a directory and all below it; one that is not there has no names.
///
/// # Errors
/// As [`sync_directory`].
pub fn sync_directories(dir: &Path) -> Result<(), StorageError> {
    if !dir.is_dir() {
        return Ok(());
    }
    sync_directory(dir)?;
    // A link is not followed: what it leads to is not ours.
    let below = list_entries(dir)?.into_iter().filter(|entry| !entry.is_symlink());
    below.into_iter().try_for_each(|entry| sync_directories(&entry))
}

/// Makes a directory's own name durable, where this process may look into the directory that holds it.
///
/// # Errors
/// As [`sync_directory`].
pub fn sync_name(dir: &Path) -> Result<(), StorageError> {
    match DiskDirectory::open(parent_of(dir)) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        opened => sync_opened(&opened.map_err(|e| StorageError::io(parent_of(dir), "open", e))?),
    }
}

/// Opens a directory in which a name is about to change. Once the name has changed nothing but the sync can fail, and a
/// directory that is gone, or cannot be opened, is not taken for a disk that failed.
///
/// # Errors
/// [`StorageError::Io`].
pub(super) fn open_directory(dir: &Path) -> Result<DiskDirectory, StorageError> {
    DiskDirectory::open(dir).map_err(|e| StorageError::io(dir, "open", e))
}

/// As [`sync_directory`].
///
/// # Errors
/// As [`sync_directory`].
pub(super) fn sync_opened(dir: &DiskDirectory) -> Result<(), StorageError> {
    dir.sync().map_err(|e| StorageError::sync(dir.path(), e))
}

/// Makes `dir` and whatever is missing above it, each durable in its parent. An existing directory is no error.
///
/// # Errors
/// [`StorageError::Io`].
pub fn create_dir_all(dir: &Path) -> Result<(), StorageError> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = parent_of(dir);
    if parent != dir {
        create_dir_all(parent)?;
    }
    let opened = open_directory(parent)?;
    match disk::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => {
            Err(StorageError::io(dir, "create the directory", e))
        }
        _ => sync_opened(&opened),
    }
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// [`StorageError::Io`].
pub fn remove_file(path: &Path) -> Result<(), StorageError> {
    remove(path, disk::remove_file)
}

/// Removes a directory and everything below it; one that is not there is no error.
///
/// # Errors
/// [`StorageError::Io`].
pub fn remove_dir_all(path: &Path) -> Result<(), StorageError> {
    remove(path, disk::remove_dir_all)
}

fn remove(path: &Path, remove: fn(&Path) -> io::Result<()>) -> Result<(), StorageError> {
    let parent = match DiskDirectory::open(parent_of(path)) {
        // Another thread may have removed it with everything in it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|e| StorageError::io(parent_of(path), "open", e))?,
    };
    match remove(path) {
        Ok(()) => sync_opened(&parent),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StorageError::io(path, "remove", e)),
    }
}

/// Removes a file of derived data, without a sync: after a power cut it may be there again.
///
/// # Errors
/// [`StorageError::Io`], also where there is no such file.
#[cfg(feature = "text")]
pub fn remove_unsynced(path: &Path) -> Result<(), StorageError> {
    disk::remove_file(path).map_err(|e| StorageError::io(path, "remove", e))
}

/// Everything directly in `dir`, by name: files, directories, links; a directory that is not there holds nothing.
///
/// # Errors
/// [`StorageError::Io`].
pub fn list_entries(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    Ok(listed(dir)?.into_iter().map(|(path, _)| path).collect())
}

/// Bytes of a file.
///
/// # Errors
/// [`StorageError::Io`].
pub fn file_len(path: &Path) -> Result<u64, StorageError> {
    Ok(fs::metadata(path).map_err(|e| StorageError::io(path, "read the length of", e))?.len())
}

/// The files directly in `dir`, by name; a directory that is not there holds none.
///
/// # Errors
/// [`StorageError::Io`].
pub fn list_files(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    Ok(listed(dir)?.into_iter().filter_map(|(path, kind)| kind.is_file().then_some(path)).collect())
}

/// What stands directly in `dir`, by name, with its kind; links are not followed.
fn listed(dir: &Path) -> Result<Vec<(PathBuf, FileType)>, StorageError> {
    let fail = |e| StorageError::io(dir, "list", e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e)),
    };
    let read = |entry: io::Result<fs::DirEntry>| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
    let mut found = entries.map(|entry| read(entry).map_err(fail)).collect::<Result<Vec<_>, _>>()?;
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// The files anywhere below `dir`, by path; a directory that is not there holds none.
///
/// # Errors
/// [`StorageError::Io`].
pub fn list_files_below(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut files = list_files(dir)?;
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(e) => return Err(StorageError::io(dir, "list", e)),
    };
    for entry in entries {
        let path = entry.map_err(|e| StorageError::io(dir, "list", e))?.path();
        // A link is not followed: what it leads to is not ours.
        if path.is_dir() && !path.is_symlink() {
            files.extend(list_files_below(&path)?);
        }
    }
    files.sort();
    Ok(files)
}

/// A whole file; `None` where there is none.
///
/// # Errors
/// [`StorageError::Io`].
pub fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StorageError::io(path, "read", e)),
    }
}

/// A whole file of at most `limit` bytes; `None` where there is none. For a file that a client named, which may as well
/// be a device or a pipe: those have no end, and are not opened.
///
/// # Errors
/// [`StorageError::Io`], also for what is no regular file and for one that is longer.
#[cfg(feature = "postgres")]
pub fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StorageError> {
    use std::io::Read;
    let fail = |e| StorageError::io(path, "read", e);
    let opened = match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(io::Error::other("it is no regular file")),
        found => found.and_then(|_| disk::open_unwaiting(path)),
    };
    let file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    match bytes.len() as u64 > limit {
        true => Err(fail(io::Error::other(format!("it has more than {limit} bytes")))),
        false => Ok(Some(bytes)),
    }
}

/// Bytes that this process may still write to the file system of `path`.
///
/// # Errors
/// [`StorageError::Io`].
pub fn disk_free(path: &Path) -> Result<u64, StorageError> {
    fs2::available_space(path).map_err(|e| StorageError::io(path, "read the free space of", e))
}

/// The directory that holds `path`'s name.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fault::{Faults, Operation, Then};
    use crate::storage::is_failed_sync;

    #[test]
    fn directories_are_made_durable_from_the_top() {
        let root = tempfile::tempdir().unwrap();
        let faults = Faults::watch(root.path());
        create_dir_all(&root.path().join("a/b")).unwrap();
        use Operation::{Create, Sync};
        assert_eq!(faults.seen(), [Create, Sync, Create, Sync]);
        create_dir_all(&root.path().join("a/b")).unwrap();
        assert_eq!(faults.seen().len(), 4, "an existing directory costs nothing");
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        remove_file(&root.path().join("a")).unwrap();
        remove_dir_all(&root.path().join("b")).unwrap();
        assert_eq!(list_files(&root.path().join("c")).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(read_file(&root.path().join("d")).unwrap(), None);
        assert!(disk_free(root.path()).unwrap() > 0);
    }

    #[test]
    fn a_directory_that_is_gone_is_no_failed_sync() {
        let root = tempfile::tempdir().unwrap();
        let error = sync_directory(&root.path().join("a")).unwrap_err();
        assert!(!is_failed_sync(&error), "{error}");
        fs::create_dir(root.path().join("a")).unwrap();
        let opened = open_directory(&root.path().join("a")).unwrap();
        remove_dir_all(&root.path().join("a")).unwrap();
        sync_opened(&opened).unwrap();
        let _faults = Faults::arm_only(root.path(), Operation::Sync, 0, Then::Recover);
        let error = sync_opened(&opened).unwrap_err();
        assert!(is_failed_sync(&error), "{error}");
    }

    #[test]
    fn the_names_of_a_whole_tree_are_synced() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/file"), "x").unwrap();
        let faults = Faults::watch(root.path());
        sync_directories(&root.path().join("a")).unwrap();
        sync_directories(&root.path().join("absent")).unwrap();
        sync_name(&root.path().join("a")).unwrap();
        assert_eq!(faults.seen(), [Operation::Sync; 3]);
    }

    #[cfg(all(unix, feature = "postgres"))]
    #[test]
    fn of_what_clients_name_only_small_regular_files_are_read() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a");
        assert_eq!(read_small(&file, 4).unwrap(), None);
        fs::write(&file, "four").unwrap();
        assert_eq!(read_small(&file, 4).unwrap(), Some(b"four".to_vec()));
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_small(&link, 4).unwrap(), Some(b"four".to_vec()));
        let pipe = root.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, limit, why) in [
            (file.as_path(), 3, "more than 3 bytes"),
            (root.path(), 4, "no regular file"),
            (Path::new("/dev/zero"), 4, "no regular file"),
            (&pipe, 4, "no regular file"),
        ] {
            let error = read_small(path, limit).unwrap_err();
            assert!(crate::types::Chain(&error).to_string().contains(why), "{}: {error:?}", path.display());
        }
    }

    #[test]
    fn a_file_in_place_of_a_directory_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "x").unwrap();
        let error = create_dir_all(&root.path().join("a/b")).unwrap_err();
        assert!(error.to_string().contains("/a"), "{error}");
    }

    #[test]
    fn what_cannot_be_removed_stays() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a");
        fs::write(&file, "x").unwrap();
        let faults = Faults::arm(root.path(), 0, Then::Recover);
        assert!(remove_file(&file).is_err() && faults.fired());
        assert!(file.exists());
    }
}
