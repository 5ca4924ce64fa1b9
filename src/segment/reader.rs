//! An open segment: a mapped file whose blocks are checked when they are first read.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use super::SegmentSpec;
use super::apart::MOST_MAPPED_BYTES;
use super::bits::{self, BitQuantizer};
use super::calibration::Calibration;
use super::document::{FrameError, decode_document, decode_document_id, decode_metadata};
use super::error::{SegmentError, u32_at};
use super::format::{Header, Layout, Section};
use super::graph::GraphView;
use super::nibbles::{self, NibbleQuantizer};
use super::quantize::{self, Quantizer};
use super::tombstone::{self, Tombstone};
use crate::distance::{VectorRef, prefetch};
use crate::storage::{Mapped, Plain, ReadOnlyFile, VerifiedBlocks, crc32c};
use crate::types::{DocumentId, IndexDefinition, Metadata, Ordinal, Quantization, Seq, StoredDocument, VectorStorage};

/// An immutable segment file, open for reading by any number of threads.
#[derive(Debug)]
pub struct Segment {
    pub(super) file: Mapped,
    pub(super) blocks: VerifiedBlocks,
    pub(super) header: Header,
    layout: Layout,
    /// Read when they are first needed.
    nibble_ranges: OnceLock<NibbleQuantizer>,
    pub(super) bit_center: OnceLock<BitQuantizer>,
    /// To read vectors from, where the segment is large.
    pub(super) apart: Option<ReadOnlyFile>,
    /// To read every block from before it is read through the map, where the disk may fail.
    pub(super) by_calls: Option<ReadOnlyFile>,
}

impl Segment {
    /// Opens the segment file at `path`. Reads its header and block checksums, where it has chunks also which rows they
    /// belong to, and nothing else yet.
    ///
    /// # Errors
    /// [`SegmentError::Storage`] when the file cannot be read; [`SegmentError::BadMagic`],
    /// [`SegmentError::UnsupportedVersion`], [`SegmentError::UnsupportedFlags`] or [`SegmentError::Damaged`] when it is
    /// not a segment file; [`SegmentError::Mismatch`] when it is another segment than `expected`.
    pub fn open(path: &Path, expected: &SegmentSpec) -> Result<Self, SegmentError> {
        let segment = Self::open_any(path)?;
        check_expected(path, segment.spec(), expected)?;
        Ok(segment)
    }

    /// As [`Segment::open`], whichever segment it is.
    ///
    /// # Errors
    /// As [`Segment::open`], without [`SegmentError::Mismatch`].
    pub fn open_any(path: &Path) -> Result<Self, SegmentError> {
        Self::open_mapping(path, MOST_MAPPED_BYTES)
    }

    /// As [`Segment::open`], on a disk that may fail: each block is read by a call before it is read through the map.
    /// What the disk does not give back is damage then, and no end of the process.
    ///
    /// # Errors
    /// As [`Segment::open`].
    pub fn open_by_calls(path: &Path, expected: &SegmentSpec) -> Result<Self, SegmentError> {
        let segment = Self::open_any_by_calls(path)?;
        check_expected(path, segment.spec(), expected)?;
        Ok(segment)
    }

    /// As [`Segment::open_any`]; a segment with more bytes of vectors than `most_mapped` is large.
    pub(super) fn open_mapping(path: &Path, most_mapped: u64) -> Result<Self, SegmentError> {
        Self::open_with(path, most_mapped, None)
    }

