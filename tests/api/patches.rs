//! Changing a part of a document, and writing only where a document stands as it was read.

use std::thread;

use serde_json::{Value, json};

use super::client::{Answer, Request};
use super::server::Server;
use crate::support::model::SMALL_MODEL;

const DOCUMENTS: &str = "/v1/collections/c/documents";
const A: [f32; 3] = [1.0, 0.0, 0.0];

fn patch(server: &Server, path: &str, body: &Value) -> Answer {
    Request::new("PATCH", path).json(body).send(server.address)
}

fn one(server: &Server, key: &str) -> Value {
    server.get(&format!("{DOCUMENTS}/{key}?include=text,metadata,vector")).ok()
}

#[test]
pub fn a_part_of_a_document_is_changed_and_the_rest_stays() {
    let server = Server::with_documents(&[("a", A), ("b", A)]);
    let a = format!("{DOCUMENTS}/a");
    let before = one(&server, "a");
    let body = json!({"metadata": {"tags": ["x"], "size": {"w": 1, "h": 2}}});
    let answer = patch(&server, &a, &body).ok();
    let seq = answer["seq"].as_u64().unwrap();
    assert_eq!(answer, json!({"updated": 1, "seq": seq, "embedded": 0, "cached": 0, "truncated": []}));
    let merge = json!({"metadata": {"n": null, "tags": ["y"], "size": {"h": null, "d": 0.5}}, "refresh": true});
    let merged = Request::new("PATCH", &a).body("application/merge-patch+json", merge.to_string());
    assert_eq!(merged.send(server.address).ok()["refreshed"], true);
    let after = one(&server, "a");
    assert_eq!(after["metadata"], json!({"tags": ["y"], "size": {"w": 1, "d": 0.5}}));
    for name in ["id", "text", "vector", "created_at", "embedding"] {
        assert_eq!(after[name], before[name], "{name}");
    }
    assert!(after["seq"].as_u64() > Some(seq), "{after}");

    let both = json!({"documents": [
        {"id": "a", "text": "another", "metadata": {"n": 7}},
        {"id": "b", "vector": [0, 3, 0], "text": null},
    ]});
    assert_eq!(patch(&server, DOCUMENTS, &both).ok()["updated"], 2);
    assert_eq!((&one(&server, "a")["text"], &one(&server, "a")["metadata"]["n"]), (&json!("another"), &json!(7)));
    let b = one(&server, "b");
    assert_eq!((&b["text"], &b["vector"], &b["metadata"]), (&Value::Null, &json!([0.0, 1.0, 0.0]), &json!({"n": 1})));
    let found = server.post("/v1/collections/c/search", &json!({"vector": A, "filter": {"n": 7}})).ok();
    assert_eq!(found["hits"][0]["id"], "a");
}

#[test]
pub fn a_patch_that_cannot_be_meant_is_refused_with_the_way_out() {
    let server = Server::with_documents(&[("a", A)]);
    let a = format!("{DOCUMENTS}/a");
    let before = one(&server, "a");
    let cases = [
        (json!({}), 422, "invalid_value", "\"metadata\""),
        (json!({"metadata": {}, "if_seq": 1}), 422, "invalid_value", "changes nothing"),
        (json!({"metadata": 1}), 422, "invalid_value", "an object"),
        (json!({"text": 1}), 422, "invalid_value", "string"),
        (json!({"if_seq": null, "text": "t"}), 422, "invalid_value", "null"),
        (json!({"fields": {}}), 422, "unknown_field", "`metadata`"),
        (json!({"vector": [1, 2]}), 422, "dim_mismatch", "3"),
        (json!({"vector": null}), 422, "no_model", "\"vector\""),
        (json!({"text": null, "vector": null}), 422, "nothing_to_index", "\"a\""),
        (json!({"text": "t", "if_seq": 9_999}), 409, "seq_conflict", "9999"),
    ];
    for (body, status, code, words) in cases {
        let detail = patch(&server, &a, &body).refused(status, code);
        assert!(detail.contains(words), "{body}: {detail}");
    }
    let text = json!({"text": "t"});
    let detail = patch(&server, &format!("{DOCUMENTS}/nobody"), &text).refused(404, "document_not_found");
    assert!(detail.contains("\"nobody\""), "{detail}");
    patch(&server, "/v1/collections/none/documents/a", &text).refused(404, "collection_not_found");
    let some = json!({"documents": [{"id": "a", "text": "t"}, {"id": "nobody", "text": "t"}]});
    assert!(patch(&server, DOCUMENTS, &some).refused(404, "document_not_found").contains("\"nobody\""));
    let twice = json!({"documents": [{"id": "a", "text": "t"}, {"id": "a", "text": "u"}]});
    patch(&server, DOCUMENTS, &twice).refused(422, "duplicate_id");
    patch(&server, DOCUMENTS, &json!({"documents": []})).refused(422, "invalid_value");
    let many: Vec<Value> = (0..1_001).map(|n| json!({"id": n.to_string(), "text": "t"})).collect();
    patch(&server, DOCUMENTS, &json!({"documents": many})).refused(422, "too_many_documents");
    Request::new("PATCH", &a).body("text/plain", "{}").send(server.address).refused(415, "unsupported_media_type");
    assert_eq!(one(&server, "a"), before);
}

