//! One caller's sequences: where their vectors gather, and where the caller waits for them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::super::EmbedError;
use super::Encode;

/// A request in the queue. The caller, the workers and a cancellation share it.
pub(super) struct Request {
    /// The model that encodes it.
    pub encoder: Arc<dyn Encode>,
    outcome: Mutex<Outcome>,
    changed: Condvar,
}

struct Outcome {
    vectors: Vec<Vec<f64>>,
    /// Vectors that have not come yet.
    missing: usize,
    /// Why none will come any more.
    ended: Option<EmbedError>,
}

impl Request {
    /// A request of `count` sequences.
    pub(super) fn new(encoder: Arc<dyn Encode>, count: usize) -> Self {
        let outcome = Outcome { vectors: vec![Vec::new(); count], missing: count, ended: None };
        Self { encoder, outcome: Mutex::new(outcome), changed: Condvar::new() }
    }

    /// Waits until every vector is there, or none will come.
    ///
    /// # Errors
    /// What [`Request::fail`] said.
    pub(super) fn wait(&self) -> Result<Vec<Vec<f64>>, EmbedError> {
        let mut outcome = self.outcome();
        loop {
            if let Some(error) = outcome.ended.take() {
                // Entries that are still queued must not be computed.
                outcome.ended = Some(EmbedError::Cancelled);
                return Err(error);
            }
            if outcome.missing == 0 {
                return Ok(std::mem::take(&mut outcome.vectors));
            }
            outcome = self.changed.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The vector of sequence `index`.
    pub(super) fn put(&self, index: usize, vector: Vec<f64>) {
        let mut outcome = self.outcome();
        outcome.vectors[index] = vector;
        outcome.missing -= 1;
        if outcome.missing == 0 {
            drop(outcome);
            self.changed.notify_one();
        }
    }

    /// Ends the request; the first error stands.
    pub(super) fn fail(&self, error: EmbedError) {
        let mut outcome = self.outcome();
        outcome.ended.get_or_insert(error);
        drop(outcome);
        self.changed.notify_one();
    }

    /// Whether its vectors are still wanted.
    pub(super) fn is_wanted(&self) -> bool {
        self.outcome().ended.is_none()
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
