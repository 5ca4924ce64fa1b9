//! Writing, reading, listing and deleting documents.

use serde_json::{Value, json};

use super::server::Server;

const A: [f32; 3] = [1.0, 0.0, 0.0];
const B: [f32; 3] = [0.0, 1.0, 0.0];

#[test]
pub fn what_is_written_is_read_back() {
    let server = Server::with_documents(&[]);
    let metadata = json!({"s": "д", "i": 9_223_372_036_854_775_807_i64, "f": 0.5, "n": null, "b": true, "l": [1, "x"], "o": {"p": {}}});
    let documents = json!([
        {"id": "a", "text": "one\n\"two\"", "vector": [3, 0, 4], "metadata": metadata},
        {"id": "b", "vector": [0, 1, 0]},
    ]);
    let upserted = server.post("/v1/collections/c/documents", &json!({"documents": documents, "wait": true})).ok();
    let seq = upserted["seq"].as_u64().unwrap();
    assert_eq!(upserted, json!({"upserted": 2, "seq": seq, "embedded": 0, "cached": 0, "truncated": []}));

    let a = server.get("/v1/collections/c/documents/a?include=text,metadata,vector").ok();
    assert_eq!((&a["id"], &a["text"], &a["metadata"]), (&json!("a"), &json!("one\n\"two\""), &metadata));
    assert_eq!((&a["vector"], &a["seq"], &a["embedding"]), (&json!([0.6, 0.0, 0.8]), &json!(seq), &json!("ready")));
    assert_eq!(a["created_at"], a["updated_at"]);
    let b = server.get("/v1/collections/c/documents/b").ok();
    assert_eq!((&b["text"], &b["metadata"], b.get("vector")), (&Value::Null, &json!({}), None));
    let bare = server.get("/v1/collections/c/documents/a?include=").ok();
    assert!(bare.get("text").is_none() && bare.get("metadata").is_none() && bare["seq"] == seq);
}

#[test]
pub fn a_document_is_replaced_whole_and_a_retry_has_one_effect() {
    let server = Server::with_documents(&[("a", A)]);
    let body = json!({"documents": [{"id": "a", "vector": [0, 1, 0], "metadata": {"new": 1}}]});
    for _ in 0..2 {
        server.post("/v1/collections/c/documents", &body).ok();
    }
    let a = server.get("/v1/collections/c/documents/a?include=text,metadata,vector").ok();
    assert_eq!((&a["text"], &a["metadata"], &a["vector"]), (&Value::Null, &json!({"new": 1}), &json!([0.0, 1.0, 0.0])));
    assert_eq!(server.ids(), ["a"]);
}

