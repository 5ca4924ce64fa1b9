//! Texts and their vectors, by a small model: OpenAI's wire, documents that are embedded, the cache.

use serde_json::{Value, json};

use super::client::Request;
use super::server::Server;
use crate::support::model::{SMALL_DIM, SMALL_MAX_TOKENS, SMALL_MODEL, UNSCALED_MODEL};

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn openais_forms_of_input_and_output() {
    let server = Server::with_model();
    let embed = |body: Value| server.post("/v1/embeddings", &body).ok();
    let one = embed(json!({"model": SMALL_MODEL, "input": "c d", "user": "me"}));
    assert_eq!((&one["object"], &one["model"]), (&json!("list"), &json!(SMALL_MODEL)));
    // Two special tokens and the document prefix's one beside the two of the text.
    assert_eq!(one["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
    let vector = numbers(&one["data"][0]["embedding"]);
    let norm: f32 = vector.iter().map(|x| x * x).sum();
    assert!(vector.len() == SMALL_DIM && (norm - 1.0).abs() < 1e-5, "{norm}");

    let many = embed(json!({"model": SMALL_MODEL, "input": ["a", "c d"], "dimensions": SMALL_DIM}));
    let data = many["data"].as_array().unwrap();
    assert_eq!((data.len(), &data[1]["index"], &data[1]["object"]), (2, &json!(1), &json!("embedding")));
    assert_eq!(numbers(&data[1]["embedding"]), vector);

    // [CLS] b c d [SEP], as the text with its prefix is read.
    let ids = json!([2, 5, 7, 8, 3]);
    for input in [json!([[2, 4, 3], ids]), json!(ids)] {
        let tokens = embed(json!({"model": SMALL_MODEL, "input": input}));
        let last = tokens["data"].as_array().unwrap().last().unwrap();
        assert_eq!(numbers(&last["embedding"]), vector);
    }

    // A query has another prefix.
    let query = embed(json!({"model": SMALL_MODEL, "input": "c d", "input_type": "query"}));
    let tokens = embed(json!({"model": SMALL_MODEL, "input": [2, 4, 7, 8, 3]}));
    assert_eq!(query["data"], tokens["data"]);
    assert_eq!(embed(json!({"model": SMALL_MODEL, "input": "c d", "input_type": "document"}))["data"], one["data"]);

    let coded = embed(json!({"model": SMALL_MODEL, "input": "c d", "encoding_format": "base64"}));
    let text = coded["data"][0]["embedding"].as_str().unwrap();
    assert_eq!(text.len(), (SMALL_DIM * 4).div_ceil(3) * 4);
}

#[test]
fn what_a_model_cannot_do_is_said_in_openais_shape() {
    let server = Server::with_model();
    let refused = |body: Value, status: u16, code: &str, param: &str| {
        let answer = server.post("/v1/embeddings", &body);
        let error = &answer.json()["error"];
        let got = (answer.status, error["code"].as_str(), error["param"].as_str());
        assert_eq!(got, (status, Some(code), Some(param)), "{error}");
        assert_eq!((error.as_object().unwrap().len(), &error["type"]), (4, &json!("invalid_request_error")));
    };
    let body = |extra: Value| {
        let mut body = json!({"model": SMALL_MODEL, "input": "a"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    refused(body(json!({"dimensions": SMALL_DIM + 1})), 400, "dimensions_not_supported", "dimensions");
    refused(body(json!({"input": [[2, 10, 3]]})), 400, "invalid_input", "input");
    // Another tokenizer's, which has no [CLS] and [SEP].
    refused(body(json!({"input": [[4, 5]]})), 400, "invalid_input", "input");
    refused(body(json!({"input": [4, 5]})), 400, "invalid_input", "input");
    let long = server.post("/v1/embeddings", &body(json!({"input": "c ".repeat(100)}))).ok();
    assert_eq!(
        (&long["data"][0]["truncated"], &long["usage"]["total_tokens"]),
        (&json!(true), &json!(SMALL_MAX_TOKENS))
    );
}

#[test]
pub fn documents_that_were_embedded_before_are_not_embedded_again() {
    let server = Server::with_model();
    server.put("/v1/collections/c", &json!({"embedding": {"model": SMALL_MODEL}})).ok();
    let long = "c ".repeat(100);
    let documents = json!({"documents": [
        {"id": "x", "text": "a b"}, {"id": "y", "text": "c"}, {"id": "z", "text": long},
        {"id": "v", "vector": vec![1; SMALL_DIM]},
    ]});
    let upsert = |documents: &Value| server.post("/v1/collections/c/documents", documents).ok();
    let first = upsert(&documents);
    assert_eq!((&first["embedded"], &first["cached"], &first["truncated"]), (&json!(3), &json!(0), &json!(["z"])));
    let vector =
        |id: &str| server.get(&format!("/v1/collections/c/documents/{id}?include=vector")).ok()["vector"].clone();
    let before = [vector("x"), vector("z")];
    let again = upsert(&documents);
    assert_eq!((&again["embedded"], &again["cached"], &again["truncated"]), (&json!(0), &json!(3), &json!([])));
    assert_eq!([vector("x"), vector("z")], before);

    let mixed = upsert(&json!({"documents": [{"id": "x", "text": "a b"}, {"id": "w", "text": "a , b"}]}));
    assert_eq!((&mixed["embedded"], &mixed["cached"]), (&json!(1), &json!(1)));
    let lines = "{\"id\":\"1\",\"text\":\"c\"}\n{\"id\":\"2\",\"text\":\"c\"}\n{\"id\":\"3\",\"text\":\"d d\"}\n";
    let import = Request::new("POST", "/v1/collections/c/import").body("application/x-ndjson", lines);
    let report = import.send(server.address).ok();
    assert_eq!((&report["embedded"], &report["cached"]), (&json!(1), &json!(2)));

    // A query has another prefix, and so another key; the second time it is known too.
    let search = || server.post("/v1/collections/c/search", &json!({"text": "a b", "top_k": 1})).ok();
    assert_eq!(search()["hits"], search()["hits"]);
    assert!(server.metric("pannier_embedding_cache_hits_total") >= 3.0);
    assert!(server.metric("pannier_embedding_cache_misses_total") >= 4.0);
    let metrics = server.get("/metrics").text();
    for name in
        ["queue_texts", "queue_tokens", "pass_texts_bucket", "pass_tokens_bucket", "wait_duration_seconds_bucket"]
    {
        assert!(metrics.contains(&format!("pannier_embedding_{name}{{lane=\"interactive\"")), "{name}\n{metrics}");
    }
}

#[test]
pub fn vectors_that_came_with_documents_can_be_asked_for() {
    let server = Server::with_model();
    server.put("/v1/collections/c", &json!({"embedding": {"model": SMALL_MODEL}})).ok();
    let documents = json!({"documents": [
        {"id": "both", "text": "c", "vector": vec![1; SMALL_DIM]}, {"id": "made", "text": "a b"},
        {"id": "own", "vector": vec![1; SMALL_DIM]},
    ]});
    server.post("/v1/collections/c/documents", &documents).ok();
    let with_vectors = |include: &str| -> Vec<String> {
        let page = server.get(&format!("/v1/collections/c/documents?include={include}")).ok();
        let listed = page["documents"].as_array().unwrap().iter().filter(|document| document["vector"].is_array());
        listed.map(|document| document["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(with_vectors("own_vector"), ["both", "own"]);
    assert_eq!(with_vectors("text,own_vector,vector"), ["both", "made", "own"]);
    assert_eq!(with_vectors("text"), Vec::<String>::new());
    let read = |id: &str| server.get(&format!("/v1/collections/c/documents/{id}?include=own_vector")).ok();
    assert!(read("own")["vector"].is_array() && read("made").get("vector").is_none());
    let search = json!({"text": "a", "include": ["own_vector"]});
    server.post("/v1/collections/c/search", &search).refused(422, "invalid_value");
}

#[test]
fn a_model_that_changed_is_told_until_the_old_one_is_back() {
    let server = Server::with_model();
    server.put("/v1/collections/c", &json!({"embedding": {"model": SMALL_MODEL}})).ok();
    let documents = |id: &str, text: &str| json!({"documents": [{"id": id, "text": text}]});
    let path = "/v1/collections/c/documents";
    server.post(path, &documents("x", "a b")).ok();
    let model = server.data().with_file_name("models").join(SMALL_MODEL);
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    let install = |config: String| {
        std::fs::write(model.join("config.json"), config).unwrap();
        std::fs::remove_file(model.join("pannier.lock")).unwrap();
    };
    install(config.replace("1e-12", "1e-5"));
    let server = server.restarted();
    let line = documents("y", "c")["documents"][0].to_string();
    let import = Request::new("POST", "/v1/collections/c/import").body("application/x-ndjson", line);
    let answers = [
        server.post(path, &documents("y", "c")),
        import.send(server.address),
        server.post("/v1/collections/c/search", &json!({"text": "a"})),
        server.post("/v1/collections/c/search/batch", &json!({"searches": [{"text": "a"}]})),
    ];
    for answer in answers {
        let detail = answer.refused(503, "model_changed");
        assert!(detail.contains(SMALL_MODEL) && detail.contains("install the same again"), "{detail}");
    }
    assert_eq!(server.post(path, &documents("x", "a b")).ok()["cached"], 1);
    assert_eq!(server.ids(), ["x"]);
    install(config);
    let server = server.restarted();
    assert_eq!(server.post(path, &documents("y", "c")).ok()["upserted"], 1);
}

#[test]
fn a_collections_model_that_was_removed_is_not_installed_from_the_next_start_on() {
    let server = Server::with_model();
    server.put("/v1/collections/c", &json!({"embedding": {"model": SMALL_MODEL}})).ok();
    let path = "/v1/collections/c/documents";
    server.post(path, &json!({"documents": [{"id": "x", "text": "a b"}]})).ok();
    std::fs::remove_dir_all(server.data().with_file_name("models").join(SMALL_MODEL)).unwrap();
    let search = |server: &Server| server.post("/v1/collections/c/search", &json!({"text": "a"}));
    assert_eq!(search(&server).ok()["hits"][0]["id"], "x", "what is loaded stays");
    let server = server.restarted();
    let write = server.post(path, &json!({"documents": [{"id": "y", "text": "c"}]}));
    for answer in [search(&server), write] {
        let detail = answer.refused(503, "model_not_installed");
        assert!(detail.contains(SMALL_MODEL), "{detail}");
    }
    server.put("/v1/collections/d", &json!({"embedding": {"model": SMALL_MODEL}})).refused(422, "unknown_model");
}

#[test]
fn a_collection_may_keep_shorter_vectors_than_its_model_makes() {
    let server = Server::with_model();
    let made = server.put("/v1/collections/short", &json!({"embedding": {"model": UNSCALED_MODEL}, "dim": 8}));
    assert_eq!((made.status, &made.json()["dim"]), (201, &json!(8)));
    let documents = json!({"documents": [{"id": "c", "text": "c d"}, {"id": "a", "text": "a a"}]});
    server.post("/v1/collections/short/documents", &documents).ok();
    let stored = server.get("/v1/collections/short/documents/c?include=vector").ok();
    let body = json!({"model": UNSCALED_MODEL, "input": "c d", "dimensions": 8});
    let wanted = server.post("/v1/embeddings", &body).ok();
    let pairs = numbers(&stored["vector"]).into_iter().zip(numbers(&wanted["data"][0]["embedding"]));
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-6, "{stored} {wanted}");
    for search in [json!({"text": "c d"}), json!({"searches": [{"text": "c d"}, {"text": "a"}]})] {
        let path = if search["text"].is_null() { "search/batch" } else { "search" };
        let found = server.post(&format!("/v1/collections/short/{path}"), &search).ok();
        let hits = found["results"].get(0).unwrap_or(&found);
        assert_eq!(hits["hits"].as_array().unwrap().len(), 2, "{found}");
    }
    for (model, dim) in [(UNSCALED_MODEL, 65), (SMALL_MODEL, 8), (SMALL_MODEL, 65)] {
        let detail = server
            .put("/v1/collections/other", &json!({"embedding": {"model": model}, "dim": dim}))
            .refused(422, "dimensions_not_supported");
        assert!(detail.contains("64"), "{detail}");
    }
}
