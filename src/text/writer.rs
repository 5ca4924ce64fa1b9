//! Writing to a keyword index: one thread of its own, bounded memory, nothing visible before a commit.

use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{IndexWriter, TantivyDocument, Term};

use super::index::TextIndex;
use super::schema::Fields;
use super::{Origin, TextError};
use crate::types::{DocumentId, Seq};

/// Words collected in memory before they are written to a file.
const MEMORY_BYTES: usize = 24 << 20;
/// A file of which more than this share is replaced or deleted is written anew without that.
const MAX_DELETED_SHARE: f32 = 0.3;

/// The one writer of an index. Dropped without [`TextWriter::commit`], what it was told since the last is forgotten.
pub struct TextWriter {
    writer: IndexWriter,
    fields: Fields,
    origin: Origin,
    index: TextIndex,
}

impl TextWriter {
    pub(super) fn new(index: &TextIndex) -> Result<Self, TextError> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(MEMORY_BYTES)
            .build();
        let writer = index.inner().writer_with_options(options).map_err(|e| index.failed(e))?;
        let mut merges = LogMergePolicy::default();
        merges.set_del_docs_ratio_before_merge(MAX_DELETED_SHARE);
        writer.set_merge_policy(Box::new(merges));
        Ok(Self { writer, fields: index.fields(), origin: index.origin(), index: index.clone() })
    }

    /// Puts a document in the place of whatever stands under its id.
    ///
    /// # Errors
    /// [`TextError::Index`]; the writer is of no more use then.
    pub fn upsert(&mut self, id: &DocumentId, seq: Seq, text: &str) -> Result<(), TextError> {
        self.delete(id);
        self.insert(id, seq, text)
    }

    /// Puts a document where nothing stands under its id.
    ///
    /// # Errors
    /// As [`TextWriter::upsert`].
    pub fn insert(&mut self, id: &DocumentId, seq: Seq, text: &str) -> Result<(), TextError> {
        let mut document = TantivyDocument::default();
        document.add_text(self.fields.id, id.as_str());
        document.add_u64(self.fields.seq, seq.0);
        document.add_text(self.fields.words, text);
        self.writer.add_document(document).map(drop).map_err(|e| self.index.failed(e))
    }

    /// Takes a document out.
    pub fn delete(&mut self, id: &DocumentId) {
        self.writer.delete_term(Term::from_field_text(self.fields.id, id.as_str()));
    }

    /// Makes everything visible to searches, as the state after the change `applied`.
    ///
    /// # Errors
    /// [`TextError::Index`]; the writer is of no more use then.
    pub fn commit(&mut self, applied: Seq) -> Result<(), TextError> {
        let failed = |e| self.index.failed(e);
        let mut prepared = self.writer.prepare_commit().map_err(failed)?;
        prepared.set_payload(&self.origin.payload(applied, self.index.unreadable()));
        prepared.commit().map_err(failed)?;
        self.index.reload()
    }

    /// Ends the writer once the merges that it began are done.
    ///
    /// # Errors
    /// [`TextError::Index`]; what was committed stays.
    pub fn close(self) -> Result<(), TextError> {
        let Self { writer, index, .. } = self;
        writer.wait_merging_threads().map_err(|e| index.failed(e))?;
        index.reload()
    }
}