#[test]
pub fn a_write_that_expects_another_seq_changes_nothing() {
    let server = Server::with_documents(&[]);
    let upsert = |documents: Value| server.post(DOCUMENTS, &json!({"documents": documents}));
    upsert(json!([{"id": "a", "vector": A, "if_seq": 0}])).ok();
    let seq = one(&server, "a")["seq"].as_u64().unwrap();
    let detail =
        upsert(json!([{"id": "b", "vector": A}, {"id": "a", "vector": A, "if_seq": 0}])).refused(409, "seq_conflict");
    assert!(detail.contains("\"a\"") && detail.contains(&format!("at seq {seq}")), "{detail}");
    let detail = upsert(json!([{"id": "b", "vector": A, "if_seq": seq}])).refused(409, "seq_conflict");
    assert!(detail.contains("no such document"), "{detail}");
    assert_eq!(server.ids(), ["a"]);
    let body = json!({"metadata": {"n": 1}, "if_seq": seq});
    let next = patch(&server, &format!("{DOCUMENTS}/a"), &body).ok()["seq"].as_u64().unwrap();
    assert_eq!(one(&server, "a")["seq"], next);
    let detail = patch(&server, &format!("{DOCUMENTS}/a"), &body).refused(409, "seq_conflict");
    assert!(detail.contains(&format!("at seq {seq}")) && detail.contains(&format!("at seq {next}")), "{detail}");
    // `seq` of a document that is written back is no condition.
    upsert(json!([{"id": "a", "vector": A, "seq": seq}])).ok();
    upsert(json!([{"id": "a", "vector": A, "if_seq": next}])).refused(409, "seq_conflict");
    upsert(json!([{"id": "a", "vector": A, "if_seq": null}])).refused(422, "invalid_value");

    let line = json!({"id": "z", "vector": A, "if_seq": 0}).to_string();
    let import = Request::new("POST", "/v1/collections/c/import").body("application/x-ndjson", line);
    let report = import.send(server.address).ok();
    assert_eq!((&report["upserted"], &report["errors"][0]["code"]), (&json!(0), &json!("invalid_value")));
    assert!(report["errors"][0]["detail"].as_str().unwrap().contains("if_seq"), "{report}");
}

#[test]
pub fn of_patches_at_the_same_time_none_is_lost() {
    const CLIENTS: usize = 6;
    const PATCHES: usize = 8;
    let server = Server::with_documents(&[("a", A)]);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                for n in 0..PATCHES {
                    let field = format!("{client}-{n}");
                    patch(server, &format!("{DOCUMENTS}/a"), &json!({"metadata": {field: n}})).ok();
                }
            });
        }
    });
    assert_eq!(one(&server, "a")["metadata"].as_object().unwrap().len(), 1 + CLIENTS * PATCHES);
}

#[test]
pub fn only_a_new_text_is_embedded() {
    let server = Server::with_model();
    server.put("/v1/collections/c", &json!({"embedding": {"model": SMALL_MODEL}})).ok();
    server.post(DOCUMENTS, &json!({"documents": [{"id": "a", "text": "a b"}, {"id": "b", "text": "c"}]})).ok();
    let a = format!("{DOCUMENTS}/a");
    let counts = |body: Value| {
        let answer = patch(&server, &a, &body).ok();
        (answer["embedded"].as_u64().unwrap(), answer["cached"].as_u64().unwrap())
    };
    assert_eq!(counts(json!({"metadata": {"n": 1}})), (0, 1));
    assert_eq!(counts(json!({"text": "a d"})), (1, 0));
    assert_eq!(counts(json!({"text": "c", "metadata": {"n": 2}})), (0, 1), "from the cache");
    assert_eq!(one(&server, "a")["vector"], one(&server, "b")["vector"]);
    assert_eq!(one(&server, "a")["metadata"], json!({"n": 2}));
}

#[test]
pub fn of_patches_whose_text_is_made_of_all_none_is_lost() {
    const CLIENTS: usize = 3;
    const PATCHES: usize = 4;
    let server = Server::with_model();
    let embedding = json!({"model": SMALL_MODEL, "template": {"exclude": ["views"]}});
    server.put("/v1/collections/c", &json!({"embedding": embedding})).ok();
    server.post(DOCUMENTS, &json!({"documents": [{"id": "a", "metadata": {"name": "a"}}]})).ok();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                for n in 0..PATCHES {
                    let body = json!({"metadata": {format!("f{client}{n}"): "b"}});
                    loop {
                        let answer = patch(server, &format!("{DOCUMENTS}/a"), &body);
                        if answer.status == 200 {
                            break;
                        }
                        // Overtaken too often, or others' transactions were in the way: it is to be sent again.
                        assert!([429, 503].contains(&answer.status), "{}", answer.text());
                    }
                }
            });
        }
    });
    let a = one(&server, "a");
    assert_eq!(a["metadata"].as_object().unwrap().len(), 1 + CLIENTS * PATCHES);
    let text = a["text"].as_str().unwrap();
    assert!((0..CLIENTS).all(|client| text.contains(&format!("f{client}3: b."))), "{text}");
    // The vector is that of the last text.
    server.post(DOCUMENTS, &json!({"documents": [{"id": "b", "metadata": a["metadata"]}]})).ok();
    assert_eq!(one(&server, "b")["vector"], a["vector"]);
    let viewed = patch(&server, &format!("{DOCUMENTS}/a"), &json!({"metadata": {"views": 1}})).ok();
    assert_eq!((&viewed["embedded"], &viewed["cached"]), (&json!(0), &json!(1)));
}
