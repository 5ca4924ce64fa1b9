//! What a reader holds while it searches: the memtables and segments of one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::segment::{DeadRows, Segment, SegmentError};
use crate::types::{DocumentId, Ordinal, SegmentId, Seq};

use super::memtable::Memtable;
use super::plan_merge::Candidate;

/// A segment in use, with the rows of it that have died since it was written.
pub struct LiveSegment {
    /// Its number.
    pub id: SegmentId,
    /// Its file.
    pub segment: Segment,
    /// Rows replaced or deleted.
    pub dead: DeadRows,
}

impl LiveSegment {
    /// The same segment with its file opened anew, so that every block is checked that is read of it: what was checked
    /// long ago may be read otherwise from the disk by now, or not at all. Rows that die later live in it.
    ///
    /// # Errors
    /// [`SegmentError`] when the file is gone, damaged, or another one.
    pub fn reopened(&self) -> Result<Self, SegmentError> {
        let segment = Segment::open_by_calls(self.segment.path(), self.segment.spec())?;
        Ok(Self { id: self.id, segment, dead: self.dead.copied() })
    }

    /// The row of an id, dead or alive, by halving: rows stand in ascending order of id. The document index is the
    /// faster way.
    ///
    /// # Errors
    /// [`SegmentError`] when the segment is damaged.
    pub fn find(&self, id: &DocumentId) -> Result<Option<Ordinal>, SegmentError> {
        let row = self.first_where(|other| other >= id)?;
        let is_it = row < self.segment.rows() && self.segment.document_id(row)? == *id;
        Ok(is_it.then_some(row))
    }

    /// As [`LiveSegment::find`], row by row where blocks are damaged. A row whose id cannot be read is not found, and
    /// cannot be served either.
    pub fn find_readable(&self, id: &DocumentId) -> Option<Ordinal> {
        (0..self.segment.rows()).find(|&row| self.segment.document_id(row).is_ok_and(|other| other == *id))
    }

    /// The first row whose id is greater, dead or alive; as many as there are rows where none is.
    ///
    /// # Errors
    /// [`SegmentError`] when the segment is damaged.
    pub fn first_after(&self, id: &DocumentId) -> Result<Ordinal, SegmentError> {
        self.first_where(|other| other > id)
    }

    /// The first row whose id is `beyond`, as those of all later rows are.
    fn first_where(&self, beyond: impl Fn(&DocumentId) -> bool) -> Result<Ordinal, SegmentError> {
        let (mut low, mut high) = (0, self.segment.rows());
        while low < high {
            let middle = low + (high - low) / 2;
            match beyond(&self.segment.document_id(middle)?) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(low)
    }

    /// What the choice of the next merge depends on.
    pub fn as_candidate(&self) -> Candidate {
        // What a merge costs and a scan saves goes by the vectors; the dead are counted by rows.
        let (rows, vectors) = (u64::from(self.segment.rows()), u64::from(self.segment.vector_count()));
        Candidate {
            id: self.id,
            rows: vectors,
            dead: u64::from(self.dead.count()) * vectors / rows.max(1),
            has_graph: self.segment.has_graph(),
        }
    }

    /// Rows alive.
    pub fn live_rows(&self) -> u32 {
        self.segment.rows() - self.dead.count()
    }
}

/// Where a merge put the rows of one segment, until the document index knows it too.
pub struct Relocation {
    /// The segment that took them.
    pub into: SegmentId,
    /// By old row: the new row, or [`Relocation::LEFT_OUT`].
    pub ordinals: Vec<Ordinal>,
}

impl Relocation {
    /// The row was dead and the merge left it out.
    pub const LEFT_OUT: Ordinal = Ordinal::MAX;
}

/// One moment of a collection. Readers clone the `Arc` around it and hold no lock.
///
/// An id may be alive in at most one place. Look for it in `active`, then `frozen` from the youngest, then the
/// document index.
#[derive(Clone)]
pub struct View {
    /// Takes the writes.
    pub active: Arc<Memtable>,
    /// Full, waiting to become segments; oldest first.
    pub frozen: Vec<Arc<Memtable>>,
    /// By ascending number.
    pub segments: Vec<Arc<LiveSegment>>,
    /// By merged segment.
    pub relocations: BTreeMap<SegmentId, Arc<Relocation>>,
}

/// What a location in the document index means to a view.
pub enum Resolved<'a> {
    /// A row of this segment.
    Row(&'a Arc<LiveSegment>, Ordinal),
    /// A merge left the row out: it was dead.
    LeftOut,
    /// The view is older or younger than the index: look again in a fresh one.
    Stale,
}

impl View {
    /// Segments, and a memtable for what comes.
    pub fn new(active: Memtable, segments: Vec<Arc<LiveSegment>>) -> Self {
        Self { active: Arc::new(active), frozen: Vec::new(), segments, relocations: BTreeMap::new() }
    }

    /// The memtables from the youngest.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev())
    }

    /// What it has and a view of before has not, of which every change up to `seen` is in that one: the memtables begun
    /// since, and the segments with younger changes. A segment merged of what was there holds nothing new.
    pub fn since(&self, before: &View, seen: Seq) -> View {
        let is_known = |memtable: &Arc<Memtable>| before.memtables().any(|known| Arc::ptr_eq(known, memtable));
        let is_new = |live: &Arc<LiveSegment>| live.segment.max_seq() > seen && before.segment(live.id).is_none();
        View {
            active: self.active.clone(),
            frozen: self.frozen.iter().filter(|memtable| !is_known(memtable)).cloned().collect(),
            segments: self.segments.iter().filter(|live| is_new(live)).cloned().collect(),
            relocations: self.relocations.clone(),
        }
    }

    /// The segment with this number.
    pub fn segment(&self, id: SegmentId) -> Option<&Arc<LiveSegment>> {
        let place = self.segments.binary_search_by_key(&id, |s| s.id).ok()?;
        self.segments.get(place)
    }

    /// Follows a location through merges that the document index does not know yet.
    pub fn resolve(&self, mut id: SegmentId, mut ordinal: Ordinal) -> Resolved<'_> {
        loop {
            if let Some(segment) = self.segment(id) {
                return Resolved::Row(segment, ordinal);
            }
            let Some(relocation) = self.relocations.get(&id) else { return Resolved::Stale };
            match relocation.ordinals.get(ordinal as usize) {
                Some(&Relocation::LEFT_OUT) | None => return Resolved::LeftOut,
                Some(&moved) => (id, ordinal) = (relocation.into, moved),
            }
        }
    }

    /// Documents alive.
    pub fn live_documents(&self) -> u64 {
        let memtables = self.memtables().map(|m| u64::from(m.live_rows())).sum::<u64>();
        memtables + self.segments.iter().map(|s| u64::from(s.live_rows())).sum::<u64>()
    }
}
