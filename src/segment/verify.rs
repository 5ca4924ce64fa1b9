//! The whole check of a segment: every byte against its checksum, every invariant of the format.

use super::codes::RowCodes;
use super::document::decode_document;
use super::error::SegmentError;
use super::format::Section;
use super::graph::{GraphArray, GraphFault, GraphView};
use super::nibbles;
use super::reader::Segment;
use super::scan_bits::BlockEncoder;
use crate::distance::BLOCK_ROWS;
use crate::storage::BLOCK_BYTES;
use crate::types::Ordinal;

/// Blocks between two reports of progress.
const REPORT_BLOCKS: usize = 64;

impl Segment {
    /// Reads everything and checks it. `progress` is called now and then with the bytes read so far.
    ///
    /// Blocks that were read before are not read again, so open the segment anew to check the disk.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] names the first thing that is wrong.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<(), SegmentError> {
        self.verify_blocks(&mut progress)?;
        self.verify_gaps()?;
        self.verify_rows()?;
        self.verify_vectors()?;
        self.verify_nibbles()?;
        self.verify_bits()?;
        self.release();
        self.verify_seqs()?;
        self.verify_graph()
    }

    /// Compares every block with its checksum, and looks at nothing else. `progress` as in [`Segment::verify`].
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] names the first block that is wrong.
    pub fn verify_blocks(&self, progress: &mut dyn FnMut(u64)) -> Result<(), SegmentError> {
        let len = self.covered_bytes();
        for start in (0..len).step_by(REPORT_BLOCKS * BLOCK_BYTES) {
            let end = len.min(start + REPORT_BLOCKS * BLOCK_BYTES);
            self.ensure(start..end)?;
            progress(end as u64);
        }
        Ok(())
    }

    fn verify_gaps(&self) -> Result<(), SegmentError> {
        for section in Section::ALL {
            let gap = self.gap_before(section)?;
            if gap.iter().any(|&byte| byte != 0) {
                return Err(self.damaged(section, 0, "the padding before this section is not zero"));
            }
        }
        Ok(())
    }

    fn verify_rows(&self) -> Result<(), SegmentError> {
        let offsets = self.numbers::<u64>(Section::DocumentOffsets, 0..self.rows() as usize + 1)?;
        if offsets[0] != 0 || offsets[offsets.len() - 1] != self.header.documents_bytes {
            return Err(self.damaged(Section::DocumentOffsets, 0, "the documents do not fill their section"));
        }
        for ordinal in 0..self.rows() {
            if let Err(error) = decode_document(self.document_frame(ordinal)?) {
                return Err(self.damaged(Section::Documents, 0, format!("row {ordinal}: {error}")));
            }
        }
        Ok(())
    }

    fn verify_nibbles(&self) -> Result<(), SegmentError> {
        let Some(quantizer) = self.nibble_quantizer()? else { return Ok(()) };
        let (mut expected, mut memory) = (vec![0; nibbles::stride(self.header.spec.dim)], Vec::new());
        for ordinal in 0..self.vector_count() {
            quantizer.encode(self.vector_at(ordinal)?.read(&mut memory), &mut expected);
            if self.nibbles(ordinal)? != expected {
                let reason = format!("the nibbles of vector {ordinal} are not its own");
                return Err(self.damaged(Section::Nibbles, expected.len() * ordinal as usize, reason));
            }
        }
        Ok(())
    }

    fn verify_bits(&self) -> Result<(), SegmentError> {
        let Some(quantizer) = self.scan_bits()? else { return Ok(()) };
        let preamble = quantizer.preamble();
        if self.bytes(Section::Bits, 0..preamble.len())? != preamble {
            return Err(self.damaged(Section::Bits, 0, "the padding after the center is not zero"));
        }
        let (mut start, mut encoder) = (preamble.len(), BlockEncoder::new(quantizer));
        for first in (0..self.vector_count()).step_by(BLOCK_ROWS) {
            let rows = first..self.vector_count().min(first + BLOCK_ROWS as Ordinal);
            let vectors = rows.map(|ordinal| self.vector_at(ordinal)).collect::<Result<Vec<_>, _>>()?;
            let expected = encoder.encode(&vectors);
            if self.bytes(Section::Bits, start..start + expected.len())? != expected {
                let reason = format!("the bits of vectors {first} and those after it are not their own");
                return Err(self.damaged(Section::Bits, start, reason));
            }
            start += expected.len();
        }
        Ok(())
    }

    fn verify_vectors(&self) -> Result<(), SegmentError> {
        self.check_owners()?;
        let (mut codes, mut memory) = (RowCodes::of(self)?, Vec::new());
        if let Some(codes) = &codes {
            let preamble = codes.preamble();
            if self.bytes(Section::Codes, 0..preamble.len())? != preamble {
                return Err(self.damaged(Section::Codes, 0, "the padding after the center is not zero"));
            }
        }
        (0..self.vector_count()).try_for_each(|ordinal| self.verify_vector(ordinal, codes.as_mut(), &mut memory))
    }

    /// `memory`: for the vector.
    fn verify_vector(
        &self,
        ordinal: Ordinal,
        codes: Option<&mut RowCodes>,
        memory: &mut Vec<f32>,
    ) -> Result<(), SegmentError> {
        let vector = self.vector_at(ordinal)?.read(memory);
        if !vector.iter().all(|x| x.is_finite()) {
            return Err(self.damaged(Section::Vectors, 0, format!("vector {ordinal} is not finite")));
        }
        if let Some(codes) = codes
            && self.code_bytes(ordinal, codes)? != codes.encode(vector)
        {
            return Err(self.damaged(Section::Codes, 0, format!("the codes of vector {ordinal} are not its own")));
        }
        Ok(())
    }

    fn verify_seqs(&self) -> Result<(), SegmentError> {
        let rows = self.numbers::<u64>(Section::Seqs, 0..self.rows() as usize)?;
        let tombstones = self.tombstones()?;
        let seqs = || rows.iter().copied().chain(tombstones.iter().map(|tombstone| tombstone.seq.0));
        let (min, max) = (seqs().min().unwrap_or(0), seqs().max().unwrap_or(0));
        if (min, max) != (self.min_seq().0, self.max_seq().0) {
            let reason = format!("seqs are {min} to {max}, the header says {} to {}", self.min_seq(), self.max_seq());
            return Err(self.damaged(Section::Seqs, 0, reason));
        }
        Ok(())
    }

    fn verify_graph(&self) -> Result<(), SegmentError> {
        let Some(graph) = self.sound_graph()? else { return Ok(()) };
        let (reachable, rows) = (graph.reachable(), self.vector_count());
        if reachable != rows {
            let reason = format!("{} of {rows} vectors cannot be reached by a search", rows - reachable);
            return Err(self.damaged(Section::Level0, 0, reason));
        }
        Ok(())
    }

    /// The graph, every list of which was read and checked; `None` where the segment has none.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`].
    pub fn sound_graph(&self) -> Result<Option<GraphView<'_>>, SegmentError> {
        let Some(graph) = self.graph()? else { return Ok(None) };
        graph.check().map_err(|fault| self.graph_fault(&fault))?;
        Ok(Some(graph))
    }

    fn graph_fault(&self, fault: &GraphFault) -> SegmentError {
        let section = match fault.array {
            GraphArray::Level0 => Section::Level0,
            GraphArray::UpperIndex => Section::UpperIndex,
            GraphArray::Upper => Section::Upper,
        };
        self.damaged(section, 4 * fault.index, fault.reason)
    }
}
