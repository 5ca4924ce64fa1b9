//! The files of a segment from their making until a manifest names it.

use std::path::PathBuf;

use crate::index::IndexError;
use crate::segment::SegmentSpec;
use crate::storage::is_failed_sync;

use super::CollectionError;
use super::engine::Shared;
use super::install::{remove_unused, segment_path};

/// The files of a segment that no manifest names yet. Where none comes to name it they are removed again: on a full
/// disk they would take the room that the next attempt needs.
pub struct Unnamed<'a> {
    shared: &'a Shared,
    /// The segment, and the first list of its dead rows.
    files: [PathBuf; 2],
    /// Whether they are to be removed.
    goes: bool,
}

impl<'a> Unnamed<'a> {
    /// Those of a segment that is about to be written.
    pub fn new(shared: &'a Shared, spec: &SegmentSpec) -> Self {
        let dead = shared.paths.dead_file(spec.collection.0, spec.generation, spec.id.0, 1);
        Self { shared, files: [segment_path(shared, spec), dead], goes: true }
    }

    /// Takes note of how the writing ended.
    ///
    /// # Errors
    /// Those of `made`.
    pub fn made<T>(&mut self, made: Result<T, IndexError>) -> Result<T, IndexError> {
        // After a failed sync nothing is changed any more.
        self.goes = made.as_ref().err().is_none_or(|error| !is_failed_sync(error));
        made
    }

    /// Has a manifest name the segment; `publish` returns whether one does. After a failed sync, or a panic, that is
    /// not known: then the files stay, and the next start removes them where none does.
    ///
    /// # Errors
    /// Those of `publish`.
    pub fn name(mut self, publish: impl FnOnce() -> Result<bool, CollectionError>) -> Result<bool, CollectionError> {
        self.goes = false;
        let named = publish();
        self.goes = match &named {
            Ok(named) => !named,
            // Not `Stopped` either: it follows a failed sync.
            Err(error) => !is_failed_sync(error) && !matches!(error, CollectionError::Stopped { .. }),
        };
        named
    }
}

impl Drop for Unnamed<'_> {
    fn drop(&mut self) {
        if self.goes {
            self.files.iter().for_each(|file| remove_unused(self.shared, file));
        }
    }
}
