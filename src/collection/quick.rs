//! Which searches take less time than handing them to another thread would.

use std::sync::Arc;

use crate::index::LiveSegment;
use crate::types::{Mode, Query, SearchRequest};

use super::Collection;

/// Most hits of a quick search.
const MAX_TOP_K: usize = 100;
/// Most candidates that its walks keep.
const MAX_EF: usize = 256;
/// Most rows outside of graphs, each of which is compared: a fraction of a millisecond.
const MAX_SCANNED: u64 = 4_096;
/// Rows that are compared in blocks of bits in the time of one that is compared by its code.
const IN_BLOCKS: u64 = 6;

impl Collection {
    /// Whether a search should be answered within a fraction of a millisecond, so that whoever serves many may do so
    /// where it stands: the nearest few to a vector, by graphs.
    pub fn answers_at_once(&self, request: &SearchRequest) -> bool {
        let SearchRequest { query, top_k, filter, exact, ef_search, mode, grouping, .. } = request;
        let is_plain = matches!(query, Query::Vector(_))
            && *mode == Mode::Vector
            && filter.is_none()
            && grouping.is_none()
            && request.diversity.is_none()
            && request.facets.is_empty()
            && !exact
            && !request.refresh
            && *top_k <= MAX_TOP_K
            && ef_search.is_none_or(|ef| ef <= MAX_EF);
        is_plain && self.definition().chunks.is_none() && self.rows_outside_graphs() <= MAX_SCANNED
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
