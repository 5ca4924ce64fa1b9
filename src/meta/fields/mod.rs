//! The field index: for each sealed segment and metadata field, which rows hold which value.
//!
//! Segments never change, so their postings are written once, when a segment is installed, and removed when it retires.
//! They are a view of the segment's documents: while they are missing or damaged, filters are evaluated on the
//! documents, and the answers are the same.

mod ask;
mod block;
mod bounds;
mod cache;
mod compare;
mod page;
mod resolve;
mod term;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};

use super::{MetaError, MetaIndex, RowError};
use crate::types::{CollectionId, FieldType, Metadata, Ordinal, SegmentId};

pub use bounds::RowBounds;

use block::{Block, Table};
use cache::Cache;
use page::{PAGE_ROWS, PageTerms, Postings};

const MARKER: u8 = b'i';
const TABLE: u8 = b't';
const POSTINGS: u8 = b'p';
/// Bytes of blocks put into sled in one batch.
const BATCH_BYTES: usize = 1 << 20;

/// What is kept in memory beside sled.
#[derive(Default)]
pub struct FieldState {
    /// Segments whose postings are all there, with their rows.
    ready: RwLock<BTreeMap<(CollectionId, SegmentId), u32>>,
    cache: Cache,
}

/// The rows of a segment, as they are indexed.
pub struct SegmentFields<'a> {
    /// The collection.
    pub collection: CollectionId,
    /// The segment.
    pub segment: SegmentId,
    /// Rows in it.
    pub rows: u32,
    /// The fields that the collection declares.
    pub declared: &'a BTreeMap<String, FieldType>,
    /// The metadata of a row.
    pub metadata: &'a mut dyn FnMut(Ordinal) -> Result<Metadata, RowError>,
}

impl SegmentFields<'_> {
    /// The fields of a page's documents, and the postings of each.
    fn page(&mut self, page: u32) -> Result<(Table, Vec<Postings>), MetaError> {
        let mut terms = PageTerms::new(self.declared);
        let first = page * PAGE_ROWS;
        for row in first..self.rows.min(first.saturating_add(PAGE_ROWS)) {
            terms.add((row - first) as u16, &(self.metadata)(row).map_err(MetaError::Row)?);
        }
        Ok(terms.finish())
    }
}

impl MetaIndex {
    /// Whether filters on this segment are answered from postings.
    pub fn has_fields(&self, collection: CollectionId, segment: SegmentId) -> bool {
        self.rows_of(collection, segment).is_some()
    }

    fn rows_of(&self, collection: CollectionId, segment: SegmentId) -> Option<u32> {
        self.fields.ready.read().unwrap_or_else(PoisonError::into_inner).get(&(collection, segment)).copied()
    }

    /// Takes the fields of a segment in, in place of what an earlier attempt left. From its return on, filters are
    /// answered from them.
    ///
    /// # Errors
    /// [`MetaError`] when sled fails or a row cannot be read; the segment then stays without postings.
    pub fn index_fields(&self, mut source: SegmentFields<'_>) -> Result<(), MetaError> {
        let (collection, segment, rows) = (source.collection, source.segment, source.rows);
        self.forget_fields(collection, &[segment])?;
        for page in 0..rows.div_ceil(PAGE_ROWS) {
            self.index_page(&mut source, page)?;
        }
        let marker = segment_key(MARKER, collection, segment);
        let value = block::encode_marker(&marker, rows);
        self.ask(|db| db.insert(marker, value))?;
        let mut ready = self.fields.ready.write().unwrap_or_else(PoisonError::into_inner);
        ready.insert((collection, segment), rows);
        Ok(())
    }

    fn index_page(&self, source: &mut SegmentFields<'_>, page: u32) -> Result<(), MetaError> {
        let (table, fields) = source.page(page)?;
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        for (field, postings) in fields.iter().enumerate() {
            let prefix = field_key(source.collection, source.segment, page, field as u16);
            for Block { key, value } in block::encode_blocks(&prefix, postings) {
                bytes += key.len() + value.len();
                batch.insert(key, value);
                if bytes > BATCH_BYTES {
                    self.apply(std::mem::take(&mut batch))?;
                    bytes = 0;
                }
            }
        }
        let key = page_key(TABLE, source.collection, source.segment, page);
        let value = table.encode(&key);
        batch.insert(key, value);
        self.apply(batch)
    }

