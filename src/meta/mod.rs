//! The document index in sled: where each sealed document stands, and which rows hold which metadata.
//!
//! It is a view, never the truth: sled does not fsync on flush and does not notice flipped bits, so everything here can
//! be made again from the segments, and is, whenever it cannot be trusted (see [`MetaIndex::open`]). It speaks only of
//! sealed documents; what is younger stands in the memtables, which readers ask first.

mod codec;
mod fields;
mod fingerprint;

use std::collections::BTreeSet;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::storage::{self, StorageError, start_thread};
use crate::types::{Chain, CollectionId, DocumentId, Ordinal, SegmentId, Seq, panic_message};

pub use fields::{RowBounds, SegmentFields};

use codec::{Key, Marker};
use fields::FieldState;

/// Rows put into sled in one atomic batch.
const BATCH_ROWS: usize = 4_096;
/// An index that has not opened by then is made again: sled reads a gigabyte in a few seconds.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// sled's own page cache.
const CACHE_BYTES: u64 = 32 << 20;

/// Why the document index could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// sled failed.
    #[error("the document index {} failed", path.display())]
    Sled {
        /// sled's directory.
        path: PathBuf,
        /// sled's own error.
        #[source]
        source: sled::Error,
    },
    /// sled panicked, as it does where its pages contradict each other.
    #[error("the document index {} failed: {reason}", path.display())]
    Panicked {
        /// sled's directory.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// An entry's checksum is wrong, or its bytes have no meaning.
    #[error("the document index {} holds a damaged entry; it is made again from the segments at the next start", path.display())]
    Damaged {
        /// sled's directory.
        path: PathBuf,
    },
    /// A row or id to take in could not be read.
    #[error("a row to be indexed could not be read")]
    Row(#[source] RowError),
    /// An earlier failure left the index incomplete.
    #[error("the document index {} is incomplete after an earlier failure ({cause}); it is made again at the next start", path.display())]
    Distrusted {
        /// sled's directory.
        path: PathBuf,
        /// The first failure.
        cause: String,
    },
    /// A file operation failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl MetaError {
    /// Whether the index itself is at fault: made again from the segments, it is sound.
    pub fn is_of_the_index(&self) -> bool {
        match self {
            Self::Sled { .. } | Self::Panicked { .. } | Self::Damaged { .. } | Self::Distrusted { .. } => true,
            Self::Row(_) | Self::Storage(_) => false,
        }
    }
}

/// Whether a full disk is at the root of an error, the index's own among them.
pub fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let is_full = |cause: &(dyn Error + 'static)| match cause.downcast_ref() {
        Some(sled::Error::Io(error)) => storage::is_disk_full(error),
        _ => false,
    };
    storage::is_disk_full(error) || std::iter::successors(Some(error), |&cause| cause.source()).any(is_full)
}

/// What stopped an iterator of rows.
pub type RowError = Box<dyn std::error::Error + Send + Sync>;

/// Where a sealed document stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The segment.
    pub segment: SegmentId,
    /// The row in it.
    pub ordinal: Ordinal,
    /// The change that wrote it.
    pub seq: Seq,
}

/// Which store, and which of its histories, an index belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The store's id.
    pub store_id: [u8; 16],
    /// The history, as restored snapshots start new ones.
    pub timeline: u32,
}

/// What opening found.
pub enum Opened {
    /// An index that can be trusted as far as its markers go.
    Usable(MetaIndex),
    /// An empty one, with the reason why there was none to trust: every segment is to be indexed.
    Fresh(MetaIndex, String),
}

/// What a sealed or merged segment changes in the index.
pub struct SegmentChange<'a> {
    /// The collection.
    pub collection: CollectionId,
    /// The new segment.
    pub segment: SegmentId,
    /// Its rows in ascending order of id.
    pub rows: &'a mut dyn Iterator<Item = Result<(DocumentId, Ordinal, Seq), RowError>>,
    /// Ids deleted, with the seq of the delete.
    pub tombstones: &'a [(DocumentId, Seq)],
}

