//! The readers of requests over any bytes.

use super::wire::document::{CountBody, DeleteBody, UpsertBody};
use super::wire::filter::WireFilter;
use super::wire::json;
use super::wire::patch::{PatchBody, PatchesBody};
use super::wire::search::{SearchBody, SearchesBody};
use crate::types::CollectionName;

/// A filter in a query string. Whether it is one.
pub fn filter(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| WireFilter::from_parameter(text).is_ok())
}

/// The bodies of searches, upserts, patches, counts and deletions. Whether it is one of them.
pub fn body(bytes: &[u8]) -> bool {
    let Ok(name) = CollectionName::new("c") else { return false };
    let is_one = [
        json::parse::<SearchBody>(bytes).and_then(|body| body.into_request(&name)).is_ok(),
        json::parse::<SearchesBody>(bytes).and_then(|body| body.into_requests(&name)).is_ok(),
        json::parse::<UpsertBody>(bytes).and_then(UpsertBody::into_documents).is_ok(),
        json::parse::<PatchBody>(bytes).is_ok(),
        json::parse::<PatchesBody>(bytes).and_then(PatchesBody::into_patches).is_ok(),
        json::parse::<CountBody>(bytes).and_then(CountBody::into_filter).is_ok(),
        json::parse::<DeleteBody>(bytes).and_then(DeleteBody::into_deletion).is_ok(),
    ];
    is_one.contains(&true)
}
