//! Holds the postings of a segment against what its documents say.

use super::block::{BlockReader, Damage, Table};
use super::page::{PAGE_ROWS, Postings};
use super::{POSTINGS, SegmentFields, TABLE, page_key};
use crate::meta::{MetaError, MetaIndex};
use crate::types::{CollectionId, SegmentId};

/// Bytes of a field's number in a key.
const FIELD_BYTES: usize = 2;

impl MetaIndex {
    /// Whether the postings of a segment are all there and say what its documents say. `None` where it has none, or
    /// they were removed meanwhile: filters are then evaluated on the documents.
    ///
    /// # Errors
    /// [`MetaError`] when sled fails or a row cannot be read.
    pub fn fields_match(&self, mut source: SegmentFields<'_>) -> Result<Option<bool>, MetaError> {
        let (collection, segment, rows) = (source.collection, source.segment, source.rows);
        let mut matches = self.rows_of(collection, segment) == Some(rows);
        for page in 0..rows.div_ceil(PAGE_ROWS) {
            if !self.has_fields(collection, segment) {
                return Ok(None);
            }
            matches = matches && self.read_page(collection, segment, page)?.ok() == Some(source.page(page)?);
        }
        Ok(self.has_fields(collection, segment).then_some(matches))
    }

    /// The fields of a page as sled has them, and the postings of each.
    fn read_page(
        &self,
        collection: CollectionId,
        segment: SegmentId,
        page: u32,
    ) -> Result<Result<(Table, Vec<Postings>), Damage>, MetaError> {
        let key = page_key(TABLE, collection, segment, page);
        let Some(table) = self.ask(|db| db.get(&key))? else { return Ok(Err(Damage)) };
        let Ok(table) = Table::decode(&key, &table) else { return Ok(Err(Damage)) };
        let mut fields = vec![Postings::new(); table.paths.len()];
        let prefix = page_key(POSTINGS, collection, segment, page);
        for block in self.entries(self.db().scan_prefix(&prefix)) {
            let (key, value) = block?;
            let number = key[prefix.len()..].first_chunk::<FIELD_BYTES>().map(|bytes| u16::from_be_bytes(*bytes));
            let field = number.and_then(|number| fields.get_mut(usize::from(number)));
            if field.ok_or(Damage).and_then(|field| read_block(&key, &value, field)).is_err() {
                return Ok(Err(Damage));
            }
        }
        Ok(Ok((table, fields)))
    }
}

fn read_block(key: &[u8], value: &[u8], postings: &mut Postings) -> Result<(), Damage> {
    let mut block = BlockReader::open(key, value)?;
    while let Some((term, rows)) = block.entry()? {
        let mut of_term = Vec::new();
        // Bitmaps hold 32 bits, of which rows of a page use 16.
        rows.for_each(|row| of_term.push(u16::try_from(row).unwrap_or(u16::MAX)))?;
        postings.push((term.to_vec(), of_term));
    }
    Ok(())
}
