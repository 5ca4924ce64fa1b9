//! Filters over the API: geo fields, the plan that `explain` shows, and filters that are refused.

use serde_json::{Value, json};

use super::server::Server;

const SEARCH: &str = "/v1/collections/c/search";

/// Three documents of a collection with a field of each type.
fn server() -> Server {
    let server = Server::start();
    let fields = json!({"word": "keyword", "price": "number", "open": "boolean", "place": "geo"});
    server.put("/v1/collections/c", &json!({"dim": 3, "fields": fields})).ok();
    let document = |id: &str, lat: f64, lon: f64, price: i64| {
        let metadata = json!({"word": id, "price": price, "open": true, "place": {"lat": lat, "lon": lon}});
        json!({"id": id, "vector": [1, 1, 1], "metadata": metadata})
    };
    let documents = [
        document("oslo", 59.9139, 10.7522, 1),
        document("bergen", 60.3913, 5.3221, 2),
        document("rome", 41.9, 12.5, 3),
    ];
    server.post("/v1/collections/c/documents", &json!({"documents": documents})).ok();
    server
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

#[test]
pub fn points_are_found_by_distance() {
    let server = server();
    let near = |meters: f64| {
        let filter = json!({"place": {"$geo_radius": {"lat": 59.91, "lon": 10.75, "meters": meters}}});
        server.post(SEARCH, &json!({"vector": [1, 0, 0], "filter": filter})).ok()
    };
    assert_eq!(ids(&near(1_000.0)), ["oslo"]);
    assert_eq!(ids(&near(400_000.0)), ["bergen", "oslo"]);
    assert_eq!(ids(&near(0.0)), Vec::<&str>::new());
    let off = json!({"documents": [{"id": "x", "vector": [1, 0, 0], "metadata": {"place": {"lat": 91, "lon": 0}}}]});
    server.post("/v1/collections/c/documents", &off).refused(422, "field_type_mismatch");
}

#[test]
fn explain_shows_the_plan() {
    let server = server();
    let plain = server.post(SEARCH, &json!({"vector": [1, 0, 0]})).ok();
    assert!(plain.get("explain").is_none());
    let body = json!({"vector": [1, 0, 0], "filter": {"price": {"$gte": 2}}, "explain": true});
    let answer = server.post(SEARCH, &body).ok();
    assert_eq!(ids(&answer), ["bergen", "rome"]);
    let explain = &answer["explain"];
    assert_eq!((&explain["plan"], &explain["memtable_documents"]), (&json!("exact"), &json!(3)));
    assert!(explain["planning_us"].as_f64().is_some() && explain["segments"].as_array().is_some());
}

#[test]
pub fn filters_that_cannot_be_meant_are_refused_everywhere() {
    let server = server();
    let cases = [
        (json!({"word": {"$gt": "a"}}), "filter_type_mismatch"),
        (json!({"word": 1}), "filter_type_mismatch"),
        (json!({"price": "1"}), "filter_type_mismatch"),
        (json!({"price": {"$in": [1, "2"]}}), "filter_type_mismatch"),
        (json!({"price": {"$geo_radius": {"lat": 0, "lon": 0, "meters": 1}}}), "filter_type_mismatch"),
        (json!({"open": {"$gt": false}}), "invalid_filter"),
        (json!({"open": 1}), "filter_type_mismatch"),
        (json!({"place": {"$eq": 3}}), "filter_type_mismatch"),
        (json!({"price": {"$gt": 3, "$lt": 2}}), "contradictory_filter"),
        (json!({"$and": [{"price": 1}, {"price": 2}]}), "contradictory_filter"),
        (json!({"$and": [{"any": 1}, {"$not": {"any": 1}}]}), "contradictory_filter"),
        (json!({"any": {"$exists": false, "$eq": 1}}), "contradictory_filter"),
        (json!({"price": {"$above": 1}}), "invalid_filter"),
        (json!({"place": {"$geo_radius": {"lat": 0, "lon": 0}}}), "invalid_filter"),
    ];
    for (filter, code) in cases {
        server.post(SEARCH, &json!({"vector": [1, 0, 0], "filter": filter})).refused(422, code);
        for route in ["delete", "count"] {
            server.post(&format!("/v1/collections/c/documents/{route}"), &json!({"filter": filter})).refused(422, code);
        }
        let text: String = filter.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect();
        server.get(&format!("/v1/collections/c/documents?filter={text}")).refused(422, code);
    }
    assert_eq!(server.ids(), ["bergen", "oslo", "rome"]);
}

#[test]
pub fn lists_and_deletes_go_by_the_filter() {
    let server = server();
    let page = server.get("/v1/collections/c/documents?filter=%7B%22price%22%3A%7B%22%24lt%22%3A3%7D%7D&limit=1").ok();
    assert_eq!(page["documents"][0]["id"], "bergen");
    assert!(page["next_cursor"].is_string());
    let deleted = server.post("/v1/collections/c/documents/delete", &json!({"filter": {"price": {"$lt": 3}}})).ok();
    assert_eq!(deleted["deleted"], 2);
    assert_eq!(server.ids(), ["rome"]);
}
