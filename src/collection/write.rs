//! Upsert and delete: everything is checked and embedded before the first byte is logged.

use std::collections::HashSet;

use crate::index::Place;
use crate::log::{Change, LoggedDocument};
use crate::types::limits::{MAX_DOCUMENTS_PER_REQUEST, MAX_METADATA_BYTES, MAX_TEXT_BYTES};
use crate::types::{
    DocumentId, EmbeddingState, Filter, IfSeq, NewDocument, Seq, StoredDocument, check_metadata, check_vector_for,
    metadata_bytes,
};

use super::prepare::Prepared;
use super::vectors::{DocumentVectors, Known, Made, refused};
use super::{Collection, CollectionError, Frame, now_ms};

/// What an upsert did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upserted {
    /// Documents written.
    pub upserted: usize,
    /// The change that wrote them.
    pub seq: Seq,
    /// Texts, or chunks of them, embedded by the model.
    pub embedded: usize,
    /// Texts, or chunks, whose vector was known already.
    pub cached: usize,
    /// Documents whose text was longer than the model reads; the rest of it did not go into the vector.
    pub truncated: Vec<DocumentId>,
}

/// What a delete did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Documents that were there and are no more. Of deletes by id at the same moment each counts what it found there.
    pub deleted: usize,
    /// The change that deleted them; where there were none, the youngest change.
    pub seq: Seq,
}

impl Collection {
    /// Writes documents, replacing those of the same ids, all or none of them. On return they are durable and every
    /// later read sees them.
    ///
    /// # Errors
    /// [`CollectionError`]; a refused request changes nothing.
    pub fn upsert(&self, documents: Vec<NewDocument>) -> Result<Upserted, CollectionError> {
        self.upsert_if(documents, &IfSeq::new())
    }

    /// As [`Collection::upsert`], if each document that `if_seq` names stands at its seq when nothing else is written.
    ///
    /// # Errors
    /// As there, and [`CollectionError::SeqConflict`] for the first that does not.
    pub fn upsert_if(&self, documents: Vec<NewDocument>, if_seq: &IfSeq) -> Result<Upserted, CollectionError> {
        self.check_exists()?;
        self.frame().check_documents(&documents)?;
        if documents.is_empty() {
            self.check_seqs(if_seq)?;
            return Ok(Upserted { upserted: 0, seq: self.state.last_seq(), embedded: 0, cached: 0, truncated: vec![] });
        }
        let documents = self.frame().prepare_documents(documents)?;
        // What is refused already need not be embedded.
        self.check_seqs(if_seq)?;
        let standing = documents.iter().map(|new| self.standing(new)).collect::<Result<Vec<_>, _>>()?;
        let (created, known): (Vec<_>, Vec<_>) = standing.into_iter().map(|s| (s.created_at_ms, s.vectors)).unzip();
        let Made { vectors, embedded, cached, truncated } = self.frame().make_vectors(&documents, known)?;
        self.state.wait_for_room()?;
        let now = now_ms();
        let written = documents.into_iter().zip(vectors).zip(created);
        let logged: Vec<_> =
            written.map(|((new, vectors), created)| logged(new, vectors, created.unwrap_or(now), now)).collect();
        let upserted = logged.len();
        let _committing = match if_seq.is_empty() {
            true => self.state.commit_beside_others(),
            false => self.state.commit_alone(),
        };
        self.check_seqs(if_seq)?;
        let seq = self.commit_upsert(logged)?;
        Ok(Upserted { upserted, seq, embedded, cached, truncated })
    }

    /// Refuses the first document that does not stand at the seq that is expected of it; one that is not there stands
    /// at 0. A document need not be readable to have a seq.
    fn check_seqs(&self, if_seq: &IfSeq) -> Result<(), CollectionError> {
        if_seq.keys().try_for_each(|id| {
            let stands = self.find(id)?.map(|place| place.seq()).transpose()?.unwrap_or_default();
            check_if_seq(if_seq, id, stands)
        })
    }

    pub(super) fn commit_upsert(&self, documents: Vec<LoggedDocument>) -> Result<Seq, CollectionError> {
        self.commit(Change::Upsert { collection: self.state.identity.id, documents })
    }

