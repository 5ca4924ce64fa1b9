//! Bad input: each a 4xx with a code and a sentence, and nothing changes.

use std::io::Write;
use std::net::Shutdown;

use serde_json::{Value, json};

use super::client::{Request, connect, read_answer};
use super::server::Server;

const DOCUMENTS: &str = "/v1/collections/c/documents";

#[test]
pub fn a_rejected_batch_changes_nothing() {
    let server = Server::with_documents(&[("keep", [1.0, 0.0, 0.0])]);
    let before = server.get("/v1/collections/c/stats").ok();
    let good = json!({"id": "good", "vector": [0, 1, 0]});
    let overwrite = json!({"id": "keep", "vector": [0, 0, 1], "metadata": {"changed": true}});
    let deep = nested(30);
    let bad = [
        (json!({"id": "bad", "vector": [1, 0]}), "dim_mismatch"),
        (json!({"id": "bad", "vector": [1, 0, 0, 0]}), "dim_mismatch"),
        (json!({"id": "bad", "vector": []}), "dim_mismatch"),
        (json!({"id": "bad", "vector": [0, 0, 0]}), "invalid_vector"),
        (json!({"id": "bad", "vector": [1e-30, 0, 0]}), "invalid_vector"),
        (json!({"id": "bad", "vector": [1e39, 0, 0]}), "invalid_vector"),
        (json!({"id": "bad", "vector": [1, null, 0]}), "invalid_value"),
        (json!({"id": "bad", "vector": "1,0,0"}), "invalid_vector"),
        (json!({"id": "bad", "vector": "AACAPwAAAAA="}), "dim_mismatch"),
        (json!({"id": "bad", "vector": "AADAfwAAAAAAAAAA"}), "invalid_vector"),
        (json!({"id": "bad", "vector": {"a": 1}}), "invalid_value"),
        (json!({"id": "bad"}), "nothing_to_index"),
        (json!({"id": "bad", "text": "no model"}), "no_model"),
        (json!({"id": "good", "vector": [1, 0, 0]}), "duplicate_id"),
        (json!({"id": "", "vector": [1, 0, 0]}), "invalid_name"),
        (json!({"id": "a\u{0}b", "vector": [1, 0, 0]}), "invalid_name"),
        (json!({"id": "x".repeat(513), "vector": [1, 0, 0]}), "invalid_name"),
        (json!({"id": 7, "vector": [1, 0, 0]}), "invalid_value"),
        (json!({"vector": [1, 0, 0]}), "missing_field"),
        (json!({"id": "bad", "vector": [1, 0, 0], "meta": {}}), "unknown_field"),
        (json!({"id": "bad", "vector": [1, 0, 0], "metadata": []}), "invalid_value"),
        (json!({"id": "bad", "vector": [1, 0, 0], "metadata": {"a": u64::MAX}}), "integer_out_of_range"),
        (json!({"id": "bad", "vector": [1, 0, 0], "text": "x".repeat((1 << 20) + 1)}), "too_long"),
    ];
    for (document, code) in bad {
        let answer = server.post(DOCUMENTS, &json!({"documents": [good, overwrite, document]}));
        answer.refused(422, code);
    }
    let too_deep = json!({"documents": [good, overwrite, {"id": "bad", "vector": [1, 0, 0], "metadata": {"a": deep}}]});
    server.post(DOCUMENTS, &too_deep).refused(400, "json_too_deep");
    assert_eq!(server.ids(), ["keep"]);
    assert_eq!(server.get("/v1/collections/c/documents/keep").ok()["metadata"], json!({"n": 0}));
    assert_eq!(server.get("/v1/collections/c/stats").ok()["last_seq"], before["last_seq"]);
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
pub fn declared_fields_hold() {
    let server = Server::start();
    let fields = json!({"price": "number", "key": "keyword", "on": "boolean"});
    server.put("/v1/collections/c", &json!({"dim": 3, "fields": fields})).ok();
    let with = |metadata: Value| {
        server.post(DOCUMENTS, &json!({"documents": [{"id": "a", "vector": [1, 0, 0], "metadata": metadata}]}))
    };
    for metadata in [json!({"price": "9"}), json!({"key": 9}), json!({"on": "yes"}), json!({"key": ["a", 1]})] {
        let detail = with(metadata).refused(422, "field_type_mismatch");
        assert!(detail.contains("\"a\""), "{detail}");
    }
    assert_eq!(server.ids(), Vec::<String>::new());
    with(json!({"price": 9, "key": ["a"], "on": null, "other": "x"})).ok();
}

#[test]
fn text_that_is_no_json_is_refused() {
    let server = Server::with_documents(&[]);
    let send = |body: &[u8]| Request::new("POST", DOCUMENTS).body("application/json", body).send(server.address);
    let bodies: [&[u8]; 7] = [
        b"",
        b"{",
        b"{\"documents\":[{\"id\":\"a\",\"vector\":[NaN,0,0]}]}",
        b"{\"documents\":[{\"id\":\"\xff\",\"vector\":[1,0,0]}]}",
        b"{\"documents\":[{\"id\":\"\\ud800\",\"vector\":[1,0,0]}]}",
        b"{\"documents\":[]} x",
        b"\xef\xbb\xbf",
    ];
    for body in bodies {
        send(body).refused(400, "invalid_json");
    }
    send(b"{\"documents\":[{\"id\":\"a\",\"vector\":[1e999,0,0]}]}").refused(422, "invalid_vector");
    let detail = send("[".repeat(1 << 20).as_bytes()).refused(400, "json_too_deep");
    assert!(detail.contains("32"), "{detail}");
    send(b"[]").refused(422, "invalid_value");
    send(b"{\"documents\":{}}").refused(422, "invalid_value");
    send(b"{\"documents\":[[\"a\",null,null,[1,0,0]]]}").refused(422, "invalid_value");
    send(b"{\"docs\":[]}").refused(422, "unknown_field");
    send(b"{}").refused(422, "missing_field");
    send(b"{\"documents\":[]}").refused(422, "invalid_value");
    assert_eq!(server.ids(), Vec::<String>::new());
}

#[test]
fn a_body_that_ends_early_is_refused() {
    let server = Server::with_documents(&[]);
    let whole = "{\"documents\":[{\"id\":\"a\",\"vector\":[1,0,0]}]}";
    let chunk = format!("{:x}\r\n{whole}\r\n", whole.len());
    let cases = [
        ("content-length: 100", whole.to_owned()),
        ("transfer-encoding: chunked", chunk.clone()),
        ("transfer-encoding: chunked", format!("{chunk}no length\r\n")),
    ];
    for (framing, body) in cases {
        let request = Request::new("POST", DOCUMENTS).header("content-type", "application/json");
        let mut stream = connect(server.address);
        stream.write_all(&request.head(framing)).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_answer(&mut stream).refused(400, "body_incomplete");
    }
    assert_eq!(server.ids(), Vec::<String>::new());
}

#[test]
fn a_body_of_another_type_is_refused() {
    let server = Server::with_documents(&[]);
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let request = Request::new("POST", DOCUMENTS).body(content_type, "{\"documents\":[]}");
        request.send(server.address).refused(415, "unsupported_media_type");
    }
    Request::new("POST", DOCUMENTS).send(server.address).refused(415, "unsupported_media_type");
}

