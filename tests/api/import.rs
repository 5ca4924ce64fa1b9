//! The import stream.

use std::io::Write;
use std::time::Duration;

use pannier::http::{HttpConfig, Limits};
use serde_json::json;

use super::client::{Answer, Request, connect, read_answer};
use super::server::Server;
use crate::support::comes_true;
use crate::support::model::SMALL_MODEL;

const PATH: &str = "/v1/collections/c/import";

fn import(server: &Server, body: impl Into<Vec<u8>>) -> Answer {
    Request::new("POST", PATH).body("application/x-ndjson", body).send(server.address)
}

#[test]
pub fn good_lines_get_in_and_bad_ones_are_reported() {
    let server = Server::with_documents(&[]);
    let lines = [
        "\u{feff}{\"id\":\"a\",\"vector\":[1,0,0],\"metadata\":{\"n\":1}}\r",
        "",
        "not json",
        "{\"id\":\"b\",\"vector\":[1,0]}",
        "{\"id\":\"c\",\"vector\":[0,0,0]}",
        "{\"id\":\"d\"}",
        "{\"id\":\"e\",\"vector\":[0,1,0],\"color\":1}",
        "{\"id\":\"f\",\"vector\":[0,1e39,0]}",
        "{\"id\":\"\",\"vector\":[0,1,0]}",
        "{\"id\":\"g\",\"text\":\"no model\"}",
        "{\"id\":\"last\",\"vector\":[0,0,1]}",
    ];
    let report = import(&server, lines.join("\n")).ok();
    assert_eq!((&report["lines"], &report["upserted"], &report["failed"]), (&json!(10), &json!(2), &json!(8)));
    assert_eq!(report["done_through"], 11, "with the blank line");
    let errors: Vec<(u64, &str)> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["line"].as_u64().unwrap(), error["code"].as_str().unwrap()))
        .collect();
    let mut sorted = errors.clone();
    sorted.sort_unstable();
    let wanted = [
        (3, "invalid_json"),
        (4, "dim_mismatch"),
        (5, "invalid_vector"),
        (6, "nothing_to_index"),
        (7, "unknown_field"),
        (8, "invalid_vector"),
        (9, "invalid_name"),
        (10, "no_model"),
    ];
    assert_eq!(sorted, wanted);
    assert!(report["errors"].as_array().unwrap().iter().all(|e| !e["detail"].as_str().unwrap().is_empty()));
    assert!(report["seq"].as_u64().is_some_and(|seq| seq > 0));
    assert_eq!(server.ids(), ["a", "last"]);
}

/// Texts that a template makes of small bodies, together more than a record of the log holds.
#[test]
fn what_no_record_holds_is_refused_at_once_and_split_by_an_import() {
    const DOCUMENTS: usize = 250;
    let server = Server::with_model();
    let embedding = json!({"model": SMALL_MODEL, "template": "{{ body }}".repeat(100)});
    let dim = server.put("/v1/collections/c", &json!({"embedding": embedding})).ok()["dim"].as_u64().unwrap();
    let vector = vec![1; dim as usize];
    let document = |n| json!({"id": format!("{n:03}"), "vector": vector, "metadata": {"body": "x".repeat(3_000)}});
    let documents: Vec<_> = (0..DOCUMENTS).map(document).collect();
    let refused = server.post("/v1/collections/c/documents", &json!({"documents": documents}));
    let detail = refused.refused(422, "too_long");
    assert!(detail.contains("send fewer documents"), "{detail}");
    assert_eq!(server.get("/v1/collections/c/stats").ok()["documents"], 0);
    let lines: Vec<_> = documents.iter().map(|document| document.to_string()).collect();
    let report = import(&server, lines.join("\n")).ok();
    assert_eq!((&report["upserted"], &report["errors"]), (&json!(DOCUMENTS), &json!([])));
}