    /// Deletes documents. Ids that are not there are passed over.
    ///
    /// # Errors
    /// [`CollectionError`]; a refused request changes nothing.
    pub fn delete(&self, ids: &[DocumentId]) -> Result<Deleted, CollectionError> {
        if ids.len() > MAX_DOCUMENTS_PER_REQUEST {
            return Err(CollectionError::TooManyDocuments { got: ids.len(), max: MAX_DOCUMENTS_PER_REQUEST });
        }
        self.check_exists()?;
        let mut there = Vec::new();
        for id in ids.iter().collect::<HashSet<_>>() {
            if self.find(id)?.is_some() {
                there.push(id.clone());
            }
        }
        if there.is_empty() {
            return Ok(Deleted { deleted: 0, seq: self.state.last_seq() });
        }
        self.state.wait_for_room()?;
        let _committing = self.state.commit_beside_others();
        self.commit_delete(there)
    }

    /// Deletes the documents that pass a filter, as they stand while it runs, in steps of
    /// [`MAX_DOCUMENTS_PER_REQUEST`]. What a document was before it was replaced does not count.
    ///
    /// # Errors
    /// [`CollectionError`], also for a filter that every document passes; steps before a failure stay done.
    pub fn delete_matching(&self, filter: &Filter) -> Result<Deleted, CollectionError> {
        self.check_exists()?;
        self.frame().check_deletion(filter)?;
        let mut total = Deleted { deleted: 0, seq: self.state.last_seq() };
        let mut after = None;
        loop {
            // What was begun is finished, also where nobody waits for it any more.
            let (ids, next) = self.matching_ids(after.as_ref(), MAX_DOCUMENTS_PER_REQUEST, filter, || Ok(()))?;
            if let Some(step) = self.delete_still_matching(ids, filter)? {
                total = Deleted { deleted: total.deleted + step.deleted, seq: step.seq };
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(total),
            }
        }
    }

    /// Deletes those of `ids` that still match the filter, while no other change can come between; `None` if none does.
    fn delete_still_matching(&self, ids: Vec<DocumentId>, filter: &Filter) -> Result<Option<Deleted>, CollectionError> {
        if ids.is_empty() {
            return Ok(None);
        }
        self.state.wait_for_room()?;
        let _committing = self.state.commit_alone();
        let mut there = Vec::with_capacity(ids.len());
        for id in ids {
            if self.passes(&id, filter)? {
                there.push(id);
            }
        }
        if there.is_empty() { Ok(None) } else { self.commit_delete(there).map(Some) }
    }

    fn commit_delete(&self, mut ids: Vec<DocumentId>) -> Result<Deleted, CollectionError> {
        ids.sort();
        let deleted = ids.len();
        let seq = self.commit(Change::Delete { collection: self.state.identity.id, ids })?;
        Ok(Deleted { deleted, seq })
    }

    /// Logs a change of this collection. One that comes after the collection's drop changes nothing, and is not
    /// acknowledged.
    fn commit(&self, change: Change) -> Result<Seq, CollectionError> {
        let seq = self.engine.commit(change)?;
        self.check_exists()?;
        Ok(seq)
    }

    /// What of the document that stands under an id goes on with the new one.
    fn standing(&self, new: &Prepared) -> Result<Standing, CollectionError> {
        let mut standing = Standing::default();
        let Some(place) = self.find(&new.document.id)? else { return Ok(standing) };
        match self.read_standing(&place, new, &mut standing) {
            // What replaces damage needs none of it.
            Err(CollectionError::Segment(error)) => {
                let id = new.document.id.as_str();
                tracing::warn!(id, %error, "a document that cannot be read is replaced, without what is damaged of it");
            }
            read => read?,
        }
        Ok(standing)
    }

    fn read_standing(&self, place: &Place, new: &Prepared, standing: &mut Standing) -> Result<(), CollectionError> {
        let old = place.document()?;
        standing.created_at_ms = Some(old.created_at_ms);
        // The vectors of the same text by the same model, whatever else of the document changes.
        if new.wants_vector() && self.frame().is_same_text(&old, new)? {
            let vectors = DocumentVectors { numbers: place.vectors()?.to_vec(), chunks: place.chunks()? };
            standing.vectors = Some((vectors, EmbeddingState::Embedded));
        }
        Ok(())
    }
}

