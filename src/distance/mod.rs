//! How close two vectors are: SIMD kernels with a scalar reference each, and queries prepared for many comparisons; and
//! which rows of a list are in a set.
//!
//! "Closeness" rises as vectors get nearer: the dot product for cosine (vectors have length 1) and dot, minus the
//! squared Euclidean distance for L2. It orders candidates; [`score`] turns it into what users see.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod binary;
mod bit_blocks;
mod float16;
mod kernels;
mod members;
mod nibbles;
mod query;
#[cfg(test)]
pub mod scalar;
mod table;
mod vector_ref;

pub use binary::{BitQuery, set_corrections};
pub use bit_blocks::{BLOCK_ROWS, BitBlockQuery, block_bytes, blocks_are_fast, fill_block};
pub use kernels::{dot_f32, l2sq_f32, prefetch};
pub use members::select_members;
pub use nibbles::{NIBBLE_BLOCK, NibbleQuery};
pub use query::{CodeQuery, VectorQuery};
pub use table::CodeTable;
pub use vector_ref::VectorRef;

use crate::types::Metric;

/// The score of a closeness between f32 vectors: cosine similarity in [-1, 1], dot product, or minus the Euclidean
/// distance.
#[inline]
pub fn score(metric: Metric, closeness: f32) -> f32 {
    match metric {
        // Rounding takes the dot product of two unit vectors a few ulps beyond 1.
        Metric::Cosine => closeness.clamp(-1.0, 1.0),
        Metric::Dot => closeness,
        // Not minus zero, which shows.
        Metric::L2 => 0.0 - (-closeness).max(0.0).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_what_users_expect() {
        assert_eq!(score(Metric::Cosine, 1.000_000_1), 1.0);
        assert_eq!(score(Metric::Cosine, -2.0), -1.0);
        assert_eq!(score(Metric::Dot, 7.5), 7.5);
        assert_eq!(score(Metric::L2, -9.0), -3.0);
        assert!(score(Metric::L2, 0.0).is_sign_positive() && score(Metric::L2, -0.0) == 0.0);
    }
}