#[test]
pub fn ids_of_any_text_work_in_the_path() {
    let server = Server::with_documents(&[]);
    let ids = ["a/b", "../x", "a b", "привет", "a%2Fb", "q?x=1#f", "delete", "count", ".", "+"];
    for id in ids {
        server.post("/v1/collections/c/documents", &json!({"documents": [{"id": id, "vector": [1, 0, 0]}]})).ok();
    }
    assert_eq!(server.ids().len(), ids.len());
    for id in ids {
        let path = format!("/v1/collections/c/documents/{}", percent_encoded(id));
        assert_eq!(server.get(&path).ok()["id"], id);
        assert_eq!(server.delete(&path).ok()["deleted"], 1, "{id}");
        server.get(&path).refused(404, "document_not_found");
        assert_eq!(server.delete(&path).ok()["deleted"], 0, "{id}");
    }
    assert_eq!(server.get("/v1/collections/c/documents").ok(), json!({"documents": [], "next_cursor": null}));
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[test]
pub fn pages_follow_each_other_by_id() {
    let ids: Vec<String> = (0..25).map(|n| format!("id-{n:02}")).collect();
    let documents: Vec<_> = ids.iter().map(|id| (id.as_str(), A)).collect();
    let server = Server::with_documents(&documents);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/v1/collections/c/documents?limit=10&include={cursor}")).ok();
        let documents = page["documents"].as_array().unwrap();
        assert!(documents.len() <= 10 && documents[0].get("text").is_none());
        seen.extend(documents.iter().map(|d| d["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ids);
    let filtered = server.get("/v1/collections/c/documents?filter=%7B%22n%22:%7B%22$gte%22:23%7D%7D").ok();
    assert_eq!(filtered["documents"].as_array().unwrap().len(), 2);
    assert_eq!(filtered["next_cursor"], Value::Null);
}

#[test]
pub fn parameters_of_a_listing_are_checked() {
    let server = Server::with_documents(&[("a", A)]);
    let cases = [
        ("limit=0", 422, "out_of_range"),
        ("limit=1001", 422, "out_of_range"),
        ("limit=ten", 400, "invalid_parameter"),
        ("page=2", 400, "invalid_parameter"),
        ("include=body", 400, "invalid_parameter"),
        ("cursor=%21", 400, "invalid_cursor"),
        ("cursor=AmE", 400, "invalid_cursor"),
        ("filter=%7B", 400, "invalid_parameter"),
        ("filter=%7B%22a%22:%7B%22$near%22:1%7D%7D", 422, "invalid_filter"),
    ];
    for (query, status, code) in cases {
        server.get(&format!("/v1/collections/c/documents?{query}")).refused(status, code);
    }
}

#[test]
pub fn documents_are_counted_exactly() {
    let server = Server::with_documents(&[("a", A), ("b", B), ("c", A), ("d", B)]);
    let path = "/v1/collections/c/documents/count";
    let count = |body: Value| server.post(path, &body).ok()["count"].as_u64();
    let second = json!({"filter": {"n": {"$gte": 2}}});
    assert_eq!((count(json!({})), count(json!({"filter": {}})), count(second.clone())), (Some(4), Some(4), Some(2)));
    // What was replaced counts as it is now, and what was deleted no more.
    let replacing = json!({"documents": [{"id": "c", "vector": A, "metadata": {"n": 0}}]});
    server.post("/v1/collections/c/documents", &replacing).ok();
    server.delete("/v1/collections/c/documents/a").ok();
    assert_eq!((count(json!({})), count(second)), (Some(3), Some(1)));
    let of_none = json!({"filter": {"$or": [{"n": 7}, {"m": {"$exists": true}}]}});
    assert_eq!(count(of_none), Some(0));
    for (body, code) in [
        (json!({"filters": {}}), "unknown_field"),
        (json!({"filter": 1}), "invalid_filter"),
        (json!({"filter": {"n": {"$near": 1}}}), "invalid_filter"),
    ] {
        server.post(path, &body).refused(422, code);
    }
    server.post(&format!("{path}?exact=true"), &json!({})).refused(400, "invalid_parameter");
}

#[test]
pub fn documents_are_deleted_by_ids_or_by_filter() {
    let server = Server::with_documents(&[("a", A), ("b", B), ("c", A), ("d", B)]);
    let path = "/v1/collections/c/documents/delete";
    let deleted = server.post(path, &json!({"ids": ["a", "nobody"]})).ok();
    assert_eq!(deleted["deleted"], 1);
    assert!(deleted["seq"].as_u64().is_some_and(|seq| seq > 0));
    assert_eq!(server.post(path, &json!({"filter": {"n": {"$in": [1, 2]}}})).ok()["deleted"], 2);
    assert_eq!(server.ids(), ["d"]);
    for (body, code) in [
        (json!({}), "invalid_value"),
        (json!({"ids": []}), "invalid_value"),
        (json!({"ids": ["d"], "filter": {"n": 3}}), "invalid_value"),
        (json!({"ids": [1]}), "invalid_value"),
        (json!({"ids": [""]}), "invalid_name"),
        (json!({"filter": {}}), "invalid_filter"),
        (json!({"filter": {"$and": [{}]}}), "invalid_filter"),
        (json!({"filter": {"$and": [{}, {"$and": [{}, {}]}]}}), "invalid_filter"),
        (json!({"filter": {"$or": [{"n": 1}, {}]}}), "invalid_filter"),
        (json!({"filter": {"n": {"$nin": []}}}), "invalid_filter"),
        (json!({"filter": {"$not": {"n": {"$in": []}}}}), "invalid_filter"),
        (json!({"filter": {"$any": []}}), "invalid_filter"),
        (json!({"all": true}), "unknown_field"),
    ] {
        server.post(path, &body).refused(422, code);
    }
    assert_eq!(server.ids(), ["d"]);
}
