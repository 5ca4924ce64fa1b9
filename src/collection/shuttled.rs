//! Readers under a scheduler that tries orders of threads' steps, while segments take the places of memtables and of
//! other segments.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Runner, thread};

use super::{CollectionError, keywords, recall, turnstile};
use crate::index::{
    IndexError, IndexQuery, LiveSegment, MergeOptions, Relocation, SegmentQuery, View, join, merge, seal, search,
};
use crate::log::LoggedDocument;
use crate::meta::{self, MetaIndex, Opened, SegmentChange};
use crate::segment::{DeadRows, Segment, SegmentSpec};
use crate::storage::RateLimit;
use crate::types::{
    CollectionId, CollectionName, Definition, DocumentId, EmbeddingState, GraphBuilder, IndexDefinition, Metadata,
    Method, Metric, SegmentId, Seq, StoredDocument, TextDefinition,
};

use state::{CollectionState, Identity, SealedPart};

mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64};
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock};
}

#[path = "state.rs"]
#[expect(dead_code, clippy::duplicate_mod, reason = "the module once more, under the scheduler; not all of it is used")]
mod state;

const COLLECTION: CollectionId = CollectionId(1);
/// A memtable is full with so few, so that several are sealed.
const MEMTABLE_ENTRIES: u32 = 3;
const WRITES: u64 = 6;
/// The write that deletes.
const DELETING: u64 = 3;
/// The write that replaces what is else left alone.
const REPLACING: u64 = 4;
const LOOKS: usize = 4;
const INSTALLATIONS: usize = 5;
const STACK_BYTES: usize = 1 << 20;

/// Schedules tried; `PANNIER_TEST_SCHEDULES` for more.
fn schedules() -> usize {
    std::env::var("PANNIER_TEST_SCHEDULES").map_or(150, |n| n.parse().unwrap())
}

fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

fn logged(text: &str) -> LoggedDocument {
    let document = StoredDocument {
        id: id(text),
        text: None,
        metadata: Metadata::new(),
        created_at_ms: 0,
        updated_at_ms: 0,
        embedding: EmbeddingState::Ready,
    };
    LoggedDocument { document, vector: vec![1.0, 2.0], chunks: Vec::new() }
}

/// A collection with its document index, in memory where there is such a place: each schedule has one of its own.
struct Store {
    state: CollectionState,
    meta: MetaIndex,
    root: PathBuf,
    /// Segments written so far.
    segments: AtomicU64,
    /// Set once the delete was applied.
    deleted: AtomicBool,
    _directory: tempfile::TempDir,
}

impl Store {
    /// With the documents that readers look for.
    fn new() -> Arc<Self> {
        let memory = std::path::Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let root = directory.path().to_owned();
        let identity = meta::Identity { store_id: [1; 16], timeline: 1 };
        let (Opened::Usable(meta) | Opened::Fresh(meta, _)) = MetaIndex::open(&root.join("meta"), identity).unwrap();
        let definition = Definition {
            dim: 2,
            metric: Metric::L2,
            embedding: None,
            index: IndexDefinition::default(),
            fields: [].into(),
            text: TextDefinition::default(),
            template: None,
            guard: None,
            chunks: None,
        };
        let name = CollectionName::new("things").unwrap();
        let identity = Identity { id: COLLECTION, name, definition, created_at_ms: 0, created_seq: Seq(0) };
        let sealed = SealedPart { segments: Vec::new(), sealed_seq: Seq(0) };
        let state = CollectionState::new(identity, sealed, MEMTABLE_ENTRIES);
        state.apply_upsert(&meta, Seq(1), ["gone", "moving", "still", "seldom"].map(logged).into());
        Arc::new(Self {
            state,
            meta,
            root,
            segments: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            _directory: directory,
        })
    }

    fn new_spec(&self) -> SegmentSpec {
        let id = SegmentId(1 + self.segments.fetch_add(1, Ordering::SeqCst));
        let (metric, index) = (Metric::L2, IndexDefinition::default());
        SegmentSpec { id, collection: COLLECTION, generation: 1, metric, dim: 2, index }
    }

    fn path(&self, spec: &SegmentSpec) -> PathBuf {
        self.root.join(format!("{}.seg", spec.id.0))
    }

    fn open(&self, spec: &SegmentSpec) -> Arc<LiveSegment> {
        let segment = Segment::open(&self.path(spec), spec).unwrap();
        let dead = DeadRows::new(segment.rows());
        Arc::new(LiveSegment { id: spec.id, segment, dead })
    }

    fn index_rows(&self, live: &LiveSegment, tombstones: &[(DocumentId, Seq)]) {
        let row = |row| Ok((live.segment.document_id(row).unwrap(), row, live.segment.seq(row).unwrap()));
        let rows = &mut (0..live.segment.rows()).map(row);
        let change = SegmentChange { collection: COLLECTION, segment: live.id, rows, tombstones };
        self.meta.index_segment(change).unwrap();
    }

