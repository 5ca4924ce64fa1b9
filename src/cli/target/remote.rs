//! A running server, over HTTP.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use ureq::ErrorKind;

use super::{Answer, DEFAULT_ADDRESS, read_body};
use crate::cli::{CliError, Context, read_secret};

/// A server on this machine or its network answers a connection at once, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence while a server works.
const READ_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest silence while it works on a portion of an import, which a large model may have to embed beside other work.
const STREAM_READ_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How often a portion is sent again that the server has no place for,
const RETRIES: u32 = 10;
/// and the first pause before that, which doubles each time up to [`MAX_PAUSE`]. A server that asks for a longer one
/// gets it.
const PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// A server's address and how to call it.
pub(in crate::cli) struct Remote {
    agent: ureq::Agent,
    /// For streams, whose answers may be long in coming.
    stream_agent: ureq::Agent,
    /// Without the user and the password that stood in the address: it is shown.
    base: String,
    /// What those become, for a proxy before the server.
    login: Option<String>,
    key: Option<String>,
}

impl Remote {
    /// `address`: a URL, or a host and port. Connects to nothing yet.
    ///
    /// # Errors
    /// [`CliError::Usage`] for an address that is none.
    pub(in crate::cli) fn new(address: &str, context: &Context) -> Result<Self, CliError> {
        let key = context.api_key_file.as_deref().map(read_key).transpose()?;
        Self::with_key(address, key)
    }

    /// A server at the address that was named; else at the one where servers listen by default, and then without the
    /// key: somebody else's program may listen there.
    ///
    /// # Errors
    /// As [`Remote::new`].
    pub(in crate::cli) fn expected(named: Option<&str>, context: &Context) -> Result<Self, CliError> {
        match named {
            Some(address) => Self::new(address, context),
            None => Self::with_key(DEFAULT_ADDRESS, None),
        }
    }