    pub(super) fn open_with(
        path: &Path,
        most_mapped: u64,
        by_calls: Option<ReadOnlyFile>,
    ) -> Result<Self, SegmentError> {
        let file = Mapped::open(path)?;
        let (header, layout) = Header::decode(path, file.bytes())?;
        let blocks = read_checksums(path, file.bytes(), &layout)?;
        let (nibble_ranges, bit_center) = (OnceLock::new(), OnceLock::new());
        let mut segment = Self { file, blocks, header, layout, nibble_ranges, bit_center, apart: None, by_calls };
        let links = [Section::Level0, Section::UpperIndex, Section::Upper];
        for section in links.into_iter().chain([Section::Codes, Section::Nibbles, Section::Bits]) {
            segment.file.advise_large_pages(segment.section_range(section));
        }
        segment.open_apart(path, most_mapped)?;
        segment.check_owners()?;
        Ok(segment)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Which segment this is.
    pub fn spec(&self) -> &SegmentSpec {
        &self.header.spec
    }

    /// Rows in the segment, dead ones included.
    pub fn rows(&self) -> u32 {
        self.header.rows
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.header.spec.dim as usize
    }

    /// Whether the segment has a graph; one without is scanned.
    pub fn has_graph(&self) -> bool {
        self.header.graph.is_some()
    }

    /// Bytes of a row that a scan of some rows reads of each; see [`Segment::scans_in_blocks`].
    pub fn scanned_bytes_a_row(&self) -> usize {
        let dim = self.header.spec.dim;
        let IndexDefinition { quantization, storage, .. } = self.header.spec.index;
        match (quantization, storage) {
            _ if self.header.has_nibbles => nibbles::stride(dim),
            (Quantization::Int8, _) => quantize::stride(dim),
            (Quantization::Binary, _) => bits::stride(dim),
            (Quantization::None, VectorStorage::Float32) => 4 * self.dim(),
            (Quantization::None, VectorStorage::Float16) => 2 * self.dim(),
        }
    }

    /// What was measured about walks of the graph; `None` where the segment has none.
    pub fn calibration(&self) -> Option<Calibration> {
        self.header.graph.map(|graph| graph.calibration)
    }

    /// Bytes of the file.
    pub fn len_bytes(&self) -> u64 {
        self.layout.file_len
    }

    /// Smallest seq of rows and tombstones; 0 where there are none.
    pub fn min_seq(&self) -> Seq {
        self.header.min_seq
    }

    /// Largest seq of rows and tombstones; 0 where there are none.
    pub fn max_seq(&self) -> Seq {
        self.header.max_seq
    }

    /// A vector by its own ordinal, shape `[dim]`. It exists.
    #[inline]
    pub(super) fn vector_at(&self, ordinal: Ordinal) -> Result<VectorRef<'_>, SegmentError> {
        self.vector_numbers(row_range(ordinal, self.dim()))
    }

