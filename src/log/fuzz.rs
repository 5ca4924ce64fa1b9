//! The log's readers over any bytes.

use std::path::Path;

use super::format::{FILE_HEADER_BYTES, FileHeader, LogIdentity, RECORD_HEADER_BYTES, record_bytes};
use super::relabel::Closed;
use super::survey::{damaged_ranges, is_torn, record_at};
use super::{Change, EncodedRecord, payload};
use crate::storage::crc32c;
use crate::types::Seq;

/// A file's records and what is damaged in it, as they are and with their checksums put right; and the payload of any
/// kind and version. What can be read can be written and read again. Whether the file, as it is, is a whole log, or the
/// payload is one.
pub fn log(bytes: &[u8]) -> bool {
    let is_whole = file(bytes);
    file(&checked(bytes));
    let [version, kind, payload @ ..] = bytes else { return is_whole };
    // One version and one kind beyond those that there are, on both sides.
    let change = payload::decode(version % 5, kind % 6, payload);
    change.as_ref().is_ok_and(can_be_written) || is_whole
}

/// Whether a file is a log whose every record can be read.
fn file(bytes: &[u8]) -> bool {
    let header = FileHeader::decode(Path::new("fuzz"), bytes);
    let tag = match &header {
        Ok((header, tag)) => {
            assert_eq!(header.encode()[..], bytes[..FILE_HEADER_BYTES], "a header is what its fields say");
            *tag
        }
        // The rest is read as if the header were good.
        Err(_) => {
            let identity = LogIdentity { store_id: [0; 16], timeline: 1 };
            FileHeader { identity, first_seq: Seq(1), previous_len: 0, previous_crc: 0 }.tag()
        }
    };
    let (begin, mut good) = (FILE_HEADER_BYTES.min(bytes.len()), 0);
    let (mut offset, mut records) = (begin, 0);
    while let Some(Ok((header, payload))) = (offset < bytes.len()).then(|| record_at(bytes, offset, tag)) {
        let change = payload::decode(header.payload_version, header.kind, payload);
        good += usize::from(change.as_ref().is_ok_and(can_be_written));
        records += 1;
        offset += header.record_bytes();
    }
    _ = Closed::new(Path::new("fuzz"), bytes).and_then(|closed| closed.each_record(&mut |_, _| Ok(())));
    _ = is_torn(bytes, offset.min(bytes.len()), tag, Seq(1));
    let ranges = damaged_ranges(bytes, begin, tag);
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= bytes.len() as u64), "{ranges:?}");
    header.is_ok() && offset == bytes.len() && good == records && records > 0
}

/// The file with the checksums of its header, its records and their payloads put right.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    if file.len() < FILE_HEADER_BYTES {
        return file;
    }
    let tag = crc32c(&file[..FILE_HEADER_BYTES - 4]).to_le_bytes();
    file[FILE_HEADER_BYTES - 4..FILE_HEADER_BYTES].copy_from_slice(&tag);
    let mut at = FILE_HEADER_BYTES;
    while let Some([a, b, c, d]) = file.get(at + 8..at + 12) {
        let payload_len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let Some(payload) = file.get(at + RECORD_HEADER_BYTES..at + RECORD_HEADER_BYTES + payload_len) else { break };
        let payload_crc = crc32c(payload).to_le_bytes();
        file[at + 12..at + 16].copy_from_slice(&payload_crc);
        file[at + 24..at + 28].copy_from_slice(&tag);
        let crc = crc32c(&file[at + 8..at + RECORD_HEADER_BYTES]).to_le_bytes();
        file[at + 4..at + 8].copy_from_slice(&crc);
        at += record_bytes(payload_len);
    }
    file
}

/// Always `true`: panics where a change cannot be written and read again as the same bytes.
fn can_be_written(change: &Change) -> bool {
    let encode = |change: &Change| {
        let mut bytes = Vec::new();
        payload::encode(change, &mut bytes).expect("what was read can be written");
        bytes
    };
    let (kind, bytes) = (payload::kind(change), encode(change));
    let again = payload::decode(payload::version(kind), kind, &bytes).expect("what was written can be read");
    assert_eq!(encode(&again), bytes, "there is one way to write a change");
    EncodedRecord::new(change).expect("what was read from a record fits into one");
    true
}
