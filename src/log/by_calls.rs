//! A file of the log that is read record by record, by calls: what the disk does not give back is an error then, where
//! reading a map of it ends the process (SIGBUS).

use std::path::{Path, PathBuf};

use super::LogError;
use super::format::{FILE_HEADER_BYTES, MAX_PAYLOAD_BYTES, RECORD_HEADER_BYTES, RecordHeader};
use super::survey::record_at;
use crate::storage::{ReadOnlyFile, StorageError};

/// Bytes read at once where the file has so many.
const CALL_BYTES: usize = 256 << 10;

/// An open file, as long as it was when it was opened, and a part of it in memory.
pub(super) struct ByCalls {
    path: PathBuf,
    file: ReadOnlyFile,
    len: usize,
    /// Where the part begins.
    start: usize,
    part: Vec<u8>,
}

impl ByCalls {
    /// Opens the file `path`, of which nothing is read yet.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let file = ReadOnlyFile::open(path)?;
        let len = file.len_bytes()? as usize;
        Ok(Self { path: path.to_owned(), file, len, start: 0, part: Vec::new() })
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The file's header, or what there is of it.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when it cannot be read.
    pub(super) fn header(&mut self) -> Result<&[u8], LogError> {
        let len = self.len.min(FILE_HEADER_BYTES);
        self.load(0, len)?;
        Ok(&self.part)
    }

    /// The record at `offset` of the file with the tag `tag`, with all its bytes, or what is wrong with them.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when they cannot be read.
    pub(super) fn record(
        &mut self,
        offset: usize,
        tag: u32,
    ) -> Result<Result<(RecordHeader, &[u8]), &'static str>, LogError> {
        let header = RecordHeader::decode(self.bytes(offset, RECORD_HEADER_BYTES)?, tag);
        let wanted = header.filter(|header| header.payload_len as usize <= MAX_PAYLOAD_BYTES);
        let bytes = self.bytes(offset, wanted.map_or(RECORD_HEADER_BYTES, |header| header.record_bytes()))?;
        Ok(record_at(bytes, 0, tag).map(|(header, _)| (header, &bytes[..header.record_bytes()])))
    }

    /// The bytes from `offset` on: `wanted` of them or more, or all that the file has.
    fn bytes(&mut self, offset: usize, wanted: usize) -> Result<&[u8], LogError> {
        let end = self.len.min(offset + wanted);
        if offset < self.start || end > self.start + self.part.len() {
            let ahead = self.len.min(offset + wanted.max(CALL_BYTES));
            // What stands behind the wanted bytes must not keep them from being read.
            if self.load(offset, ahead).is_err() {
                self.load(offset, end)?;
            }
        }
        Ok(&self.part[offset - self.start..])
    }

    fn load(&mut self, offset: usize, end: usize) -> Result<(), LogError> {
        self.start = offset;
        self.part.resize(end - offset, 0);
        self.file.read_exact_at(offset as u64, &mut self.part).map_err(|_| {
            self.part.clear();
            let (path, range) = (self.path.clone(), offset as u64..end as u64);
            let reason = "the disk does not give it back";
            LogError::Damaged { path, offset: range.start, reason, ranges: vec![range] }
        })
    }
}
