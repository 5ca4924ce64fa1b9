//! Shutdown: what was accepted is finished, nothing new is taken.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pannier::http::{HttpConfig, Limits, ServeError};
use serde_json::json;

use super::client::{Request, connect, read_answer};
use super::server::Server;

#[test]
fn an_import_under_way_is_finished_and_new_connections_are_refused() {
    let mut server = Server::with_documents(&[]);
    let mut stream = connect(server.address);
    let request = Request::new("POST", "/v1/collections/c/import").header("expect", "100-continue");
    stream.write_all(&request.head("transfer-encoding: chunked")).unwrap();
    // The server asks for the body: the request is accepted.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 Continue"), "{go_on:?}");
    server.begin_shutdown();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < deadline, "the server still takes connections");
        std::thread::yield_now();
    }
    for n in 0..3 {
        let line = format!("{{\"id\":\"{n}\",\"vector\":[1,0,0]}}\n");
        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let report = read_answer(&mut stream).ok();
    assert_eq!(report["upserted"], json!(3));
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
    server.put("/v1/collections/c", &json!({"dim": 3})).ok();
    let mut stream = connect(server.address);
    let request = Request::new("POST", "/v1/collections/c/import").header("expect", "100-continue");
    stream.write_all(&request.head("transfer-encoding: chunked")).unwrap();
    stream.read_exact(&mut [0; 25]).unwrap();
    assert!(matches!(server.stop(), Err(ServeError::Unfinished { unfinished: 1, .. })));
}
