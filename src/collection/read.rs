//! Reading without a query: one document, a page of them, the collection's figures.

use std::collections::BTreeSet;

use crate::embed::Cancellation;
use crate::index::{LiveSegment, Place, whole_vector};
use crate::types::limits::MAX_PAGE;
use crate::types::{
    Chunk, ChunkSpan, Definition, Document, DocumentId, Filter, Metric, Seq, StoredDocument, normalise,
};

use super::{Collection, CollectionError, KeywordStats, SampledRecall};

/// Ids are fetched at least so many at a time.
const MIN_STEP: usize = 64;

/// What part of a listing to return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListRequest {
    /// Only documents with a greater id.
    pub after: Option<DocumentId>,
    /// Most documents to return, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// Leaves out documents whose metadata do not match.
    pub filter: Option<Filter>,
    /// The page ends with the document with which it carries so many bytes, about, as JSON with all vectors, and what
    /// follows is not read. `None` for no such limit.
    pub max_bytes: Option<usize>,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// By ascending id.
    pub documents: Vec<Document>,
    /// Where the next page begins: pass it as [`ListRequest::after`]. `None` on the last page.
    pub next: Option<DocumentId>,
}

/// Figures of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionStats {
    /// Documents alive.
    pub documents: u64,
    /// Segments.
    pub segments: u64,
    /// Of them searched by a graph.
    pub graph_segments: u64,
    /// Documents that stand in memory only, beside the log.
    pub memtable_documents: u64,
    /// Memory they take, about.
    pub memtable_bytes: u64,
    /// Rows of segments that were replaced or deleted and wait for a merge.
    pub deleted_rows: u64,
    /// Bytes of segment files.
    pub disk_bytes: u64,
    /// The youngest change applied.
    pub last_seq: Seq,
    /// Changes up to here are in segments.
    pub sealed_seq: Seq,
    /// Numbers in a vector.
    pub dim: u32,
    /// How far the keyword index is; `None` where no document has a text.
    pub keywords: Option<KeywordStats>,
    /// Recall as a few searches had it since the store was opened.
    pub recall: SampledRecall,
}

impl Collection {
    /// A document by its id.
    ///
    /// # Errors
    /// [`CollectionError`] when the collection is gone or its bytes are damaged.
    pub fn get(&self, id: &DocumentId) -> Result<Option<Document>, CollectionError> {
        self.check_exists()?;
        self.find(id)?.map(|place| self.read(&place)).transpose()
    }

    /// A page of documents by ascending id.
    ///
    /// # Errors
    /// [`CollectionError::OutOfRange`] for the limit, [`CollectionError::Filter`], and as [`Collection::get`].
    pub fn list(&self, request: &ListRequest) -> Result<Page, CollectionError> {
        self.check_exists()?;
        if !(1..=MAX_PAGE).contains(&request.limit) {
            return Err(super::out_of_range("limit", request.limit, 1, MAX_PAGE));
        }
        self.frame().check_filter(request.filter.as_ref())?;
        let (ids, mut next) = match &request.filter {
            Some(filter) => {
                self.matching_ids(request.after.as_ref(), request.limit, filter, Cancellation::check_current)?
            }
            None => self.ids(request.after.as_ref(), request.limit)?,
        };
        let mut documents = Vec::with_capacity(ids.len());
        let (mut bytes, max_bytes) = (0, request.max_bytes.unwrap_or(usize::MAX));
        for (at, id) in ids.iter().enumerate() {
            // Deleted or replaced since it was listed: it is left out, as in a listing that began later.
            let Some(place) = self.find(id)? else { continue };
            let document = self.read(&place)?;
            if request.filter.as_ref().is_none_or(|filter| filter.matches(&document.stored.metadata)) {
                bytes += document.carried_bytes();
                documents.push(document);
            }
            if bytes >= max_bytes && at + 1 < ids.len() {
                next = Some(id.clone());
                break;
            }
        }
        Ok(Page { documents, next })
    }

