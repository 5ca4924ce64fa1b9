//! Health, version, metrics, the description, models.

use serde_json::{Value, json};

use super::client::Request;
use super::server::Server;
use crate::support::model::SMALL_MODEL;

#[test]
fn a_server_that_is_well_says_so_and_no_more() {
    let server = Server::start();
    for path in ["/livez", "/readyz", "/healthz", "/health"] {
        assert_eq!(server.get(path).ok(), json!({"status": "ok"}), "{path}");
    }
}

#[test]
fn a_server_without_the_model_of_a_collection_is_not_ready_until_it_is_there() {
    let server = Server::with_model();
    server.put("/v1/collections/c", &json!({"embedding": {"model": SMALL_MODEL}})).ok();
    assert_eq!(server.get("/readyz").ok(), json!({"status": "ok"}));
    let models = server.data().with_file_name("models");
    let elsewhere = models.with_file_name("elsewhere");
    std::fs::rename(&models, &elsewhere).unwrap();
    let server = server.restarted();
    let models = server.data().with_file_name("models");
    for path in ["/readyz", "/healthz", "/health"] {
        let answer = server.get(path);
        assert_eq!(
            (answer.status, answer.json()),
            (503, json!({"status": "unavailable", "reason": "model"})),
            "{path}"
        );
    }
    assert_eq!(server.get("/livez").ok(), json!({"status": "ok"}));
    // Everything that needs no model is served.
    assert_eq!(server.ids(), Vec::<String>::new());
    std::fs::rename(models.with_file_name("elsewhere"), &models).unwrap();
    assert_eq!(server.get("/readyz").ok(), json!({"status": "ok"}));
}

#[test]
fn the_first_page_leads_on() {
    let server = Server::start();
    let hello = server.get("/").ok();
    assert_eq!((&hello["name"], &hello["version"]), (&json!("pannier"), &json!(env!("CARGO_PKG_VERSION"))));
    for (name, path) in hello["links"].as_object().unwrap() {
        assert_eq!(server.get(path.as_str().unwrap()).status, 200, "{name}");
    }
    let version = server.get("/version").ok();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(!version["store_id"].as_str().unwrap().is_empty());
    assert_eq!(version["timeline"], 1);
    assert!(version["started_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn metrics_count_by_route_and_never_by_name() {
    let server = Server::with_documents(&[("secret-id", [1.0, 0.0, 0.0])]);
    server.get("/v1/collections/c/documents/secret-id").ok();
    server.get("/nowhere-to-be-found");
    let answer = server.get("/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    let text = answer.text();
    let routes = "route=\"/v1/collections/{collection}/documents/{id}\"";
    let line = |start: &str, part: &str| text.lines().any(|l| l.starts_with(start) && l.contains(part));
    assert!(line("pannier_http_requests_total{", routes), "{text}");
    assert!(line("pannier_http_request_duration_seconds_bucket{", routes), "{text}");
    assert!(line("pannier_http_requests_total{", "route=\"unmatched\""), "{text}");
    for name in
        ["pannier_collections ", "pannier_documents ", "process_start_time_seconds ", "pannier_accepting_writes 1"]
    {
        assert!(text.lines().any(|l| l.starts_with(name)), "{name}: {text}");
    }
    assert!(!text.contains("secret-id") && !text.contains("nowhere"), "{text}");
}

#[test]
fn the_description_is_served() {
    let server = Server::start();
    let document = server.get("/openapi.json").ok();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["paths"]["/v1/collections/{collection}/search"]["post"]["operationId"], "search");
    assert!(document["components"]["schemas"]["Problem"].is_object());
}

#[test]
fn every_answer_carries_its_requests_id() {
    let server = Server::start();
    for path in ["/livez", "/v1/collections", "/nowhere"] {
        let answer = Request::new("GET", path).header("x-request-id", "abc-123").send(server.address);
        assert_eq!(answer.header("x-request-id"), Some("abc-123"), "{path}");
        assert_eq!(server.get(path).header("x-request-id").map(str::len), Some(32), "{path}");
    }
    let odd = Request::new("GET", "/livez").header("x-request-id", "a b\"c").send(server.address);
    assert_ne!(odd.header("x-request-id"), Some("a b\"c"));
}

#[test]
fn a_connection_serves_one_request_after_another() {
    use std::io::{BufRead, BufReader, Read, Write};
    let server = Server::start();
    let mut stream = super::client::connect(server.address);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!({"status": "ok"}));
    }
}
