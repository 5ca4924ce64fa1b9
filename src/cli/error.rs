//! Why a command failed, and what kind of failure it is for the exit code.

use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::collection::CollectionError;
use crate::database::OpenError;
use crate::embed::EmbedError;
use crate::log::LogError;
use crate::manifest::ManifestError;
use crate::meta::MetaError;
use crate::migrate::MigrateError;
use crate::salvage::SalvageError;
use crate::segment::SegmentError;
use crate::snapshot::SnapshotError;
use crate::storage::{DataPaths, StorageError, is_failed_sync};
use crate::types::NameError;

use super::output;

/// What the exit code tells a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command did not do what was asked.
    General,
    /// The arguments do not make sense together.
    Usage,
    /// Another process holds the data directory.
    Locked,
    /// The data directory is damaged.
    Damaged,
    /// A snapshot or an archive is damaged, or is none.
    SnapshotDamaged,
    /// The store is of an older format, and `migrate up` brings it to this one.
    MigrationPending,
    /// The journal of migrations speaks of other steps than this program's.
    MigrationUnknown,
    /// A migration was begun and not finished.
    MigrationHalfDone,
    /// A write to the disk failed, and the process had to stop.
    DiskFailed,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The arguments do not make sense together.
    #[error("{0}")]
    Usage(String),
    /// The command cannot do what was asked; the sentence says what to change.
    #[error("{0}")]
    Refused(String),
    /// The data directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store refused or failed.
    #[error(transparent)]
    Collection(#[from] CollectionError),
    /// The model is missing, damaged or failed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// A name among the arguments is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file of the data directory failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The operating system refused.
    #[error("cannot {action}")]
    Io {
        /// What was tried: "read articles.jsonl".
        action: String,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// No server answers where one was asked for.
    #[error(
        "no server answers at {address}; start one with `pannier serve`, or leave --server out, and PANNIER_SERVER unset, \
         to open the data directory"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// What answers speaks no TLS, or nobody known vouches for it.
    #[error(
        "no TLS connection to {address} could be made: it speaks none, or no public authority signed its certificate, and \
         others are not known here; name the server behind such a proxy, as in http://127.0.0.1:7117"
    )]
    NoTls {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A server that was reached gave no answer.
    #[error(
        "the connection to {address} broke before its answer came, or nothing came for too long; the server's log says \
         more, and whether it did what was asked is not known"
    )]
    Unanswered {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The API refused a request.
    #[error("{detail}")]
    Api {
        /// The stable code of the problem.
        code: String,
        /// What is wrong and what to change.
        detail: String,
    },
    /// What the server sent is not what its API promises.
    #[error("the answer of {address} is not what this program expects ({reason}); are both of the same version?")]
    Protocol {
        /// Who answered.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// Some of the input did not get in; each was named as it happened.
    #[error("{failed} of {total} {unit}s failed; each was named above, mend those and run the command again")]
    Lines {
        /// Lines that failed.
        failed: u64,
        /// Lines read.
        total: u64,
        /// What each of them is: "line", "row".
        unit: &'static str,
    },
    /// Stored bytes are not what was written; each problem was named.
    #[error(
        "{} is damaged: {} found; restore a snapshot, or let `pannier salvage` take what can be read to a new directory",
        path.display(), output::counted(*count as u64, "problem")
    )]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// Problems found.
        count: usize,
    },
    /// A snapshot could not be taken, read or restored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A snapshot's bytes are not what was written; each problem was named.
    #[error("{} is damaged: {} found; use another snapshot", path.display(), output::counted(*count as u64, "problem"))]
    SnapshotDamaged {
        /// The snapshot.
        path: PathBuf,
        /// Problems found.
        count: usize,
    },
    /// A store could not be migrated.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A step of the migrations was begun and not finished.
    #[error("step {id:03} {name} is half done; run `pannier migrate up`, which goes on with it")]
    HalfDone {
        /// The step.
        id: u32,
        /// Its name.
        name: &'static str,
    },
    /// Nothing could be salvaged.
    #[error(transparent)]
    Salvage(#[from] SalvageError),
    /// What can be read was salvaged; each loss was named.
    #[error("{} of {} could not be read; each was named above", output::counted(*losses as u64, "part"), path.display())]
    Lost {
        /// The damaged directory.
        path: PathBuf,
        /// Parts lost.
        losses: usize,
    },
    /// The server stopped because of its disk.
    #[error("the server stopped: {reason}")]
    DiskFailed {
        /// What failed.
        reason: String,
    },
    /// Anything else.
    #[error(transparent)]
    Other(#[from] Box<dyn Error + Send + Sync>),
}

impl CliError {
    /// The operating system's refusal of an action, named by a verb and its object.
    pub(crate) fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { action: action.into(), source }
    }

    /// Which kind of failure this is.
    pub fn failure(&self) -> Failure {
        match self {
            error if is_failed_sync(error) => Failure::DiskFailed,
            CliError::Usage(_) | CliError::Name(_) => Failure::Usage,
            CliError::Damaged { .. } => Failure::Damaged,
            CliError::SnapshotDamaged { .. } => Failure::SnapshotDamaged,
            CliError::Api { code, .. } if code == "snapshot_damaged" => Failure::SnapshotDamaged,
            CliError::Snapshot(error) => of_snapshot(error),
            CliError::HalfDone { .. } => Failure::MigrationHalfDone,
            CliError::Migrate(error) => of_migration(error),
            CliError::Salvage(SalvageError::Storage(error)) => of_storage(error),
            CliError::DiskFailed { .. } => Failure::DiskFailed,
            CliError::Api { code, .. } if code == "stopped" => Failure::DiskFailed,
            CliError::Open(error) => of_opening(error),
            CliError::Collection(error) => of_collection(error),
            CliError::Storage(error) => of_storage(error),
            _ => Failure::General,
        }
    }
}

