//! The change log: every change in order, checksummed and synced before it is answered.

mod change;
mod error;
mod files;
mod format;
mod group_commit;
mod payload;
mod queue;
mod reader;
mod record;
mod survey;
#[cfg(test)]
mod tests;
mod trim;
mod writer;

pub use change::{Change, LoggedDocument};
pub use error::LogError;
pub use format::{LogIdentity, MAX_PAYLOAD_BYTES};
pub use group_commit::{Apply, GroupCommit, GroupOptions, Ticket};
pub use reader::{LogEnd, ReadFrom, Recovery, read_from};
pub use record::EncodedRecord;
pub use trim::{Trimmed, trim};
pub use writer::{LogPosition, LogWriter, WriterOptions};
