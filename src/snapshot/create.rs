//! Taking a snapshot of an open store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rayon::prelude::*;

use crate::collection::HeldFiles;
use crate::database::Database;
use crate::log::{self, LogIdentity};
use crate::manifest::{Manifest, SNAPSHOT_FILE, StoreId};
use crate::migrate::JOURNAL_FILE;
use crate::storage::{
    DataPaths, copy, create_dir_all, disk_free, file_len, link, publish, remove_dir_all, rename, sync_directory,
};
use crate::types::Seq;

use super::list::{CREATED_FILE, STAGING, Snapshot, find, list, staging, staging_dir};
use super::{Contents, Digest, Member, SnapshotError, SnapshotName};

/// What taking a snapshot did.
#[derive(Clone, Debug)]
pub struct Created {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Files that share their bytes with the store.
    pub linked: usize,
    /// Files that had to be copied.
    pub copied: usize,
    /// Bytes that were read to take their digests; those of the other files were known, or are their checksums'.
    pub hashed_bytes: u64,
}

/// Takes a snapshot of the store at its last acknowledged change, while writes go on. Without a name it gets that of
/// the time.
///
/// # Errors
/// [`SnapshotError::Exists`]; [`SnapshotError::NoRoomToCopy`] where files cannot be linked; [`SnapshotError::Log`] and
/// [`SnapshotError::Segment`] when a file of the log or a segment is damaged; the others when a file could not be
/// linked or read. Nothing is left then. Where a sync failed, the store has stopped.
pub fn create(database: &Database, name: Option<SnapshotName>) -> Result<Created, SnapshotError> {
    let paths = DataPaths::new(database.path());
    let take = &mut |staging: &Path| database.hold_files(|held| link_all(&paths, &held, staging));
    database.change_files(|| create_from(&paths, name, take))
}

/// Takes a snapshot of a store that nobody has open, whether or not this program could open it. Call it under the
/// directory's lock.
///
/// # Errors
/// As [`create`].
pub fn create_closed(data: &Path, name: Option<SnapshotName>) -> Result<Created, SnapshotError> {
    let paths = DataPaths::new(data);
    let manifest = Manifest::load(&paths)?;
    create_from(&paths, name, &mut |staging| {
        let (log, last_seq) = log::closed_files(&paths, manifest.log_start)?;
        let mut taken = link_all(&paths, &HeldFiles { manifest: &manifest, log, last_seq }, staging)?;
        // The newest file grows when the store is opened again: it cannot be shared.
        if let Some((file, last_seq)) = log::copy_open_end(&paths, &DataPaths::new(staging))? {
            taken.files.push(name_below(&paths, &file));
            taken.files.sort();
            (taken.seq, taken.copied) = (last_seq, taken.copied + 1);
        }
        Ok(taken)
    })
}

fn create_from(
    paths: &DataPaths,
    name: Option<SnapshotName>,
    take: &mut dyn FnMut(&Path) -> Result<Taken, SnapshotError>,
) -> Result<Created, SnapshotError> {
    let _staging = staging();
    let now = Timestamp::now();
    let name = name.unwrap_or_else(|| SnapshotName::of_time(now));
    let home = paths.snapshots_dir().join(name.as_str());
    if home.exists() {
        return Err(SnapshotError::Exists { name });
    }
    remove_staging(paths)?;
    let staging = staging_dir(paths, &name);
    let created = create_in(paths, &name, now, &staging, take);
    // The room that it took may be what the store lacks.
    if created.is_err()
        && let Err(error) = remove_dir_all(&staging)
    {
        tracing::warn!(%error, "what a failed snapshot left is removed with the next one");
    }
    created
}

fn create_in(
    paths: &DataPaths,
    name: &SnapshotName,
    now: Timestamp,
    staging: &Path,
    take: &mut dyn FnMut(&Path) -> Result<Taken, SnapshotError>,
) -> Result<Created, SnapshotError> {
    let known = Known::of_latest(paths)?;
    create_dir_all(staging)?;
    let Taken { store_id, timeline, log_start, seq, files, copied } = take(staging)?;
    let identity = LogIdentity { store_id: store_id.0, timeline };
    // While the store is open nobody reads closed files of the log, and a digest would be that of the damage.
    log::check(&DataPaths::new(staging), identity, log_start, seq)?;
    let (members, hashed_bytes) = digest_all(staging, &files, &known)?;
    let contents = Contents { store_id, timeline, seq, members };
    publish(&staging.join(CREATED_FILE), format!("{}\n", now.as_millisecond()).as_bytes())?;
    publish(&staging.join(SNAPSHOT_FILE), &contents.encode())?;
    rename(staging, &paths.snapshots_dir().join(name.as_str()))?;
    Ok(Created { snapshot: find(paths.root(), name)?, linked: files.len() - copied, copied, hashed_bytes })
}

/// Removes what interrupted snapshots and deletions left.
fn remove_staging(paths: &DataPaths) -> Result<(), SnapshotError> {
    let Ok(entries) = std::fs::read_dir(paths.snapshots_dir()) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(STAGING) {
            remove_dir_all(&entry.path())?;
        }
    }
    Ok(())
}

