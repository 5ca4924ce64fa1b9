//! Bringing a keyword index up to a collection from its segments and memtables, where the noted ids are not enough.

use crate::text::{TextIndex, TextWriter};
use crate::types::{DocumentId, Ordinal, Seq};

use super::super::CollectionError;
use super::super::engine::Shared;
use super::super::state::CollectionState;

/// Tells `writer` everything that the index, which has read up to `from`, lacks of the collection as it stands now.
/// Nothing is committed.
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
        for ordinal in 0..live.segment.rows() {
            check_going(shared, ordinal)?;
            let seq = live.segment.seq(ordinal)?;
            if seq <= from || live.dead.is_dead(ordinal) {
                continue;
            }
            let document = live.segment.document(ordinal)?;
            let Some(text) = &document.text else { continue };
            // In a new index nothing stands under the id: of the segments' rows, one of an id is alive.
            match fresh {
                true => writer.insert(&document.id, seq, text)?,
                false => writer.upsert(&document.id, seq, text)?,
            }
        }
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
        if living_seq(shared, state, &id)? != Some(seq) {
            writer.delete(&id);
        }
        Ok(())
    })
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
