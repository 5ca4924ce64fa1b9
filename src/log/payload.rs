//! A change as the bytes of a record's payload, version 1: docs/formats/log.md.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

use super::format::{MAX_PAYLOAD_BYTES, PAYLOAD_VERSION};
use super::{Change, LogError, LoggedDocument};
use crate::storage::Fields;
use crate::types::{CollectionId, DocumentId, StoredDocument};

const CREATE_COLLECTION: u8 = 1;
const DROP_COLLECTION: u8 = 2;
const UPSERT: u8 = 3;
const DELETE: u8 = 4;

/// Bounds what a length that was read may allocate. A map's entry takes up to six times its encoded size in memory, so
/// eight times the largest payload refuses nothing that was written.
const DECODE_LIMIT_BYTES: usize = 8 * MAX_PAYLOAD_BYTES;

const fn config() -> Configuration<LittleEndian, Fixint, Limit<DECODE_LIMIT_BYTES>> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<DECODE_LIMIT_BYTES>()
}

/// Why a payload with a right checksum could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PayloadError {
    Version(u8),
    Kind(u8),
    Malformed(String),
}

/// The kind byte of a change.
pub(super) fn kind(change: &Change) -> u8 {
    match change {
        Change::CreateCollection { .. } => CREATE_COLLECTION,
        Change::DropCollection { .. } => DROP_COLLECTION,
        Change::Upsert { .. } => UPSERT,
        Change::Delete { .. } => DELETE,
    }
}

/// Appends the payload of `change` to `out`.
///
/// # Errors
/// [`LogError::Encode`], which no valid change causes.
pub(super) fn encode(change: &Change, out: &mut Vec<u8>) -> Result<(), LogError> {
    match change {
        Change::CreateCollection { id, name, definition, created_at_ms } => {
            put(&(id, name, definition, created_at_ms), out)
        }
        Change::DropCollection { id } => put(id, out),
        Change::Delete { collection, ids } => put(&(collection, ids), out),
        Change::Upsert { collection, documents } => encode_upsert(*collection, documents, out),
    }
}

fn encode_upsert(collection: CollectionId, documents: &[LoggedDocument], out: &mut Vec<u8>) -> Result<(), LogError> {
    let numbers: usize = documents.iter().map(|d| d.vector.len()).sum();
    out.reserve(documents.len() * 256 + numbers * size_of::<f32>());
    out.extend(collection.0.to_le_bytes());
    out.extend(count(documents.len())?.to_le_bytes());
    let documents_len_at = out.len();
    out.extend([0; 4]);
    for document in documents {
        out.extend(count(document.vector.len())?.to_le_bytes());
    }
    let documents_at = out.len();
    for document in documents {
        put(&document.document, out)?;
    }
    let documents_len = count(out.len() - documents_at)?;
    out[documents_len_at..documents_len_at + 4].copy_from_slice(&documents_len.to_le_bytes());
    for document in documents {
        let vector_at = out.len();
        out.resize(vector_at + document.vector.len() * size_of::<f32>(), 0);
        for (bytes, x) in out[vector_at..].chunks_exact_mut(size_of::<f32>()).zip(&document.vector) {
            bytes.copy_from_slice(&x.to_le_bytes());
        }
    }
    Ok(())
}

/// A length as the format's u32; more is far beyond the largest payload.
fn count(len: usize) -> Result<u32, LogError> {
    u32::try_from(len).map_err(|_| LogError::TooLarge { got: len, max: MAX_PAYLOAD_BYTES })
}

fn put(value: &impl Encode, out: &mut Vec<u8>) -> Result<(), LogError> {
    bincode::encode_into_std_write(value, out, config())
        .map(drop)
        .map_err(|e| LogError::Encode { reason: e.to_string() })
}

/// Reads the payload of a record.
pub(super) fn decode(version: u8, kind: u8, payload: &[u8]) -> Result<Change, PayloadError> {
    if version != PAYLOAD_VERSION {
        return Err(PayloadError::Version(version));
    }
    match kind {
        CREATE_COLLECTION => {
            let (id, name, definition, created_at_ms) = take_all(payload)?;
            Ok(Change::CreateCollection { id, name, definition, created_at_ms })
        }
        DROP_COLLECTION => Ok(Change::DropCollection { id: take_all(payload)? }),
        UPSERT => decode_upsert(payload),
        DELETE => {
            let (collection, ids): (CollectionId, Vec<DocumentId>) = take_all(payload)?;
            Ok(Change::Delete { collection, ids })
        }
        other => Err(PayloadError::Kind(other)),
    }
}

fn decode_upsert(payload: &[u8]) -> Result<Change, PayloadError> {
    let short = || PayloadError::Malformed("an upsert ends within its lengths".into());
    let mut fields = Fields::new(payload);
    let collection = CollectionId(fields.u32().ok_or_else(short)?);
    let count = fields.u32().ok_or_else(short)? as usize;
    let documents_len = fields.u32().ok_or_else(short)? as usize;
    let mut vector_lens = Fields::new(count.checked_mul(4).and_then(|n| fields.bytes(n)).ok_or_else(short)?);
    let mut values = fields.bytes(documents_len).ok_or_else(short)?;
    let mut documents = Vec::with_capacity(count);
    while let Some(vector_len) = vector_lens.u32() {
        let (document, used): (StoredDocument, usize) = take(values)?;
        values = &values[used..];
        let vector = (vector_len as usize).checked_mul(4).and_then(|n| fields.bytes(n)).ok_or_else(short)?;
        let numbers = vector.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect();
        documents.push(LoggedDocument { document, vector: numbers });
    }
    nothing_left(values)?;
    nothing_left(fields.remaining())?;
    Ok(Change::Upsert { collection, documents })
}

fn take_all<T: Decode<()>>(bytes: &[u8]) -> Result<T, PayloadError> {
    let (value, used) = take(bytes)?;
    nothing_left(&bytes[used..])?;
    Ok(value)
}

fn take<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), PayloadError> {
    bincode::decode_from_slice(bytes, config()).map_err(|e| PayloadError::Malformed(e.to_string()))
}

fn nothing_left(bytes: &[u8]) -> Result<(), PayloadError> {
    match bytes.len() {
        0 => Ok(()),
        left => Err(PayloadError::Malformed(format!("{left} bytes are left over"))),
    }
}
