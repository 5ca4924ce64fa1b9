//! One store in the place of another: docs/formats/snapshot.md, "A restore".
//!
//! The new store stands whole and durable in `restore/`. Publishing the marker `RESTORE` is the step that decides; what
//! follows only moves names, can be done again from anywhere, and is finished by whoever opens the directory next.

use std::path::Path;

use super::ManifestError;
use super::format::decode_format;
use crate::storage::{
    DataPaths, StorageError, crc32c, create_dir_all, publish, read_file, remove_dir_all, remove_file, rename,
    sync_directories, sync_directory, sync_name,
};

const MAGIC: [u8; 8] = *b"PANNREST";
const VERSION: u32 = 1;

/// What makes a store, in the order in which it leaves: without `MANIFEST` no program opens what is half way.
const PARTS: [&str; 6] = ["MANIFEST", "FORMAT", "NEWEST", "log", "segments", "MIGRATIONS"];

/// In `restore/`, where the new store's timeline may be one that sources were read into: `sources/` goes with the old
/// store.
pub const FORGET_SOURCES: &str = "FORGET_SOURCES";

/// Puts the store in `restore/` in the place of the one in the directory, which moves to `before-restore/`. Call it
/// under the directory's lock.
///
/// # Errors
/// [`ManifestError`]. The next call of [`finish_replacement`] then leaves the old store or the new one.
pub fn replace_store(paths: &DataPaths) -> Result<(), ManifestError> {
    remove_dir_all(&paths.before_restore_dir())?;
    publish(&paths.restore_marker(), &marker())?;
    move_in(paths).map(drop)
}

/// Finishes a replacement that was decided, or removes what one that was not has left in a store. Returns whether the
/// store was replaced. All names of the store are durable then. Call it under the directory's lock, before anything is
/// read.
///
/// # Errors
/// [`ManifestError`]; calling it again goes on.
pub fn finish_replacement(paths: &DataPaths) -> Result<bool, ManifestError> {
    settle_names(paths)?;
    move_in(paths)
}

/// Makes the names durable that stand in the directory. A process that was killed before it synced one, or whose sync
/// failed, leaves a name that may be gone after a power cut. What is decided and acknowledged by it must not outlive
/// it.
fn settle_names(paths: &DataPaths) -> Result<(), ManifestError> {
    if !is_there(paths.root())? {
        return Ok(());
    }
    if !paths.format().exists() {
        sync_name(paths.root())?;
    }
    sync_directory(paths.root())?;
    for dir in [paths.log_dir(), paths.segments_dir()] {
        sync_directories(&dir)?;
    }
    // Of these only what stands directly in them is moved, or asked for.
    for dir in [paths.restore_dir(), paths.before_restore_dir(), paths.snapshots_dir()] {
        if dir.is_dir() {
            sync_directory(&dir)?;
        }
    }
    Ok(())
}

fn move_in(paths: &DataPaths) -> Result<bool, ManifestError> {
    let (staged, before) = (paths.restore_dir(), paths.before_restore_dir());
    let Some(bytes) = read_file(&paths.restore_marker())? else {
        if is_store(paths) {
            remove_dir_all(&staged)?;
        }
        return Ok(false);
    };
    check_marker(paths, &bytes)?;
    create_dir_all(&before)?;
    for part in PARTS {
        let present = paths.root().join(part);
        // Where the new one has moved in already, what stands there is not the old one.
        if is_there(&staged.join(part))? && is_there(&present)? {
            rename(&present, &before.join(part))?;
        }
    }
    if is_there(&staged.join("MANIFEST"))? {
        // Both speak of the old store, and are made again.
        remove_dir_all(&paths.meta_dir())?;
        remove_dir_all(&paths.text_dir())?;
        if is_there(&staged.join(FORGET_SOURCES))? {
            remove_dir_all(&paths.sources_dir())?;
        }
    }
    for part in PARTS.iter().rev() {
        let waiting = staged.join(part);
        if is_there(&waiting)? {
            rename(&waiting, &paths.root().join(part))?;
        }
    }
    remove_file(&paths.restore_marker())?;
    remove_dir_all(&staged)?;
    Ok(true)
}

/// Whether the directory is a store that this program knows. In another one, `restore/` may be anything.
fn is_store(paths: &DataPaths) -> bool {
    let format = read_file(&paths.format()).ok().flatten();
    format.is_some_and(|bytes| decode_format(&paths.format(), &bytes).is_ok())
}

/// What cannot be looked at may be there: taken for gone, it would be removed with `restore/`.
fn is_there(path: &Path) -> Result<bool, ManifestError> {
    Ok(path.try_exists().map_err(|e| StorageError::io(path, "look for", e))?)
}

fn marker() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(crc32c(&bytes).to_le_bytes());
    bytes
}

