//! The readers of segments and of dead rows over any bytes.

use std::path::Path;

use super::error::{u32_at, u64_at};
use super::format::{HEADER_BYTES, HEADER_CHECKSUM, Header, Section};
use super::{DeadRows, Segment, WalkOptions};
use crate::distance::VectorQuery;
use crate::storage::fuzz::with_file;
use crate::storage::{BLOCK_BYTES, crc32c};
use crate::types::SegmentId;

/// Where a segment's header and that of dead rows have the file's length.
const FILE_LEN: usize = 16;
/// Longest file that is made after a header's numbers: two blocks and their checksums.
const MOST_BYTES: u64 = 2 * BLOCK_BYTES as u64 + 12;
/// Rows of which every part is read.
const ROWS: u32 = 64;

/// The bytes as a segment and as dead rows, with lengths and checksums put right so that what they protect is read too;
/// and the segment that the header's numbers describe, its offsets and its padding put right as well. Whether one of
/// them is sound as a whole.
pub fn segment(bytes: &[u8]) -> bool {
    let is_segment = |file: Vec<u8>| with_file(&file, |path| read_segment(path, &file));
    let dead_rows = checked_dead_rows(bytes);
    let read = [
        is_segment(checked_segment(bytes)),
        with_file(&dead_rows, |path| read_dead_rows(path, &dead_rows)),
        laid_out(bytes).is_some_and(is_segment),
    ];
    read.contains(&true)
}

fn checked_segment(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    // The checksums of the blocks, and theirs.
    let blocks = file.len().saturating_sub(4).div_ceil(BLOCK_BYTES + 4);
    let Some(covered) = file.len().checked_sub(4 * blocks + 4).filter(|&covered| covered >= HEADER_BYTES) else {
        return file;
    };
    file[FILE_LEN..FILE_LEN + 8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    let crc = crc32c(&file[..HEADER_CHECKSUM]);
    file[HEADER_CHECKSUM..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    file.truncate(covered);
    end_with_checksums(&mut file);
    file
}

/// Appends what covers all that is there.
fn end_with_checksums(file: &mut Vec<u8>) {
    let table: Vec<u8> = file.chunks(BLOCK_BYTES).flat_map(|block| crc32c(block).to_le_bytes()).collect();
    file.extend(&table);
    file.extend(crc32c(&table).to_le_bytes());
}

/// `None` where the header's numbers are none, or ask for a long file.
fn laid_out(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = Header::read(bytes.get(..HEADER_BYTES)?, u32_at(bytes, 12)).ok()?;
    header.check_ranges(MOST_BYTES).ok()?;
    let layout = header.layout();
    if layout.file_len > MOST_BYTES {
        return None;
    }
    let mut file = [&header.encode(), &bytes[HEADER_BYTES..]].concat();
    file.resize(layout.checksums as usize, 0);
    for section in Section::ALL {
        let gap = layout.gap_before(section);
        file[gap.start as usize..gap.end as usize].fill(0);
    }
    end_with_checksums(&mut file);
    Some(file)
}

fn read_segment(path: &Path, _: &[u8]) -> bool {
    let Ok(segment) = Segment::open_any(path) else { return false };
    _ = segment.tombstones();
    _ = segment.sound_graph();
    for row in 0..segment.rows().min(ROWS) {
        _ = segment.document(row);
        _ = segment.vectors(row);
        _ = segment.chunks(row);
        _ = segment.seq(row);
    }
    if segment.verify(|_| {}).is_err() {
        return false;
    }
    let query = VectorQuery::new(segment.spec().metric, vec![1.0; segment.dim()]);
    let (options, mut found) = (WalkOptions { top_k: 10, ef: 20 }, Vec::new());
    segment.search(&query, options, |_| true, &mut found).expect("what is sound can be searched");
    segment.scan(&query, 10, |_| true, &mut found).expect("what is sound can be scanned");
    assert!(found.iter().all(|found| found.ordinal < segment.vector_count()), "{found:?}");
    true
}

fn checked_dead_rows(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    if let Some(content) = file.len().checked_sub(4).filter(|&content| content >= FILE_LEN + 8) {
        file[FILE_LEN..FILE_LEN + 8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        let crc = crc32c(&file[..content]);
        file[content..].copy_from_slice(&crc.to_le_bytes());
    }
    file
}

fn read_dead_rows(path: &Path, bytes: &[u8]) -> bool {
    if bytes.len() < FILE_LEN + 8 + 12 {
        return false;
    }
    let (segment, rows) = (SegmentId(u64_at(bytes, 24)), u32_at(bytes, 32));
    let Ok(dead) = DeadRows::read(path, segment, rows) else { return false };
    assert_eq!(dead.encode(segment), bytes, "there is one way to write them");
    true
}
