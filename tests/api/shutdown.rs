//! Shutdown: what was accepted is finished, nothing new is taken.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pannier::http::{HttpConfig, Limits, ServeError};
use serde_json::json;

use super::client::{Request, connect, read_answer};
use super::server::Server;
use crate::support::comes_true;
use crate::support::model::SMALL_MODEL;

#[test]
fn an_import_under_way_is_ended_with_its_report_and_new_connections_are_refused() {
    let mut server = Server::with_documents(&[]);
    let mut stream = connect(server.address);
    let request = Request::new("POST", "/v1/collections/c/import");
    stream.write_all(&request.head("transfer-encoding: chunked")).unwrap();
    // A whole batch is written at once; the last line waits for its end.
    for n in 0..256 {
        let line = format!("{{\"id\":\"{n}\",\"vector\":[1,0,0]}}\n");
        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).unwrap();
    }
    stream.write_all(b"5\r\n{\"id\"\r\n").unwrap();
    assert!(comes_true(|| server.ids().len() >= 256), "no batch is written");
    let started = Instant::now();
    server.begin_shutdown();
    let answer = read_answer(&mut stream);
    answer.refused(503, "stopping");
    let progress = &answer.json()["progress"];
    assert_eq!((&progress["lines"], &progress["upserted"]), (&json!(256), &json!(256)));
    assert!(comes_true(|| TcpStream::connect(server.address).is_err()), "the server still takes connections");
    server.stop().unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn an_import_of_texts_ends_with_the_batch_that_is_written() {
    let mut server = Server::with_model();
    server.put("/v1/collections/t", &json!({"embedding": {"model": SMALL_MODEL}})).ok();
    // Texts that differ, so that each is embedded.
    let words = ["a", "b", "c", "d", "ab", ","];
    let text = |n: usize| (0..12).map(|digit| words[(n / 6_usize.pow(digit % 6)) % 6]).collect::<Vec<_>>().join(" ");
    let body: String = (0..40_000).map(|n| format!("{{\"id\":\"{n}\",\"text\":\"{}\"}}\n", text(n))).collect();
    let mut stream = connect(server.address);
    let request = Request::new("POST", "/v1/collections/t/import").header("content-type", "application/x-ndjson");
    stream.write_all(&request.head(&format!("content-length: {}", body.len()))).unwrap();
    let mut sender = stream.try_clone().unwrap();
    // It may be refused the rest.
    let sending = std::thread::spawn(move || _ = sender.write_all(body.as_bytes()));
    let written = || server.get("/v1/collections/t/stats").ok()["documents"].as_u64().unwrap();
    assert!(comes_true(|| written() >= 256), "no batch is written");
    server.begin_shutdown();
    let answer = read_answer(&mut stream);
    answer.refused(503, "stopping");
    let progress = &answer.json()["progress"];
    let done_through = progress["done_through"].as_u64().unwrap();
    assert_eq!(progress["upserted"], done_through, "each line is a document");
    assert!((256..40_000).contains(&done_through), "{done_through}");
    assert_eq!(done_through % 256, 0, "a batch that was not full was written after the signal");
    sending.join().unwrap();
    server.stop().unwrap();
}

#[test]
fn a_client_that_does_not_read_loses_its_connection() {
    let limits = Limits { write_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    server.put("/v1/collections/c", &json!({"dim": 2})).ok();
    let document = json!({"id": "a", "text": "x".repeat(1 << 20), "vector": [1, 0]});
    server.post("/v1/collections/c/documents", &json!({"documents": [document]})).ok();
    // More than the system's buffers hold.
    let searches = json!({"searches": vec![json!({"vector": [1, 0]}); 40]}).to_string();
    let mut stream = connect(server.address);
    let request = Request::new("POST", "/v1/collections/c/search/batch").header("content-type", "application/json");
    stream.write_all(&request.head(&format!("content-length: {}", searches.len()))).unwrap();
    stream.write_all(searches.as_bytes()).unwrap();
    // The answer has begun.
    stream.read_exact(&mut [0; 12]).unwrap();
    server.stop().unwrap();
}

#[test]
fn idle_connections_do_not_hold_the_shutdown_up() {
    let server = Server::start();
    let _idle = connect(server.address);
    server.get("/livez").ok();
    let started = Instant::now();
    server.stop().unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn what_does_not_end_is_cut_off_at_the_deadline() {
    let limits = Limits { shutdown_deadline: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    let mut stream = connect(server.address);
    let request = Request::new("PUT", "/v1/collections/c").header("content-type", "application/json");
    let request = request.header("expect", "100-continue");
    stream.write_all(&request.head("content-length: 11")).unwrap();
    stream.read_exact(&mut [0; 25]).unwrap();
    assert!(matches!(server.stop(), Err(ServeError::Unfinished { unfinished: 1, .. })));
}
