//! A record ready to be written: encoded by the caller's thread, numbered by the writer's.

use super::format::{MAX_PAYLOAD_BYTES, RECORD_HEADER_BYTES, RecordHeader, record_bytes};
use super::{Change, LogError, payload};
use crate::storage::crc32c;
use crate::types::Seq;

/// A change as the bytes of its record, all but seq, file tag and group index, which only the writer knows.
#[derive(Clone, Debug)]
pub struct EncodedRecord {
    /// Header, payload and padding.
    bytes: Vec<u8>,
    payload_len: u32,
    payload_crc: u32,
    kind: u8,
}

impl EncodedRecord {
    /// Encodes a change and takes the checksum of its payload.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] when the payload is over [`MAX_PAYLOAD_BYTES`]; [`LogError::Encode`].
    pub fn new(change: &Change) -> Result<Self, LogError> {
        let mut bytes = vec![0; RECORD_HEADER_BYTES];
        payload::encode(change, &mut bytes)?;
        let payload = &bytes[RECORD_HEADER_BYTES..];
        let got = payload.len();
        let payload_len = u32::try_from(got)
            .ok()
            .filter(|_| got <= MAX_PAYLOAD_BYTES)
            .ok_or(LogError::TooLarge { got, max: MAX_PAYLOAD_BYTES })?;
        let payload_crc = crc32c(payload);
        bytes.resize(record_bytes(got), 0);
        Ok(Self { bytes, payload_len, payload_crc, kind: payload::kind(change) })
    }

    /// Bytes that the record takes in the log.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Gives the record its place.
    pub(super) fn stamp(&mut self, seq: Seq, file_tag: u32, group_index: u16) {
        let header = RecordHeader {
            payload_len: self.payload_len,
            payload_crc: self.payload_crc,
            seq,
            file_tag,
            group_index,
            kind: self.kind,
            payload_version: payload::version(self.kind),
        };
        self.bytes[..RECORD_HEADER_BYTES].copy_from_slice(&header.encode());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
