//! The cache's bytes: header, tags, records. docs/formats/cache.md is their description.

use super::table::WAYS;
use super::{Key, Known};
use crate::storage::{Fields, crc32c};

const MAGIC: &[u8; 8] = b"PANNVCAC";
const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 64;
/// Bytes of a record before its numbers.
const RECORD_HEAD_BYTES: usize = 64;
/// Numbers that a record holds; a longer vector takes several.
pub(super) const PART_NUMBERS: usize = 384;
pub(super) const RECORD_BYTES: usize = RECORD_HEAD_BYTES + 4 * PART_NUMBERS;
/// Where the records may begin: at a page.
const ALIGNMENT: usize = 4_096;
const TRUNCATED: u16 = 1;
/// Longest file that is made or read: its tags take 5 GiB of memory.
const MAX_BYTES: u64 = 1 << 40;

/// How large a cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Records that it has room for, a multiple of [`WAYS`].
    pub slots: usize,
}

impl Header {
    /// The largest cache whose file has at most `max_bytes`, and at most 1 TiB; `None` where that is too little for one
    /// set of slots.
    pub(super) fn of_size(max_bytes: u64) -> Option<Self> {
        let room =
            usize::try_from(max_bytes.min(MAX_BYTES)).unwrap_or(usize::MAX).checked_sub(HEADER_BYTES + ALIGNMENT)?;
        let slots = room / (8 + RECORD_BYTES) / WAYS * WAYS;
        (slots > 0).then_some(Self { slots })
    }

    /// The header's bytes.
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.slots as u64).to_le_bytes());
        bytes[24..28].copy_from_slice(&(RECORD_BYTES as u32).to_le_bytes());
        let checksum = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` where it is another version's, damaged, or of more slots than are ever made.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let mut fields = Fields::new(bytes);
        let (magic, version, flags) = (fields.array::<8>()?, fields.u32()?, fields.u32()?);
        let (slots, record_bytes, padding) = (fields.u64()?, fields.u32()?, fields.array::<32>()?);
        let (expected, got) = fields.crc_of_all_before()?;
        let is_ours = magic == *MAGIC && version == VERSION && flags == 0 && padding == [0; 32];
        let is_whole = expected == got && record_bytes as usize == RECORD_BYTES;
        let slots = usize::try_from(slots).ok().filter(|slots| *slots > 0 && slots.is_multiple_of(WAYS))?;
        let is_allowed = slots <= Self::of_size(MAX_BYTES)?.slots;
        (is_ours && is_whole && is_allowed).then_some(Self { slots })
    }

    /// Where the tags end.
    pub(super) fn table_end(self) -> usize {
        HEADER_BYTES + 8 * self.slots
    }

    /// Where a slot's tag stands.
    pub(super) fn tag_offset(self, slot: usize) -> u64 {
        (HEADER_BYTES + 8 * slot) as u64
    }

    /// Where a slot's record stands.
    pub(super) fn record_offset(self, slot: usize) -> u64 {
        (self.table_end().next_multiple_of(ALIGNMENT) + slot * RECORD_BYTES) as u64
    }
}

/// A vector, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub key: Key,
    /// Numbers of the whole vector.
    pub dim: u32,
    /// Which part of it this is, from 0.
    pub part: u16,
    /// Tokens that the model read of the text.
    pub tokens: u32,
    /// Whether the text was longer than that.
    pub truncated: bool,
    /// Shape `[PART_NUMBERS]`, zeros behind the vector's end.
    pub numbers: Vec<f32>,
}

impl Record {
    /// The bytes of part `part` of a vector. `numbers`: at most [`PART_NUMBERS`].
    pub(super) fn encode(key: &Key, part: u16, known: &Known, numbers: &[f32]) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[4..8].copy_from_slice(&(known.vector.len() as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&(known.tokens as u32).to_le_bytes());
        bytes[12..14].copy_from_slice(&part.to_le_bytes());
        bytes[14..16].copy_from_slice(&(if known.truncated { TRUNCATED } else { 0 }).to_le_bytes());
        bytes[16..48].copy_from_slice(&key.0);
        for (bytes, number) in bytes[RECORD_HEAD_BYTES..].chunks_exact_mut(4).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a record; `None` where it is damaged or was never written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_BYTES)?;
        let mut fields = Fields::new(bytes);
        if fields.u32()? != crc32c(&bytes[4..]) {
            return None;
        }
        let (dim, tokens, part, flags) = (fields.u32()?, fields.u32()?, fields.u16()?, fields.u16()?);
        let (key, padding) = (Key(fields.array()?), fields.array::<16>()?);
        if flags & !TRUNCATED != 0 || padding != [0; 16] {
            return None;
        }
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("a chunk of four"));
        let numbers = fields.remaining().chunks_exact(4).map(number).collect();
        Some(Self { key, dim, part, tokens, truncated: flags == TRUNCATED, numbers })
    }
}
