//! A server in this process on a port of its own, for measurements over HTTP.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::super::CliError;
use crate::database::Database;
use crate::http::{self, AppState, HttpConfig};

/// A running server; it ends when dropped.
pub(super) struct LocalServer {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LocalServer {
    /// Serves `database` on loopback.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub fn start(database: Database) -> Result<Self, CliError> {
        let fail = |e| CliError::io("start a server", e);
        let listener = TcpListener::bind("127.0.0.1:0").map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(fail)?;
        let (shutdown, ended) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| e.to_string())?;
                let state = AppState::new(database, HttpConfig::default(), None);
                let ended = async {
                    // The sender is dropped with the server.
                    _ = ended.await;
                };
                http::serve(listener, state, ended).await.map_err(|e| e.to_string())
            });
            if let Err(error) = served {
                tracing::warn!(error, "the measured server ended early");
            }
        });
        Ok(Self { address, shutdown: Some(shutdown), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the measured server's thread panicked");
        }
    }
}
