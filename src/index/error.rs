//! What can go wrong when segments are built and searched.

use crate::segment::SegmentError;

/// Why a segment could not be built or searched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A segment is damaged, or could not be read or written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The build was told to stop.
    #[error("the build was cancelled")]
    Cancelled,
}
