//! Reads records out of a file's bytes, and judges bytes that are none.

use std::ops::Range;

use super::format::{ALIGNMENT, MAX_PAYLOAD_BYTES, RECORD_HEADER_BYTES, RecordHeader};
use crate::storage::crc32c;
use crate::types::Seq;

/// The record at `offset` of a file with the tag `tag`: its frame and payload, with every checksum right.
///
/// # Errors
/// What is wrong with the bytes there.
pub(super) fn record_at(file: &[u8], offset: usize, tag: u32) -> Result<(RecordHeader, &[u8]), &'static str> {
    let bytes = &file[offset..];
    let header = RecordHeader::decode(bytes, tag).ok_or("no record begins here")?;
    let payload_len = header.payload_len as usize;
    if payload_len > MAX_PAYLOAD_BYTES {
        return Err("the record is longer than any record can be");
    }
    let record = bytes.get(..header.record_bytes()).ok_or("the record is longer than the file")?;
    let (payload, padding) = record[RECORD_HEADER_BYTES..].split_at(payload_len);
    if padding.iter().any(|&byte| byte != 0) {
        return Err("the padding is not zero");
    }
    if crc32c(payload) != header.payload_crc {
        return Err("the payload's checksum does not match");
    }
    Ok((header, payload))
}

/// Whether bytes from `offset` on, where the record `expected` cannot be read, can be what a crash left of the last
/// group. They cannot if a later group follows: it was begun only after the one before it had been synced.
pub(super) fn is_torn(file: &[u8], offset: usize, tag: u32, expected: Seq) -> bool {
    // A header is stamped only on a record of an allowed length, so this one was not torn but written by another
    // program.
    let impossible = |header: &RecordHeader| header.payload_len as usize > MAX_PAYLOAD_BYTES;
    !headers(file, offset, tag)
        .any(|(at, header)| header.group_start() > expected || (at == offset && impossible(&header)))
}

/// The parts of a file from `offset` on in which no record can be read.
pub(super) fn damaged_ranges(file: &[u8], offset: usize, tag: u32) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut bad_from = offset;
    while bad_from < file.len() {
        let good = headers(file, bad_from, tag).find(|&(at, _)| record_at(file, at, tag).is_ok());
        let good_from = good.map_or(file.len(), |(at, _)| at);
        if bad_from < good_from {
            ranges.push(bad_from as u64..good_from as u64);
        }
        bad_from = good_from;
        while bad_from < file.len() {
            let Ok((header, _)) = record_at(file, bad_from, tag) else { break };
            bad_from += header.record_bytes();
        }
    }
    ranges
}

/// Every aligned place from `offset` on where a record's header stands with a right checksum and tag.
fn headers(file: &[u8], offset: usize, tag: u32) -> impl Iterator<Item = (usize, RecordHeader)> {
    (offset..file.len()).step_by(ALIGNMENT).filter_map(move |at| Some((at, RecordHeader::decode(&file[at..], tag)?)))
}
