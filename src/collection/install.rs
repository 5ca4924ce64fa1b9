//! How a new segment takes its place: file, manifest, document index, view, in an order that a crash may cut anywhere.
//!
//! The manifest is the switch. A file that no manifest names is removed at the next start; a segment that the document
//! index lacks is indexed then; rows that died after the manifest was published died by changes that are still in the
//! log, and die again when it is replayed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::index::{self, LiveSegment, Memtable, MergeOptions, MergePlan, Merged, Relocation, View};
use crate::manifest::{CollectionEntry, Manifest, SegmentEntry};
use crate::meta::{MetaError, MetaIndex, RowError, SegmentChange, SegmentFields};
use crate::segment::{DeadRows, Segment, SegmentSpec, WrittenSegment};
use crate::storage::{self, is_failed_sync};
use crate::types::{Chain, CollectionId, Definition, DocumentId, Metadata, Ordinal, SegmentId, Seq, panic_message};

use super::CollectionError;
use super::engine::Shared;
use super::recover::LostDead;
use super::state::{CollectionState, mark_moved_dead};
use super::unnamed::Unnamed;

/// The only generation so far: vectors of the model that the collection was created with.
pub const GENERATION: u32 = 1;

/// Makes the oldest frozen memtable a segment.
///
/// # Errors
/// [`CollectionError`]; the memtable stays where it was, and trying again is safe.
pub fn seal(shared: &Shared, state: &CollectionState, memtable: &Arc<Memtable>) -> Result<(), CollectionError> {
    let named = shared.manifest().collections.iter().find(|entry| entry.id == state.identity.id).map(|c| c.sealed_seq);
    if named.is_some_and(|sealed_seq| sealed_seq >= memtable.last_seq()) {
        // Named once more, its rows would count twice.
        let reason = "the manifest names a segment of these changes already; a restart puts it in its place".to_owned();
        return Err(CollectionError::Unmerged { reason });
    }
    let spec = new_spec(shared, state)?;
    let path = segment_path(shared, &spec);
    let older_segments = !state.view().segments.is_empty();
    let mut unnamed = Unnamed::new(shared, &spec);
    let sealed = unnamed.made(index::seal(memtable, &path, &spec, older_segments))?;
    let live = match &sealed.written {
        Some(_) => Some(Arc::new(open_segment(shared, &spec)?)),
        None => None,
    };
    if !unnamed.name(|| publish_seal(shared, state, &spec, memtable, sealed.written.as_ref()))? {
        return Ok(());
    }
    if let Some(live) = &live {
        follow(shared, || index_rows(&shared.meta, state, live, &sealed.tombstones));
        follow(shared, || {
            index_fields(shared, state, live);
            Ok(())
        });
    }
    state.swap_sealed(memtable, &sealed.sources, live);
    Ok(())
}

/// Publishes a manifest with the sealed segment. `false`: the collection is gone.
fn publish_seal(
    shared: &Shared,
    state: &CollectionState,
    spec: &SegmentSpec,
    memtable: &Arc<Memtable>,
    written: Option<&WrittenSegment>,
) -> Result<bool, CollectionError> {
    let mut manifest = shared.manifest();
    if state.is_dropped() {
        return Ok(false);
    }
    let mut next = begin(shared, &manifest, Some(memtable));
    // Dropped in this very moment: the catalog no longer has it.
    let Some(entry) = collection_entry(&mut next, state.identity.id) else { return Ok(false) };
    let sealed_seq = entry.sealed_seq.max(memtable.last_seq());
    entry.sealed_seq = sealed_seq;
    entry.segments.extend(written.map(|written| new_entry(spec, written)));
    save_dead(shared, &state.view(), spec, entry)?;
    publish(shared, &mut manifest, next)?;
    state.note_sealed(sealed_seq);
    Ok(true)
}