impl Frame<'_> {
    /// Refuses documents that no collection of this definition takes.
    ///
    /// # Errors
    /// [`CollectionError`] names the first.
    pub fn check_documents(&self, documents: &[NewDocument]) -> Result<(), CollectionError> {
        check_ids(documents.iter().map(|document| &document.id))?;
        let definition = self.definition();
        for document in documents {
            let NewDocument { id, text, metadata, vector, .. } = document;
            check_length(|| format!("the text of document {:?}", id.as_str()), text.as_ref().map_or(0, String::len))?;
            check_metadata(metadata).map_err(|source| CollectionError::Metadata { id: id.clone(), source })?;
            let bytes = metadata_bytes(metadata);
            if bytes > MAX_METADATA_BYTES {
                let what = format!("the metadata of document {:?}", id.as_str());
                return Err(CollectionError::TooLong { what, got: bytes, max: MAX_METADATA_BYTES });
            }
            definition.check_fields(metadata).map_err(|source| CollectionError::Fields { id: id.clone(), source })?;
            self.check_given_chunks(document)?;
            if let Some(vector) = vector {
                check_vector_for(definition.metric, vector, definition.dim as usize).map_err(|e| refused(id, e))?;
            }
        }
        Ok(())
    }
}

/// Refuses too many documents in one request, and one that stands there twice.
pub(super) fn check_ids<'a>(ids: impl ExactSizeIterator<Item = &'a DocumentId>) -> Result<(), CollectionError> {
    let got = ids.len();
    if got > MAX_DOCUMENTS_PER_REQUEST {
        return Err(CollectionError::TooManyDocuments { got, max: MAX_DOCUMENTS_PER_REQUEST });
    }
    let mut seen = HashSet::with_capacity(got);
    for id in ids {
        if !seen.insert(id) {
            return Err(CollectionError::DuplicateId { id: id.clone() });
        }
    }
    Ok(())
}

/// What stands under an id before it is written.
#[derive(Default)]
struct Standing {
    created_at_ms: Option<i64>,
    /// Of the same text.
    vectors: Option<Known>,
}

/// A document as the log has it.
pub(super) fn logged(new: Prepared, (vectors, embedding): Known, created_at_ms: i64, now: i64) -> LoggedDocument {
    let NewDocument { id, text, metadata, .. } = new.document;
    let document = StoredDocument { id, text, metadata, created_at_ms, updated_at_ms: now, embedding };
    let DocumentVectors { numbers, chunks } = vectors;
    LoggedDocument { document, vector: numbers, chunks }
}

/// Refuses a write of a document that is expected at another seq. `stands`: 0 where there is none.
pub fn check_if_seq(if_seq: &IfSeq, id: &DocumentId, stands: Seq) -> Result<(), CollectionError> {
    match if_seq.get(id) {
        Some(&expected) if expected != stands => Err(CollectionError::SeqConflict { id: id.clone(), expected, stands }),
        _ => Ok(()),
    }
}

