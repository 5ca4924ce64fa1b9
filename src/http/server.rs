//! The connection loop: accepts within a limit, serves HTTP/1.1, and ends without losing what was accepted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::impatient::Impatient;
use super::limits::Limits;
use super::router::{bound_router, crowded_router};
use super::state::AppState;
use crate::telemetry;
use crate::types::limits::{KEPT_CONNECTIONS, MAX_CONNECTIONS};

/// Pause after a failed accept: out of file descriptors, accepting at once again would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest life of a connection beyond [`MAX_CONNECTIONS`].
const KEPT_TIME: Duration = Duration::from_secs(2);
/// How often the database is asked whether it has stopped, and the histograms are drained.
const TICK: Duration = Duration::from_secs(1);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The listener's address could not be read.
    #[error("the listener has no local address")]
    Listener {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database has stopped and can only be opened anew.
    #[error("the database has stopped: {reason}; mend the cause and start again")]
    DatabaseStopped {
        /// Why.
        reason: String,
    },
    /// Some requests were still being answered when the time to finish them was over.
    #[error("{unfinished} connections were still open {seconds} s after the shutdown began")]
    Unfinished {
        /// Connections cut off.
        unfinished: usize,
        /// The deadline.
        seconds: u64,
    },
}

/// Serves until `shutdown` completes or the database stops, then finishes the requests that were accepted.
///
/// At the end of a shutdown the caller closes the database, which waits for writes whose client has gone.
///
/// # Errors
/// [`ServeError::DatabaseStopped`] after a failed fsync, when the process has to exit; [`ServeError::Unfinished`] when
/// the deadline of [`super::state::HttpConfig::limits`] passes first.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(|source| ServeError::Listener { source })?;
    let doors = Doors {
        router: bound_router(state.clone(), Some(address)),
        crowded: crowded_router(state.clone(), Some(address)),
        keep_alive: true,
        limits: state.config().limits,
    };
    let graceful = GracefulShutdown::new();
    let places = Places::new();
    tracing::info!(%address, "serving");
    let stopped = tokio::select! {
        never = accept_all(&listener, &doors, &graceful, &places) => match never {},
        () = shutdown => None,
        reason = database_stopped(&state) => Some(reason),
    };
    drop(listener);
    state.begin_shutdown();
    let drained = drain(graceful, &places, doors.limits.shutdown_deadline).await;
    match stopped {
        Some(reason) => Err(ServeError::DatabaseStopped { reason }),
        None => drained,
    }
}

/// What connections are served by.
pub(super) struct Doors {
    pub(super) router: Router,
    /// For connections beyond [`MAX_CONNECTIONS`].
    pub(super) crowded: Router,
    /// Whether a connection may ask more than once.
    pub(super) keep_alive: bool,
    pub(super) limits: Limits,
}

/// Places of connections.
pub(super) struct Places {
    /// All, those kept for health checks too.
    all: Arc<Semaphore>,
    usual: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new() -> Self {
        let all = Semaphore::new(MAX_CONNECTIONS + KEPT_CONNECTIONS);
        Self { all: Arc::new(all), usual: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    fn open(&self) -> usize {
        MAX_CONNECTIONS + KEPT_CONNECTIONS - self.all.available_permits()
    }
}

pub(super) async fn accept_all(
    listener: &TcpListener,
    doors: &Doors,
    graceful: &GracefulShutdown,
    places: &Places,
) -> std::convert::Infallible {
    loop {
        // The place is taken before the connection: those beyond all places wait in the kernel's queue.
        let place = Arc::clone(&places.all).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "could not set TCP_NODELAY");
                }
                let stream = Impatient::new(stream, doors.limits.write_timeout);
                match Arc::clone(&places.usual).try_acquire_owned() {
                    Ok(usual) => {
                        let served = doors.serve(stream, doors.keep_alive, &doors.router, graceful.watcher());
                        tokio::spawn(in_places((place, Some(usual)), served));
                    }
                    Err(_) => {
                        let served = doors.serve(stream, false, &doors.crowded, graceful.watcher());
                        // Whatever it does, the next health check gets its turn.
                        let briefly = async { _ = tokio::time::timeout(KEPT_TIME, served).await };
                        tokio::spawn(in_places((place, None), briefly));
                    }
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Doors {
    /// Serves one connection.
    fn serve(
        &self,
        stream: Impatient<TcpStream>,
        keep_alive: bool,
        router: &Router,
        watcher: Watcher,
    ) -> impl Future<Output = ()> + use<> {
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .keep_alive(keep_alive)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let watched = watcher.watch(served);
        async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "a connection ended early");
            }
        }
    }
}

async fn in_places(places: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>), served: impl Future<Output = ()>) {
    let _places = places;
    let _counted = Open::enter();
    served.await;
}

/// Whether only the connection that was to be accepted is at fault.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

/// One open connection, for the gauge.
struct Open;

impl Open {
    fn enter() -> Self {
        metrics::gauge!(telemetry::HTTP_CONNECTIONS).increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::HTTP_CONNECTIONS).decrement(1.0);
    }
}

/// Completes with the reason once the database has stopped. Drains the histograms meanwhile.
async fn database_stopped(state: &AppState) -> String {
    let mut tick = tokio::time::interval(TICK);
    loop {
        if let Some(reason) = state.database().stop_reason() {
            return reason;
        }
        tokio::select! {
            () = state.write_was_refused() => {}
            _ = tick.tick() => {
                if let Some(metrics) = state.metrics() {
                    metrics.run_upkeep();
                }
            }
        }
    }
}

async fn drain(graceful: GracefulShutdown, places: &Places, deadline: Duration) -> Result<(), ServeError> {
    tracing::info!(open = places.open(), "shutting down");
    match tokio::time::timeout(deadline, graceful.shutdown()).await {
        Ok(()) => Ok(()),
        Err(_) => Err(ServeError::Unfinished { unfinished: places.open(), seconds: deadline.as_secs() }),
    }
}
