//! The pages of one search: together they hold every hit once, whatever is asked for beside them.

use serde_json::{Value, json};

use super::server::Server;

const DOCUMENTS: usize = 330;

/// A server with a collection of documents that differ in their vectors; a third of them by their words, the others
/// not.
fn server() -> Server {
    let server = Server::start();
    server.put("/v1/collections/c", &json!({"dim": 3, "text": {"language": "english"}})).ok();
    let document = |at: usize| {
        let text =
            if at.is_multiple_of(3) { format!("red tent {}", "boat ".repeat(at % 17)) } else { "red tent".into() };
        json!({"id": id(at * 7 % DOCUMENTS), "text": text, "vector": [1, at, at * at % 101], "metadata": {"kind": at % 5}})
    };
    let documents: Vec<Value> = (0..DOCUMENTS).map(document).collect();
    for part in documents.chunks(100) {
        server.post("/v1/collections/c/documents", &json!({"documents": part, "refresh": true})).ok();
    }
    server
}

fn id(at: usize) -> String {
    format!("d{at:03}")
}

fn ids(answer: &Value) -> Vec<String> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
}

fn ask(server: &Server, search: &Value, more: Value) -> Value {
    let mut body = search.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/v1/collections/c/search", &body).ok()
}

/// The hits of all pages, and how many there were.
fn all_pages(server: &Server, search: &Value, top_k: usize) -> (Vec<String>, usize) {
    let (mut hits, mut pages, mut cursor) = (Vec::new(), 0, json!("*"));
    while !cursor.is_null() {
        let answer = ask(server, search, json!({"top_k": top_k, "cursor": cursor}));
        hits.extend(ids(&answer));
        pages += 1;
        cursor = answer["next_cursor"].clone();
    }
    (hits, pages)
}

fn hybrid() -> [Value; 2] {
    let hybrid = json!({"text": "boat", "vector": [1, 100, 7], "mode": "hybrid"});
    let mut weighted = hybrid.clone();
    weighted["alpha"] = json!(0.3);
    [hybrid, weighted]
}

#[test]
pub fn pages_by_words_hold_every_one_of_many_equals_once() {
    let server = server();
    server.delete(&format!("/v1/collections/c/documents/{}", id(3))).ok();
    let search = json!({"text": "tent", "mode": "keyword"});
    let whole = ids(&ask(&server, &search, json!({"top_k": 1_000})));
    assert_eq!(whole.len(), DOCUMENTS - 1);
    let by_offset = (0..DOCUMENTS)
        .step_by(40)
        .flat_map(|offset| ids(&ask(&server, &search, json!({"top_k": 40, "offset": offset}))));
    assert_eq!(by_offset.collect::<Vec<_>>(), whole);
    assert_eq!(all_pages(&server, &search, 40).0, whole);
    let equals = json!({"text": "red", "mode": "keyword", "filter": {"kind": {"$in": [1, 2]}}});
    let whole = ids(&ask(&server, &equals, json!({"top_k": 1_000})));
    assert_eq!(all_pages(&server, &equals, 7).0, whole);
}

#[test]
pub fn pages_by_cursor_of_both_rankings_hold_every_candidate_once() {
    let server = server();
    let mut wanted: Vec<String> = (0..DOCUMENTS).map(id).collect();
    wanted.sort();
    for search in hybrid() {
        let (mut hits, _) = all_pages(&server, &search, 40);
        assert_eq!(hits[..10], ids(&ask(&server, &search, json!({"cursor": "*"}))), "{search}");
        hits.sort();
        assert_eq!(hits, wanted, "{search}");
    }
}

#[test]
pub fn the_last_page_says_so() {
    let server = server();
    let [hybrid, _] = hybrid();
    let searches = [json!({"vector": [1, 100, 7]}), json!({"text": "tent", "mode": "keyword"}), hybrid];
    for search in searches {
        for (top_k, pages) in [(DOCUMENTS, 1), (DOCUMENTS / 2, 2), (DOCUMENTS - 1, 2), (1_000, 1)] {
            assert_eq!(all_pages(&server, &search, top_k).1, pages, "{search} {top_k}");
        }
        let none = ask(&server, &search, json!({"cursor": "*", "filter": {"kind": 9}}));
        assert_eq!((ids(&none).len(), &none["next_cursor"]), (0, &Value::Null), "{search}");
    }
}

#[test]
pub fn counting_values_moves_no_hit() {
    let server = server();
    let [hybrid, weighted] = hybrid();
    let diverse = json!({"vector": [1, 100, 7], "diversity": 0.6});
    let grouped = json!({"vector": [1, 100, 7], "group_by": "kind", "group_size": 20});
    for search in [hybrid, weighted, diverse, grouped] {
        let (without, with) = (ask(&server, &search, json!({})), ask(&server, &search, json!({"facets": ["kind"]})));
        assert_eq!((&without["hits"], &without["groups"]), (&with["hits"], &with["groups"]), "{search}");
        assert_eq!(with["facets"]["kind"]["documents"], DOCUMENTS, "{search}");
    }
}

/// What is counted is held against the threshold by the scores that hits have.
#[test]
pub fn values_are_counted_over_what_a_threshold_leaves() {
    let server = server();
    for search in hybrid() {
        let threshold = &ask(&server, &search, json!({"top_k": 20}))["hits"][19]["score"];
        let limits = json!({"threshold": threshold, "top_k": 100, "facets": ["kind"]});
        let all = ask(&server, &search, limits);
        let few = ask(&server, &search, json!({"threshold": threshold, "top_k": 3, "facets": ["kind"]}));
        let hits = ids(&all).len();
        assert!((20..100).contains(&hits), "{search}: {hits} hits");
        assert_eq!((ids(&few).len(), &few["facets"]["kind"]["documents"]), (3, &json!(hits)), "{search}");
        assert_eq!(all["facets"], few["facets"], "{search}");
    }
}

/// Points about as far from each other as from the query, many at one score whose squares differ.
#[test]
pub fn pages_by_distance_hold_every_document_once() {
    const POINTS: usize = 600;
    let server = Server::start();
    server.put("/v1/collections/near", &json!({"dim": 2, "metric": "l2"})).ok();
    let point = |at: usize| {
        let angle = (at * 7_919 % POINTS) as f64 / POINTS as f64;
        json!({"id": id(at), "vector": [1.0 + 11.8 * angle.cos(), 1.0 + 11.8 * angle.sin()]})
    };
    let documents: Vec<Value> = (0..POINTS).map(point).collect();
    server.post("/v1/collections/near/documents", &json!({"documents": documents})).ok();
    let ask = |more: Value| {
        let mut body = json!({"vector": [1, 1]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/collections/near/search", &body).ok()
    };
    let whole = ask(json!({"top_k": POINTS}));
    let scores: Vec<f64> = whole["hits"].as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
    assert!(scores.windows(2).any(|pair| pair[0] == pair[1]));
    for top_k in [7, 100] {
        let (mut hits, mut cursor) = (Vec::new(), json!("*"));
        while !cursor.is_null() {
            let answer = ask(json!({"top_k": top_k, "cursor": cursor}));
            hits.extend(ids(&answer));
            cursor = answer["next_cursor"].clone();
        }
        assert_eq!(hits, ids(&whole), "{top_k}");
    }
}