/// Merges segments into one.
///
/// # Errors
/// [`CollectionError`]; the inputs stay, and trying again is safe.
pub fn merge(
    shared: &Shared,
    state: &CollectionState,
    plan: &MergePlan,
    cancel: &AtomicBool,
) -> Result<(), CollectionError> {
    let spec = new_spec(shared, state)?;
    let view = state.view();
    let (inputs, others): (Vec<_>, Vec<_>) =
        view.segments.iter().cloned().partition(|live| plan.inputs.contains(&live.id));
    let options = MergeOptions {
        with_graph: plan.with_graph,
        oldest_elsewhere: others.iter().map(|live| live.segment.min_seq()).min(),
        builder: shared.settings.builder,
        threads: shared.settings.threads,
        rate: &shared.merge_rate,
        cancel,
    };
    // What is written gets checksums of its own: a flipped bit in a block that a search checked long ago would be sound
    // for ever.
    let opened = inputs.iter().map(|live| live.reopened().map(Arc::new)).collect::<Result<Vec<_>, _>>();
    let opened = match opened {
        // Its files go with it.
        Err(_) if state.is_dropped() => return Ok(()),
        opened => opened?,
    };
    shared.merging().clone_from(&opened);
    let mut unnamed = Unnamed::new(shared, &spec);
    let merged = unnamed.made(index::merge(&opened, &segment_path(shared, &spec), &spec, &options));
    shared.merging().clear();
    let mut merged = match merged {
        // Called off, or its directory is gone. A failed sync stops the store, whosever it was.
        Err(error) if state.is_dropped() && !is_failed_sync(&error) => return Ok(()),
        merged => merged?,
    };
    // From the files that were opened anew: no more than the rest of a merge does it end the process.
    let left_out = left_out_ids(&opened, &merged);
    drop(opened);
    let live = match &merged.written {
        Some(_) => Some(Arc::new(open_segment(shared, &spec)?)),
        None => None,
    };
    if !unnamed.name(|| publish_merge(shared, state, &spec, &inputs, &mut merged, live.as_ref()))? {
        return Ok(());
    }
    if let Some(live) = &live {
        index_fields(shared, state, live);
        follow(shared, || index_rows(&shared.meta, state, live, &merged.tombstones));
    }
    follow(shared, || shared.meta.retire(state.identity.id, &plan.inputs, &left_out));
    if let Err(error) = shared.meta.forget_fields(state.identity.id, &plan.inputs) {
        tracing::warn!(%error, "postings of merged segments could not be removed");
    }
    state.forget_relocations(&plan.inputs);
    for input in &inputs {
        remove_unused(shared, &shared.paths.segment_file(state.identity.id.0, GENERATION, input.id.0));
    }
    Ok(())
}

/// Lets the document index follow a published manifest. From there is no way back, so an index that cannot follow, or
/// panics, is given up, which it logs.
fn follow(shared: &Shared, index: impl FnOnce() -> Result<(), MetaError>) {
    let reason = match catch_unwind(AssertUnwindSafe(index)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => Chain(&error).to_string(),
        Err(panic) => panic_message(panic.as_ref()),
    };
    shared.meta.distrust(reason);
}

/// Removes a file that nothing names any more; what stays is removed at the next start.
pub(super) fn remove_unused(shared: &Shared, path: &Path) {
    if let Err(error) = storage::remove_file(path) {
        shared.stop_on_failed_sync(&error);
        tracing::warn!(%error, "an unused file could not be removed");
    }
}

/// Publishes a manifest with the merged segment in place of its inputs, and puts it in their place. `false`: the
/// collection is gone.
fn publish_merge(
    shared: &Shared,
    state: &CollectionState,
    spec: &SegmentSpec,
    inputs: &[Arc<LiveSegment>],
    merged: &mut Merged,
    live: Option<&Arc<LiveSegment>>,
) -> Result<bool, CollectionError> {
    let mut manifest = shared.manifest();
    if state.is_dropped() {
        return Ok(false);
    }
    let mut next = begin(shared, &manifest, None);
    // Dropped in this very moment: the catalog no longer has it.
    let Some(entry) = collection_entry(&mut next, state.identity.id) else { return Ok(false) };
    entry.segments.retain(|old| inputs.iter().all(|input| input.id != old.id));
    entry.segments.extend(merged.written.as_ref().map(|written| new_entry(spec, written)));
    if let Some(live) = live {
        // Rows that died while the merge ran may have died by changes that a seal has meanwhile put into a segment, and
        // that the log no longer replays.
        mark_moved_dead(inputs, &merged.relocations, &live.dead);
        save_dead_of(shared, spec.collection, live, entry)?;
    }
    save_dead(shared, &state.view(), spec, entry)?;
    publish(shared, &mut manifest, next)?;
    // While the manifest is held: a seal that published between the two would save which rows of the inputs died by its
    // changes, and not which of the merged segment, and the log would not replay them.
    state.swap_merged(inputs, std::mem::take(&mut merged.relocations), live.cloned());
    Ok(true)
}

/// Removes a dropped collection from the manifest, the disk and the document index.
///
/// # Errors
/// [`CollectionError`]; trying again is safe.
pub fn remove_collection(shared: &Shared, state: &CollectionState) -> Result<(), CollectionError> {
    let id = state.identity.id;
    {
        let mut manifest = shared.manifest();
        let next = begin(shared, &manifest, None);
        publish(shared, &mut manifest, next)?;
    }
    storage::remove_dir_all(&shared.paths.collection_dir(id.0)).map_err(MetaError::from)?;
    follow(shared, || shared.meta.drop_collection(id));
    Ok(())
}