#[test]
pub fn an_unknown_collection_is_named_on_every_route() {
    let server = Server::start();
    let base = "/v1/collections/nobody";
    let document = json!({"documents": [{"id": "a", "vector": [1]}]});
    let answers = [
        server.get(base),
        server.delete(base),
        server.get(&format!("{base}/stats")),
        server.get(&format!("{base}/documents")),
        server.post(&format!("{base}/documents"), &document),
        server.get(&format!("{base}/documents/a")),
        server.delete(&format!("{base}/documents/a")),
        server.post(&format!("{base}/documents/delete"), &json!({"ids": ["a"]})),
        server.post(&format!("{base}/search"), &json!({"vector": [1]})),
        server.get(&format!("{base}/search?q=a")),
        server.post(&format!("{base}/documents/count"), &json!({})),
        server.post(&format!("{base}/import"), &json!({})),
        Request::new("PATCH", &format!("{base}/documents/a")).json(&json!({"text": "t"})).send(server.address),
        Request::new("PATCH", &format!("{base}/documents"))
            .json(&json!({"documents": [{"id": "a", "text": "t"}]}))
            .send(server.address),
    ];
    for (n, answer) in answers.iter().enumerate() {
        if n == 11 {
            answer.refused(415, "unsupported_media_type");
        } else {
            let detail = answer.refused(404, "collection_not_found");
            assert!(detail.contains("nobody"), "{detail}");
        }
    }
}

