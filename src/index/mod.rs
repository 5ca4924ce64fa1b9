//! The life of the vectors: memtables, segments, views of both, and searches over a view.

mod build;
mod chunked;
mod coded_rows;
mod compact;
mod error;
mod findable;
mod memtable;
mod one_segment;
mod params;
pub mod plan_merge;
mod repair;
mod searcher;
#[cfg(test)]
mod tests;
mod top_k;
mod view;

pub use compact::{MergeOptions, Merged, merge, seal};
pub use error::IndexError;
#[cfg(feature = "postgres")]
pub use memtable::MemRow;
pub use memtable::{MAX_ENTRIES as MAX_MEMTABLE_ENTRIES, MemEntry, Memtable};
pub use one_segment::{SegmentOutcome, SegmentQuery};
pub use params::{WANTED_RECALL, ef_for};
pub use plan_merge::MergePlan;
pub use searcher::{IndexQuery, Neighbour, Place, join, search, whole_vector};
pub use view::{LiveSegment, Relocation, Resolved, View};
