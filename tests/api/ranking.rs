//! Searches by words and by both, like documents, in groups, in pages, in batches.

use serde_json::{Value, json};

use super::server::Server;

const SEARCH: &str = "/v1/collections/c/search";

/// A server with a collection of eight documents in two categories.
fn server() -> Server {
    let server = Server::start();
    server.put("/v1/collections/c", &json!({"dim": 3, "text": {"language": "english"}})).ok();
    let rows = [
        ("t1", "A red tent for two", [1.0, 0.0, 0.0], json!({"kind": "tent", "tags": ["red", "small"]})),
        ("t2", "Tents <big> & green", [0.9, 0.1, 0.0], json!({"kind": "tent", "tags": ["green"]})),
        ("t3", "Tent pegs", [0.8, 0.2, 0.0], json!({"kind": "tent"})),
        ("b1", "A boat, not a tent at all, but a boat", [0.0, 1.0, 0.0], json!({"kind": "boat", "tags": ["red"]})),
        ("b2", "Boats of wood", [0.0, 0.9, 0.1], json!({"kind": "boat"})),
        ("n1", "Nothing", [0.0, 0.0, 1.0], json!({})),
        ("n2", "Nothing at all", [0.1, 0.0, 0.9], json!({"kind": null})),
    ];
    let documents: Vec<Value> = rows
        .iter()
        .map(|(id, text, vector, metadata)| json!({"id": id, "text": text, "vector": vector, "metadata": metadata}))
        .collect();
    let written = server.post("/v1/collections/c/documents", &json!({"documents": documents, "refresh": true})).ok();
    assert_eq!(written["refreshed"], true);
    server
}

