//! Reading every stored byte again, and holding the views against each other.

use crate::index::{LiveSegment, Resolved};
use crate::manifest::SegmentEntry;
use crate::segment::{DeadRows, Segment};
use crate::types::{Chain, CollectionName};

use super::CollectionError;
use super::engine::{Engine, Shared};
use super::install::{GENERATION, fields_of};
use super::recover;
use super::state::CollectionState;

/// What a verification looked at and found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows looked up in the document index.
    pub rows: u64,
    /// Dead rows. The document index may still have their places, which count for nothing.
    pub dead_rows: u64,
    /// Segments whose postings were held against their documents.
    pub field_indexes: u64,
    /// What is wrong, a sentence each; empty when all is well.
    pub problems: Vec<String>,
}

/// Reads every block of every segment against its checksum, every graph against its bounds, every list of dead rows,
/// and what the manifest says of each segment. Every living row must stand in the document index; the field index must
/// hold of each segment what its documents say. The log was read and checked whole when the store was opened.
/// `progress` gets the bytes done and the bytes in all.
pub fn verify(engine: &Engine, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, CollectionError> {
    let shared = &engine.shared;
    let (collections, _) = shared.catalog.all();
    // Of one moment: nothing is installed while the manifest is held.
    let (views, manifest) = {
        let manifest = shared.manifest();
        let views: Vec<_> = collections.iter().map(|state| (state, state.view())).collect();
        (views, manifest.clone())
    };
    let total = views.iter().flat_map(|(_, view)| &view.segments).map(|live| live.segment.len_bytes()).sum();
    let mut report = VerifyReport::default();
    for (state, view) in &views {
        let entry = manifest.collections.iter().find(|entry| entry.id == state.identity.id);
        for live in &view.segments {
            report.segments += 1;
            let named = entry.and_then(|entry| entry.segments.iter().find(|segment| segment.id == live.id));
            // One that is being installed in this moment may be missing in the manifest, or a merged one in the view.
            if let Some(named) = named {
                report.problems.extend(contradiction(&state.identity.name, live, named));
                report.problems.extend(damaged_dead(shared, state, named));
            }
            // Of one that is open, blocks that were read before would not be read again.
            let path = live.segment.path();
            match Segment::open_by_calls(path, live.segment.spec()).and_then(|segment| segment.verify(|_| {})) {
                // Merged or dropped meanwhile.
                Err(_) if !path.exists() && is_gone(state, live) => {}
                Err(error) => report.problems.push(Chain(&error).to_string()),
                Ok(()) => {
                    verify_rows(shared, state, live, &mut report)?;
                    verify_fields(shared, state, live, &mut report)?;
                }
            }
            report.bytes += live.segment.len_bytes();
            progress(report.bytes, total);
        }
    }
    Ok(report)
}

/// Whether a segment counts no longer.
fn is_gone(state: &CollectionState, live: &LiveSegment) -> bool {
    state.is_dropped() || state.view().segment(live.id).is_none()
}

/// Holds a segment's rows against the document index.
fn verify_rows(
    shared: &Shared,
    state: &CollectionState,
    live: &LiveSegment,
    report: &mut VerifyReport,
) -> Result<(), CollectionError> {
    for ordinal in 0..live.segment.rows() {
        let was_dead = live.dead.is_dead(ordinal);
        let id = live.segment.document_id(ordinal)?;
        // Taken before the look-up: while the index follows a merge, the view knows where its rows went.
        let view = state.view();
        let place = shared.meta.locate(state.identity.id, &id)?;
        let found = place.is_some_and(|place| match view.resolve(place.segment, place.ordinal) {
            Resolved::Row(there, row) => (there.id, row) == (live.id, ordinal),
            Resolved::LeftOut | Resolved::Stale => false,
        });
        let gone = live.dead.is_dead(ordinal) || is_gone(state, live);
        match was_dead {
            true => report.dead_rows += 1,
            false => report.rows += 1,
        }
        // Not found here, it may have been replaced or merged meanwhile.
        if !was_dead && !found && !gone {
            report.problems.push(misplaced(&state.identity.name, id.as_str()));
        }
    }
    Ok(())
}

/// Holds a segment's postings against its documents.
fn verify_fields(
    shared: &Shared,
    state: &CollectionState,
    live: &LiveSegment,
    report: &mut VerifyReport,
) -> Result<(), CollectionError> {
    let mut metadata = |row| Ok(live.segment.metadata(row)?);
    let Some(matches) = shared.meta.fields_match(fields_of(state, live, &mut metadata))? else { return Ok(()) };
    report.field_indexes += 1;
    if !matches {
        report.problems.push(format!(
            "the field index contradicts the documents of {} of {}; stop the server and remove meta.sled, which is \
             made again",
            live.segment.path().display(),
            state.identity.name
        ));
    }
    Ok(())
}

/// What the manifest says of a segment and its file does not.
fn contradiction(collection: &CollectionName, live: &LiveSegment, named: &SegmentEntry) -> Option<String> {
    let (what, got, expected) = recover::contradiction(&live.segment, named)?;
    let path = live.segment.path().display();
    Some(format!("{path} of {collection} contradicts the manifest: {what} is {got}, expected {expected}"))
}

/// What is wrong with a segment's list of dead rows on disk. One that an installation has replaced meanwhile is gone.
fn damaged_dead(shared: &Shared, state: &CollectionState, named: &SegmentEntry) -> Option<String> {
    if named.dead_version == 0 {
        return None;
    }
    let path = shared.paths.dead_file(state.identity.id.0, GENERATION, named.id.0, named.dead_version);
    match DeadRows::read(&path, named.id, named.rows) {
        Ok(dead) if dead.count() < named.dead_rows => Some(format!(
            "{} lists {} dead rows, the manifest counts {}",
            path.display(),
            dead.count(),
            named.dead_rows
        )),
        Ok(_) => None,
        Err(_) if !path.exists() => None,
        Err(error) => Some(error.to_string()),
    }
}

fn misplaced(collection: &CollectionName, id: &str) -> String {
    format!(
        "the document index has another place for {id:?} of {collection}; stop the server and remove meta.sled, \
         which is made again"
    )
}
