//! Whether documents pass a filter, asked one by one: once they are many, the field index is asked, once a segment.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::index::Place;
use crate::meta::RowBounds;
use crate::types::{Filter, SegmentId};

use super::{Collection, CollectionError};

/// Documents decoded before the field index is asked, which may decode some itself.
const DECODED_FIRST: usize = 256;

/// A filter, and the rows that pass it in the segments met so far.
pub struct Passing<'a> {
    collection: &'a Collection,
    filter: &'a Filter,
    decoded: usize,
    rows: HashMap<SegmentId, Arc<RowBounds>>,
}

impl<'a> Passing<'a> {
    /// Nothing met yet.
    pub fn new(collection: &'a Collection, filter: &'a Filter) -> Self {
        Self { collection, filter, decoded: 0, rows: HashMap::new() }
    }

    /// Whether the document that stands there passes.
    ///
    /// # Errors
    /// [`CollectionError`] when a segment is damaged.
    pub fn passes(&mut self, place: &Place) -> Result<bool, CollectionError> {
        let Place::Sealed(live, row) = place else { return Ok(self.filter.matches(&*place.metadata()?)) };
        if self.decoded < DECODED_FIRST {
            self.decoded += 1;
            return Ok(self.filter.matches(&live.segment.metadata(*row)?));
        }
        let rows = match self.rows.entry(live.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.collection.select(live, self.filter)?.rows),
        };
        let is_certain = rows.certain().contains(*row);
        Ok(is_certain || rows.possible().contains(*row) && self.filter.matches(&live.segment.metadata(*row)?))
    }
}
