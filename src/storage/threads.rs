//! Threads of an open store.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread of this name.
///
/// # Errors
/// The system's, when it has no thread left.
pub fn start_thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    #[cfg(test)]
    refused::take_one()?;
    Builder::new().name(name.to_owned()).spawn(run)
}

/// A system that has few threads left, for tests.
#[cfg(test)]
pub(crate) mod refused {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Of the threads that the calling thread starts from now on, all after the first `count` are refused.
    pub(crate) fn after(count: usize) {
        LEFT.set(count);
    }

    pub(super) fn take_one() -> io::Result<()> {
        let left = LEFT.get().checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        LEFT.set(left);
        Ok(())
    }
}
