//! The youngest changes of a collection: searched exactly, sealed into a segment when full.
//!
//! One writer (the log's thread, or recovery) and any number of readers. Rows are published one by one and never move,
//! so a search takes no lock; the map from id to row is behind a lock that is held for one look-up or insert.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use super::coded_rows::{CodedQuery, CodedRows};
use super::top_k::{Ranked, TopK};
use crate::distance::{VectorQuery, score};
use crate::segment::DeadRows;
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;
use crate::types::{ChunkSpan, DocumentId, Filter, Ordinal, Seq, StoredDocument, metadata_memory};

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
        // In this order: no row dies before the one that replaces it is counted.
        let dead = self.dead.count();
        self.rows() - dead
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

    /// Adds a document with one vector, or one for each of its chunks. Returns whether the id had an entry here
    /// already; where it had none, older places are the caller's to mark.
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

    /// The `top_k` nearest documents that pass the filter: each with its row and the score of the nearest vector of it,
    /// nearest first, ties by ascending id. Exact, and whole also while documents are replaced: each that was there
    /// before and after is found, in one of its versions.
    pub fn search(&self, query: &VectorQuery, filter: Option<&Filter>, top_k: usize) -> Vec<(f32, Ordinal)> {
        let mut spare = 0;
        loop {
            let mut top = TopK::new(top_k + spare);
            let settled = self.scan(query, filter, &mut top);
            let mut found = top.into_sorted();
            let (kept, is_all) = (found.len(), found.len() < top_k + spare);
            drop_replaced(&mut found, settled);
            if is_all || found.len() >= top_k {
                return found.into_iter().take(top_k).map(|found| (found.closeness, found.item.1)).collect();
            }
            // Older versions have taken the places of others.
            spare += kept - found.len();
        }
    }

    /// Offers the live rows that may be among the best: what codes leave out cannot be. Rows that come meanwhile are
    /// offered too, as some that died were passed over for them. Returns before which row no two are of one document.
    fn scan(&self, query: &VectorQuery, filter: Option<&Filter>, top: &mut TopK<(DocumentId, Ordinal)>) -> Ordinal {
        // The last of these may not have replaced an older one yet; whoever came before it has.
        let settled = self.rows().saturating_sub(1);
        let (mut coded_query, mut at_most) = (None, Vec::new());
        let mut from = 0;
        loop {
            let rows = self.rows();
            if from >= rows {
                return settled;
            }
            let index = from as usize / CHUNK_ROWS;
            let first = (index * CHUNK_ROWS) as Ordinal;
            let Some(coded) = self.coded[index].get().filter(|_| from == first) else {
                let end = rows.min(first + CHUNK_ROWS as Ordinal);
                (from..end).for_each(|ordinal| self.offer(ordinal, query, filter, top));
                from = end;
                continue;
            };
            coded.at_most(coded_query.get_or_insert_with(|| CodedQuery::new(query)), &mut at_most);
            for (ordinal, &closeness) in (first..).zip(&at_most) {
                if top.admits(score(query.metric(), closeness)) {
                    self.offer(ordinal, query, filter, top);
                }
            }
            from = first + CHUNK_ROWS as Ordinal;
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
            let score = query.nearest(&row.vector).1;
            if top.admits(score) {
                top.push(score, (row.document.id.clone(), ordinal));
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

/// Leaves the youngest row of each document. Only rows from `settled` on are of a document that stands there twice.
fn drop_replaced(found: &mut Vec<Ranked<(DocumentId, Ordinal)>>, settled: Ordinal) {
    let mut youngest: HashMap<DocumentId, Ordinal> = HashMap::new();
    for Ranked { item: (id, ordinal), .. } in found.iter().filter(|found| found.item.1 >= settled) {
        youngest.entry(id.clone()).and_modify(|known| *known = (*known).max(*ordinal)).or_insert(*ordinal);
    }
    if !youngest.is_empty() {
        found.retain(|found| youngest.get(&found.item.0).is_none_or(|ordinal| *ordinal == found.item.1));
    }
}

/// Memory that a row takes, about.
fn row_bytes(document: &StoredDocument, vector: &[f32]) -> u64 {
    let text = document.text.as_ref().map_or(0, String::len);
    // A vector and its codes.
    let vector = (size_of::<f32>() + 1) * vector.len();
    let metadata = metadata_memory(&document.metadata);
    (size_of::<MemRow>() + 2 * document.id.as_str().len() + text + metadata + vector) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{EmbeddingState, Metadata, Metric, Value};

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
        let found = memtable.search(&VectorQuery::new(Metric::Dot, vec![1.0]), None, 10);
        let mut found: Vec<_> = found.into_iter().map(|(score, ordinal)| (ordinal, score)).collect();
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
                let mut exact = TopK::new(10);
                (0..rows as Ordinal).for_each(|row| memtable.offer(row, &query, None, &mut exact));
                let exact: Vec<_> = exact.into_sorted().into_iter().map(|found| found.item.1).collect();
                let found: Vec<_> = memtable.search(&query, None, 10).into_iter().map(|found| found.1).collect();
                assert_eq!(found, exact, "{metric:?}");
            }
        }
    }

    #[test]
    fn each_document_is_found_once_while_all_are_replaced() {
        const DOCUMENTS: usize = 300;
        let query = VectorQuery::new(Metric::Dot, numbers(1, 64));
        for round in 0..4 {
            let memtable = Memtable::new(MAX_ENTRIES);
            let write = |n: usize| {
                let name = (n % DOCUMENTS).to_string();
                memtable.insert(Seq(n as u64 + 1), document(&name), numbers(n + round, 64), Vec::new())
            };
            (0..DOCUMENTS).for_each(|n| _ = write(n));
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| (DOCUMENTS..MAX_ENTRIES as usize).for_each(|n| _ = write(n)));
                while !writer.is_finished() {
                    // As many as there are, and fewer, where older versions would take the places of others.
                    for top_k in [DOCUMENTS, DOCUMENTS / 2] {
                        let found = memtable.search(&query, None, top_k);
                        let names: std::collections::HashSet<_> =
                            found.iter().map(|found| &memtable.row(found.1).unwrap().document.id).collect();
                        assert_eq!((found.len(), names.len()), (top_k, top_k));
                    }
                    assert!(memtable.live_rows() >= DOCUMENTS as u32);
                }
            });
        }
    }

    #[test]
    fn metadata_count_with_all_that_they_hold() {
        let memtable = Memtable::new(MAX_ENTRIES);
        let object = |value| Metadata::from([(String::new(), value)]);
        let objects = Value::Array(vec![Value::Object(object(Value::Int(0))); 1_000]);
        memtable.insert(Seq(1), StoredDocument { metadata: object(objects), ..document("a") }, vec![0.5], Vec::new());
        assert!(memtable.bytes() > 600_000, "{}", memtable.bytes());
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
