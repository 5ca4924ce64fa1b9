//! What builds the graphs of segments.

/// A builder of graphs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphBuilder {
    /// Ours: faster, and the same graph whatever the number of threads.
    #[default]
    Own,
    /// hnsw_rs, the reference that ours is held to.
    HnswRs,
}