/// A copy of the manifest brought up to the catalog: collections created and dropped since, and how far the log is
/// needed. `sealing`: a frozen memtable that the caller is about to name a segment for.
fn begin(shared: &Shared, current: &Manifest, sealing: Option<&Arc<Memtable>>) -> Manifest {
    let mut next = current.clone();
    // Read first: every change up to here is in some memtable or segment, and every collection it created is in the
    // catalog.
    let applied = shared.applied_seq();
    let (collections, next_id) = shared.catalog.all();
    next.next_collection_id = next_id;
    next.collections.retain(|entry| collections.iter().any(|state| state.identity.id == entry.id));
    let mut log_start = applied;
    for state in &collections {
        if next.collections.iter().all(|entry| entry.id != state.identity.id) {
            next.collections.push(fresh_entry(state));
        }
        let view = state.view();
        let pending = view.memtables().filter(|m| sealing.is_none_or(|s| !Arc::ptr_eq(m, s)) && !m.is_empty());
        if let Some(first) = pending.map(|m| m.first_seq()).min() {
            log_start = log_start.min(Seq(first.0 - 1));
        }
    }
    next.collections.sort_by_key(|entry| entry.id);
    next.log_start = next.log_start.max(log_start);
    next
}

fn fresh_entry(state: &CollectionState) -> CollectionEntry {
    let identity = &state.identity;
    CollectionEntry {
        id: identity.id,
        name: identity.name.clone(),
        definition: identity.definition.clone(),
        created_at_ms: identity.created_at_ms,
        created_seq: identity.created_seq,
        generation: GENERATION,
        sealed_seq: identity.created_seq,
        segments: Vec::new(),
    }
}

/// Publishes, then trims what the new manifest no longer needs: log files and old lists of dead rows.
///
/// # Errors
/// [`CollectionError`], and trying again is safe: the manifest on disk is `current`, and what was written for `next` is
/// in nobody's way. Only a failed sync leaves open which of the two is there: then the store has stopped before
/// `current` is let go, and nothing is published any more.
fn publish(shared: &Shared, current: &mut Manifest, mut next: Manifest) -> Result<(), CollectionError> {
    if let Some(reason) = shared.log().and_then(|log| log.failed()) {
        return Err(CollectionError::Stopped { reason });
    }
    next.publish(&shared.paths).inspect_err(|error| shared.stop_on_failed_sync(error))?;
    let unused = dead_files(current).filter(|old| !dead_files(&next).any(|new| new == *old)).collect::<Vec<_>>();
    *current = next;
    if let Some(Err(error)) = shared.log().map(|log| log.trim(current.log_start, shared.holds.keep(current.log_start)))
    {
        shared.stop_on_failed_sync(&error);
        tracing::warn!(%error, "the log could not be trimmed");
    }
    for (collection, generation, segment, version) in unused {
        remove_unused(shared, &shared.paths.dead_file(collection, generation, segment, version));
    }
    Ok(())
}

/// Collection, generation, segment and version of every list of dead rows that a manifest names.
fn dead_files(manifest: &Manifest) -> impl Iterator<Item = (u32, u32, u64, u64)> + '_ {
    manifest.collections.iter().flat_map(|collection| {
        let named = collection.segments.iter().filter(|segment| segment.dead_version > 0);
        named.map(|segment| (collection.id.0, collection.generation, segment.id.0, segment.dead_version))
    })
}

fn new_spec(shared: &Shared, state: &CollectionState) -> Result<SegmentSpec, CollectionError> {
    let mut manifest = shared.manifest();
    let id = SegmentId(manifest.next_segment_id);
    manifest.next_segment_id += 1;
    let spec = spec_of(state.identity.id, &state.identity.definition, id);
    let dir = shared.paths.segment_dir(spec.collection.0, spec.generation);
    storage::create_dir_all(&dir).map_err(MetaError::from)?;
    Ok(spec)
}

/// What a segment of a collection must say of itself.
pub fn spec_of(collection: CollectionId, definition: &Definition, id: SegmentId) -> SegmentSpec {
    SegmentSpec {
        id,
        collection,
        generation: GENERATION,
        metric: definition.metric,
        dim: definition.dim,
        index: definition.index,
    }
}

/// Where the file of a segment stands.
pub(super) fn segment_path(shared: &Shared, spec: &SegmentSpec) -> PathBuf {
    shared.paths.segment_file(spec.collection.0, spec.generation, spec.id.0)
}

fn open_segment(shared: &Shared, spec: &SegmentSpec) -> Result<LiveSegment, CollectionError> {
    let segment = Segment::open(&segment_path(shared, spec), spec)?;
    let dead = DeadRows::new(segment.rows());
    Ok(LiveSegment { id: spec.id, segment, dead })
}

