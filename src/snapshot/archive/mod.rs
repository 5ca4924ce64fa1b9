//! A snapshot as one file: tar (POSIX.1-1988 ustar) in one zstd frame (RFC 8878), the same bytes for the same state.
//!
//! The first member is `SNAPSHOT`; the others follow as it lists them. A header holds nothing but path and length, so
//! there is one right header for each member, and a reader accepts no other.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod header;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{check, unpack};
pub use write::{Packed, pack};
