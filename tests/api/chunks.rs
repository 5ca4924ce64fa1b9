//! Long texts in chunks over HTTP: split, embedded, found by their best part.

use serde_json::{Value, json};

use super::server::Server;
use crate::support::model::SMALL_MODEL;

const DOCUMENTS: &str = "/v1/collections/c/documents";
const SEARCH: &str = "/v1/collections/c/search";

fn server(chunks: Value) -> Server {
    let server = Server::with_model();
    server.put("/v1/collections/c", &json!({"embedding": {"model": SMALL_MODEL}, "chunks": chunks})).ok();
    server
}

fn upsert(server: &Server, documents: Value) -> Value {
    server.post(DOCUMENTS, &json!({"documents": documents, "refresh": true})).ok()
}

#[test]
fn a_long_text_is_split_and_its_chunks_told() {
    let server = server(json!({"max_tokens": 8, "overlap_tokens": 2}));
    let definition = server.get("/v1/collections/c").ok();
    assert_eq!(definition["chunks"], json!({"max_tokens": 8, "overlap_tokens": 2}));
    let text = "a b c d, a b c d. é c c c c a a a b b";
    let written = upsert(&server, json!([{"id": "long", "text": text}, {"id": "short", "text": "d d"}]));
    assert_eq!((&written["upserted"], &written["truncated"]), (&json!(2), &json!([])));
    assert!(written["embedded"].as_u64().unwrap() >= 4, "{written}");
    let document = server.get(&format!("{DOCUMENTS}/long?include=vector")).ok();
    let chunks = document["chunks"].as_array().unwrap();
    assert!(chunks.len() >= 3 && document["vector"].is_null(), "{document}");
    assert_eq!(chunks[0]["start"], 0);
    assert_eq!(chunks[chunks.len() - 1]["end"], text.chars().count());
    // Each chunk is embedded as its text alone is: a query of the same tokens finds it.
    for (index, chunk) in chunks.iter().enumerate() {
        let vector = &chunk["vector"];
        let found = server.post(SEARCH, &json!({"vector": vector, "include": ["chunk"], "top_k": 1})).ok();
        let hit = &found["hits"][0];
        let place = |name: &str| chunk[name].as_u64().unwrap() as usize;
        let part: String = text.chars().take(place("end")).skip(place("start")).collect();
        let wanted = json!({"index": index, "start": chunk["start"], "end": chunk["end"], "text": part});
        assert_eq!((&hit["id"], &hit["chunk"]), (&json!("long"), &wanted));
        assert!(hit["score"].as_f64().unwrap() > 0.9999 && hit["text"].is_null(), "{hit}");
    }
    assert_eq!(server.get(&format!("{DOCUMENTS}/short")).ok()["chunks"], json!([{"start": 0, "end": 3}]));
}

#[test]
fn places_of_given_chunks_move_with_a_redacted_text() {
    let server = Server::with_documents(&[]);
    server.put("/v1/collections/g", &json!({"dim": 2, "chunks": {}, "guard": {"action": "redact"}})).ok();
    let documents = "/v1/collections/g/documents";
    let chunks = json!([{"vector": [1, 0], "start": 0, "end": 36}, {"vector": [0, 1], "start": 37, "end": 49}]);
    let text = "Write to anna.long.name@example.com. Second part.";
    server.post(documents, &json!({"documents": [{"id": "a", "text": text, "chunks": chunks}]})).ok();
    let nearest = |vector: Value| {
        let body = json!({"vector": vector, "include": ["chunk"]});
        server.post("/v1/collections/g/search", &body).ok()["hits"][0]["chunk"]["text"].clone()
    };
    assert_eq!(nearest(json!([1, 0])), "Write to [email].");
    assert_eq!(nearest(json!([0, 1])), "Second part.");
    // As it was read, it can be written.
    let read = server.get(&format!("{documents}/a?include=text,metadata,vector")).ok();
    let again = json!({"documents": [{"id": "a", "text": read["text"], "chunks": read["chunks"]}]});
    server.post(documents, &again).ok();
}

