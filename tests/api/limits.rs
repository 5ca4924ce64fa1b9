//! Sizes, counts, keys, hosts and origins.

use std::io::{Read, Write};
use std::time::Duration;

use pannier::http::{ApiKey, AuthPolicy, HttpConfig, Limits};
use serde_json::{Value, json};

use super::client::{Request, connect, read_answer};
use super::server::Server;
use crate::support::comes_true;

const DOCUMENTS: &str = "/v1/collections/c/documents";

#[test]
fn a_body_that_announces_too_much_is_refused_unread() {
    let server = Server::with_documents(&[]);
    let mut stream = connect(server.address);
    let request = Request::new("POST", DOCUMENTS).header("content-type", "application/json");
    stream.write_all(&request.head(&format!("content-length: {}", (32 << 20) + 1))).unwrap();
    read_answer(&mut stream).refused(413, "body_too_large");
}

#[test]
fn a_body_that_grows_too_large_is_refused() {
    let server = Server::with_documents(&[]);
    let mut stream = connect(server.address);
    let request = Request::new("POST", DOCUMENTS).header("content-type", "application/json");
    stream.write_all(&request.head("transfer-encoding: chunked")).unwrap();
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..32 {
        stream.write_all(b"100000\r\n").unwrap();
        stream.write_all(&chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    // One byte more than the limit, and no end: the answer does not wait for one.
    stream.write_all(b"1\r\n \r\n").unwrap();
    read_answer(&mut stream).refused(413, "body_too_large");
}

#[test]
fn a_short_body_without_its_length_asks_for_no_room() {
    let limits = Limits { bodies_bytes: 1 << 20, ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    server.put("/v1/collections/c", &json!({"dim": 3})).ok();
    // It takes all the room there is, and the server says that it waits for the body.
    let mut long = connect(server.address);
    let upsert = Request::new("POST", DOCUMENTS).header("content-type", "application/json");
    long.write_all(&upsert.head("expect: 100-continue\r\ncontent-length: 2000000")).unwrap();
    let mut waits = [0; 12];
    long.read_exact(&mut waits).unwrap();
    assert_eq!(waits, *b"HTTP/1.1 100");
    let mut stream = connect(server.address);
    let search = Request::new("POST", "/v1/collections/c/search").header("content-type", "application/json");
    stream.write_all(&search.head("transfer-encoding: chunked")).unwrap();
    stream.write_all(b"16\r\n{\"vector\":[1,0,0],\"top\r\n8\r\n_k\":3   \r\n1\r\n}\r\n0\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).ok()["hits"], json!([]));
}

#[test]
fn a_client_that_sends_all_before_it_reads_learns_why_it_was_refused() {
    const KEY: &str = "a-key-of-some-length";
    let auth = AuthPolicy::Key(ApiKey::new(KEY).unwrap());
    let server = Server::start_with(HttpConfig { auth, ..HttpConfig::default() });
    let ask = |method: &str, path: &str, key: &str, content_type: &str, mib: usize| {
        let mut stream = connect(server.address);
        let request = Request::new(method, path).header("x-api-key", key).header("content-type", content_type);
        stream.write_all(&request.head(&format!("content-length: {}", mib << 20))).unwrap();
        let part = vec![b' '; 1 << 20];
        (0..mib).for_each(|_| stream.write_all(&part).unwrap());
        read_answer(&mut stream)
    };
    let json = "application/json";
    ask("POST", DOCUMENTS, KEY, json, 40).refused(413, "body_too_large");
    ask("POST", DOCUMENTS, "another-key-of-some-length", json, 10).refused(401, "unauthorized");
    ask("POST", "/nowhere", KEY, json, 10).refused(404, "route_not_found");
    ask("PUT", DOCUMENTS, KEY, json, 10).refused(405, "method_not_allowed");
    ask("POST", DOCUMENTS, KEY, "text/plain", 10).refused(415, "unsupported_media_type");
    ask("POST", &format!("{DOCUMENTS}?a=b"), KEY, json, 10).refused(400, "invalid_parameter");
}

#[test]
fn health_checks_are_answered_when_all_connections_are_taken() {
    let limits = Limits { header_timeout: Duration::from_secs(600), ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    let mut idle: Vec<_> = (0..256).map(|_| connect(server.address)).collect();
    for path in ["/livez", "/readyz", "/healthz", "/health"] {
        let answer = server.get(path);
        assert_eq!((answer.ok(), answer.header("connection")), (json!({"status": "ok"}), Some("close")), "{path}");
    }
    let answer = server.get("/v1/collections");
    let detail = answer.refused(429, "overloaded");
    assert!(detail.contains("connections") && answer.header("retry-after").is_some(), "{detail}");
    idle.pop();
    assert!(comes_true(|| server.get("/v1/collections").status == 200), "the place is another's now");
}

#[test]
fn a_database_that_does_not_answer_takes_no_place_from_the_stores_collections() {
    let limits = Limits { engine_calls: 1, remote_calls: 1, ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("url");
    std::fs::write(&file, format!("postgres://me@{}/x?sslmode=disable", silent.local_addr().unwrap())).unwrap();
    let definition = json!({"dim": 3, "backend": {"type": "postgres", "url_file": file}});
    let address = server.address;
    let ensure = move || Request::new("PUT", "/v1/collections/far").json(&definition).send(address);
    let asked = std::thread::spawn(ensure);
    let (stream, _) = silent.accept().unwrap();
    let definition = json!({"dim": 3});
    assert_eq!(server.put("/v1/collections/c", &definition).status, 201);
    assert_eq!(server.put("/v1/collections/c", &definition).status, 200);
    assert_eq!(server.get("/v1/models").status, 200);
    assert!(!asked.is_finished(), "they waited until the database was given up");
    drop((stream, silent));
    asked.join().unwrap().refused(503, "backend_unreachable");
}

#[test]
fn definitions_have_a_limit_of_their_own() {
    let server = Server::with_documents(&[]);
    let template = |bytes: usize| json!({"embedding": {"template": {"fields": ["x".repeat(bytes)]}}});
    let detail = server.put("/v1/collections/d", &template(2 << 20)).refused(413, "body_too_large");
    assert!(detail.contains("2097152 bytes"), "{detail}");
    server.put("/v1/collections/d", &template(1 << 20)).refused(422, "invalid_definition");
}

#[test]
fn so_many_documents_and_no_more() {
    let server = Server::with_documents(&[]);
    let documents = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({"id": n.to_string(), "vector": [1, n, 0]})).collect()
    };
    let detail = server.post(DOCUMENTS, &json!({"documents": documents(1_001)})).refused(422, "too_many_documents");
    assert!(detail.contains("import"), "{detail}");
    assert_eq!(server.post(DOCUMENTS, &json!({"documents": documents(1_000)})).ok()["upserted"], 1_000);
    let ids: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    server.post(&format!("{DOCUMENTS}/delete"), &json!({"ids": ids})).refused(422, "too_many_documents");
}

#[test]
pub fn answers_carry_so_much_and_no_more() {
    let limits = Limits { answer_bytes: 10_000, ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    server.put("/v1/collections/c", &json!({"dim": 2})).ok();
    let document = |n: usize| json!({"id": format!("{n:03}"), "text": "x".repeat(if n < 150 { 10 } else { 1_000 }), "vector": [1, n]});
    server.post(DOCUMENTS, &json!({"documents": (0..200).map(document).collect::<Vec<_>>()})).ok();
    let page = |after: &str| server.get(&format!("{DOCUMENTS}?limit=1000{after}")).ok();
    let (mut seen, mut lengths, mut answer) = (Vec::new(), Vec::new(), page(""));
    loop {
        let documents = answer["documents"].as_array().unwrap();
        lengths.push(documents.len());
        seen.extend(documents.iter().map(|document| document["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        answer = page(&format!("&cursor={cursor}"));
    }
    assert_eq!(seen, (0..200).map(|n| format!("{n:03}")).collect::<Vec<_>>());
    assert!(lengths.len() > 5 && lengths[0] > 150 && lengths[1] <= 10, "{lengths:?}");
    // The nearest are long, the others short.
    let search = |top_k: usize| json!({"vector": [0, 1], "top_k": top_k});
    let path = "/v1/collections/c/search";
    assert_eq!(server.post(path, &search(9)).ok()["hits"].as_array().unwrap().len(), 9);
    let detail = server.post(path, &search(10)).refused(422, "answer_too_large");
    assert!(detail.contains("include"), "{detail}");
    let mut without = search(200);
    without["include"] = json!(["metadata"]);
    assert_eq!(server.post(path, &without).ok()["hits"].as_array().unwrap().len(), 200);
    let several = server.post(&format!("{path}/batch"), &json!({"searches": [search(5), search(5)]}));
    assert!(several.refused(422, "answer_too_large").starts_with("searches[1]: "));
}

#[test]
fn values_of_groups_and_facets_count_towards_what_answers_carry() {
    let limits = Limits { answer_bytes: 10_000, ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    server.put("/v1/collections/c", &json!({"dim": 2})).ok();
    let document = |n: usize| json!({"id": n.to_string(), "vector": [1, n], "metadata": {"k": format!("{n:0400}")}});
    server.post(DOCUMENTS, &json!({"documents": (0..40).map(document).collect::<Vec<_>>()})).ok();
    let path = "/v1/collections/c/search";
    let groups = |top_k: usize| json!({"vector": [0, 1], "group_by": "k", "top_k": top_k, "include": []});
    assert_eq!(server.post(path, &groups(10)).ok()["groups"].as_array().unwrap().len(), 10);
    server.post(path, &groups(40)).refused(422, "answer_too_large");
    let facets = json!({"vector": [0, 1], "facets": ["k"], "top_k": 1, "include": []});
    server.post(path, &facets).refused(422, "answer_too_large");
}

#[test]
fn names_of_fields_have_a_limit() {
    let server = Server::with_documents(&[]);
    let document = |len: usize| json!({"id": "a", "vector": [1, 0, 0], "metadata": {"k": {"n".repeat(len): 1}}});
    server.post(DOCUMENTS, &json!({"documents": [document(1_024)]})).ok();
    let detail = server.post(DOCUMENTS, &json!({"documents": [document(1_025)]})).refused(422, "invalid_metadata");
    assert!(detail.contains("1025 bytes, at most 1024"), "{detail}");
    let search = json!({"vector": [1, 0, 0], "filter": {".".repeat(1_025): 1}});
    let detail = server.post("/v1/collections/c/search", &search).refused(422, "invalid_filter");
    assert!(detail.contains("1025 bytes, at most 1024"), "{detail}");
}

#[test]
fn a_key_is_asked_for_when_one_is_set() {
    const KEY: &str = "a-key-of-some-length";
    let auth = AuthPolicy::Key(ApiKey::new(KEY).unwrap());
    let server = Server::start_with(HttpConfig { auth, ..HttpConfig::default() });
    let detail = server.get("/v1/collections").refused(401, "unauthorized");
    assert!(detail.contains("Authorization"), "{detail}");
    for (name, value) in
        [("authorization", format!("Bearer {KEY}")), ("x-api-key", KEY.into()), ("api-key", KEY.into())]
    {
        Request::new("GET", "/v1/collections").header(name, &value).send(server.address).ok();
        let wrong = Request::new("GET", "/v1/collections").header(name, &format!("{value}x"));
        wrong.send(server.address).refused(401, "unauthorized");
    }
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn pages_of_others_cannot_reach_the_server() {
    let config = HttpConfig {
        allowed_hosts: vec!["search.example".into()],
        allowed_origins: vec!["https://app.example".into()],
        ..HttpConfig::default()
    };
    let server = Server::start_with(config);
    let with =
        |name: &str, value: &str| Request::new("GET", "/v1/collections").header(name, value).send(server.address);
    let port = server.address.port();
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]".into(), "search.example".into()] {
        with("host", &host).ok();
    }
    with("host", &format!("evil.example:{port}")).refused(421, "host_not_allowed");
    with("origin", "http://evil.example").refused(403, "origin_not_allowed");
    with("origin", "null").refused(403, "origin_not_allowed");
    let allowed = with("origin", "https://app.example");
    allowed.ok();
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
}

#[test]
fn a_client_whose_headers_do_not_come_loses_its_connection() {
    let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    for begun in ["", "GET / HTTP/1.1\r\nhost: loc"] {
        let mut stream = connect(server.address);
        stream.write_all(begun.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(ended.is_ok() && answer.is_empty(), "{begun:?}: {ended:?} {:?}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn a_write_whose_body_stops_is_told_so_and_changes_nothing() {
    let limits = Limits { body_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    server.put("/v1/collections/c", &json!({"dim": 3})).ok();
    let whole = json!({"documents": [{"id": "a", "vector": [1, 0, 0]}]}).to_string();
    let mut stream = connect(server.address);
    let request = Request::new("POST", DOCUMENTS).header("content-type", "application/json");
    stream.write_all(&request.head(&format!("content-length: {}", whole.len() + 1))).unwrap();
    stream.write_all(whole.as_bytes()).unwrap();
    read_answer(&mut stream).refused(408, "body_timeout");
    assert_eq!(server.ids(), Vec::<String>::new());
}

#[test]
fn an_import_that_falls_silent_ends_with_its_report() {
    let limits = Limits { import_idle_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    server.put("/v1/collections/c", &json!({"dim": 3})).ok();
    let mut sent = Request::new("POST", "/v1/collections/c/import").head("content-length: 1000");
    sent.extend_from_slice(b"{\"id\":\"a\",\"vector\":[1,0,0]}\n{\"id\":");
    let mut stream = connect(server.address);
    stream.write_all(&sent).unwrap();
    let answer = read_answer(&mut stream);
    answer.refused(408, "body_timeout");
    let progress = &answer.json()["progress"];
    assert_eq!(
        (&progress["lines"], &progress["upserted"], &progress["done_through"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(server.ids(), ["a"]);
}
