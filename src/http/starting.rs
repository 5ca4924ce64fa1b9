//! A server whose store is being opened: it answers health checks, and tells everybody else to come again.
//!
//! A store may read its log or make its indexes again for minutes. Whoever watches the process has to tell that from
//! one that hangs.

use std::io;

use axum::response::Response;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::{ApiError, Code};
use super::health::unavailable;
use super::ready::Unready;
use super::router::starting_router;
use super::server::{Doors, Places, accept_all};
use super::state::HttpConfig;

/// Answers on a listener until the store is open: `/livez` with 200, the other health routes and everything else with
/// 503. Dropped, it ends, and the listener with it.
pub struct Starting {
    end: oneshot::Sender<()>,
    task: JoinHandle<TcpListener>,
}

impl Starting {
    /// Begins to answer. Call it within a runtime of tokio.
    ///
    /// # Errors
    /// The system's, where the listener has no address.
    pub fn begin(listener: TcpListener, config: &HttpConfig) -> io::Result<Self> {
        let router = starting_router(config, Some(listener.local_addr()?));
        // Each connection ends with its answer, so that the next request finds the server that has come up meanwhile.
        let doors = Doors { crowded: router.clone(), router, keep_alive: false, limits: config.limits };
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let (graceful, places) = (GracefulShutdown::new(), Places::new());
            tokio::select! {
                never = accept_all(&listener, &doors, &graceful, &places) => match never {},
                _ = ended => {}
            }
            // What is being answered is answered to its end.
            tokio::spawn(graceful.shutdown());
            listener
        });
        Ok(Self { end, task })
    }

    /// Ends it. Connections that come now wait until somebody serves the listener that is given back.
    ///
    /// # Errors
    /// Where answering panicked.
    pub async fn end(self) -> io::Result<TcpListener> {
        // It fails where the task has ended, which the next line tells.
        _ = self.end.send(());
        self.task.await.map_err(io::Error::other)
    }
}

pub(super) async fn not_ready() -> Response {
    unavailable(Unready::Starting)
}

pub(super) async fn refuse() -> ApiError {
    ApiError::new(Code::Starting, "the store is being opened; try again shortly, or wait until GET /readyz answers 200")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_is_answered_and_the_listener_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let starting = Starting::begin(listener, &HttpConfig::default()).unwrap();
        let alive = ask(address, "/livez").await;
        assert!(alive.starts_with("HTTP/1.1 200") && alive.ends_with(r#"{"status":"ok"}"#), "{alive}");
        for path in ["/readyz", "/healthz", "/health"] {
            let answer = ask(address, path).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            assert!(answer.ends_with(r#"{"status":"unavailable","reason":"starting"}"#), "{answer}");
        }
        let answer = ask(address, "/v1/collections").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(r#""code":"starting""#), "{answer}");
        assert!(answer.contains("retry-after: 1") && answer.contains("connection: close"), "{answer}");
        let silent = TcpStream::connect(address).await.unwrap();
        let listener = starting.end().await.unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        let waits = TcpStream::connect(address).await.unwrap();
        let from = waits.local_addr().unwrap();
        // One that came before may have waited, too.
        while listener.accept().await.unwrap().1 != from {}
        drop(silent);
    }
}