fn check_marker(paths: &DataPaths, bytes: &[u8]) -> Result<(), ManifestError> {
    let path = paths.restore_marker();
    if bytes == marker() {
        return Ok(());
    }
    let sound = bytes.len() == 16 && bytes.starts_with(&MAGIC) && bytes[12..] == crc32c(&bytes[..12]).to_le_bytes();
    match sound {
        true => {
            let found = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
            Err(ManifestError::Unsupported { path, what: "format version", found, supported: VERSION })
        }
        false => Err(ManifestError::Damaged { path, offset: 0, reason: "it is no restore marker".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::storage::fault::{Event, Faults, History, Operation, Then};
    use crate::storage::is_failed_sync;
    use std::fs;

    /// A store with a file in `log/` that names it.
    fn store(paths: &DataPaths, name: &str) -> Manifest {
        let manifest = Manifest::create(paths).unwrap();
        for dir in [paths.log_dir(), paths.segments_dir()] {
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(name), name).unwrap();
        }
        manifest
    }

    #[test]
    fn killed_at_every_step_it_is_the_old_store_or_the_new_one() {
        let mut outcomes = Vec::new();
        for fail_at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let paths = DataPaths::new(dir.path());
            let old = store(&paths, "old");
            fs::create_dir(paths.meta_dir()).unwrap();
            let new = store(&DataPaths::new(paths.restore_dir()), "new");
            let faults = Faults::arm(dir.path(), fail_at, Then::Crash);
            let result = replace_store(&paths);
            let fired = faults.fired();
            drop(faults);
            assert_eq!(result.is_err(), fired, "{fail_at}");
            let is_new = finish_replacement(&paths).unwrap() || !fired;
            let found = Manifest::load(&paths).unwrap();
            // The marker's removal may be what failed: then the new store stands there, and nothing is left to do.
            let expected = if found == new { "new" } else { "old" };
            assert!(!is_new || expected == "new", "{fail_at}");
            assert_eq!(found, if expected == "new" { new } else { old.clone() }, "{fail_at}");
            for dir in [paths.log_dir(), paths.segments_dir()] {
                assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "{fail_at}");
                assert_eq!(fs::read_to_string(dir.join(expected)).unwrap(), expected, "{fail_at}");
            }
            assert!(!paths.restore_dir().exists() && !paths.restore_marker().exists(), "{fail_at}");
            assert_eq!(paths.meta_dir().exists(), expected == "old", "{fail_at}");
            if expected == "new" {
                let before = DataPaths::new(paths.before_restore_dir());
                assert_eq!(Manifest::load(&before).unwrap(), old, "{fail_at}");
                assert!(before.log_dir().join("old").exists(), "{fail_at}");
            }
            outcomes.push(expected);
            if !fired {
                break;
            }
        }
        assert!(outcomes.len() > 15 && outcomes.is_sorted_by(|a, b| a >= b), "{outcomes:?}");
        assert!(outcomes.contains(&"old") && outcomes.contains(&"new"), "{outcomes:?}");
    }

    #[test]
    fn names_are_durable_before_anything_is_decided_by_them() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        store(&paths, "a");
        fs::create_dir_all(paths.segment_dir(1, 1)).unwrap();
        let history = History::record(dir.path());
        assert!(!finish_replacement(&paths).unwrap());
        let synced = [paths.root().to_owned(), paths.log_dir(), paths.segments_dir(), paths.collection_dir(1)];
        let synced = synced.into_iter().chain([paths.segment_dir(1, 1)]);
        assert_eq!(history.events(), synced.map(|path| Event::SyncDir { path }).collect::<Vec<_>>());
        drop(history);
        let _faults = Faults::arm_only(dir.path(), Operation::Sync, 0, Then::Recover);
        assert!(is_failed_sync(&Manifest::open(&paths).unwrap_err()), "what the disk holds is not known");
    }

    #[test]
    fn an_empty_directory_takes_a_store_in() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        let new = store(&DataPaths::new(paths.restore_dir()), "new");
        replace_store(&paths).unwrap();
        assert_eq!(Manifest::load(&paths).unwrap(), new);
    }

    #[test]
    fn what_stands_in_restore_is_removed_in_a_store_that_is_known_alone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        store(&paths, "a");
        let mine = paths.restore_dir().join("mine");
        fs::create_dir(paths.restore_dir()).unwrap();
        fs::write(&mine, "mine").unwrap();
        let known = fs::read(paths.format()).unwrap();
        let mut newer = known.clone();
        newer[8] = 2;
        let crc = crc32c(&newer[..36]);
        newer[36..].copy_from_slice(&crc.to_le_bytes());
        for format in [Some(&newer[..]), Some(b"damaged"), None, Some(&known)] {
            match format {
                Some(bytes) => fs::write(paths.format(), bytes).unwrap(),
                None => fs::remove_file(paths.format()).unwrap(),
            }
            assert!(!finish_replacement(&paths).unwrap());
            assert_eq!(mine.exists(), format != Some(&known[..]), "{format:?}");
        }
    }

    #[test]
    fn a_damaged_marker_is_refused_and_a_newer_one_named() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        fs::write(paths.restore_marker(), b"PANNREST").unwrap();
        assert!(matches!(finish_replacement(&paths), Err(ManifestError::Damaged { .. })));
        let mut newer = MAGIC.to_vec();
        newer.extend(2u32.to_le_bytes());
        newer.extend(crc32c(&newer).to_le_bytes());
        fs::write(paths.restore_marker(), newer).unwrap();
        assert!(matches!(finish_replacement(&paths), Err(ManifestError::Unsupported { found: 2, .. })));
    }
}
