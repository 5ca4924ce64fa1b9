//! What can go wrong when segments are built and searched.

use crate::segment::SegmentError;

/// Why a segment could not be built or searched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The work was called off.
    #[error("the segment was not finished: its making was cancelled")]
    Cancelled,
    /// The threads that build graphs could not be started.
    #[error("the threads that build a graph could not be started")]
    Threads {
        /// The cause.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
    /// A segment is damaged or could not be read or written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}
