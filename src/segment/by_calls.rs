//! Blocks that are checked, and read by calls where the disk may fail: through a map a sector that the disk does not
//! give back ends the process (SIGBUS).

use std::ops::Range;
use std::path::Path;

use super::apart::MOST_MAPPED_BYTES;
use super::error::SegmentError;
use super::format::HEADER_BYTES;
use super::reader::Segment;
use crate::storage::{BLOCK_BYTES, ReadOnlyFile, file_len};

impl Segment {
    /// As [`Segment::open_by_calls`], whichever segment it is.
    ///
    /// # Errors
    /// As [`Segment::open_any`].
    pub fn open_any_by_calls(path: &Path) -> Result<Self, SegmentError> {
        let (file, len) = (ReadOnlyFile::open(path)?, file_len(path)?);
        let mut memory = Vec::new();
        // What opening reads before there are checksums: the header, and the checksums behind the blocks.
        read(path, &file, 0..len.min(HEADER_BYTES as u64) as usize, &mut memory)?;
        let checksums = 4 * len.div_ceil(BLOCK_BYTES as u64) + 4;
        let mut rest = len.saturating_sub(checksums) as usize..len as usize;
        while !rest.is_empty() {
            let part = rest.start..rest.end.min(rest.start + BLOCK_BYTES);
            rest.start = part.end;
            read(path, &file, part, &mut memory)?;
        }
        Self::open_with(path, MOST_MAPPED_BYTES, Some(file))
    }

    /// Closes the file, which stays mapped, so that any number of segments can be kept. What was read before can be
    /// read again; on a disk that may fail, nothing else is to be asked for.
    pub fn close_file(&mut self) {
        (self.by_calls, self.apart) = (None, None);
    }

    /// Compares the blocks of `range`, as bytes of the file, with their checksums, unless that was done.
    #[inline]
    pub(super) fn ensure(&self, range: Range<usize>) -> Result<(), SegmentError> {
        if let Some(file) = &self.by_calls {
            self.ensure_by_calls(file, range.clone(), &mut Vec::new())?;
        }
        self.blocks.ensure(self.file.bytes(), range).map_err(|damage| SegmentError::block(self.path(), damage))
    }

    /// As [`Segment::ensure`], with blocks that are read from `file` into `memory`.
    #[inline]
    pub(super) fn ensure_by_calls(
        &self,
        file: &ReadOnlyFile,
        range: Range<usize>,
        memory: &mut Vec<u8>,
    ) -> Result<(), SegmentError> {
        // Beyond the blocks there is nothing to check; whoever asks is told so.
        if range.end > self.covered_bytes() || self.blocks.are_verified(range.clone()) {
            return Ok(());
        }
        for block in self.blocks.unverified(range) {
            read(self.path(), file, block.clone(), memory)?;
            self.blocks.verify(block.start, memory).map_err(|damage| SegmentError::block(self.path(), damage))?;
        }
        Ok(())
    }
}

fn read(path: &Path, file: &ReadOnlyFile, range: Range<usize>, memory: &mut Vec<u8>) -> Result<(), SegmentError> {
    memory.resize(range.len(), 0);
    file.read_exact_at(range.start as u64, memory).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let reason = format!("it cannot be read: {}", cause.unwrap_or_else(|| error.to_string()));
        SegmentError::damaged(path, range.start as u64, reason)
    })
}
