//! A change as the bytes of a record's payload, versions 1 to 3: docs/formats/log.md.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

use super::format::{MAX_PAYLOAD_BYTES, PAYLOAD_VERSION};
use super::{Change, LogError, LoggedDocument};
use crate::storage::Fields;
use crate::types::{
    ChunkSpan, CollectionId, CollectionName, Definition, DefinitionV1, DefinitionV2, DocumentId, StoredDocument,
};

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

/// The version in which payloads of a kind are written: the oldest that says all of it.
pub(super) fn version(kind: u8) -> u8 {
    if matches!(kind, CREATE_COLLECTION | UPSERT) { 3 } else { 1 }
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
    for document in documents {
        out.extend(count(document.chunks.len())?.to_le_bytes());
        document.chunks.iter().for_each(|span| out.extend([span.start, span.end].map(u32::to_le_bytes).concat()));
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

/// A collection's creation as text, `VERSION:HEX`, that this and later versions of the program read.
///
/// # Errors
/// [`LogError::Encode`], which no valid definition causes.
#[cfg(feature = "postgres")]
pub fn creation_to_text(change: &Change) -> Result<String, LogError> {
    let mut bytes = Vec::new();
    encode(change, &mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}:{hex}", version(kind(change))))
}

/// Reads what [`creation_to_text`] wrote; `None` for anything else, such as what a later version wrote.
#[cfg(feature = "postgres")]
pub fn creation_of_text(text: &str) -> Option<Change> {
    let (version, hex) = text.split_once(':')?;
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(pair).collect::<Option<_>>()?;
    decode(version.parse().ok()?, CREATE_COLLECTION, &bytes).ok()
}

/// The collection that a change is of: every kind's payload begins with its number.
pub(super) fn collection(payload: &[u8]) -> Option<CollectionId> {
    Fields::new(payload).u32().map(CollectionId)
}

/// Reads the payload of a record.
pub(super) fn decode(version: u8, kind: u8, payload: &[u8]) -> Result<Change, PayloadError> {
    if !(1..=PAYLOAD_VERSION).contains(&version) {
        return Err(PayloadError::Version(version));
    }
    match kind {
        CREATE_COLLECTION => match version {
            1 => decode_creation::<DefinitionV1>(payload),
            2 => decode_creation::<DefinitionV2>(payload),
            _ => decode_creation::<Definition>(payload),
        },
        DROP_COLLECTION => Ok(Change::DropCollection { id: take_all(payload)? }),
        UPSERT => decode_upsert(version, payload),
        DELETE => {
            let (collection, ids): (CollectionId, Vec<DocumentId>) = take_all(payload)?;
            Ok(Change::Delete { collection, ids })
        }
        other => Err(PayloadError::Kind(other)),
    }
}

/// `D`: the definition in the form that the version has it in.
fn decode_creation<D: Decode<()> + Into<Definition>>(payload: &[u8]) -> Result<Change, PayloadError> {
    let (id, name, definition, created_at_ms): (CollectionId, CollectionName, D, i64) = take_all(payload)?;
    if id >= CollectionId::END {
        return Err(PayloadError::Malformed(format!("collection id {id} is beyond the last possible one")));
    }
    Ok(Change::CreateCollection { id, name, definition: definition.into(), created_at_ms })
}

fn decode_upsert(version: u8, payload: &[u8]) -> Result<Change, PayloadError> {
    let short = || PayloadError::Malformed("an upsert ends within its lengths".into());
    let mut fields = Fields::new(payload);
    let collection = CollectionId(fields.u32().ok_or_else(short)?);
    let count = fields.u32().ok_or_else(short)? as usize;
    let documents_len = fields.u32().ok_or_else(short)? as usize;
    let mut vector_lens = Fields::new(count.checked_mul(4).and_then(|n| fields.bytes(n)).ok_or_else(short)?);
    let mut values = fields.bytes(documents_len).ok_or_else(short)?;
    // A document takes more than 32 bytes, so a count that lies cannot make this large.
    let mut documents = Vec::with_capacity(count.min(documents_len / 32));
    while let Some(vector_len) = vector_lens.u32() {
        let (document, used): (StoredDocument, usize) = take(values)?;
        values = &values[used..];
        let vector = (vector_len as usize).checked_mul(4).and_then(|n| fields.bytes(n)).ok_or_else(short)?;
        let numbers = vector.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect();
        documents.push(LoggedDocument { document, vector: numbers, chunks: Vec::new() });
    }
    if version >= 3 {
        values = decode_chunks(values, &mut documents)?;
    }
    nothing_left(values)?;
    nothing_left(fields.remaining())?;
    Ok(Change::Upsert { collection, documents })
}

/// Reads the spans of the chunks of each document. Returns what follows them.
fn decode_chunks<'a>(values: &'a [u8], documents: &mut [LoggedDocument]) -> Result<&'a [u8], PayloadError> {
    let malformed = |reason: &str| PayloadError::Malformed(reason.to_owned());
    let mut fields = Fields::new(values);
    for document in documents {
        let count = fields.u32().ok_or_else(|| malformed("an upsert ends within its chunks"))? as usize;
        let spans = count.checked_mul(8).and_then(|bytes| fields.bytes(bytes));
        let mut spans = Fields::new(spans.ok_or_else(|| malformed("an upsert ends within its chunks"))?);
        while let (Some(start), Some(end)) = (spans.u32(), spans.u32()) {
            document.chunks.push(ChunkSpan { start, end });
        }
        if count > 0 && !document.vector.len().is_multiple_of(count) {
            return Err(malformed("the vectors of a document are not as many as its chunks"));
        }
    }
    Ok(fields.remaining())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::types::{
        ChunkDefinition, CollectionName, Definition, EmbeddingDefinition, EmbeddingState, FieldType, IndexDefinition,
        Language, Metric, TemplateDefinition, TextDefinition, Value, VectorStorage,
    };

    fn encoded(change: &Change) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(change, &mut bytes).unwrap();
        bytes
    }

    fn upsert() -> Change {
        let document = StoredDocument {
            id: DocumentId::new("a").unwrap(),
            text: Some("hi".into()),
            metadata: BTreeMap::from([("k".into(), Value::Array(vec![Value::Null, Value::Bool(true)]))]),
            created_at_ms: 1,
            updated_at_ms: -1,
            embedding: EmbeddingState::Ready,
        };
        let pending = StoredDocument {
            id: DocumentId::new("b").unwrap(),
            text: None,
            metadata: BTreeMap::new(),
            embedding: EmbeddingState::Pending,
            ..document.clone()
        };
        let documents = vec![
            LoggedDocument { document, vector: vec![1.0, -2.0], chunks: Vec::new() },
            LoggedDocument { document: pending, vector: Vec::new(), chunks: Vec::new() },
        ];
        Change::Upsert { collection: CollectionId(7), documents }
    }

    fn create() -> Change {
        let definition = Definition {
            dim: 384,
            metric: Metric::L2,
            embedding: Some(EmbeddingDefinition { model: "m".into(), fingerprint: "f".into() }),
            index: IndexDefinition { storage: VectorStorage::Float16, ..IndexDefinition::default() },
            fields: BTreeMap::from([("k".into(), FieldType::Boolean)]),
            text: TextDefinition { language: Language::Russian },
            template: Some(TemplateDefinition::Jinja("t".into())),
            guard: None,
            chunks: Some(ChunkDefinition { max_tokens: 200, overlap_tokens: 20 }),
        };
        let name = CollectionName::new("docs").unwrap();
        Change::CreateCollection { id: CollectionId(7), name, definition, created_at_ms: 3 }
    }

    fn delete() -> Change {
        Change::Delete { collection: CollectionId(7), ids: vec![DocumentId::new("é").unwrap()] }
    }

    /// [`upsert`] with its first document in two chunks.
    fn upsert_of_chunks() -> Change {
        let Change::Upsert { collection, mut documents } = upsert() else { unreachable!() };
        documents[0].chunks = vec![ChunkSpan { start: 0, end: 1 }, ChunkSpan::NOWHERE];
        Change::Upsert { collection, documents }
    }

    #[test]
    fn a_collection_whose_number_has_no_next_is_refused() {
        let create = |id: u32| match create() {
            Change::CreateCollection { name, definition, created_at_ms, .. } => {
                encoded(&Change::CreateCollection { id: CollectionId(id), name, definition, created_at_ms })
            }
            other => panic!("{other:?}"),
        };
        let decoded = |id| decode(PAYLOAD_VERSION, CREATE_COLLECTION, &create(id));
        assert!(decoded(CollectionId::END.0 - 1).is_ok());
        for id in [CollectionId::END.0, u32::MAX] {
            assert!(matches!(decoded(id), Err(PayloadError::Malformed(_))), "{id}");
        }
    }

    fn samples() -> [Change; 5] {
        [create(), Change::DropCollection { id: CollectionId(7) }, upsert(), upsert_of_chunks(), delete()]
    }

    #[test]
    fn golden_upsert() {
        let mut expected = Vec::new();
        let documents_len = (9 + 11 + 8 + 9 + 1 + 8 + 1 + 2 + 16 + 4) + (9 + 1 + 8 + 16 + 4);
        expected.extend([7u32, 2, documents_len, 2, 0].map(u32::to_le_bytes).concat());
        expected.extend(b"\x01\0\0\0\0\0\0\0a\x01\x02\0\0\0\0\0\0\0hi");
        expected.extend(b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0k\x05\x02\0\0\0\0\0\0\0\0\x01\x01");
        expected.extend(b"\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0b\0\0\0\0\0\0\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0");
        expected.extend(b"\0\0\x80\x3f\0\0\0\xc0");
        assert_eq!(decode(1, UPSERT, &expected), Ok(upsert()), "version 1 had no chunks");
        let with_spans = |spans: &[u32]| {
            let spans = spans.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
            let mut bytes = expected.clone();
            bytes[8..12].copy_from_slice(&(documents_len + spans.len() as u32).to_le_bytes());
            let vectors_at = bytes.len() - 8;
            bytes.splice(vectors_at..vectors_at, spans);
            bytes
        };
        assert_eq!(encoded(&upsert()), with_spans(&[0, 0]));
        assert_eq!(encoded(&upsert_of_chunks()), with_spans(&[2, 0, 1, u32::MAX, u32::MAX, 0]));
    }

    #[test]
    fn golden_others() {
        assert_eq!(encoded(&Change::DropCollection { id: CollectionId(7) }), [7, 0, 0, 0]);
        assert_eq!(encoded(&delete()), b"\x07\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\xc3\xa9");
    }

    #[test]
    fn golden_creation_in_every_version() {
        let mut until_index = b"\x07\0\0\0\x04\0\0\0\0\0\0\0docs\x80\x01\0\0\x02\0\0\0\x01".to_vec();
        until_index.extend(b"\x01\0\0\0\0\0\0\0m\x01\0\0\0\0\0\0\0f\x10\0\0\0\x80\0\0\0\0\0\0\0");
        let fields = b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0k\x02\0\0\0";
        let (text, created_at, half) = (b"\x01\0\0\0", b"\x03\0\0\0\0\0\0\0", b"\x01\0\0\0");
        let template = b"\x01\0\0\0\0\x01\0\0\0\0\0\0\0t\0\x01\xc8\0\0\0\x14\0\0\0";
        let parts: [&[u8]; 6] = [&until_index, half, fields, text, template, created_at];
        assert_eq!(encoded(&create()), parts.concat());
        let Change::CreateCollection { mut definition, id, name, created_at_ms } = create() else { unreachable!() };
        (definition.index, definition.template, definition.chunks) = (IndexDefinition::default(), None, None);
        let of = |definition: &Definition| {
            let (definition, name) = (definition.clone(), name.clone());
            Ok(Change::CreateCollection { definition, id, name, created_at_ms })
        };
        let parts: [&[u8]; 4] = [&until_index, fields, text, created_at];
        let version_2 = decode(2, CREATE_COLLECTION, &parts.concat());
        assert_eq!(version_2, of(&definition), "version 2 had no storage and no template");
        definition.text = TextDefinition::default();
        let parts: [&[u8]; 3] = [&until_index, fields, created_at];
        assert_eq!(decode(1, CREATE_COLLECTION, &parts.concat()), of(&definition), "version 1 had no text");
    }

    #[test]
    fn round_trips_and_every_truncation_is_refused() {
        for change in samples() {
            let bytes = encoded(&change);
            assert_eq!(decode(version(kind(&change)), kind(&change), &bytes).unwrap(), change);
            assert_eq!(collection(&bytes), Some(CollectionId(7)));
            for len in 0..bytes.len() {
                let result = decode(version(kind(&change)), kind(&change), &bytes[..len]);
                assert!(matches!(result, Err(PayloadError::Malformed(_))), "{len} of {change:?}");
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            let result = decode(version(kind(&change)), kind(&change), &longer);
            assert!(matches!(result, Err(PayloadError::Malformed(_))), "{change:?}");
        }
    }

    #[test]
    fn hostile_bytes_never_panic_and_allocate_no_more_than_the_limit() {
        for change in samples() {
            let bytes = encoded(&change);
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    for kind in 0..=5 {
                        let _ = decode(version(kind), kind, &bytes);
                    }
                }
            }
        }
        assert_eq!(decode(4, UPSERT, &[]), Err(PayloadError::Version(4)));
        assert_eq!(decode(0, UPSERT, &[]), Err(PayloadError::Version(0)));
        assert_eq!(decode(PAYLOAD_VERSION, 0, &[]), Err(PayloadError::Kind(0)));
    }

    #[test]
    fn the_largest_allowed_list_of_ids_can_be_read_again() {
        // The shortest ids take the most memory for their bytes.
        let ids = vec![DocumentId::new("a").unwrap(); (MAX_PAYLOAD_BYTES - 12) / 9];
        let change = Change::Delete { collection: CollectionId(1), ids };
        let bytes = encoded(&change);
        assert!(bytes.len() <= MAX_PAYLOAD_BYTES);
        assert_eq!(decode(PAYLOAD_VERSION, DELETE, &bytes).unwrap(), change);
    }
}
