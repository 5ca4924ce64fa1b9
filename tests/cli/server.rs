//! A running server, and the commands that talk to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};

use serde_json::json;

use super::{Place, Ran, THREE, unread};
use crate::api::client::{Request, connect, metric};
use crate::support::comes_true;
use crate::support::model::{SMALL_MODEL, install_small_model};

/// A server of a place's data; killed when dropped.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts it at a free port and waits until it says where.
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::start_with_stderr(place, arguments, Stdio::piped())
    }

    fn start_with_stderr(place: &Place, arguments: &[&str], stderr: Stdio) -> Self {
        let all = [&["serve", "--addr", "127.0.0.1:0", "--json"], arguments].concat();
        let mut child = place.command(&all).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut complaint = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut complaint).unwrap();
            }
            panic!("the server did not start: {complaint}");
        }
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { child, address: ready["address"].as_str().unwrap().to_owned() }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn socket(&self) -> SocketAddr {
        self.address.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Asks it to end, and returns its exit code.
    #[cfg(unix)]
    fn stop(mut self) -> i32 {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_with_another_precision_says_that_it_is_not_ready() {
    let place = Place::new();
    install_small_model(&place.path("no-models"));
    place.succeed(&["collection", "create", "words", "--model", SMALL_MODEL]);
    let mut command = place.command(&["serve", "--addr", "127.0.0.1:0", "--precision", "int8"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(line.contains(" is up at ") && line.contains("not ready"), "{line}");
    assert!(said.contains("--precision float32"), "{said}");
}

#[cfg(unix)]
#[test]
fn commands_go_to_the_server_and_a_signal_ends_it_well() {
    let place = Place::new();
    let server = Server::start(&place, &[]);
    let at = ["--server", server.address.as_str()];
    let run = |arguments: &[&str]| -> Ran { place.run(&[&at[..], arguments].concat()) };
    assert_eq!(run(&["collection", "create", "colours", "--dim", "3"]).code, 0);
    let file = place.write("three.jsonl", format!("{THREE}nonsense\n{{\"id\":\"bad\",\"vector\":[1]}}\n"));
    let ran = run(&["import", "colours", &file]);
    ran.failed_with(1, &["line 4: ", "line 5: ", "dim_mismatch", "3 documents written", "2 of 5 lines failed"]);
    let found = run(&["search", "colours", "--vector", "[1,0,0]", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((found["hits"][0]["id"].as_str(), found["hits"].as_array().unwrap().len()), (Some("red"), 3));
    run(&["search", "shapes", "--vector", "[1]"]).failed_with(1, &["there is no collection"]);
    assert_eq!(run(&["doctor"]).stdout.lines().filter(|line| line.starts_with("fail")).count(), 0);
    run(&["verify"]).failed_with(2, &["stop the server"]);
    assert_eq!(run(&["snapshot", "create", "now"]).code, 0);
    let (packed, elsewhere) = (place.path("now.tar.zst"), place.path("elsewhere"));
    let pack = ["snapshot", "pack", "now", packed.to_str().unwrap()];
    let from = [&pack[..], &["--data", elsewhere.to_str().unwrap()]].concat();
    run(&from).failed_with(2, &["is not that of", "--data"]);
    assert!(!packed.exists());
    assert_eq!((run(&pack).code, packed.exists()), (0, true));
    assert_eq!(server.stop(), 0);
    assert_eq!(place.hits(&["--vector", "[1,0,0]"]), ["red", "lime", "blue"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_a_server_that_opens_its_store() {
    let place = Place::new();
    Server::start(&place, &[]).stop();
    // Opening waits for somebody who writes into it.
    let pipe = place.path("data").join("backends.json");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let child = place.command(&["serve", "--addr", &address]).stdout(Stdio::null()).spawn().unwrap();
    let server = Server { child, address: address.clone() };
    let starting = || {
        let mut stream = std::net::TcpStream::connect(&address).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains("\"starting\"").then_some(())
    };
    assert!(crate::support::comes_true(|| starting().is_some()), "it never listened");
    assert_eq!(server.stop(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_log_cannot_be_written_goes_on() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for stderr in [unread(), full.into()] {
        let place = Place::with_colours();
        let server = Server::start_with_stderr(&place, &[], stderr);
        let at = ["--server", server.address.as_str()];
        let file = place.write("three.jsonl", THREE);
        place.succeed(&[&at[..], &["import", "colours", &file]].concat());
        place.run(&[&at[..], &["search", "shapes", "--id", "a"]].concat()).failed_with(1, &["there is no collection"]);
        assert_eq!(server.stop(), 0);
        assert_eq!(place.hits(&["--vector", "[1,0,0]"]).len(), 3);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_address_nobody_reads_goes_on() {
    let place = Place::with_colours();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for stdout in [unread(), full.into()] {
        let mut command = place.command(&["serve", "--addr", "127.0.0.1:0", "--log-format", "json"]);
        let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = log.find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            (line["message"] == "serving").then(|| line["address"].as_str().unwrap().to_owned())
        });
        let server = Server { child, address: address.expect("the server does not serve") };
        place.succeed(&["--server", &server.address, "collection", "show", "colours"]);
        // The log is read to its end meanwhile.
        let rest = std::thread::spawn(move || log.for_each(drop));
        assert_eq!(server.stop(), 0);
        rest.join().unwrap();
    }
}

#[test]
fn an_import_that_the_server_ends_says_why() {
    let place = Place::with_colours();
    let server = Server::start(&place, &[]);
    let at = ["--server", server.address.as_str()];
    let run = |arguments: &[&str]| place.succeed(&[&at[..], arguments].concat());
    let mut command = place.command(&[&at[..], &["import", "colours", "-", "--json"]].concat());
    let mut import = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = import.stdin.take().unwrap();
    let text = "x".repeat(1 << 10);
    let mut send = |count: usize| -> std::io::Result<()> {
        (0..count).try_for_each(|n| writeln!(lines, "{{\"id\":\"{n}\",\"vector\":[1,0,0],\"text\":\"{text}\"}}"))
    };
    send(1_000).unwrap();
    let written = || {
        let shown: serde_json::Value =
            serde_json::from_str(&run(&["collection", "show", "colours", "--json"]).stdout).unwrap();
        shown["stats"]["documents"].as_u64().unwrap()
    };
    assert!(comes_true(|| written() > 0), "nothing is written");
    run(&["collection", "delete", "colours", "--yes"]);
    // More than the system's buffers hold. The command may end before it has read all.
    _ = send(12_000);
    drop(lines);
    let ended = Ran::of(import.wait_with_output().unwrap());
    ended.failed_with(1, &["there is no collection", "documents had been written", "again does no harm"]);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["upserted"].as_u64() > Some(0), "{report}");
}

#[test]
fn an_import_that_a_stopping_server_ends_is_told_in_words_of_the_command() {
    let place = Place::new();
    let file = place.write("three.jsonl", THREE);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let problem = serde_json::json!({"code": "stopping", "detail": "send the lines after \"done_through\" again",
        "progress": {"lines": 3, "upserted": 2, "failed": 0, "done_through": 2, "errors": []}});
    // Until so much of a request has come.
    let answers = [("\r\n\r\n", "200 OK", "{}".to_owned()), ("lime", "503 Service Unavailable", problem.to_string())];
    let server = std::thread::spawn(move || {
        for (wanted, status, body) in answers {
            let (mut stream, mut request) = (listener.accept().unwrap().0, Vec::new());
            while !request.windows(wanted.len()).any(|part| part == wanted.as_bytes()) {
                let mut part = [0; 4_096];
                let len = stream.read(&mut part).unwrap();
                assert!(len > 0, "the request ended: {}", String::from_utf8_lossy(&request));
                request.extend_from_slice(&part[..len]);
            }
            let len = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // A connection that is closed with bytes unread may lose its answer.
            _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let ran = place.run(&["--server", &at, "import", "colours", &file, "--json"]);
    server.join().unwrap();
    ran.failed_with(1, &["the server is stopping (2 documents had been written)", "again does no harm"]);
    assert!(!ran.stderr.contains("done_through"), "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((report["upserted"].as_u64(), report["lines"].as_u64()), (Some(2), Some(3)));
}

#[test]
fn a_long_import_goes_in_parts_and_is_told_as_one() {
    let place = Place::with_colours();
    let server = Server::start(&place, &[]);
    let text = "x".repeat(1 << 10);
    let line = |n: usize| match n % 4_000 {
        7 => format!("{{\"id\":\"{n}\",\"vector\":[1],\"text\":\"{text}\"}}\n"),
        _ => format!("{{\"id\":\"{n}\",\"vector\":[1,0,0],\"text\":\"{text}\"}}\n"),
    };
    let file = place.write("long.jsonl", (0..9_000).map(line).collect::<String>());
    let ran = place.run(&["--server", &server.address, "import", "colours", &file, "--json"]);
    ran.failed_with(1, &["3 of 9000 lines failed", &format!("written into colours at {}", server.address)]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((report["upserted"].as_u64(), report["failed"].as_u64()), (Some(8_997), Some(3)));
    let lines: Vec<_> = report["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64()).collect();
    assert_eq!(lines, [8, 4_008, 8_008].map(Some));
}

/// In a process of its own, where no other test counts.
#[test]
fn patches_are_counted_by_themselves() {
    let place = Place::with_colours();
    let server = Server::start(&place, &[]);
    let file = place.write("three.jsonl", THREE);
    place.succeed(&["--server", server.address(), "import", "colours", &file]);
    let both = json!({"documents": [{"id": "red", "text": "t"}, {"id": "blue", "text": "t"}]});
    Request::new("PATCH", "/v1/collections/colours/documents").json(&both).send(server.socket()).ok();
    let counted = |what: &str| metric(server.socket(), &format!("pannier_documents_{what}_total"));
    assert_eq!((counted("updated"), counted("upserted")), (2.0, 3.0));
}

/// As above.
#[test]
fn what_a_client_that_goes_has_asked_for_is_not_embedded() {
    let place = Place::new();
    let models = place.path("models");
    install_small_model(&models);
    let server = Server::start(&place, &["--models", models.to_str().unwrap()]);
    let dropped = || -> f64 {
        let of = |lane| metric(server.socket(), &format!("pannier_embedding_dropped_total{{lane=\"{lane}\"}}"));
        of("interactive") + of("bulk")
    };
    let ask_and_go = || {
        let body = json!({"model": SMALL_MODEL, "input": vec!["c d a b c d"; 500]}).to_string();
        let mut stream = connect(server.socket());
        let head = Request::new("POST", "/v1/embeddings").header("content-type", "application/json");
        stream.write_all(&head.head(&format!("content-length: {}", body.len()))).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        // Gone without reading the answer.
        drop(stream);
    };
    // A quick machine may have embedded it by then: again, until some of it still waits.
    let some_was_dropped = comes_true(|| {
        (0..20).for_each(|_| ask_and_go());
        dropped() > 0.0
    });
    assert!(some_was_dropped, "all was embedded for nobody");
    let asked = Request::new("POST", "/v1/embeddings").json(&json!({"model": SMALL_MODEL, "input": "a"}));
    asked.send(server.socket()).ok();
}

#[test]
fn a_held_directory_is_a_lock_error_unless_its_own_server_answers() {
    let place = Place::with_colours();
    let server = Server::start(&place, &[]);
    let rescued = place.path("rescued");
    for own in [&["verify"][..], &["migrate", "status"], &["salvage", "--to", rescued.to_str().unwrap()]] {
        let ran = place.run(own);
        ran.failed_with(3, &["is held by process", "stop it first"]);
        assert!(!ran.stderr.contains("--server"), "no server does it: {}", ran.stderr);
    }
    place.run(&["collection", "list"]).failed_with(3, &["is held by process", "--server URL"]);
    place.run(&["serve", "--addr", "127.0.0.1:0"]).failed_with(3, &["is held by process", "--data"]);
    let here = server.address.strip_prefix("http://").unwrap();
    let list = Ran::of(place.command(&["collection", "list"]).env("PANNIER_ADDR", here).output().unwrap());
    assert!(list.code == 0 && list.stdout.contains("colours"), "{}", list.stderr);
    // A server of another store is not taken for this one's.
    let other = Place::with_colours();
    let stranger = Server::start(&other, &[]);
    let there = stranger.address.strip_prefix("http://").unwrap();
    Ran::of(place.command(&["collection", "list"]).env("PANNIER_ADDR", there).output().unwrap())
        .failed_with(3, &["is held by process"]);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let place = Place::new();
    place.run(&["serve", "--addr", "0.0.0.0:0"]).failed_with(2, &["--api-key-file"]);
    place.run(&["serve", "--addr", "nonsense"]).failed_with(2, &["HOST:PORT"]);
    let short = place.write("key", "short\n");
    place.run(&["serve", "--api-key-file", &short]).failed_with(2, &["at least 16"]);
    let first = Server::start(&place, &[]);
    let taken = first.address.strip_prefix("http://").unwrap();
    let other = Place::new();
    other.run(&["serve", "--addr", taken]).failed_with(1, &[taken, "is in use"]);
    assert!(!other.data().exists());
    other
        .run(&["--server", "http://127.0.0.1:1", "collection", "list"])
        .failed_with(1, &["no server answers", "because: "]);
}

#[test]
fn with_a_key_only_its_holder_gets_in() {
    let place = Place::new();
    let key = place.write("key", "0123456789abcdef\n");
    let server = Server::start(&place, &["--api-key-file", &key]);
    let at = ["--server", server.address.as_str(), "collection", "list"];
    place.run(&at).failed_with(1, &["API key"]);
    place.succeed(&[&at[..], &["--api-key-file", &key]].concat());
}
