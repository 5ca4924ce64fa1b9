//! One collection in memory: its definition, its current view, and how a change is applied to it.
//!
//! Locks, in this order: `committing`, `applying`, `view`. `committing` is held by writers from before a change is
//! handed to the log until it is applied: shared, or alone by one whose change depends on what stands there; they get
//! it in the order in which they ask. `applying` is held while a change is applied and while a segment is swapped in;
//! readers take only `view`, to clone the `Arc` in it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::index::{LiveSegment, MemEntry, Memtable, Place, Relocation, Resolved, View};
use crate::log::{LogError, LoggedDocument};
use crate::meta::MetaIndex;
use crate::segment::DeadRows;
use crate::types::{CollectionId, CollectionName, Definition, DocumentId, Ordinal, SegmentId, Seq};

use super::CollectionError;
use super::keywords::Keywords;
use super::recall::RecallCounts;
use super::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, RwLock};
use super::turnstile::{Pass, Turnstile};

/// Writers wait while so many full memtables wait to be sealed.
const MAX_FROZEN: usize = 4;
/// Longest wait of a writer for a memtable to be sealed, before it is turned away.
const ROOM_TIMEOUT: Duration = Duration::from_secs(60);
/// A read that meets another moment than its view's looks again this often before it keeps changes waiting.
const STALE_RETRIES: usize = 3;

/// What came during a read of every place is looked at so often, the last time with changes kept waiting.
const LOOKS: usize = 4;

/// What never changes about a collection.
pub struct Identity {
    /// Its number.
    pub id: CollectionId,
    /// Its name.
    pub name: CollectionName,
    /// Its definition.
    pub definition: Definition,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// The change that created it.
    pub created_seq: Seq,
}

/// One collection.
pub struct CollectionState {
    /// What never changes.
    pub identity: Identity,
    /// What its keyword index has still to read.
    pub keywords: Keywords,
    /// What sampled searches have found.
    pub recall: Arc<RecallCounts>,
    memtable_entries: u32,
    committing: Turnstile,
    applying: Mutex<()>,
    view: RwLock<Arc<View>>,
    last_seq: AtomicU64,
    /// As the manifest on disk has it.
    sealed_seq: AtomicU64,
    dropped: AtomicBool,
    /// Signalled when a frozen memtable has become a segment.
    room: Condvar,
    room_lock: Mutex<()>,
    /// Why the last attempt at sealing failed; `None` where it did not.
    seal_refusal: Mutex<Option<SealRefusal>>,
}

/// Why a memtable could not be sealed.
#[derive(Clone, Debug)]
pub struct SealRefusal {
    /// The error and its causes.
    pub reason: String,
    /// Whether the disk is full.
    pub disk_full: bool,
    /// Whether a sync failed, of this segment or of another file, so that the store has stopped.
    pub stops: bool,
}

/// What the segments know when a collection is opened.
pub struct SealedPart {
    /// Its segments, by ascending number.
    pub segments: Vec<Arc<LiveSegment>>,
    /// Its changes up to here are in them.
    pub sealed_seq: Seq,
}

impl CollectionState {
    /// A collection with these segments and nothing younger.
    pub fn new(identity: Identity, sealed: SealedPart, memtable_entries: u32) -> Self {
        let last_seq = sealed.sealed_seq.max(identity.created_seq);
        let keywords = Keywords::new(last_seq, sealed.sealed_seq, !sealed.segments.is_empty());
        let view = View::new(Memtable::new(memtable_entries), sealed.segments);
        Self {
            identity,
            keywords,
            recall: Arc::default(),
            memtable_entries,
            committing: Turnstile::default(),
            applying: Mutex::new(()),
            view: RwLock::new(Arc::new(view)),
            last_seq: AtomicU64::new(last_seq.0),
            sealed_seq: AtomicU64::new(last_seq.0),
            dropped: AtomicBool::new(false),
            room: Condvar::new(),
            room_lock: Mutex::new(()),
            seal_refusal: Mutex::new(None),
        }
    }