    fn with_key(address: &str, key: Option<String>) -> Result<Self, CliError> {
        let base = address.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let (base, login) = split_login(&base);
        if base.contains('@') {
            let detail = "the server's address has an @ behind its host; percent-encode what stands in a password, as %2F \
                          for a slash";
            return Err(CliError::Usage(detail.to_owned()));
        }
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(CliError::Usage(format!(
                "{base:?} is not a server's address; write it as http://127.0.0.1:7117"
            )));
        }
        let login = login
            .map(|login| format!("Basic {}", BASE64_STANDARD.encode(percent_decode_str(login).collect::<Vec<_>>())));
        let (agent, stream_agent) = (agent(READ_TIMEOUT), agent(STREAM_READ_TIMEOUT));
        Ok(Self { agent, stream_agent, base, login, key })
    }

    /// The address without a login and without a slash at its end.
    pub(in crate::cli) fn base(&self) -> &str {
        &self.base
    }

    /// What the server says of itself, if it is one of ours.
    pub(in crate::cli) fn version(&self) -> Option<Value> {
        let answer = self.call("GET", "/version", None).ok()?;
        let version: Value = serde_json::from_str(&answer.body).ok()?;
        (version["name"] == env!("CARGO_PKG_NAME")).then_some(version)
    }

    /// Whether whoever answers wants an API key, or another one.
    pub(in crate::cli) fn wants_key(&self) -> bool {
        self.call("GET", "/version", None).is_ok_and(|answer| answer.status == 401)
    }

    pub(super) fn call(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer, CliError> {
        let request = self.request(method, path);
        self.answer(match body {
            Some(body) => request.set("content-type", "application/json").send_string(body),
            None => request.call(),
        })
    }

    /// Posts lines, and again where the server says that it may take them later: what a refused request has written is
    /// written under the same ids once more.
    pub(super) fn stream(&self, path: &str, lines: &[u8]) -> Result<Answer, CliError> {
        let mut answer = self.stream_once(path, lines)?;
        for n in 0..RETRIES {
            let (429 | 503, Some(asked)) = (answer.status, answer.retry_after) else { break };
            std::thread::sleep(asked.max((PAUSE * (1 << n)).min(MAX_PAUSE)));
            // Of a server that is gone by then, its last answer says why.
            let Ok(next) = self.stream_once(path, lines) else { break };
            answer = next;
        }
        Ok(answer)
    }

    fn stream_once(&self, path: &str, lines: &[u8]) -> Result<Answer, CliError> {
        let request = self.request_by(&self.stream_agent, "POST", path).set("content-type", "application/x-ndjson");
        // The next lines may be long in coming, and a connection that the server closes meanwhile would fail them.
        self.answer(request.set("connection", "close").send_bytes(lines))
    }

    fn request(&self, method: &str, path: &str) -> ureq::Request {
        self.request_by(&self.agent, method, path)
    }

    fn request_by(&self, agent: &ureq::Agent, method: &str, path: &str) -> ureq::Request {
        let request = agent.request(method, &format!("{}{path}", self.base));
        match (&self.login, &self.key) {
            (Some(login), Some(key)) => request.set("authorization", login).set("x-api-key", key),
            (Some(login), None) => request.set("authorization", login),
            (None, Some(key)) => request.set("authorization", &format!("Bearer {key}")),
            (None, None) => request,
        }
    }

    fn answer(&self, result: Result<ureq::Response, ureq::Error>) -> Result<Answer, CliError> {
        let response = match result {
            Ok(response) | Err(ureq::Error::Status(_, response)) => response,
            Err(ureq::Error::Transport(error)) => return Err(self.failed(error)),
        };
        let status = response.status();
        let retry_after = response.header("retry-after").and_then(|seconds| seconds.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        Ok(Answer { status, retry_after, body: read_body(response.into_reader(), &self.base)? })
    }

    /// Why there is no answer.
    fn failed(&self, error: ureq::Transport) -> CliError {
        let address = self.base.clone();
        match error.kind() {
            ErrorKind::ConnectionFailed if error.message().is_some_and(|message| message.starts_with("tls ")) => {
                CliError::NoTls { address, source: Box::new(error) }
            }
            ErrorKind::Io => CliError::Unanswered { address, source: Box::new(error) },
            ErrorKind::BadStatus | ErrorKind::BadHeader => CliError::Protocol { address, reason: error.to_string() },
            _ => CliError::Unreachable { address, source: Box::new(error) },
        }
    }
}

fn agent(read_timeout: Duration) -> ureq::Agent {
    ureq::AgentBuilder::new()
        .timeout_connect(CONNECT_TIMEOUT)
        .timeout_read(read_timeout)
        .redirects(0)
        .user_agent(concat!("pannier/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// An address without the user and the password in it, as it may be shown.
pub(in crate::cli) fn shown(address: &str) -> String {
    let (base, _) = split_login(address);
    // One that is no address is shown without what may be a part of a password, too.
    base.rsplit_once('@').map_or(base.clone(), |(_, rest)| rest.to_owned())
}

/// An address without what stands before the `@` of its host, and that.
fn split_login(address: &str) -> (String, Option<&str>) {
    let start = address.find("://").map_or(0, |at| at + "://".len());
    let end = address[start..].find(['/', '?', '#']).map_or(address.len(), |at| start + at);
    match address[start..end].rfind('@').map(|at| start + at) {
        Some(at) => (format!("{}{}", &address[..start], &address[at + 1..]), Some(&address[start..at])),
        None => (address.to_owned(), None),
    }
}

/// Reads an API key from its file; the space around it does not count.
///
/// # Errors
/// [`CliError::Io`].
pub(in crate::cli) fn read_key(path: &Path) -> Result<String, CliError> {
    read_secret(path).map_err(|e| CliError::io(format!("read the API key file {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn context(arguments: &[&str]) -> Context {
        Cli::try_parse_from([&["pannier", "doctor"], arguments].concat()).unwrap().context
    }

    #[test]
    fn a_key_goes_to_addresses_that_were_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let context = context(&["--api-key-file", file.to_str().unwrap()]);
        let key = |named| Remote::expected(named, &context).unwrap().key;
        assert_eq!(key(Some("127.0.0.1:1")).as_deref(), Some("0123456789abcdef"));
        assert_eq!(key(None), None);
    }

    #[test]
    fn a_login_is_for_a_proxy_and_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "0123456789abcdef\n").unwrap();
        let with_key = context(&["--api-key-file", file.to_str().unwrap()]);
        let address = "https://user:s%2Fcret@host.example/below/";
        let remote = Remote::new(address, &with_key).unwrap();
        let request = remote.request("GET", "/version");
        assert_eq!(request.header("authorization"), Some("Basic dXNlcjpzL2NyZXQ="));
        assert_eq!(request.header("x-api-key"), Some("0123456789abcdef"));
        assert_eq!(
            (request.url(), remote.base()),
            ("https://host.example/below/version", "https://host.example/below")
        );
        assert_eq!(shown(address), "https://host.example/below/");
        for odd in ["user:s/cret@host", "https://user:s/cret@host", "ftp://user:s/cret@host"] {
            let error = Remote::new(odd, &with_key).err().unwrap().to_string();
            assert!(!error.contains("cret") && !shown(odd).contains("cret"), "{odd}: {error}");
        }
        let plain = Remote::new("host:7117", &with_key).unwrap();
        assert_eq!(plain.request("GET", "/").header("authorization"), Some("Bearer 0123456789abcdef"));
        assert_eq!(plain.base(), "http://host:7117");
        let odd = Remote::new("http://me:100%+f%zz%41@host:7117", &context(&[])).unwrap();
        let login = format!("Basic {}", BASE64_STANDARD.encode("me:100%+f%zzA"));
        assert_eq!(odd.request("GET", "/").header("authorization"), Some(login.as_str()));
    }

    #[test]
    fn lines_that_a_server_takes_later_are_sent_again() {
        const LATER: &str = "429 Too Many Requests\r\nretry-after: 0";
        const AWAY: &str = "503 Service Unavailable\r\nretry-after: 0";
        for (answers, status) in [
            (vec![LATER, AWAY, "200 OK"], 200),
            // It says no time.
            (vec!["503 Service Unavailable"], 503),
            (vec![LATER, "422 Unprocessable Content\r\nretry-after: 0"], 422),
            // Nobody listens any more.
            (vec![LATER], 429),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let remote = Remote::new(&listener.local_addr().unwrap().to_string(), &context(&[])).unwrap();
            let (sender, bodies) = std::sync::mpsc::channel();
            let count = answers.len();
            std::thread::spawn(move || {
                for answer in answers {
                    let (mut stream, mut request) = (listener.accept().unwrap().0, Vec::new());
                    while !request.ends_with(b"the end\n") {
                        let mut part = [0; 4_096];
                        let len = stream.read(&mut part).unwrap();
                        assert!(len > 0, "the request has no end");
                        request.extend_from_slice(&part[..len]);
                    }
                    let head = format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}");
                    stream.write_all(head.as_bytes()).unwrap();
                    sender.send(String::from_utf8(request).unwrap()).unwrap();
                }
            });
            assert_eq!(remote.stream("/import", b"a line\nthe end\n").unwrap().status, status);
            let bodies: Vec<String> = bodies.iter().collect();
            assert_eq!(bodies.len(), count);
            assert!(bodies.iter().all(|body| body.ends_with("\r\n\r\na line\nthe end\n")), "{bodies:?}");
        }
    }

    #[test]
    fn a_server_that_breaks_off_is_not_called_missing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = Remote::new(&listener.local_addr().unwrap().to_string(), &context(&[])).unwrap();
        let answered = |answer: &'static [u8]| {
            let served = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut stream = listener.accept().unwrap().0;
                    _ = stream.read(&mut [0; 4_096]).unwrap();
                    stream.write_all(answer).unwrap();
                });
                remote.call("GET", "/version", None).map(|answer| answer.status)
            });
            served.unwrap_err()
        };
        let broken = answered(b"");
        assert!(matches!(broken, CliError::Unanswered { .. }), "{broken}");
        let plain = Remote::new(&format!("https://{}", listener.local_addr().unwrap()), &context(&[])).unwrap();
        let without_tls = std::thread::scope(|scope| {
            scope.spawn(|| listener.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap());
            plain.call("GET", "/version", None).map(|answer| answer.status).unwrap_err()
        });
        assert!(matches!(without_tls, CliError::NoTls { .. }), "{without_tls}");
        let foreign = answered(b"220 mail.example ESMTP\r\n\r\n");
        assert!(matches!(foreign, CliError::Protocol { .. }), "{foreign}");
        drop(listener);
        let gone = remote.call("GET", "/version", None).map(|answer| answer.status).unwrap_err();
        assert!(matches!(gone, CliError::Unreachable { .. }), "{gone}");
    }
}
