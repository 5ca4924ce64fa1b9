//! Byte layout of a segment file: docs/formats/segment.md in code.

use std::ops::Range;
use std::path::Path;

use super::SegmentSpec;
use super::bits;
use super::calibration::Calibration;
use super::error::{SegmentError, check_beginning, u32_at, u64_at};
use super::graph::MAX_LEVEL;
use super::nibbles;
use super::quantize::stride;
use super::scan_bits;
use crate::storage::{BLOCK_BYTES, crc32c};
use crate::types::limits::MAX_DIM;
use crate::types::{CollectionId, IndexDefinition, Metric, Quantization, SegmentId, Seq, VectorStorage};

pub(super) const MAGIC: [u8; 8] = *b"PANNSEGM";
/// The newest version.
pub(super) const VERSION: u32 = 4;
/// The oldest that knows nibbles, chunks, bits in place of codes, and half precision.
const NIBBLES_VERSION: u32 = 3;
/// The oldest that is read. What is written is of the oldest version that says everything.
const PLAIN_VERSION: u32 = 2;
pub(super) const HEADER_BYTES: usize = 512;
/// Sections begin at multiples of this: a cache line, and the alignment of every number.
pub(super) const ALIGNMENT: u64 = 64;
/// Most rows in a segment, and most vectors; a walk keeps a flag beside an ordinal in 32 bits.
pub(super) const MAX_ROWS: u32 = (1 << 30) - 1;

const FLAG_CODES: u32 = 1;
const FLAG_GRAPH: u32 = 2;
const FLAG_NIBBLES: u32 = 4;
const FLAG_CHUNKS: u32 = 8;
const FLAG_BITS: u32 = 16;
const NO_ENTRY: u32 = u32::MAX;
const SECTION_TABLE: usize = 96;
const SECTION_ENTRY_BYTES: usize = 24;
/// After the section table: the calibration.
pub(super) const CALIBRATION: usize = SECTION_TABLE + SECTIONS_OF_TABLE * SECTION_ENTRY_BYTES;
/// After the calibration: the entry of the nibbles, in files that have them.
const NIBBLES_ENTRY: usize = CALIBRATION + 24;
/// After it: the entry of the chunks, in files that have them.
const CHUNKS_ENTRY: usize = NIBBLES_ENTRY + SECTION_ENTRY_BYTES;
/// After it: the number of vectors, in files that have chunks.
const VECTORS: usize = CHUNKS_ENTRY + SECTION_ENTRY_BYTES;
/// After it: the entry of the bits that scans read, in files that have them.
const BITS_ENTRY: usize = VECTORS + 4;
/// Of a vector in the section of chunks: its row, and where its chunk begins and ends.
const CHUNK_BYTES: u64 = 12;
pub(super) const HEADER_CHECKSUM: usize = HEADER_BYTES - 4;

/// The sections of every file, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Vectors,
    Codes,
    Level0,
    UpperIndex,
    Upper,
    Seqs,
    DocumentOffsets,
    Documents,
    Tombstones,
    Nibbles,
    Chunks,
    Bits,
}

const SECTIONS: usize = 12;
/// All but the nibbles, the chunks and the bits, which came later.
const SECTIONS_OF_TABLE: usize = 9;

impl Section {
    pub(super) const ALL: [Self; SECTIONS] = [
        Self::Vectors,
        Self::Codes,
        Self::Level0,
        Self::UpperIndex,
        Self::Upper,
        Self::Seqs,
        Self::DocumentOffsets,
        Self::Documents,
        Self::Tombstones,
        Self::Nibbles,
        Self::Chunks,
        Self::Bits,
    ];
}

/// The numbers of a graph that the header holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GraphHeader {
    pub(super) entry: u32,
    pub(super) max_level: u32,
    pub(super) upper_lists: u32,
    pub(super) calibration: Calibration,
}

/// Everything that the header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) spec: SegmentSpec,
    /// Documents.
    pub(super) rows: u32,
    /// As many as rows, but for chunks.
    pub(super) vectors: u32,
    /// Whether it says of each vector which row's it is.
    pub(super) has_chunks: bool,
    /// `Some` exactly where the definition asks for int8 codes.
    pub(super) scale: Option<f32>,
    pub(super) min_seq: Seq,
    pub(super) max_seq: Seq,
    pub(super) tombstones: u32,
    pub(super) graph: Option<GraphHeader>,
    /// Whether walks of the graph read nibbles.
    pub(super) has_nibbles: bool,
    /// Whether scans of all rows read blocks of bits.
    pub(super) has_bits: bool,
    pub(super) documents_bytes: u64,
    pub(super) tombstones_bytes: u64,
}

