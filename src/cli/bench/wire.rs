//! A bare HTTP/1.1 client for measurements: one connection, requests that are bytes already, answers that are counted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::super::CliError;

/// A request as bytes, ready to be sent again and again.
#[derive(Clone, Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A POST of JSON.
    pub fn post(path: &str, body: &Value) -> Self {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self([head.into_bytes(), body.into_bytes()].concat())
    }

    /// A GET.
    pub fn get(path: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes())
    }
}

/// A connection that stays open.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub fn open(address: SocketAddr) -> Result<Self, CliError> {
        let fail = |e| CliError::io(format!("connect to {address}"), e);
        let stream = TcpStream::connect(address).map_err(fail)?;
        stream.set_nodelay(true).map_err(fail)?;
        Ok(Self { stream: BufReader::with_capacity(1 << 16, stream), line: String::new(), body: Vec::new() })
    }

    /// Sends a request and reads its answer's body.
    ///
    /// # Errors
    /// [`CliError::Io`]; [`CliError::Refused`] for any answer but 200.
    pub fn send(&mut self, request: &Request) -> Result<&[u8], CliError> {
        let fail = |e| CliError::io("talk to the measured server", e);
        self.stream.get_mut().write_all(&request.0).map_err(fail)?;
        let status = self.read_line()?.to_owned();
        let mut length = 0;
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let header = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            if let Some((_, value)) = header {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).map_err(fail)?;
        match status.contains(" 200 ") {
            true => Ok(&self.body),
            false => {
                let body = String::from_utf8_lossy(&self.body);
                Err(CliError::Refused(format!("the measured server answered {status}: {body}")))
            }
        }
    }

    fn read_line(&mut self) -> Result<&str, CliError> {
        self.line.clear();
        self.stream.read_line(&mut self.line).map_err(|e| CliError::io("talk to the measured server", e))?;
        Ok(self.line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_are_read_to_their_end_on_one_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 36];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\nhi").unwrap();
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 1\r\n\r\n!").unwrap();
            asked
        });
        let mut connection = Connection::open(address).unwrap();
        assert_eq!(connection.send(&Request::get("/a")).unwrap(), b"hi");
        let refused = connection.send(&Request::get("/a")).unwrap_err().to_string();
        assert!(refused.contains("404") && refused.ends_with('!'), "{refused}");
        assert_eq!(&server.join().unwrap(), b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n");
    }
}
