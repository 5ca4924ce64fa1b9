//! Cancellation: how a caller's going away reaches the texts that it has waiting.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::super::EmbedError;
use super::request::Request;

thread_local! {
    static CURRENT: RefCell<Option<Cancellation>> = const { RefCell::new(None) };
}

/// Says whether somebody still waits for an answer. Clones are one.
///
/// [`Cancellation::scope`] puts it around a call; texts that the call has waiting to be embedded are dropped once it is
/// cancelled, those that have not been tokenised are left so, and the call fails with [`EmbedError::Cancelled`]. What
/// has been embedded already is not undone, and no text is interrupted while it is tokenised or computed.
#[derive(Clone, Default)]
pub struct Cancellation {
    deadline: Option<Instant>,
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cancelled: bool,
    /// What waits under it. A call waits for one request at a time, threads that it started may wait for others.
    waiting: Vec<Weak<Request>>,
}

/// Cancels when it is dropped.
#[derive(Debug)]
pub struct CancelOnDrop(Cancellation);

impl Cancellation {
    /// One that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that nobody has cancelled, of a caller that will have gone at `deadline`: texts that would not be embedded
    /// by then are refused at once, with [`EmbedError::Overloaded`]. It does not cancel by itself.
    pub fn with_deadline(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    /// When the caller will have gone.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ends the waiting of every call in its scope, now and later.
    pub fn cancel(&self) {
        let waiting = {
            let mut state = self.state();
            state.cancelled = true;
            std::mem::take(&mut state.waiting)
        };
        for request in waiting.iter().filter_map(Weak::upgrade) {
            request.fail(EmbedError::Cancelled);
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// A guard that cancels when it is dropped.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    /// Runs `act` on this thread with this cancellation around it, in place of one from further out.
    pub fn scope<T>(&self, act: impl FnOnce() -> T) -> T {
        /// Puts the outer one back, also when `act` panics.
        struct Restore(Option<Cancellation>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        act()
    }

    /// The cancellation around the current call, if there is one.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Asked by long calls now and then, such as between texts.
    ///
    /// # Errors
    /// [`EmbedError::Cancelled`] where the one around the current call was cancelled.
    pub fn check_current() -> Result<(), EmbedError> {
        match Self::current().is_some_and(|current| current.is_cancelled()) {
            true => Err(EmbedError::Cancelled),
            false => Ok(()),
        }
    }

    /// Fails `request` once cancelled, until what is returned is dropped.
    pub(super) fn watch(&self, request: &Arc<Request>) -> Watched<'_> {
        let cancelled = {
            let mut state = self.state();
            state.waiting.push(Arc::downgrade(request));
            state.cancelled
        };
        if cancelled {
            request.fail(EmbedError::Cancelled);
        }
        Watched { cancellation: self, request: Arc::downgrade(request) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Cancellation").field("cancelled", &self.is_cancelled()).finish()
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A request under a cancellation, for as long as it waits.
pub(super) struct Watched<'a> {
    cancellation: &'a Cancellation,
    request: Weak<Request>,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.cancellation.state().waiting.retain(|waiting| !Weak::ptr_eq(waiting, &self.request));
    }
}
