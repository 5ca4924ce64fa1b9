//! Writes a segment file in one pass, without holding the vectors.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::codes::RowCodes;
use super::document::decode_document_id;
use super::error::SegmentError;
use super::format::{ALIGNMENT, GraphHeader, Header, Layout, MAX_ROWS, Section};
use super::graph::Graph;
use super::nibbles::{self, NibbleQuantizer, suits_nibbles};
use super::scan_bits::ScanBits;
use super::tombstone::{self, Tombstone};
use super::{RowRef, SegmentSpec};
use crate::distance::VectorRef;
use crate::storage::{BlockChecksums, Publishing, RateLimit, StorageError, crc32c};
use crate::types::{ChunkSpan, Seq, VectorStorage, half};

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenSegment {
    /// Bytes of the file.
    pub len_bytes: u64,
    /// Rows in it.
    pub rows: u32,
    /// Smallest seq of rows and tombstones; 0 where there are none.
    pub min_seq: Seq,
    /// Largest seq of rows and tombstones; 0 where there are none.
    pub max_seq: Seq,
    /// Tombstones in it.
    pub tombstones: u32,
    /// Whether it holds a graph.
    pub has_graph: bool,
}

/// How fast a segment is written, and what calls it off.
#[derive(Clone, Copy, Debug)]
pub struct Pace<'a> {
    /// Shared by all that are written at the same time.
    pub limit: &'a RateLimit,
    /// Set to give up.
    pub cancel: &'a AtomicBool,
}

/// Bytes between two looks at the pace.
const PACED_BYTES: u64 = 1 << 16;