    /// Up to `limit` ids after `after` of documents that are there, and where to go on.
    fn ids(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<(Vec<DocumentId>, Option<DocumentId>), CollectionError> {
        let mut there: Vec<DocumentId> = Vec::new();
        let mut after = after.cloned();
        loop {
            let (ids, more) = self.known_ids(after.as_ref(), limit.max(MIN_STEP))?;
            for id in &ids {
                if self.find(id)?.is_none() {
                    continue;
                }
                if there.len() == limit {
                    let next = there.last().cloned();
                    return Ok((there, next));
                }
                there.push(id.clone());
            }
            if !more {
                return Ok((there, None));
            }
            after = ids.last().cloned().or(after);
        }
    }

    /// The next ids that the memtables or the document index know, deleted ones included, by ascending id, and whether
    /// there are more.
    fn known_ids(&self, after: Option<&DocumentId>, limit: usize) -> Result<(Vec<DocumentId>, bool), CollectionError> {
        let view = self.state.view();
        let memory = view.memtables().map(|m| m.page(after, limit).into_iter().map(|(id, _)| id).collect::<Vec<_>>());
        let sealed = match self.engine.shared.meta.page(self.state.identity.id, after, limit) {
            Ok(page) => vec![page.into_iter().map(|(id, _)| id).collect()],
            Err(error) => {
                // The index has said so in the log.
                tracing::debug!(%error, "listing from the segments");
                view.segments.iter().map(|live| ids_of_segment(live, after, limit)).collect::<Result<Vec<_>, _>>()?
            }
        };
        let pages: Vec<Vec<DocumentId>> = memory.chain(sealed).collect();
        // Behind the last id of a full page, more of that source may follow; what others have there comes later.
        let horizon = pages.iter().filter(|page| page.len() == limit).filter_map(|page| page.last()).min().cloned();
        let within = |id: &DocumentId| horizon.as_ref().is_none_or(|horizon| id <= horizon);
        let ids: BTreeSet<_> = pages.into_iter().flatten().filter(within).collect();
        Ok((ids.into_iter().collect(), horizon.is_some()))
    }

    fn read(&self, place: &Place) -> Result<Document, CollectionError> {
        let (stored, seq, chunks) = (place.document()?, place.seq()?, place.chunks()?);
        Ok(document_of(stored, seq, &place.vectors()?, &chunks, self.definition()))
    }

    /// The collection's figures at this moment.
    pub fn stats(&self) -> CollectionStats {
        let view = self.state.view();
        let segments = || view.segments.iter();
        CollectionStats {
            documents: view.live_documents(),
            segments: view.segments.len() as u64,
            graph_segments: segments().filter(|s| s.segment.has_graph()).count() as u64,
            memtable_documents: view.memtables().map(|m| u64::from(m.live_rows())).sum(),
            memtable_bytes: view.memtables().map(|m| m.bytes()).sum(),
            deleted_rows: segments().map(|s| u64::from(s.dead.count())).sum(),
            disk_bytes: segments().map(|s| s.segment.len_bytes()).sum(),
            last_seq: self.state.last_seq(),
            sealed_seq: self.state.sealed_seq(),
            dim: self.definition().dim,
            keywords: self.state.keywords.stats(),
            recall: self.state.recall.read(),
        }
    }
}

/// Up to `limit` ids of a segment's rows after `after`, dead ones included, by ascending id.
fn ids_of_segment(
    live: &LiveSegment,
    after: Option<&DocumentId>,
    limit: usize,
) -> Result<Vec<DocumentId>, CollectionError> {
    let first = after.map_or(Ok(0), |after| live.first_after(after))?;
    (first..live.segment.rows()).take(limit).map(|row| Ok(live.segment.document_id(row)?)).collect()
}

/// The vector that stands for all of a document, f32, shape `[dim]`. `vectors`: as for [`document_of`].
pub(super) fn one_vector(vectors: &[f32], definition: &Definition) -> Vec<f32> {
    let dim = definition.dim as usize;
    let mut vector = whole_vector(vectors, dim);
    if vectors.len() > dim && definition.metric == Metric::Cosine {
        // The mean of several is shorter, and never zero.
        _ = normalise(&mut vector, dim);
    }
    vector
}

/// A document of what is stored of it. `vectors`: f32, shape `[dim]`, or `[chunks, dim]` where there are chunks.
pub(super) fn document_of(
    stored: StoredDocument,
    seq: Seq,
    vectors: &[f32],
    chunks: &[ChunkSpan],
    definition: &Definition,
) -> Document {
    let dim = definition.dim as usize;
    let vector = one_vector(vectors, definition);
    let chunk = |(span, vector): (&ChunkSpan, &[f32])| Chunk { span: span.place(), vector: vector.to_vec() };
    let chunks = chunks.iter().zip(vectors.chunks_exact(dim)).map(chunk).collect();
    Document { stored, seq, vector, chunks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CollectionName, NewDocument};
    use crate::{Database, DefinitionRequest};

    #[test]
    fn a_page_ends_with_the_document_that_fills_it() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("c").unwrap();
        let collection = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        let document = |n: usize| {
            let id = DocumentId::new(&format!("d{n}")).unwrap();
            NewDocument { vector: Some(vec![1.0, n as f32]), ..NewDocument::from_text(id, "x".repeat(1_000)) }
        };
        collection.upsert((0..5).map(document).collect()).unwrap();
        for filter in [None, Some(Filter::And(vec![]))] {
            let mut request = ListRequest { limit: 4, filter, max_bytes: Some(2_000), ..ListRequest::default() };
            let mut pages = Vec::new();
            loop {
                let page = collection.list(&request).unwrap();
                pages.push(page.documents.iter().map(|d| d.stored.id.to_string()).collect::<Vec<_>>().concat());
                request.after = page.next;
                if request.after.is_none() {
                    break;
                }
            }
            assert_eq!(pages, ["d0d1", "d2d3", "d4"]);
            request.max_bytes = Some(1);
            assert_eq!(collection.list(&request).unwrap().documents.len(), 1);
            request.max_bytes = None;
            assert_eq!(collection.list(&request).unwrap().documents.len(), 4);
        }
    }
}
