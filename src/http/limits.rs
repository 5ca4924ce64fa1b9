//! Limits on time and on work at once, and the gate in front of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Span;

use super::bodies;
use super::error::{ApiError, Code};
use super::state::AppState;
use crate::embed::Cancellation;
use crate::types::limits::{MAX_ANSWER_BYTES, MAX_BODIES_BYTES};

/// Limits of one server; the defaults are the documented ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Engine calls that run at once, each on a thread of its own.
    pub engine_calls: usize,
    /// How many of them may write documents: writes wait long for their texts to be embedded, and must not keep every
    /// place from the searches.
    pub writing_calls: usize,
    /// Calls beside them on collections in databases, which may not answer for long.
    pub remote_calls: usize,
    /// How many of those may write documents.
    pub remote_writing_calls: usize,
    /// Calls beside them that do nothing but embed, and so wait for the model.
    pub embedding_calls: usize,
    /// Calls that wait for one of all those to end; one more is answered 429. Fewer than there are connections beyond
    /// the calls that run, or nobody would ever be.
    pub waiting_calls: usize,
    /// Most bytes that the documents of one answer carry: a listing's page ends before, a search is refused.
    pub answer_bytes: usize,
    /// Most bytes of memory that bodies of more than 1 MiB, and what was read of them, take together: one more waits,
    /// and is answered 429 where it waits too long.
    pub bodies_bytes: usize,
    /// Longest time for a request's headers to arrive.
    pub header_timeout: Duration,
    /// Longest time for a JSON body to arrive.
    pub body_timeout: Duration,
    /// Longest pause between two chunks of an import.
    pub import_idle_timeout: Duration,
    /// Longest time to answer a request that does not write. Writes are never cut off.
    pub read_timeout: Duration,
    /// Longest time in which a client takes nothing of its answer.
    pub write_timeout: Duration,
    /// Longest time to finish accepted requests at shutdown.
    pub shutdown_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            engine_calls: 64,
            writing_calls: 48,
            remote_calls: 24,
            remote_writing_calls: 18,
            embedding_calls: 32,
            waiting_calls: 128,
            answer_bytes: MAX_ANSWER_BYTES,
            bodies_bytes: MAX_BODIES_BYTES,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            import_idle_timeout: Duration::from_secs(300),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            shutdown_deadline: Duration::from_secs(30),
        }
    }
}

/// Lets a bounded number of engine calls run and a bounded number wait.
#[derive(Debug)]
pub(crate) struct Gate {
    here: Places,
    remote: Places,
    embedding: Arc<Semaphore>,
    measuring: Arc<Semaphore>,
    checking: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Whose work a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The store's.
    Here,
    /// A database's, which may not answer: it takes no place from the store's calls, and at most half of those to wait
    /// at.
    Remote,
}

/// Places of calls, and how many of them those that write documents may take.
#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    writing: Arc<Semaphore>,
    /// How many calls may wait already before one of these.
    max_waiting: usize,
}

impl Places {
    fn new(all: usize, writing: usize, max_waiting: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), writing: Arc::new(Semaphore::new(writing)), max_waiting }
    }
}

