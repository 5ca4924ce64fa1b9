//! Opening a store: segments from the manifest, the document index, then the log on top.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::index::LiveSegment;
use crate::log::{self, GroupCommit, GroupOptions, LogIdentity, LogWriter, ReadFrom, WriterOptions};
use crate::manifest::{CollectionEntry, Manifest};
use crate::meta::{self, MetaError, MetaIndex, Opened};
use crate::segment::{DeadRows, Segment};
use crate::storage::{self, DataPaths};
use crate::types::{CollectionId, Seq};

use super::CollectionError;
use super::catalog::Catalog;
use super::engine::{Settings, Shared};
use super::install;
use super::state::{CollectionState, Identity, SealedPart};

/// What recovery found, for the log line at the start.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Changes replayed from the log.
    pub replayed: u64,
    /// Bytes of a torn last write that were cut off; no answer had been given for them.
    pub torn_bytes: u64,
    /// Why the document index was made again, where it was.
    pub index_rebuilt: Option<String>,
    /// The youngest change.
    pub last_seq: Seq,
}

/// Opens everything below a directory whose lock is held and whose manifest was read.
///
/// # Errors
/// [`CollectionError`] that names the file that is damaged or cannot be read; nothing was changed then but leftovers of
/// interrupted writes removed.
pub fn recover(
    paths: DataPaths,
    manifest: Manifest,
    settings: Settings,
) -> Result<(Arc<Shared>, Recovered), CollectionError> {
    let catalog = Catalog::new(manifest.next_collection_id);
    let mut lost = Vec::new();
    for entry in &manifest.collections {
        catalog.insert(Arc::new(open_collection(&paths, entry, settings, &mut lost)?));
    }
    let identity = meta::Identity { store_id: manifest.store_id.0, timeline: manifest.timeline };
    let (meta, index_rebuilt) = match MetaIndex::open(&paths.meta_dir(), identity)? {
        Opened::Usable(index) => (index, None),
        // A new store has none, and that is nothing to report.
        Opened::Fresh(index, _) if manifest.collections.is_empty() => (index, None),
        Opened::Fresh(index, reason) => (index, Some(reason)),
    };
    meta.begin(identity)?;
    let named = manifest.collections.iter().flat_map(|c| c.segments.iter().map(|segment| (c.id, segment.id)));
    meta.keep_fields_of(&named.collect())?;
    let log_start = manifest.log_start;
    let shared = Arc::new(Shared::new(paths, catalog, meta, manifest, settings));
    index_missing_segments(&shared)?;
    for (collection, live) in &lost {
        find_dead_rows(&shared, *collection, live)?;
    }
    let (replayed, torn_bytes) = replay(&shared, log_start)?;
    // Only now: a manifest that is not this store's last one is refused above, and must not cost what the last one names.
    let manifest = shared.manifest().clone();
    remove_leftovers(&shared.paths, &manifest)?;
    install::rewrite_dead(&shared, &lost)?;
    let last_seq = shared.applied_seq();
    Ok((shared, Recovered { replayed, torn_bytes, index_rebuilt, last_seq }))
}

/// Visits the log after `log_start`, then opens it for writing.
fn replay(shared: &Arc<Shared>, log_start: Seq) -> Result<(u64, u64), CollectionError> {
    let identity = LogIdentity { store_id: shared.identity.store_id, timeline: shared.identity.timeline };
    let (collections, _) = shared.catalog.all();
    let sealed = collections.iter().map(|state| state.last_seq()).max().unwrap_or_default();
    let from = ReadFrom { after: log_start, at_least: sealed.max(log_start) };
    let recovery = log::read_from(&shared.paths, identity, from, &mut |seq, change| {
        shared.apply(seq, change);
        Ok::<_, CollectionError>(())
    })?;
    let writer = LogWriter::open(&shared.paths, identity, &recovery, WriterOptions::default())?;
    let apply = {
        let shared = shared.clone();
        Box::new(move |seq, change| shared.apply(seq, change))
    };
    shared.attach_log(GroupCommit::spawn(writer, apply, GroupOptions::default())?);
    Ok((recovery.changes, recovery.torn_bytes))
}

