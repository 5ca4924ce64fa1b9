//! The readers of requests over any bytes.

use super::wire::definition::DefinitionBody;
use super::wire::document::{CountBody, DeleteBody, UpsertBody};
use super::wire::filter::WireFilter;
use super::wire::patch::{PatchBody, PatchesBody};
use super::wire::search::{SearchBody, SearchesBody};
use super::wire::template::PreviewBody;
use super::wire::{cursor, embeddings, json, ollama, tei};
use crate::types::CollectionName;

/// Of the search whose cursors stand in the corpus.
const FINGERPRINT: u32 = 7;

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

/// The bodies that create a collection and that show what a template makes of documents. Whether it is one of them.
pub fn definition(bytes: &[u8]) -> bool {
    let Ok(name) = CollectionName::new("c") else { return false };
    let is_one = [
        json::parse::<DefinitionBody>(bytes).and_then(|body| body.into_request(&name)).is_ok(),
        json::parse::<PreviewBody>(bytes).and_then(PreviewBody::into_parts).is_ok(),
    ];
    is_one.contains(&true)
}

/// What is to be embedded, as OpenAI's clients, text-embeddings-inference's and Ollama's send it. Whether it is one of
/// them.
pub fn embeddings(bytes: &[u8]) -> bool {
    let is_one = [
        json::parse::<embeddings::EmbeddingsBody>(bytes).and_then(|mut body| body.take_input()).is_ok(),
        json::parse::<tei::EmbedBody>(bytes).and_then(|mut body| body.take_inputs()).is_ok(),
        json::parse::<tei::TokenizeBody>(bytes).and_then(|mut body| body.take_texts()).is_ok(),
        json::parse::<ollama::EmbedBody>(bytes).and_then(|mut body| body.take_texts()).is_ok(),
        json::parse::<ollama::PromptBody>(bytes).and_then(|mut body| body.take_text()).is_ok(),
    ];
    is_one.contains(&true)
}

/// A cursor of a listing and of a search. Whether it is one; what it says is written as it was read.
pub fn cursor(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (after_id, after_hit) = (cursor::decode(text), cursor::decode_hit(text, FINGERPRINT));
    if let Ok(id) = &after_id {
        assert_eq!(cursor::encode(id), text);
    }
    if let Ok(after) = &after_hit {
        assert_eq!(cursor::encode_hit(after, FINGERPRINT), text);
    }
    after_id.is_ok() || after_hit.is_ok()
}
