//! Opening a store: segments from the manifest, the document index, then the log on top.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::index::LiveSegment;
use crate::log::{self, GroupCommit, GroupOptions, LogIdentity, LogWriter, ReadFrom, WriterOptions};
use crate::manifest::{CollectionEntry, Manifest, SegmentEntry};
use crate::meta::{self, MetaError, MetaIndex, Opened, is_disk_full};
use crate::segment::{DeadRows, Segment, SegmentError};
use crate::storage::{self, DataPaths};
use crate::types::{Chain, CollectionId, Ordinal, Seq};

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
    let (meta, index_rebuilt) = open_index(&paths, &manifest, &catalog, &lost)?;
    let log_start = manifest.log_start;
    let (named, _) = catalog.all();
    let shared = Arc::new(Shared::new(paths, catalog, meta, manifest, settings));
    let (replayed, torn_bytes) = replay(&shared, log_start)?;
    // The store ended between their drop and its clearing up.
    for dropped in named.iter().filter(|state| state.is_dropped()) {
        match install::remove_collection(&shared, dropped) {
            // What is full must not keep a store from opening; the next start tries again.
            Err(error) if is_disk_full(&error) => {
                tracing::warn!(error = %Chain(&error), "a dropped collection could not be cleared up");
            }
            cleared => cleared?,
        }
    }
    // Only now: a manifest that is not this store's last one is refused above, and must not cost what the last one
    // names.
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
        check_named(&opened, segment)?;
        let (dead, damage) = match segment.dead_version {
            0 => (DeadRows::new(opened.rows()), None),
            version => {
                let path = paths.dead_file(entry.id.0, entry.generation, segment.id.0, version);
                match read_dead(&path, segment) {
                    Ok(dead) => (dead, None),
                    // Of a newer program, which may mean something else by it.
                    Err(error) if error.is_of_another_version() => return Err(error.into()),
                    Err(error) => (DeadRows::new(opened.rows()), Some(error)),
                }
            }
        };
        let live = Arc::new(LiveSegment { id: segment.id, segment: opened, dead });
        if let Some(error) = damage {
            tracing::warn!(%error, "a list of dead rows is damaged; it is made again with the document index");
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

/// What the manifest says of a segment and its file does not: what, as in the file, as in the manifest.
pub fn contradiction(segment: &Segment, named: &SegmentEntry) -> Option<(&'static str, u64, u64)> {
    let numbers = [
        ("rows", u64::from(segment.rows()), u64::from(named.rows)),
        ("tombstones", u64::from(segment.tombstone_count()), u64::from(named.tombstones)),
        ("bytes", segment.len_bytes(), named.len_bytes),
        ("first change", segment.min_seq().0, named.min_seq.0),
        ("last change", segment.max_seq().0, named.max_seq.0),
        ("graph", u64::from(segment.has_graph()), u64::from(named.has_graph)),
    ];
    numbers.into_iter().find(|(_, got, expected)| got != expected)
}

/// Refuses a segment that is not the one which the manifest names. Numbers are given out again after a restore, so a
/// file may be its namesake of another moment.
///
/// # Errors
/// [`SegmentError::Mismatch`].
pub fn check_named(segment: &Segment, named: &SegmentEntry) -> Result<(), SegmentError> {
    match contradiction(segment, named) {
        Some((what, got, expected)) => Err(mismatch(segment.path(), what, got, expected)),
        None => Ok(()),
    }
}

/// Reads the list of dead rows at `path`, which the manifest names with its segment.
///
/// # Errors
/// As [`DeadRows::read`]; [`SegmentError::Mismatch`] also where it is one of an earlier moment.
pub fn read_dead(path: &Path, named: &SegmentEntry) -> Result<DeadRows, SegmentError> {
    let dead = DeadRows::read(path, named.id, named.rows)?;
    // Rows that died while it was written are in it, too.
    match dead.count() {
        fewer if fewer < named.dead_rows => {
            Err(mismatch(path, "dead rows", u64::from(fewer), u64::from(named.dead_rows)))
        }
        _ => Ok(dead),
    }
}

fn mismatch(path: &Path, what: &'static str, got: u64, expected: u64) -> SegmentError {
    let path = path.to_owned();
    SegmentError::Mismatch { path, what, expected: expected.to_string(), got: got.to_string() }
}

/// Opens the document index and brings it to what the manifest names. One that turns out to be damaged is made again.
/// Returns why it was made again, where it was.
fn open_index(
    paths: &DataPaths,
    manifest: &Manifest,
    catalog: &Catalog,
    lost: &LostDead,
) -> Result<(MetaIndex, Option<String>), CollectionError> {
    let identity = meta::Identity { store_id: manifest.store_id.0, timeline: manifest.timeline };
    let (meta, rebuilt) = match MetaIndex::open(&paths.meta_dir(), identity)? {
        // It may have rows of merged segments that died while they were merged, which only the lists tell.
        Opened::Usable(index) if !lost.is_empty() => {
            (index.make_again(identity)?, Some("a list of dead rows is damaged or missing".to_owned()))
        }
        Opened::Usable(index) => (index, None),
        // A new store has none, and that is nothing to report.
        Opened::Fresh(index, _) if manifest.collections.is_empty() => (index, None),
        Opened::Fresh(index, reason) => (index, Some(reason)),
    };
    meta.begin(identity)?;
    match bring_up(&meta, catalog, lost) {
        Ok(()) => Ok((meta, rebuilt)),
        Err(CollectionError::Meta(error)) if error.is_of_the_index() => {
            let meta = meta.make_again(identity)?;
            bring_up(&meta, catalog, lost)?;
            Ok((meta, Some(Chain(&error).to_string())))
        }
        Err(error) => Err(error),
    }
}

/// Lets the document index know every segment and nothing else, and finds the rows in `lost` that are dead.
fn bring_up(meta: &MetaIndex, catalog: &Catalog, lost: &LostDead) -> Result<(), CollectionError> {
    let (collections, _) = catalog.all();
    let views: Vec<_> = collections.iter().map(|state| (state, state.view())).collect();
    let named = views.iter().flat_map(|(state, view)| view.segments.iter().map(|live| (state.identity.id, live.id)));
    meta.keep_fields_of(&named.collect())?;
    let indexed = meta.indexed_segments()?;
    let gone: BTreeSet<_> = indexed.iter().map(|(id, _)| *id).filter(|id| catalog.by_id(*id).is_none()).collect();
    gone.into_iter().try_for_each(|id| meta.drop_collection(id))?;
    for (state, view) in &views {
        // Oldest first.
        for live in view.segments.iter().filter(|live| !indexed.contains(&(state.identity.id, live.id))) {
            let tombstones = live.segment.tombstones()?;
            let tombstones: Vec<_> = tombstones.into_iter().map(|t| (t.id, t.seq)).collect();
            install::index_rows(meta, state, live, &tombstones)?;
        }
    }
    let dead: Vec<_> = lost.iter().map(|(id, live)| find_dead_rows(meta, *id, live)).collect::<Result<_, _>>()?;
    // Only now: what an index says that turns out to be damaged must not kill rows.
    for ((_, live), dead) in lost.iter().zip(dead) {
        dead.into_iter().for_each(|ordinal| _ = live.dead.mark(ordinal));
    }
    Ok(())
}

/// A row is dead when the document index knows another place for its id, or none. Of an index that has just been made
/// of all segments, oldest first: then tombstones come after the rows that they hide.
fn find_dead_rows(
    meta: &MetaIndex,
    collection: CollectionId,
    live: &LiveSegment,
) -> Result<Vec<Ordinal>, CollectionError> {
    let mut dead = Vec::new();
    for ordinal in 0..live.segment.rows() {
        let id = live.segment.document_id(ordinal)?;
        let place = meta.locate(collection, &id)?;
        if place.is_none_or(|place| (place.segment, place.ordinal) != (live.id, ordinal)) {
            dead.push(ordinal);
        }
    }
    Ok(dead)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::types::{CollectionName, DocumentId, Metadata, NewDocument};
    use crate::{Collection, Database, DefinitionRequest};

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    /// A collection with a sealed document.
    fn create(database: &Database, name: &str) -> Collection {
        let name = CollectionName::new(name).unwrap();
        let collection = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        let (metadata, vector, chunks) = (Metadata::new(), Some(vec![1.0, 2.0]), Vec::new());
        collection.upsert(vec![NewDocument { id: id("a"), text: None, metadata, vector, chunks }]).unwrap();
        collection.flush().unwrap();
        collection
    }

    /// The files of a store as a process that is killed leaves them.
    fn killed(from: &Path, to: &Path) {
        for file in storage::list_files_below(from).unwrap() {
            let target = to.join(file.strip_prefix(from).unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(&file, target).unwrap();
        }
    }

    #[test]
    fn an_index_that_turns_out_to_be_damaged_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
        let database = Database::open(&data).unwrap();
        let things = create(&database, "things");
        things.engine.shared.meta.spoil();
        killed(&data, &copy);
        for is_first in [true, false] {
            let database = Database::open(&copy).unwrap();
            assert_eq!(database.recovered().index_rebuilt.is_some(), is_first, "{:?}", database.recovered());
            let things = &database.collections()[0];
            assert!(things.get(&id("a")).unwrap().is_some());
            assert!(things.engine.shared.meta.locate(things.state.identity.id, &id("a")).unwrap().is_some());
        }
    }

    #[test]
    fn a_lost_list_of_dead_rows_brings_nothing_back() {
        let directory = tempfile::tempdir().unwrap();
        {
            let database = Database::open(directory.path()).unwrap();
            let things = create(&database, "things");
            let document = |n: usize| NewDocument {
                vector: Some(vec![1.0, 2.0]),
                ..NewDocument::from_text(id(&format!("b{n}")), "")
            };
            things.upsert((0..20).map(document).collect()).unwrap();
            things.flush().unwrap();
            things.delete(&[id("b7")]).unwrap();
            things.flush().unwrap();
            let (meta, number) = (&things.engine.shared.meta, things.state.identity.id);
            assert_eq!(meta.locate(number, &id("b7")).unwrap(), None);
            // As where a merge read the row, it was deleted, and then the merge was installed.
            let view = things.state.view();
            let live = view.segments.iter().find(|live| live.dead.count() == 1).unwrap();
            install::index_rows(meta, &things.state, live, &[]).unwrap();
            assert!(meta.locate(number, &id("b7")).unwrap().is_some());
        }
        let is_list = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "dead");
        let lists: Vec<_> = storage::list_files_below(directory.path()).unwrap().into_iter().filter(is_list).collect();
        assert!(!lists.is_empty());
        lists.iter().for_each(|list| storage::remove_file(list).unwrap());
        let database = Database::open(directory.path()).unwrap();
        let things = &database.collections()[0];
        assert!(things.get(&id("b7")).unwrap().is_none());
        assert_eq!(things.stats().documents, 20);
        assert!(database.recovered().index_rebuilt.is_some());
    }

    fn with_end(data: &Path, end: &str) -> PathBuf {
        let files = storage::list_files_below(data).unwrap();
        files.into_iter().find(|path| path.to_str().unwrap().ends_with(end)).unwrap()
    }

    #[test]
    fn a_segment_of_another_moment_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        drop(create(&Database::open(&one).unwrap(), "things"));
        {
            let database = Database::open(&two).unwrap();
            let name = CollectionName::new("things").unwrap();
            let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
            let document =
                |text: &str| NewDocument { vector: Some(vec![1.0, 2.0]), ..NewDocument::from_text(id(text), "") };
            things.upsert(vec![document("a"), document("b")]).unwrap();
            things.flush().unwrap();
        }
        let path = with_end(&one, ".seg");
        std::fs::copy(with_end(&two, ".seg"), &path).unwrap();
        let error = Database::open(&one).err().unwrap();
        let said = Chain(&error).to_string();
        assert!(said.contains(&format!("{} has rows 2, expected 1", path.display())), "{said}");
    }

    #[test]
    fn an_older_list_of_dead_rows_brings_nothing_back() {
        let directory = tempfile::tempdir().unwrap();
        let older = {
            let database = Database::open(directory.path()).unwrap();
            let things = create(&database, "things");
            let document = |n: usize| NewDocument {
                vector: Some(vec![1.0, 2.0]),
                ..NewDocument::from_text(id(&format!("b{n}")), "")
            };
            things.upsert((0..20).map(document).collect()).unwrap();
            things.flush().unwrap();
            things.delete(&[id("b7")]).unwrap();
            things.flush().unwrap();
            let older = std::fs::read(with_end(directory.path(), ".1.dead")).unwrap();
            things.delete(&[id("b8")]).unwrap();
            things.flush().unwrap();
            older
        };
        std::fs::write(with_end(directory.path(), ".2.dead"), older).unwrap();
        for _ in 0..2 {
            let database = Database::open(directory.path()).unwrap();
            let things = &database.collections()[0];
            assert!(things.get(&id("b8")).unwrap().is_none());
            assert_eq!(things.stats().documents, 19);
        }
    }

    #[test]
    fn a_panic_of_the_index_ends_neither_writes_nor_closing() {
        let directory = tempfile::tempdir().unwrap();
        {
            let database = Database::open(directory.path()).unwrap();
            let things = create(&database, "things");
            things.engine.shared.meta.panics.store(true, Ordering::Release);
            things.delete(&[id("a")]).unwrap();
            assert!(things.get(&id("a")).unwrap().is_none());
        }
        let database = Database::open(directory.path()).unwrap();
        assert!(database.recovered().index_rebuilt.is_some());
        assert_eq!(database.collections()[0].stats().documents, 0);
    }

    #[test]
    fn a_drop_that_was_not_cleared_up_is_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
        let database = Database::open(&data).unwrap();
        let things = create(&database, "things");
        let number = things.state.identity.id;
        {
            // Nothing is cleared up while it is held.
            let _manifest = things.engine.shared.manifest();
            database.drop_collection(things.name()).unwrap();
            killed(&data, &copy);
        }
        let paths = DataPaths::new(&copy);
        assert_eq!(Manifest::load(&paths).unwrap().collections.len(), 1);
        assert!(paths.collection_dir(number.0).exists());
        let database = Database::open(&copy).unwrap();
        assert_eq!(Manifest::load(&paths).unwrap().collections, []);
        assert!(!paths.collection_dir(number.0).exists());
        let other = create(&database, "other");
        let meta = &other.engine.shared.meta;
        assert_eq!(meta.indexed_segments().unwrap().len(), 1);
        assert_eq!(meta.locate(number, &id("a")).unwrap(), None);
    }
}
