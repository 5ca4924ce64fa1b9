//! What can go wrong with a snapshot.

use std::path::PathBuf;

use crate::collection::CollectionError;
use crate::log::LogError;
use crate::manifest::ManifestError;
use crate::segment::SegmentError;
use crate::storage::StorageError;

use super::SnapshotName;

/// Why a snapshot could not be taken, read or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The name is not allowed.
    #[error(
        "snapshot name {got:?} is not allowed: use 1 to 64 of the characters a-z, 0-9, '_' and '-', beginning with a letter or digit"
    )]
    Name {
        /// As given, cut to 100 characters.
        got: String,
    },
    /// A snapshot of this name stands already.
    #[error(
        "snapshot {name} exists; delete it first or use another name; `pannier snapshot pack {name} FILE` writes it into a file"
    )]
    Exists {
        /// The name.
        name: SnapshotName,
    },
    /// An archive would replace a file.
    #[error("{path} exists and is not replaced; remove it first or name another file", path = path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// What an earlier restore replaced is still there, and a second one would have to give it up.
    #[error(
        "{path} holds the store that an earlier restore replaced; move it to another place, or remove it if nothing in it is \
         wanted, and restore again",
        path = path.display()
    )]
    Kept {
        /// The directory.
        path: PathBuf,
    },
    /// The name is one that the schedule gives; it removes snapshots of such names.
    #[error(
        "snapshot names that begin with auto- are the schedule's, which removes them after a while; use another name"
    )]
    Scheduled,
    /// There is none of this name.
    #[error("there is no snapshot {name}; `pannier snapshot list` names those that are there")]
    NotFound {
        /// The name.
        name: SnapshotName,
    },
    /// A snapshot's bytes are not what was written.
    #[error("{path} is damaged: {reason}; use another snapshot", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A snapshot or archive was written by a newer program.
    #[error("{path} has snapshot format version {found}, this program supports {supported}; use a newer program", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// As found.
        found: u32,
        /// As supported.
        supported: u32,
    },
    /// An archive holds what no archive of ours holds; nothing of it was used.
    #[error("{path} is refused: member {member:?} {reason}", path = path.display())]
    Refused {
        /// The archive.
        path: PathBuf,
        /// The member at fault, as the archive names it.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive is cut, or followed by other bytes, or its compression is broken.
    #[error("{path} is refused: {reason}", path = path.display())]
    BadArchive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is not enough room for what an archive unpacks to.
    #[error("{path} unpacks to {needed} bytes and {free} are free; make room, or restore to another disk", path = path.display())]
    NoRoom {
        /// The archive.
        path: PathBuf,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are there.
        free: u64,
    },
    /// Files cannot be linked, and there is not enough room to copy them; nothing was copied.
    #[error(
        "files cannot be linked to {path}; copying them takes {needed} bytes and {free} are free; make room, or write an \
         archive to another disk",
        path = path.display()
    )]
    NoRoomToCopy {
        /// The directory.
        path: PathBuf,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are there.
        free: u64,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A manifest could not be read or written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The log could not be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A segment is damaged.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The store could not be held still.
    #[error(transparent)]
    Collection(#[from] CollectionError),
}