    /// The numbers `range` of all vectors.
    #[inline]
    pub(super) fn vector_numbers(&self, range: Range<usize>) -> Result<VectorRef<'_>, SegmentError> {
        Ok(match self.header.spec.index.storage {
            VectorStorage::Float32 => VectorRef::Float32(self.numbers(Section::Vectors, range)?),
            VectorStorage::Float16 => VectorRef::Float16(self.numbers(Section::Vectors, range)?),
        })
    }

    /// All vectors, for many reads.
    #[inline]
    pub(super) fn vectors_view(&self) -> VectorsView<'_> {
        match self.header.spec.index.storage {
            VectorStorage::Float32 => VectorsView::Float32(self.section(Section::Vectors)),
            VectorStorage::Float16 => VectorsView::Float16(self.section(Section::Vectors)),
        }
    }

    /// Bytes of all documents without their vectors.
    pub fn documents_bytes(&self) -> u64 {
        self.header.documents_bytes
    }

    /// The change that wrote a row.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    pub fn seq(&self, ordinal: Ordinal) -> Result<Seq, SegmentError> {
        self.check_row(ordinal)?;
        Ok(Seq(self.numbers::<u64>(Section::Seqs, row_range(ordinal, 1))?[0]))
    }

    /// The document of a row.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    pub fn document(&self, ordinal: Ordinal) -> Result<StoredDocument, SegmentError> {
        decode_document(self.document_frame(ordinal)?).map_err(|error| self.bad_frame(ordinal, &error))
    }

    /// The metadata of a row's document, without decoding the rest.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    pub fn metadata(&self, ordinal: Ordinal) -> Result<Metadata, SegmentError> {
        decode_metadata(self.document_frame(ordinal)?).map_err(|error| self.bad_frame(ordinal, &error))
    }

    /// The id of a row's document, without decoding the rest.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    pub fn document_id(&self, ordinal: Ordinal) -> Result<DocumentId, SegmentError> {
        decode_document_id(self.document_frame(ordinal)?).map_err(|error| self.bad_frame(ordinal, &error))
    }

    /// The document of a row as [`super::encode_document`] made it.
    ///
    /// # Errors
    /// [`SegmentError::NoSuchRow`], [`SegmentError::Damaged`].
    pub fn document_frame(&self, ordinal: Ordinal) -> Result<&[u8], SegmentError> {
        self.check_row(ordinal)?;
        let offsets =
            self.numbers::<u64>(Section::DocumentOffsets, row_range(ordinal, 1).start..ordinal as usize + 2)?;
        if offsets[0] > offsets[1] || offsets[1] > self.header.documents_bytes {
            let reason = format!("the document of row {ordinal} is at {}..{}", offsets[0], offsets[1]);
            return Err(self.damaged(Section::DocumentOffsets, 8 * ordinal as usize, reason));
        }
        self.bytes(Section::Documents, offsets[0] as usize..offsets[1] as usize)
    }

    /// Asks memory for the beginning of these rows' documents, which are read soon: for all at once, since each is two
    /// reads of which one waits for the other.
    pub fn prefetch_documents(&self, ordinals: impl Iterator<Item = Ordinal> + Clone) {
        let offsets: SectionView<'_, u64> = self.section(Section::DocumentOffsets);
        let documents: SectionView<'_, u8> = self.section(Section::Documents);
        ordinals.clone().for_each(|ordinal| prefetch(offsets.unchecked(row_range(ordinal, 1))));
        for ordinal in ordinals {
            if let [start] = *offsets.unchecked(row_range(ordinal, 1)) {
                prefetch(documents.unchecked(start as usize..(start as usize).saturating_add(1)));
            }
        }
    }

    /// How many deletions were sealed with the rows.
    pub fn tombstone_count(&self) -> u32 {
        self.header.tombstones
    }

    /// The deletions that were sealed with the rows, in ascending order of ids.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`].
    pub fn tombstones(&self) -> Result<Vec<Tombstone>, SegmentError> {
        let bytes = self.bytes(Section::Tombstones, 0..self.header.tombstones_bytes as usize)?;
        tombstone::decode(bytes, self.header.tombstones)
            .map_err(|(at, reason)| self.damaged(Section::Tombstones, at, reason))
    }

    /// The quantizer of the codes, where the segment has codes.
    pub(super) fn quantizer(&self) -> Option<Quantizer> {
        self.header.scale.map(Quantizer::with_scale)
    }

    /// The quantizer of the nibbles, where the segment has them.
    #[inline]
    pub(super) fn nibble_quantizer(&self) -> Result<Option<&NibbleQuantizer>, SegmentError> {
        match self.nibble_ranges.get() {
            None if self.header.has_nibbles => self.read_nibble_ranges().map(Some),
            read => Ok(read),
        }
    }

    #[cold]
    fn read_nibble_ranges(&self) -> Result<&NibbleQuantizer, SegmentError> {
        let start = self.header.vectors as usize * nibbles::stride(self.header.spec.dim);
        let range = self.file_range::<u8>(Section::Nibbles, start..start + 8 * self.dim());
        self.ensure(range.clone())?;
        let numbers = self.file.view(range).and_then(NibbleQuantizer::from_numbers);
        let ranges =
            numbers.ok_or_else(|| self.damaged(Section::Nibbles, start, "the ranges of the components are none"))?;
        Ok(self.nibble_ranges.get_or_init(|| ranges))
    }

    /// The nibbles of a vector: u8, shape `[stride]`. The segment has nibbles and the vector exists.
    pub(super) fn nibbles(&self, ordinal: Ordinal) -> Result<&[u8], SegmentError> {
        self.bytes(Section::Nibbles, row_range(ordinal, nibbles::stride(self.header.spec.dim)))
    }

    /// The numbers `range` of a section, checked.
    #[inline]
    pub(super) fn numbers<T: Plain>(&self, section: Section, range: Range<usize>) -> Result<&[T], SegmentError> {
        let bytes = self.file_range::<T>(section, range);
        self.ensure(bytes.clone())?;
        self.file.view(bytes).ok_or_else(|| self.damaged(section, 0, "the section is not aligned"))
    }

    /// A section for many reads.
    #[inline]
    pub(super) fn section<T: Plain>(&self, section: Section) -> SectionView<'_, T> {
        let range = self.section_range(section);
        SectionView {
            segment: self,
            section,
            // The layout aligns every section, so the view is there.
            numbers: self.file.view(range.clone()).unwrap_or_default(),
            is_verified: self.blocks.are_verified(range),
        }
    }

    /// Where a section stands in the file.
    #[inline]
    pub(super) fn section_range(&self, section: Section) -> Range<usize> {
        let range = self.layout.section(section);
        range.start as usize..range.end as usize
    }

    /// The bytes `range` of a section, checked.
    pub(super) fn bytes(&self, section: Section, range: Range<usize>) -> Result<&[u8], SegmentError> {
        let range = self.file_range::<u8>(section, range);
        self.ensure(range.clone())?;
        Ok(&self.file.bytes()[range])
    }

    /// The graph; every one of its blocks is checked. `None` where the segment has none.
    pub(super) fn graph(&self) -> Result<Option<GraphView<'_>>, SegmentError> {
        let Some(graph) = self.header.graph else { return Ok(None) };
        let (rows, m) = (self.header.vectors as usize, self.header.spec.index.m as usize);
        Ok(Some(GraphView {
            entry: graph.entry,
            max_level: graph.max_level,
            m: self.header.spec.index.m,
            level0: self.numbers(Section::Level0, 0..rows * 2 * m)?,
            upper_index: self.numbers(Section::UpperIndex, 0..rows + 1)?,
            upper: self.numbers(Section::Upper, 0..graph.upper_lists as usize * m)?,
        }))
    }

    /// The padding before a section, checked.
    pub(super) fn gap_before(&self, section: Section) -> Result<&[u8], SegmentError> {
        let range = self.layout.gap_before(section);
        let range = range.start as usize..range.end as usize;
        self.ensure(range.clone())?;
        Ok(&self.file.bytes()[range])
    }

    /// First byte of a section in the file.
    #[cfg(test)]
    pub(super) fn section_start(&self, section: Section) -> usize {
        self.layout.section(section).start as usize
    }

    /// The checksums of all blocks, as they stand at the file's end: they stand for every byte before them.
    pub fn checksum_bytes(&self) -> &[u8] {
        &self.file.bytes()[self.covered_bytes()..]
    }

    /// Bytes that block checksums cover.
    pub(super) fn covered_bytes(&self) -> usize {
        self.layout.checksums as usize
    }

    /// Damage `at` bytes into a section.
    #[cold]
    pub(super) fn damaged(&self, section: Section, at: usize, reason: impl Into<String>) -> SegmentError {
        SegmentError::damaged(self.path(), self.layout.section(section).start + at as u64, reason)
    }

    #[inline]
    pub(super) fn check_row(&self, ordinal: Ordinal) -> Result<(), SegmentError> {
        if ordinal < self.header.rows {
            return Ok(());
        }
        Err(SegmentError::NoSuchRow { path: self.path().to_owned(), ordinal, rows: self.header.rows })
    }

    #[inline]
    pub(super) fn check_vector(&self, ordinal: Ordinal) -> Result<(), SegmentError> {
        if ordinal < self.header.vectors {
            return Ok(());
        }
        Err(SegmentError::NoSuchRow { path: self.path().to_owned(), ordinal, rows: self.header.vectors })
    }

    fn bad_frame(&self, ordinal: Ordinal, error: &FrameError) -> SegmentError {
        self.damaged(Section::Documents, 0, format!("row {ordinal}: {error}"))
    }

    /// File range of the numbers `range` of a section. The layout fits the file, so nothing overflows.
    #[inline]
    fn file_range<T>(&self, section: Section, range: Range<usize>) -> Range<usize> {
        let start = self.layout.section(section).start as usize;
        start + range.start * size_of::<T>()..start + range.end * size_of::<T>()
    }
}