fn of_opening(error: &OpenError) -> Failure {
    match error {
        OpenError::Storage(error) => of_storage(error),
        OpenError::Manifest(error) => of_manifest(error),
        OpenError::Recover { source, .. } => of_collection(source),
    }
}

fn of_migration(error: &MigrateError) -> Failure {
    match error {
        MigrateError::Modified { .. } | MigrateError::Missing { .. } => Failure::MigrationUnknown,
        MigrateError::HalfDone { .. } => Failure::MigrationHalfDone,
        MigrateError::Journal { .. } => Failure::Damaged,
        MigrateError::Storage(error) => of_storage(error),
        MigrateError::Manifest(error) => of_manifest(error),
        MigrateError::Segment(error) => of_segment(error),
        _ => Failure::General,
    }
}

fn of_snapshot(error: &SnapshotError) -> Failure {
    match error {
        SnapshotError::Name { .. } | SnapshotError::Scheduled => Failure::Usage,
        SnapshotError::Damaged { .. } | SnapshotError::Refused { .. } | SnapshotError::BadArchive { .. } => {
            Failure::SnapshotDamaged
        }
        SnapshotError::Storage(error) => of_storage(error),
        SnapshotError::Manifest(error) => of_manifest(error),
        SnapshotError::Segment(error) => of_segment(error),
        SnapshotError::Collection(error) => of_collection(error),
        _ => Failure::General,
    }
}

fn of_storage(error: &StorageError) -> Failure {
    match error {
        StorageError::Locked { .. } => Failure::Locked,
        StorageError::Stopped { .. } => Failure::DiskFailed,
        StorageError::Io { .. } | StorageError::ReadOnly { .. } => Failure::General,
    }
}

fn of_manifest(error: &ManifestError) -> Failure {
    match error {
        ManifestError::Storage(error) => of_storage(error),
        ManifestError::Damaged { .. } | ManifestError::Missing { .. } | ManifestError::Foreign { .. } => {
            Failure::Damaged
        }
        // Parts of a store, and what makes it one is gone.
        ManifestError::NotAStore { root, .. } if is_wreck(&DataPaths::new(root)) => Failure::Damaged,
        _ => Failure::General,
    }
}

fn is_wreck(paths: &DataPaths) -> bool {
    [paths.manifest(), paths.newest_log_mark(), paths.segments_dir()].iter().any(|part| part.exists())
}

fn of_segment(error: &SegmentError) -> Failure {
    match error {
        // A file that the manifest names and that is not there.
        SegmentError::Storage(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Failure::Damaged
        }
        SegmentError::UnsupportedVersion { found, supported, .. } if found < supported => Failure::MigrationPending,
        SegmentError::Damaged { .. } | SegmentError::BadMagic { .. } | SegmentError::Mismatch { .. } => {
            Failure::Damaged
        }
        _ => Failure::General,
    }
}

fn of_collection(error: &CollectionError) -> Failure {
    use LogError as L;
    match error {
        CollectionError::Stopped { .. } => Failure::DiskFailed,
        CollectionError::Manifest(error) => of_manifest(error),
        CollectionError::Meta(MetaError::Row(error)) => error.downcast_ref().map_or(Failure::General, of_segment),
        CollectionError::Segment(error) => of_segment(error),
        CollectionError::Log(
            L::BadHeader { .. }
            | L::Foreign { .. }
            | L::BrokenChain { .. }
            | L::Missing { .. }
            | L::CutShort { .. }
            | L::Damaged { .. }
            | L::Malformed { .. },
        ) => Failure::Damaged,
        _ => Failure::General,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_told_to_stop_has_no_failed_disk() {
        let answered = |code: &str| CliError::Api { code: code.to_owned(), detail: String::new() }.failure();
        assert_eq!((answered("stopping"), answered("stopped")), (Failure::General, Failure::DiskFailed));
    }
}