/// Where everything stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    sections: [Range<u64>; SECTIONS],
    /// First byte of the block checksums, which cover everything before them.
    pub(super) checksums: u64,
    pub(super) file_len: u64,
}

impl Layout {
    pub(super) fn section(&self, section: Section) -> Range<u64> {
        self.sections[section as usize].clone()
    }

    /// The padding between a section and what stands before it.
    pub(super) fn gap_before(&self, section: Section) -> Range<u64> {
        let before = (section as usize).checked_sub(1).map_or(HEADER_BYTES as u64, |before| self.sections[before].end);
        before..self.sections[section as usize].start
    }

    /// Blocks that the checksums cover.
    pub(super) fn blocks(&self) -> u64 {
        self.checksums.div_ceil(BLOCK_BYTES as u64)
    }
}

impl Header {
    /// The numbers here are held below their limits, so nothing overflows.
    pub(super) fn layout(&self) -> Layout {
        let (rows, vectors) = (u64::from(self.rows), u64::from(self.vectors));
        let m = u64::from(self.spec.index.m);
        let index_len = |present: bool| if present { 4 * (vectors + 1) } else { 0 };
        let lengths = [
            number_bytes(self.spec.index.storage) * vectors * u64::from(self.spec.dim),
            self.codes_len(),
            self.graph.map_or(0, |_| 4 * vectors * 2 * m),
            index_len(self.graph.is_some()),
            self.graph.map_or(0, |graph| 4 * u64::from(graph.upper_lists) * m),
            8 * rows,
            8 * (rows + 1),
            self.documents_bytes,
            self.tombstones_bytes,
            if self.has_nibbles { nibbles::section_bytes(vectors, self.spec.dim) } else { 0 },
            if self.has_chunks { CHUNK_BYTES * vectors } else { 0 },
            if self.has_bits { scan_bits::section_bytes(vectors, self.spec.dim) } else { 0 },
        ];
        let mut end = HEADER_BYTES as u64;
        let sections = lengths.map(|len| {
            let start = end.next_multiple_of(ALIGNMENT);
            end = start + len;
            start..end
        });
        let checksums = end.next_multiple_of(ALIGNMENT);
        let file_len = checksums + 4 * checksums.div_ceil(BLOCK_BYTES as u64) + 4;
        Layout { sections, checksums, file_len }
    }

    fn codes_len(&self) -> u64 {
        let (vectors, dim) = (u64::from(self.vectors), self.spec.dim);
        match self.spec.index.quantization {
            Quantization::None => 0,
            Quantization::Int8 => vectors * stride(dim) as u64,
            Quantization::Binary => bits::section_bytes(vectors, dim),
        }
    }

    fn suits_nibbles(&self) -> bool {
        self.graph.is_some() && nibbles::suits_nibbles(self.spec.metric, self.spec.dim, &self.spec.index)
    }

    fn suits_bits(&self) -> bool {
        self.graph.is_none() && scan_bits::suits_bits(self.spec.dim, &self.spec.index)
    }

