//! The batcher: every embedding of the process passes through it, mixed with others' up to a budget of tokens.
//!
//! Callers tokenise in their own threads and wait here. As many passes run at once as there are compute threads, each
//! on one thread: a caller's own, where a place is free and nobody waits before it, else a worker's. Queries go first,
//! then what is as small as one, then bulk work; and of equal urgency what has a deadline before what has none.
//! Whatever others go before keeps a share of the tokens, so that it never stands still. The two former are
//! interactive, and have one place of their own beside those of the compute threads, so that none of them waits for the
//! end of a bulk pass. Only a model that runs one pass at a time has them wait for the pass that runs, and then go
//! first.
//!
//! Locks: the queue's, then nothing; a request's own is taken without the queue's.

mod cancel;
mod metrics;
#[cfg(test)]
mod order_tests;
mod queue;
mod request;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{EmbedError, InputKind};
use crate::types::panic_message;
pub use cancel::{CancelOnDrop, Cancellation};
pub use queue::MAX_PASS_TOKENS;
use queue::{Entry, Pass, Queue};
use request::Request;

/// Most tokens of an interactive request; a longer one is bulk work. A search text of a model that reads 256 tokens is
/// always interactive.
const INTERACTIVE_TOKENS: usize = 256;

/// Runs the passes of one model.
pub(super) trait Encode: Send + Sync {
    /// Encodes sequences in one pass, with up to `helpers` threads beside one. Returns one pooled vector a sequence, in
    /// order; it depends neither on the sequences beside it nor on the threads, but for the rounding of what candle
    /// runs.
    ///
    /// # Errors
    /// [`EmbedError`] for the whole pass.
    fn encode(&self, sequences: &[&[u32]], helpers: usize) -> Result<Vec<Vec<f64>>, EmbedError>;

    /// Whether a second pass would wait for the first one's end.
    fn runs_alone(&self) -> bool {
        false
    }
}

/// What is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Somebody searches.
    Query,
    /// As little as a query.
    Small,
    /// Documents by the hundred.
    Bulk,
}

impl Urgency {
    /// The urgency of a request: `tokens` in `texts` sequences.
    pub(super) fn of(input: InputKind, texts: usize, tokens: usize) -> Self {
        match input {
            InputKind::Query if texts == 1 => Urgency::Query,
            _ if tokens <= INTERACTIVE_TOKENS => Urgency::Small,
            _ => Urgency::Bulk,
        }
    }

    fn lane(self) -> Lane {
        match self {
            Urgency::Query | Urgency::Small => Lane::Interactive,
            Urgency::Bulk => Lane::Bulk,
        }
    }
}

/// What has its own places, length of passes and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Somebody waits for one answer.
    Interactive,
    /// Much at once.
    Bulk,
}

/// The queue and its worker threads. Dropping it ends the threads; nobody can be waiting then.
pub(super) struct Batcher {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Notified when a pass may start, and at the end.
    work: Condvar,
}

impl Batcher {
    /// Starts the workers for `threads` passes at once.
    ///
    /// # Errors
    /// [`EmbedError::Threads`].
    pub(super) fn start(threads: usize) -> Result<Self, EmbedError> {
        let shared = Arc::new(Shared { queue: Mutex::new(Queue::new(threads)), work: Condvar::new() });
        let mut batcher = Self { shared, workers: Vec::new() };
        // One more for the interactive requests' own place.
        for index in 0..=threads {
            let shared = batcher.shared.clone();
            let worker = std::thread::Builder::new().name(format!("batch-{index}")).spawn(move || shared.work());
            let worker = worker.map_err(|e| EmbedError::Threads { threads, reason: e.to_string() })?;
            batcher.workers.push(worker);
        }
        Ok(batcher)
    }

