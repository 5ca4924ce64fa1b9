//! A client that sends exactly the bytes it is told to: clients of the field tidy paths and headers up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for an answer; a test that runs into it fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A request to send.
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    /// Sends it on a connection of its own.
    pub fn send(self, address: SocketAddr) -> Answer {
        let mut stream = connect(address);
        let length = self.body.len();
        let mut request = self.head(&format!("content-length: {length}"));
        request.extend_from_slice(&self.body);
        // A server that refuses a body early may close before all of it is written; its answer still counts.
        let _ = stream.write_all(&request);
        read_answer(&mut stream)
    }

    /// The request's head with `framing` as its last header.
    pub fn head(&self, framing: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            head.push_str("host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("connection: close\r\n{framing}\r\n\r\n"));
        head.into_bytes()
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Checks that it is a success and returns its JSON.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self.json()
    }

    /// Checks that it is a whole problem with this status and code, and returns its sentence.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{} {}", self.status, self.text());
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{}", self.text());
        assert_eq!(problem["status"].as_u64(), Some(u64::from(status)));
        assert_eq!(problem["type"], format!("urn:pannier:problem:{code}"));
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(problem["instance"].as_str().is_some_and(|path| path.starts_with('/')));
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.split(' ').count() >= 3, "the detail is no sentence: {detail:?}");
        detail.to_owned()
    }
}

/// A number of a server's metrics; 0 before it is counted.
pub fn metric(address: SocketAddr, name: &str) -> f64 {
    let text = Request::new("GET", "/metrics").send(address).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Reads an answer until the server closes the connection.
pub fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert!(!bytes.is_empty(), "no answer: {error}");
    }
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("the answer has a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Answer { status, headers: lines.map(header).collect(), body: bytes[end + 4..].to_vec() }
}
