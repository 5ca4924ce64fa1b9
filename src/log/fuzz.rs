//! The log's readers over any bytes.

use std::path::Path;

use super::format::{FileHeader, LogIdentity};
use super::survey::{damaged_ranges, is_torn, record_at};
use super::{EncodedRecord, payload};
use crate::types::Seq;

/// A file's records, what is damaged in it, and the payload of any kind and version. What can be read can be written
/// and read again.
pub fn log(bytes: &[u8]) {
    let tag = match FileHeader::decode(Path::new("fuzz"), bytes) {
        Ok((header, tag)) => {
            assert_eq!(header.encode()[..], bytes[..header.encode().len()], "a header is what its fields say");
            tag
        }
        // The rest is read as if the header were good.
        Err(_) => {
            let identity = LogIdentity { store_id: [0; 16], timeline: 1 };
            FileHeader { identity, first_seq: Seq(1), previous_len: 0, previous_crc: 0 }.tag()
        }
    };
    let mut offset = 0;
    while let Some(Ok((header, payload))) = (offset < bytes.len()).then(|| record_at(bytes, offset, tag)) {
        _ = payload::decode(header.payload_version, header.kind, payload);
        offset += header.record_bytes();
    }
    _ = is_torn(bytes, offset.min(bytes.len()), tag, Seq(1));
    let ranges = damaged_ranges(bytes, 0, tag);
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= bytes.len() as u64));
    let [version, kind, rest @ ..] = bytes else { return };
    if let Ok(change) = payload::decode(version % 3, kind % 6, rest) {
        EncodedRecord::new(&change).expect("what was read from a record fits into one");
    }
}
