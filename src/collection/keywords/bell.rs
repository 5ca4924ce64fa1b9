//! How the thread of the keyword indexes learns that there is work.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::state::CollectionState;

/// How long after the first change of a group the thread waits for more, unless somebody waits for it.
const GATHER: Duration = Duration::from_millis(200);
/// A store that closes spends about this long on what waits; the rest is read at the next start.
const FAREWELL: Duration = Duration::from_secs(2);

/// Collections with work for the keyword thread, each once.
#[derive(Default)]
pub struct Bell {
    calls: Mutex<Calls>,
    rung: Condvar,
}

#[derive(Default)]
struct Calls {
    queue: VecDeque<Arc<CollectionState>>,
    urgent: bool,
    /// Since when the store closes.
    stopping: Option<Instant>,
}

/// What woke the thread.
pub(super) enum Woken {
    /// These have work.
    Called(VecDeque<Arc<CollectionState>>),
    /// Nobody called for as long as it was to wait.
    Quiet,
    /// The store closes.
    Stopping,
}

impl Bell {
    /// There is work, if it has some or was dropped.
    pub fn ring(&self, state: &Arc<CollectionState>) {
        if (state.is_dropped() || state.keywords.has_work()) && state.keywords.set_rung() {
            self.calls().queue.push_back(state.clone());
            self.rung.notify_all();
        }
    }

    /// Somebody waits for the index of this collection.
    pub(super) fn ring_urgently(&self, state: &Arc<CollectionState>) {
        let mut calls = self.calls();
        if state.keywords.set_rung() {
            calls.queue.push_back(state.clone());
        }
        calls.urgent = true;
        self.rung.notify_all();
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.calls().stopping = Some(Instant::now());
        self.rung.notify_all();
    }

    /// Whether the thread is to end what it does.
    pub(super) fn is_stopping(&self) -> bool {
        self.calls().stopping.is_some()
    }

    /// Whether it is to end even what would be better done.
    pub(super) fn is_over(&self) -> bool {
        self.calls().stopping.is_some_and(|since| since.elapsed() > FAREWELL)
    }

    /// Waits for work, at most `patience`.
    pub(super) fn wait(&self, patience: Duration) -> Woken {
        let idle = |calls: &mut Calls| calls.queue.is_empty() && calls.stopping.is_none();
        let (calls, _) =
            self.rung.wait_timeout_while(self.calls(), patience, idle).unwrap_or_else(PoisonError::into_inner);
        if calls.stopping.is_some() {
            return Woken::Stopping;
        }
        if calls.queue.is_empty() {
            return Woken::Quiet;
        }
        let gathering = |calls: &mut Calls| !calls.urgent && calls.stopping.is_none();
        let (mut calls, _) =
            self.rung.wait_timeout_while(calls, GATHER, gathering).unwrap_or_else(PoisonError::into_inner);
        if calls.stopping.is_some() {
            return Woken::Stopping;
        }
        calls.urgent = false;
        let queue = std::mem::take(&mut calls.queue);
        // What comes from now on calls again.
        queue.iter().for_each(|state| state.keywords.take_rung());
        Woken::Called(queue)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
