//! A snapshot in the place of a store: verified, put together beside it, swapped in one step.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::log::{self, LogIdentity};
use crate::manifest::{
    FORGET_SOURCES, Manifest, ManifestError, SNAPSHOT_FILE, finish_replacement, refuse_snapshot, replace_store,
};
use crate::migrate::JOURNAL_FILE;
use crate::storage::{
    DataPaths, DirectoryLock, StorageError, create_dir_all, link_or_copy, list_files_below, publish, read_file,
    remove_dir_all, rename, sync_directory,
};
use crate::types::Seq;

use super::contents::is_store_file;
use super::list::CREATED_FILE;
use super::verify::{check_opens, load_manifest, verify_bytes};
use super::{Snapshot, SnapshotError, SnapshotName, archive, find, list};

/// What stands in the data directory now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The last change.
    pub seq: Seq,
    /// The new timeline.
    pub timeline: u32,
    /// Bytes of the files taken over.
    pub bytes: u64,
    /// Where the store that stood there before is kept, if there was one.
    pub replaced: Option<PathBuf>,
}

/// What is restored.
#[derive(Clone, Debug)]
pub enum Source {
    /// A snapshot of the data directory.
    Snapshot(SnapshotName),
    /// An archive.
    Archive(PathBuf),
}

/// Below `restore/`: where an archive is unpacked.
const UNPACKED: &str = "unpacked";

/// Restores a snapshot into the directory, which no process may hold; it is made where it is missing. `progress` gets
/// the bytes verified and the bytes in all.
///
/// What stood there is kept in `before-restore/` until [`discard_replaced`]. The restored store begins a new timeline,
/// so that whoever follows the store sees that its history forked.
///
/// # Errors
/// [`SnapshotError`], also where an earlier restore's `before-restore/` is still there; the directory then holds what
/// it held before. After an error of the last steps, the next opening finds the old store or the new one.
pub fn restore(data: &Path, source: &Source, progress: &mut dyn FnMut(u64, u64)) -> Result<Restored, SnapshotError> {
    let paths = &DataPaths::new(data);
    refuse_snapshot(paths)?;
    let is_new = !data.exists();
    create_dir_all(data)?;
    // Before the lock, whose file would be made.
    check_ours(paths)?;
    let _lock = DirectoryLock::acquire_with_directory(paths.lock())?;
    finish_replacement(paths)?;
    let before = paths.before_restore_dir();
    if before.exists() {
        return Err(SnapshotError::Kept { path: before });
    }
    // It may be left of a restore into a directory without a store.
    remove_dir_all(&paths.restore_dir())?;
    let prepared = prepare(paths, source, progress);
    if prepared.is_err() {
        remove_dir_all(&paths.restore_dir())?;
        if is_new {
            // Under the lock: nobody can have made it a store meanwhile.
            remove_dir_all(data)?;
        }
    }
    let (snapshot, timeline) = prepared?;
    replace_store(paths)?;
    // Whatever part of a store there was, sound or not.
    let is_empty = before.read_dir().is_ok_and(|mut parts| parts.next().is_none());
    if is_empty {
        remove_dir_all(&before)?;
    }
    let replaced = (!is_empty).then_some(before);
    let (seq, bytes) = (snapshot.contents.seq, snapshot.contents.bytes());
    Ok(Restored { seq, timeline, bytes, replaced })
}

/// Verifies the source and puts the new store together in `restore/`.
fn prepare(
    paths: &DataPaths,
    source: &Source,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Snapshot, u32), SnapshotError> {
    let staged = DataPaths::new(paths.restore_dir());
    create_dir_all(staged.root())?;
    let snapshot = match source {
        Source::Snapshot(name) => {
            let snapshot = find(paths.root(), name)?;
            let report = verify_bytes(&snapshot, progress)?;
            match report.problems.into_iter().next() {
                None => snapshot,
                Some(reason) => return Err(SnapshotError::Damaged { path: snapshot.home, reason }),
            }
        }
        Source::Archive(file) => archive::unpack(file, &staged.root().join(UNPACKED), progress)?,
    };
    // Bytes that are what they were may have been damaged before: the store that stands here is not given up for that.
    check_opens(&snapshot)?;
    let timeline = next_timeline(paths, &snapshot)?;
    stage(&snapshot, &staged, timeline.number)?;
    if !timeline.is_above_all {
        // What was read into a timeline that is used again would seem to be in it.
        publish(&staged.root().join(FORGET_SOURCES), &[])?;
    }
    Ok((snapshot, timeline.number))
}

/// Removes what the last restore replaced. Call it once the restored store was opened. Killed meanwhile, it leaves what
/// the next opening removes.
///
/// # Errors
/// [`SnapshotError::Storage`].
pub fn discard_replaced(data: &Path) -> Result<(), SnapshotError> {
    let paths = DataPaths::new(data);
    remove_dir_all(&paths.discarded_dir())?;
    if paths.before_restore_dir().exists() {
        // Half a store under the name of a whole one would be taken for it.
        rename(&paths.before_restore_dir(), &paths.discarded_dir())?;
        remove_dir_all(&paths.discarded_dir())?;
    }
    Ok(())
}

