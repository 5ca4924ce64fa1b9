//! Keys and values in sled. Layout: `docs/formats/meta.md`.

use crate::types::{CollectionId, DocumentId, SegmentId, Seq};

use super::Location;

const DOCUMENT: u8 = b'd';
const MARKER: u8 = b's';
/// Kind and collection.
const HEAD_BYTES: usize = 5;
/// Segment, ordinal, seq, crc32c.
const VALUE_BYTES: usize = 24;

/// Keys of documents: kind, collection (big-endian, so that collections stay apart in key order), id.
pub struct Key;

/// What the keys of a kind and a collection begin with.
pub fn head(kind: u8, collection: CollectionId) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(collection.0.to_be_bytes());
    key
}

impl Key {
    pub fn document(collection: CollectionId, id: &DocumentId) -> Vec<u8> {
        let mut key = Self::first(collection);
        key.extend(id.as_str().as_bytes());
        key
    }

    /// Not above any document's key, and above everything before the collection.
    pub fn first(collection: CollectionId) -> Vec<u8> {
        head(DOCUMENT, collection)
    }

    /// The least key above `id`'s.
    pub fn after(collection: CollectionId, id: &DocumentId) -> Vec<u8> {
        let mut key = Self::document(collection, id);
        key.push(0);
        key
    }

    /// Above every document's key: 0xff begins no UTF-8.
    pub fn end(collection: CollectionId) -> Vec<u8> {
        let mut key = Self::first(collection);
        key.push(0xff);
        key
    }

    pub fn id(key: &[u8]) -> Option<DocumentId> {
        DocumentId::new(std::str::from_utf8(key.get(HEAD_BYTES..)?).ok()?).ok()
    }
}

/// Keys that say "this segment's rows are in".
pub struct Marker;

impl Marker {
    pub const PREFIX: [u8; 1] = [MARKER];

    pub fn prefix(collection: CollectionId) -> Vec<u8> {
        head(MARKER, collection)
    }

    pub fn encode(collection: CollectionId, segment: SegmentId) -> Vec<u8> {
        let mut key = Self::prefix(collection);
        key.extend(segment.0.to_be_bytes());
        key
    }

    pub fn decode(key: &[u8]) -> Option<(CollectionId, SegmentId)> {
        let rest: &[u8; 12] = key.strip_prefix(&Self::PREFIX)?.try_into().ok()?;
        let (collection, segment) = rest.split_at(4);
        Some((
            CollectionId(u32::from_be_bytes(collection.try_into().ok()?)),
            SegmentId(u64::from_be_bytes(segment.try_into().ok()?)),
        ))
    }
}

/// The checksum is over key and value, so that a value under another key is found out.
fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

pub fn encode(key: &[u8], location: &Location) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    value[..8].copy_from_slice(&location.segment.0.to_le_bytes());
    value[8..12].copy_from_slice(&location.ordinal.to_le_bytes());
    value[12..20].copy_from_slice(&location.seq.0.to_le_bytes());
    let crc = checksum(key, &value[..20]);
    value[20..].copy_from_slice(&crc.to_le_bytes());
    value
}

pub fn decode(key: &[u8], value: &[u8]) -> Option<Location> {
    let value: &[u8; VALUE_BYTES] = value.try_into().ok()?;
    let crc = u32::from_le_bytes(value[20..].try_into().ok()?);
    if crc != checksum(key, &value[..20]) {
        return None;
    }
    Some(Location {
        segment: SegmentId(u64::from_le_bytes(value[..8].try_into().ok()?)),
        ordinal: u32::from_le_bytes(value[8..12].try_into().ok()?),
        seq: Seq(u64::from_le_bytes(value[12..20].try_into().ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_collection_then_id() {
        let id = |s| DocumentId::new(s).unwrap();
        let keys = [
            Key::first(CollectionId(1)),
            Key::document(CollectionId(1), &id("a")),
            Key::after(CollectionId(1), &id("a")),
            Key::document(CollectionId(1), &id("a!")),
            Key::document(CollectionId(1), &id("я\u{10ffff}")),
            Key::end(CollectionId(1)),
            Key::first(CollectionId(256)),
        ];
        assert!(keys.is_sorted());
        assert_eq!(Key::id(&keys[4]), Some(id("я\u{10ffff}")));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let key = Key::document(CollectionId(1), &DocumentId::new("a").unwrap());
        let location = Location { segment: SegmentId(7), ordinal: 9, seq: Seq(11) };
        let value = encode(&key, &location);
        assert_eq!(decode(&key, &value), Some(location));
        for bit in 0..value.len() * 8 {
            let mut bad = value;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&key, &bad), None, "bit {bit}");
        }
        assert_eq!(decode(b"other", &value), None);
    }

    #[test]
    fn markers_round_trip() {
        let key = Marker::encode(CollectionId(3), SegmentId(4));
        assert_eq!(Marker::decode(&key), Some((CollectionId(3), SegmentId(4))));
        assert_eq!(Marker::decode(&key[1..]), None);
    }
}