    /// Removes the postings of segments. A reader of an older view finds them gone, and decodes documents.
    ///
    /// # Errors
    /// [`MetaError::Sled`]; what stays is removed when the collection is dropped, or with the index.
    pub fn forget_fields(&self, collection: CollectionId, segments: &[SegmentId]) -> Result<(), MetaError> {
        {
            // Before the first block goes, so that a reader that still finds a segment ready at its end has seen all.
            let mut ready = self.fields.ready.write().unwrap_or_else(PoisonError::into_inner);
            segments.iter().for_each(|&segment| _ = ready.remove(&(collection, segment)));
        }
        self.fields.cache.forget(|key| key.collection == collection && segments.contains(&key.segment));
        for &segment in segments {
            for kind in [MARKER, TABLE, POSTINGS] {
                self.remove_prefix(&segment_key(kind, collection, segment))?;
            }
        }
        Ok(())
    }

    /// Removes the postings of a collection.
    pub(super) fn drop_fields(&self, collection: CollectionId) -> Result<(), MetaError> {
        {
            let mut ready = self.fields.ready.write().unwrap_or_else(PoisonError::into_inner);
            ready.retain(|(of, _), _| *of != collection);
        }
        self.fields.cache.forget(|key| key.collection == collection);
        [MARKER, TABLE, POSTINGS]
            .into_iter()
            .try_for_each(|kind| self.remove_prefix(&super::codec::head(kind, collection)))
    }

    fn remove_prefix(&self, prefix: &[u8]) -> Result<(), MetaError> {
        let mut batch = sled::Batch::default();
        for (count, entry) in self.entries(self.db().scan_prefix(prefix)).enumerate() {
            batch.remove(entry?.0);
            if count % super::BATCH_ROWS == super::BATCH_ROWS - 1 {
                self.apply(std::mem::take(&mut batch))?;
            }
        }
        self.apply(batch)
    }

    /// Reads which segments have their postings. A marker that is damaged counts as missing.
    pub(super) fn load_markers(&self) -> Result<(), MetaError> {
        let mut ready = BTreeMap::new();
        for entry in self.entries(self.db().scan_prefix([MARKER])) {
            let (key, value) = entry?;
            if let (Some(id), Ok(rows)) = (decode_segment_key(&key), block::decode_marker(&key, &value)) {
                ready.insert(id, rows);
            }
        }
        *self.fields.ready.write().unwrap_or_else(PoisonError::into_inner) = ready;
        Ok(())
    }

    /// Removes postings of segments that do not exist: what a crash left between a merge and its clearing up.
    ///
    /// # Errors
    /// [`MetaError::Sled`].
    pub fn keep_fields_of(&self, segments: &BTreeSet<(CollectionId, SegmentId)>) -> Result<(), MetaError> {
        // Tables are written last of a page and markers last of all, so postings may be there without either.
        let mut from = vec![POSTINGS];
        while let Some(entry) = self.entries(self.db().range(from.clone()..vec![POSTINGS + 1])).next() {
            let (key, _) = entry?;
            let Some((collection, segment)) = key.get(..SEGMENT_KEY_BYTES).and_then(decode_segment_key) else { break };
            if !segments.contains(&(collection, segment)) {
                self.forget_fields(collection, &[segment])?;
            }
            from = segment_key(POSTINGS, collection, SegmentId(segment.0 + 1));
        }
        Ok(())
    }
}

const SEGMENT_KEY_BYTES: usize = 13;

fn segment_key(kind: u8, collection: CollectionId, segment: SegmentId) -> Vec<u8> {
    let mut key = super::codec::head(kind, collection);
    key.extend(segment.0.to_be_bytes());
    key
}

fn decode_segment_key(key: &[u8]) -> Option<(CollectionId, SegmentId)> {
    let (collection, segment) = key.get(1..)?.split_first_chunk::<4>()?;
    Some((CollectionId(u32::from_be_bytes(*collection)), SegmentId(u64::from_be_bytes(segment.try_into().ok()?))))
}

fn page_key(kind: u8, collection: CollectionId, segment: SegmentId, page: u32) -> Vec<u8> {
    let mut key = segment_key(kind, collection, segment);
    key.extend(page.to_be_bytes());
    key
}

/// Where the blocks of a field begin.
fn field_key(collection: CollectionId, segment: SegmentId, page: u32, field: u16) -> Vec<u8> {
    let mut key = page_key(POSTINGS, collection, segment, page);
    key.extend(field.to_be_bytes());
    key
}

#[cfg(test)]
mod tests;
