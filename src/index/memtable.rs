//! The youngest changes of a collection: searched exactly, sealed into a segment when full.
//!
//! One writer (the log's thread, or recovery) and any number of readers. Rows are published one by one and never move,
//! so a search takes no lock; the map from id to row is behind a lock that is held for one look-up or insert.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use super::coded_rows::{CodedQuery, CodedRows};
use super::top_k::TopK;
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
    /// Codes of the chunks that are full, where no row of them has more than one vector.
    coded: Box<[OnceLock<CodedRows>]>,
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
            coded: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
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
        if (ordinal as usize + 1).is_multiple_of(CHUNK_ROWS) {
            self.encode(ordinal as usize / CHUNK_ROWS);
        }
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

    /// Offers the live rows that pass the filter and may be among the best, with the closeness of the nearest vector of
    /// each. Exact: what codes leave out cannot be among them.
    pub fn search(&self, query: &VectorQuery, filter: Option<&Filter>, top: &mut TopK<(DocumentId, Ordinal)>) {
        let rows = self.rows();
        let (mut coded_query, mut at_most) = (None, Vec::new());
        for (index, coded) in self.coded.iter().enumerate().take((rows as usize).div_ceil(CHUNK_ROWS)) {
            let from = (index * CHUNK_ROWS) as Ordinal;
            let Some(coded) = coded.get() else {
                let end = rows.min(from + CHUNK_ROWS as Ordinal);
                (from..end).for_each(|ordinal| self.offer(ordinal, query, filter, top));
                continue;
            };
            coded.at_most(coded_query.get_or_insert_with(|| CodedQuery::new(query)), &mut at_most);
            for (ordinal, &closeness) in (from..).zip(&at_most) {
                if top.admits(closeness) {
                    self.offer(ordinal, query, filter, top);
                }
            }
        }
    }

    fn offer(
        &self,
        ordinal: Ordinal,
        query: &VectorQuery,
        filter: Option<&Filter>,
        top: &mut TopK<(DocumentId, Ordinal)>,
    ) {
        if self.dead.is_dead(ordinal) {
            return;
        }
        let Some(row) = self.row(ordinal) else { return };
        if filter.is_none_or(|f| f.matches(&row.document.metadata)) {
            let closeness = query.nearest(&row.vector).1;
            if top.admits(closeness) {
                top.push(closeness, (row.document.id.clone(), ordinal));
            }
        }
    }

    /// Rounds the vectors of a chunk that is full.
    fn encode(&self, index: usize) {
        let Some(chunk) = self.chunks[index].get() else { return };
        let vectors = chunk.iter().filter_map(|row| row.get().map(|row| &*row.vector));
        let dim = vectors.clone().next().map_or(0, <[f32]>::len);
        if chunk.iter().filter_map(OnceLock::get).all(|row| row.chunks.is_empty())
            && let Some(coded) = CodedRows::new(dim, vectors)
        {
            _ = self.coded[index].set(coded);
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
    // A vector and its codes.
    let vector = (size_of::<f32>() + 1) * vector.len();
    (size_of::<MemRow>() + 2 * document.id.as_str().len() + text + 128 * document.metadata.len() + vector) as u64
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
        let mut found = TopK::new(10);
        memtable.search(&VectorQuery::new(Metric::Dot, vec![1.0]), None, &mut found);
        let mut found: Vec<_> = found.into_sorted().into_iter().map(|found| (found.item.1, found.closeness)).collect();
        found.sort_by_key(|&(ordinal, _)| ordinal);
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

    /// Numbers that depend on nothing else.
    fn numbers(seed: usize, count: usize) -> Vec<f32> {
        let number = |at: usize| ((seed * 1_000 + at) as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (0..count).map(|at| (number(at) >> 40) as f32 / (1u64 << 24) as f32 - 0.5).collect()
    }

    #[test]
    fn searches_are_exact_with_codes_and_without() {
        const DIM: usize = 24;
        for (metric, chunked) in [(Metric::Dot, false), (Metric::L2, false), (Metric::Cosine, true)] {
            let memtable = Memtable::new(MAX_ENTRIES);
            let rows = 3 * CHUNK_ROWS + 100;
            for row in 0..rows {
                let chunks =
                    if chunked && row % 700 == 0 { vec![ChunkSpan { start: 0, end: 1 }; 2] } else { Vec::new() };
                let vectors = numbers(row, DIM * chunks.len().max(1));
                memtable.insert(Seq(row as u64 + 1), document(&(row % 3_000).to_string()), vectors, chunks);
            }
            assert_eq!(
                memtable.coded.iter().filter(|coded| coded.get().is_some()).count(),
                if chunked { 0 } else { 3 }
            );
            for seed in 0..20 {
                let query = VectorQuery::new(metric, numbers(77_777 + seed, DIM));
                let (mut found, mut exact) = (TopK::new(10), TopK::new(10));
                memtable.search(&query, None, &mut found);
                (0..rows as Ordinal).for_each(|row| memtable.offer(row, &query, None, &mut exact));
                let items = |top: TopK<_>| top.into_sorted().into_iter().map(|found| found.item).collect::<Vec<_>>();
                assert_eq!(items(found), items(exact), "{metric:?}");
            }
        }
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
