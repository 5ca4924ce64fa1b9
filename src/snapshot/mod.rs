//! Snapshots: a store at one seq, of which immutable files are shared with the store itself.
//!
//! A snapshot is a directory below `snapshots/`: docs/formats/snapshot.md. Its files are hard links, so it costs no
//! time and no room until the store has merged them away. One file for transport is an [`archive`].

pub mod archive;
mod contents;
mod create;
mod digest;
mod error;
mod list;
mod metrics;
mod name;
mod restore;
mod schedule;
#[cfg(test)]
mod tests;
mod verify;

pub use contents::{Contents, Digest, Member};
pub use create::{Created, create, create_closed};
pub use digest::Sha256;
pub use error::SnapshotError;
pub use list::{Found, Snapshot, delete, find, list, read_contents};
pub use name::SnapshotName;
pub use restore::{Restored, Source, discard_replaced, restore};
pub use schedule::{Retention, Schedule};
pub use verify::{Report, verify};
