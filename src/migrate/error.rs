//! What can go wrong with migrations.

use std::path::PathBuf;

use crate::manifest::ManifestError;
use crate::segment::SegmentError;
use crate::storage::StorageError;

/// Why a store could not be migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The journal is not what was written.
    #[error("{path} is damaged: {reason}; restore it from a snapshot", path = path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A step that was applied is another one in this program.
    #[error(
        "step {id:03} {name} was applied as {applied} and is {known} in this program: one of the two is not the released \
         one; use the program that applied it, or restore a snapshot"
    )]
    Modified {
        /// The step.
        id: u32,
        /// Its name.
        name: String,
        /// Its checksum in the journal, the first digits.
        applied: String,
        /// Its checksum here.
        known: String,
    },
    /// A step that was applied is not in this program.
    #[error("step {id:03} {name} was applied and this program does not have it; use a newer program")]
    Missing {
        /// The step.
        id: u32,
        /// Its name.
        name: String,
    },
    /// A step was begun and not finished.
    #[error("step {id:03} {name} was begun and not finished; run `pannier migrate up`, which goes on with it")]
    HalfDone {
        /// The step.
        id: u32,
        /// Its name.
        name: String,
    },
    /// A step cannot be undone.
    #[error(
        "step {id:03} {name} cannot be undone: {reason}; the program before this one can restore the snapshot that was taken before it"
    )]
    NotReversible {
        /// The step.
        id: u32,
        /// Its name.
        name: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// No step of this number was applied.
    #[error("no applied step is left to undo")]
    NothingToUndo,
    /// A step needs another one that was not done.
    #[error("step {id:03} needs step {needs:03}, which is not applied")]
    Dependency {
        /// The step.
        id: u32,
        /// What it needs.
        needs: u32,
    },
    /// What a step left is not what it should be: a fault of the program.
    #[error("step {id:03} {name} left work behind: {reason}")]
    Unfinished {
        /// The step.
        id: u32,
        /// Its name.
        name: &'static str,
        /// What.
        reason: String,
    },
    /// The snapshot that is taken before anything changes failed, or was refused.
    #[error("nothing was migrated: {0}")]
    Before(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file could not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The manifest could not be read or written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A segment is damaged.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}