fn ids(hits: &Value) -> Vec<&str> {
    hits.as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

#[test]
pub fn words_are_found_and_marked() {
    let server = server();
    let found = server.post(SEARCH, &json!({"text": "green tents", "mode": "keyword", "highlight": true})).ok();
    assert_eq!(found["plan"], "keyword");
    assert_eq!(ids(&found["hits"])[0], "t2");
    assert_eq!(found["hits"].as_array().unwrap().len(), 4);
    assert_eq!(found["hits"][0]["highlights"], json!(["<mark>Tents</mark> &lt;big&gt; &amp; <mark>green</mark>"]));
    let filter = json!({"kind": "boat"});
    let found = server.post(SEARCH, &json!({"text": "tent", "mode": "keyword", "filter": filter})).ok();
    assert_eq!(ids(&found["hits"]), ["b1"]);
    let by_url = server.get("/v1/collections/c/search?q=boat&mode=keyword&limit=1&offset=1").ok();
    assert_eq!(ids(&by_url["hits"]).len(), 1);
    server.delete("/v1/collections/c/documents/t2").ok();
    let after = server.post(SEARCH, &json!({"text": "green tents", "mode": "keyword"})).ok();
    assert!(!ids(&after["hits"]).contains(&"t2"));
    let stats = server.get("/v1/collections/c/stats").ok();
    assert!(stats["text"]["applied_seq"].is_u64() && stats["text"]["lag"].is_u64(), "{stats}");
    assert_eq!(server.get("/v1/collections/c").ok()["text"], json!({"language": "english"}));
}

#[test]
pub fn a_hybrid_search_takes_words_and_a_vector() {
    let server = server();
    for more in [json!({}), json!({"fusion": "rrf"}), json!({"alpha": 0.4}), json!({"fusion": "weighted"})] {
        let mut body = json!({"text": "red boat", "vector": [1, 0, 0], "mode": "hybrid", "top_k": 3});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let found = server.post(SEARCH, &body).ok();
        assert_eq!((&found["plan"], ids(&found["hits"])[0]), (&json!("hybrid"), "t1"), "{body}");
    }
}

#[test]
pub fn like_and_unlike_pull_and_push() {
    let server = server();
    let found = server.post(SEARCH, &json!({"like": {"positive": ["t1", "t3"]}, "top_k": 1})).ok();
    assert_eq!(ids(&found["hits"]), ["t2"]);
    let found =
        server.post(SEARCH, &json!({"like": {"positive": ["n2"], "negative": ["t1"]}, "top_k": 7, "exact": true})).ok();
    let hits = ids(&found["hits"]);
    assert_eq!((hits[0], hits.len()), ("n1", 5));
    assert_eq!(hits.last(), Some(&"t2"));
    server.post(SEARCH, &json!({"like": {"positive": ["nobody"]}})).refused(404, "document_not_found");
}

#[test]
pub fn groups_facets_and_diversity_arrange_the_hits() {
    let server = server();
    let body = json!({"vector": [1, 0.5, 0], "group_by": "kind", "group_size": 2, "top_k": 5});
    let found = server.post(SEARCH, &body).ok();
    assert_eq!(found["hits"], json!([]));
    let groups: Vec<_> =
        found["groups"].as_array().unwrap().iter().map(|g| (g["value"].clone(), ids(&g["hits"]))).collect();
    assert_eq!(groups, [(json!("tent"), vec!["t3", "t2"]), (json!("boat"), vec!["b1", "b2"])]);
    let second = server.post(SEARCH, &json!({"vector": [1, 0.5, 0], "group_by": "kind", "offset": 1})).ok();
    assert_eq!(second["groups"].as_array().unwrap().len(), 1);
    let counted = server.post(SEARCH, &json!({"vector": [1, 0, 0], "top_k": 1, "facets": ["kind", "tags"]})).ok();
    let wanted = json!({
        "kind": {"values": [{"value": "tent", "count": 3}, {"value": "boat", "count": 2}], "documents": 7},
        "tags": {"values": [{"value": "red", "count": 2}, {"value": "green", "count": 1}, {"value": "small", "count": 1}],
                 "documents": 7},
    });
    assert_eq!(counted["facets"], wanted);
    assert_eq!(ids(&counted["hits"]), ["t1"]);
    let diverse = server.post(SEARCH, &json!({"vector": [1, 0.1, 0], "diversity": 0.7, "top_k": 2})).ok();
    assert!(!ids(&diverse["hits"])[1].starts_with('t'), "{diverse}");
    let plain = server.post(SEARCH, &json!({"vector": [1, 0.1, 0], "diversity": 0, "top_k": 2})).ok();
    assert!(ids(&plain["hits"])[1].starts_with('t'), "{plain}");
}

#[test]
pub fn pages_follow_each_other_and_hold_every_hit_once() {
    let server = server();
    for search in [
        json!({"vector": [0.3, 0.2, 0.1]}),
        json!({"text": "a tent, a boat, nothing", "mode": "keyword"}),
        json!({"text": "tent", "vector": [0.3, 0.2, 0.1], "mode": "hybrid"}),
    ] {
        let ask = |more: Value| {
            let mut body = search.clone();
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            server.post(SEARCH, &body).ok()
        };
        let whole = ask(json!({"top_k": 100}));
        let whole = ids(&whole["hits"]);
        let (mut by_cursor, mut cursor) = (Vec::new(), json!("*"));
        for page in 0..10 {
            let answer = ask(json!({"top_k": 2, "cursor": cursor}));
            by_cursor.extend(ids(&answer["hits"]).into_iter().map(str::to_owned));
            cursor = answer["next_cursor"].clone();
            if page == 0 {
                // A new best hit moves nothing to another page.
                let documents = json!([{"id": "new", "text": "a tent tent tent", "vector": [0.3, 0.2, 0.1]}]);
                server.post("/v1/collections/c/documents", &json!({"documents": documents, "refresh": true})).ok();
            }
            if cursor.is_null() {
                break;
            }
        }
        assert!(cursor.is_null(), "{search}");
        by_cursor.retain(|id| id != "new");
        server.delete("/v1/collections/c/documents/new").ok();
        if search["mode"] == "hybrid" || search["mode"] == "keyword" {
            // Ranks and the words' statistics moved with the write, so only what was there all along is certain.
            by_cursor.sort();
            by_cursor.dedup();
            assert!(by_cursor.len() + 2 >= whole.len(), "{by_cursor:?} of {whole:?}");
        } else {
            assert_eq!(by_cursor, whole, "{search}");
        }
        let by_offset: Vec<_> = (0..whole.len())
            .map(|offset| ids(&ask(json!({"top_k": 1, "offset": offset}))["hits"])[0].to_owned())
            .collect();
        assert_eq!(by_offset, whole, "{search}");
        assert_eq!(ask(json!({"offset": 9_000}))["hits"], json!([]));
    }
}

#[test]
pub fn a_batch_answers_each_or_none() {
    let server = server();
    let searches = json!([
        {"vector": [1, 0, 0], "top_k": 1},
        {"text": "boats", "mode": "keyword", "top_k": 1},
        {"id": "n1", "top_k": 1},
    ]);
    let batch = format!("{SEARCH}/batch");
    let answer = server.post(&batch, &json!({"searches": searches})).ok();
    let results: Vec<_> = answer["results"].as_array().unwrap().iter().map(|r| ids(&r["hits"])[0].to_owned()).collect();
    assert_eq!((results[0].as_str(), results[2].as_str()), ("t1", "n2"));
    assert!(results[1].starts_with('b'), "{results:?}");
    assert!(answer["took_ms"].is_f64());
    let good = json!({"vector": [1, 0, 0]});
    for (bad, status, code) in [
        (json!({"vector": [1]}), 422, "dim_mismatch"),
        (json!({"vector": [1, 0, 0], "top_k": 0}), 422, "out_of_range"),
        (json!({}), 422, "invalid_query"),
        (json!({"id": "nobody"}), 404, "document_not_found"),
    ] {
        let detail = server.post(&batch, &json!({"searches": [good, bad]})).refused(status, code);
        assert!(detail.starts_with("searches[1]: "), "{detail}");
    }
    server.post(&batch, &json!({"searches": []})).refused(422, "out_of_range");
    server.post(&batch, &json!({"searches": vec![good; 101]})).refused(422, "out_of_range");
    server
        .post("/v1/collections/nobody/search/batch", &json!({"searches": [{"id": "a"}]}))
        .refused(404, "collection_not_found");
}

#[test]
pub fn what_does_not_go_together_is_refused_with_the_way_out() {
    let server = server();
    let v = [1, 0, 0];
    let cases = [
        (json!({"vector": v, "mode": "keyword"}), "invalid_query", "text"),
        (json!({"vector": v, "mode": "hybrid"}), "invalid_query", "text"),
        (json!({"id": "t1", "mode": "keyword"}), "invalid_query", "text"),
        (json!({"text": "", "mode": "keyword"}), "invalid_query", "letters or digits"),
        (json!({"text": " ?! ", "mode": "hybrid", "vector": v}), "invalid_query", "letters or digits"),
        (json!({"text": ""}), "invalid_query", "the query text is empty"),
        (json!({"text": " \n"}), "invalid_query", "the query text is empty"),
        (json!({"text": "a", "vector": v}), "invalid_query", "hybrid"),
        (json!({"text": "a", "mode": "keyword", "ef_search": 20}), "invalid_query", "ef_search"),
        (json!({"text": "a", "mode": "keyword", "exact": true}), "invalid_query", "exact"),
        (json!({"vector": v, "alpha": 0.5}), "invalid_query", "hybrid"),
        (json!({"text": "a", "vector": v, "mode": "hybrid", "alpha": 2}), "out_of_range", "alpha"),
        (json!({"vector": v, "ef_search": 5}), "out_of_range", "ef_search"),
        (json!({"vector": v, "offset": 9_991}), "out_of_range", "0 to 9990"),
        (json!({"vector": v, "offset": 1, "cursor": "*"}), "invalid_query", "one of them"),
        (json!({"vector": v, "group_size": 2}), "invalid_query", "group_by"),
        (json!({"vector": v, "group_by": "kind", "group_size": 0}), "out_of_range", "group_size"),
        (json!({"vector": v, "group_by": "kind", "cursor": "*"}), "invalid_query", "offset"),
        (json!({"vector": v, "group_by": "kind", "diversity": 0.5}), "invalid_query", "leave one"),
        (json!({"vector": v, "diversity": 1.5}), "out_of_range", "diversity"),
        (json!({"vector": v, "highlight": true}), "invalid_query", "text"),
        (json!({"vector": v, "facets": vec!["a"; 17]}), "out_of_range", "facets"),
        (json!({"vector": v, "facets": ["kind", ""]}), "invalid_query", "facets"),
        (json!({"vector": v, "group_by": ""}), "invalid_query", "group_by"),
        (json!({"like": {"positive": []}}), "out_of_range", "like.positive"),
        (json!({"like": {"positive": ["t1"], "negative": ["t1"]}}), "invalid_query", "both"),
        (json!({"like": {"positive": ["t1"], "neg": []}}), "unknown_field", "neg"),
        (json!({"like": {"positive": ["t1"]}, "mode": "hybrid"}), "invalid_query", "text"),
    ];
    for (body, code, hint) in cases {
        let detail = server.post(SEARCH, &body).refused(422, code);
        assert!(detail.contains(hint), "{body}: {detail}");
    }
    for query in ["q=", "q=+%20"] {
        let detail = server.get(&format!("/v1/collections/c/search?{query}")).refused(422, "invalid_query");
        assert!(detail.contains("the query text is empty"), "{query}: {detail}");
    }
    let page = server.post(SEARCH, &json!({"vector": v, "top_k": 2, "cursor": "*"})).ok();
    let cursor = &page["next_cursor"];
    server.post(SEARCH, &json!({"vector": [0, 1, 0], "cursor": cursor})).refused(400, "invalid_cursor");
    server.post(SEARCH, &json!({"vector": v, "cursor": "AWE"})).refused(400, "invalid_cursor");
}