/// Ids to locations, for every collection of a store.
pub struct MetaIndex {
    /// There until [`MetaIndex::close`].
    db: Option<sled::Db>,
    path: PathBuf,
    /// Why a change could not be taken in, or what damage was met: from then on the index answers nothing.
    distrusted: OnceLock<String>,
    /// Whether sled is to panic at whatever it is asked.
    #[cfg(test)]
    pub(crate) panics: AtomicBool,
    /// Held for a whole read-compare-write of a segment, so that a merge cannot put back what a seal replaced.
    writing: Mutex<()>,
    /// The field index.
    fields: FieldState,
}

impl MetaIndex {
    /// Opens the index at `path`, or starts an empty one.
    ///
    /// An index is trusted when it belongs to this store and timeline and was either closed cleanly with its bytes
    /// unchanged since, or left behind by a process that died while the operating system lived on: then what sled had
    /// written is all there. After a crash of the system it is made again.
    ///
    /// # Errors
    /// [`MetaError`] when not even an empty index can be made.
    pub fn open(path: &Path, identity: Identity) -> Result<Opened, MetaError> {
        Self::open_within(path, identity, OPEN_LIMIT)
    }

    fn open_within(path: &Path, identity: Identity, limit: Duration) -> Result<Opened, MetaError> {
        let reason = match fingerprint::check(path, identity) {
            Ok(()) => match Self::open_watched(path, limit)? {
                Ok(index) => return Ok(Opened::Usable(index)),
                Err(reason) => reason,
            },
            Err(reason) => reason,
        };
        Ok(Opened::Fresh(Self::open_empty(path, identity)?, reason))
    }

    /// Starts an empty index in the place of what stands at `path`.
    fn open_empty(path: &Path, identity: Identity) -> Result<Self, MetaError> {
        fingerprint::discard(path)?;
        let index = Self::open_sled(path, &fingerprint::sled_dir(path)?)?;
        fingerprint::write_open(path, identity)?;
        Ok(index)
    }

    /// Gives up what the index holds, and starts an empty one in its place: every segment is to be indexed.
    ///
    /// # Errors
    /// As [`MetaIndex::open`].
    pub fn make_again(mut self, identity: Identity) -> Result<Self, MetaError> {
        // Whoever calls says why.
        _ = self.distrusted.set("it is made again".to_owned());
        self.close(identity)?;
        Self::open_empty(&self.path, identity)
    }

    /// Opens files that may be damaged in a way that makes sled panic or wait for ever. A thread that waits is left
    /// behind, and nobody hears its answer; what it writes once it goes on is in a directory that nobody reads.
    ///
    /// # Errors
    /// [`MetaError::Storage`] when no thread can be started, which says nothing of the index; inside, why the index
    /// cannot be used.
    fn open_watched(path: &Path, limit: Duration) -> Result<Result<Self, String>, MetaError> {
        let (sender, answer) = sync_channel(1);
        let (opened_path, directory) = (path.to_owned(), fingerprint::sled_dir(path)?);
        let open = move || {
            // Nobody listens any more after the limit; the index is then dropped here.
            _ = sender.send(Self::open_sled(&opened_path, &directory));
        };
        let thread = start_thread("pannier-index-open", open);
        thread.map_err(|error| StorageError::io(path, "start a thread for", error))?;
        Ok(match answer.recv_timeout(limit) {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(RecvTimeoutError::Timeout) => Err(format!("{} did not open within {limit:?}", path.display())),
            Err(RecvTimeoutError::Disconnected) => Err(format!("opening {} panicked", path.display())),
        })
    }

