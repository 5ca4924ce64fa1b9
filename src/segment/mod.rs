//! Segments: immutable files of documents, vectors, codes and a graph, written once, mapped, searched.
//!
//! The format is docs/formats/segment.md; which rows of a segment still count stands beside it (docs/formats/dead.md).

mod apart;
mod bit_rows;
mod bits;
mod by_calls;
mod calibration;
mod chunks;
mod coarse;
mod codes;
mod dead;
mod document;
mod error;
mod filtered_walk;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod graph;
mod nibbles;
mod packed;
mod pool;
mod quantize;
mod reader;
mod sampled;
mod scan;
mod scan_bits;
mod scratch;
mod search;
mod sieve;
mod stored;
#[cfg(test)]
mod tests;
mod tombstone;
mod upgrade;
mod verify;
mod walk;
mod writer;

pub use bits::BitQuantizer;
pub use calibration::{CALIBRATED_EF, CALIBRATED_TOP_K, Calibration};
pub use coarse::fitting;
pub use dead::DeadRows;
pub use document::encode_document;
pub use error::SegmentError;
pub use filtered_walk::{FilteredOptions, WANTED_PASSING};
pub use graph::{Graph, GraphView, MAX_LEVEL, NO_NEIGHBOUR};
pub use nibbles::{NibbleQuantizer, suits_nibbles};
pub use packed::PackedRows;
pub use pool::Candidate;
pub use quantize::{Quantizer, largest_component};
pub use reader::Segment;
pub use sampled::SampledQueries;
pub use tombstone::Tombstone;
pub use upgrade::{downgrade, file_version, upgrade};
pub(crate) use walk::{Links, Rows, nearest_on_level, step_on_level, walk_to_nearest, walk_without};
pub use walk::{SearchStats, WalkOptions};
pub use writer::{Pace, WrittenSegment, write_segment};

use crate::distance::VectorRef;
use crate::types::{ChunkSpan, CollectionId, IndexDefinition, Metric, SegmentId, Seq};

/// Which segment a file is, and how its rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpec {
    /// The segment.
    pub id: SegmentId,
    /// The collection that it belongs to.
    pub collection: CollectionId,
    /// The generation of vectors that it belongs to.
    pub generation: u32,
    /// How closeness is measured.
    pub metric: Metric,
    /// Numbers in a vector.
    pub dim: u32,
    /// Parameters of the graph, which codes there are, and how vectors are stored.
    pub index: IndexDefinition,
}

/// A row to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowRef<'a> {
    /// The change that wrote it.
    pub seq: Seq,
    /// The document's frame; see [`encode_document`].
    pub document: &'a [u8],
    /// Shape `[dim]`, or `[chunks, dim]` where there are chunks; each of length 1 where the metric is cosine.
    pub vector: VectorRef<'a>,
    /// Where each chunk stands; empty for a row with one vector and no chunk.
    pub chunks: &'a [ChunkSpan],
}
