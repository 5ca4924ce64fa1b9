//! Salvage: what can still be read of a damaged store, written to a new one, with every loss named.
//!
//! The damaged directory is only read. Of several versions of a document the youngest readable one is taken, and only
//! where no readable list of dead rows, tombstone or delete says that it is gone.

mod collect;
mod error;
mod segments;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::collection::{Collection, CollectionError};
use crate::database::Database;
use crate::log::{LogError, LoggedDocument};
use crate::manifest::is_snapshot;
use crate::storage::{DataPaths, DirectoryLock, StorageError, create_dir_all, list_entries, remove_dir_all, rename};
use crate::types::{CollectionId, CollectionName, DocumentId, metadata_bytes};

pub use error::SalvageError;

use collect::{Finding, Source, Wreck};

/// Most documents written in one change,
const BATCH: usize = 256;
/// and most bytes of them, about: a record of the log holds 64 MiB. A document alone may have more.
const BATCH_BYTES: usize = 8 << 20;

/// What was rescued and what was lost.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Collections with the documents rescued of each, by name.
    pub collections: BTreeMap<String, u64>,
    /// What could not be read, a sentence each, with what it may mean.
    pub losses: Vec<String>,
    /// What stands in the damaged directory and the new store does not take over, a sentence each, with what to do.
    pub left_behind: Vec<String>,
}

impl Report {
    /// Documents rescued.
    pub fn documents(&self) -> u64 {
        self.collections.values().sum()
    }
}

