//! One collection's keyword index: opening it or making it anew, and searching it by BM25.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{Index, IndexReader, IndexSettings, ReloadPolicy, TantivyError, Term};

use super::analysis::{Words, analyzer};
use super::directory::CheckedDirectory;
use super::schema::{ANALYZER, Fields, schema};
use super::search::{Columns, Search};
use super::{Origin, TextError, TextWriter};
use crate::storage;
use crate::types::{DocumentId, Seq, guarded};

/// A keyword index: cheap to clone, safe to share between threads.
#[derive(Clone)]
pub struct TextIndex {
    path: PathBuf,
    origin: Origin,
    fields: Fields,
    index: Index,
    reader: IndexReader,
    /// Rows that whoever wrote it could not read.
    unreadable: Arc<AtomicU64>,
}

/// What opening found.
pub struct Opened {
    /// The index.
    pub index: TextIndex,
    /// It holds every change up to here; 0 where it was made anew.
    pub applied: Seq,
    /// Why it was made anew; `None` where it was not, or where there was none before.
    pub reason: Option<String>,
}

impl TextIndex {
    /// Opens the index in a directory; makes it anew where there is none, where it is damaged, or where it belongs to
    /// something else.
    ///
    /// # Errors
    /// [`TextError`] when not even an empty one can be made.
    pub fn open(path: &Path, origin: Origin) -> Result<Opened, TextError> {
        let reason = match path.try_exists() {
            Ok(false) => None,
            // tantivy trusts what its files say, and panics on contradictions.
            _ => match guarded(|| Self::open_existing(path, origin)) {
                Ok((index, applied)) => return Ok(Opened { index, applied, reason: None }),
                Err(reason) => Some(reason),
            },
        };
        storage::remove_dir_all(path)?;
        Ok(Opened { index: Self::create(path, origin)?, applied: Seq(0), reason })
    }

    fn open_existing(path: &Path, origin: Origin) -> Result<(Self, Seq), String> {
        let told = |e: &dyn std::error::Error| e.to_string();
        let directory = CheckedDirectory::open(path).map_err(|e| told(&e))?;
        let index = Index::open(directory).map_err(|e| told(&e))?;
        let (applied, unreadable) = origin.read(index.load_metas().map_err(|e| told(&e))?.payload.as_deref())?;
        let (schema, fields) = schema();
        if index.schema() != schema {
            return Err("it has other fields".to_owned());
        }
        let opened = Self::with(path, origin, index, fields).map_err(|e| told(&e))?;
        opened.add_unreadable(unreadable);
        Ok((opened, applied))
    }

    fn create(path: &Path, origin: Origin) -> Result<Self, TextError> {
        storage::create_dir_all(path)?;
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| TextError::Index { path: path.to_owned(), source };
        let directory = CheckedDirectory::open(path).map_err(|e| failed(e.into()))?;
        let (schema, fields) = schema();
        let index = Index::create(directory, schema, IndexSettings::default()).map_err(|e| failed(e.into()))?;
        Self::with(path, origin, index, fields).map_err(|e| failed(e.into()))
    }

    /// Opens every file that a search reads, which compares each with its checksum.
    fn with(path: &Path, origin: Origin, index: Index, fields: Fields) -> Result<Self, TantivyError> {
        index.tokenizers().register(ANALYZER, analyzer(origin.language));
        let reader =
            index.reader_builder().reload_policy(ReloadPolicy::Manual).doc_store_cache_num_blocks(0).try_into()?;
        Ok(Self { path: path.to_owned(), origin, fields, index, reader, unreadable: Arc::default() })
    }

    /// The one writer that it can have at a time.
    ///
    /// # Errors
    /// [`TextError::Index`] when another one is alive.
    pub fn writer(&self) -> Result<TextWriter, TextError> {
        TextWriter::new(self)
    }

    /// Documents as of the last commit.
    pub fn documents(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// Rows that it should have read and that were damaged.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Counts rows that could not be read. The next commit keeps the sum.
    pub fn add_unreadable(&self, rows: u64) {
        self.unreadable.fetch_add(rows, Ordering::Relaxed);
    }

    /// A search of the last commit, which later ones do not change.
    pub fn search(&self, words: &Words) -> Search {
        let term = |word: &String| {
            let term = Term::from_field_text(self.fields.words, word);
            let query: Box<dyn Query> = Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs));
            (Occur::Should, query)
        };
        let query = BooleanQuery::new(words.terms.iter().map(term).collect());
        Search::new(self.reader.searcher(), query, self.fields, self.clone())
    }

    /// Visits every document as of the last commit.
    ///
    /// # Errors
    /// [`TextError::Index`], and what `visit` fails with.
    pub fn for_each<E: From<TextError>>(
        &self,
        mut visit: impl FnMut(DocumentId, Seq) -> Result<(), E>,
    ) -> Result<(), E> {
        for segment in self.reader.searcher().segment_readers() {
            let columns = Columns::of(segment).map_err(|e| self.failed(e))?;
            for document in segment.doc_ids_alive() {
                let (id, seq) = columns.read(document).map_err(|e| self.failed(e))?;
                visit(id, seq)?;
            }
        }
        Ok(())
    }

    pub(super) fn reload(&self) -> Result<(), TextError> {
        self.reader.reload().map_err(|e| self.failed(e))
    }

    pub(super) fn inner(&self) -> &Index {
        &self.index
    }

    pub(super) fn fields(&self) -> Fields {
        self.fields
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TextError {
        TextError::Index { path: self.path.clone(), source: source.into() }
    }
}