#[test]
pub fn many_documents_in_small_chunks_get_in_and_the_last_of_an_id_stands() {
    let server = Server::with_documents(&[]);
    let mut body = String::new();
    for n in 0..2_000 {
        body.push_str(&format!("{{\"id\":\"{}\",\"vector\":[1,{n},0],\"metadata\":{{\"n\":{n}}}}}\n", n % 700));
    }
    let mut stream = connect(server.address);
    let request = Request::new("POST", PATH).header("content-type", "application/x-ndjson");
    stream.write_all(&request.head("transfer-encoding: chunked")).unwrap();
    for chunk in body.as_bytes().chunks(997) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let report = read_answer(&mut stream).ok();
    assert_eq!((&report["lines"], &report["upserted"], &report["errors"]), (&json!(2_000), &json!(2_000), &json!([])));
    assert_eq!(server.get("/v1/collections/c/stats").ok()["documents"], 700);
    assert_eq!(server.get("/v1/collections/c/documents/5").ok()["metadata"], json!({"n": 1_405}));
}

#[test]
pub fn one_refused_document_does_not_keep_the_others_of_its_batch_out() {
    let server = Server::with_documents(&[]);
    let mut body = String::new();
    for n in 0..250 {
        let vector = if n % 50 == 7 { "[1]" } else { "[1,0,0]" };
        body.push_str(&format!("{{\"id\":\"{n:03}\",\"vector\":{vector}}}\n"));
    }
    let report = import(&server, body).ok();
    assert_eq!((&report["upserted"], &report["failed"]), (&json!(245), &json!(5)));
    let lines: Vec<u64> = report["errors"].as_array().unwrap().iter().map(|e| e["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [8, 58, 108, 158, 208]);
    assert_eq!(server.ids().len(), 245);
}

#[test]
pub fn an_import_that_ends_early_says_from_which_line_to_go_on() {
    let server = Server::with_documents(&[]);
    let lines = |prefix: &str, count: usize| -> String {
        (0..count).map(|n| format!("{{\"id\":\"{prefix}{n}\",\"vector\":[1,0,0]}}\n")).collect()
    };
    let mut stream = connect(server.address);
    let request = Request::new("POST", PATH).header("content-type", "application/x-ndjson");
    stream.write_all(&request.head("transfer-encoding: chunked")).unwrap();
    let mut send = |lines: String| {
        stream.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes()).unwrap();
    };
    // A whole batch is written at once; the next waits for its end.
    send(format!("\nnot json\n{}", lines("a", 256)));
    assert!(comes_true(|| server.ids().len() >= 256), "no batch is written");
    server.delete("/v1/collections/c").ok();
    send(format!("not json\n{}\nnot json\n", lines("b", 100)));
    stream.write_all(b"0\r\n\r\n").unwrap();
    let answer = read_answer(&mut stream);
    answer.refused(404, "collection_not_found");
    let progress = &answer.json()["progress"];
    assert_eq!((&progress["lines"], &progress["upserted"], &progress["failed"]), (&json!(359), &json!(256), &json!(3)));
    assert_eq!(progress["done_through"], 259, "line 260 is the first of those that were not written");
}

#[test]
fn a_client_that_sends_all_before_it_reads_learns_why_its_import_ended() {
    let server = Server::with_documents(&[]);
    let text = "x".repeat(1 << 10);
    let lines = |count: usize| -> String {
        (0..count).map(|n| format!("{{\"id\":\"{n}\",\"vector\":[1,0,0],\"text\":\"{text}\"}}\n")).collect()
    };
    let mut stream = connect(server.address);
    let request = Request::new("POST", PATH).header("content-type", "application/x-ndjson");
    stream.write_all(&request.head("transfer-encoding: chunked")).unwrap();
    let mut send = |lines: String| {
        stream.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes()).unwrap();
    };
    send(lines(256));
    assert!(comes_true(|| server.ids().len() >= 256), "no batch is written");
    server.delete("/v1/collections/c").ok();
    // More than the system's buffers hold.
    (0..14).for_each(|_| send(lines(900)));
    stream.write_all(b"0\r\n\r\n").unwrap();
    let answer = read_answer(&mut stream);
    answer.refused(404, "collection_not_found");
    // A batch whose collection goes before its write is answered was not acknowledged.
    let done_through = answer.json()["progress"]["done_through"].clone();
    assert!(done_through == 256 || done_through == 0, "{done_through}");
    // Refused before the first line was read.
    Request::new("POST", PATH)
        .body("application/x-ndjson", lines(9_000))
        .send(server.address)
        .refused(404, "collection_not_found");
}

