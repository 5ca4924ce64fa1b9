//! Signals that ask the program to end.

use std::io;

/// The exit code after a second signal: 128 + SIGINT, as shells report a process that a signal ended.
pub(super) const SECOND_SIGNAL: i32 = 130;
/// Its number on every architecture of Linux that this is built for: signal(7).
#[cfg(target_os = "linux")]
const SIGXFSZ: i32 = 25;

/// SIGINT and SIGTERM.
#[cfg(unix)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// From now on neither of them ends the process by itself. Needs a runtime of tokio.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        // A limit on the size of files then refuses a write, as a full disk does, and does not end the process.
        #[cfg(target_os = "linux")]
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Control-C.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// From now on neither of them ends the process by itself. Needs a runtime of tokio.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
