//! Bringing a keyword index up to a collection from its segments and memtables, where the noted ids are not enough.

use crate::index::LiveSegment;
use crate::segment::SegmentError;
use crate::text::{TextIndex, TextWriter};
use crate::types::{DocumentId, Ordinal, Seq, StoredDocument};

use super::super::CollectionError;
use super::super::engine::Shared;
use super::super::state::CollectionState;

/// Tells `writer` everything that the index, which has read up to `from`, lacks of the collection as it stands now.
/// Rows that are damaged are left out, named in the log and counted in the index. Nothing is committed.
///
/// # Errors
/// [`CollectionError`]; [`CollectionError::Stopped`] when the store closes meanwhile.
pub(super) fn catch_up(
    shared: &Shared,
    state: &CollectionState,
    index: &TextIndex,
    writer: &mut TextWriter,
    from: Seq,
) -> Result<(), CollectionError> {
    let fresh = from == Seq(0);
    if !fresh {
        drop_the_dead(shared, state, index, writer)?;
    }
    let view = state.view();
    for live in view.segments.iter().filter(|live| live.segment.max_seq() > from) {
        let mut damaged = Damaged::default();
        for ordinal in 0..live.segment.rows() {
            check_going(shared, ordinal)?;
            let (seq, document) = match living_after(live, ordinal, from) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    damaged.add(error);
                    continue;
                }
            };
            let Some(text) = &document.text else { continue };
            // In a new index nothing stands under the id: of the segments' rows, one of an id is alive.
            match fresh {
                true => writer.insert(&document.id, seq, text)?,
                false => writer.upsert(&document.id, seq, text)?,
            }
        }
        damaged.tell(state, index);
    }
    for memtable in view.frozen.iter().chain([&view.active]) {
        for ordinal in 0..memtable.rows() {
            check_going(shared, ordinal)?;
            let Some(row) = memtable.row(ordinal).filter(|row| row.seq > from && !memtable.is_dead(ordinal)) else {
                continue;
            };
            match &row.document.text {
                Some(text) => writer.upsert(&row.document.id, row.seq, text)?,
                None => writer.delete(&row.document.id),
            }
        }
    }
    Ok(())
}

/// Takes out what was replaced or deleted since the index last looked. Merges leave no trace of a delete, so every
/// document of the index is looked up.
fn drop_the_dead(
    shared: &Shared,
    state: &CollectionState,
    index: &TextIndex,
    writer: &mut TextWriter,
) -> Result<(), CollectionError> {
    let mut seen = 0;
    index.for_each(|id, seq| {
        seen += 1;
        check_going(shared, seen)?;
        match living_seq(shared, state, &id) {
            Ok(living) if living == Some(seq) => {}
            Ok(_) => writer.delete(&id),
            // It may be alive: a search looks again.
            Err(CollectionError::Segment(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    })
}

/// What a row holds, if it is alive and was written after `from`.
fn living_after(
    live: &LiveSegment,
    ordinal: Ordinal,
    from: Seq,
) -> Result<Option<(Seq, StoredDocument)>, SegmentError> {
    if live.dead.is_dead(ordinal) {
        return Ok(None);
    }
    let seq = live.segment.seq(ordinal)?;
    if seq <= from { Ok(None) } else { Ok(Some((seq, live.segment.document(ordinal)?))) }
}

/// Rows that could not be read, with the first reason.
#[derive(Default)]
pub(super) struct Damaged {
    rows: u64,
    first: Option<SegmentError>,
}

impl Damaged {
    pub(super) fn add(&mut self, error: SegmentError) {
        self.rows += 1;
        self.first.get_or_insert(error);
    }

    /// Says so in the log, and has the index count them.
    pub(super) fn tell(self, state: &CollectionState, index: &TextIndex) {
        let Some(error) = self.first else { return };
        let collection = &state.identity.name;
        tracing::error!(%collection, rows = self.rows, %error, "keyword search lacks documents that cannot be read");
        index.add_unreadable(self.rows);
    }
}

fn living_seq(shared: &Shared, state: &CollectionState, id: &DocumentId) -> Result<Option<Seq>, CollectionError> {
    let place = state.find(&shared.meta, id)?;
    Ok(place.map(|place| place.seq()).transpose()?)
}

/// Looks every now and then whether the store closes.
fn check_going(shared: &Shared, at: Ordinal) -> Result<(), CollectionError> {
    if at.is_multiple_of(1_024) && shared.bell.is_over() {
        return Err(CollectionError::Stopped { reason: "it is closing".to_owned() });
    }
    Ok(())
}
