//! The wire of text-embeddings-inference.

use serde_json::{Value, json};

use super::client::Answer;
use super::server::Server;
use crate::support::model::{SMALL_DIM, SMALL_MAX_TOKENS, SMALL_MODEL};

#[track_caller]
fn refused(answer: &Answer, status: u16, error_type: &str) -> String {
    let body = answer.json();
    assert_eq!((answer.status, body["error_type"].as_str()), (status, Some(error_type)), "{body}");
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    body["error"].as_str().unwrap().to_owned()
}

#[test]
fn vectors_are_a_bare_array() {
    let server = Server::with_model();
    let embed = |path: &str, body: Value| server.post(path, &body).ok();
    let one = embed("/embed", json!({"inputs": "c d"}));
    assert_eq!((one.as_array().unwrap().len(), one[0].as_array().unwrap().len()), (1, SMALL_DIM));
    assert_eq!(embed("/", json!({"inputs": "c d", "parameters": {}})), one);
    let many = embed("/embed", json!({"inputs": ["a", "c d"], "truncate": true, "normalize": true}));
    assert_eq!(many[1], one[0]);
    // [CLS] c d [SEP]: nothing stands before a text unless a prompt is named.
    assert_eq!(embed("/embed", json!({"inputs": [2, 7, 8, 3]})), one);
    assert_eq!(embed("/embed", json!({"inputs": [[4], [2, 7, 8, 3]]}))[1], one[0]);
    let document = embed("/embed", json!({"inputs": "c d", "prompt_name": "document", "dimensions": SMALL_DIM}));
    assert_eq!(document, embed("/embed", json!({"inputs": "b c d"})));
    assert_ne!(document, one);
}

#[test]
fn errors_are_theirs() {
    let server = Server::with_model();
    let embed = |body: Value| server.post("/embed", &body);
    for inputs in [json!(""), json!([]), json!([1.5]), json!({}), json!(["a", 1])] {
        refused(&embed(json!({"inputs": inputs})), 422, "validation");
    }
    refused(&embed(json!({"inputs": vec!["a"; 2_049]})), 413, "validation");
    refused(&embed(json!({})), 422, "validation");
    refused(&embed(json!({"inputs": "a", "normalize": false})), 422, "validation");
    refused(&embed(json!({"inputs": "a", "dimensions": 1_000})), 422, "validation");
    refused(&embed(json!({"inputs": "a", "prompt_name": "s2p"})), 422, "validation");
    refused(&server.get("/embed"), 405, "validation");
    let long = "c ".repeat(100);
    embed(json!({"inputs": long})).ok();
    let detail = refused(&embed(json!({"inputs": ["a", long], "truncate": false})), 422, "validation");
    assert!(detail.contains("input 1") && detail.contains("16 tokens"), "{detail}");
    refused(&embed(json!({"inputs": long, "truncation_direction": "Left"})), 422, "validation");
    embed(json!({"inputs": "a", "truncation_direction": "Left"})).ok();

    let without = Server::start();
    for answer in [without.post("/embed", &json!({"inputs": "a"})), without.get("/info")] {
        let detail = refused(&answer, 503, "unhealthy");
        assert!(detail.contains("pannier model pull"), "{detail}");
    }
}

#[test]
fn texts_are_taken_apart() {
    let server = Server::with_model();
    let pieces = server.post("/tokenize", &json!({"inputs": ["C x,", &"c ".repeat(100)]})).ok();
    let first = json!([
        {"id": 2, "text": "[CLS]", "special": true, "start": null, "stop": null},
        {"id": 7, "text": "C", "special": false, "start": 0, "stop": 1},
        {"id": 1, "text": "x", "special": false, "start": 2, "stop": 3},
        {"id": 9, "text": ",", "special": false, "start": 3, "stop": 4},
        {"id": 3, "text": "[SEP]", "special": true, "start": null, "stop": null},
    ]);
    assert_eq!(pieces[0], first);
    assert_eq!(pieces[1].as_array().unwrap().len(), 102, "nothing is cut");
    let plain = server.post("/tokenize", &json!({"inputs": "C x,", "add_special_tokens": false})).ok();
    assert_eq!(plain[0].as_array().unwrap(), &first.as_array().unwrap()[1..4]);
    refused(&server.post("/tokenize", &json!({"inputs": [[1]]})), 422, "validation");
}

#[test]
fn the_model_is_described() {
    let info = Server::with_model().get("/info").ok();
    assert_eq!((&info["model_id"], &info["max_input_length"]), (&json!(SMALL_MODEL), &json!(SMALL_MAX_TOKENS)));
    assert_eq!(info["model_type"], json!({"embedding": {"pooling": "mean"}}));
    assert_eq!((&info["max_client_batch_size"], &info["auto_truncate"]), (&json!(2_048), &json!(true)));
    assert_eq!(info["model_sha"].as_str().unwrap().len(), 64);
}
