//! Document frames: a stored document as bytes, with its id where it can be read alone.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};

use crate::types::{DocumentId, Metadata, StoredDocument};

/// Version of the frames that are written.
const FRAME_VERSION: u8 = 1;
/// The id's bytes begin after the version and the id's length.
const ID_START: usize = 9;
/// Bounds what a frame with absurd lengths makes the decoder allocate; sound frames stay far below.
const MAX_DECODED_BYTES: usize = 64 << 20;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<MAX_DECODED_BYTES>> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<MAX_DECODED_BYTES>();

/// Why bytes are not a document frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame was written by a later version of this program.
    #[error("document frame has version {found}, supported is {supported}")]
    UnsupportedVersion {
        /// Version in the frame.
        found: u8,
        /// The version that this program reads.
        supported: u8,
    },
    /// The frame does not hold a document.
    #[error("document frame cannot be decoded: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
}

/// The frame of a document, as segments and the change log hold it.
pub fn encode_document(document: &StoredDocument) -> Vec<u8> {
    let mut frame = vec![FRAME_VERSION];
    bincode::encode_into_std_write(document, &mut frame, CONFIG).expect("any document can be written to memory");
    frame
}

/// The document of a frame.
///
/// # Errors
/// [`FrameError`] when the bytes are not a frame, or are followed by others.
pub fn decode_document(frame: &[u8]) -> Result<StoredDocument, FrameError> {
    let body = body(frame)?;
    let (document, used) = bincode::decode_from_slice(body, CONFIG).map_err(malformed)?;
    if used != body.len() {
        return Err(malformed(format!("{} bytes follow the document", body.len() - used)));
    }
    Ok(document)
}

/// The id of a frame's document, without decoding the rest.
///
/// # Errors
/// [`FrameError`] when the bytes do not begin as a frame does.
pub fn decode_document_id(frame: &[u8]) -> Result<DocumentId, FrameError> {
    let (len, rest) = body(frame)?.split_first_chunk::<{ ID_START - 1 }>().ok_or_else(|| malformed("it is cut"))?;
    let id = usize::try_from(u64::from_le_bytes(*len)).ok().and_then(|len| rest.get(..len));
    let id = id.ok_or_else(|| malformed("the id reaches beyond it"))?;
    let id = std::str::from_utf8(id).map_err(malformed)?;
    DocumentId::new(id).map_err(malformed)
}

/// The metadata of a frame's document, without decoding the rest.
///
/// # Errors
/// [`FrameError`] when the bytes do not begin as a frame does.
pub fn decode_metadata(frame: &[u8]) -> Result<Metadata, FrameError> {
    let rest = skip_string(body(frame)?)?;
    let rest = match rest.split_first() {
        Some((0, rest)) => rest,
        Some((1, rest)) => skip_string(rest)?,
        _ => return Err(malformed("the text is neither there nor missing")),
    };
    bincode::decode_from_slice(rest, CONFIG).map(|(metadata, _)| metadata).map_err(malformed)
}

/// What follows a string's length and bytes.
fn skip_string(bytes: &[u8]) -> Result<&[u8], FrameError> {
    let (len, rest) = bytes.split_first_chunk::<{ ID_START - 1 }>().ok_or_else(|| malformed("it is cut"))?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(malformed)?;
    rest.get(len..).ok_or_else(|| malformed("a string reaches beyond it"))
}

fn body(frame: &[u8]) -> Result<&[u8], FrameError> {
    match frame.split_first() {
        Some((&FRAME_VERSION, body)) => Ok(body),
        Some((&found, _)) => Err(FrameError::UnsupportedVersion { found, supported: FRAME_VERSION }),
        None => Err(malformed("it is empty")),
    }
}

fn malformed(reason: impl ToString) -> FrameError {
    FrameError::Malformed { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{EmbeddingState, Value};

    fn document() -> StoredDocument {
        StoredDocument {
            id: DocumentId::new("a1").unwrap(),
            text: Some("é".into()),
            metadata: [("k".to_owned(), Value::Int(-2))].into(),
            created_at_ms: 1,
            updated_at_ms: 2,
            embedding: EmbeddingState::Ready,
        }
    }

    #[test]
    fn frames_have_these_bytes() {
        let mut expected = vec![1];
        expected.extend(2u64.to_le_bytes());
        expected.extend(b"a1");
        expected.push(1);
        expected.extend(2u64.to_le_bytes());
        expected.extend("é".as_bytes());
        expected.extend(1u64.to_le_bytes());
        expected.extend(1u64.to_le_bytes());
        expected.extend(b"k");
        expected.push(2);
        expected.extend((-2i64).to_le_bytes());
        expected.extend(1i64.to_le_bytes());
        expected.extend(2i64.to_le_bytes());
        expected.extend(0u32.to_le_bytes());
        assert_eq!(encode_document(&document()), expected);
    }

    #[test]
    fn round_trips() {
        let frame = encode_document(&document());
        assert_eq!(decode_document(&frame), Ok(document()));
        assert_eq!(decode_document_id(&frame), Ok(document().id));
        assert_eq!(decode_metadata(&frame), Ok(document().metadata));
        let without_text = StoredDocument { text: None, ..document() };
        assert_eq!(decode_metadata(&encode_document(&without_text)), Ok(without_text.metadata));
    }

    #[test]
    fn every_truncation_and_addition_is_an_error() {
        let mut frame = encode_document(&document());
        for len in 0..frame.len() {
            assert!(decode_document(&frame[..len]).is_err(), "{len}");
        }
        for len in 0..ID_START + 2 {
            assert!(decode_document_id(&frame[..len]).is_err(), "{len}");
        }
        frame.push(0);
        assert!(decode_document(&frame).is_err());
    }

    #[test]
    fn bit_flips_never_panic() {
        let frame = encode_document(&document());
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (id, whole) = (decode_document_id(&flipped), decode_document(&flipped));
            assert!(whole.is_err() || id.is_ok(), "{bit}");
            let metadata = decode_metadata(&flipped);
            // A flip may make a NaN, which equals nothing.
            let same =
                |whole: StoredDocument| format!("{:?}", Ok::<_, FrameError>(whole.metadata)) == format!("{metadata:?}");
            assert!(whole.is_err() || same(whole.unwrap()), "{bit}");
        }
    }

    #[test]
    fn later_versions_are_named() {
        let mut frame = encode_document(&document());
        frame[0] = 2;
        let expected = FrameError::UnsupportedVersion { found: 2, supported: 1 };
        assert_eq!(decode_document(&frame), Err(expected.clone()));
        assert_eq!(decode_document_id(&frame), Err(expected));
    }

    #[test]
    fn absurd_lengths_allocate_little() {
        let mut frame = encode_document(&document());
        frame[ID_START + 3..ID_START + 11].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(decode_document(&frame), Err(FrameError::Malformed { .. })));
    }
}
