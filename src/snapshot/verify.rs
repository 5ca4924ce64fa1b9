//! Whether a snapshot can be restored: every byte against its digest, every segment and the log against their formats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::log::{self, LogIdentity};
use crate::manifest::{Manifest, SNAPSHOT_FILE};
use crate::segment::{DeadRows, Segment, SegmentError, SegmentSpec};
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

/// Bytes may be what they were and yet have been damaged before: opens what the manifest names.
fn verify_store(snapshot: &Snapshot, problems: &mut Vec<String>) -> Result<(), SnapshotError> {
    let paths = DataPaths::new(&snapshot.home);
    let manifest = load_manifest(snapshot)?;
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
            if members.get(&path) != Some(&segment.len_bytes) {
                problems.push(format!("{} is not among the members as the manifest names it", path.display()));
                continue;
            }
            match Segment::open_by_calls(&path, &spec).and_then(|opened| opened.verify(|_| {})) {
                // A snapshot may be older than this program: its bytes are right, and migrations read them.
                Err(SegmentError::UnsupportedVersion { found, supported, .. }) if found < supported => {}
                Err(error) => problems.push(error.to_string()),
                Ok(()) => {}
            }
            if segment.dead_version > 0 {
                let path = paths.dead_file(collection.id.0, collection.generation, segment.id.0, segment.dead_version);
                if let Err(error) = DeadRows::read(&path, segment.id, segment.rows) {
                    problems.push(error.to_string());
                }
            }
        }
    }
    let identity = LogIdentity { store_id: manifest.store_id.0, timeline: manifest.timeline };
    Ok(log::check(&paths, identity, manifest.log_start, snapshot.contents.seq)?)
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
