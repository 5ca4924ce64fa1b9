//! Which snapshots a data directory has, and removing one.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use crate::manifest::SNAPSHOT_FILE;
use crate::storage::{DataPaths, StorageError, read_file, remove_dir_all, rename};

use super::contents::MAX_BYTES;
use super::{Contents, SnapshotError, SnapshotName};

/// Beside `SNAPSHOT`: when it was taken. It is no part of the state, and so not of the contents.
pub(super) const CREATED_FILE: &str = "CREATED";
/// Ends the names of directories that are no snapshots yet, or none any more.
pub(super) const STAGING: &str = ".tmp";

/// A snapshot that can be read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// Its directory.
    pub home: PathBuf,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// What it holds.
    pub contents: Contents,
}

/// A directory that is to be a snapshot.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub name: SnapshotName,
    /// The snapshot, or why it cannot be read.
    pub snapshot: Result<Snapshot, SnapshotError>,
}

/// Whoever uses a staging directory holds this: two would remove each other's.
pub(super) fn staging() -> MutexGuard<'static, ()> {
    static STAGING: Mutex<()> = Mutex::new(());
    STAGING.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn staging_dir(paths: &DataPaths, name: &SnapshotName) -> PathBuf {
    paths.snapshots_dir().join(format!(".{name}{STAGING}"))
}

/// The snapshots of a data directory, oldest first; those that cannot be read come first.
///
/// # Errors
/// [`SnapshotError::Storage`] when the directory cannot be listed.
pub fn list(data: &Path) -> Result<Vec<Found>, SnapshotError> {
    let paths = DataPaths::new(data);
    let dir = paths.snapshots_dir();
    let fail = |e| StorageError::io(&dir, "list", e);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let is_dir = entry.file_type().map_err(fail)?.is_dir();
        // Whatever has another name is not ours.
        if let Some(name) = entry.file_name().to_str().and_then(|name| SnapshotName::new(name).ok())
            && is_dir
        {
            found.push(Found { snapshot: find(data, &name), name });
        }
    }
    let time = |found: &Found| found.snapshot.as_ref().map_or(i64::MIN, |snapshot| snapshot.created_at_ms);
    found.sort_by(|a, b| time(a).cmp(&time(b)).then_with(|| a.name.cmp(&b.name)));
    Ok(found)
}

/// The snapshot of this name. Only its contents are read, none of its files.
///
/// # Errors
/// [`SnapshotError::NotFound`], [`SnapshotError::Damaged`], [`SnapshotError::Unsupported`].
pub fn find(data: &Path, name: &SnapshotName) -> Result<Snapshot, SnapshotError> {
    let home = DataPaths::new(data).snapshots_dir().join(name.as_str());
    if !home.is_dir() {
        return Err(SnapshotError::NotFound { name: name.clone() });
    }
    let contents = read_contents(&home)?;
    let created = read_file(&home.join(CREATED_FILE))?.and_then(|b| String::from_utf8(b).ok()?.trim().parse().ok());
    // A copy may have lost the file, and then its own time is the best there is.
    let modified = || {
        let modified = home.join(SNAPSHOT_FILE).metadata().ok()?.modified().ok()?;
        modified.duration_since(UNIX_EPOCH).ok()?.as_millis().try_into().ok()
    };
    let created_at_ms = created.or_else(modified).unwrap_or_default();
    Ok(Snapshot { name: name.clone(), home, created_at_ms, contents })
}

/// What the snapshot in the directory `home` should hold.
///
/// # Errors
/// [`SnapshotError::Damaged`], [`SnapshotError::Unsupported`], [`SnapshotError::Storage`].
pub fn read_contents(home: &Path) -> Result<Contents, SnapshotError> {
    let path = home.join(SNAPSHOT_FILE);
    let damaged = |reason: &str| SnapshotError::Damaged { path: path.clone(), reason: reason.to_owned() };
    let metadata = path.metadata().map_err(|_| damaged("it is missing"))?;
    if metadata.len() > MAX_BYTES {
        return Err(damaged("it is longer than any snapshot's"));
    }
    let bytes = read_file(&path)?.ok_or_else(|| damaged("it is missing"))?;
    Contents::decode(&path, &bytes)
}

/// Removes a snapshot, sound or not, once none is being taken any more. Bytes that the store or another snapshot shares
/// stay on disk.
///
/// # Errors
/// [`SnapshotError::NotFound`], [`SnapshotError::Storage`]; it is then there as a whole, or gone from every list.
pub fn delete(data: &Path, name: &SnapshotName) -> Result<(), SnapshotError> {
    let _staging = staging();
    let paths = DataPaths::new(data);
    let home = paths.snapshots_dir().join(name.as_str());
    if !home.is_dir() {
        return Err(SnapshotError::NotFound { name: name.clone() });
    }
    let doomed = staging_dir(&paths, name);
    remove_dir_all(&doomed)?;
    rename(&home, &doomed)?;
    Ok(remove_dir_all(&doomed)?)
}
