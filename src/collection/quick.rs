//! Which searches take less time than handing them to another thread would.

use std::sync::Arc;

use crate::index::LiveSegment;
use crate::types::{Mode, Paging, Query, SearchRequest};

use super::Collection;

/// How deep a quick search ranks: the hits before its page and those on it.
const MAX_DEPTH: usize = 100;
/// Most candidates that its walks keep.
const MAX_EF: usize = 256;
/// Most rows outside of graphs, each of which is compared: a fraction of a millisecond.
const MAX_SCANNED: u64 = 4_096;
/// Most bytes of documents that its hits carry, about: read, written as JSON and sent in a fraction of a millisecond.
const MAX_CARRIED: u64 = 256 << 10;
/// Bytes of a vector's number, about, as JSON has it.
const NUMBER_BYTES: u64 = 11;
/// Rows that are compared in blocks of bits in the time of one that is compared by its code.
const IN_BLOCKS: u64 = 6;

impl Collection {
    /// Whether a search should be answered within a fraction of a millisecond, so that whoever serves many may do so
    /// where it stands: the nearest few to a vector, by graphs.
    pub fn answers_at_once(&self, request: &SearchRequest) -> bool {
        is_plain(request)
            && self.definition().chunks.is_none()
            && self.rows_outside_graphs() <= MAX_SCANNED
            && self.carried_bytes(request) <= MAX_CARRIED
    }

    /// About how many bytes of documents its hits carry: where documents are longest, hits of their average length.
    fn carried_bytes(&self, request: &SearchRequest) -> u64 {
        let of_vectors = match request.include.vector {
            true => u64::from(self.definition().dim) * NUMBER_BYTES * request.top_k as u64,
            false => 0,
        };
        if !request.include.text && !request.include.metadata {
            return of_vectors;
        }
        let view = self.state.view();
        let in_memory = view.memtables().map(|memtable| (memtable.bytes(), memtable.rows()));
        let sealed = view.segments.iter().map(|live| (live.segment.documents_bytes(), live.segment.rows()));
        let average = |(bytes, rows): (u64, u32)| bytes / u64::from(rows.max(1));
        of_vectors + in_memory.chain(sealed).map(average).max().unwrap_or(0) * request.top_k as u64
    }

    fn rows_outside_graphs(&self) -> u64 {
        let view = self.state.view();
        let in_memory = view.memtables().map(|memtable| u64::from(memtable.live_rows())).sum::<u64>();
        let scanned = view.segments.iter().filter(|live| !live.segment.has_graph());
        let rows = |live: &Arc<LiveSegment>| match live.segment.scans_in_blocks(live.segment.vector_count()) {
            true => u64::from(live.segment.vector_count()) / IN_BLOCKS,
            false => u64::from(live.live_rows()),
        };
        in_memory + scanned.map(rows).sum::<u64>()
    }
}

/// Whether a search asks for the nearest few to a vector, and for nothing that takes longer. After a cursor it may rank
/// deeper than its page reaches.
fn is_plain(request: &SearchRequest) -> bool {
    let SearchRequest { query, top_k, filter, exact, ef_search, mode, grouping, .. } = request;
    matches!(query, Query::Vector(_))
        && *mode == Mode::Vector
        && filter.is_none()
        && grouping.is_none()
        && request.diversity.is_none()
        && request.facets.is_empty()
        && !exact
        && !request.refresh
        && matches!(request.paging, Paging::Offset(offset) if offset.saturating_add(*top_k) <= MAX_DEPTH)
        && ef_search.is_none_or(|ef| ef <= MAX_EF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CollectionName, DocumentId, Include, NewDocument, SearchAfter};
    use crate::{Database, DefinitionRequest};

    #[test]
    fn hits_that_carry_much_are_not_quick() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("c").unwrap();
        let collection = database.create_collection(&name, &DefinitionRequest::vectors(1)).unwrap().collection;
        let document = NewDocument {
            id: DocumentId::new("a").unwrap(),
            text: Some("long ".repeat(20_000)),
            metadata: [].into(),
            vector: Some(vec![1.0]),
            chunks: Vec::new(),
        };
        collection.upsert(vec![document]).unwrap();
        let request = SearchRequest::new(Query::Vector(vec![1.0]));
        let bare = SearchRequest {
            include: Include { text: false, metadata: false, ..Include::default() },
            ..request.clone()
        };
        for _ in 0..2 {
            assert!(!collection.answers_at_once(&request), "ten of 100 KB");
            assert!(collection.answers_at_once(&SearchRequest { top_k: 2, ..request.clone() }), "two of them");
            assert!(collection.answers_at_once(&bare), "nothing of them");
            collection.flush().unwrap();
        }
    }

    #[test]
    fn hits_that_carry_long_vectors_are_not_quick() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("c").unwrap();
        let collection = database.create_collection(&name, &DefinitionRequest::vectors(4_096)).unwrap().collection;
        let include = Include { text: false, metadata: false, vector: true, chunk: false };
        let request = SearchRequest { include, top_k: 5, ..SearchRequest::new(Query::Vector(vec![1.0; 4_096])) };
        assert!(collection.answers_at_once(&request), "five of 45 KB");
        assert!(!collection.answers_at_once(&SearchRequest { top_k: 6, ..request.clone() }), "six of them");
    }

    #[test]
    fn a_page_deep_in_a_ranking_is_not_quick() {
        let paged = |top_k, paging| SearchRequest { top_k, paging, ..SearchRequest::new(Query::Vector(vec![1.0])) };
        assert!(is_plain(&paged(100, Paging::Offset(0))));
        assert!(is_plain(&paged(10, Paging::Offset(90))));
        let after = SearchAfter { rank: 10, score: 0.5, id: DocumentId::new("a").unwrap() };
        for paging in [Paging::Offset(91), Paging::Offset(usize::MAX), Paging::FirstPage, Paging::After(after)] {
            assert!(!is_plain(&paged(10, paging.clone())), "{paging:?}");
        }
    }
}
