//! Fault points: every change to a file passes one, so that tests can make the Nth of them fail.

use std::io;
use std::path::Path;

/// A kind of change to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Write,
    Sync,
    Rename,
    Remove,
    Truncate,
}

/// Fails where a test asked for it; outside tests always succeeds.
///
/// A write that fails here first leaves half of its bytes, as a full disk or a lost device would; the caller does that.
/// Everything else fails without effect.
#[inline]
pub(super) fn check(operation: Operation, path: &Path) -> io::Result<()> {
    #[cfg(test)]
    return injection::check(operation, path);
    #[cfg(not(test))]
    {
        let _ = (operation, path);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) use injection::{Faults, Then};

#[cfg(test)]
mod injection {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use super::Operation;

    /// What follows the operation that fails.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Then {
        /// Later operations succeed: a passing error of the device.
        Recover,
        /// Every later operation fails too: the process is dead, only what it did before remains.
        Crash,
    }

    #[derive(Debug)]
    struct State {
        below: PathBuf,
        only: Option<Operation>,
        fail_at: usize,
        then: Then,
        seen: Vec<Operation>,
    }

    static ARMED: Mutex<Vec<Arc<Mutex<State>>>> = Mutex::new(Vec::new());

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Faults armed for one directory; disarmed when dropped.
    #[derive(Debug)]
    pub(crate) struct Faults(Arc<Mutex<State>>);

    impl Faults {
        /// Fails operation number `fail_at`, counted from 0, among those on paths below `below`.
        pub(crate) fn arm(below: &Path, fail_at: usize, then: Then) -> Self {
            Self::with(below, None, fail_at, then)
        }

        /// As [`Faults::arm`], counting only operations of one kind.
        pub(crate) fn arm_only(below: &Path, only: Operation, fail_at: usize, then: Then) -> Self {
            Self::with(below, Some(only), fail_at, then)
        }

        /// Fails nothing and lists what happens.
        pub(crate) fn watch(below: &Path) -> Self {
            Self::with(below, None, usize::MAX, Then::Recover)
        }

        fn with(below: &Path, only: Option<Operation>, fail_at: usize, then: Then) -> Self {
            let state = State { below: below.to_owned(), only, fail_at, then, seen: Vec::new() };
            let state = Arc::new(Mutex::new(state));
            lock(&ARMED).push(state.clone());
            Self(state)
        }

        /// Whether the operation to fail was reached.
        pub(crate) fn fired(&self) -> bool {
            let state = lock(&self.0);
            state.seen.len() > state.fail_at
        }

        /// The operations that were counted, in order.
        pub(crate) fn seen(&self) -> Vec<Operation> {
            lock(&self.0).seen.clone()
        }
    }

    impl Drop for Faults {
        fn drop(&mut self) {
            lock(&ARMED).retain(|state| !Arc::ptr_eq(state, &self.0));
        }
    }

    pub(super) fn check(operation: Operation, path: &Path) -> io::Result<()> {
        let armed = lock(&ARMED);
        for state in armed.iter() {
            let mut state = lock(state);
            if !path.starts_with(&state.below) || state.only.is_some_and(|only| only != operation) {
                continue;
            }
            let number = state.seen.len();
            state.seen.push(operation);
            if number == state.fail_at || (number > state.fail_at && state.then == Then::Crash) {
                return Err(io::Error::other("fault injected by a test"));
            }
        }
        Ok(())
    }
}
