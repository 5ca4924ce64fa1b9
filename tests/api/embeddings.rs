//! OpenAI's wire where no model is installed: its errors, and the list of models.

use serde_json::{Value, json};

use super::client::Answer;
use super::server::Server;

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, param: Value) {
    let body = answer.json();
    assert_eq!((answer.status, &body["error"]["code"]), (status, &json!(code)), "{body}");
    assert_eq!(body["error"]["param"], param, "{body}");
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.len(), 4, "{body}");
    assert!(error["message"].is_string() && error["type"].is_string(), "{body}");
    assert!(answer.header("x-request-id").is_some());
}

#[test]
fn errors_are_openais() {
    let server = Server::start();
    let embed = |body: Value| server.post("/v1/embeddings", &body);
    refused(&embed(json!({"model": "m"})), 400, "missing_field", Value::Null);
    refused(&embed(json!({"model": "m", "input": "a", "x": 1})), 400, "unknown_field", Value::Null);
    refused(&embed(json!({"model": "m", "input": "a", "encoding_format": "hex"})), 400, "invalid_value", Value::Null);
    for input in [json!(""), json!([]), json!([""]), json!([[]]), json!(["a", 1]), json!([1.5]), json!({})] {
        refused(&embed(json!({"model": "m", "input": input})), 400, "invalid_input", json!("input"));
    }
    let many = embed(json!({"model": "m", "input": vec!["a"; 2_049]}));
    refused(&many, 400, "too_many_inputs", json!("input"));
    refused(&embed(json!({"model": "no/such-model", "input": "a"})), 404, "model_not_found", json!("model"));
    let missing =
        embed(json!({"model": "sentence-transformers/all-MiniLM-L6-v2", "input": ["a"], "encoding_format": "base64"}));
    refused(&missing, 503, "model_not_installed", json!("model"));
    refused(&server.get("/v1/embeddings"), 405, "method_not_allowed", Value::Null);
}

#[test]
fn models_are_listed_in_openais_form() {
    let server = Server::start();
    assert_eq!(server.get("/v1/models").ok(), json!({"object": "list", "data": []}));
    for path in ["/v1/models/no/such", "/v1/models/no%2Fsuch"] {
        refused(&server.get(path), 404, "model_not_found", json!("model"));
    }
    refused(&server.get("/v1/models/%FF"), 400, "invalid_path", Value::Null);
}

#[test]
fn routes_that_are_not_there_are_told_in_openais_form() {
    let server = Server::start();
    for (path, word) in [("/embeddings", "/v1"), ("/v1/chat/completions", "openapi.json"), ("/v1/responses", "POST")] {
        let answer = server.post(path, &json!({}));
        refused(&answer, 404, "route_not_found", Value::Null);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(path) && message.contains(word), "{message}");
    }
}