/// Publishes a segment at `path`, whose directory exists.
///
/// `rows`: in the order of their ordinals; vectors of shape `[dim]`, or `[chunks, dim]` where there are chunks,
/// checked. `tombstones`: in any order; of several for one id the latest is written. `graph`: over exactly these
/// vectors, or `None` for a segment that is to be scanned. `pace`: `None` for as fast as the disk takes it.
///
/// # Errors
/// [`SegmentError::TooManyRows`], [`SegmentError::Storage`], [`SegmentError::Cancelled`]. On an error nothing stands at
/// `path` that was not there before.
///
/// # Panics
/// When a vector has another dim, a document is no frame, or the graph is not one over these rows: broken invariants of
/// the caller, which must not reach the disk.
pub fn write_segment(
    path: &Path,
    spec: &SegmentSpec,
    rows: &[RowRef<'_>],
    tombstones: &[Tombstone],
    graph: Option<&Graph>,
    pace: Option<Pace<'_>>,
) -> Result<WrittenSegment, SegmentError> {
    check_rows(spec, rows);
    let vectors: Vec<VectorRef<'_>> = rows.iter().flat_map(|row| row.vector.each(spec.dim as usize)).collect();
    if vectors.len() > MAX_ROWS as usize {
        return Err(SegmentError::TooManyRows { rows: vectors.len(), max: MAX_ROWS as usize });
    }
    let codes = RowCodes::fit(spec, &vectors);
    let has_nibbles = graph.is_some_and(|graph| graph.nibbles);
    assert!(!has_nibbles || suits_nibbles(spec.metric, spec.dim, &spec.index), "nibbles of {spec:?}");
    let bits = graph.is_none().then(|| ScanBits::worth_it(spec, &vectors)).flatten();
    let (tombstone_count, tombstone_bytes) = tombstone::encode(tombstones);
    let seqs = || rows.iter().map(|row| row.seq).chain(tombstones.iter().map(|tombstone| tombstone.seq));
    let header = Header {
        spec: *spec,
        rows: rows.len() as u32,
        vectors: vectors.len() as u32,
        has_chunks: rows.iter().any(|row| !row.chunks.is_empty()),
        scale: codes.as_ref().and_then(RowCodes::scale),
        min_seq: seqs().min().unwrap_or_default(),
        max_seq: seqs().max().unwrap_or_default(),
        tombstones: tombstone_count,
        graph: graph.map(|graph| graph_header(spec, vectors.len(), graph)),
        has_nibbles,
        has_bits: bits.is_some(),
        documents_bytes: rows.iter().map(|row| row.document.len() as u64).sum(),
        tombstones_bytes: tombstone_bytes.len() as u64,
    };
    let layout = header.layout();
    let mut sections = SectionWriter::create(path, &layout, pace)?;
    sections.write(&header.encode())?;
    write_vectors(&mut sections, spec, &vectors)?;
    if let Some(codes) = codes {
        write_codes(&mut sections, &vectors, codes)?;
    }
    if let Some(graph) = graph {
        write_graph(&mut sections, graph)?;
    }
    write_documents(&mut sections, rows)?;
    sections.begin(Section::Tombstones)?;
    sections.write(&tombstone_bytes)?;
    if has_nibbles {
        write_nibbles(&mut sections, spec, &vectors)?;
    }
    if header.has_chunks {
        write_chunks(&mut sections, rows)?;
    }
    if let Some(bits) = bits {
        sections.begin(Section::Bits)?;
        sections.write(&bits.preamble())?;
        bits.blocks().try_for_each(|block| sections.write(block))?;
    }
    sections.finish()?;
    Ok(WrittenSegment {
        len_bytes: layout.file_len,
        rows: header.rows,
        min_seq: header.min_seq,
        max_seq: header.max_seq,
        tombstones: tombstone_count,
        has_graph: graph.is_some(),
    })
}

fn check_rows(spec: &SegmentSpec, rows: &[RowRef<'_>]) {
    for (ordinal, row) in rows.iter().enumerate() {
        let vectors = row.chunks.len().max(1);
        assert_eq!(row.vector.dim(), vectors * spec.dim as usize, "{vectors} vectors of row {ordinal}");
        if let Err(error) = decode_document_id(row.document) {
            panic!("row {ordinal}: {error}");
        }
    }
}

fn graph_header(spec: &SegmentSpec, vectors: usize, graph: &Graph) -> GraphHeader {
    let m = spec.index.m as usize;
    assert_eq!(graph.m, spec.index.m, "m of the graph");
    assert_eq!(graph.level0.len(), vectors * 2 * m, "level 0 of {vectors} vectors");
    assert_eq!(graph.upper_index.len(), vectors + 1, "upper index of {vectors} vectors");
    assert!((graph.entry as usize) < vectors, "entry point {} of {vectors} vectors", graph.entry);
    assert_eq!(graph.upper.len() % m, 0, "the upper levels are lists of {m}");
    if let Err(fault) = graph.view().check() {
        panic!("the graph is broken: {fault:?}");
    }
    let upper_lists = u32::try_from(graph.upper.len() / m).expect("the upper index counts lists in 32 bits");
    GraphHeader { entry: graph.entry, max_level: graph.max_level, upper_lists, calibration: graph.calibration }
}

fn write_vectors(
    sections: &mut SectionWriter<'_>,
    spec: &SegmentSpec,
    vectors: &[VectorRef<'_>],
) -> Result<(), SegmentError> {
    sections.begin(Section::Vectors)?;
    let (mut bytes, mut memory) = (Vec::new(), Vec::new());
    for vector in vectors {
        bytes.clear();
        let numbers = vector.read(&mut memory).iter();
        match spec.index.storage {
            VectorStorage::Float32 => bytes.extend(numbers.flat_map(|x| x.to_le_bytes())),
            VectorStorage::Float16 => bytes.extend(numbers.flat_map(|&x| half::narrow(x).to_le_bytes())),
        }
        sections.write(&bytes)?;
    }
    Ok(())
}

fn write_codes(
    sections: &mut SectionWriter<'_>,
    vectors: &[VectorRef<'_>],
    mut codes: RowCodes,
) -> Result<(), SegmentError> {
    sections.begin(Section::Codes)?;
    sections.write(&codes.preamble())?;
    let mut memory = Vec::new();
    vectors.iter().try_for_each(|vector| sections.write(codes.encode(vector.read(&mut memory))))
}

fn write_graph(sections: &mut SectionWriter<'_>, graph: &Graph) -> Result<(), SegmentError> {
    let arrays =
        [(Section::Level0, &graph.level0), (Section::UpperIndex, &graph.upper_index), (Section::Upper, &graph.upper)];
    for (section, numbers) in arrays {
        sections.begin(section)?;
        sections.write_each(numbers.iter().map(|number| number.to_le_bytes()))?;
    }
    Ok(())
}

fn write_nibbles(
    sections: &mut SectionWriter<'_>,
    spec: &SegmentSpec,
    vectors: &[VectorRef<'_>],
) -> Result<(), SegmentError> {
    let quantizer = NibbleQuantizer::fit(vectors.len(), spec.dim as usize, |vector| vectors[vector]);
    sections.begin(Section::Nibbles)?;
    let (mut bytes, mut memory) = (vec![0; nibbles::stride(spec.dim)], Vec::new());
    for vector in vectors {
        quantizer.encode(vector.read(&mut memory), &mut bytes);
        sections.write(&bytes)?;
    }
    sections.write_each(quantizer.numbers().map(f32::to_le_bytes))
}

fn write_documents(sections: &mut SectionWriter<'_>, rows: &[RowRef<'_>]) -> Result<(), SegmentError> {
    sections.begin(Section::Seqs)?;
    sections.write_each(rows.iter().map(|row| row.seq.0.to_le_bytes()))?;
    sections.begin(Section::DocumentOffsets)?;
    let mut end = 0u64;
    let ends = rows.iter().map(|row| {
        end += row.document.len() as u64;
        end
    });
    sections.write_each(std::iter::once(0).chain(ends).map(u64::to_le_bytes))?;
    sections.begin(Section::Documents)?;
    rows.iter().try_for_each(|row| sections.write(row.document))
}

/// Rows without chunks stand here with one that is nowhere.
fn write_chunks(sections: &mut SectionWriter<'_>, rows: &[RowRef<'_>]) -> Result<(), SegmentError> {
    const WHOLE: &[ChunkSpan] = &[ChunkSpan::NOWHERE];
    let chunks = |row: &RowRef<'_>| if row.chunks.is_empty() { WHOLE.to_vec() } else { row.chunks.to_vec() };
    sections.begin(Section::Chunks)?;
    let owners = (0u32..).zip(rows).flat_map(|(row, chunked)| vec![row; chunks(chunked).len()]);
    sections.write_each(owners.map(u32::to_le_bytes))?;
    let spans = rows.iter().flat_map(chunks);
    sections.write_each(spans.map(|span| {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&span.start.to_le_bytes());
        bytes[4..].copy_from_slice(&span.end.to_le_bytes());
        bytes
    }))
}

/// Writes sections to where the layout puts them, and the checksums after them.
struct SectionWriter<'a> {
    path: &'a Path,
    layout: &'a Layout,
    file: Publishing,
    checksums: BlockChecksums,
    pace: Option<Pace<'a>>,
    /// Written and not yet held against the pace.
    unpaced: u64,
}

impl<'a> SectionWriter<'a> {
    fn create(path: &'a Path, layout: &'a Layout, pace: Option<Pace<'a>>) -> Result<Self, SegmentError> {
        let (file, checksums) = (Publishing::create(path)?, BlockChecksums::new());
        Ok(Self { path, layout, file, checksums, pace, unpaced: 0 })
    }

    /// Fills the gap before `section` with zeros.
    fn begin(&mut self, section: Section) -> Result<(), SegmentError> {
        self.pad_to(self.layout.section(section).start)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.checksums.update(bytes);
        self.unpaced += bytes.len() as u64;
        if self.unpaced >= PACED_BYTES {
            self.keep_pace()?;
        }
        self.write_unchecked(bytes)
    }

    fn keep_pace(&mut self) -> Result<(), SegmentError> {
        let bytes = std::mem::take(&mut self.unpaced);
        match self.pace {
            Some(pace) if !pace.limit.pass(bytes, pace.cancel) => {
                Err(SegmentError::Cancelled { path: self.path.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Writes many small pieces through one buffer.
    fn write_each<const N: usize>(&mut self, pieces: impl Iterator<Item = [u8; N]>) -> Result<(), SegmentError> {
        const BUFFER_BYTES: usize = 1 << 16;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        for piece in pieces {
            buffer.extend_from_slice(&piece);
            if buffer.len() >= BUFFER_BYTES {
                self.write(&buffer)?;
                buffer.clear();
            }
        }
        self.write(&buffer)
    }

    fn finish(mut self) -> Result<(), SegmentError> {
        self.pad_to(self.layout.checksums)?;
        self.keep_pace()?;
        let checksums = std::mem::take(&mut self.checksums).finish();
        let mut table: Vec<u8> = checksums.iter().flat_map(|checksum| checksum.to_le_bytes()).collect();
        table.extend(crc32c(&table).to_le_bytes());
        self.write_unchecked(&table)?;
        assert_eq!(self.file.position(), self.layout.file_len, "the file is as long as its header says");
        Ok(self.file.commit()?)
    }

    fn pad_to(&mut self, offset: u64) -> Result<(), SegmentError> {
        // An absent section may begin up to one alignment before the next.
        let gap = offset.checked_sub(self.file.position()).expect("sections are written in order");
        assert!(gap < ALIGNMENT, "a section is {gap} bytes short");
        self.write(&[0; ALIGNMENT as usize][..gap as usize])
    }

    /// For the checksums themselves.
    fn write_unchecked(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.file.write_all(bytes).map_err(|e| StorageError::io(self.path, "write", e).into())
    }
}