#[test]
fn a_document_counts_once_whatever_its_chunks() {
    let server = server(json!({"max_tokens": 5}));
    let long = "a b c d a b c d a b c d a b c d a b c d";
    let documents = json!([
        {"id": "x", "text": long, "metadata": {"k": 1}},
        {"id": "y", "text": format!("{long} c c"), "metadata": {"k": 1}},
        {"id": "z", "text": "d", "metadata": {"k": 2}},
    ]);
    upsert(&server, documents);
    for mode in ["vector", "keyword", "hybrid"] {
        let body = json!({"text": "a b c", "mode": mode, "facets": ["k"], "top_k": 5});
        let found = server.post(SEARCH, &body).ok();
        let mut ids: Vec<_> = found["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        let wanted: &[&str] = if mode == "keyword" { &["x", "y"] } else { &["x", "y", "z"] };
        assert_eq!(ids, wanted, "{mode}");
        assert_eq!(found["facets"]["k"]["values"][0], json!({"value": 1, "count": 2}), "{mode}");
        let has_chunk = found["hits"].as_array().unwrap().iter().all(|hit| hit["chunk"]["index"].is_u64());
        assert_eq!(has_chunk, mode != "keyword", "{found}");
    }
    let like = server.post(SEARCH, &json!({"like": {"positive": ["x"], "negative": ["z"]}})).ok();
    assert_eq!(like["hits"].as_array().unwrap().len(), 1);
    upsert(&server, json!([{"id": "x", "text": "d"}]));
    server.delete(&format!("{DOCUMENTS}/y")).ok();
    for body in [json!({"text": "a b c", "top_k": 50}), json!({"text": "a b c", "mode": "hybrid", "refresh": true})] {
        let found = server.post(SEARCH, &body).ok();
        let hits: Vec<_> = found["hits"].as_array().unwrap().iter().map(|hit| (&hit["id"], &hit["text"])).collect();
        assert!(hits.len() == 2 && hits.iter().all(|(id, text)| **id != "y" && **text == "d"), "{found}");
    }
}

#[test]
fn chunks_come_back_as_they_were_written() {
    let server = Server::start();
    server.put("/v1/collections/c", &json!({"dim": 3, "chunks": {}})).ok();
    let chunks = json!([{"start": 0, "end": 2, "vector": [1.0, 0.0, 0.0]}, {"vector": [0.0, 1.0, 0.0]}]);
    upsert(&server, json!([{"id": "a", "text": "äöü", "chunks": chunks}, {"id": "b", "vector": [0, 0, 1]}]));
    let read = server.get(&format!("{DOCUMENTS}/a?include=vector,text")).ok();
    assert_eq!((&read["chunks"], &read["text"]), (&chunks, &json!("äöü")));
    let found = server.post(SEARCH, &json!({"vector": [1, 0, 0], "include": ["chunk", "vector"], "top_k": 1})).ok();
    let hit = json!({"id": "a", "score": 1.0, "vector": [1.0, 0.0, 0.0],
        "chunk": {"index": 0, "start": 0, "end": 2, "text": "äö"}});
    assert_eq!(found["hits"], json!([hit]));
    let found = server.post(SEARCH, &json!({"vector": [0, 1, 0], "include": ["chunk"], "top_k": 1})).ok();
    assert_eq!(found["hits"][0]["chunk"], json!({"index": 1}), "a place that nobody gave");
}

#[test]
fn chunks_that_do_not_fit_are_refused() {
    let server = Server::start();
    server.put("/v1/collections/c", &json!({"dim": 1, "chunks": {"max_tokens": 100}})).ok();
    server.put("/v1/collections/plain", &json!({"dim": 1})).ok();
    let one = json!([{"vector": [1]}]);
    let refused = |path: &str, document: Value, code: &str| {
        server.post(path, &json!({"documents": [document]})).refused(422, code);
    };
    refused("/v1/collections/plain/documents", json!({"id": "a", "chunks": one}), "invalid_chunks");
    refused(DOCUMENTS, json!({"id": "a", "vector": [1], "chunks": one}), "invalid_chunks");
    refused(DOCUMENTS, json!({"id": "a", "chunks": []}), "invalid_chunks");
    refused(DOCUMENTS, json!({"id": "a", "chunks": [{"vector": [1, 2]}]}), "dim_mismatch");
    refused(DOCUMENTS, json!({"id": "a", "chunks": [{"vector": [0]}]}), "invalid_vector");
    refused(DOCUMENTS, json!({"id": "a", "text": "ab", "chunks": [{"vector": [1], "start": 0}]}), "invalid_chunks");
    for (start, end) in [(0, 3), (2, 1)] {
        let chunk = json!({"vector": [1], "start": start, "end": end});
        refused(DOCUMENTS, json!({"id": "a", "text": "ab", "chunks": [chunk]}), "invalid_chunks");
    }
    refused(DOCUMENTS, json!({"id": "a", "chunks": vec![json!({"vector": [1]}); 4_097]}), "too_many_chunks");
    refused(DOCUMENTS, json!({"id": "a", "text": "no model"}), "no_model");
    assert_eq!(server.ids(), Vec::<String>::new());
    let create = |chunks: Value| server.put("/v1/collections/d", &json!({"dim": 1, "chunks": chunks}));
    create(json!({"max_tokens": 0})).refused(422, "out_of_range");
    create(json!({"max_tokens": 10, "overlap_tokens": 6})).refused(422, "invalid_definition");
    server.put("/v1/collections/c", &json!({"dim": 1})).refused(409, "definition_conflict");
    let with_model = Server::with_model();
    let chunks = json!({"embedding": {"model": SMALL_MODEL}, "chunks": {"max_tokens": 14}});
    let detail = with_model.put("/v1/collections/c", &chunks).refused(422, "out_of_range");
    assert!(detail.contains("1 to 13"), "{detail}");
}