#[test]
fn a_line_that_is_too_long_is_an_error_of_that_line() {
    let server = Server::with_documents(&[]);
    let long = "x".repeat(9 << 20);
    let body = format!("{{\"id\":\"a\",\"vector\":[1,0,0]}}\n{long}\n{{\"id\":\"b\",\"vector\":[1,0,0]}}\n");
    let report = import(&server, body).ok();
    assert_eq!(
        (&report["upserted"], &report["errors"][0]["line"], &report["errors"][0]["code"]),
        (&json!(2), &json!(2), &json!("too_long"))
    );
}

#[test]
fn errors_are_counted_beyond_those_that_are_listed() {
    let server = Server::with_documents(&[]);
    let report = import(&server, "{\n".repeat(1_234)).ok();
    assert_eq!((&report["failed"], report["errors"].as_array().unwrap().len()), (&json!(1_234), 1_000));
    assert_eq!((&report["upserted"], &report["seq"]), (&json!(0), &json!(null)));
}

#[test]
fn a_long_line_is_written_as_it_comes() {
    let server = Server::with_documents(&[]);
    let mut stream = connect(server.address);
    let mut send = |bytes: &[u8]| stream.write_all(bytes).unwrap();
    send(&Request::new("POST", PATH).head("content-length: 9000000"));
    let spaces = " ".repeat(2 << 20);
    send(format!("{{\"id\":\"a\",\"vector\":[1,0,0]}}\n{{\"id\":\"b\",{spaces}\"vector\":[1,0,0]}}\n").as_bytes());
    assert!(comes_true(|| server.ids() == ["a", "b"]), "it waits for the next line");
}

#[test]
fn a_long_line_has_a_time_to_come() {
    let limits = Limits { body_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start_with(HttpConfig { limits, ..HttpConfig::default() });
    Request::new("PUT", "/v1/collections/c").body("application/json", "{\"dim\":3}").send(server.address).ok();
    let mut stream = connect(server.address);
    stream.write_all(&Request::new("POST", PATH).head("content-length: 9000000")).unwrap();
    let spaces = " ".repeat(2 << 20);
    let begun = format!("{{\"id\":\"a\",\"vector\":[1,0,0]}}\n{{\"id\":\"b\",{spaces}");
    stream.write_all(begun.as_bytes()).unwrap();
    let answer = read_answer(&mut stream);
    let detail = answer.refused(408, "body_timeout");
    assert!(detail.contains("a line of more than 1 MiB"), "{detail}");
    assert_eq!(answer.json()["progress"]["done_through"], 1);
}

#[test]
fn a_report_repeats_no_document() {
    let server = Server::with_documents(&[]);
    let line = format!("{{\"id\":\"a\",\"metadata\":\"{}\"}}\n", "\u{200b}".repeat(300_000));
    let answer = import(&server, line.repeat(3));
    assert_eq!(answer.ok()["failed"], 3);
    assert!(answer.body.len() < 4_096, "{} bytes", answer.body.len());
}

#[test]
fn what_is_no_import_is_refused_before_it_is_read() {
    let server = Server::with_documents(&[]);
    Request::new("POST", "/v1/collections/nobody/import").send(server.address).refused(404, "collection_not_found");
    let json_array = Request::new("POST", PATH).body("application/json", "[]");
    json_array.send(server.address).refused(415, "unsupported_media_type");
    let empty = import(&server, "").ok();
    assert_eq!((&empty["lines"], &empty["upserted"]), (&json!(0), &json!(0)));
}