    /// The oldest version that says all of it.
    fn version(&self) -> u32 {
        let IndexDefinition { quantization, storage, .. } = self.spec.index;
        let is_plain = quantization != Quantization::Binary && storage == VectorStorage::Float32;
        match is_plain && !self.has_nibbles && !self.has_chunks {
            _ if self.has_bits => VERSION,
            true => PLAIN_VERSION,
            false => NIBBLES_VERSION,
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let layout = self.layout();
        let without =
            GraphHeader { entry: NO_ENTRY, max_level: 0, upper_lists: 0, calibration: Calibration::default() };
        let graph = self.graph.unwrap_or(without);
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.version().to_le_bytes());
        let index = &self.spec.index;
        let codes = if index.quantization == Quantization::None { 0 } else { FLAG_CODES };
        let graph_flag = if self.graph.is_some() { FLAG_GRAPH } else { 0 };
        let nibbles = if self.has_nibbles { FLAG_NIBBLES } else { 0 };
        let chunks = if self.has_chunks { FLAG_CHUNKS } else { 0 };
        let bits = if self.has_bits { FLAG_BITS } else { 0 };
        bytes.extend((codes | graph_flag | nibbles | chunks | bits).to_le_bytes());
        bytes.extend(layout.file_len.to_le_bytes());
        bytes.extend(self.spec.id.0.to_le_bytes());
        bytes.extend(self.spec.collection.0.to_le_bytes());
        bytes.extend(self.spec.generation.to_le_bytes());
        bytes.extend(self.rows.to_le_bytes());
        bytes.extend(self.spec.dim.to_le_bytes());
        bytes.extend([
            metric_byte(self.spec.metric),
            quantization_byte(index.quantization),
            storage_byte(index.storage),
            0,
        ]);
        bytes.extend(self.spec.index.m.to_le_bytes());
        bytes.extend(self.spec.index.ef_construction.to_le_bytes());
        bytes.extend(self.scale.unwrap_or(0.0).to_le_bytes());
        bytes.extend(self.min_seq.0.to_le_bytes());
        bytes.extend(self.max_seq.0.to_le_bytes());
        for number in [self.tombstones, graph.entry, graph.max_level, graph.upper_lists] {
            bytes.extend(number.to_le_bytes());
        }
        assert_eq!(bytes.len(), SECTION_TABLE);
        let (table, later) = layout.sections.split_at(SECTIONS_OF_TABLE);
        let entry = |bytes: &mut Vec<u8>, kind: u64, section: &Range<u64>| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(section.start.to_le_bytes());
            bytes.extend((section.end - section.start).to_le_bytes());
        };
        (1u64..).zip(table).for_each(|(kind, section)| entry(&mut bytes, kind, section));
        assert_eq!(bytes.len(), CALIBRATION);
        for recall in graph.calibration.0 {
            bytes.extend(recall.to_le_bytes());
        }
        assert_eq!(bytes.len(), NIBBLES_ENTRY);
        if self.has_nibbles {
            entry(&mut bytes, Section::Nibbles as u64 + 1, &later[0]);
        }
        if self.has_chunks {
            bytes.resize(CHUNKS_ENTRY, 0);
            entry(&mut bytes, Section::Chunks as u64 + 1, &later[1]);
            bytes.extend(self.vectors.to_le_bytes());
        }
        if self.has_bits {
            bytes.resize(BITS_ENTRY, 0);
            entry(&mut bytes, Section::Bits as u64 + 1, &later[2]);
        }
        bytes.resize(HEADER_CHECKSUM, 0);
        let checksum = crc32c(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes.try_into().expect("the header has its fixed length")
    }

    /// Reads the header of a whole file and checks everything in it.
    pub(super) fn decode(path: &Path, file: &[u8]) -> Result<(Self, Layout), SegmentError> {
        check_beginning(path, file, HEADER_BYTES, &MAGIC, PLAIN_VERSION..=VERSION)?;
        let bytes = &file[..HEADER_BYTES];
        let damaged = |offset: usize, reason: String| SegmentError::damaged(path, offset as u64, reason);
        let (expected, got) = (u32_at(bytes, HEADER_CHECKSUM), crc32c(&bytes[..HEADER_CHECKSUM]));
        if expected != got {
            return Err(damaged(0, format!("the header has checksum {got:08x}, expected {expected:08x}")));
        }
        let file_len = u64_at(bytes, 16);
        if file_len != file.len() as u64 {
            let reason = format!("the file has {} bytes, its header says {file_len}", file.len());
            return Err(SegmentError::damaged(path, file_len.min(file.len() as u64), reason));
        }
        let flags = u32_at(bytes, 12);
        let supported = FLAG_CODES | FLAG_GRAPH | FLAG_NIBBLES | FLAG_CHUNKS | FLAG_BITS;
        if flags & !supported != 0 {
            return Err(SegmentError::UnsupportedFlags { path: path.to_owned(), found: flags, supported });
        }
        let header = Self::read(bytes, flags).map_err(|(offset, reason)| damaged(offset, reason))?;
        header.check_ranges(file_len).map_err(|(offset, reason)| damaged(offset, reason))?;
        // What was read, written again, gives the same bytes: so offsets, padding and everything implied are right.
        let again = header.encode();
        if let Some(offset) = (0..HEADER_BYTES).find(|&at| bytes[at] != again[at]) {
            return Err(damaged(offset, "the header contradicts itself".to_owned()));
        }
        let layout = header.layout();
        Ok((header, layout))
    }

