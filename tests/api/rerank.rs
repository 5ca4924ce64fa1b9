//! Candidates put in order by a cross-encoder, over HTTP.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::server::Server;
use crate::support::model::{SMALL_CROSS_ENCODER, SMALL_MODEL};

const DOCUMENTS: &str = "/v1/collections/c/documents";
const SEARCH: &str = "/v1/collections/c/search";

fn server(definition: Value) -> Server {
    let server = Server::with_model();
    server.put("/v1/collections/c", &definition).ok();
    let texts = ["a b c", "c c c d", "d d , a", "b", "a , b , c , d", "c a b b a"];
    let documents: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| json!({"id": format!("d{n}"), "text": text, "metadata": {"title": texts[5 - n], "n": n}}))
        .collect();
    server.post(DOCUMENTS, &json!({"documents": documents, "refresh": true})).ok();
    server
}

fn scores(answer: &Value) -> BTreeMap<String, f64> {
    let hits = answer["hits"].as_array().unwrap();
    hits.iter().map(|hit| (hit["id"].as_str().unwrap().to_owned(), hit["score"].as_f64().unwrap())).collect()
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

#[test]
pub fn hits_are_the_best_by_the_cross_encoder() {
    let server = server(json!({"embedding": {"model": SMALL_MODEL}}));
    let ask = |more: Value| {
        let mut body = json!({"text": "a b", "rerank": {"model": SMALL_CROSS_ENCODER, "top_n": 6}, "top_k": 6});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post(SEARCH, &body).ok()
    };
    let whole = ask(json!({}));
    let by_score = scores(&whole);
    assert_eq!(by_score.len(), 6);
    assert!(by_score.values().all(|score| (0.0..1.0).contains(score)), "{whole}");
    let ranking = ids(&whole);
    assert!(ranking.is_sorted_by(|a, b| by_score[*a] >= by_score[*b]), "{whole}");
    // A score is of query and text alone, whatever ranked the candidates.
    assert_eq!(scores(&ask(json!({"mode": "hybrid"}))), by_score);
    for (id, score) in scores(&ask(json!({"mode": "keyword"}))) {
        assert_eq!(by_score[&id], score);
    }
    assert_eq!(ids(&ask(json!({"top_k": 2, "offset": 1}))), ranking[1..3]);
    let median = by_score[ranking[2]];
    assert_eq!(ids(&ask(json!({"threshold": median}))), ranking[..3]);
    let filtered = ask(json!({"filter": {"n": {"$lt": 2}}}));
    assert_eq!(filtered["hits"].as_array().unwrap().len(), 2);
    // The documents' titles are the texts in the other order.
    let titles = ask(json!({"rerank": {"model": SMALL_CROSS_ENCODER, "top_n": 6, "field": "title"}}));
    for (id, score) in scores(&titles) {
        let other = 5 - id[1..].parse::<usize>().unwrap();
        assert_eq!(by_score[&format!("d{other}")], score, "{id}");
    }
}

#[test]
fn of_a_chunked_document_the_nearest_chunk_is_read() {
    let server = server(json!({"embedding": {"model": SMALL_MODEL}, "chunks": {"max_tokens": 2, "overlap_tokens": 0}}));
    let body = json!({"text": "d d", "rerank": {"model": SMALL_CROSS_ENCODER, "top_n": 10}, "include": ["chunk"]});
    let whole = server.post(SEARCH, &body).ok();
    for hit in whole["hits"].as_array().unwrap() {
        // A document of that chunk alone has the same score.
        let alone = json!({"id": "alone", "text": hit["chunk"]["text"]});
        server.post(DOCUMENTS, &json!({"documents": [alone]})).ok();
        let found = server.post(SEARCH, &body).ok();
        assert_eq!(scores(&found)["alone"], hit["score"].as_f64().unwrap(), "{hit}");
    }
}

#[test]
fn of_the_only_chunk_of_a_document_its_part_of_the_text_is_read() {
    let server = server(json!({"embedding": {"model": SMALL_MODEL}, "chunks": {}}));
    let dim = server.get("/v1/collections/c").ok()["dim"].as_u64().unwrap() as usize;
    let vector: Vec<f32> = (0..dim).map(|n| n as f32 + 1.0).collect();
    let part = json!({"id": "part", "text": "a a b c d d", "chunks": [{"vector": vector, "start": 8, "end": 11}]});
    let whole = json!({"id": "whole", "text": "d d", "vector": vector});
    server.post(DOCUMENTS, &json!({"documents": [part, whole]})).ok();
    let body = json!({"text": "d d", "rerank": {"model": SMALL_CROSS_ENCODER, "top_n": 10}});
    let scores = scores(&server.post(SEARCH, &body).ok());
    assert_eq!(scores["part"], scores["whole"]);
}

#[test]
pub fn what_cannot_be_reranked_is_refused() {
    let server = server(json!({"embedding": {"model": SMALL_MODEL}}));
    let with = |rerank: Value| json!({"text": "a", "rerank": rerank, "top_k": 5});
    let good = || json!({"model": SMALL_CROSS_ENCODER});
    server.post(SEARCH, &with(good())).ok();
    let cases = [
        (with(json!({"model": "nobody/knows"})), "unknown_model", "nobody/knows"),
        (with(json!({"model": SMALL_MODEL})), "invalid_query", "cross-encoder"),
        (with(json!({"model": "../up"})), "unknown_model", "../up"),
        (with(json!({"model": SMALL_CROSS_ENCODER, "top_n": 4})), "out_of_range", "5 to 200"),
        (with(json!({"model": SMALL_CROSS_ENCODER, "top_n": 201})), "out_of_range", "5 to 200"),
        (with(json!({"model": SMALL_CROSS_ENCODER, "field": "n"})), "invalid_query", "no text in \"n\""),
        (with(json!({})), "missing_field", "model"),
        (json!({"id": "d1", "rerank": good()}), "invalid_query", "\"text\""),
        (json!({"text": "a", "rerank": good(), "diversity": 0.5}), "invalid_query", "diversity"),
        (json!({"text": "a", "rerank": good(), "cursor": "*"}), "invalid_query", "cursor"),
    ];
    for (body, code, hint) in cases {
        let detail = server.post(SEARCH, &body).refused(422, code);
        assert!(detail.contains(hint), "{body}: {detail}");
    }
    let known = with(json!({"model": "cross-encoder/ms-marco-MiniLM-L-6-v2"}));
    let detail = server.post(SEARCH, &known).refused(503, "model_not_installed");
    assert!(detail.contains("pannier model pull"), "{detail}");
    let vectors: Vec<f32> = vec![1.0; 64];
    server.post(DOCUMENTS, &json!({"documents": [{"id": "mute", "vector": vectors}]})).ok();
    let detail = server.post(SEARCH, &json!({"text": "a", "rerank": good()})).refused(422, "invalid_query");
    assert!(detail.contains("mute") && detail.contains("rerank.field"), "{detail}");
    // The models of the other routes are those that make vectors.
    let listed = server.get("/v1/models").ok();
    assert!(listed.to_string().contains(SMALL_MODEL) && !listed.to_string().contains(SMALL_CROSS_ENCODER), "{listed}");
    let create = json!({"embedding": {"model": SMALL_CROSS_ENCODER}});
    assert!(server.put("/v1/collections/d", &create).status >= 400);
}
