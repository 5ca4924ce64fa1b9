//! What can go wrong with the log.

use std::ops::Range;
use std::path::PathBuf;

use crate::storage::StorageError;
use crate::types::Seq;

/// Why the log could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A change is larger than a record can be; the caller can split it.
    #[error("the change takes {got} bytes in the log, at most {max} are allowed; send fewer documents at once")]
    TooLarge {
        /// Bytes of the payload.
        got: usize,
        /// Most bytes allowed.
        max: usize,
    },
    /// Too much is waiting for the disk; the caller can try again.
    #[error("{records} changes of {bytes} bytes are waiting for the log")]
    QueueFull {
        /// Changes that wait.
        records: usize,
        /// Their bytes in the log.
        bytes: usize,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The disk refused the change, or the group that it was in: it is not in the log. The caller can try again, when
    /// there is room again.
    #[error("the change was not written: {reason}")]
    NotWritten {
        /// What failed, with its causes.
        reason: String,
        /// Whether the disk is full.
        disk_full: bool,
    },
    /// A sync failed, or a write that could not be undone: whether the change is in the log is not known, and nothing
    /// more is accepted.
    #[error("the log stopped: {reason}")]
    Failed {
        /// What failed, with its causes.
        reason: String,
    },
    /// A value could not be encoded.
    #[error("a change cannot be encoded: {reason}")]
    Encode {
        /// The encoder's words.
        reason: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),

    /// A file's header is not that of a log file.
    #[error("{path} is damaged: {reason}", path = path.display())]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        reason: String,
    },
    /// A file was written by a newer program.
    #[error("{path} has {what} {found}, this program supports {supported}; use a newer program", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What has another version: "format version", "payload version".
        what: &'static str,
        /// As found.
        found: u32,
        /// As supported.
        supported: u32,
    },
    /// A file belongs to another store or timeline.
    #[error("{path} belongs to {what} {found}, this store has {expected}; was it copied here?", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// "store" or "timeline".
        what: &'static str,
        /// As found.
        found: String,
        /// As this store has it.
        expected: String,
    },
    /// A file does not follow the one before it.
    #[error(
        "{path} follows a file of {expected_len} bytes with checksum {expected_crc:08x}, but {previous} has {got_len} \
         bytes and checksum {got_crc:08x}; a file between them is missing or one of them was changed",
        path = path.display(),
        previous = previous.display()
    )]
    BrokenChain {
        /// The later file.
        path: PathBuf,
        /// The file that stands before it.
        previous: PathBuf,
        /// Length of the earlier one, as the later one names it.
        expected_len: u64,
        /// Its checksum, as the later one names it.
        expected_crc: u32,
        /// Its length as it is.
        got_len: u64,
        /// Its checksum as it is.
        got_crc: u32,
    },
    /// Changes are missing.
    #[error("{path} is missing: it should hold the change {seq}", path = path.display())]
    Missing {
        /// The first seq that is missing.
        seq: Seq,
        /// The file that would begin with it.
        path: PathBuf,
    },
    /// The log ends before a change that other files have seen.
    #[error("{path} ends at change {last_seq}, but the store has seen change {seen}", path = path.display())]
    CutShort {
        /// The newest file.
        path: PathBuf,
        /// Its last seq.
        last_seq: Seq,
        /// What other files have seen.
        seen: Seq,
    },
    /// Bytes that were durable are not what was written.
    #[error("{path} is damaged at offset {offset} ({reason}); damaged ranges: {ranges:?}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first bad byte's record.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
        /// Every range of the file in which no record can be read, as byte offsets.
        ranges: Vec<Range<u64>>,
    },
    /// A record's checksums are right and its contents are not: a fault of the program that wrote it.
    #[error("{path}: record of change {seq} at offset {offset} cannot be read: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// Its seq.
        seq: Seq,
        /// What is wrong.
        reason: String,
    },
}