/// Refuses a directory that holds neither a store, sound or not, nor nothing.
fn check_ours(paths: &DataPaths) -> Result<(), SnapshotError> {
    const OURS: [&str; 18] = [
        "LOCK",
        "lost+found",
        "snapshots",
        "before-restore",
        "MANIFEST",
        "NEWEST",
        "RESTORE",
        "log",
        "segments",
        "meta.sled",
        "text",
        "cache",
        "quarantine",
        "replication.json",
        "backends.json",
        "MIGRATIONS",
        "dry-run",
        "sources",
    ];
    if paths.format().exists() {
        return Ok(());
    }
    let fail = |e| StorageError::io(paths.root(), "list", e);
    for entry in std::fs::read_dir(paths.root()).map_err(fail)? {
        let found = entry.map_err(fail)?.path();
        let name = found.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = match name.as_ref() {
            "restore" => is_staged(&found)?,
            name => OURS.contains(&name) || name.ends_with(".tmp"),
        };
        if !is_ours {
            return Err(ManifestError::NotAStore { root: paths.root().to_owned(), found }.into());
        }
    }
    Ok(())
}

/// Whether every file below `restore/` is one that a restore which was killed can have left.
fn is_staged(dir: &Path) -> Result<bool, StorageError> {
    let is_ours = |file: &PathBuf| {
        let below = file.strip_prefix(dir).ok().and_then(Path::to_str).unwrap_or_default();
        // Behind the name of what was being written stand a number and "tmp".
        let below = below.strip_suffix(".tmp").and_then(|rest| rest.rsplit_once('.')).map_or(below, |(name, _)| name);
        match below.split_once('/') {
            Some((UNPACKED, member)) => is_store_file(member) || [SNAPSHOT_FILE, CREATED_FILE].contains(&member),
            _ => is_store_file(below) || ["NEWEST", FORGET_SOURCES].contains(&below),
        }
    };
    Ok(list_files_below(dir)?.iter().all(is_ours))
}

/// A timeline that begins.
struct Timeline {
    number: u32,
    /// Whether that of the store that stood here is known, where it was the same store.
    is_above_all: bool,
}

/// One above every timeline of this store that is known here, by its manifest, its log and the snapshots.
fn next_timeline(paths: &DataPaths, snapshot: &Snapshot) -> Result<Timeline, SnapshotError> {
    let store_id = snapshot.contents.store_id;
    let of_manifest = Manifest::load(paths).ok().filter(|current| current.store_id == store_id);
    let here = of_manifest.map(|current| current.timeline).max(log::newest_timeline(paths, store_id.0));
    let mut last = snapshot.contents.timeline.max(here.unwrap_or_default());
    for other in list(paths.root())?.into_iter().filter_map(|found| found.snapshot.ok()) {
        if other.contents.store_id == store_id {
            last = last.max(other.contents.timeline);
        }
    }
    let number = last.checked_add(1).ok_or_else(|| SnapshotError::Damaged {
        path: snapshot.home.clone(),
        reason: "no timeline is left after its own".to_owned(),
    })?;
    Ok(Timeline { number, is_above_all: here.is_some() })
}

/// Puts a whole store together: the snapshot's files under the names of a store, and a manifest and log of `timeline`.
fn stage(snapshot: &Snapshot, staged: &DataPaths, timeline: u32) -> Result<(), SnapshotError> {
    let from = DataPaths::new(&snapshot.home);
    let mut manifest = load_manifest(snapshot)?;
    create_dir_all(&staged.segments_dir())?;
    let mut directories = BTreeSet::new();
    for member in snapshot.contents.members.iter().filter(|member| member.path.starts_with("segments/")) {
        let target = staged.root().join(&member.path);
        let directory = target.parent().unwrap_or(Path::new("")).to_owned();
        create_dir_all(&directory)?;
        link_or_copy(&snapshot.home.join(&member.path), &target)?;
        directories.insert(directory);
    }
    directories.iter().try_for_each(|directory| sync_directory(directory))?;
    let identity = LogIdentity { store_id: manifest.store_id.0, timeline: manifest.timeline };
    log::relabel(&from, identity, staged, timeline, snapshot.contents.seq)?;
    let missing = || SnapshotError::Damaged { path: from.format(), reason: "it is missing".to_owned() };
    publish(&staged.format(), &read_file(&from.format())?.ok_or_else(missing)?)?;
    // Without one in the snapshot an empty one takes the place of a journal that speaks of the store before.
    let journal = read_file(&from.root().join(JOURNAL_FILE))?.unwrap_or_default();
    publish(&staged.root().join(JOURNAL_FILE), &journal)?;
    manifest.timeline = timeline;
    Ok(manifest.publish(staged)?)
}
