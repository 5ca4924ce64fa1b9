//! Large segments: what searches read of them seldom is read by calls, and does not stay memory of this process.
//!
//! A walk reads codes and links, and of a few dozen rows the vectors. Read through a map, each of these would make the
//! pages around it count as memory of this process, in the end all vectors, which are several times as large as all
//! that walks read. A call for each costs less than a page that has to be mapped.

use std::path::Path;

use super::error::SegmentError;
use super::format::Section;
use super::reader::{Segment, row_range};
use crate::distance::VectorRef;
use crate::storage::ReadOnlyFile;
use crate::types::{Ordinal, Quantization, VectorStorage};

/// A segment with more bytes of vectors is large.
pub(super) const MOST_MAPPED_BYTES: u64 = 256 << 20;

/// Memory for a vector that is read from the file.
#[derive(Debug, Default)]
pub(super) struct ReadRow {
    bytes: Vec<u8>,
    float32: Vec<f32>,
    float16: Vec<u16>,
}

impl ReadRow {
    /// Its bytes as numbers.
    fn numbers(&mut self, storage: VectorStorage) -> VectorRef<'_> {
        match storage {
            VectorStorage::Float32 => {
                self.float32.clear();
                self.float32.extend(self.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
                VectorRef::Float32(&self.float32)
            }
            VectorStorage::Float16 => {
                self.float16.clear();
                self.float16.extend(self.bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes)));
                VectorRef::Float16(&self.float16)
            }
        }
    }
}

impl Segment {
    /// The file, to read vectors from where the segment is large: where its vectors take more than `most_mapped` bytes.
    pub(super) fn open_apart(&mut self, path: &Path, most_mapped: u64) -> Result<(), SegmentError> {
        let vectors = self.section_range(Section::Vectors);
        if (vectors.len() as u64) > most_mapped {
            self.apart = Some(ReadOnlyFile::open(path)?);
            self.seldom_read().for_each(|section| self.file.advise_small_pages(self.section_range(section)));
            // Opening may have mapped a large page of them.
            self.release();
        }
        Ok(())
    }

    /// What walks do not read.
    fn seldom_read(&self) -> impl Iterator<Item = Section> {
        let has_codes = self.header.spec.index.quantization != Quantization::None;
        let vectors = has_codes.then_some(Section::Vectors);
        let codes = self.header.has_nibbles.then_some(Section::Codes);
        [Section::Documents].into_iter().chain(vectors).chain(codes)
    }

    /// Takes out of this process's memory what was mapped of a large segment and is read seldom; the system may keep it
    /// cached. Reading it again costs a little more once. Does nothing to other segments.
    pub fn release(&self) {
        if self.apart.is_some() {
            self.seldom_read().for_each(|section| self.file.release(self.section_range(section)));
        }
    }

    /// A vector that is read from the file into `row`. It exists.
    pub(super) fn read_vector<'a>(
        &self,
        file: &ReadOnlyFile,
        ordinal: Ordinal,
        row: &'a mut ReadRow,
    ) -> Result<VectorRef<'a>, SegmentError> {
        let vectors = self.section_range(Section::Vectors);
        let storage = self.header.spec.index.storage;
        let range = row_range(ordinal, vectors.len() / self.header.vectors as usize);
        let range = vectors.start + range.start..vectors.start + range.end;
        // Of what is checked through the map, the system would map the pages around it too.
        self.ensure_by_calls(file, range.clone(), &mut row.bytes)?;
        row.bytes.resize(range.len(), 0);
        file.read_exact_at(range.start as u64, &mut row.bytes)?;
        Ok(row.numbers(storage))
    }
}
