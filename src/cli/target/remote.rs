//! A running server, over HTTP.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::ErrorKind;

use super::{Answer, DEFAULT_ADDRESS, read_body};
use crate::cli::{CliError, Context, read_secret};

/// A server on this machine or its network answers a connection at once, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence while a server works, such as on one batch of an import.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

/// A server's address and how to call it.
pub(in crate::cli) struct Remote {
    agent: ureq::Agent,
    base: String,
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
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(CliError::Usage(format!(
                "{address:?} is not a server's address; write it as http://127.0.0.1:7117"
            )));
        }
        let agent = ureq::AgentBuilder::new()
            .timeout_connect(CONNECT_TIMEOUT)
            .timeout_read(READ_TIMEOUT)
            .redirects(0)
            .user_agent(concat!("pannier/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent, base, key })
    }

    /// The address without a slash at its end.
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

    pub(super) fn stream(&self, path: &str, lines: &mut dyn Read) -> Result<Answer, CliError> {
        let request = self.request("POST", path).set("content-type", "application/x-ndjson");
        // The next lines may be long in coming, and a connection that the server closes meanwhile would fail them.
        self.answer(request.set("connection", "close").send(lines))
    }

    fn request(&self, method: &str, path: &str) -> ureq::Request {
        let request = self.agent.request(method, &format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.set("authorization", &format!("Bearer {key}")),
            None => request,
        }
    }

    fn answer(&self, result: Result<ureq::Response, ureq::Error>) -> Result<Answer, CliError> {
        let response = match result {
            Ok(response) | Err(ureq::Error::Status(_, response)) => response,
            Err(ureq::Error::Transport(error)) => return Err(self.failed(error)),
        };
        let status = response.status();
        Ok(Answer { status, body: read_body(response.into_reader(), &self.base)? })
    }

    /// Why there is no answer.
    fn failed(&self, error: ureq::Transport) -> CliError {
        let address = self.base.clone();
        match error.kind() {
            ErrorKind::Io => CliError::Unanswered { address, source: Box::new(error) },
            ErrorKind::BadStatus | ErrorKind::BadHeader => CliError::Protocol { address, reason: error.to_string() },
            _ => CliError::Unreachable { address, source: Box::new(error) },
        }
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
    use std::io::Write;
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
        let foreign = answered(b"220 mail.example ESMTP\r\n\r\n");
        assert!(matches!(foreign, CliError::Protocol { .. }), "{foreign}");
        drop(listener);
        let gone = remote.call("GET", "/version", None).map(|answer| answer.status).unwrap_err();
        assert!(matches!(gone, CliError::Unreachable { .. }), "{gone}");
    }
}
