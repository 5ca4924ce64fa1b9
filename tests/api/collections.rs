//! Creating, listing, reading and dropping collections.

use serde_json::{Value, json};

use super::client::Request;
use super::server::Server;

#[test]
fn a_definition_is_filled_in_and_stands() {
    let server = Server::start();
    let asked = json!({"dim": 3, "metric": "dot", "index": {"m": 8}, "fields": {"price": "number", "key": "keyword"}});
    let created = server.put("/v1/collections/shop", &asked);
    assert_eq!(created.status, 201);
    let definition = created.json();
    let created_at = definition["created_at"].as_str().unwrap().to_owned();
    let wanted = json!({
        "name": "shop",
        "dim": 3,
        "metric": "dot",
        "embedding": null,
        "index": {"m": 8, "ef_construction": 128, "quantization": "int8", "storage": "float32"},
        "fields": {"key": "keyword", "price": "number"},
        "text": {"language": "english"},
        "guard": null,
        "created_at": created_at,
    });
    assert_eq!(definition, wanted);
    assert!(created_at.len() == 24 && created_at.ends_with('Z'), "{created_at}");

    let again = server.put("/v1/collections/shop", &asked);
    assert_eq!((again.status, again.json()), (200, wanted.clone()));
    assert_eq!(server.get("/v1/collections/shop").ok(), wanted);
    assert_eq!(server.get("/v1/collections").ok(), json!({"collections": [wanted]}));
}

#[test]
pub fn another_definition_is_a_conflict_and_changes_nothing() {
    let server = Server::start();
    server.put("/v1/collections/c", &json!({"dim": 3})).ok();
    let detail = server.put("/v1/collections/c", &json!({"dim": 4})).refused(409, "definition_conflict");
    assert!(detail.contains('3') && detail.contains('4'), "{detail}");
    assert_eq!(server.get("/v1/collections/c").ok()["dim"], 3);
}

/// Where a collection is a table of its name, some names mean something in statements.
#[test]
pub fn names_that_mean_something_elsewhere_are_names() {
    let server = Server::start();
    for name in ["asked", "excluded", "new", "change", "written", "t", "select", "words", "documents"] {
        let of = |route: &str| format!("/v1/collections/{name}{route}");
        server.put(&of(""), &json!({"dim": 2})).ok();
        let documents = json!({"documents": [{"id": "a", "vector": [1, 0], "text": "a tent", "metadata": {"query": 1}},
            {"id": "b", "vector": [0, 1], "text": "a boat"}]});
        for _ in 0..2 {
            assert_eq!(server.post(&of("/documents"), &documents).ok()["upserted"], 2, "{name}");
        }
        let near = json!({"vector": [1, 0], "top_k": 1, "filter": {"query": 1}});
        assert_eq!(server.post(&of("/search"), &near).ok()["hits"][0]["id"], "a", "{name}");
        if cfg!(feature = "text") {
            let both = json!({"text": "boat", "vector": [0, 1], "mode": "hybrid", "refresh": true});
            assert_eq!(server.post(&of("/search"), &both).ok()["hits"][0]["id"], "b", "{name}");
            let words = json!({"text": "tent", "mode": "keyword", "refresh": true});
            assert_eq!(server.post(&of("/search"), &words).ok()["hits"][0]["id"], "a", "{name}");
        }
        assert_eq!(server.post(&of("/documents/delete"), &json!({"ids": ["a"]})).ok()["deleted"], 1, "{name}");
    }
}

