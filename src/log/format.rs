//! Byte layout of log files and records: docs/formats/log.md.

use std::path::Path;

use super::LogError;
use crate::storage::{Fields, crc32c};
use crate::types::Seq;

/// Largest payload of a record, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

pub(super) const FILE_MAGIC: [u8; 8] = *b"PANNRLOG";
pub(super) const FILE_VERSION: u32 = 1;
pub(super) const FILE_HEADER_BYTES: usize = 64;
pub(super) const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"RECD");
pub(super) const RECORD_HEADER_BYTES: usize = 32;
/// The newest payload version; a record says its own.
pub(super) const PAYLOAD_VERSION: u8 = 3;
/// Records begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;
const FLAGS: u32 = 0;
const CRC_COVERS_FROM: usize = 8;

/// Whose log this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The store's id, as in `FORMAT`.
    pub store_id: [u8; 16],
    /// The store's timeline, as in `MANIFEST`.
    pub timeline: u32,
}

/// What a log file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) identity: LogIdentity,
    pub(super) first_seq: Seq,
    /// Length and crc32c of the file before it; zeros where there was none.
    pub(super) previous_len: u64,
    pub(super) previous_crc: u32,
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
        bytes.extend(FILE_MAGIC);
        bytes.extend(FILE_VERSION.to_le_bytes());
        bytes.extend(FLAGS.to_le_bytes());
        bytes.extend(self.identity.store_id);
        bytes.extend(self.identity.timeline.to_le_bytes());
        bytes.extend((FILE_HEADER_BYTES as u32).to_le_bytes());
        bytes.extend(self.first_seq.0.to_le_bytes());
        bytes.extend(self.previous_len.to_le_bytes());
        bytes.extend(self.previous_crc.to_le_bytes());
        bytes.extend(crc32c(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields above make 64 bytes")
    }

    /// What marks the records of this file: the header's own checksum.
    pub(super) fn tag(&self) -> u32 {
        let [.., a, b, c, d] = self.encode();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Reads the header at the start of a file and its tag, which marks the file's records.
    pub(super) fn decode(path: &Path, file: &[u8]) -> Result<(Self, u32), LogError> {
        let bad = |reason: String| LogError::BadHeader { path: path.to_owned(), reason };
        let header = file
            .get(..FILE_HEADER_BYTES)
            .ok_or_else(|| bad(format!("it has {} bytes, its header alone has {FILE_HEADER_BYTES}", file.len())))?;
        if !header.starts_with(&FILE_MAGIC) {
            return Err(bad("it does not begin with the magic number of a log file".into()));
        }
        let fields = parse_file_header(header).expect("the header's length was checked");
        if fields.crc != fields.got_crc {
            let (expected, got) = (fields.crc, fields.got_crc);
            return Err(bad(format!("its header has checksum {got:08x}, expected {expected:08x}")));
        }
        let unsupported =
            |what, found, supported| LogError::Unsupported { path: path.to_owned(), what, found, supported };
        if fields.version != FILE_VERSION {
            return Err(unsupported("format version", fields.version, FILE_VERSION));
        }
        if fields.flags != FLAGS {
            return Err(unsupported("flags", fields.flags, FLAGS));
        }
        if fields.header_len != FILE_HEADER_BYTES as u32 {
            return Err(unsupported("header length", fields.header_len, FILE_HEADER_BYTES as u32));
        }
        Ok((fields.header, fields.crc))
    }
}

struct FileHeaderFields {
    version: u32,
    flags: u32,
    header_len: u32,
    header: FileHeader,
    crc: u32,
    got_crc: u32,
}

fn parse_file_header(header: &[u8]) -> Option<FileHeaderFields> {
    let mut fields = Fields::new(header);
    fields.bytes(FILE_MAGIC.len())?;
    let (version, flags) = (fields.u32()?, fields.u32()?);
    let identity = LogIdentity { store_id: fields.array()?, timeline: fields.u32()? };
    let header_len = fields.u32()?;
    let first_seq = Seq(fields.u64()?);
    let (previous_len, previous_crc) = (fields.u64()?, fields.u32()?);
    let (crc, got_crc) = fields.crc_of_all_before()?;
    let header = FileHeader { identity, first_seq, previous_len, previous_crc };
    Some(FileHeaderFields { version, flags, header_len, header, crc, got_crc })
}

/// The frame of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) payload_len: u32,
    pub(super) payload_crc: u32,
    pub(super) seq: Seq,
    pub(super) file_tag: u32,
    pub(super) group_index: u16,
    pub(super) kind: u8,
    pub(super) payload_version: u8,
}

