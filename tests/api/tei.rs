//! The wire of text-embeddings-inference.

use serde_json::{Value, json};

use super::client::Answer;
use super::server::Server;
use crate::support::model::{SMALL_CROSS_ENCODER, SMALL_DIM, SMALL_MAX_TOKENS, SMALL_MODEL, UNSCALED_MODEL};

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
    assert_eq!(embed("/embed", json!({"inputs": [[2, 4, 3], [2, 7, 8, 3]]}))[1], one[0]);
    let document = embed("/embed", json!({"inputs": "c d", "prompt_name": "document", "dimensions": SMALL_DIM}));
    assert_eq!(document, embed("/embed", json!({"inputs": "b c d"})));
    assert_ne!(document, one);
}

#[test]
fn texts_that_are_cut_are_named_in_headers() {
    let server = Server::with_model();
    let long = "c ".repeat(100);
    let cut = |path: &str, body: Value| {
        let answer = server.post(path, &body);
        answer.ok();
        let header = |name: &str| answer.header(name).map(str::to_owned);
        (header("x-pannier-truncated-count"), header("x-pannier-truncated"))
    };
    let said = |count: &str, places: &str| (Some(count.to_owned()), Some(places.to_owned()));
    for path in ["/embed", "/"] {
        assert_eq!(cut(path, json!({"inputs": [long, "c", long]})), said("2", "0,2"), "{path}");
        assert_eq!(cut(path, json!({"inputs": "c"})), (None, None), "{path}");
    }
    assert_eq!(cut("/api/embed", json!({"model": SMALL_MODEL, "input": ["c", long]})), said("1", "1"));
    assert_eq!(cut("/api/embed", json!({"model": SMALL_MODEL, "input": "c"})), (None, None));
    assert_eq!(cut("/api/embeddings", json!({"model": SMALL_MODEL, "prompt": long})), said("1", "0"));
}

#[test]
fn vectors_have_length_1_unless_they_are_wanted_as_they_are() {
    let server = Server::with_default_model(UNSCALED_MODEL);
    let embed = |more: Value| {
        let mut body = json!({"inputs": "c d"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        vector(&server.post("/embed", &body).ok()[0])
    };
    let (scaled, raw) = (embed(json!({})), embed(json!({"normalize": false})));
    assert!((length(&scaled) - 1.0).abs() < 1e-5 && (length(&raw) - 1.0).abs() > 0.1, "{}", length(&raw));
    assert_eq!(scaled, vector(&Server::with_model().post("/embed", &json!({"inputs": "c d"})).ok()[0]));
    assert_eq!(embed(json!({"normalize": true, "truncation_direction": null})), scaled);
    let short = embed(json!({"dimensions": 8}));
    assert!(short.len() == 8 && (length(&short) - 1.0).abs() < 1e-5);
    let whole = embed(json!({"normalize": false, "dimensions": SMALL_DIM}));
    assert_eq!(whole, raw);
    let cut = server.post("/embed", &json!({"inputs": "c d", "normalize": false, "dimensions": 8}));
    assert!(refused(&cut, 422, "validation").contains("scaled again"), "{}", cut.text());
    let ask = |path: &str, body: Value| server.post(path, &body).ok();
    let theirs = ask("/api/embed", json!({"model": UNSCALED_MODEL, "input": "c d"}));
    assert_eq!(vector(&theirs["embeddings"][0]), scaled);
    let older = ask("/api/embeddings", json!({"model": UNSCALED_MODEL, "prompt": "c d"}));
    assert_eq!(vector(&older["embedding"]), raw);
}

fn vector(json: &Value) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
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
    let detail = refused(&server.post("/similarity", &json!({})), 404, "validation");
    assert!(detail.contains("/similarity"), "{detail}");
    let long = "c ".repeat(100);
    embed(json!({"inputs": long})).ok();
    let detail = refused(&embed(json!({"inputs": ["a", long], "truncate": false})), 422, "validation");
    assert!(detail.contains("input 1") && detail.contains("16 tokens"), "{detail}");
    refused(&embed(json!({"inputs": long, "truncation_direction": "Left"})), 422, "validation");
    embed(json!({"inputs": "a", "truncation_direction": "Left"})).ok();

    for (server, word) in
        [(Server::start(), "pannier model pull"), (Server::with_default_model(SMALL_CROSS_ENCODER), "cross-encoder")]
    {
        for answer in [server.post("/embed", &json!({"inputs": "a"})), server.get("/info")] {
            let detail = refused(&answer, 503, "unhealthy");
            assert!(detail.contains(word), "{detail}");
        }
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
