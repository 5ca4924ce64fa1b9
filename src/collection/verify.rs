//! Reading every stored byte again.

use crate::types::CollectionName;

use super::CollectionError;
use super::engine::Engine;

/// What a verification looked at and found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows looked up in the document index.
    pub rows: u64,
    /// What is wrong, a sentence each; empty when all is well.
    pub problems: Vec<String>,
}

/// Reads every block of every segment against its checksum, every graph against its bounds, and every living row
/// against the document index. `progress` gets the bytes done and the bytes in all.
pub fn verify(engine: &Engine, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, CollectionError> {
    let (collections, _) = engine.shared.catalog.all();
    let views: Vec<_> = collections.iter().map(|state| (state, state.view())).collect();
    let total = views.iter().flat_map(|(_, view)| &view.segments).map(|live| live.segment.len_bytes()).sum();
    let mut report = VerifyReport::default();
    for (state, view) in &views {
        for live in &view.segments {
            report.segments += 1;
            if let Err(error) = live.segment.verify(&mut |_| {}) {
                report.problems.push(error.to_string());
            } else {
                for ordinal in (0..live.segment.rows()).filter(|&ordinal| !live.dead.is_dead(ordinal)) {
                    report.rows += 1;
                    let id = live.segment.document_id(ordinal)?;
                    let place = engine.shared.meta.locate(state.identity.id, &id)?;
                    // Not found here may be found in a memtable that was written meanwhile.
                    let found = place.is_some_and(|place| (place.segment, place.ordinal) == (live.id, ordinal));
                    if !found && !live.dead.is_dead(ordinal) && view.segment(live.id).is_some() {
                        report.problems.push(misplaced(&state.identity.name, id.as_str()));
                    }
                }
            }
            report.bytes += live.segment.len_bytes();
            progress(report.bytes, total);
        }
    }
    Ok(report)
}

fn misplaced(collection: &CollectionName, id: &str) -> String {
    format!(
        "the document index has another place for {id:?} of {collection}; stop the server and remove meta.sled, \
         which is made again"
    )
}