impl RecordHeader {
    pub(super) fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.file_tag.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.group_index.to_le_bytes());
        bytes[30] = self.kind;
        bytes[31] = self.payload_version;
        let crc = crc32c(&bytes[CRC_COVERS_FROM..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, where its magic and checksum are right and it belongs to the file `tag`.
    pub(super) fn decode(bytes: &[u8], tag: u32) -> Option<Self> {
        Self::decode_of_any_file(bytes).filter(|header| header.file_tag == tag)
    }

    /// As [`RecordHeader::decode`], whichever file it belongs to.
    pub(super) fn decode_of_any_file(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        let mut fields = Fields::new(bytes);
        if fields.u32()? != RECORD_MAGIC || fields.u32()? != crc32c(&bytes[CRC_COVERS_FROM..]) {
            return None;
        }
        Some(Self {
            payload_len: fields.u32()?,
            payload_crc: fields.u32()?,
            seq: Seq(fields.u64()?),
            file_tag: fields.u32()?,
            group_index: fields.u16()?,
            kind: fields.u8()?,
            payload_version: fields.u8()?,
        })
    }

    /// Seq of the first record of this one's group.
    pub(super) fn group_start(&self) -> Seq {
        Seq(self.seq.0.saturating_sub(u64::from(self.group_index)))
    }

    /// Bytes from this record's start to the next one's.
    pub(super) fn record_bytes(&self) -> usize {
        record_bytes(self.payload_len as usize)
    }
}

/// Bytes of a record with a payload of `payload_len` bytes: header, payload and padding.
pub(super) fn record_bytes(payload_len: usize) -> usize {
    (RECORD_HEADER_BYTES + payload_len).next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_header() -> FileHeader {
        let identity = LogIdentity { store_id: *b"0123456789abcdef", timeline: 3 };
        FileHeader { identity, first_seq: Seq(17), previous_len: 0x1234, previous_crc: 0xdead_beef }
    }

    #[test]
    fn golden_file_header() {
        let mut expected = Vec::new();
        expected.extend(b"PANNRLOG\x01\0\0\0\0\0\0\x000123456789abcdef");
        expected.extend(b"\x03\0\0\0\x40\0\0\0\x11\0\0\0\0\0\0\0\x34\x12\0\0\0\0\0\0\xef\xbe\xad\xde");
        expected.extend(0xde54_052f_u32.to_le_bytes());
        assert_eq!(file_header().encode().as_slice(), expected);
    }

    #[test]
    fn file_header_round_trips_and_no_bit_can_flip() {
        let path = Path::new("a.log");
        let bytes = file_header().encode();
        assert_eq!(FileHeader::decode(path, &bytes).unwrap().0, file_header());
        for len in 0..bytes.len() {
            assert!(matches!(FileHeader::decode(path, &bytes[..len]), Err(LogError::BadHeader { .. })), "{len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(FileHeader::decode(path, &bytes), Err(LogError::BadHeader { .. })), "{bit}");
        }
    }

    #[test]
    fn a_newer_file_version_is_named() {
        let mut bytes = file_header().encode();
        bytes[8] = 2;
        let crc = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        let error = FileHeader::decode(Path::new("a.log"), &bytes).unwrap_err();
        assert!(matches!(error, LogError::Unsupported { found: 2, supported: 1, .. }), "{error}");
    }

    #[test]
    fn record_header_round_trips_and_no_bit_can_flip() {
        let header = RecordHeader {
            payload_len: 5,
            payload_crc: 0xabad_cafe,
            seq: Seq(9),
            file_tag: 0x0102_0304,
            group_index: 2,
            kind: 3,
            payload_version: 1,
        };
        let bytes = header.encode();
        assert_eq!(&bytes[..4], b"RECD");
        assert_eq!(&bytes[8..], b"\x05\0\0\0\xfe\xca\xad\xab\x09\0\0\0\0\0\0\0\x04\x03\x02\x01\x02\0\x03\x01");
        assert_eq!(RecordHeader::decode(&bytes, 0x0102_0304), Some(header));
        assert_eq!(RecordHeader::decode(&bytes, 0x0102_0305), None, "a record of another file");
        assert_eq!((header.group_start(), header.record_bytes()), (Seq(7), 40));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bytes, 0x0102_0304), None, "{bit}");
        }
    }
}