#[test]
fn unknown_routes_and_methods_are_problems() {
    let server = Server::start();
    server.get("/v1/nothing").refused(404, "route_not_found");
    server.get("/v1/collections/c/documents/a/b").refused(404, "route_not_found");
    let answer = Request::new("PATCH", "/v1/collections/c").send(server.address);
    answer.refused(405, "method_not_allowed");
    let allow = answer.header("allow").unwrap();
    for method in ["GET", "PUT", "DELETE"] {
        assert!(allow.contains(method), "{allow}");
    }
}

/// Each with its fix, by every way to search.
#[test]
pub fn a_search_that_makes_no_sense_says_what_to_change() {
    let server = Server::start();
    let fields = json!({"price": "number", "kind": "keyword"});
    server.put("/v1/collections/c", &json!({"dim": 3, "fields": fields})).ok();
    server.post(DOCUMENTS, &json!({"documents": [{"id": "a", "vector": [1, 0, 0], "metadata": {"price": 3}}]})).ok();
    let cases = [
        (json!({"top_k": 1_001}), "out_of_range", "1 to 1000"),
        (json!({"top_k": i64::MAX}), "out_of_range", "1 to 1000"),
        (json!({"top_k": 0}), "out_of_range", "1 to 1000"),
        (json!({"top_k": 1.5}), "invalid_value", "top_k: "),
        (json!({"ef_search": 9}), "out_of_range", "10 to 4096"),
        (json!({"top_k": 100, "ef_search": 99}), "out_of_range", "100 to 4096"),
        (json!({"ef_search": 4_097}), "out_of_range", "10 to 4096"),
        (json!({"offset": 9_991}), "out_of_range", "0 to 9990"),
        (json!({"top_k": 1_000, "offset": 9_001}), "out_of_range", "0 to 9000"),
        (json!({"offset": i64::MAX}), "out_of_range", "0 to 9990"),
        (json!({"offset": -1}), "invalid_value", "offset: "),
        (json!({"topk": 10}), "unknown_field", "topk"),
        (json!({"filter": {"price": {"$like": 1}}}), "invalid_filter", "$like"),
        (json!({"filter": {"price": {"$gt": 5, "$lt": 3}}}), "contradictory_filter", "price"),
        (json!({"filter": {"$and": [{"kind": {"$exists": false}}, {"kind": "x"}]}}), "contradictory_filter", "kind"),
        (json!({"filter": {"kind": {"$gt": 1}}}), "filter_type_mismatch", "kind"),
        (json!({"filter": {"price": "3"}}), "filter_type_mismatch", "price"),
        (json!({"filter": {"price": {"$prefix": "3"}}}), "filter_type_mismatch", "price"),
    ];
    for (more, code, hint) in cases {
        let mut body = json!({"vector": [1, 0, 0]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let detail = server.post("/v1/collections/c/search", &body).refused(422, code);
        assert!(detail.contains(hint), "{body}: {detail}");
        let batch = json!({"searches": [{"vector": [1, 0, 0]}, body]});
        let answer = server.post("/v1/collections/c/search/batch", &batch);
        let detail = answer.refused(422, code);
        assert!(detail.contains(hint), "{body}: {detail}");
    }
    // A field that nobody declared may be in documents all the same: it is no error, and nothing passes.
    let body = json!({"vector": [1, 0, 0], "filter": {"undeclared": 1}});
    assert_eq!(server.post("/v1/collections/c/search", &body).ok()["hits"], json!([]));
    for (query, hint) in
        [("limit=1001", "1 to 1000"), ("limit=10&ef_search=9", "10 to 4096"), ("offset=9991", "0 to 9990")]
    {
        let detail = server.get(&format!("/v1/collections/c/search?q=a&{query}")).refused(422, "out_of_range");
        assert!(detail.contains(hint), "{query}: {detail}");
    }
}
