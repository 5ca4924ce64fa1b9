//! One collection's keyword index: opening it or making it anew, and searching it by BM25.

use std::path::{Path, PathBuf};

use tantivy::collector::TopDocs;
use tantivy::columnar::StrColumn;
use tantivy::query::{BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::IndexRecordOption;
use tantivy::{
    DocAddress, Index, IndexReader, IndexSettings, ReloadPolicy, Searcher, SegmentReader, TantivyError, Term,
};

use super::analysis::{Words, analyzer};
use super::directory::CheckedDirectory;
use super::schema::{ANALYZER, Fields, ID, SEQ, schema};
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

/// A document that has at least one of the words.
#[derive(Clone, Debug, PartialEq)]
pub struct TextHit {
    /// The document.
    pub id: DocumentId,
    /// The change that wrote the version which was indexed. It may have been replaced or deleted since.
    pub seq: Seq,
    /// BM25 with k1 = 1.2 and b = 0.75 (Robertson & Zaragoza 2009): above 0, rises with relevance.
    pub score: f32,
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
            // What its files say is believed by tantivy, which panics where it cannot be.
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
        let applied = origin.applied(index.load_metas().map_err(|e| told(&e))?.payload.as_deref())?;
        let (schema, fields) = schema();
        if index.schema() != schema {
            return Err("it has other fields".to_owned());
        }
        let opened = Self::with(path, origin, index, fields).map_err(|e| told(&e))?;
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
        Ok(Self { path: path.to_owned(), origin, fields, index, reader })
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

    /// A search of the last commit, which later ones do not change.
    pub fn search(&self, words: &Words) -> Search {
        let term = |word: &String| {
            let term = Term::from_field_text(self.fields.words, word);
            let query: Box<dyn Query> = Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs));
            (Occur::Should, query)
        };
        let query = BooleanQuery::new(words.terms.iter().map(term).collect());
        Search { searcher: self.reader.searcher(), query, index: self.clone() }
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

/// A search of one moment of an index.
pub struct Search {
    searcher: Searcher,
    query: BooleanQuery,
    index: TextIndex,
}

impl Search {
    /// The hits from rank `from` on, `count` of them where there are as many: the highest score first.
    ///
    /// # Errors
    /// [`TextError::Index`].
    pub fn hits(&self, from: usize, count: usize) -> Result<Vec<TextHit>, TextError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let collector = TopDocs::with_limit(count).and_offset(from).order_by_score();
        let found = self.searcher.search(&self.query, &collector).map_err(|e| self.index.failed(e))?;
        self.read(&found).map_err(|e| self.index.failed(e))
    }

    fn read(&self, found: &[(f32, DocAddress)]) -> tantivy::Result<Vec<TextHit>> {
        let columns: Vec<Option<Columns>> = self
            .searcher
            .segment_readers()
            .iter()
            .enumerate()
            .map(|(ord, segment)| {
                let needed = found.iter().any(|(_, address)| address.segment_ord as usize == ord);
                needed.then(|| Columns::of(segment)).transpose()
            })
            .collect::<tantivy::Result<_>>()?;
        let read = |&(score, address): &(f32, DocAddress)| {
            let columns = columns.get(address.segment_ord as usize).and_then(Option::as_ref).ok_or_else(lost)?;
            let (id, seq) = columns.read(address.doc_id)?;
            Ok(TextHit { id, seq, score })
        };
        found.iter().map(read).collect()
    }
}

/// What a segment says of each of its documents.
struct Columns {
    ids: StrColumn,
    seqs: tantivy::columnar::Column<u64>,
}

impl Columns {
    fn of(segment: &SegmentReader) -> tantivy::Result<Self> {
        let columns = segment.fast_fields();
        Ok(Self { ids: columns.str(ID)?.ok_or_else(lost)?, seqs: columns.u64(SEQ)? })
    }

    fn read(&self, document: u32) -> tantivy::Result<(DocumentId, Seq)> {
        let mut id = String::new();
        let ord = self.ids.term_ords(document).next().ok_or_else(lost)?;
        if !self.ids.ord_to_str(ord, &mut id)? {
            return Err(lost());
        }
        let seq = self.seqs.first(document).ok_or_else(lost)?;
        Ok((DocumentId::new(&id).map_err(|_| lost())?, Seq(seq)))
    }
}

/// Every document is written with an id and a seq.
fn lost() -> TantivyError {
    TantivyError::InternalError("a document has lost its id or seq".to_owned())
}
