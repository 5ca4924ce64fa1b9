//! What can go wrong with a segment or dead rows file.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::storage::{Damage, StorageError};

/// Why a segment could not be written, opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file is of another kind.
    #[error("{path} does not begin with {expected:?} but with {found:?}: it is not such a file", path = path.display())]
    BadMagic {
        /// The file.
        path: PathBuf,
        /// What a file of this kind begins with.
        expected: String,
        /// What it begins with, unprintable bytes escaped.
        found: String,
    },
    /// The file was written by a later version of this program, or is damaged there.
    #[error(
        "{path} has format version {found}, supported is {supported}; {}",
        if found < supported { "run `pannier migrate up`" } else { "open it with a newer pannier" },
        path = path.display()
    )]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// The version that this program reads.
        supported: u32,
    },
    /// The file uses a feature that this program does not know.
    #[error("{path} has flags {found:#x}, supported are {supported:#x}; open it with a newer pannier", path = path.display())]
    UnsupportedFlags {
        /// The file.
        path: PathBuf,
        /// Flags in the file.
        found: u32,
        /// Every flag that this program knows.
        supported: u32,
    },
    /// The file's bytes are not what was written. It must not be served: restore it from a snapshot.
    #[error("{path} is damaged at offset {offset}: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// First byte of what is wrong.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The file is sound and belongs elsewhere: another segment, collection or definition.
    #[error("{path} has {what} {got}, expected {expected}", path = path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As the caller expects.
        expected: String,
        /// As in the file.
        got: String,
    },
    /// The file was not finished: its writing was called off.
    #[error("{path} was not finished: its writing was cancelled", path = path.display())]
    Cancelled {
        /// The file.
        path: PathBuf,
    },
    /// A row was asked for that the segment does not have.
    #[error("{path} has {rows} rows, and row {ordinal} was asked for", path = path.display())]
    NoSuchRow {
        /// The file.
        path: PathBuf,
        /// The row asked for, counted from 0.
        ordinal: u32,
        /// Rows in the segment.
        rows: u32,
    },
    /// More rows than one segment can hold.
    #[error("{rows} rows do not fit into one segment, at most {max} do; seal smaller segments")]
    TooManyRows {
        /// Rows given.
        rows: usize,
        /// The limit.
        max: usize,
    },
}

impl SegmentError {
    /// Whether the file is whole and was written by a program that does it otherwise.
    pub fn is_of_another_version(&self) -> bool {
        matches!(self, Self::UnsupportedVersion { .. } | Self::UnsupportedFlags { .. })
    }

    pub(super) fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, reason: reason.into() }
    }

    pub(super) fn block(path: &Path, damage: Damage) -> Self {
        Self::damaged(path, damage.offset, damage.to_string())
    }
}

/// Fails unless a file begins as it must: long enough, right magic, known version.
pub(super) fn check_beginning(
    path: &Path,
    bytes: &[u8],
    min_len: usize,
    magic: &[u8; 8],
    supported: RangeInclusive<u32>,
) -> Result<(), SegmentError> {
    let found = &bytes[..bytes.len().min(magic.len())];
    if found != magic {
        let (expected, found) = (magic.escape_ascii().to_string(), found.escape_ascii().to_string());
        return Err(SegmentError::BadMagic { path: path.to_owned(), expected, found });
    }
    if bytes.len() < min_len {
        let reason = format!("the file ends within its header of {min_len} bytes");
        return Err(SegmentError::damaged(path, bytes.len() as u64, reason));
    }
    let found = u32_at(bytes, magic.len());
    if !supported.contains(&found) {
        let supported = *supported.end();
        return Err(SegmentError::UnsupportedVersion { path: path.to_owned(), found, supported });
    }
    Ok(())
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
