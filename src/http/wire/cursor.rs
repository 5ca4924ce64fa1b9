//! The cursors of a listing and of a search: where the next page starts, opaque to clients.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::http::error::{ApiError, Code};
use crate::storage::Fields;
use crate::types::{DocumentId, SearchAfter};

/// First byte of a decoded cursor: what the rest means.
const AFTER_ID: u8 = 1;
const AFTER_HIT: u8 = 2;
/// Asks for a search's first page and for the cursor of the second.
pub(crate) const FIRST_PAGE: &str = "*";

/// The cursor of the page after `last`.
pub(crate) fn encode(last: &DocumentId) -> String {
    let mut bytes = vec![AFTER_ID];
    bytes.extend_from_slice(last.as_str().as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor.
///
/// # Errors
/// [`Code::InvalidCursor`] for whatever [`encode`] does not write.
pub(crate) fn decode(cursor: &str) -> Result<DocumentId, ApiError> {
    decode_id(cursor).ok_or_else(|| {
        ApiError::new(
            Code::InvalidCursor,
            "send \"next_cursor\" of the page before as it is, or no cursor to start over",
        )
    })
}

/// The cursor of the page after a hit. `fingerprint`: of the search that it belongs to.
pub(crate) fn encode_hit(after: &SearchAfter, fingerprint: u32) -> String {
    let mut bytes = vec![AFTER_HIT];
    bytes.extend_from_slice(&fingerprint.to_le_bytes());
    bytes.extend_from_slice(&(after.rank as u64).to_le_bytes());
    bytes.extend_from_slice(&after.score.to_bits().to_le_bytes());
    bytes.extend_from_slice(after.id.as_str().as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a search's cursor.
///
/// # Errors
/// [`Code::InvalidCursor`] for whatever [`encode_hit`] does not write, and for another search's.
pub(crate) fn decode_hit(cursor: &str, fingerprint: u32) -> Result<SearchAfter, ApiError> {
    let fail = |detail: &'static str| ApiError::new(Code::InvalidCursor, detail);
    let (found, after) = read_hit(cursor)
        .ok_or_else(|| fail("send \"next_cursor\" of the page before as it is, or \"cursor\": \"*\" to start over"))?;
    if found != fingerprint {
        return Err(fail(
            "the cursor belongs to another search; send what is searched for unchanged with it, or \"cursor\": \"*\"",
        ));
    }
    Ok(after)
}

fn read_hit(cursor: &str) -> Option<(u32, SearchAfter)> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let mut fields = Fields::new(bytes.strip_prefix(&[AFTER_HIT])?);
    let (fingerprint, rank, score) = (fields.u32()?, fields.u64()?, f32::from_bits(fields.u32()?));
    let id = DocumentId::new(std::str::from_utf8(fields.remaining()).ok()?).ok()?;
    Some((fingerprint, SearchAfter { rank: usize::try_from(rank).ok()?, score, id }))
}

fn decode_id(cursor: &str) -> Option<DocumentId> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let id = std::str::from_utf8(bytes.strip_prefix(&[AFTER_ID])?).ok()?;
    DocumentId::new(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_and_the_form_is_stable() {
        assert_eq!(encode(&DocumentId::new("a").unwrap()), "AWE");
        for id in ["a", "a/b?c", "привет", &"x".repeat(512)] {
            let id = DocumentId::new(id).unwrap();
            assert_eq!(decode(&encode(&id)).unwrap(), id);
        }
    }

    #[test]
    fn hits_come_back_to_their_own_search_only() {
        let after = SearchAfter { rank: 20, score: -0.25, id: DocumentId::new("é").unwrap() };
        let cursor = encode_hit(&after, 7);
        assert_eq!(cursor, "AgcAAAAUAAAAAAAAAAAAgL7DqQ");
        assert_eq!(decode_hit(&cursor, 7).unwrap(), after);
        let other = decode_hit(&cursor, 8).unwrap_err();
        assert!(other.code == Code::InvalidCursor && other.detail.contains("another search"), "{}", other.detail);
        for cursor in ["", "%%", "AWE", "Ag", &cursor[..20]] {
            assert_eq!(decode_hit(cursor, 7).unwrap_err().code, Code::InvalidCursor, "{cursor}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        // Empty, no base64, no id after the version, another version, a control character, not UTF-8, padding.
        for cursor in ["", "%%", "AQ", "AmE", "AQo", "Af8", "AWE="] {
            assert_eq!(decode(cursor).unwrap_err().code, Code::InvalidCursor, "{cursor}");
        }
    }
}
