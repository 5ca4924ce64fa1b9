//! The readers of requests over any bytes.

use super::wire::document::{DeleteBody, UpsertBody};
use super::wire::filter::WireFilter;
use super::wire::json;
use super::wire::search::{SearchBody, SearchesBody};

/// A filter in a query string.
pub fn filter(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        _ = WireFilter::from_parameter(text);
    }
}

/// The bodies of searches, upserts and deletions.
pub fn body(bytes: &[u8]) {
    _ = json::parse::<SearchBody>(bytes).and_then(SearchBody::into_request);
    _ = json::parse::<SearchesBody>(bytes).and_then(SearchesBody::into_requests);
    _ = json::parse::<UpsertBody>(bytes).and_then(UpsertBody::into_documents);
    _ = json::parse::<DeleteBody>(bytes).and_then(DeleteBody::into_deletion);
}