    /// Overwrites one document again and again and another once, deletes a third, and fills memtables.
    fn write(&self) {
        for seq in 2..2 + WRITES {
            let other = if seq == REPLACING { "seldom".to_owned() } else { format!("filler-{seq}") };
            self.state.apply_upsert(&self.meta, Seq(seq), vec![logged("moving"), logged(&other)]);
            if seq == DELETING {
                self.state.apply_delete(&self.meta, Seq(seq), vec![id("gone")]);
                self.deleted.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Seals what is frozen and merges what is sealed, in the order of an installation.
    fn install(&self) {
        for _ in 0..INSTALLATIONS {
            let view = self.state.view();
            match view.frozen.first() {
                Some(memtable) => {
                    let spec = self.new_spec();
                    let sealed = seal(memtable, &self.path(&spec), &spec, !view.segments.is_empty()).unwrap();
                    let live = sealed.written.as_ref().map(|_| self.open(&spec));
                    if let Some(live) = &live {
                        self.index_rows(live, &sealed.tombstones);
                    }
                    self.state.swap_sealed(memtable, &sealed.sources, live);
                }
                None if view.segments.len() > 1 => self.merge(&view),
                None => _ = self.state.freeze(),
            }
        }
    }

    fn merge(&self, view: &View) {
        let spec = self.new_spec();
        let cancel = AtomicBool::new(false);
        let options = MergeOptions {
            with_graph: false,
            oldest_elsewhere: None,
            builder: GraphBuilder::Own,
            threads: None,
            rate: &RateLimit::new(None),
            cancel: &cancel,
        };
        let merged = merge(&view.segments, &self.path(&spec), &spec, &options).unwrap();
        let live = merged.written.as_ref().map(|_| self.open(&spec));
        let mut left_out = Vec::new();
        for (live, relocation) in view.segments.iter().zip(&merged.relocations) {
            let rows =
                (0..live.segment.rows()).filter(|&row| relocation.ordinals[row as usize] == Relocation::LEFT_OUT);
            left_out.extend(rows.map(|row| live.segment.document_id(row).unwrap()));
        }
        let inputs: Vec<SegmentId> = view.segments.iter().map(|live| live.id).collect();
        self.state.swap_merged(&view.segments, merged.relocations, live.clone());
        if let Some(live) = &live {
            self.index_rows(live, &merged.tombstones);
        }
        self.meta.retire(COLLECTION, &inputs, &left_out).unwrap();
        self.state.forget_relocations(&inputs);
    }

    /// Every look finds what is there, in no older version than the look before, and nothing that was deleted before
    /// it.
    fn read(&self) {
        let mut seen = Seq(0);
        for look in 0..LOOKS {
            let was_deleted = self.deleted.load(Ordering::SeqCst);
            let (still, moving, gone) = match look % 2 {
                0 => (self.find("still"), self.find("moving"), self.find("gone")),
                _ => self.search(),
            };
            assert_eq!(still, Some(Seq(1)), "what nobody touches is found");
            assert!(self.find("seldom").is_some(), "what is replaced is found");
            assert!(moving >= Some(seen), "{moving:?} after {seen}");
            seen = moving.unwrap_or(seen);
            assert!(!(was_deleted && gone.is_some()), "deleted, and found in {gone:?}");
        }
    }

    fn find(&self, text: &str) -> Option<Seq> {
        self.state.find(&self.meta, &id(text)).unwrap().map(|place| place.seq().unwrap())
    }

    /// The version of each document that readers look for.
    fn search(&self) -> (Option<Seq>, Option<Seq>, Option<Seq>) {
        let mut found = Vec::new();
        let look = |view: &Arc<View>| {
            // Much may change in between.
            thread::yield_now();
            let part = SegmentQuery { method: Method::Exact, ef: 10, rows: None, packed: None };
            let segments = vec![part; view.segments.len()];
            let (vector, metric) = (&[1.0, 2.0], Metric::L2);
            let query = IndexQuery { vector, metric, top_k: 100, filter: None, segments: &segments };
            found = join(std::mem::take(&mut found), search(view, &query)?.neighbours, query.top_k)?;
            Ok::<_, IndexError>(())
        };
        self.state.read_whole(look).unwrap();
        let version = |text: &str| {
            let mut of = found.iter().filter(|neighbour| neighbour.id.as_str() == text);
            let version = of.next().map(|neighbour| neighbour.place.seq().unwrap());
            assert!(of.next().is_none(), "{text} twice");
            version
        };
        (version("still"), version("moving"), version("gone"))
    }
}

#[test]
fn in_every_order_readers_find_what_is_there_while_segments_are_swapped() {
    let run = || {
        let store = Store::new();
        let start = |work: fn(&Store)| {
            let store = store.clone();
            thread::spawn(move || work(&store))
        };
        let threads = [start(Store::write), start(Store::install), start(Store::read), start(Store::read)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        store.install();
        store.read();
        assert_eq!(store.find("moving"), Some(Seq(1 + WRITES)));
    };
    // sled needs more than a scheduler's threads have.
    let mut config = shuttle::Config::default();
    config.stack_size = STACK_BYTES;
    Runner::new(RandomScheduler::new(schedules()), config.clone()).run(run);
    Runner::new(PctScheduler::new(3, schedules()), config).run(run);
}
