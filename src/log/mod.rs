//! The change log: every change in order, checksummed and synced before it is answered.

mod by_calls;
mod change;
mod error;
mod files;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod group_commit;
mod newest;
mod payload;
mod queue;
mod reader;
mod record;
mod relabel;
mod salvage;
mod survey;
mod sync;
mod tail;
#[cfg(test)]
mod tests;
mod trim;
mod writer;

pub use change::{Change, LoggedDocument};
pub use error::LogError;
pub use format::LogIdentity;
pub use group_commit::{GroupCommit, GroupOptions};
#[cfg(feature = "server")]
pub use newest::check_newest;
#[cfg(feature = "postgres")]
pub use payload::{creation_of_text, creation_to_text};
pub use reader::{ReadFrom, read_from};
pub use record::EncodedRecord;
pub use relabel::{check, closed_files, copy_open_end, newest_timeline, relabel};
pub use salvage::{LogLoss, Needed, salvage};
pub use tail::{LogTail, TailStep};
#[cfg(test)]
use trim::trim;
pub use trim::{Keep, Trimmed, needed_bytes, trim_keeping};
pub use writer::{LogPosition, LogWriter, WriterOptions};