/// Files that stand in the staging directory.
struct Taken {
    store_id: StoreId,
    timeline: u32,
    /// The change up to which its log is not needed.
    log_start: Seq,
    seq: Seq,
    /// Paths below it, in ascending order.
    files: Vec<String>,
    copied: usize,
}

/// Gives every file of the held store a second name, or copies it where it can have none and there is room.
fn link_all(paths: &DataPaths, held: &HeldFiles<'_>, staging: &Path) -> Result<Taken, SnapshotError> {
    let manifest = held.manifest;
    let mut sources: Vec<PathBuf> = vec![paths.format(), paths.manifest()];
    let journal = paths.root().join(JOURNAL_FILE);
    sources.extend(journal.exists().then_some(journal));
    sources.extend(held.log.iter().cloned());
    for collection in &manifest.collections {
        for segment in &collection.segments {
            let (id, generation) = (collection.id.0, collection.generation);
            sources.push(paths.segment_file(id, generation, segment.id.0));
            if segment.dead_version > 0 {
                sources.push(paths.dead_file(id, generation, segment.id.0, segment.dead_version));
            }
        }
    }
    let (mut files, mut copied, mut directories) = (Vec::with_capacity(sources.len()), 0, BTreeSet::new());
    for (n, source) in sources.iter().enumerate() {
        let below = source.strip_prefix(paths.root()).expect("every file of a store stands below its root");
        let target = staging.join(below);
        let directory = target.parent().expect("it stands below the staging directory").to_owned();
        create_dir_all(&directory)?;
        directories.insert(directory);
        if !link(source, &target)? {
            if copied == 0 {
                check_room(staging, &sources[n..])?;
            }
            copy(source, &target)?;
            copied += 1;
        }
        files.push(name_below(paths, source));
    }
    directories.iter().try_for_each(|directory| sync_directory(directory))?;
    files.sort();
    let Manifest { store_id, timeline, log_start, .. } = *manifest;
    Ok(Taken { store_id, timeline, log_start, seq: held.last_seq, files, copied })
}

/// Refuses to copy files for which there is no room.
fn check_room(staging: &Path, sources: &[PathBuf]) -> Result<(), SnapshotError> {
    let needed = sources.iter().map(|source| file_len(source)).sum::<Result<u64, _>>()?;
    let free = disk_free(staging)?;
    if needed > free {
        return Err(SnapshotError::NoRoomToCopy { path: staging.to_owned(), needed, free });
    }
    Ok(())
}

/// A file's path below the root, as a member's.
fn name_below(paths: &DataPaths, file: &Path) -> String {
    let below = file.strip_prefix(paths.root()).unwrap_or(file);
    below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Digests that need not be taken again.
struct Known {
    home: PathBuf,
    members: BTreeMap<String, Member>,
}

impl Known {
    /// Those of the snapshot taken last: its files never change.
    fn of_latest(paths: &DataPaths) -> Result<Self, SnapshotError> {
        let latest =
            list(paths.root())?.into_iter().filter_map(|found| found.snapshot.ok()).max_by_key(|s| s.created_at_ms);
        Ok(match latest {
            None => Self { home: PathBuf::new(), members: BTreeMap::new() },
            Some(Snapshot { home, contents, .. }) => {
                Self { home, members: contents.members.into_iter().map(|m| (m.path.clone(), m)).collect() }
            }
        })
    }

    fn member(&self, staging: &Path, path: &str) -> Option<Member> {
        let member = self.members.get(path)?;
        is_same_file(&self.home.join(path), &staging.join(path)).then(|| member.clone())
    }
}

/// Whether two names lead to one file. Where the system cannot tell, they do not.
#[cfg(unix)]
fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |path: &Path| path.symlink_metadata().map(|m| (m.dev(), m.ino())).ok();
    place(a).is_some_and(|a| place(b) == Some(a))
}

#[cfg(not(unix))]
fn is_same_file(_: &Path, _: &Path) -> bool {
    false
}

/// Length and digest of every file, and the bytes that were read for them.
fn digest_all(staging: &Path, files: &[String], known: &Known) -> Result<(Vec<Member>, u64), SnapshotError> {
    let members: Vec<(Member, u64)> = files
        .par_iter()
        .map(|path| match known.member(staging, path) {
            Some(member) => Ok((member, 0)),
            None => {
                let (len_bytes, digest) = Digest::of_file(&staging.join(path))?;
                let read = if matches!(digest, Digest::Bytes(_)) { len_bytes } else { 0 };
                Ok((Member { path: path.clone(), len_bytes, digest }, read))
            }
        })
        .collect::<Result<_, SnapshotError>>()?;
    let hashed_bytes = members.iter().map(|(_, bytes)| bytes).sum();
    Ok((members.into_iter().map(|(member, _)| member).collect(), hashed_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_copied_only_where_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "x").unwrap();
        check_room(dir.path(), std::slice::from_ref(&file)).unwrap();
        // It takes no room itself.
        std::fs::File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
        let many = vec![file; 1 << 12];
        let refused = check_room(dir.path(), &many).unwrap_err();
        assert!(matches!(refused, SnapshotError::NoRoomToCopy { needed: 0x0010_0000_0000_0000, .. }), "{refused}");
    }
}
