//! The reader of cached vectors over any bytes.

use super::format::{HEADER_BYTES, Header, RECORD_BYTES, Record};
use super::table::WAYS;
use super::{Key, Known, PART_NUMBERS, VectorCache};
use crate::storage::crc32c;
use crate::storage::fuzz::with_file;

/// Slots of the largest file that is read: what its header asks of memory beyond them is no reader's.
const MOST_SLOTS: u64 = 64;
/// Where a header has its slots.
const SLOTS: std::ops::Range<usize> = 16..24;

/// The bytes as a cache's file, with checksums put right so that what they protect is read too, and as one record. It
/// gives what a file of its own would: a vector that is put in is found as it was, and whatever is found of another key
/// is whole. Whether it is such a file.
pub fn cache(bytes: &[u8]) -> bool {
    let file = checked(bytes);
    _ = Record::decode(bytes);
    with_file(&file, |path| {
        let Some(cache) = VectorCache::new(path.to_owned(), None) else { return false };
        for dim in [1, PART_NUMBERS, 2 * PART_NUMBERS] {
            let key = Key::new("fuzz", "", &dim.to_string());
            if let Some(known) = cache.get(&key, dim) {
                assert_eq!(known.vector.len(), dim);
            }
            let known = Known { vector: vec![0.5; dim], tokens: dim, truncated: false };
            cache.put(&key, &known);
            // One of two parts may stand where the other is put.
            assert!(dim > PART_NUMBERS || cache.get(&key, dim) == Some(known), "{dim} numbers");
        }
        Header::decode(&file).is_some()
    })
}

/// The bytes with few slots and right checksums.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    let Some(slots) = file.get(SLOTS).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes) else {
        return file;
    };
    let slots = slots % (MOST_SLOTS + 1);
    file[SLOTS].copy_from_slice(&slots.to_le_bytes());
    if file.len() < HEADER_BYTES {
        return file;
    }
    let checksum = crc32c(&file[..HEADER_BYTES - 4]);
    file[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    let slots = slots as usize / WAYS * WAYS;
    let header = Header { slots };
    for slot in 0..slots {
        let start = header.record_offset(slot) as usize;
        let Some(record) = file.get_mut(start..start + RECORD_BYTES) else { break };
        let checksum = crc32c(&record[4..]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
    }
    file
}
