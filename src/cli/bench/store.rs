//! Databases for measurements: rows as documents, a collection of vectors, how long it takes to open.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::{CliError, Context};
use super::rows::Source;
use crate::collection::{Collection, DefinitionRequest};
use crate::database::{Database, Options};
use crate::embed::Compute;
use crate::types::{CollectionName, DocumentId, Hit, Include, Metadata, NewDocument, Query, SearchRequest};

/// Documents of one upsert while a collection is built.
pub(super) const BUILD_BATCH: usize = 1_000;

/// A database with the one collection that is measured.
pub(super) struct Store {
    pub database: Database,
    pub collection: Collection,
}

impl Store {
    /// Opens the database in a directory and its collection, which is made if it is not there.
    ///
    /// # Errors
    /// [`CliError::Open`], [`CliError::Collection`].
    pub fn open(dir: &Path, definition: &DefinitionRequest, options: Options) -> Result<Self, CliError> {
        let database = Database::open_with(dir, uncached(options))?;
        let collection = database.create_collection(&collection_name()?, definition)?.collection;
        Ok(Self { database, collection })
    }

    /// Closes it; the directory's lock is free on return.
    pub fn close(self) {
        let Self { database, collection } = self;
        drop(collection);
        database.close();
    }
}

/// Times of opening a database that has been closed before, and of the first search after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenTimes {
    /// Opening, to where a search can be sent.
    pub open: Duration,
    /// The first search.
    pub first_search: Duration,
}

/// Opens a closed database, sends one search, and says how long each took.
///
/// # Errors
/// [`CliError::Open`], [`CliError::Collection`].
pub(super) fn reopen(dir: &Path, query: &[f32], options: Options) -> Result<(Store, OpenTimes), CliError> {
    let started = Instant::now();
    let database = Database::open_with(dir, uncached(options))?;
    let collection = database.collection(&collection_name()?)?;
    let open = started.elapsed();
    let started = Instant::now();
    collection.search(&bare_request(query, 10))?;
    let first_search = started.elapsed();
    Ok((Store { database, collection }, OpenTimes { open, first_search }))
}

fn collection_name() -> Result<CollectionName, CliError> {
    Ok(CollectionName::new("bench")?)
}

/// The model is measured, not its cache, whose file would also count among the directory's bytes.
fn uncached(options: Options) -> Options {
    Options { vector_cache_bytes: Some(0), ..options }
}

/// The settings of the command line, with the threads said otherwise.
pub(super) fn options(context: &Context, threads: Option<NonZeroUsize>) -> Options {
    let options = context.options();
    Options { compute: Compute { threads, ..options.compute }, ..options }
}

/// The id of a row.
///
/// # Errors
/// None in practice: digits are a valid id.
pub(super) fn id_of(row: usize) -> Result<DocumentId, CliError> {
    Ok(DocumentId::new(&row.to_string())?)
}

/// The rows and scores of hits whose ids [`id_of`] made.
///
/// # Errors
/// [`CliError::Refused`] for another id: the directory holds something else.
pub(super) fn rows_of(hits: &[Hit]) -> Result<Vec<(usize, f32)>, CliError> {
    let row = |hit: &Hit| match hit.id.as_str().parse() {
        Ok(row) => Ok((row, hit.score)),
        Err(_) => Err(CliError::Refused(format!("document {:?} was not written by this benchmark", hit.id.as_str()))),
    };
    hits.iter().map(row).collect()
}

/// A document of a vector alone.
///
/// # Errors
/// As [`id_of`].
pub(super) fn document(row: usize, vector: Vec<f32>) -> Result<NewDocument, CliError> {
    Ok(NewDocument { id: id_of(row)?, text: None, metadata: Metadata::new(), vector: Some(vector), chunks: Vec::new() })
}

/// A search whose hits carry ids and scores only.
pub(super) fn bare_request(query: &[f32], top_k: usize) -> SearchRequest {
    let include = Include { text: false, metadata: false, vector: false, chunk: false };
    SearchRequest { top_k, include, ..SearchRequest::new(Query::Vector(query.to_vec())) }
}

/// Upserts documents and says how long that took, with the engine's wait for room in memory.
///
/// # Errors
/// [`CliError::Collection`].
pub(super) fn upsert(collection: &Collection, documents: Vec<NewDocument>) -> Result<Duration, CliError> {
    let started = Instant::now();
    collection.upsert(documents)?;
    Ok(started.elapsed())
}

/// Writes the next `n` rows of a source, in batches, as documents 0 to `n - 1`. `progress` gets the rows of a batch.
///
/// # Errors
/// [`CliError::Collection`], and those of the source.
pub(super) fn fill(
    collection: &Collection,
    source: &mut Source,
    n: usize,
    mut progress: impl FnMut(usize),
) -> Result<Duration, CliError> {
    let mut spent = Duration::ZERO;
    for start in (0..n).step_by(BUILD_BATCH) {
        let rows = source.take(BUILD_BATCH.min(n - start))?;
        let count = rows.len();
        let documents =
            rows.into_iter().enumerate().map(|(i, row)| document(start + i, row)).collect::<Result<Vec<_>, _>>()?;
        spent += upsert(collection, documents)?;
        progress(count);
    }
    Ok(spent)
}
