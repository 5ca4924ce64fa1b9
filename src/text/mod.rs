//! Keyword search: one tantivy index a collection, a view of the log that is made again whenever it cannot be trusted.
//!
//! The index is neither durable nor authoritative: a hit names a document and the change that wrote it, and the caller
//! asks the collection whether that version still lives. The format is docs/formats/text.md.

mod analysis;
mod best;
mod composed;
mod directory;
mod error;
mod highlight;
mod index;
mod origin;
mod schema;
mod search;
#[cfg(test)]
mod tests;
mod writer;

/// A directive for logs. An index drops files of which every document was replaced, also while it merges them with
/// others. tantivy then leaves the merge out, which costs nothing, and warns of it in two lines that nobody can do
/// anything about.
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "it is the program that has a log"))]
pub const QUIETED_LOG: &str = "tantivy::indexer::segment_manager=error";

pub use analysis::{MAX_WORD_BYTES, Words};
pub use error::TextError;
pub use highlight::fragments;
pub use index::TextIndex;
pub use origin::Origin;
pub use search::{Search, TextHit};
pub use writer::TextWriter;
