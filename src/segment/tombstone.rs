//! Tombstones: deletions that must outlive the log, so that an older copy of the document never returns.

use crate::types::{DocumentId, Seq};

/// One deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The document that was deleted.
    pub id: DocumentId,
    /// The change that deleted it.
    pub seq: Seq,
}

/// Bytes before the id: seq and length.
const ID_START: usize = 12;

/// Tombstones as a segment holds them: in ascending order of ids, the last delete of each id.
pub(super) fn encode(tombstones: &[Tombstone]) -> (u32, Vec<u8>) {
    let mut sorted: Vec<&Tombstone> = tombstones.iter().collect();
    sorted.sort_by(|a, b| a.id.cmp(&b.id).then(b.seq.cmp(&a.seq)));
    sorted.dedup_by(|a, b| a.id == b.id);
    let mut bytes = Vec::new();
    for tombstone in &sorted {
        let id = tombstone.id.as_str().as_bytes();
        bytes.extend(tombstone.seq.0.to_le_bytes());
        bytes.extend((id.len() as u32).to_le_bytes());
        bytes.extend(id);
    }
    (sorted.len() as u32, bytes)
}

/// # Errors
/// The position of the first byte that is wrong, and what is wrong there.
pub(super) fn decode(bytes: &[u8], count: u32) -> Result<Vec<Tombstone>, (usize, String)> {
    let mut tombstones: Vec<Tombstone> = Vec::new();
    let mut left = bytes;
    for _ in 0..count {
        let at = bytes.len() - left.len();
        let (tombstone, rest) = decode_one(left).map_err(|reason| (at, reason))?;
        if tombstones.last().is_some_and(|last| last.id >= tombstone.id) {
            return Err((at, "tombstones are not in ascending order of ids".to_owned()));
        }
        tombstones.push(tombstone);
        left = rest;
    }
    if left.is_empty() { Ok(tombstones) } else { Err((bytes.len() - left.len(), "bytes follow the tombstones".into())) }
}

fn decode_one(bytes: &[u8]) -> Result<(Tombstone, &[u8]), String> {
    let (start, rest) = bytes.split_first_chunk::<ID_START>().ok_or("a tombstone is cut")?;
    let (seq, len) = start.split_first_chunk::<8>().ok_or("a tombstone is cut")?;
    let len = len.try_into().map(u32::from_le_bytes).map_err(|_| "a tombstone is cut")? as usize;
    let (id, rest) = rest.split_at_checked(len).ok_or("a tombstone's id reaches beyond the section")?;
    let id = std::str::from_utf8(id).map_err(|e| e.to_string())?;
    let id = DocumentId::new(id).map_err(|e| e.to_string())?;
    Ok((Tombstone { id, seq: Seq(u64::from_le_bytes(*seq)) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(id: &str, seq: u64) -> Tombstone {
        Tombstone { id: DocumentId::new(id).unwrap(), seq: Seq(seq) }
    }

    #[test]
    fn the_last_delete_of_each_id_is_kept_in_order() {
        let (count, bytes) = encode(&[tombstone("b", 7), tombstone("a", 3), tombstone("b", 9)]);
        assert_eq!(bytes, b"\x03\0\0\0\0\0\0\0\x01\0\0\0a\x09\0\0\0\0\0\0\0\x01\0\0\0b");
        assert_eq!(decode(&bytes, count).unwrap(), [tombstone("a", 3), tombstone("b", 9)]);
        assert_eq!(decode(&[], 0).unwrap(), []);
    }

    #[test]
    fn every_truncation_and_wrong_count_is_an_error() {
        let (count, bytes) = encode(&[tombstone("ключ", 7), tombstone("a", 3)]);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], count).is_err(), "{len}");
        }
        assert!(decode(&bytes, count - 1).is_err());
        assert!(decode(&bytes, count + 1).is_err());
        assert!(decode(&bytes, u32::MAX).is_err());
    }

    #[test]
    fn order_is_checked() {
        let (_, a) = encode(&[tombstone("a", 1)]);
        let (_, b) = encode(&[tombstone("b", 1)]);
        let (at, _) = decode(&[b, a].concat(), 2).unwrap_err();
        assert_eq!(at, 13);
    }
}