    /// The collection as it is now.
    pub fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads every place, older ones before younger ones, without keeping changes waiting for long. `read` gets the
    /// view of one moment. Where a memtable is frozen meanwhile, the next replaces rows of this moment by ones that the
    /// view lacks: then `read` is asked for what has come since as well, until nothing has. As a rule each look takes
    /// less time than the one before it, and leaves less for the next; changes wait for the last one at most.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn read_whole<E>(&self, mut read: impl FnMut(&Arc<View>) -> Result<(), E>) -> Result<(), E> {
        // Before the view, which holds every change up to there.
        let mut seen = self.last_seq();
        let mut view = self.view();
        read(&view)?;
        for look in 1..=LOOKS {
            let _applying = (look == LOOKS).then(|| self.hold());
            let (now_seen, now) = (self.last_seq(), self.view());
            if Arc::ptr_eq(&now.active, &view.active) {
                break;
            }
            read(&Arc::new(now.since(&view, seen)))?;
            (seen, view) = (now_seen, now);
        }
        Ok(())
    }

    /// Reads every place of one moment, and keeps changes waiting meanwhile.
    pub fn read_still<T>(&self, read: impl FnOnce(&Arc<View>) -> T) -> T {
        let _applying = self.hold();
        read(&self.view())
    }

    /// For as long as one writer commits beside others. Writers of either kind wait for those alone that asked before.
    pub fn commit_beside_others(&self) -> Pass<'_> {
        self.committing.share()
    }

    /// For as long as one writer commits alone: everything that others have handed to the log is applied, and nothing
    /// more comes.
    pub fn commit_alone(&self) -> Pass<'_> {
        self.committing.hold_alone()
    }

    /// The youngest change applied.
    pub fn last_seq(&self) -> Seq {
        Seq(self.last_seq.load(Ordering::Acquire))
    }

    /// The segments have its changes up to here.
    pub fn sealed_seq(&self) -> Seq {
        Seq(self.sealed_seq.load(Ordering::Acquire))
    }

    /// A manifest was published that names segments with its changes up to `seq`.
    pub fn note_sealed(&self, seq: Seq) {
        self.sealed_seq.store(seq.0, Ordering::Release);
    }

    /// Whether it was dropped.
    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// Turns away whoever still holds it.
    pub fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
        self.room.notify_all();
    }

    /// Applies an upsert. Returns whether a memtable was frozen.
    pub fn apply_upsert(&self, meta: &MetaIndex, seq: Seq, documents: Vec<LoggedDocument>) -> bool {
        let guard = self.hold();
        let froze = self.freeze_when(&guard, Memtable::is_full);
        let view = self.view();
        let noted = self.keywords.wanted(&documents);
        for LoggedDocument { document, vector, chunks } in documents {
            let id = document.id.clone();
            if !view.active.insert(seq, document, vector, chunks) {
                self.supersede(&view, meta, &id);
            }
        }
        self.keywords.applied(seq, noted);
        self.last_seq.store(seq.0, Ordering::Release);
        froze
    }

    /// Applies a delete. Returns whether a memtable was frozen.
    pub fn apply_delete(&self, meta: &MetaIndex, seq: Seq, ids: Vec<DocumentId>) -> bool {
        let guard = self.hold();
        let froze = self.freeze_when(&guard, Memtable::is_full);
        let view = self.view();
        let noted = self.keywords.wanted_of_delete(&ids);
        for id in ids {
            if !view.active.delete(seq, id.clone()) {
                self.supersede(&view, meta, &id);
            }
        }
        self.keywords.applied(seq, noted);
        self.last_seq.store(seq.0, Ordering::Release);
        froze
    }

    /// Marks the one older version of an id dead, wherever it stands.
    fn supersede(&self, view: &View, meta: &MetaIndex, id: &DocumentId) {
        if view.frozen.iter().rev().any(|frozen| frozen.supersede(id)) {
            return;
        }
        match meta.locate(self.identity.id, id) {
            Ok(None) => return,
            Ok(Some(location)) => match view.resolve(location.segment, location.ordinal) {
                Resolved::Row(live, ordinal) => {
                    live.dead.mark(ordinal);
                    return;
                }
                Resolved::LeftOut => return,
                // Left behind by a crash between a merge and the index's following it.
                Resolved::Stale => {}
            },
            // The index has said so in the log.
            Err(error) => tracing::debug!(%error, "looking into the segments"),
        }
        for live in &view.segments {
            let found = live.find(id).unwrap_or_else(|error| {
                tracing::error!(%error, "a segment is damaged; its rows are searched one by one for a replaced document");
                live.find_readable(id)
            });
            if let Some(ordinal) = found {
                live.dead.mark(ordinal);
            }
        }
    }

    /// Where the living version of a document stands.
    ///
    /// # Errors
    /// [`CollectionError`] when the index and a segment are damaged.
    pub fn find(&self, meta: &MetaIndex, id: &DocumentId) -> Result<Option<Place>, CollectionError> {
        for _ in 0..STALE_RETRIES {
            let view = self.view();
            match self.look(&view, meta, id)? {
                Look::Found(place) => return Ok(Some(place)),
                Look::Deleted => return Ok(None),
                // Otherwise a younger version may have come after the memtables were asked, and a merge may have taken
                // the older one out of the document index.
                Look::Nowhere
                    if Arc::ptr_eq(&view, &self.view())
                        && view.memtables().all(|memtable| memtable.entry(id).is_none()) =>
                {
                    return Ok(None);
                }
                Look::Nowhere | Look::Stale => {}
            }
        }
        let _applying = self.hold();
        let view = self.view();
        match self.look(&view, meta, id)? {
            Look::Found(place) => Ok(Some(place)),
            Look::Deleted | Look::Nowhere => Ok(None),
            // Left behind by a crash between a merge and the index's following it.
            Look::Stale => find_in_segments(&view, id),
        }
    }

    /// Looks for a document in one view and in the document index, which may be ahead of the view or behind it.
    fn look(&self, view: &View, meta: &MetaIndex, id: &DocumentId) -> Result<Look, CollectionError> {
        match view.memtables().find_map(|memtable| Some((memtable, memtable.entry(id)?))) {
            Some((memtable, MemEntry::Row(ordinal))) => {
                return Ok(Look::Found(Place::Memory(memtable.clone(), ordinal)));
            }
            Some((_, MemEntry::Tombstone(_))) => return Ok(Look::Deleted),
            None => {}
        }
        let location = match meta.locate(self.identity.id, id) {
            Ok(Some(location)) => location,
            Ok(None) => return Ok(Look::Nowhere),
            Err(error) => {
                tracing::debug!(%error, "looking into the segments");
                return Ok(find_in_segments(view, id)?.map_or(Look::Nowhere, Look::Found));
            }
        };
        Ok(match view.resolve(location.segment, location.ordinal) {
            Resolved::Row(live, ordinal) if !live.dead.is_dead(ordinal) => {
                Look::Found(Place::Sealed(live.clone(), ordinal))
            }
            Resolved::Row(..) | Resolved::LeftOut => Look::Nowhere,
            Resolved::Stale => Look::Stale,
        })
    }

    /// Freezes what the active memtable holds, if anything.
    pub fn freeze(&self) -> bool {
        let guard = self.hold();
        self.freeze_when(&guard, |memtable| !memtable.is_empty())
    }

    fn freeze_when(&self, _applying: &Hold<'_>, due: impl Fn(&Memtable) -> bool) -> bool {
        let view = self.view();
        if !due(&view.active) {
            return false;
        }
        let mut next = View::clone(&view);
        let full = std::mem::replace(&mut next.active, Arc::new(Memtable::new(self.memtable_entries)));
        next.frozen.push(full);
        self.set_view(next);
        true
    }

    /// Puts the segment of a frozen memtable in its place, or nothing where no row was left. `sources`: by row of the
    /// segment, the row of the memtable.
    pub fn swap_sealed(&self, memtable: &Arc<Memtable>, sources: &[Ordinal], live: Option<Arc<LiveSegment>>) {
        self.swap(|view| {
            view.frozen.retain(|frozen| !Arc::ptr_eq(frozen, memtable));
            let Some(live) = live else { return };
            for (row, &source) in sources.iter().enumerate() {
                if memtable.is_dead(source) {
                    live.dead.mark(row as Ordinal);
                }
            }
            view.segments.push(live);
            view.segments.sort_by_key(|s| s.id);
        });
    }

    /// Puts a merged segment in the place of its inputs, or nothing where no row was left. `relocations`: by input,
    /// where its rows went; they stay until [`CollectionState::forget_relocations`].
    pub fn swap_merged(
        &self,
        inputs: &[Arc<LiveSegment>],
        relocations: Vec<Relocation>,
        live: Option<Arc<LiveSegment>>,
    ) {
        self.swap(|view| {
            if let Some(live) = live {
                mark_moved_dead(inputs, &relocations, &live.dead);
                view.segments.push(live);
            }
            view.segments.retain(|old| inputs.iter().all(|input| input.id != old.id));
            view.segments.sort_by_key(|s| s.id);
            view.relocations.extend(inputs.iter().map(|input| input.id).zip(relocations.into_iter().map(Arc::new)));
        });
    }

    /// The document index knows where the rows of these segments went.
    pub fn forget_relocations(&self, segments: &[SegmentId]) {
        self.swap(|view| view.relocations.retain(|id, _| !segments.contains(id)));
    }

    /// Swaps the view, with no change applied meanwhile.
    fn swap(&self, edit: impl FnOnce(&mut View)) {
        let _applying = self.hold();
        let mut next = View::clone(&self.view());
        edit(&mut next);
        self.set_view(next);
        self.room.notify_all();
    }

    fn set_view(&self, view: View) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    fn hold(&self) -> Hold<'_> {
        Hold(self.applying.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits a moment, or until a segment is swapped in.
    pub fn wait_for_change(&self) {
        let guard = self.room_lock.lock().unwrap_or_else(PoisonError::into_inner);
        // A signal between a look and this wait is missed; the next look comes soon.
        drop(self.room.wait_timeout(guard, Duration::from_millis(50)));
    }

    /// Waits until few enough memtables wait to be sealed.
    ///
    /// # Errors
    /// [`CollectionError::Overloaded`] when sealing does not keep up, [`LogError::NotWritten`] when the disk refuses
    /// the segment, [`CollectionError::Stopped`] when a sync failed, [`CollectionError::NotFound`] once dropped.
    pub fn wait_for_room(&self) -> Result<(), CollectionError> {
        let deadline = Instant::now() + ROOM_TIMEOUT;
        loop {
            if self.is_dropped() {
                return Err(CollectionError::NotFound { name: self.identity.name.clone() });
            }
            if self.view().frozen.len() < MAX_FROZEN {
                return Ok(());
            }
            // More time makes no room on a disk.
            match self.refusal().clone() {
                Some(SealRefusal { reason, stops: true, .. }) => return Err(CollectionError::Stopped { reason }),
                Some(SealRefusal { reason, disk_full, .. }) => {
                    return Err(LogError::NotWritten { reason, disk_full }.into());
                }
                None => {}
            }
            if Instant::now() >= deadline {
                return Err(CollectionError::Overloaded);
            }
            self.wait_for_change();
        }
    }

    /// Notes how an attempt at sealing ended, for those who wait for room.
    pub fn note_seal(&self, refusal: Option<SealRefusal>) {
        *self.refusal() = refusal;
    }

    fn refusal(&self) -> MutexGuard<'_, Option<SealRefusal>> {
        self.seal_refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a view and the document index say of an id.
enum Look {
    Found(Place),
    /// A memtable says so.
    Deleted,
    /// No memtable has it, and no row of it is alive: true where the view is still the present one, and the memtables
    /// still have none.
    Nowhere,
    /// The index is of another moment than the view.
    Stale,
}

fn find_in_segments(view: &View, id: &DocumentId) -> Result<Option<Place>, CollectionError> {
    for live in &view.segments {
        if let Some(ordinal) = live.find(id)?
            && !live.dead.is_dead(ordinal)
        {
            return Ok(Some(Place::Sealed(live.clone(), ordinal)));
        }
    }
    Ok(None)
}

/// The `applying` lock, held.
struct Hold<'a>(#[expect(dead_code, reason = "held for its drop")] MutexGuard<'a, ()>);

