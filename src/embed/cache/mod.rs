//! The cache of vectors: texts that this model has embedded before, kept in one bounded file.
//!
//! It is derived data. Whatever cannot be read, or does not have its checksum, is a text that is embedded again; the
//! file may be removed at any time. It is never synced. docs/formats/cache.md has its bytes.

mod fill;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use crate::storage::{RandomAccessFile, StorageError, create_dir_all, remove_file};
pub(super) use fill::embed_through;
use format::{Header, PART_NUMBERS, RECORD_BYTES, Record};
use table::Table;

/// Size of a new file where none is given: room for 166,000 vectors of 384 numbers.
const DEFAULT_BYTES: u64 = 256 << 20;
/// Tags that are read at once.
const TAGS_AT_ONCE: usize = 1 << 17;

/// Digest of a model's fingerprint and of a text exactly as it is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// The key of `prefix` followed by `text`, as the model of this fingerprint reads them.
    pub(super) fn new(fingerprint: &str, prefix: &str, text: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [fingerprint, prefix] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(text);
        Self(hash.finalize().into())
    }
}

/// What is known of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    /// Its vector, as the model gave it.
    pub vector: Vec<f32>,
    /// Tokens read of it.
    pub tokens: usize,
    /// Whether it was longer than the model reads.
    pub truncated: bool,
}

/// A file of vectors by key. Threads share it.
#[derive(Debug)]
pub(super) struct VectorCache {
    path: PathBuf,
    /// `None`: that of the file that is there.
    max_bytes: Option<u64>,
    /// Opened by the first text. `None` where that failed.
    opened: OnceLock<Option<Opened>>,
    /// Set when a write failed: a full disk is not asked again and again.
    is_failing: AtomicBool,
}

#[derive(Debug)]
struct Opened {
    file: RandomAccessFile,
    header: Header,
    /// Held for look-ups in memory only, never while the file is read or written.
    table: RwLock<Table>,
}

impl VectorCache {
    /// A cache in the file `path` of at most `max_bytes`, and at most 1 TiB. Touches nothing yet. With `None` a file
    /// that is there keeps its size, and a new one has 256 MiB.
    ///
    /// Returns `None` where that is too little for any vector. What an earlier process has left there is then removed.
    pub(super) fn new(path: PathBuf, max_bytes: Option<u64>) -> Option<Self> {
        if max_bytes.is_some_and(|max_bytes| Header::of_size(max_bytes).is_none()) {
            if let Err(error) = remove_file(&path) {
                tracing::warn!(%error, "the vector cache was turned off and could not be removed");
            }
            return None;
        }
        Some(Self { path, max_bytes, opened: OnceLock::new(), is_failing: AtomicBool::new(false) })
    }

    /// The vector of a text, if it is here whole and has `dim` numbers.
    pub(super) fn get(&self, key: &Key, dim: usize) -> Option<Known> {
        let opened = self.opened()?;
        let mut known = Known { vector: Vec::with_capacity(dim), tokens: 0, truncated: false };
        for part in 0..parts(dim) {
            let record = opened.read(key, part, dim)?;
            let count = (dim - known.vector.len()).min(PART_NUMBERS);
            known.vector.extend_from_slice(&record.numbers[..count]);
            (known.tokens, known.truncated) = (record.tokens as usize, record.truncated);
        }
        Some(known)
    }

    /// Keeps the vector of a text, in place of an older one where there is no room.
    pub(super) fn put(&self, key: &Key, known: &Known) {
        let Some(opened) = self.opened() else { return };
        if self.is_failing.load(Ordering::Relaxed) {
            return;
        }
        let written = (0..parts(known.vector.len())).try_for_each(|part| opened.write(key, part, known));
        if let Err(error) = written
            && !self.is_failing.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "vectors are no longer cached until the next start");
        }
    }

    fn opened(&self) -> Option<&Opened> {
        let open = || match Opened::open(&self.path, self.max_bytes) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%error, "vectors are not cached");
                None
            }
        };
        self.opened.get_or_init(open).as_ref()
    }
}

/// Reads the tags of all slots, part by part; what the file lacks is empty.
fn read_tags(file: &RandomAccessFile, header: Header, table: &mut Table) -> Result<(), StorageError> {
    let mut bytes = vec![0; 8 * header.slots.min(TAGS_AT_ONCE)];
    for first in (0..header.slots).step_by(TAGS_AT_ONCE) {
        let read = file.read_at(header.tag_offset(first), &mut bytes)?;
        table.decode(first, &bytes[..read]);
    }
    Ok(())
}

/// Records that a vector takes.
fn parts(dim: usize) -> u16 {
    dim.div_ceil(PART_NUMBERS) as u16
}

impl Opened {
    /// Opens the file, or makes it anew where it is not one of this version, and of this size where one is given.
    /// `None` where memory lacks room for its tags.
    fn open(path: &std::path::Path, max_bytes: Option<u64>) -> Result<Option<Self>, StorageError> {
        if let Some(parent) = path.parent() {
            create_dir_all(parent)?;
        }
        let file = RandomAccessFile::open(path)?;
        let mut bytes = [0; format::HEADER_BYTES];
        let read = file.read_at(0, &mut bytes)?;
        let found = Header::decode(&bytes[..read]);
        let asked = max_bytes.and_then(Header::of_size);
        let Some(header) = asked.or(found).or_else(|| Header::of_size(DEFAULT_BYTES)) else { return Ok(None) };
        let Some(mut table) = Table::new(header.slots) else {
            tracing::warn!(slots = header.slots, "vectors are not cached: there is no memory for the cache's tags");
            return Ok(None);
        };
        if found == Some(header) {
            read_tags(&file, header, &mut table)?;
        } else {
            if found.is_some() {
                tracing::info!(path = %path.display(), "the vector cache is begun anew: its size was changed");
            }
            file.clear()?;
            file.write_at(0, &header.encode())?;
        }
        Ok(Some(Self { file, header, table: RwLock::new(table) }))
    }

    fn read(&self, key: &Key, part: u16, dim: usize) -> Option<Record> {
        let places = self.table.read().unwrap_or_else(PoisonError::into_inner).find(key, part);
        places.into_iter().find_map(|slot| {
            let mut bytes = [0; RECORD_BYTES];
            // A record that is being replaced meanwhile reads as damaged, or as another key's.
            let read = self.file.read_at(self.header.record_offset(slot), &mut bytes).ok()?;
            let record = Record::decode(&bytes[..read])?;
            (record.key == *key && record.part == part && record.dim as usize == dim).then_some(record)
        })
    }

    fn write(&self, key: &Key, part: u16, known: &Known) -> Result<(), StorageError> {
        let (slot, tag) = self.table.write().unwrap_or_else(PoisonError::into_inner).claim(key, part);
        let from = usize::from(part) * PART_NUMBERS;
        let to = known.vector.len().min(from + PART_NUMBERS);
        let bytes = Record::encode(key, part, known, &known.vector[from..to]);
        self.file.write_at(self.header.record_offset(slot), &bytes)?;
        self.file.write_at(self.header.tag_offset(slot), &tag.to_le_bytes())
    }
}