#[test]
pub fn collections_are_listed_by_name_and_dropped_with_their_documents() {
    let server = Server::start();
    for name in ["b", "a", "c-1_2"] {
        assert_eq!(server.put(&format!("/v1/collections/{name}"), &json!({"dim": 3})).status, 201);
    }
    let names = |server: &Server| -> Vec<Value> {
        let list = server.get("/v1/collections").ok();
        list["collections"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect()
    };
    assert_eq!(names(&server), ["a", "b", "c-1_2"]);
    server.post("/v1/collections/a/documents", &json!({"documents": [{"id": "x", "vector": [1, 0, 0]}]})).ok();
    let dropped = server.delete("/v1/collections/a").ok();
    assert_eq!(dropped["deleted"], true);
    assert!(dropped["seq"].as_u64().is_some_and(|seq| seq > 0));
    assert_eq!(names(&server), ["b", "c-1_2"]);
    server.get("/v1/collections/a").refused(404, "collection_not_found");
    server.delete("/v1/collections/a").refused(404, "collection_not_found");
    server.put("/v1/collections/a", &json!({"dim": 3})).ok();
    assert_eq!(server.get("/v1/collections/a/documents").ok()["documents"], json!([]));
}

#[test]
fn the_figures_follow_the_writes() {
    let server = Server::with_documents(&[("a", [1.0, 0.0, 0.0]), ("b", [0.0, 1.0, 0.0])]);
    let stats = server.get("/v1/collections/c/stats").ok();
    assert_eq!((&stats["documents"], &stats["dim"]), (&json!(2), &json!(3)));
    let before = stats["last_seq"].as_u64().unwrap();
    server.delete("/v1/collections/c/documents/a").ok();
    let stats = server.get("/v1/collections/c/stats").ok();
    assert_eq!(stats["documents"], 1);
    assert!(stats["last_seq"].as_u64().unwrap() > before);
}

#[test]
fn definitions_that_cannot_be_are_refused() {
    let server = Server::start();
    let cases = [
        (json!({"dim": 0}), "invalid_definition"),
        (json!({"dim": 4097}), "invalid_definition"),
        (json!({"dim": 3, "index": {"m": 4}}), "invalid_definition"),
        (json!({"dim": 3, "index": {"ef_construction": 5000}}), "invalid_definition"),
        (json!({"dim": "3"}), "invalid_value"),
        (json!({"dim": 3, "metric": "manhattan"}), "invalid_value"),
        (json!({"dim": 3, "size": 1}), "unknown_field"),
        (json!({"dim": 3, "index": {"quantization": "binary"}}), "quantization_not_supported"),
        (json!({"embedding": {"template": "{{title"}}), "invalid_template"),
        (json!({"embedding": {"template": {"weights": {"a": -1}}}}), "invalid_definition"),
        (json!({"dim": 3, "fields": {"a": "date"}}), "invalid_value"),
        (json!({"dim": 3, "fields": {"": "keyword"}}), "invalid_definition"),
        (json!({"dim": 3, "guard": {"action": "refuse", "allow": names(129)}}), "invalid_definition"),
        (json!({"dim": 3, "guard": {"action": "refuse", "allow": [""]}}), "invalid_definition"),
        (json!({"dim": 3, "guard": {"action": "refuse", "allow": ["x".repeat(257)]}}), "invalid_definition"),
        (json!({"embedding": {"template": "{{".repeat(10_000)}}), "invalid_definition"),
        (json!({"embedding": {"template": {"fields": names(129), "exclude": names(129)}}}), "invalid_definition"),
    ];
    for (body, code) in cases {
        let answer = server.put("/v1/collections/c", &body);
        answer.refused(422, code);
    }
    assert_eq!(server.get("/v1/collections").ok(), json!({"collections": []}));
    let long = json!({"dim": 3, "guard": {"action": "refuse", "allow": ["x".repeat(1 << 20)]}});
    let detail = server.put("/v1/collections/c", &long).refused(422, "invalid_definition");
    assert!(detail.len() < 300 && detail.ends_with("has 1048576"), "{detail}");
    let most = json!({"dim": 3, "guard": {"action": "refuse", "allow": names(128)}});
    assert_eq!(server.put("/v1/collections/c", &most).ok()["guard"]["allow"].as_array().map(Vec::len), Some(128));
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[test]
fn kinds_of_codes_and_vectors_are_chosen_and_told() {
    let server = Server::start();
    let index = json!({"quantization": "binary", "storage": "float16"});
    let view = server.put("/v1/collections/bits", &json!({"dim": 768, "index": index})).ok();
    assert_eq!((&view["index"]["quantization"], &view["index"]["storage"]), (&json!("binary"), &json!("float16")));
    let again = server.get("/v1/collections/bits").ok();
    assert_eq!(again["index"], view["index"]);
    let view = server.put("/v1/collections/plain", &json!({"dim": 3})).ok();
    assert_eq!((&view["index"]["quantization"], &view["index"]["storage"]), (&json!("int8"), &json!("float32")));
    let detail = server
        .put("/v1/collections/few", &json!({"dim": 3, "index": {"quantization": "binary"}}))
        .refused(422, "quantization_not_supported");
    assert!(detail.contains("from dim 768 on") && detail.contains("int8"), "{detail}");
    assert_eq!(server.get("/v1/collections/plain/stats").ok()["recall"], json!(null));
}

#[test]
fn names_are_path_safe() {
    let server = Server::start();
    for name in ["..", "%2e%2e", "%2E%2E%2Fetc", "A", "a%20b", "%D0%B6", &"x".repeat(65), "a%00"] {
        let path = format!("/v1/collections/{name}");
        server.put(&path, &json!({"dim": 3})).refused(422, "invalid_name");
        server.get(&path).refused(422, "invalid_name");
    }
    server.put("/v1/collections/%FF", &json!({"dim": 3})).refused(400, "invalid_path");
    server.put("/v1/collections/a/../b", &json!({"dim": 3})).refused(404, "route_not_found");
    assert_eq!(server.get("/v1/collections").ok(), json!({"collections": []}));
}

#[test]
fn without_a_body_the_default_model_is_asked_for_and_named_when_it_is_missing() {
    let server = Server::start();
    for request in [Request::new("PUT", "/v1/collections/c"), Request::new("PUT", "/v1/collections/c").json(&json!({}))]
    {
        let detail = request.send(server.address).refused(503, "model_not_installed");
        assert!(detail.contains("all-MiniLM-L6-v2"), "{detail}");
    }
}