fn collection_entry(manifest: &mut Manifest, id: CollectionId) -> Option<&mut CollectionEntry> {
    manifest.collections.iter_mut().find(|entry| entry.id == id)
}

fn new_entry(spec: &SegmentSpec, written: &WrittenSegment) -> SegmentEntry {
    SegmentEntry {
        id: spec.id,
        rows: written.rows,
        tombstones: written.tombstones,
        min_seq: written.min_seq,
        max_seq: written.max_seq,
        len_bytes: written.len_bytes,
        has_graph: written.has_graph,
        dead_version: 0,
        dead_rows: 0,
    }
}

/// Writes the list of dead rows of every segment where it has grown since the manifest.
fn save_dead(
    shared: &Shared,
    view: &View,
    spec: &SegmentSpec,
    entry: &mut CollectionEntry,
) -> Result<(), CollectionError> {
    view.segments.iter().try_for_each(|live| save_dead_of(shared, spec.collection, live, entry))
}

fn save_dead_of(
    shared: &Shared,
    collection: CollectionId,
    live: &LiveSegment,
    entry: &mut CollectionEntry,
) -> Result<(), CollectionError> {
    let Some(segment) = entry.segments.iter_mut().find(|segment| segment.id == live.id) else { return Ok(()) };
    match live.dead.count() == segment.dead_rows {
        true => Ok(()),
        false => write_dead(shared, collection, entry.generation, live, segment),
    }
}

/// Writes the lists of dead rows that were found damaged or missing when the store was opened.
///
/// # Errors
/// [`CollectionError`]; the manifest is as it was.
pub fn rewrite_dead(shared: &Shared, lost: &LostDead) -> Result<(), CollectionError> {
    if lost.is_empty() {
        return Ok(());
    }
    let mut manifest = shared.manifest();
    let mut next = manifest.clone();
    for (collection, live) in lost {
        let Some(entry) = collection_entry(&mut next, *collection) else { continue };
        let Some(segment) = entry.segments.iter_mut().find(|segment| segment.id == live.id) else { continue };
        write_dead(shared, *collection, entry.generation, live, segment)?;
    }
    publish(shared, &mut manifest, next)
}

/// Writes the next version of a segment's list of dead rows.
fn write_dead(
    shared: &Shared,
    collection: CollectionId,
    generation: u32,
    live: &LiveSegment,
    segment: &mut SegmentEntry,
) -> Result<(), CollectionError> {
    let dead = live.dead.count();
    let version = segment.dead_version + 1;
    let path = shared.paths.dead_file(collection.0, generation, live.id.0, version);
    live.dead.write(&path, live.id)?;
    // Rows that died since the count are in the file too; it is merely written again next time.
    segment.dead_rows = dead;
    segment.dead_version = version;
    Ok(())
}

/// The ids of the rows that a merge left out. One that is damaged is passed over, and the damage is gone with its
/// segment: what the document index may still say of its id leads nowhere, as after a crash between a merge and the
/// index's following it.
fn left_out_ids(inputs: &[Arc<LiveSegment>], merged: &Merged) -> Vec<DocumentId> {
    let (mut ids, mut damage) = (Vec::new(), None);
    for (input, relocation) in inputs.iter().zip(&merged.relocations) {
        for (old, &new) in relocation.ordinals.iter().enumerate() {
            if new == Relocation::LEFT_OUT {
                match input.segment.document_id(old as Ordinal) {
                    Ok(id) => ids.push(id),
                    Err(error) => damage.get_or_insert((0_u64, error)).0 += 1,
                }
            }
        }
    }
    if let Some((rows, error)) = damage {
        tracing::warn!(rows, %error, "a merge left out deleted rows that cannot be read");
    }
    ids
}

/// Takes a segment's rows and tombstones into the document index.
///
/// # Errors
/// [`MetaError`] when the index fails or the segment is damaged.
pub fn index_rows(
    meta: &MetaIndex,
    state: &CollectionState,
    live: &LiveSegment,
    tombstones: &[(DocumentId, Seq)],
) -> Result<(), MetaError> {
    let segment = &live.segment;
    let mut rows = (0..segment.rows())
        .map(|ordinal| -> Result<_, RowError> { Ok((segment.document_id(ordinal)?, ordinal, segment.seq(ordinal)?)) });
    let change = SegmentChange { collection: state.identity.id, segment: live.id, rows: &mut rows, tombstones };
    meta.index_segment(change)
}

/// Takes a segment's metadata into the field index. Without it, filters are evaluated on the documents.
fn index_fields(shared: &Shared, state: &CollectionState, live: &LiveSegment) {
    let indexed = shared.meta.index_fields(fields_of(state, live, &mut |row| Ok(live.segment.metadata(row)?)));
    if let Err(error) = indexed {
        tracing::warn!(%error, segment = %live.id, "the fields of a segment are not indexed; filters read its documents");
    }
}

