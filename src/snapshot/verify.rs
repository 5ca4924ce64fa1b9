//! Whether a snapshot can be restored: every byte against its digest, every segment and the log against their formats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::collection::{check_named, read_dead};
use crate::log::{self, LogIdentity};
use crate::manifest::{CollectionEntry, Manifest, SNAPSHOT_FILE, SegmentEntry};
use crate::segment::{Segment, SegmentError, SegmentSpec};
use crate::storage::{DataPaths, list_files_below};

use super::list::CREATED_FILE;
use super::{Snapshot, SnapshotError};

/// What a verification read and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Files read.
    pub members: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong, a sentence each; empty when all is well.
    pub problems: Vec<String>,
}

/// Reads all of a snapshot. `progress` gets the bytes done and the bytes in all.
///
/// # Errors
/// [`SnapshotError`] when the directory cannot be read at all; what is damaged stands in the report.
pub fn verify(snapshot: &Snapshot, progress: &mut dyn FnMut(u64, u64)) -> Result<Report, SnapshotError> {
    let mut report = verify_bytes(snapshot, progress)?;
    if report.problems.is_empty()
        && let Err(error) = verify_store(snapshot, &mut report.problems)
    {
        report.problems.push(error.to_string());
    }
    Ok(report)
}

/// Compares every file with its length and digest.
pub(super) fn verify_bytes(snapshot: &Snapshot, progress: &mut dyn FnMut(u64, u64)) -> Result<Report, SnapshotError> {
    let mut report = Report::default();
    let total = snapshot.contents.bytes();
    let mut expected = BTreeSet::from([SNAPSHOT_FILE, CREATED_FILE].map(|file| snapshot.home.join(file)));
    for member in &snapshot.contents.members {
        let path = snapshot.home.join(&member.path);
        if let Err(reason) = member.digest.check(&path, member.len_bytes) {
            report.problems.push(format!("{} is damaged: {reason}", path.display()));
        }
        expected.insert(path);
        report.members += 1;
        report.bytes += member.len_bytes;
        progress(report.bytes, total);
    }
    // Naming a snapshot as a data directory once left the lock's file in it.
    expected.insert(DataPaths::new(&snapshot.home).lock());
    for file in list_files_below(&snapshot.home)?.iter().filter(|file| !expected.contains(*file)) {
        report.problems.push(format!("{} is no part of the snapshot", file.display()));
    }
    Ok(report)
}

/// Bytes may be what they were and yet have been damaged before: opens what the manifest names, and reads it.
fn verify_store(snapshot: &Snapshot, problems: &mut Vec<String>) -> Result<(), SnapshotError> {
    let paths = DataPaths::new(&snapshot.home);
    let manifest = load_manifest(snapshot)?;
    open_segments(snapshot, &manifest, &mut |collection, segment, opened| {
        match opened.map(|opened| opened.map(|opened| opened.verify(|_| {}))) {
            Err(problem) => problems.push(problem),
            Ok(Some(Err(error))) => problems.push(error.to_string()),
            Ok(Some(Ok(())) | None) => {}
        }
        if segment.dead_version > 0 {
            let path = paths.dead_file(collection.id.0, collection.generation, segment.id.0, segment.dead_version);
            problems.extend(read_dead(&path, segment).err().map(|error| error.to_string()));
        }
        Ok(())
    })?;
    let identity = LogIdentity { store_id: manifest.store_id.0, timeline: manifest.timeline };
    Ok(log::check(&paths, identity, manifest.log_start, snapshot.contents.seq)?)
}

/// Refuses what would not be opened in the place of a store, without reading it: segments that are damaged where they
/// begin or end, or that are others than the manifest names. A list of dead rows can be made again.
///
/// # Errors
/// [`SnapshotError::Damaged`], [`SnapshotError::Manifest`].
pub(super) fn check_opens(snapshot: &Snapshot) -> Result<(), SnapshotError> {
    open_segments(snapshot, &load_manifest(snapshot)?, &mut |_, _, opened| match opened {
        Ok(_) => Ok(()),
        Err(reason) => Err(SnapshotError::Damaged { path: snapshot.home.clone(), reason }),
    })
}

/// A segment, `None` where it is of an earlier format, or what is wrong with it.
type Opened = Result<Option<Segment>, String>;

/// Opens every segment that the manifest names, one after the other.
fn open_segments(
    snapshot: &Snapshot,
    manifest: &Manifest,
    visit: &mut dyn FnMut(&CollectionEntry, &SegmentEntry, Opened) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let paths = DataPaths::new(&snapshot.home);
    let members: BTreeMap<PathBuf, u64> =
        snapshot.contents.members.iter().map(|m| (snapshot.home.join(&m.path), m.len_bytes)).collect();
    for collection in &manifest.collections {
        for segment in &collection.segments {
            let definition = &collection.definition;
            let spec = SegmentSpec {
                id: segment.id,
                collection: collection.id,
                generation: collection.generation,
                metric: definition.metric,
                dim: definition.dim,
                index: definition.index,
            };
            let path = paths.segment_file(collection.id.0, collection.generation, segment.id.0);
            let open = || -> Result<Segment, SegmentError> {
                let opened = Segment::open_by_calls(&path, &spec)?;
                check_named(&opened, segment)?;
                Ok(opened)
            };
            let opened = match members.get(&path) == Some(&segment.len_bytes) {
                false => Err(format!("{} is not among the members as the manifest names it", path.display())),
                true => match open() {
                    Ok(opened) => Ok(Some(opened)),
                    // A snapshot may be older than this program: its bytes are right, and migrations read them.
                    Err(SegmentError::UnsupportedVersion { found, supported, .. }) if found < supported => Ok(None),
                    Err(error) => Err(error.to_string()),
                },
            };
            visit(collection, segment, opened)?;
        }
    }
    Ok(())
}

/// The snapshot's manifest, which must be of the store and timeline that the contents name.
pub(super) fn load_manifest(snapshot: &Snapshot) -> Result<Manifest, SnapshotError> {
    let paths = DataPaths::new(&snapshot.home);
    let manifest = Manifest::load(&paths)?;
    let contents = &snapshot.contents;
    if (manifest.store_id, manifest.timeline) != (contents.store_id, contents.timeline) {
        let reason = "its manifest is of another store or timeline".to_owned();
        return Err(SnapshotError::Damaged { path: paths.manifest(), reason });
    }
    if manifest.max_seq() > contents.seq {
        let reason =
            format!("its manifest knows of change {}, and the snapshot ends at {}", manifest.max_seq(), contents.seq);
        return Err(SnapshotError::Damaged { path: paths.manifest(), reason });
    }
    Ok(manifest)
}