pub(super) fn check_length(what: impl Fn() -> String, got: usize) -> Result<(), CollectionError> {
    if got > MAX_TEXT_BYTES {
        return Err(CollectionError::TooLong { what: what(), got, max: MAX_TEXT_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::storage::list_files_below;
    use crate::types::{CollectionName, Metadata, Value};
    use crate::{Database, DefinitionRequest};

    fn document(n: usize, state: &str) -> NewDocument {
        let metadata: Metadata = [("state".to_owned(), Value::String(state.to_owned()))].into();
        let id = DocumentId::new(&format!("d{n}")).unwrap();
        NewDocument { metadata, vector: Some(vec![1.0, n as f32]), ..NewDocument::from_text(id, state) }
    }

    fn with_old(count: usize) -> (tempfile::TempDir, Collection) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("c").unwrap();
        let collection = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        collection.upsert((0..count).map(|n| document(n, "old")).collect()).unwrap();
        (directory, collection)
    }

    fn old() -> Filter {
        Filter::eq("state", Value::String("old".to_owned()))
    }

    #[test]
    fn a_delete_by_filter_keeps_what_was_replaced_after_it_matched() {
        let (_directory, collection) = with_old(3);
        let (ids, _) = collection.matching_ids(None, 10, &old(), || Ok(())).unwrap();
        collection.upsert(vec![document(1, "new")]).unwrap();
        assert_eq!(collection.delete_still_matching(ids.clone(), &old()).unwrap().unwrap().deleted, 2);
        assert_eq!(collection.delete_still_matching(ids.clone(), &old()).unwrap(), None);
        let there = ids.iter().filter(|id| collection.get(id).unwrap().is_some());
        assert_eq!(there.map(DocumentId::as_str).collect::<Vec<_>>(), ["d1"]);
    }

    #[cfg(feature = "local-models")]
    #[test]
    fn a_delete_by_filter_that_was_begun_is_finished_though_nobody_waits() {
        use crate::collection::ListRequest;
        use crate::embed::{Cancellation, EmbedError};

        let (_directory, collection) = with_old(3);
        let client = Cancellation::new();
        client.cancel();
        assert_eq!(client.scope(|| collection.delete_matching(&old())).unwrap().deleted, 3);
        let listing = ListRequest { filter: Some(old()), limit: 10, ..ListRequest::default() };
        let gone = client.scope(|| collection.list(&listing)).unwrap_err();
        assert!(matches!(gone, CollectionError::Embed(EmbedError::Cancelled)), "{gone}");
    }

    #[test]
    fn seqs_that_are_expected_beside_no_document_are_looked_at() {
        let (_directory, collection) = with_old(1);
        let at = |n: usize, seq: Seq| IfSeq::from([(document(n, "").id, seq)]);
        let stands = collection.state.last_seq();
        assert_eq!(collection.upsert_if(vec![], &at(0, stands)).unwrap().upserted, 0);
        assert_eq!(collection.upsert_if(vec![], &at(1, Seq(0))).unwrap().upserted, 0);
        for (n, wrong) in [(0, Seq(0)), (1, stands)] {
            let refused = collection.upsert_if(vec![], &at(n, wrong)).unwrap_err();
            assert!(matches!(refused, CollectionError::SeqConflict { .. }), "{refused}");
        }
        assert_eq!(collection.state.last_seq(), stands, "nothing is logged");
    }

    #[test]
    fn a_write_that_is_logged_after_the_drop_is_not_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("c").unwrap();
        let collection = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        collection.upsert(vec![document(0, "old")]).unwrap();
        let before = database.drop_collection(&name).unwrap();
        // As if the drop had come after the last look at whether it exists.
        let refused = collection.commit_delete(vec![document(0, "old").id]).unwrap_err();
        assert!(matches!(refused, CollectionError::NotFound { .. }), "{refused}");
        assert!(collection.engine.shared.applied_seq() > before, "it was logged");
    }

    #[test]
    fn a_document_that_is_damaged_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let id = DocumentId::new("a").unwrap();
        let with_text =
            |text: String| NewDocument { vector: Some(vec![1.0, 2.0]), ..NewDocument::from_text(id.clone(), text) };
        let written = {
            let database = Database::open(directory.path()).unwrap();
            let name = CollectionName::new("c").unwrap();
            let collection = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
            let written = collection.upsert(vec![with_text("old ".repeat(50_000))]).unwrap().seq;
            collection.flush().unwrap();
            written
        };
        let files = list_files_below(&directory.path().join("segments")).unwrap();
        let segment = files.iter().find(|file| file.extension().is_some_and(|e| e == "seg")).unwrap();
        let mut bytes = std::fs::read(segment).unwrap();
        let at = bytes.windows(8).position(|window| window == b"old old ").unwrap();
        bytes[at + 100_000] ^= 1;
        std::fs::write(segment, bytes).unwrap();
        let database = Database::open(directory.path()).unwrap();
        let collection = &database.collections()[0];
        let damaged = collection.get(&id).unwrap_err();
        assert!(damaged.to_string().contains("is damaged"), "{damaged}");
        // Its seq is in no block of the text's.
        let at = |seq: Seq| IfSeq::from([(id.clone(), seq)]);
        for wrong in [Seq(0), Seq(written.0 + 1)] {
            let refused = collection.upsert_if(vec![with_text("new".to_owned())], &at(wrong)).unwrap_err();
            let is_told = matches!(&refused, CollectionError::SeqConflict { stands, .. } if *stands == written);
            assert!(is_told, "{refused}");
        }
        assert_eq!(collection.upsert_if(vec![with_text("new".to_owned())], &at(written)).unwrap().upserted, 1);
        collection.optimise().unwrap();
        let document = collection.get(&id).unwrap().unwrap();
        assert_eq!((document.stored.text.as_deref(), collection.stats().documents), (Some("new"), 1));
    }

    #[test]
    fn deletes_by_filter_beside_upserts_lose_no_document_that_does_not_match() {
        const DOCUMENTS: usize = 200;
        let (_directory, collection) = with_old(DOCUMENTS);
        let deleting = thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let collection = &collection;
                    scope.spawn(move || {
                        for n in (writer..DOCUMENTS).step_by(4) {
                            collection.upsert(vec![document(n, "new")]).unwrap();
                        }
                    })
                })
                .collect();
            let mut deletes = 0;
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                collection.delete_matching(&old()).unwrap();
                deletes += 1;
            }
            deletes
        });
        assert!(deleting > 0);
        assert_eq!(collection.stats().documents as usize, DOCUMENTS);
    }
}
