//! The cursor of a listing: where the next page starts, opaque to clients.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::http::error::{ApiError, Code};
use crate::types::DocumentId;

/// First byte of a decoded cursor: what the rest means.
const AFTER_ID: u8 = 1;

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
    fn anything_else_is_refused() {
        // Empty, no base64, no id after the version, another version, a control character, not UTF-8, padding.
        for cursor in ["", "%%", "AQ", "AmE", "AQo", "Af8", "AWE="] {
            assert_eq!(decode(cursor).unwrap_err().code, Code::InvalidCursor, "{cursor}");
        }
    }
}
