//! The youngest changes of a collection: searched exactly, sealed into a segment when full.
//!
//! One writer (the log's thread, or recovery) and any number of readers. Rows are published one by one and never move,
//! so a search takes no lock; the map from id to row is behind a lock that is held for one look-up or insert.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use crate::distance::VectorQuery;
use crate::segment::DeadRows;
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;
use crate::types::{ChunkSpan, DocumentId, Filter, Ordinal, Seq, StoredDocument};

/// Most entries of a memtable before it is sealed, and the default.
pub const MAX_ENTRIES: u32 = 16_384;
/// A memtable of this many bytes is sealed.
pub const SEAL_BYTES: u64 = 64 << 20;
const CHUNK_ROWS: usize = 1_024;
/// Room for a full memtable and for the one request that filled it.
const CHUNKS: usize = (MAX_ENTRIES as usize + MAX_DOCUMENTS_PER_REQUEST).div_ceil(CHUNK_ROWS);

/// One document of a memtable.
#[derive(Debug)]
pub struct MemRow {
    /// The change that wrote it.
    pub seq: Seq,
    /// Everything but the vector.
    pub document: StoredDocument,
    /// f32, shape `[dim]`, or `[chunks, dim]` where there are chunks.
    pub vector: Box<[f32]>,
    /// Where each chunk stands; empty in a collection without chunks.
    pub chunks: Box<[ChunkSpan]>,
}

/// What a memtable knows of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemEntry {
    /// Its youngest version.
    Row(Ordinal),
    /// It was deleted by this change.
    Tombstone(Seq),
}

type Chunk = Box<[OnceLock<MemRow>]>;

/// The changes of one collection since the last seal.
pub struct Memtable {
    max_entries: u32,
    chunks: Box<[OnceLock<Chunk>]>,
    /// Rows before this one are published.
    count: AtomicU32,
    bytes: AtomicU64,
    last_seq: AtomicU64,
    first_seq: AtomicU64,
    dead: DeadRows,
    entries: RwLock<BTreeMap<DocumentId, MemEntry>>,
}

impl Memtable {
    /// An empty one that is full with `max_entries`, 1 to [`MAX_ENTRIES`].
    pub fn new(max_entries: u32) -> Self {
        Self {
            max_entries: max_entries.clamp(1, MAX_ENTRIES),
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            count: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            last_seq: AtomicU64::new(0),
            first_seq: AtomicU64::new(0),
            dead: DeadRows::new((CHUNKS * CHUNK_ROWS) as u32),
            entries: RwLock::default(),
        }
    }

    /// Whether it is to be sealed before it takes more.
    pub fn is_full(&self) -> bool {
        self.rows() >= self.max_entries
            || self.bytes() >= SEAL_BYTES
            || self.entries().len() >= self.max_entries as usize
    }

    /// Whether it holds no change at all.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Rows written, replaced ones included.
    pub fn rows(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Documents alive.
    pub fn live_rows(&self) -> u32 {
        self.rows() - self.dead.count()
    }

    /// Approximate memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The oldest change it holds; 0 where it holds none.
    pub fn first_seq(&self) -> Seq {
        Seq(self.first_seq.load(Ordering::Acquire))
    }

    /// The youngest change it holds; 0 where it holds none.
    pub fn last_seq(&self) -> Seq {
        Seq(self.last_seq.load(Ordering::Acquire))
    }

    /// A published row.
    pub fn row(&self, ordinal: Ordinal) -> Option<&MemRow> {
        let (chunk, place) = (ordinal as usize / CHUNK_ROWS, ordinal as usize % CHUNK_ROWS);
        self.chunks.get(chunk)?.get()?.get(place)?.get()
    }

    /// Whether a row was replaced or deleted since it was written.
    pub fn is_dead(&self, ordinal: Ordinal) -> bool {
        self.dead.is_dead(ordinal)
    }

    /// What it knows of an id.
    pub fn entry(&self, id: &DocumentId) -> Option<MemEntry> {
        self.entries().get(id).copied()
    }

    /// Up to `limit` entries after `after`, by ascending id.
    pub fn page(&self, after: Option<&DocumentId>, limit: usize) -> Vec<(DocumentId, MemEntry)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries();
        entries.range::<DocumentId, _>((start, Bound::Unbounded)).take(limit).map(|(id, e)| (id.clone(), *e)).collect()
    }

    /// Every entry, by ascending id.
    pub fn all(&self) -> Vec<(DocumentId, MemEntry)> {
        self.page(None, usize::MAX)
    }

    /// Adds a document with one vector, or one for each of its chunks. Returns whether the id had an entry here already; where it had none, older places are the
    /// caller's to mark.
    ///
    /// # Panics
    /// When the memtable has no room left: the caller seals a full one before the next change.
    pub fn insert(&self, seq: Seq, document: StoredDocument, vector: Vec<f32>, chunks: Vec<ChunkSpan>) -> bool {
        let ordinal = self.count.load(Ordering::Relaxed);
        let id = document.id.clone();
        self.grow(seq, row_bytes(&document, &vector));
        let chunk = self.chunks[ordinal as usize / CHUNK_ROWS]
            .get_or_init(|| (0..CHUNK_ROWS).map(|_| OnceLock::new()).collect());
        let row = MemRow { seq, document, vector: vector.into_boxed_slice(), chunks: chunks.into_boxed_slice() };
        assert!(chunk[ordinal as usize % CHUNK_ROWS].set(row).is_ok(), "row {ordinal} is written once");
        self.count.store(ordinal + 1, Ordering::Release);
        // The new row is visible before the old one dies, so that a search in between sees one of them.
        self.replace(id, MemEntry::Row(ordinal))
    }