    fn open_sled(path: &Path, directory: &Path) -> Result<Self, MetaError> {
        let config = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES);
        let db = config.open().map_err(|source| MetaError::Sled { path: path.to_owned(), source })?;
        let index = Self {
            db: Some(db),
            path: path.to_owned(),
            distrusted: OnceLock::new(),
            #[cfg(test)]
            panics: AtomicBool::new(false),
            writing: Mutex::new(()),
            fields: FieldState::default(),
        };
        index.load_markers()?;
        Ok(index)
    }

    /// Marks the index as in use: until [`MetaIndex::close`], its bytes may change.
    ///
    /// # Errors
    /// [`MetaError::Storage`] when the mark cannot be written.
    pub fn begin(&self, identity: Identity) -> Result<(), MetaError> {
        Ok(fingerprint::write_open(&self.path, identity)?)
    }

    /// Where a sealed document stands, if it is one.
    ///
    /// # Errors
    /// [`MetaError`] when sled fails or the entry is damaged.
    pub fn locate(&self, collection: CollectionId, id: &DocumentId) -> Result<Option<Location>, MetaError> {
        self.get(&Key::document(collection, id))
    }

    /// Up to `limit` sealed documents after `after`, by ascending id.
    ///
    /// # Errors
    /// [`MetaError`] when sled fails or an entry is damaged.
    pub fn page(
        &self,
        collection: CollectionId,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Location)>, MetaError> {
        let start = match after {
            Some(id) => Key::after(collection, id),
            None => Key::first(collection),
        };
        let mut page = Vec::new();
        for entry in self.entries(self.db().range(start..Key::end(collection))).take(limit) {
            let (key, value) = entry?;
            let id = Key::id(&key).ok_or_else(|| self.damaged())?;
            page.push((id, self.decode(&key, &value)?));
        }
        Ok(page)
    }

    /// The segments whose rows are in the index.
    ///
    /// # Errors
    /// [`MetaError`] when sled fails or a marker is damaged.
    pub fn indexed_segments(&self) -> Result<BTreeSet<(CollectionId, SegmentId)>, MetaError> {
        self.entries(self.db().scan_prefix(Marker::PREFIX))
            .map(|entry| Marker::decode(&entry?.0).ok_or_else(|| self.damaged()))
            .collect()
    }

    /// Takes a segment's rows and tombstones in: for each id the youngest seq wins, and of two rows of one seq the one
    /// in the younger segment. Doing it again changes nothing. The segment's marker is written last.
    ///
    /// # Errors
    /// [`MetaError`] when sled fails or an entry is damaged.
    pub fn index_segment(&self, change: SegmentChange<'_>) -> Result<(), MetaError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let SegmentChange { collection, segment, rows, tombstones } = change;
        let mut batch = sled::Batch::default();
        let mut batched = 0;
        for row in rows {
            let (id, ordinal, seq) = row.map_err(MetaError::Row)?;
            let key = Key::document(collection, &id);
            let location = Location { segment, ordinal, seq };
            if self.get(&key)?.is_some_and(|old| (old.seq, old.segment) > (seq, segment)) {
                continue;
            }
            batch.insert(key.as_slice(), codec::encode(&key, &location).as_slice());
            batched += 1;
            if batched == BATCH_ROWS {
                self.apply(std::mem::take(&mut batch))?;
                batched = 0;
            }
        }
        // A merged segment may hold a row and an older tombstone of one id: what follows must see the row.
        self.apply(std::mem::take(&mut batch))?;
        for (id, seq) in tombstones {
            let key = Key::document(collection, id);
            if self.get(&key)?.is_some_and(|old| old.seq < *seq) {
                batch.remove(key.as_slice());
            }
        }
        batch.insert(Marker::encode(collection, segment).as_slice(), &[]);
        self.apply(batch)
    }

    /// Forgets merged segments: their markers, and what still points at the rows that the merge left out.
    ///
    /// # Errors
    /// [`MetaError`] when sled fails or an entry is damaged.
    pub fn retire(
        &self,
        collection: CollectionId,
        segments: &[SegmentId],
        left_out: &[DocumentId],
    ) -> Result<(), MetaError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = sled::Batch::default();
        for id in left_out {
            let key = Key::document(collection, id);
            if self.get(&key)?.is_some_and(|old| segments.contains(&old.segment)) {
                batch.remove(key.as_slice());
            }
        }
        for &segment in segments {
            batch.remove(Marker::encode(collection, segment).as_slice());
        }
        self.apply(batch)
    }

    /// Forgets a collection.
    ///
    /// # Errors
    /// [`MetaError`] when sled fails.
    pub fn drop_collection(&self, collection: CollectionId) -> Result<(), MetaError> {
        self.drop_fields(collection)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let documents = self.entries(self.db().range(Key::first(collection)..Key::end(collection)));
        let markers = self.entries(self.db().scan_prefix(Marker::prefix(collection)));
        let mut batch = sled::Batch::default();
        for (count, entry) in documents.chain(markers).enumerate() {
            batch.remove(entry?.0);
            if count % BATCH_ROWS == BATCH_ROWS - 1 {
                self.apply(std::mem::take(&mut batch))?;
            }
        }
        self.apply(batch)
    }

    /// Answers nothing from now on, and is made again at the next start: a change could not be taken in, or damage was
    /// met. The first cause is logged and kept; every look-up after it would repeat it.
    pub fn distrust(&self, cause: String) {
        let mut cause = Some(cause);
        let first = self.distrusted.get_or_init(|| cause.take().unwrap_or_default());
        if cause.is_none() {
            let path = self.path.display();
            tracing::error!(
                %path,
                cause = first,
                "the document index failed; until it is made again, at the next start at the latest, documents are looked \
                 up in the segments, which is slower"
            );
        }
    }

    fn check_trusted(&self) -> Result<(), MetaError> {
        match self.distrusted.get() {
            Some(cause) => Err(MetaError::Distrusted { path: self.path.clone(), cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Flushes, closes, and leaves behind what [`MetaIndex::open`] checks the bytes against. Of an index that is not
    /// trusted nothing is left.
    ///
    /// # Errors
    /// [`MetaError`] when flushing fails; the index is then made again at the next start.
    pub fn close(&mut self, identity: Identity) -> Result<(), MetaError> {
        let Some(db) = self.db.take() else { return Ok(()) };
        let flushed = self.check_trusted().and_then(|()| self.call(|| db.flush()));
        // sled's threads write until the last handle is gone.
        let dropped = self.call(|| {
            drop(db);
            Ok(())
        });
        let Err(error) = flushed.and(dropped) else { return Ok(fingerprint::write_closed(&self.path, identity)?) };
        fingerprint::discard(&self.path)?;
        match error {
            MetaError::Distrusted { .. } => Ok(()),
            error => Err(error),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Location>, MetaError> {
        match self.ask(|db| db.get(key))? {
            Some(value) => self.decode(key, &value).map(Some),
            None => Ok(None),
        }
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<Location, MetaError> {
        codec::decode(key, value).ok_or_else(|| self.damaged())
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), MetaError> {
        self.ask(|db| db.apply_batch(batch))
    }

    /// Asks sled, unless it is trusted no more.
    fn ask<T>(&self, question: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, MetaError> {
        self.check_trusted()?;
        self.call(|| question(self.db()))
    }

    /// What sled gives one after the other.
    fn entries(&self, mut from: sled::Iter) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), MetaError>> + '_ {
        std::iter::from_fn(move || self.ask(|_| from.next().transpose()).transpose())
    }

    /// Calls sled. After a failure or a panic nothing that it says is trusted.
    fn call<T>(&self, act: impl FnOnce() -> sled::Result<T>) -> Result<T, MetaError> {
        let path = || self.path.clone();
        let guarded = || {
            #[cfg(test)]
            assert!(!self.panics.load(Ordering::Acquire), "a test wants sled to panic");
            act()
        };
        // sled is not asked again.
        let error = match catch_unwind(AssertUnwindSafe(guarded)) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(source)) => MetaError::Sled { path: path(), source },
            Err(panic) => MetaError::Panicked { path: path(), reason: panic_message(panic.as_ref()) },
        };
        self.distrust(Chain(&error).to_string());
        Err(error)
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("the index is used until it is closed")
    }

    /// An entry is damaged, and so may others be.
    fn damaged(&self) -> MetaError {
        let error = MetaError::Damaged { path: self.path.clone() };
        self.distrust(error.to_string());
        error
    }

    /// Puts in a marker that has no meaning, and makes it lasting.
    #[cfg(test)]
    pub(crate) fn spoil(&self) {
        self.db().insert(Marker::PREFIX, b"spoilt").unwrap();
        self.db().flush().unwrap();
    }
}

#[cfg(test)]
mod tests;