/// Marks rows of a merged segment that died in its inputs while the merge ran.
pub fn mark_moved_dead(inputs: &[Arc<LiveSegment>], relocations: &[Relocation], dead: &DeadRows) {
    for (input, relocation) in inputs.iter().zip(relocations) {
        for (old, &new) in relocation.ordinals.iter().enumerate() {
            if new != Relocation::LEFT_OUT && input.dead.is_dead(old as Ordinal) {
                dead.mark(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Change;
    use crate::storage::list_files_below;
    use crate::types::{NewDocument, Value};
    use crate::{Database, DefinitionRequest};

    #[test]
    fn a_read_looks_at_what_comes_meanwhile_alone_and_keeps_no_change_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("things").unwrap();
        let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        let write = |n: usize| {
            let id = DocumentId::new(&format!("d{n}")).unwrap();
            let document = NewDocument { vector: Some(vec![1.0, n as f32]), ..NewDocument::from_text(id, "") };
            things.upsert(vec![document]).unwrap();
        };
        (0..10).for_each(write);
        things.flush().unwrap();
        let places =
            |view: &Arc<View>| (view.segments.len(), view.memtables().map(|m| m.live_rows()).collect::<Vec<_>>());
        let mut looks = Vec::new();
        let read = |view: &Arc<View>| {
            let look = looks.len();
            looks.push(places(view));
            // Written within every look but the last.
            if look < LOOKS {
                write(20 + look);
                things.state.freeze();
            }
            Ok::<_, CollectionError>(())
        };
        things.state.read_whole(read).unwrap();
        assert_eq!(looks[0], (1, vec![0]));
        assert_eq!(looks[1..], vec![(0, vec![0]); LOOKS]);
        // Where it was sealed meanwhile, its segment is looked at.
        let mut looks = Vec::new();
        let read = |view: &Arc<View>| {
            looks.push(places(view));
            if looks.len() == 1 {
                things.flush().unwrap();
                write(40);
                things.flush().unwrap();
            }
            Ok::<_, CollectionError>(())
        };
        things.state.read_whole(read).unwrap();
        let (segments, rows) = &looks[1];
        assert!(looks.len() == 2 && *segments >= 1 && rows.iter().all(|&rows| rows == 0), "{looks:?}");
    }

    #[test]
    fn a_replaced_row_dies_though_its_segment_is_damaged_elsewhere() {
        const ROWS: u32 = 800;
        let directory = tempfile::tempdir().unwrap();
        let id = |n: u32| DocumentId::new(&format!("d{n:04}")).unwrap();
        let document = |n: u32| NewDocument {
            id: id(n),
            text: None,
            metadata: [("filler".to_owned(), Value::String("x".repeat(500)))].into(),
            vector: Some(vec![1.0, n as f32]),
            chunks: Vec::new(),
        };
        {
            let database = Database::open(directory.path()).unwrap();
            let name = CollectionName::new("things").unwrap();
            let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
            things.upsert((0..ROWS).map(document).collect()).unwrap();
            things.settle().unwrap();
        }
        let files = list_files_below(&directory.path().join("segments")).unwrap();
        let segment = files.iter().find(|file| file.extension().is_some_and(|e| e == "seg")).unwrap();
        let mut bytes = std::fs::read(segment).unwrap();
        // Halving begins there.
        let middle = id(ROWS / 2);
        let at = bytes.windows(5).position(|window| window == middle.as_str().as_bytes()).unwrap();
        bytes[at] ^= 1;
        std::fs::write(segment, bytes).unwrap();
        let database = Database::open(directory.path()).unwrap();
        let things = &database.collections()[0];
        let shared = &things.engine.shared;
        shared.meta.distrust("a test".to_owned());
        let live = things.state.view().segments[0].clone();
        assert!(live.find(&id(3)).is_err() && live.segment.document_id(3).is_ok());
        // A request would be refused while its document is looked for; this is one that had been looked for before.
        let change = Change::Delete { collection: things.state.identity.id, ids: vec![id(3)] };
        things.engine.commit(change).unwrap();
        assert!(live.dead.is_dead(3));
        assert_eq!((live.dead.count(), things.stats().documents), (1, u64::from(ROWS) - 1));
    }
}
