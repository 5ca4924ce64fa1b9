//! The documents that pass a filter, by ascending id, from the field index: what listings and deletes by filter go by.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::embed::EmbedError;
use crate::index::{LiveSegment, MemEntry, Memtable, Place};
use crate::types::{DocumentId, Filter};

use super::{Collection, CollectionError};

/// Entries of a memtable that are looked at between two looks at how many were found.
const STEP: usize = 256;

impl Collection {
    /// Up to `limit` ids after `after` whose documents pass the filter, and where to go on. `go_on` is asked now and
    /// then whether to.
    pub(super) fn matching_ids(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
        filter: &Filter,
        go_on: impl Fn() -> Result<(), EmbedError>,
    ) -> Result<(Vec<DocumentId>, Option<DocumentId>), CollectionError> {
        let mut matching: Vec<DocumentId> = Vec::new();
        let mut after = after.cloned();
        loop {
            // One more than wanted, to know whether there are more.
            let wanted = limit + 1 - matching.len();
            let candidates = self.candidates(after.as_ref(), wanted, filter, &go_on)?;
            let is_last = candidates.len() < wanted;
            after = candidates.last_key_value().map(|(id, _)| id.clone());
            for (id, place) in candidates {
                if self.still_passes(&id, &place, filter)? {
                    matching.push(id);
                }
            }
            if matching.len() > limit {
                matching.truncate(limit);
                let next = matching.last().cloned();
                return Ok((matching, next));
            }
            if is_last {
                return Ok((matching, None));
            }
        }
    }

    /// The next `wanted` documents that pass.
    fn candidates(
        &self,
        after: Option<&DocumentId>,
        wanted: usize,
        filter: &Filter,
        go_on: impl Fn() -> Result<(), EmbedError>,
    ) -> Result<BTreeMap<DocumentId, Place>, CollectionError> {
        let mut found = BTreeMap::new();
        // From older places to younger ones: of two versions the younger stays.
        self.state.read_whole(|view| {
            go_on()?;
            for live in &view.segments {
                self.of_segment(live, after, wanted, filter, &mut found)?;
            }
            for memtable in view.frozen.iter().chain([&view.active]) {
                of_memtable(memtable, after, wanted, filter, &mut found);
            }
            Ok::<_, CollectionError>(())
        })?;
        while found.len() > wanted {
            found.pop_last();
        }
        Ok(found)
    }

    /// The first `wanted` of a segment, whose rows stand in order of id.
    fn of_segment(
        &self,
        live: &Arc<LiveSegment>,
        after: Option<&DocumentId>,
        wanted: usize,
        filter: &Filter,
        found: &mut BTreeMap<DocumentId, Place>,
    ) -> Result<(), CollectionError> {
        let first = after.map_or(Ok(0), |after| live.first_after(after))?;
        let rows = self.select(live, filter)?.rows;
        let mut count = 0;
        for row in rows.possible().iter_from(first) {
            if live.dead.is_dead(row) {
                continue;
            }
            if rows.certain().contains(row) || filter.matches(&live.segment.metadata(row)?) {
                found.insert(live.segment.document_id(row)?, Place::Sealed(live.clone(), row));
                count += 1;
                if count == wanted {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether a document that passed where it stood does so still: it may have been replaced or deleted meanwhile.
    fn still_passes(&self, id: &DocumentId, place: &Place, filter: &Filter) -> Result<bool, CollectionError> {
        match self.find(id)? {
            Some(now) if now.is(place) => Ok(true),
            Some(_) => self.passes(id, filter),
            None => Ok(false),
        }
    }

    /// Whether a document is there and passes.
    pub(super) fn passes(&self, id: &DocumentId, filter: &Filter) -> Result<bool, CollectionError> {
        match self.find(id)? {
            None => Ok(false),
            Some(place) => Ok(filter.matches(&*place.metadata()?)),
        }
    }
}

/// The first `wanted` of a memtable.
fn of_memtable(
    memtable: &Arc<Memtable>,
    after: Option<&DocumentId>,
    wanted: usize,
    filter: &Filter,
    found: &mut BTreeMap<DocumentId, Place>,
) {
    let (mut after, mut count) = (after.cloned(), 0);
    loop {
        let page = memtable.page(after.as_ref(), STEP);
        let Some((last, _)) = page.last() else { return };
        after = Some(last.clone());
        for (id, entry) in page {
            let MemEntry::Row(ordinal) = entry else { continue };
            let passes = memtable.row(ordinal).is_some_and(|row| filter.matches(&row.document.metadata));
            if passes && !memtable.is_dead(ordinal) {
                found.insert(id, Place::Memory(memtable.clone(), ordinal));
                count += 1;
                if count == wanted {
                    return;
                }
            }
        }
    }
}