/// A section as numbers. Once every block of it was checked, reading it costs no look at checksums any more.
pub(super) struct SectionView<'a, T> {
    segment: &'a Segment,
    section: Section,
    numbers: &'a [T],
    is_verified: bool,
}

impl<'a, T: Plain> SectionView<'a, T> {
    /// The numbers `range`, which lie in the section, checked.
    #[inline]
    pub(super) fn get(&self, range: Range<usize>) -> Result<&'a [T], SegmentError> {
        if !self.is_verified {
            return self.segment.numbers(self.section, range);
        }
        Ok(&self.numbers[range])
    }

    /// Whether every block of the section was checked when the view was made.
    #[inline]
    pub(super) fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// The whole section as it is in the file: what of it was not checked must not decide anything.
    #[inline]
    pub(super) fn all_unchecked(&self) -> &'a [T] {
        self.numbers
    }

    /// The numbers `range` as they are in the file, or nothing where it leaves the section: only for prefetching.
    #[inline]
    pub(super) fn unchecked(&self, range: Range<usize>) -> &'a [T] {
        self.numbers.get(range).unwrap_or_default()
    }
}

/// The vectors of a segment.
pub(super) enum VectorsView<'a> {
    Float32(SectionView<'a, f32>),
    Float16(SectionView<'a, u16>),
}

impl<'a> VectorsView<'a> {
    /// As [`SectionView::get`].
    #[inline]
    pub(super) fn get(&self, range: Range<usize>) -> Result<VectorRef<'a>, SegmentError> {
        Ok(match self {
            Self::Float32(numbers) => VectorRef::Float32(numbers.get(range)?),
            Self::Float16(numbers) => VectorRef::Float16(numbers.get(range)?),
        })
    }

    /// As [`SectionView::unchecked`].
    #[inline]
    pub(super) fn unchecked(&self, range: Range<usize>) -> VectorRef<'a> {
        match self {
            Self::Float32(numbers) => VectorRef::Float32(numbers.unchecked(range)),
            Self::Float16(numbers) => VectorRef::Float16(numbers.unchecked(range)),
        }
    }
}

