//! The manifest: which store this is and which files are live.

mod contents;
mod error;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod replace;
mod store;
#[cfg(test)]
mod tests;

pub use contents::{CollectionEntry, Manifest, SegmentEntry, StoreId};
pub use error::ManifestError;
pub use replace::{FORGET_SOURCES, finish_replacement, replace_store};
pub use store::{SNAPSHOT_FILE, is_snapshot, refuse_foreign, refuse_snapshot};