/// Rescues what can be read of the store in `from` into a new store in `to`, which must be empty or missing; until it
/// is whole, it stands beside it under a name that ends with `.unfinished`. `progress` gets the documents written and
/// their number.
///
/// # Errors
/// [`SalvageError`] when `from` is in use or holds no part of a store, `to` is not empty, cannot be replaced or lies in
/// `from`, what stands under the other name is in use, no store, or `from`, or the new store cannot be written. What is
/// damaged is no error: it stands in the report.
pub fn salvage(from: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Report, SalvageError> {
    let paths = DataPaths::new(from);
    check_source(&paths)?;
    let Places { to, staged } = Places::check(from, to)?;
    // Now rather than after hours of reading.
    drop(take_unfinished(&staged)?);
    let _lock = match is_snapshot(&paths) {
        // Nobody opens a snapshot, and the lock's file would be no part of it.
        true => None,
        false => match DirectoryLock::acquire_with_directory(paths.lock()) {
            Ok(lock) => Some(lock),
            Err(error @ StorageError::Locked { .. }) => return Err(error.into()),
            // A disk that takes no writes any more can still be read.
            Err(_) => None,
        },
    };
    if to.exists() {
        // Now rather than after hours of reading: a volume that is mounted there can be neither removed nor replaced.
        let again = remove_dir_all(&to).and_then(|()| create_dir_all(&to));
        again.map_err(|source| SalvageError::InTheWay { path: to.clone(), source })?;
    }
    let wreck = collect::collect(&paths)?;
    let losses = wreck.losses.clone();
    let mut report = Report { collections: BTreeMap::new(), losses, left_behind: left_behind(&paths) };
    let unfinished = take_unfinished(&staged)?;
    remove_dir_all(&staged)?;
    drop(unfinished);
    let database = Database::open(&staged)?;
    refill(&database, &wreck, &mut report, progress)?;
    database.close();
    if to.exists() {
        remove_dir_all(&to)?;
    }
    rename(&staged, &to)?;
    Ok(report)
}

/// Refuses a directory that holds no part of a store.
fn check_source(paths: &DataPaths) -> Result<(), SalvageError> {
    let from = paths.root();
    if !from.is_dir() {
        return Err(SalvageError::NoDirectory { path: from.to_owned() });
    }
    if paths.restore_marker().exists() {
        return Err(SalvageError::HalfRestored { path: from.to_owned() });
    }
    let parts = [paths.manifest(), paths.log_dir(), paths.segments_dir()];
    match parts.iter().any(|part| part.exists()) {
        true => Ok(()),
        false => Err(SalvageError::NotAStore { path: from.to_owned() }),
    }
}

/// Where the new store is made.
struct Places {
    /// Where it stands in the end.
    to: PathBuf,
    /// Where it stands until it is whole: one that was ended half way must not look like a sound store.
    staged: PathBuf,
}

impl Places {
    /// Refuses places that are in use, or within each other.
    fn check(from: &Path, to: &Path) -> Result<Self, SalvageError> {
        if is_inside(to, from) {
            return Err(SalvageError::Inside { path: to.to_owned() });
        }
        // A relative path may have no name of its own, as "." has none, and a link stays one.
        let to = to.canonicalize().or_else(|_| std::path::absolute(to)).unwrap_or_else(|_| to.to_owned());
        if to.exists() && !is_empty(&to) {
            return Err(SalvageError::NotEmpty { path: to });
        }
        let staged = unfinished(&to);
        if is_inside(&staged, from) || is_inside(from, &staged) {
            return Err(SalvageError::Replaced { path: staged });
        }
        Ok(Self { to, staged })
    }
}

/// Writes what was found into a new store.
fn refill(
    database: &Database,
    wreck: &Wreck,
    report: &mut Report,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), SalvageError> {
    let total = wreck.documents();
    let mut done = 0;
    for (id, finding) in &wreck.collections {
        let name = free_name(report, finding, *id);
        if name != finding.name {
            let (had, has) = (&finding.name, &name);
            report.losses.push(format!("the name of a second collection {had} is taken: its documents are in {has}"));
        }
        let collection = database.create_as(&name, finding.definition.clone(), finding.created_at_ms)?;
        let mut batch = Batch::default();
        let mut written = 0;
        for (document_id, version) in &finding.documents {
            let Some(source) = &version.source else { continue };
            match read(wreck, finding, document_id, source) {
                Ok(document) => {
                    if batch.is_full_with(&document) {
                        written += std::mem::take(&mut batch).write(&collection, report)?;
                    }
                    batch.add(document);
                }
                Err(reason) => report.losses.push(format!(
                    "document {:?} of {} is lost: {reason}",
                    document_id.as_str(),
                    finding.name
                )),
            }
            done += 1;
            progress(done, total);
        }
        written += batch.write(&collection, report)?;
        collection.flush()?;
        tracing::debug!(collection = %id, written, "a collection was salvaged");
        report.collections.insert(name.to_string(), written);
    }
    Ok(())
}

/// Documents that wait to be written together.
#[derive(Default)]
struct Batch {
    documents: Vec<LoggedDocument>,
    bytes: usize,
}

impl Batch {
    /// Whether it is to be written before `next` is added.
    fn is_full_with(&self, next: &LoggedDocument) -> bool {
        !self.documents.is_empty() && (self.documents.len() == BATCH || self.bytes + bytes_of(next) > BATCH_BYTES)
    }

    fn add(&mut self, document: LoggedDocument) {
        self.bytes += bytes_of(&document);
        self.documents.push(document);
    }

    /// Returns how many documents were written: all, but for one that is too large by itself, which is lost.
    fn write(self, collection: &Collection, report: &mut Report) -> Result<u64, SalvageError> {
        let Some(first) = self.documents.first().map(|first| first.document.id.clone()) else { return Ok(0) };
        let count = self.documents.len() as u64;
        match collection.take_in(self.documents) {
            Ok(()) => Ok(count),
            Err(CollectionError::Log(error @ LogError::TooLarge { .. })) if count == 1 => {
                let (id, name) = (first.as_str(), collection.name());
                report.losses.push(format!("document {id:?} of {name} is lost: {error}"));
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// About what a document takes in the log.
fn bytes_of(logged: &LoggedDocument) -> usize {
    let LoggedDocument { document, vector, chunks } = logged;
    let text = document.text.as_ref().map_or(0, String::len);
    text + metadata_bytes(&document.metadata) + size_of_val(&vector[..]) + size_of_val(&chunks[..])
}

/// The collection's name, or one made of its number where another has that: a drop that cannot be read leaves both.
fn free_name(report: &Report, finding: &Finding, id: CollectionId) -> CollectionName {
    let is_free = |name: &CollectionName| !report.collections.contains_key(name.as_str());
    let numbered = (0..).filter_map(|more: u32| {
        let suffix = if more == 0 { String::new() } else { format!("-{more}") };
        CollectionName::new(&format!("salvaged-{}{suffix}", id.0)).ok()
    });
    std::iter::once(finding.name.clone()).chain(numbered).find(is_free).unwrap_or_else(|| finding.name.clone())
}

/// Beside `to`: where the new store stands until it is whole.
fn unfinished(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    to.with_file_name(name)
}

/// What a data directory holds beside its store: it says of the old store, by its id, what the new one is not.
fn left_behind(paths: &DataPaths) -> Vec<String> {
    const FILES: [(&str, &str); 3] = [
        (
            "replication.json",
            "keeps copies in Postgres; the new store has none, add them again: `pannier replicate add`",
        ),
        ("backends.json", "names collections that stand in Postgres; create them again with the same definitions"),
        ("sources", "says how far sources were read; the next imports read them from the beginning"),
    ];
    let files = FILES.iter().map(|(name, what)| (paths.root().join(name), what));
    let there = files.filter(|(path, _)| path.exists());
    there.map(|(path, what)| format!("{} {what}", path.display())).collect()
}

/// Whether a directory can be read and holds nothing.
fn is_empty(directory: &Path) -> bool {
    directory.read_dir().is_ok_and(|mut entries| entries.next().is_none())
}

/// Makes sure that what stands at `staged` may be removed: a store that an ended salvage left, and that nobody has open
/// for as long as the lock is held. `None` where there is nothing.
///
/// # Errors
/// [`SalvageError::NotEmpty`], [`SalvageError::Storage`].
fn take_unfinished(staged: &Path) -> Result<Option<DirectoryLock>, SalvageError> {
    if !staged.exists() {
        return Ok(None);
    }
    let paths = DataPaths::new(staged);
    let is_foreign = list_entries(staged)?.iter().any(|entry| *entry != paths.lock());
    if is_foreign && !paths.format().exists() {
        return Err(SalvageError::NotEmpty { path: staged.to_owned() });
    }
    Ok(Some(DirectoryLock::acquire_with_directory(paths.lock())?))
}

/// Whether a path, which need not exist, lies in a directory or is that directory.
fn is_inside(path: &Path, directory: &Path) -> bool {
    let (Ok(path), Ok(directory)) = (std::path::absolute(path), directory.canonicalize()) else { return false };
    let existing = path.ancestors().find_map(|above| above.canonicalize().ok());
    existing.is_some_and(|real| real.starts_with(&directory))
}

/// The document with its vector, from where its youngest readable version stands.
fn read(wreck: &Wreck, finding: &Finding, id: &DocumentId, source: &Source) -> Result<LoggedDocument, String> {
    let logged = match source {
        Source::Log(document) => LoggedDocument::clone(document),
        Source::Row { segment, ordinal } => {
            let segment = &wreck.segments[*segment];
            let document = segment.document(*ordinal).map_err(|e| e.to_string())?;
            let vector = segment.vectors(*ordinal).map_err(|e| e.to_string())?.to_vec();
            let chunks = segment.chunks(*ordinal).map_err(|e| e.to_string())?;
            LoggedDocument { document, vector, chunks }
        }
    };
    let expected = finding.definition.dim as usize * logged.chunks.len().max(1);
    let got = logged.vector.len();
    match logged.document.id == *id && got == expected {
        true => Ok(logged),
        false => {
            Err(format!("it has {got} numbers under the id {:?}, expected {expected}", logged.document.id.as_str()))
        }
    }
}