/// Segments whose list of dead rows is damaged or missing.
pub type LostDead = Vec<(CollectionId, Arc<LiveSegment>)>;

fn open_collection(
    paths: &DataPaths,
    entry: &CollectionEntry,
    settings: Settings,
    lost: &mut LostDead,
) -> Result<CollectionState, CollectionError> {
    let mut segments = Vec::with_capacity(entry.segments.len());
    for segment in &entry.segments {
        let path = paths.segment_file(entry.id.0, entry.generation, segment.id.0);
        let opened = Segment::open(&path, &install::spec_of(entry.id, &entry.definition, segment.id))?;
        let (dead, damage) = match segment.dead_version {
            0 => (DeadRows::new(opened.rows()), None),
            version => {
                let path = paths.dead_file(entry.id.0, entry.generation, segment.id.0, version);
                match DeadRows::read(&path, segment.id, opened.rows()) {
                    Ok(dead) => (dead, None),
                    // Of a newer program, which may mean something else by it.
                    Err(error) if error.is_of_another_version() => return Err(error.into()),
                    Err(error) => (DeadRows::new(opened.rows()), Some(error)),
                }
            }
        };
        let live = Arc::new(LiveSegment { id: segment.id, segment: opened, dead });
        if let Some(error) = damage {
            tracing::warn!(%error, "a list of dead rows is damaged; it is made again from the document index");
            lost.push((entry.id, live.clone()));
        }
        segments.push(live);
    }
    segments.sort_by_key(|live| live.id);
    let identity = Identity {
        id: entry.id,
        name: entry.name.clone(),
        definition: entry.definition.clone(),
        created_at_ms: entry.created_at_ms,
        created_seq: entry.created_seq,
    };
    Ok(CollectionState::new(identity, SealedPart { segments, sealed_seq: entry.sealed_seq }, settings.memtable_entries))
}

/// Takes the segments that the document index lacks into it, oldest first.
fn index_missing_segments(shared: &Shared) -> Result<(), CollectionError> {
    let indexed = shared.meta.indexed_segments()?;
    let (collections, _) = shared.catalog.all();
    for state in &collections {
        let view = state.view();
        for live in view.segments.iter().filter(|live| !indexed.contains(&(state.identity.id, live.id))) {
            let tombstones = live.segment.tombstones()?;
            let tombstones: Vec<_> = tombstones.into_iter().map(|t| (t.id, t.seq)).collect();
            install::index_rows(shared, state, live, &tombstones)?;
        }
    }
    Ok(())
}

/// A row is dead when the document index knows another place for its id, or none.
fn find_dead_rows(shared: &Shared, collection: CollectionId, live: &LiveSegment) -> Result<(), CollectionError> {
    for ordinal in 0..live.segment.rows() {
        let id = live.segment.document_id(ordinal)?;
        let place = shared.meta.locate(collection, &id)?;
        if place.is_none_or(|place| (place.segment, place.ordinal) != (live.id, ordinal)) {
            live.dead.mark(ordinal);
        }
    }
    Ok(())
}

/// Removes files that no manifest names: what an interrupted seal, merge or drop left.
fn remove_leftovers(paths: &DataPaths, manifest: &Manifest) -> Result<(), CollectionError> {
    let mut named: BTreeSet<PathBuf> = BTreeSet::new();
    for entry in &manifest.collections {
        for segment in &entry.segments {
            named.insert(paths.segment_file(entry.id.0, entry.generation, segment.id.0));
            if segment.dead_version > 0 {
                named.insert(paths.dead_file(entry.id.0, entry.generation, segment.id.0, segment.dead_version));
            }
        }
    }
    for file in storage::list_files_below(&paths.segments_dir()).map_err(MetaError::from)? {
        if !named.contains(&file) {
            tracing::info!(file = %file.display(), "removing a file that an interrupted write left");
            storage::remove_file(&file).map_err(MetaError::from)?;
        }
    }
    Ok(())
}