    /// Records a delete. Returns whether the id had an entry here already.
    pub fn delete(&self, seq: Seq, id: DocumentId) -> bool {
        self.grow(seq, id.as_str().len() as u64 + 64);
        self.replace(id, MemEntry::Tombstone(seq))
    }

    /// Marks the id's row dead because a younger memtable replaced it. Returns whether the id had an entry here.
    pub fn supersede(&self, id: &DocumentId) -> bool {
        match self.entry(id) {
            Some(MemEntry::Row(ordinal)) => {
                self.dead.mark(ordinal);
                true
            }
            Some(MemEntry::Tombstone(_)) => true,
            None => false,
        }
    }

    /// Offers every live row that passes the filter, with the closeness of its nearest vector.
    pub fn search(&self, query: &VectorQuery, filter: Option<&Filter>, mut offer: impl FnMut(f32, Ordinal)) {
        for ordinal in 0..self.rows() {
            if self.dead.is_dead(ordinal) {
                continue;
            }
            let Some(row) = self.row(ordinal) else { continue };
            if filter.is_none_or(|f| f.matches(&row.document.metadata)) {
                offer(query.nearest(&row.vector).1, ordinal);
            }
        }
    }

    fn replace(&self, id: DocumentId, entry: MemEntry) -> bool {
        let old = self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(id, entry);
        if let Some(MemEntry::Row(ordinal)) = old {
            self.dead.mark(ordinal);
        }
        old.is_some()
    }

    fn grow(&self, seq: Seq, bytes: u64) {
        if self.first_seq() == Seq(0) {
            self.first_seq.store(seq.0, Ordering::Release);
        }
        self.last_seq.store(seq.0, Ordering::Release);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn entries(&self) -> RwLockReadGuard<'_, BTreeMap<DocumentId, MemEntry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that a row takes, about: metadata are counted as their entries' allocation.
fn row_bytes(document: &StoredDocument, vector: &[f32]) -> u64 {
    let text = document.text.as_ref().map_or(0, String::len);
    (size_of::<MemRow>() + 2 * document.id.as_str().len() + text + 128 * document.metadata.len() + 4 * vector.len())
        as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{EmbeddingState, Metadata, Metric};

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    fn document(name: &str) -> StoredDocument {
        StoredDocument {
            id: id(name),
            text: None,
            metadata: Metadata::new(),
            created_at_ms: 1,
            updated_at_ms: 2,
            embedding: EmbeddingState::Ready,
        }
    }

    fn live(memtable: &Memtable) -> Vec<(Ordinal, f32)> {
        let mut found = Vec::new();
        let query = VectorQuery::new(Metric::Dot, vec![1.0]);
        memtable.search(&query, None, |closeness, ordinal| found.push((ordinal, closeness)));
        found
    }

    #[test]
    fn the_youngest_version_is_the_one_that_lives() {
        let memtable = Memtable::new(MAX_ENTRIES);
        assert!(!memtable.insert(Seq(5), document("a"), vec![1.0], Vec::new()));
        assert!(!memtable.insert(Seq(6), document("b"), vec![2.0], Vec::new()));
        assert!(memtable.insert(Seq(7), document("a"), vec![3.0], Vec::new()));
        assert_eq!(live(&memtable), [(1, 2.0), (2, 3.0)]);
        assert!(memtable.delete(Seq(8), id("b")));
        assert!(!memtable.delete(Seq(9), id("elsewhere")));
        assert_eq!(live(&memtable), [(2, 3.0)]);
        assert!(memtable.supersede(&id("a")) && !memtable.supersede(&id("c")));
        assert!(live(&memtable).is_empty());
        assert_eq!((memtable.first_seq(), memtable.last_seq(), memtable.live_rows()), (Seq(5), Seq(9), 0));
        let names: Vec<_> = memtable.all().into_iter().map(|(id, _)| id.as_str().to_owned()).collect();
        assert_eq!(names, ["a", "b", "elsewhere"]);
    }

    #[test]
    fn takes_a_whole_request_beyond_full() {
        let memtable = Memtable::new(MAX_ENTRIES);
        let mut count = 0;
        while !memtable.is_full() {
            memtable.insert(Seq(1), document(&count.to_string()), vec![0.5], Vec::new());
            count += 1;
        }
        for _ in 0..MAX_DOCUMENTS_PER_REQUEST {
            memtable.insert(Seq(2), document(&count.to_string()), vec![0.5], Vec::new());
            count += 1;
        }
        assert_eq!(memtable.row(count - 1).map(|row| row.seq), Some(Seq(2)));
        assert!(memtable.row(count).is_none());
    }
}
