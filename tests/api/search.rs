//! Searches by vector, by document and by text.

use serde_json::{Value, json};

use super::server::Server;

const DOCUMENTS: [(&str, [f32; 3]); 4] =
    [("x", [1.0, 0.0, 0.0]), ("xy", [1.0, 1.0, 0.0]), ("y", [0.0, 1.0, 0.0]), ("z", [0.0, 0.0, 2.0])];

fn ids(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

#[test]
pub fn the_nearest_come_first_with_their_scores() {
    let server = Server::with_documents(&DOCUMENTS);
    let found = server.post("/v1/collections/c/search", &json!({"vector": [2, 0, 0], "top_k": 3, "exact": true})).ok();
    assert_eq!(ids(&found), ["x", "xy", "y"]);
    assert_eq!(found["plan"], "exact");
    assert!(found["took_ms"].as_f64().is_some_and(|ms| ms >= 0.0));
    let first = &found["hits"][0];
    assert!((first["score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{first}");
    assert_eq!(
        (&first["text"], &first["metadata"], first.get("vector")),
        (&json!("text of x"), &json!({"n": 0}), None)
    );
    assert!((found["hits"][1]["score"].as_f64().unwrap() - 0.5f64.sqrt()).abs() < 1e-5);
    let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[test]
pub fn vectors_may_be_base64() {
    let server = Server::with_documents(&DOCUMENTS);
    // 0.6, 0, 0.8 and 1, 0, 0 as little-endian f32.
    let document = json!({"id": "xz", "vector": "mpkZPwAAAADNzEw/"});
    server.post("/v1/collections/c/documents", &json!({ "documents": [document] })).ok();
    let query = json!({"vector": "AACAPwAAAAAAAAAA", "top_k": 3, "include": ["vector"]});
    let found = server.post("/v1/collections/c/search", &query).ok();
    assert_eq!(ids(&found), ["x", "xy", "xz"]);
    let vector: Vec<f64> = serde_json::from_value(found["hits"][2]["vector"].clone()).unwrap();
    assert!((vector[0] - 0.6).abs() < 1e-6 && (vector[2] - 0.8).abs() < 1e-6, "{vector:?}");
}

#[test]
pub fn a_document_is_no_hit_of_its_own() {
    let server = Server::with_documents(&DOCUMENTS);
    let found = server.post("/v1/collections/c/search", &json!({"id": "xy", "top_k": 2})).ok();
    assert_eq!(ids(&found), ["x", "y"]);
    server.post("/v1/collections/c/search", &json!({"id": "nobody"})).refused(404, "document_not_found");
}

#[test]
pub fn threshold_filter_and_include_narrow_the_answer() {
    let server = Server::with_documents(&DOCUMENTS);
    let search = |body: Value| server.post("/v1/collections/c/search", &body).ok();
    let near = search(json!({"vector": [1, 0, 0], "threshold": 0.5}));
    assert_eq!(ids(&near), ["x", "xy"]);
    let filtered = search(json!({"vector": [1, 0, 0], "filter": {"$or": [{"n": {"$gte": 3}}, {"n": 2}]}}));
    assert_eq!(ids(&filtered), ["y", "z"]);
    let vectors =
        search(json!({"vector": [0, 0, 1], "top_k": 1, "include": ["vector"], "ef_search": 64, "mode": "vector"}));
    let hit = &vectors["hits"][0];
    assert_eq!((&hit["id"], &hit["vector"]), (&json!("z"), &json!([0.0, 0.0, 1.0])));
    assert!(hit.get("text").is_none() && hit.get("metadata").is_none(), "{hit}");
    assert_eq!(ids(&search(json!({"vector": [1, 0, 0], "filter": {"n": 99}}))), Vec::<&str>::new());
}

#[test]
pub fn what_was_deleted_is_no_hit() {
    let server = Server::with_documents(&DOCUMENTS);
    server.delete("/v1/collections/c/documents/x").ok();
    let found = server.post("/v1/collections/c/search", &json!({"vector": [1, 0, 0]})).ok();
    assert_eq!(ids(&found), ["xy", "y", "z"]);
}

#[test]
pub fn a_collection_without_a_model_says_so() {
    let server = Server::with_documents(&DOCUMENTS);
    server.post("/v1/collections/c/search", &json!({"text": "a"})).refused(422, "no_model");
    server.get("/v1/collections/c/search?q=a&limit=3&threshold=0.5").refused(422, "no_model");
}

#[test]
pub fn searches_that_cannot_be_answered_are_refused() {
    let server = Server::with_documents(&DOCUMENTS);
    let v = [1, 0, 0];
    let cases = [
        (json!({}), "invalid_query"),
        (json!({"vector": v, "id": "x"}), "invalid_query"),
        (json!({"vector": [1, 0]}), "dim_mismatch"),
        (json!({"vector": [0, 0, 0]}), "invalid_vector"),
        (json!({"vector": [1e39, 0, 0]}), "invalid_vector"),
        (json!({"vector": v, "top_k": 0}), "out_of_range"),
        (json!({"vector": v, "top_k": 1001}), "out_of_range"),
        (json!({"vector": v, "ef_search": 4097}), "out_of_range"),
        (json!({"vector": v, "mode": "magic"}), "invalid_value"),
        (json!({"vector": v, "filter": {"n": {"$gt": 5, "$lt": 3}}}), "contradictory_filter"),
        (json!({"vector": v, "limit": 3}), "unknown_field"),
        (json!({"vector": v, "include": ["score"]}), "invalid_value"),
        (json!({"vector": v, "filter": {"n": {"$like": 1}}}), "invalid_filter"),
        (json!({"vector": v, "filter": {"n": {"$in": vec![1; 300]}}}), "invalid_filter"),
    ];
    for (body, code) in cases {
        server.post("/v1/collections/c/search", &body).refused(422, code);
    }
    for query in ["", "?q=a&top_k=1", "?q=a&limit=x", "?q=a&filter=1"] {
        server.get(&format!("/v1/collections/c/search{query}")).refused(400, "invalid_parameter");
    }
    server.post("/v1/collections/nobody/search", &json!({"vector": v})).refused(404, "collection_not_found");
}