/// A segment as the field index sees it. `metadata`: that of each of its rows.
pub fn fields_of<'a>(
    state: &'a CollectionState,
    live: &LiveSegment,
    metadata: &'a mut dyn FnMut(Ordinal) -> Result<Metadata, RowError>,
) -> SegmentFields<'a> {
    let (collection, declared) = (state.identity.id, &state.identity.definition.fields);
    SegmentFields { collection, segment: live.id, rows: live.segment.rows(), declared, metadata }
}

/// Takes the segments of a collection that the field index lacks into it.
pub fn index_missing_fields(shared: &Shared, state: &CollectionState) {
    let view = state.view();
    for live in view.segments.iter().filter(|live| !shared.meta.has_fields(state.identity.id, live.id)) {
        index_fields(shared, state, live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::ListRequest;
    use crate::storage::fault::{ENOSPC, Faults, Operation, Plan, Then};
    use crate::storage::{is_disk_full, list_files_below};
    use crate::types::{CollectionName, Condition, Filter, Metric, NewDocument, Query, SearchRequest, Value};
    use crate::{Collection, Database, DefinitionRequest};

    /// A store with a collection and a document in its log.
    fn store(path: &Path) -> (Database, Collection) {
        let database = Database::open(path).unwrap();
        let name = CollectionName::new("things").unwrap();
        let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        let (id, vector) = (DocumentId::new("a").unwrap(), Some(vec![1.0, 2.0]));
        let document = NewDocument { id, text: None, metadata: Metadata::default(), vector, chunks: Vec::new() };
        things.upsert(vec![document]).unwrap();
        (database, things)
    }

    #[test]
    fn a_manifest_that_was_not_published_may_be_published_again() {
        let directory = tempfile::tempdir().unwrap();
        let (database, things) = store(directory.path());
        {
            let shared = &things.engine.shared;
            let mut manifest = shared.manifest();
            for step in [Operation::Create, Operation::Write, Operation::Rename] {
                let next = manifest.clone();
                let faults = Faults::arm_only(directory.path(), step, 0, Then::Recover);
                assert!(publish(shared, &mut manifest, next).is_err() && faults.fired(), "{step:?}");
                assert_eq!(Manifest::load(&shared.paths).unwrap(), *manifest, "{step:?}");
            }
        }
        things.flush().unwrap();
        assert_eq!(things.stats().sealed_seq, things.stats().last_seq);
        drop((things, database));
        let database = Database::open(directory.path()).unwrap();
        assert_eq!(database.collections()[0].stats().documents, 1);
    }

    #[test]
    fn after_a_failed_sync_no_manifest_is_published() {
        let directory = tempfile::tempdir().unwrap();
        let (_database, things) = store(directory.path());
        let shared = &things.engine.shared;
        let mut manifest = shared.manifest();
        let next = manifest.clone();
        // That of the directory, once the manifest has its name.
        let faults = Faults::arm_only(directory.path(), Operation::Sync, 1, Then::Recover);
        let failed = publish(shared, &mut manifest, next.clone()).unwrap_err();
        assert!(is_failed_sync(&failed) && faults.fired());
        drop(faults);
        let written = Faults::watch(directory.path());
        assert!(matches!(publish(shared, &mut manifest, next), Err(CollectionError::Stopped { .. })));
        assert_eq!(written.seen(), []);
        drop(manifest);
        assert!(things.flush().is_err());
    }

    /// Everything that a store lists, after it was closed and opened.
    fn reopened(directory: &Path) -> Vec<String> {
        let database = Database::open(directory).unwrap();
        let things = &database.collections()[0];
        let page = things.list(&ListRequest { limit: 10, ..ListRequest::default() }).unwrap();
        let found: Vec<_> = page.documents.into_iter().map(|found| found.stored.id.as_str().to_owned()).collect();
        assert_eq!(things.stats().documents, found.len() as u64);
        found
    }

    #[test]
    fn what_is_named_is_swapped_in_though_the_index_panics() {
        let directory = tempfile::tempdir().unwrap();
        let (database, things) = store(directory.path());
        let shared = &things.engine.shared;
        shared.meta.panics.store(true, std::sync::atomic::Ordering::Release);
        things.flush().unwrap();
        assert_eq!(shared.manifest().collections[0].segments.len(), 1);
        things.delete(&[DocumentId::new("a").unwrap()]).unwrap();
        things.flush().unwrap();
        assert_eq!(things.stats().documents, 0);
        drop((things, database));
        assert_eq!(reopened(directory.path()), Vec::<String>::new());
    }

    #[test]
    fn an_index_that_panics_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let (database, things) = store(directory.path());
        let shared = &things.engine.shared;
        things.flush().unwrap();
        follow(shared, || panic!("at a row"));
        let a = DocumentId::new("a").unwrap();
        let refused = shared.meta.locate(things.state.identity.id, &a).unwrap_err();
        assert!(refused.is_of_the_index() && refused.to_string().contains("at a row"), "{refused}");
        assert!(things.get(&a).unwrap().is_some(), "the segments are asked");
        drop((things, database));
        assert_eq!(reopened(directory.path()), ["a"]);
    }

    #[cfg(feature = "server")]
    #[test]
    fn look_ups_beside_an_index_that_is_given_up_are_not_logged() {
        let (directory, said) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let (_database, things) = store(directory.path());
        things.flush().unwrap();
        let a = DocumentId::new("a").unwrap();
        let log = tracing_subscriber::fmt().with_writer(Arc::new(said.reopen().unwrap())).finish();
        tracing::subscriber::with_default(log, || {
            follow(&things.engine.shared, || panic!("at a row"));
            for _ in 0..10 {
                assert!(things.get(&a).unwrap().is_some(), "the segments are asked");
            }
        });
        let said = std::fs::read_to_string(said.path()).unwrap();
        assert_eq!(said.matches("ERROR").count(), 1, "{said}");
        assert!(said.contains("at a row"), "{said}");
    }

    #[cfg(unix)]
    #[test]
    fn a_merge_takes_nothing_from_a_block_that_changed_since_it_was_checked() {
        use std::os::unix::fs::FileExt;
        let directory = tempfile::tempdir().unwrap();
        let (_database, things) = store(directory.path());
        let (shared, state) = (&things.engine.shared, &things.state);
        things.flush().unwrap();
        let id = DocumentId::new("b").unwrap();
        let document = NewDocument { vector: Some(vec![2.0, 1.0]), ..NewDocument::from_text(id, "needle") };
        things.upsert(vec![document]).unwrap();
        things.flush().unwrap();
        let view = state.view();
        view.segments.iter().for_each(|live| live.segment.verify_blocks(&mut |_| {}).unwrap());
        let path = view.segments[1].segment.path();
        let at = std::fs::read(path).unwrap().windows(6).position(|bytes| bytes == b"needle").unwrap();
        // Into the file as it is mapped: the block counts as checked, and reads otherwise from now on.
        std::fs::File::options().write(true).open(path).unwrap().write_all_at(b"N", at as u64).unwrap();
        let plan = MergePlan { inputs: view.segments.iter().map(|live| live.id).collect(), with_graph: true };
        let refused = merge(shared, state, &plan, &AtomicBool::new(false)).unwrap_err();
        assert!(Chain(&refused).to_string().contains(&format!("{} is damaged", path.display())), "{refused}");
        assert_eq!(state.view().segments.len(), 2);
        assert!(shared.merging().is_empty());
    }

    /// Files of segments of the store in a directory.
    fn segment_files(directory: &Path) -> Vec<PathBuf> {
        let mut files = list_files_below(&directory.join("segments")).unwrap();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "seg"));
        files
    }

    #[test]
    fn damage_in_dead_rows_goes_with_the_next_merge() {
        let directory = tempfile::tempdir().unwrap();
        let id = |text: &str| DocumentId::new(text).unwrap();
        // Longer than two blocks, so that the one in the middle holds nothing else.
        let document = |text: &str| NewDocument {
            vector: Some(vec![1.0, 2.0]),
            ..NewDocument::from_text(id(text), text.repeat(200_000))
        };
        {
            let database = Database::open(directory.path()).unwrap();
            let name = CollectionName::new("things").unwrap();
            let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
            things.upsert(["a", "b"].map(document).to_vec()).unwrap();
            things.flush().unwrap();
        }
        let files = segment_files(directory.path());
        let mut bytes = std::fs::read(&files[0]).unwrap();
        let at = bytes.windows(1_000).position(|window| window.iter().all(|&byte| byte == b'a')).unwrap();
        bytes[at + 100_000] ^= 1;
        std::fs::write(&files[0], bytes).unwrap();
        let database = Database::open(directory.path()).unwrap();
        let things = database.collections()[0].clone();
        let damaged = things.get(&id("a")).unwrap_err();
        assert!(damaged.to_string().contains("is damaged"), "{damaged}");
        assert_eq!(things.delete(&[id("a")]).unwrap().deleted, 1);
        things.optimise().unwrap();
        assert_eq!((segment_files(directory.path()).len(), things.stats().deleted_rows), (1, 0));
        assert!(things.get(&id("a")).unwrap().is_none());
        assert!(things.get(&id("b")).unwrap().is_some());
        drop((things, database));
        assert_eq!(reopened(directory.path()), ["b"]);
    }

    #[test]
    fn damage_in_dead_rows_harms_no_filter() {
        let directory = tempfile::tempdir().unwrap();
        let id = |text: &str| DocumentId::new(text).unwrap();
        // A field that is too long for the field index, and longer than two blocks.
        let document = |text: &str| NewDocument {
            vector: Some(vec![1.0, 2.0]),
            metadata: Metadata::from([("title".to_owned(), Value::String(text.repeat(200_000)))]),
            ..NewDocument::from_text(id(text), "")
        };
        {
            let (_database, things) = store(directory.path());
            things.upsert(["b", "c"].map(document).to_vec()).unwrap();
            things.flush().unwrap();
        }
        let files = segment_files(directory.path());
        let mut bytes = std::fs::read(&files[0]).unwrap();
        let at = bytes.windows(1_000).position(|window| window.iter().all(|&byte| byte == b'b')).unwrap();
        bytes[at + 100_000] ^= 1;
        std::fs::write(&files[0], bytes).unwrap();
        let database = Database::open(directory.path()).unwrap();
        let things = database.collections()[0].clone();
        let filter = Filter::Field { path: "title".into(), condition: Condition::Prefix("c".into()) };
        let damaged = things.count(Some(&filter)).unwrap_err();
        assert!(damaged.to_string().contains("is damaged"), "{damaged}");
        things.delete(&[id("b")]).unwrap();
        assert_eq!(things.count(Some(&filter)).unwrap(), 1);
        let request = SearchRequest { filter: Some(filter), ..SearchRequest::new(Query::Vector(vec![1.0, 2.0])) };
        assert_eq!(things.search(&request).unwrap().hits[0].id, id("c"));
    }

    #[test]
    fn a_merge_builds_a_damaged_graph_anew() {
        let directory = tempfile::tempdir().unwrap();
        let document = |n: u32| {
            let id = DocumentId::new(&format!("{n:04}")).unwrap();
            NewDocument { vector: Some(vec![n as f32, (n * n % 97) as f32]), ..NewDocument::from_text(id, "") }
        };
        let list: Vec<u8> = {
            let database = Database::open(directory.path()).unwrap();
            let name = CollectionName::new("things").unwrap();
            let request = DefinitionRequest { metric: Some(Metric::L2), ..DefinitionRequest::vectors(2) };
            let things = database.create_collection(&name, &request).unwrap().collection;
            // So many that a block in the middle of the lists holds nothing else.
            things.upsert((0..1_000).map(document).collect()).unwrap();
            things.upsert((1_000..2_000).map(document).collect()).unwrap();
            things.optimise().unwrap();
            let segment = &things.state.view().segments[0].segment;
            let graph = segment.sound_graph().unwrap().unwrap();
            graph.neighbours(1_000).iter().flat_map(|row| row.to_le_bytes()).collect()
        };
        let files = segment_files(directory.path());
        let mut bytes = std::fs::read(&files[0]).unwrap();
        let at = bytes.windows(list.len()).position(|window| window == list).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&files[0], bytes).unwrap();
        let database = Database::open(directory.path()).unwrap();
        let things = database.collections()[0].clone();
        let damaged = things.state.view().segments[0].segment.verify(|_| ()).unwrap_err();
        assert!(damaged.to_string().contains("is damaged"), "{damaged}");
        things.upsert((2_000..2_010).map(document).collect()).unwrap();
        things.optimise().unwrap();
        let view = things.state.view();
        assert_eq!((view.segments.len(), view.segments[0].segment.rows()), (1, 2_010));
        view.segments[0].segment.verify(|_| ()).unwrap();
        let nearest = SearchRequest::new(Query::Vector(vec![7.0, 49.0]));
        assert_eq!(things.search(&nearest).unwrap().hits[0].id.as_str(), "0007");
    }

    #[test]
    fn a_segment_that_no_manifest_names_takes_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let (database, things) = store(directory.path());
        let (shared, state) = (&things.engine.shared, &things.state);
        let full = Plan { only: &[Operation::Rename], fail_at: 0, then: Then::Recover, errno: ENOSPC };
        let refused_manifest = |work: &dyn Fn() -> Result<(), CollectionError>| {
            let faults = Faults::with(&shared.paths.manifest(), full);
            let refused = work().unwrap_err();
            assert!(faults.fired() && is_disk_full(&refused), "{refused}");
        };
        assert!(state.freeze());
        let memtable = state.view().frozen[0].clone();
        refused_manifest(&|| seal(shared, state, &memtable));
        assert_eq!(segment_files(directory.path()).len(), 0);
        seal(shared, state, &memtable).unwrap();
        let b = DocumentId::new("b").unwrap();
        things.upsert(vec![NewDocument { vector: Some(vec![2.0, 1.0]), ..NewDocument::from_text(b, "") }]).unwrap();
        things.flush().unwrap();
        let inputs: Vec<_> = state.view().segments.iter().map(|live| live.id).collect();
        let plan = MergePlan { inputs, with_graph: true };
        refused_manifest(&|| merge(shared, state, &plan, &AtomicBool::new(false)));
        assert_eq!(segment_files(directory.path()).len(), 2);
        merge(shared, state, &plan, &AtomicBool::new(false)).unwrap();
        assert_eq!(segment_files(directory.path()).len(), 1);
        drop((memtable, things, database));
        assert_eq!(reopened(directory.path()), ["a", "b"]);
    }

    #[test]
    fn a_merge_of_a_dropped_collection_ends_without_an_error_unless_a_sync_failed() {
        let directory = tempfile::tempdir().unwrap();
        let (_database, things) = store(directory.path());
        let (shared, state) = (&things.engine.shared, &things.state);
        things.flush().unwrap();
        let plan = MergePlan { inputs: state.view().segments.iter().map(|live| live.id).collect(), with_graph: true };
        let called_off = AtomicBool::new(true);
        let refused = merge(shared, state, &plan, &called_off).unwrap_err();
        assert!(matches!(refused, CollectionError::Index(_)), "{refused}");
        // As if its directory stood still.
        state.mark_dropped();
        merge(shared, state, &plan, &called_off).unwrap();
        let faults = Faults::arm_only(&directory.path().join("segments"), Operation::Sync, 0, Then::Recover);
        let failed = merge(shared, state, &plan, &AtomicBool::new(false)).unwrap_err();
        assert!(is_failed_sync(&failed) && faults.fired(), "{failed}");
    }

    #[test]
    fn what_dies_during_a_merge_is_dead_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (database, things) = store(directory.path());
        let (shared, state) = (&things.engine.shared, &things.state);
        let id = |text: &str| DocumentId::new(text).unwrap();
        let document = |text| NewDocument { vector: Some(vec![2.0, 1.0]), ..NewDocument::from_text(id(text), text) };
        // So many that one dead row is no reason for another merge.
        for texts in [["b", "c", "d"], ["e", "f", "g"]] {
            things.upsert(texts.map(document).to_vec()).unwrap();
            things.flush().unwrap();
        }
        let (spec, inputs) = (new_spec(shared, state).unwrap(), state.view().segments.clone());
        let options = MergeOptions {
            with_graph: true,
            oldest_elsewhere: None,
            builder: shared.settings.builder,
            threads: shared.settings.threads,
            rate: &shared.merge_rate,
            cancel: &AtomicBool::new(false),
        };
        let mut merged = index::merge(&inputs, &segment_path(shared, &spec), &spec, &options).unwrap();
        let live = Arc::new(open_segment(shared, &spec).unwrap());
        // The delete is in a segment before the merge ends, so the log does not replay it.
        things.delete(&[id("a")]).unwrap();
        things.flush().unwrap();
        assert!(publish_merge(shared, state, &spec, &inputs, &mut merged, Some(&live)).unwrap());
        drop((inputs, live, things, database));
        let left = ["b", "c", "d", "e", "f", "g"];
        assert_eq!(reopened(directory.path()), left);
        let database = Database::open(directory.path()).unwrap();
        assert_eq!(database.recovered().replayed, 0);
        let request = SearchRequest { exact: true, ..SearchRequest::new(Query::Vector(vec![1.0, 2.0])) };
        let hits = database.collections()[0].search(&request).unwrap().hits;
        assert_eq!(hits.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), left);
    }

    #[test]
    fn changes_that_a_segment_has_are_not_sealed_again() {
        let directory = tempfile::tempdir().unwrap();
        let (database, things) = store(directory.path());
        let (shared, state) = (&things.engine.shared, &things.state);
        let sealed = state.view().active.clone();
        things.flush().unwrap();
        let refused = seal(shared, state, &sealed).unwrap_err();
        assert!(matches!(refused, CollectionError::Unmerged { .. }), "{refused}");
        assert_eq!(shared.manifest().collections[0].segments.len(), 1);
        drop((things, database));
        assert_eq!(reopened(directory.path()), ["a"]);
    }

    #[test]
    fn figures_do_not_wait_for_a_manifest_to_be_published() {
        let directory = tempfile::tempdir().unwrap();
        let (_database, things) = store(directory.path());
        let _publishing = things.engine.shared.manifest();
        let (told, figures) = std::sync::mpsc::channel();
        let asked = things.clone();
        std::thread::spawn(move || told.send(asked.stats().documents));
        assert_eq!(figures.recv_timeout(std::time::Duration::from_secs(60)), Ok(1));
    }
}
