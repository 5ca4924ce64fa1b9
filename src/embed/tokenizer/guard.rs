//! Keeps what the tokenizers crate may do on hostile files here: panics, and patterns that match for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::storage::cpu_time;
use crate::types::guarded;

/// Between two looks at a thread that had too little of a core so far.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// Runs parts of a tokenizer.
pub(super) struct Guard {
    /// How long each may take of a core. `None` where no patterns are involved: all else takes time in proportion to
    /// the text.
    patience: Option<Duration>,
    /// Threads that took longer and run on: one cannot be stopped, so no other is started beside it.
    overrun: Arc<AtomicUsize>,
}

impl Guard {
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self { patience, overrun: Arc::default() }
    }

    /// Whether there is no time limit; [`guarded`], on the caller's thread, is then enough.
    pub(super) fn is_patient(&self) -> bool {
        self.patience.is_none()
    }

    /// Runs `act` in a thread of its own where there is a limit of time. One that exceeds it is left behind. What
    /// counts is a core's time, so that a busy machine refuses nothing; where the system does not tell it, the clock's.
    ///
    /// # Errors
    /// As [`guarded`], and that it takes too long.
    pub(super) fn run_within<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let Some(patience) = self.patience else { return guarded(act) };
        if self.overrun.load(Ordering::SeqCst) > 0 {
            return Err("its patterns have not come to an end with an earlier text yet".to_owned());
        }
        let (sender, result) = mpsc::channel();
        // Whoever sets it second, the thread or who waits for it, knows that the other was there.
        let met = Arc::new(AtomicBool::new(false));
        let (overrun, ended) = (self.overrun.clone(), met.clone());
        let run = move || {
            // Nobody listens any more where it took too long.
            drop(sender.send(guarded(act)));
            if ended.swap(true, Ordering::SeqCst) {
                overrun.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let thread = thread::Builder::new().name("tokenizer".to_owned()).spawn(run);
        let thread = thread.map_err(|e| format!("no thread could be started for it: {e}"))?;
        let begun = Instant::now();
        let mut left = patience;
        while !left.is_zero() {
            match result.recv_timeout(left.max(SHORTEST_WAIT)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {
                    left = patience.saturating_sub(cpu_time(&thread).unwrap_or_else(|| begun.elapsed()));
                }
                Err(RecvTimeoutError::Disconnected) => return Err("its thread ended without a result".to_owned()),
            }
        }
        // A thread that has just ended tells no time any more.
        if let Ok(result) = result.try_recv() {
            return result;
        }
        self.overrun.fetch_add(1, Ordering::SeqCst);
        if met.swap(true, Ordering::SeqCst) {
            self.overrun.fetch_sub(1, Ordering::SeqCst);
        }
        Err(format!("its patterns took longer than {} ms", patience.as_millis()))
    }
}
