//! Which rows of a segment no longer count: a bitmap that readers share with the one writer, and its file.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::error::{SegmentError, check_beginning, u32_at, u64_at};
use crate::storage::{StorageError, crc32c, publish, read_file};
use crate::types::{Ordinal, RowSet, SegmentId};

const MAGIC: [u8; 8] = *b"PANNDEAD";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
const CHECKSUM_BYTES: usize = 4;

/// A bit a row, set once its document was deleted or replaced, and never cleared.
///
/// Readers see a mark at the latest when they synchronise with the writer in some other way, such as by the answer to
/// a write.
#[derive(Debug)]
pub struct DeadRows {
    rows: u32,
    words: Box<[AtomicU64]>,
    count: AtomicU32,
}

impl DeadRows {
    /// For a segment of `rows` rows, all alive.
    pub fn new(rows: u32) -> Self {
        let words = (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { rows, words, count: AtomicU32::new(0) }
    }

    /// The marks as they are now; later ones are not in it.
    pub fn copied(&self) -> Self {
        let words: Vec<u64> = self.words.iter().map(|word| word.load(Ordering::Acquire)).collect();
        let count = words.iter().map(|word| word.count_ones()).sum();
        Self { rows: self.rows, words: words.into_iter().map(AtomicU64::new).collect(), count: AtomicU32::new(count) }
    }

    /// Marks a row as dead and returns whether it was alive.
    ///
    /// # Panics
    /// When the segment has no such row.
    pub fn mark(&self, ordinal: Ordinal) -> bool {
        assert!(ordinal < self.rows, "row {ordinal} of {}", self.rows);
        let bit = 1 << (ordinal % 64);
        let is_new = self.words[ordinal as usize / 64].fetch_or(bit, Ordering::Release) & bit == 0;
        if is_new {
            self.count.fetch_add(1, Ordering::Release);
        }
        is_new
    }

    /// Whether a row is dead.
    ///
    /// # Panics
    /// When the ordinal is far beyond the rows.
    #[inline]
    pub fn is_dead(&self, ordinal: Ordinal) -> bool {
        self.words[ordinal as usize / 64].load(Ordering::Acquire) & (1 << (ordinal % 64)) != 0
    }

    /// Takes the dead out of `rows`.
    pub fn take_out_of(&self, rows: &mut RowSet) {
        rows.take_out(self.words.iter().map(|word| word.load(Ordering::Acquire)));
    }

    /// Dead rows.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Publishes the marks as they are now at `path`, for segment `segment`.
    ///
    /// # Errors
    /// [`SegmentError::Storage`].
    pub fn write(&self, path: &Path, segment: SegmentId) -> Result<(), SegmentError> {
        Ok(publish(path, &self.encode(segment))?)
    }

    /// Reads the file at `path`, which belongs to segment `segment` of `rows` rows.
    ///
    /// # Errors
    /// [`SegmentError::Storage`] when it cannot be read or is missing; [`SegmentError::Mismatch`] when it belongs to
    /// another segment; the others when it is damaged or of another kind.
    pub fn read(path: &Path, segment: SegmentId, rows: u32) -> Result<Self, SegmentError> {
        let bytes =
            read_file(path)?.ok_or_else(|| StorageError::io(path, "read", std::io::ErrorKind::NotFound.into()))?;
        Self::decode(path, &bytes, segment, rows)
    }

    pub(super) fn encode(&self, segment: SegmentId) -> Vec<u8> {
        // The count is of these very words: a mark that comes meanwhile is in both or in neither.
        let words: Vec<u64> = self.words.iter().map(|word| word.load(Ordering::Acquire)).collect();
        let dead: u32 = words.iter().map(|word| word.count_ones()).sum();
        let len = HEADER_BYTES + 8 * words.len() + CHECKSUM_BYTES;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend((len as u64).to_le_bytes());
        bytes.extend(segment.0.to_le_bytes());
        bytes.extend(self.rows.to_le_bytes());
        bytes.extend(dead.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(path: &Path, bytes: &[u8], segment: SegmentId, rows: u32) -> Result<Self, SegmentError> {
        let damaged = |offset: usize, reason: &str| Err(SegmentError::damaged(path, offset as u64, reason));
        check_beginning(path, bytes, HEADER_BYTES + CHECKSUM_BYTES, &MAGIC, VERSION..=VERSION)?;
        let flags = u32_at(bytes, 12);
        if flags != 0 {
            return Err(SegmentError::UnsupportedFlags { path: path.to_owned(), found: flags, supported: 0 });
        }
        if u64_at(bytes, 16) != bytes.len() as u64 {
            return damaged(16, "the file has another length than its header says");
        }
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if u32_at(checksum, 0) != crc32c(content) {
            return damaged(0, "the checksum does not fit the content");
        }
        let (got_segment, got_rows) = (SegmentId(u64_at(bytes, 24)), u32_at(bytes, 32));
        let mismatch = |what, expected: String, got: String| {
            Err(SegmentError::Mismatch { path: path.to_owned(), what, expected, got })
        };
        if got_segment != segment {
            return mismatch("segment id", segment.to_string(), got_segment.to_string());
        }
        if got_rows != rows {
            return mismatch("rows", rows.to_string(), got_rows.to_string());
        }
        let bitmap = &content[HEADER_BYTES..];
        if bitmap.len() != 8 * rows.div_ceil(64) as usize || u64_at(bytes, 40) != 0 {
            return damaged(40, "the bitmap does not fit the rows, or the padding is not zero");
        }
        let words: Vec<u64> = (0..bitmap.len() / 8).map(|word| u64_at(bitmap, 8 * word)).collect();
        if !rows.is_multiple_of(64) && words.last().is_some_and(|last| last >> (rows % 64) != 0) {
            return damaged(HEADER_BYTES, "a row beyond the last is dead");
        }
        let dead = words.iter().map(|word| word.count_ones()).sum();
        if u32_at(bytes, 36) != dead {
            return damaged(36, "the header counts other dead rows than the bitmap");
        }
        let words = words.into_iter().map(AtomicU64::new).collect();
        Ok(Self { rows, words, count: AtomicU32::new(dead) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> DeadRows {
        let dead = DeadRows::new(70);
        assert!(dead.mark(3) && dead.mark(69) && !dead.mark(3));
        dead
    }

    fn decode(bytes: &[u8]) -> Result<DeadRows, SegmentError> {
        DeadRows::decode(Path::new("a"), bytes, SegmentId(5), 70)
    }

    #[test]
    fn files_have_these_bytes() {
        let mut expected =
            b"PANNDEAD\x01\0\0\0\0\0\0\0\x44\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x46\0\0\0\x02\0\0\0".to_vec();
        expected.extend([0; 8]);
        expected.extend(8u64.to_le_bytes());
        expected.extend(32u64.to_le_bytes());
        let checksum = crc32c(&expected);
        expected.extend(checksum.to_le_bytes());
        assert_eq!(sample().encode(SegmentId(5)), expected);
    }

    #[test]
    fn round_trips_through_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("5.1.dead");
        sample().write(&path, SegmentId(5)).unwrap();
        let back = DeadRows::read(&path, SegmentId(5), 70).unwrap();
        assert_eq!(back.count(), 2);
        assert_eq!((0..70).filter(|&row| back.is_dead(row)).collect::<Vec<_>>(), [3, 69]);
        assert!(matches!(DeadRows::read(&path, SegmentId(6), 70), Err(SegmentError::Mismatch { .. })));
        assert!(matches!(DeadRows::read(&path, SegmentId(5), 71), Err(SegmentError::Mismatch { .. })));
        let missing = dir.path().join("5.2.dead");
        assert!(matches!(DeadRows::read(&missing, SegmentId(5), 70), Err(SegmentError::Storage(_))));
    }

    #[test]
    fn every_truncation_and_bit_flip_is_an_error() {
        let bytes = sample().encode(SegmentId(5));
        assert!(decode(&bytes).is_ok());
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn contradictions_under_a_right_checksum_are_errors() {
        for (at, to) in [(36, 3), (40, 1), (63, 0x80), (48, 0), (32, 71)] {
            let mut bytes = sample().encode(SegmentId(5));
            bytes[at] = to;
            let len = bytes.len();
            let checksum = crc32c(&bytes[..len - 4]);
            bytes[len - 4..].copy_from_slice(&checksum.to_le_bytes());
            assert!(decode(&bytes).is_err(), "{at}");
        }
    }

    #[test]
    fn a_segment_without_rows_has_no_dead_ones() {
        let bytes = DeadRows::new(0).encode(SegmentId(1));
        assert_eq!(bytes.len(), 52);
        assert_eq!(DeadRows::decode(Path::new("a"), &bytes, SegmentId(1), 0).unwrap().count(), 0);
    }
}