/// Counts one waiting call for as long as it waits, also when its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            here: Places::new(limits.engine_calls, limits.writing_calls, limits.waiting_calls),
            remote: Places::new(limits.remote_calls, limits.remote_writing_calls, limits.waiting_calls / 2),
            embedding: Arc::new(Semaphore::new(limits.embedding_calls)),
            measuring: Arc::new(Semaphore::new(1)),
            checking: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            max_waiting: limits.waiting_calls,
        }
    }

    /// Runs a blocking call. Once started it runs to its end, whether or not the client still waits; but texts that it
    /// has waiting to be embedded are given up when the client goes.
    ///
    /// # Errors
    /// What the call returns; [`Code::Overloaded`] when too many wait; [`Code::Internal`] when it panics.
    pub(crate) async fn run<T, F>(&self, at: At, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let places = self.places(at);
        let place = self.place(&places.all, places.max_waiting).await?;
        run_in(place, call).await
    }

    /// As [`Gate::run`], for a call that writes documents.
    ///
    /// # Errors
    /// As [`Gate::run`].
    pub(crate) async fn run_write<T, F>(&self, at: At, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let Places { all, writing, max_waiting } = self.places(at);
        let places = (self.place(writing, *max_waiting).await?, self.place(all, *max_waiting).await?);
        run_in(places, call).await
    }

    fn places(&self, at: At) -> &Places {
        match at {
            At::Here => &self.here,
            At::Remote => &self.remote,
        }
    }

    /// As [`Gate::run`], for a call that does nothing but embed: beside the others, from which it takes no place while
    /// it waits for the model.
    ///
    /// # Errors
    /// As [`Gate::run`].
    pub(crate) async fn run_embedding<T, F>(&self, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let place = self.place(&self.embedding, self.max_waiting).await?;
        run_in(place, call).await
    }

    /// As [`Gate::run`], for a look at the server itself, which has to be had when all places are taken: one at a time,
    /// beside the others.
    ///
    /// # Errors
    /// What the call returns; [`Code::Internal`] when it panics.
    pub(crate) async fn run_measuring<T, F>(&self, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let place = Arc::clone(&self.measuring).acquire_owned().await.map_err(ApiError::internal)?;
        run_in(place, call).await
    }

    /// As [`Gate::run_measuring`], for a look whether the server is well, which waits for no measuring either.
    ///
    /// # Errors
    /// As [`Gate::run_measuring`].
    pub(crate) async fn run_checking<T, F>(&self, call: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let place = Arc::clone(&self.checking).acquire_owned().await.map_err(ApiError::internal)?;
        run_in(place, call).await
    }

    async fn place(&self, places: &Arc<Semaphore>, max_waiting: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= max_waiting {
            return Err(ApiError::new(Code::Overloaded, "too many requests are waiting; try again shortly"));
        }
        waiting_for_place(Arc::clone(places).acquire_owned()).await.map_err(ApiError::internal)
    }
}

/// Runs a call on a thread that may block. `places` are the call's, which goes on when this future is dropped.
async fn run_in<P, T, F>(places: P, call: F) -> Result<T, ApiError>
where
    P: Send + 'static,
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    let span = Span::current();
    let cancellation = DEADLINE.try_get().map_or_else(|_| Cancellation::new(), Cancellation::with_deadline);
    let body = bodies::of_request();
    // The server drops this future when the client disconnects or its time is over.
    let _gone = cancellation.cancel_on_drop();
    let task = tokio::task::spawn_blocking(move || {
        let _held = (places, body);
        span.in_scope(|| cancellation.scope(call))
    });
    task.await.unwrap_or_else(|error| Err(ApiError::internal(error)))
}

tokio::task_local! {
    /// When a request that does not write is answered 504.
    static DEADLINE: Instant;
    /// What it waits for: a [`Wait`] as a number.
    static WAITS_FOR: Arc<AtomicU8>;
}

/// What a request waits for, and so what it is answered where its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Its answer.
    Answer,
    /// The rest of its body.
    Body,
    /// A place of the gate.
    Place,
}

impl Wait {
    /// Says so of the request at hand for as long as `act` runs.
    async fn during<T>(self, act: impl Future<Output = T>) -> T {
        let tell = |wait: Self| _ = WAITS_FOR.try_with(|waits_for| waits_for.store(wait as u8, Ordering::Relaxed));
        tell(self);
        let result = act.await;
        tell(Self::Answer);
        result
    }

    /// What the client is told after `limit`.
    fn too_long(waits_for: &AtomicU8, limit: Duration) -> ApiError {
        let seconds = limit.as_secs();
        match waits_for.load(Ordering::Relaxed) {
            wait if wait == Self::Body as u8 => slow_body(limit),
            wait if wait == Self::Place as u8 => {
                ApiError::new(Code::Overloaded, format!("no place was free for {seconds} s; try again shortly"))
            }
            _ => {
                let detail = format!("the answer took longer than {seconds} s; ask for less or try again");
                ApiError::new(Code::Timeout, detail)
            }
        }
    }
}

/// Reads a request's body. Where that takes the time for the whole request, the client is told so.
pub(crate) async fn reading_body<T>(read: impl Future<Output = T>) -> T {
    Wait::Body.during(read).await
}

