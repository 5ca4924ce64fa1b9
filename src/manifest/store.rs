//! A store's first moment, its opening, and each new manifest.

use std::path::PathBuf;

use super::format::{decode_format, decode_manifest, encode_format, encode_manifest, stored_version};
use super::{Manifest, ManifestError, StoreId, finish_replacement};
use crate::storage::{DataPaths, create_dir_all, list_entries, publish, read_file, remove_dir_all, remove_temporaries};

/// In every snapshot, and in no store.
pub const SNAPSHOT_FILE: &str = "SNAPSHOT";

impl Manifest {
    /// Makes the directory a store. Call it under the directory's lock; it may hold `LOCK`, what an interrupted call of
    /// this function left, and a file system's `lost+found`, and nothing else.
    ///
    /// # Errors
    /// [`ManifestError::AlreadyInitialised`], [`ManifestError::NotAStore`], [`ManifestError::Random`],
    /// [`ManifestError::Storage`].
    pub fn create(paths: &DataPaths) -> Result<Self, ManifestError> {
        create_dir_all(paths.root())?;
        if read_file(&paths.format())?.is_some() {
            return Err(ManifestError::AlreadyInitialised { path: paths.format() });
        }
        if let Some(found) = find_foreign(paths)? {
            return Err(not_a_store(paths, found));
        }
        // Only after nothing foreign was found: somebody else's temporaries are not ours to remove.
        remove_temporaries(paths.root())?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|e| ManifestError::Random { reason: e.to_string() })?;
        let manifest = Self::first(StoreId(id));
        // FORMAT comes last: it says that the rest is there.
        publish(&paths.manifest(), &encode_manifest(&manifest)?)?;
        publish(&paths.format(), &encode_format(manifest.store_id))?;
        Ok(manifest)
    }

    /// Reads the manifest of a store.
    ///
    /// # Errors
    /// [`ManifestError::NotInitialised`] where there is no `FORMAT`; every other one names the file at fault.
    pub fn load(paths: &DataPaths) -> Result<Self, ManifestError> {
        let format = read_file(&paths.format())?
            .ok_or_else(|| ManifestError::NotInitialised { root: paths.root().to_owned() })?;
        let store_id = decode_format(&paths.format(), &format)?;
        let path = paths.manifest();
        let Some(bytes) = read_file(&path)? else { return Err(ManifestError::Missing { path }) };
        let manifest = decode_manifest(&path, &bytes)?;
        if manifest.store_id != store_id {
            return Err(ManifestError::Foreign { path, found: manifest.store_id, expected: store_id });
        }
        Ok(manifest)
    }

    /// Reads the manifest alone, whatever is wrong with the files around it.
    ///
    /// # Errors
    /// As [`Manifest::load`], without those about `FORMAT`.
    pub fn read(paths: &DataPaths) -> Result<Self, ManifestError> {
        let path = paths.manifest();
        match read_file(&path)? {
            Some(bytes) => decode_manifest(&path, &bytes),
            None => Err(ManifestError::Missing { path }),
        }
    }

    /// The format version of the manifest on disk, and the file's bytes.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn stored_version(paths: &DataPaths) -> Result<(u32, u64), ManifestError> {
        Self::read(paths)?;
        let bytes = read_file(&paths.manifest())?.unwrap_or_default();
        Ok((stored_version(&bytes), bytes.len() as u64))
    }

    /// Loads the store, or makes the directory one. Finishes a restore that was begun, and removes what an interrupted
    /// publish or dry run and an interrupted removal of a replaced store left. Call it under the directory's lock.
    ///
    /// # Errors
    /// As [`Manifest::create`] and [`Manifest::load`].
    pub fn open(paths: &DataPaths) -> Result<Self, ManifestError> {
        refuse_snapshot(paths)?;
        finish_replacement(paths)?;
        if read_file(&paths.format())?.is_none() {
            return Self::create(paths);
        }
        let manifest = Self::load(paths)?;
        remove_temporaries(paths.root())?;
        remove_dir_all(&paths.dry_run_dir())?;
        remove_dir_all(&paths.discarded_dir())?;
        Ok(manifest)
    }

    /// Replaces the manifest on disk by this one, with the next version.
    ///
    /// Publish and sync every file that it names before, and remove files that it no longer names after.
    ///
    /// # Errors
    /// [`ManifestError::Invalid`] and [`ManifestError::Storage`]; `self` then keeps its version. After a failed sync
    /// ([`crate::storage::is_failed_sync`]) either manifest may be on disk, so nothing more may be published before the
    /// store is opened again. After any other error it is the one before, since what can fail comes before the rename.
    pub fn publish(&mut self, paths: &DataPaths) -> Result<(), ManifestError> {
        let next = self.next()?;
        publish(&paths.manifest(), &encode_manifest(&next)?)?;
        self.version = next.version;
        Ok(())
    }

    /// This manifest with the next version.
    ///
    /// # Errors
    /// [`ManifestError::Invalid`].
    pub(super) fn next(&self) -> Result<Self, ManifestError> {
        let next = Self { version: self.version + 1, ..self.clone() };
        next.check().map_err(|reason| ManifestError::Invalid { reason })?;
        Ok(next)
    }
}

/// Refuses a directory that holds something else than a store. Call it before the directory's lock is taken, which
/// makes a file.
///
/// # Errors
/// [`ManifestError::NotAStore`]; [`ManifestError::Storage`] when the directory cannot be listed.
pub fn refuse_foreign(paths: &DataPaths) -> Result<(), ManifestError> {
    let is_store = || paths.format().exists() || paths.restore_marker().exists();
    if is_store() {
        return Ok(());
    }
    let Some(found) = find_foreign(paths)? else { return Ok(()) };
    // Another process may have made the store meanwhile, or may be restoring one: the lock tells.
    if is_store() || (found == paths.restore_dir() && paths.lock().exists()) {
        return Ok(());
    }
    Err(not_a_store(paths, found))
}

fn not_a_store(paths: &DataPaths, found: PathBuf) -> ManifestError {
    ManifestError::NotAStore { root: paths.root().to_owned(), found }
}

/// Refuses a snapshot's directory, in which nothing may change. Call it before the directory's lock is taken, which
/// makes a file.
///
/// # Errors
/// [`ManifestError::IsSnapshot`].
pub fn refuse_snapshot(paths: &DataPaths) -> Result<(), ManifestError> {
    match is_snapshot(paths) {
        true => Err(ManifestError::IsSnapshot { root: paths.root().to_owned() }),
        false => Ok(()),
    }
}

/// Whether the directory is a snapshot's.
pub fn is_snapshot(paths: &DataPaths) -> bool {
    paths.root().join(SNAPSHOT_FILE).exists()
}

/// Something in a directory without `FORMAT` that makes it no place for a new store.
fn find_foreign(paths: &DataPaths) -> Result<Option<PathBuf>, ManifestError> {
    for path in list_entries(paths.root())? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = path == paths.lock()
            || name == "lost+found"
            || (name.ends_with(".tmp") && (name.starts_with("FORMAT.") || name.starts_with("MANIFEST.")))
            || (path == paths.manifest() && is_first(paths)?);
        if !ours {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether the manifest is one that [`Manifest::create`] wrote before it was interrupted: the first, and empty.
fn is_first(paths: &DataPaths) -> Result<bool, ManifestError> {
    let path = paths.manifest();
    let Some(bytes) = read_file(&path)? else { return Ok(false) };
    Ok(decode_manifest(&path, &bytes).is_ok_and(|manifest| manifest == Manifest::first(manifest.store_id)))
}