    /// What the fields of a header say, unchecked.
    pub(super) fn read(bytes: &[u8], flags: u32) -> Result<Self, (usize, String)> {
        let recall = |at: usize| u16::from_le_bytes([bytes[CALIBRATION + 2 * at], bytes[CALIBRATION + 2 * at + 1]]);
        let graph = GraphHeader {
            entry: u32_at(bytes, 84),
            max_level: u32_at(bytes, 88),
            upper_lists: u32_at(bytes, 92),
            calibration: Calibration(std::array::from_fn(recall)),
        };
        let section_len = |section: Section| u64_at(bytes, SECTION_TABLE + section as usize * SECTION_ENTRY_BYTES + 16);
        let quantization = quantization_from(bytes[49]).ok_or((49, "unknown quantization".to_owned()))?;
        Ok(Self {
            spec: SegmentSpec {
                id: SegmentId(u64_at(bytes, 24)),
                collection: CollectionId(u32_at(bytes, 32)),
                generation: u32_at(bytes, 36),
                metric: metric_from(bytes[48]).ok_or((48, "unknown metric".to_owned()))?,
                dim: u32_at(bytes, 44),
                index: IndexDefinition {
                    m: u32_at(bytes, 52),
                    ef_construction: u32_at(bytes, 56),
                    quantization,
                    storage: storage_from(bytes[50]).ok_or((50, "unknown storage".to_owned()))?,
                },
            },
            rows: u32_at(bytes, 40),
            vectors: u32_at(bytes, if flags & FLAG_CHUNKS != 0 { VECTORS } else { 40 }),
            has_chunks: flags & FLAG_CHUNKS != 0,
            scale: (quantization == Quantization::Int8).then(|| f32::from_bits(u32_at(bytes, 60))),
            min_seq: Seq(u64_at(bytes, 64)),
            max_seq: Seq(u64_at(bytes, 72)),
            tombstones: u32_at(bytes, 80),
            graph: (flags & FLAG_GRAPH != 0).then_some(graph),
            has_nibbles: flags & FLAG_NIBBLES != 0,
            has_bits: flags & FLAG_BITS != 0,
            documents_bytes: section_len(Section::Documents),
            tombstones_bytes: section_len(Section::Tombstones),
        })
    }

    /// Checks each number against its range; the layout is computed only afterwards.
    pub(super) fn check_ranges(&self, file_len: u64) -> Result<(), (usize, String)> {
        let index = &self.spec.index;
        let checks = [
            (40, "rows", self.rows <= MAX_ROWS),
            (VECTORS, "vectors", (self.rows..=MAX_ROWS).contains(&self.vectors)),
            (44, "dim", (1..=MAX_DIM as u32).contains(&self.spec.dim)),
            (52, "m", (5..=48).contains(&index.m)),
            (56, "ef_construction", index.ef_construction >= 1),
            (60, "scale", self.scale.is_none_or(|scale| scale.is_finite() && scale > 0.0)),
            (64, "seqs", self.min_seq <= self.max_seq),
            (12, "nibbles", !self.has_nibbles || self.suits_nibbles()),
            (12, "bits", !self.has_bits || self.suits_bits()),
            (84, "entry point", self.graph.is_none_or(|graph| graph.entry < self.vectors)),
            (88, "max level", self.graph.is_none_or(|graph| graph.max_level <= MAX_LEVEL)),
            (CALIBRATION, "calibration", self.graph.is_none_or(|graph| graph.calibration.is_sound())),
            (SECTION_TABLE, "documents", self.documents_bytes <= file_len),
            (SECTION_TABLE, "tombstones", self.tombstones_bytes <= file_len),
        ];
        match checks.into_iter().find(|&(_, _, is_sound)| !is_sound) {
            None => Ok(()),
            Some((offset, what, _)) => Err((offset, format!("the header's {what} is outside its range"))),
        }
    }
}

fn metric_byte(metric: Metric) -> u8 {
    match metric {
        Metric::Cosine => 0,
        Metric::Dot => 1,
        Metric::L2 => 2,
    }
}

fn metric_from(byte: u8) -> Option<Metric> {
    [Metric::Cosine, Metric::Dot, Metric::L2].into_iter().find(|&metric| metric_byte(metric) == byte)
}

fn quantization_byte(quantization: Quantization) -> u8 {
    match quantization {
        Quantization::None => 0,
        Quantization::Int8 => 1,
        Quantization::Binary => 2,
    }
}

fn quantization_from(byte: u8) -> Option<Quantization> {
    [Quantization::None, Quantization::Int8, Quantization::Binary].into_iter().find(|&q| quantization_byte(q) == byte)
}

fn storage_byte(storage: VectorStorage) -> u8 {
    match storage {
        VectorStorage::Float32 => 0,
        VectorStorage::Float16 => 1,
    }
}

fn storage_from(byte: u8) -> Option<VectorStorage> {
    [VectorStorage::Float32, VectorStorage::Float16].into_iter().find(|&s| storage_byte(s) == byte)
}

/// Bytes of a stored vector's number.
fn number_bytes(storage: VectorStorage) -> u64 {
    match storage {
        VectorStorage::Float32 => 4,
        VectorStorage::Float16 => 2,
    }
}

#[cfg(test)]
mod tests;