/// Refuses a request on a connection beyond the limit.
pub(crate) async fn no_connection() -> ApiError {
    ApiError::new(Code::Overloaded, "too many connections are open; try again shortly, on fewer of them")
}

/// Waits for a place. Where that takes the time for the whole request, the client is told so.
pub(crate) async fn waiting_for_place<T>(wait: impl Future<Output = T>) -> T {
    Wait::Place.during(wait).await
}

/// What a body that did not come within `limit` is answered with.
pub(crate) fn slow_body(limit: Duration) -> ApiError {
    let detail = format!("the body took longer than {} s; send it faster, or less at once", limit.as_secs());
    ApiError::new(Code::BodyTimeout, detail)
}

/// Answers 504 when a request that does not write takes longer than [`Limits::read_timeout`], 408 when its body does,
/// and 429 when it found no place.
pub(crate) async fn read_timeout(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let limit = state.config().limits.read_timeout;
    let waits_for = Arc::new(AtomicU8::new(Wait::Answer as u8));
    let answer = WAITS_FOR.scope(waits_for.clone(), DEADLINE.scope(Instant::now() + limit, next.run(request)));
    match tokio::time::timeout(limit, answer).await {
        Ok(response) => response,
        Err(_) => Wait::too_long(&waits_for, limit).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn gate(engine_calls: usize, waiting_calls: usize) -> Arc<Gate> {
        Arc::new(Gate::new(&Limits { engine_calls, waiting_calls, ..Limits::default() }))
    }

    #[tokio::test]
    async fn one_runs_one_waits_and_the_next_is_refused() {
        let gate = gate(1, 1);
        let (started_tx, started_rx) = tokio::sync::oneshot::channel();
        let (release_tx, release_rx) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move {
                gate.run(At::Here, move || {
                    started_tx.send(()).unwrap();
                    release_rx.recv().unwrap();
                    Ok(1)
                })
                .await
            }
        });
        started_rx.await.unwrap();
        let mut second = Box::pin(gate.run(At::Here, || Ok(2)));
        assert!(tokio::time::timeout(Duration::ZERO, &mut second).await.is_err());
        assert_eq!(gate.run(At::Here, || Ok(3)).await.unwrap_err().code, Code::Overloaded);
        release_tx.send(()).unwrap();
        assert_eq!((first.await.unwrap().unwrap(), second.await.unwrap()), (1, 2));
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn writes_leave_places_to_others() {
        let gate = Arc::new(Gate::new(&Limits { engine_calls: 2, writing_calls: 1, ..Limits::default() }));
        let (started_tx, started_rx) = tokio::sync::oneshot::channel();
        let (release_tx, release_rx) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let gate = Arc::clone(&gate);
            let write = move || {
                started_tx.send(()).unwrap();
                release_rx.recv().unwrap();
                Ok(1)
            };
            async move { gate.run_write(At::Here, write).await }
        });
        started_rx.await.unwrap();
        let mut second = Box::pin(gate.run_write(At::Here, || Ok(2)));
        assert!(tokio::time::timeout(Duration::ZERO, &mut second).await.is_err());
        assert_eq!(gate.run(At::Here, || Ok(3)).await.unwrap(), 3);
        release_tx.send(()).unwrap();
        assert_eq!((first.await.unwrap().unwrap(), second.await.unwrap()), (1, 2));
    }

    #[tokio::test]
    async fn calls_on_databases_take_no_place_of_the_others_nor_all_to_wait_at() {
        let limits = Limits { engine_calls: 1, remote_calls: 1, waiting_calls: 2, ..Limits::default() };
        let gate = Gate::new(&limits);
        let (release_tx, release_rx) = mpsc::channel::<()>();
        let mut hangs = Box::pin(gate.run(At::Remote, move || {
            release_rx.recv().unwrap();
            Ok(())
        }));
        assert!(tokio::time::timeout(Duration::ZERO, &mut hangs).await.is_err());
        let mut waits = Box::pin(gate.run_write(At::Remote, || Ok(())));
        assert!(tokio::time::timeout(Duration::ZERO, &mut waits).await.is_err());
        assert_eq!(gate.run(At::Remote, || Ok(())).await.unwrap_err().code, Code::Overloaded);
        let (started_tx, started_rx) = tokio::sync::oneshot::channel();
        let (end_tx, end_rx) = mpsc::channel::<()>();
        let mut here = Box::pin(gate.run(At::Here, move || {
            started_tx.send(()).unwrap();
            end_rx.recv().unwrap();
            Ok(1)
        }));
        assert!(tokio::time::timeout(Duration::ZERO, &mut here).await.is_err());
        started_rx.await.unwrap();
        let mut next = Box::pin(gate.run(At::Here, || Ok(2)));
        assert!(tokio::time::timeout(Duration::ZERO, &mut next).await.is_err(), "it waits, and is not refused");
        end_tx.send(()).unwrap();
        assert_eq!((here.await.unwrap(), next.await.unwrap()), (1, 2));
        release_tx.send(()).unwrap();
        hangs.await.unwrap();
        waits.await.unwrap();
    }

    #[tokio::test]
    async fn embedding_and_measuring_take_no_place_of_the_others() {
        let gate = Gate::new(&Limits { engine_calls: 1, embedding_calls: 1, waiting_calls: 0, ..Limits::default() });
        let (started_tx, started_rx) = tokio::sync::oneshot::channel();
        let (release_tx, release_rx) = mpsc::channel::<()>();
        let mut embedding = Box::pin(gate.run_embedding(move || {
            started_tx.send(()).unwrap();
            release_rx.recv().unwrap();
            Ok(())
        }));
        assert!(tokio::time::timeout(Duration::ZERO, &mut embedding).await.is_err());
        started_rx.await.unwrap();
        assert_eq!(gate.run_embedding(|| Ok(())).await.unwrap_err().code, Code::Overloaded);
        assert_eq!(gate.run(At::Here, || Ok(1)).await.unwrap(), 1);
        assert_eq!(gate.run_measuring(|| Ok(2)).await.unwrap(), 2);
        release_tx.send(()).unwrap();
        embedding.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_knows_when_its_client_gives_up() {
        let deadline = Instant::now() + Duration::from_secs(7);
        let call = || Ok(Cancellation::current().and_then(|current| current.deadline()));
        let gate = gate(1, 0);
        assert_eq!(gate.run(At::Here, call).await.unwrap(), None);
        assert_eq!(DEADLINE.scope(deadline, gate.run_embedding(call)).await.unwrap(), Some(deadline));
    }

    #[test]
    fn connections_are_enough_for_somebody_to_be_refused() {
        let Limits { engine_calls, remote_calls, embedding_calls, waiting_calls, .. } = Limits::default();
        assert!(engine_calls + remote_calls + embedding_calls + waiting_calls < crate::types::limits::MAX_CONNECTIONS);
    }

    #[tokio::test]
    async fn a_client_that_goes_cancels_what_waits() {
        let gate = gate(1, 0);
        let (waits_tx, waits_rx) = tokio::sync::oneshot::channel();
        let (go_tx, go_rx) = mpsc::channel::<()>();
        let (seen_tx, seen_rx) = mpsc::channel();
        let mut call = Box::pin(gate.run(At::Here, move || {
            let before = Cancellation::current().is_some_and(|current| current.is_cancelled());
            waits_tx.send(()).unwrap();
            go_rx.recv().unwrap();
            seen_tx.send((before, Cancellation::current().is_some_and(|current| current.is_cancelled()))).unwrap();
            Ok(())
        }));
        assert!(tokio::time::timeout(Duration::ZERO, &mut call).await.is_err());
        waits_rx.await.unwrap();
        drop(call);
        go_tx.send(()).unwrap();
        assert_eq!(seen_rx.recv().unwrap(), (false, true));
    }

    #[tokio::test]
    async fn a_panicking_call_is_an_internal_error_and_gives_its_place_back() {
        let gate = gate(1, 0);
        let error = gate.run::<(), _>(At::Here, || panic!("boom")).await.unwrap_err();
        assert_eq!(error.code, Code::Internal);
        assert!(!error.detail.contains("boom"));
        assert_eq!(gate.run(At::Here, || Ok(1)).await.unwrap(), 1);
    }
}
