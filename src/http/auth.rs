//! Who may call: everybody on this machine, or who holds the API key.

use std::fmt;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::error::{ApiError, Code};

/// Shortest API key, in bytes: shorter ones can be guessed.
const MIN_KEY_BYTES: usize = 16;

/// Whether requests need an API key.
#[derive(Clone, Debug, Default)]
pub enum AuthPolicy {
    /// No key. Only right where nobody beyond this machine can connect.
    #[default]
    Open,
    /// Every request but the health checks needs this key.
    Key(ApiKey),
}

/// An API key. Only its digest is kept, so that comparing takes the same time whatever is presented.
#[derive(Clone)]
pub struct ApiKey {
    digest: [u8; 32],
}

/// Why an API key was refused at start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API key must be at least {MIN_KEY_BYTES} printable ASCII characters without spaces")]
pub struct InvalidApiKey;

impl ApiKey {
    /// Takes a key of at least 16 printable ASCII characters.
    ///
    /// # Errors
    /// [`InvalidApiKey`] when it is shorter, or could not be sent in a header.
    pub fn new(key: &str) -> Result<Self, InvalidApiKey> {
        if key.len() < MIN_KEY_BYTES || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidApiKey);
        }
        Ok(Self { digest: Sha256::digest(key).into() })
    }

    /// Compares digests without an early end: the time says nothing about how much of the key was right.
    fn fits(&self, presented: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let difference = self.digest.iter().zip(digest).fold(0u8, |acc, (a, b)| acc | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

impl AuthPolicy {
    /// Checks a request's `authorization: Bearer`, `x-api-key` or `api-key`.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let AuthPolicy::Key(key) = self else { return Ok(()) };
        let Some(presented) = presented(headers) else {
            let detail = "send the API key as \"Authorization: Bearer KEY\" or \"x-api-key: KEY\"";
            return Err(ApiError::new(Code::Unauthorized, detail));
        };
        if !key.fits(presented) {
            return Err(ApiError::new(Code::Unauthorized, "the API key is not this server's; check the key you send"));
        }
        Ok(())
    }
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, rest) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest.trim_ascii())
    });
    bearer.or_else(|| headers.get("x-api-key").or_else(|| headers.get("api-key")).map(|value| value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    const KEY: &str = "0123456789abcdef";

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn the_key_is_taken_from_three_headers() {
        let policy = AuthPolicy::Key(ApiKey::new(KEY).unwrap());
        let right = [
            with("authorization", "Bearer 0123456789abcdef"),
            with("authorization", "bearer  0123456789abcdef"),
            with("x-api-key", KEY),
            with("api-key", KEY),
        ];
        for headers in right {
            assert!(policy.check(&headers).is_ok(), "{headers:?}");
        }
        let wrong = [
            HeaderMap::new(),
            with("authorization", "Basic 0123456789abcdef"),
            with("authorization", "Bearer 0123456789abcdeF"),
            with("x-api-key", "0123456789abcde"),
            with("api-key", ""),
        ];
        for headers in wrong {
            assert_eq!(policy.check(&headers).unwrap_err().code, Code::Unauthorized, "{headers:?}");
        }
        assert!(AuthPolicy::Open.check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn weak_keys_are_refused_and_keys_are_not_printed() {
        for key in ["", "short", "0123456789abcde", "0123456789abcde ", "0123456789abcdeé"] {
            assert_eq!(ApiKey::new(key).err(), Some(InvalidApiKey), "{key}");
        }
        assert!(!format!("{:?}", ApiKey::new(KEY).unwrap()).contains("0123"));
    }
}
