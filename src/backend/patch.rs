//! Patches of documents in a table: worked out of what was read, and again, where others have written meanwhile, of the
//! rows that their transaction has locked.

use std::collections::HashMap;

use crate::collection::{CollectionError, DocumentVectors, Draft, MAX_DRAFTS, Made, Original, Updated};
use crate::postgres::Type;
use crate::types::{Document, DocumentId, DocumentPatch, Edit, IfSeq};

use super::remote::RemoteCollection;
use super::rows::{self, Columns};
use super::writes::NewRow;

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
            let originals = self.originals(patches, self.documents(&ids)?)?;
            let draft = frame.draft(patches, originals)?;
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
            let originals = self.documents_of(&rows).and_then(|documents| self.originals(patches, documents));
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

    fn originals(&self, patches: &[DocumentPatch], documents: Vec<Document>) -> Result<Vec<Original>, CollectionError> {
        let mut there: HashMap<DocumentId, Original> = documents
            .into_iter()
            .map(|Document { stored, seq, vector, .. }| {
                let vectors = DocumentVectors { numbers: vector, chunks: Vec::new() };
                (stored.id.clone(), Original { document: stored, seq, vectors })
            })
            .collect();
        self.frame().check_originals(patches, patches.iter().map(|patch| there.remove(&patch.id)))
    }
}