    /// Encodes sequences by `encoder` and waits for them. Returns one pooled vector a sequence, in order.
    ///
    /// # Errors
    /// [`EmbedError::Overloaded`] when too much waits already, or more than is embedded before the deadline of the
    /// caller's [`Cancellation`]; [`EmbedError::Cancelled`] when that says so first; and what the encoder says.
    pub(super) fn encode(
        &self,
        encoder: &Arc<dyn Encode>,
        sequences: Vec<Vec<u32>>,
        urgency: Urgency,
    ) -> Result<Vec<Vec<f64>>, EmbedError> {
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let request = Arc::new(Request::new(encoder.clone(), sequences.len()));
        let cancellation = Cancellation::current();
        let _watched = cancellation.as_ref().map(|cancellation| cancellation.watch(&request));
        let queued_at = Instant::now();
        let entry = |(index, ids)| Entry { request: request.clone(), ids, index, queued_at };
        let entries: Vec<Entry> = sequences.into_iter().enumerate().map(entry).collect();
        let patience = cancellation.as_ref().and_then(Cancellation::deadline).map(|at| at.duration_since(queued_at));
        if let Some(pass) = self.shared.submit(entries, urgency, patience)? {
            self.shared.run(pass);
        }
        let result = request.wait();
        if result.is_err() {
            self.shared.queue().forget(&request);
        }
        result
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.shared.queue().close();
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // What a worker runs is guarded, so it has not panicked.
            _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Batcher {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Batcher").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues entries, for as long as `patience`. Returns a pass for the caller to run where it may run one at once.
    fn submit(
        &self,
        entries: Vec<Entry>,
        urgency: Urgency,
        patience: Option<Duration>,
    ) -> Result<Option<Pass>, EmbedError> {
        let mut queue = self.queue();
        let pass = queue.submit(entries, urgency, patience)?;
        let more = queue.may_start();
        drop(queue);
        if more {
            self.work.notify_one();
        }
        Ok(pass)
    }

    /// A worker's life.
    fn work(&self) {
        loop {
            let mut queue = self.queue();
            let pass = loop {
                if queue.is_closed() {
                    return;
                }
                if let Some(pass) = queue.next() {
                    break pass;
                }
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            let more = queue.may_start();
            drop(queue);
            if more {
                self.work.notify_one();
            }
            self.run(pass);
        }
    }

    /// Runs a pass, makes its place free, and hands out what came of it.
    fn run(&self, pass: Pass) {
        let started = Instant::now();
        metrics::started(&pass, started);
        let result = encode(&pass.entries, pass.helpers);
        self.finish(&pass, started.elapsed());
        match result {
            Ok(vectors) => deliver(pass.entries, vectors),
            Err(error) => fail(pass.entries, error),
        }
    }

    fn finish(&self, pass: &Pass, took: Duration) {
        let mut queue = self.queue();
        queue.finish(pass, took);
        let more = queue.may_start();
        drop(queue);
        if more {
            self.work.notify_one();
        }
    }
}

/// Encodes the entries of one pass; a panic becomes an error.
fn encode(entries: &[Entry], helpers: usize) -> Result<Vec<Vec<f64>>, EmbedError> {
    let Some(first) = entries.first() else { return Ok(Vec::new()) };
    let sequences: Vec<&[u32]> = entries.iter().map(|entry| entry.ids.as_slice()).collect();
    let encoder = &first.request.encoder;
    let vectors = catch_unwind(AssertUnwindSafe(|| encoder.encode(&sequences, helpers)))
        .unwrap_or_else(|panic| Err(EmbedError::Compute { reason: panic_message(panic.as_ref()) }))?;
    match vectors.len() == entries.len() {
        true => Ok(vectors),
        false => {
            let reason = format!("{} vectors came of {} sequences", vectors.len(), entries.len());
            Err(EmbedError::Compute { reason })
        }
    }
}

fn deliver(entries: Vec<Entry>, vectors: Vec<Vec<f64>>) {
    for (entry, vector) in entries.into_iter().zip(vectors) {
        entry.request.put(entry.index, vector);
    }
}

/// A pass failed: each of its requests is tried on its own, so that only the one at fault fails.
fn fail(mut entries: Vec<Entry>, error: EmbedError) {
    let mut error = Some(error);
    while let Some(first) = entries.first() {
        let request = first.request.clone();
        let (own, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| Arc::ptr_eq(&entry.request, &request));
        let is_alone = others.is_empty();
        entries = others;
        // Where the pass held one request only, trying again would say the same.
        match error.take().filter(|_| is_alone).map_or_else(|| encode(&own, 0), Err) {
            Ok(vectors) => deliver(own, vectors),
            Err(error) => request.fail(error),
        }
    }
}
