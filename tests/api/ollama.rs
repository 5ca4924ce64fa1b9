//! Ollama's wire.

use serde_json::{Value, json};

use super::client::Request;
use super::server::Server;
use crate::support::model::{SMALL_CROSS_ENCODER, SMALL_DIM, SMALL_MAX_TOKENS, SMALL_MODEL};

#[test]
fn texts_become_vectors() {
    let server = Server::with_model();
    let embed = |body: Value| server.post("/api/embed", &body).ok();
    let one = embed(json!({"model": SMALL_MODEL, "input": "c d", "keep_alive": "5m", "options": {"num_ctx": 9}}));
    assert_eq!((&one["model"], &one["prompt_eval_count"]), (&json!(SMALL_MODEL), &json!(4)));
    assert_eq!(one["embeddings"][0].as_array().unwrap().len(), SMALL_DIM);
    assert!(one["total_duration"].as_u64().unwrap() >= one["load_duration"].as_u64().unwrap());
    let latest = format!("{SMALL_MODEL}:latest");
    let many = embed(json!({"model": latest, "input": ["a", "c d"]}));
    assert_eq!((&many["model"], &many["embeddings"][1]), (&json!(latest), &one["embeddings"][0]));
    assert_eq!(embed(json!({"model": SMALL_MODEL, "input": []}))["embeddings"], json!([]));
    assert_eq!(embed(json!({"model": SMALL_MODEL, "keep_alive": -1}))["embeddings"], json!([]), "it is loaded");
    assert_eq!(embed(json!({"model": SMALL_MODEL, "input": null}))["embeddings"], json!([]));
    let old = server.post("/api/embeddings", &json!({"model": SMALL_MODEL, "prompt": "c d"})).ok();
    assert_eq!(old, json!({"embedding": one["embeddings"][0]}));
    let long = embed(json!({"model": SMALL_MODEL, "input": "c ".repeat(100)}));
    assert_eq!(long["prompt_eval_count"], json!(SMALL_MAX_TOKENS));
}

#[test]
fn requests_are_taken_as_curl_sends_them() {
    let server = Server::with_model();
    let body = json!({"model": format!("{SMALL_MODEL}:Latest"), "input": ["", "c d"]}).to_string();
    let send = |request: Request| request.send(server.address).ok();
    let form = send(Request::new("POST", "/api/embed").body("application/x-www-form-urlencoded", body));
    let plain = server.post("/api/embed", &json!({"model": SMALL_MODEL, "input": "c d"})).ok();
    assert_eq!(form["embeddings"][1], plain["embeddings"][0]);
    assert_eq!(form["embeddings"][0].as_array().unwrap().len(), SMALL_DIM, "an empty text among others is a text");
    let zipped = Request::new("POST", "/api/embed").header("content-encoding", "gzip").json(&json!({}));
    let answer = zipped.send(server.address);
    assert!(answer.status == 415 && answer.text().contains("Content-Encoding"), "{}", answer.text());
}

#[test]
fn errors_are_theirs() {
    let server = Server::with_model();
    let refused = |body: Value, status: u16, word: &str| {
        let answer = server.post("/api/embed", &body);
        let error = answer.json();
        assert_eq!((answer.status, error.as_object().unwrap().len()), (status, 1), "{error}");
        assert!(error["error"].as_str().unwrap().contains(word), "{error}");
    };
    refused(json!({"model": "no/such", "input": "a"}), 404, "no/such");
    refused(json!({"model": "n".repeat(100_000), "input": "a"}), 404, "n…");
    refused(json!({"model": "nomic-embed-text:v1.5", "input": "a"}), 503, "nomic-embed-text-v1.5");
    refused(json!({"model": SMALL_CROSS_ENCODER, "input": "a"}), 400, "cross-encoder");
    refused(json!({"model": "all-minilm", "input": "a"}), 503, "all-MiniLM-L6-v2");
    refused(json!({"model": SMALL_MODEL, "input": 1}), 400, "input");
    refused(json!({"model": "no/such"}), 404, "no/such");
    refused(json!({"model": SMALL_MODEL, "input": "c ".repeat(100), "truncate": false}), 400, "16 tokens");
    refused(json!({"model": SMALL_MODEL, "input": "a", "dimensions": 1_000}), 400, "dimensions");
}

#[test]
fn models_and_version_are_told() {
    let server = Server::with_model();
    let tags = server.get("/api/tags").ok();
    assert_eq!((&tags["models"][0]["name"], &tags["models"][0]["model"]), (&json!(SMALL_MODEL), &json!(SMALL_MODEL)));
    assert!(tags["models"][0]["size"].as_u64().unwrap() > 10_000);
    assert!(tags["models"][0]["modified_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(server.get("/api/version").ok(), json!({"version": env!("CARGO_PKG_VERSION")}));
}
