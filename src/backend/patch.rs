//! Patches of documents in a table: worked out of what was read, and again, where others have written meanwhile, of the
//! rows that their transaction has locked.

use std::collections::HashMap;

use crate::collection::{CollectionError, DocumentVectors, Draft, MAX_DRAFTS, Made, Original, Updated};
use crate::postgres::Type;
use crate::types::{Document, DocumentId, DocumentPatch, Edit, IfSeq};

use super::remote::RemoteCollection;
use super::rows::{self, Columns};
use super::writes::NewRow;

/// Documents are read so many at a time, so that little is read beyond what patches may take.
const READ_AT_ONCE: usize = 32;

impl RemoteCollection {
    /// As [`crate::Collection::patch`], in one transaction; also what others write by SQL is kept, to the last digit
    /// of their numbers.
    ///
    /// # Errors
    /// As there, [`CollectionError::NotOnBackend`] and [`CollectionError::Backend`].
    pub fn patch(&self, patches: &[DocumentPatch]) -> Result<Updated, CollectionError> {
        let frame = self.frame();
        frame.check_patches(patches)?;
        let Some(first) = patches.first() else {
            return Ok(Updated::of(0, self.stats()?.last_seq, &Made::default()));
        };
        for patch in patches {
            let text = if let Edit::Set(text) = &patch.text { Some(text.as_str()) } else { None };
            self.check_holdable(&patch.id, text, &patch.metadata)?;
        }
        let ids: Vec<&str> = patches.iter().map(|patch| patch.id.as_str()).collect();
        for _ in 0..MAX_DRAFTS {
            let draft = frame.draft(patches, self.originals(patches)?)?;
            if let Some(updated) = self.commit_draft(patches, &ids, &draft)? {
                return Ok(updated);
            }
        }
        Err(CollectionError::Overtaken { id: first.id.clone() })
    }

    /// Writes what patches make of the rows as they stand once they are locked. `None` where that has a text to be
    /// embedded that the draft has not.
    fn commit_draft(
        &self,
        patches: &[DocumentPatch],
        ids: &[&str],
        draft: &Draft,
    ) -> Result<Option<Updated>, CollectionError> {
        let (table, columns, extension) = (self.table(), Columns::ALL.sql(), self.checked()?.extension);
        self.transact(async |session, guard| {
            let sql = format!("select {columns} from {table} where {guard} and id = any($1) order by id for update");
            let rows = session.query("lock documents", &sql, &[(&ids, Type::TEXT_ARRAY)]).await?;
            let documents = self.documents_of(&rows);
            let originals = documents.and_then(|all| self.frame().take_originals(patches, in_order(patches, all)));
            let again = match originals {
                Ok(originals) if originals == draft.originals => None,
                Ok(originals) => match self.frame().draft_again(patches, originals, draft) {
                    Ok(Some(again)) => Some(again),
                    // Nothing was written yet.
                    Ok(None) => return Ok(Ok(None)),
                    Err(refused) => return Ok(Err(refused)),
                },
                Err(refused) => return Ok(Err(refused)),
            };
            let Draft { prepared, made, .. } = again.as_ref().unwrap_or(draft);
            // What could not be read was refused above.
            let standing = rows.iter().filter_map(|row| rows::metadata_text(row).ok()).collect();
            let rows = NewRow::over(prepared, &made.vectors, &standing);
            let (seq, written) = self.put(session, guard, &extension, &rows, &IfSeq::new()).await?;
            Ok(match written == rows.len() as u64 {
                true => Ok(Some(Updated::of(rows.len(), seq, made))),
                false => Err(self.not_all_written(&rows, written)),
            })
        })
    }

    fn originals(&self, patches: &[DocumentPatch]) -> Result<Vec<Original>, CollectionError> {
        let read = |part: &[DocumentPatch]| {
            let ids: Vec<&str> = part.iter().map(|patch| patch.id.as_str()).collect();
            self.documents(&ids).map_or_else(|error| vec![Err(error)], |documents| in_order(part, documents))
        };
        self.frame().take_originals(patches, patches.chunks(READ_AT_ONCE).flat_map(read))
    }
}

/// For each patch its document, where it was found.
fn in_order(patches: &[DocumentPatch], documents: Vec<Document>) -> Vec<Result<Option<Original>, CollectionError>> {
    let mut there: HashMap<DocumentId, Original> = documents
        .into_iter()
        .map(|Document { stored, seq, vector, .. }| {
            let vectors = DocumentVectors { numbers: vector, chunks: Vec::new() };
            (stored.id.clone(), Original { document: stored, seq, vectors })
        })
        .collect();
    patches.iter().map(|patch| Ok(there.remove(&patch.id))).collect()
}