/// Numbers of a row in an array of `width` numbers a row.
#[inline]
pub(super) fn row_range(ordinal: Ordinal, width: usize) -> Range<usize> {
    ordinal as usize * width..(ordinal as usize + 1) * width
}

pub(super) fn read_checksums(path: &Path, file: &[u8], layout: &Layout) -> Result<VerifiedBlocks, SegmentError> {
    let start = layout.checksums as usize;
    let table = &file[start..file.len() - 4];
    let (expected, got) = (u32_at(file, file.len() - 4), crc32c(table));
    if expected != got {
        let reason = format!("the block checksums have checksum {got:08x}, expected {expected:08x}");
        return Err(SegmentError::damaged(path, layout.checksums, reason));
    }
    let checksums = (0..layout.blocks() as usize).map(|block| u32_at(table, 4 * block)).collect();
    VerifiedBlocks::new(checksums, start)
        .ok_or_else(|| SegmentError::damaged(path, layout.checksums, "the block checksums do not fit the file"))
}

fn check_expected(path: &Path, got: &SegmentSpec, expected: &SegmentSpec) -> Result<(), SegmentError> {
    let mismatch = |what, expected: String, got: String| {
        if expected == got {
            return Ok(());
        }
        Err(SegmentError::Mismatch { path: path.to_owned(), what, expected, got })
    };
    mismatch("segment id", expected.id.to_string(), got.id.to_string())?;
    mismatch("collection id", expected.collection.to_string(), got.collection.to_string())?;
    mismatch("generation", expected.generation.to_string(), got.generation.to_string())?;
    mismatch("metric", format!("{:?}", expected.metric), format!("{:?}", got.metric))?;
    mismatch("dim", expected.dim.to_string(), got.dim.to_string())?;
    // Where codes would not tell its vectors apart, a segment has none; see `coarse`.
    let without_codes = IndexDefinition { quantization: Quantization::None, ..expected.index };
    if expected.index.quantization == Quantization::Int8 && got.index == without_codes {
        return Ok(());
    }
    mismatch("index definition", format!("{:?}", expected.index), format!("{:?}", got.index))
}
