//! A few sessions with one database, for all collections that stand there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::postgres::{PostgresError, Session, Trouble};

use super::settings::UrlFrom;

/// Sessions that are open at once.
const MAX_SESSIONS: usize = 8;
/// So long a call waits for a session.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// So long a statement may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(25);
/// A session that rested longer is asked whether it still is one before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// A session that rested longer is closed.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How often a call is tried in all.
const ATTEMPTS: u32 = 3;
/// The first pause between two tries; the next is four times as long.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a call did not come to its end.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was changed.
    Clear(PostgresError),
    /// Whether the write was done is not known.
    Unknown(PostgresError),
    /// Every session was busy for [`WAIT_LIMIT`].
    Busy,
}

/// What may be done when a connection breaks during a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Do it again.
    Read,
    /// Ask the caller: another's write may have come between.
    Write,
}

/// The threads that talk to databases.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// The system's.
    pub fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("pannier-backend").enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("the threads are there until they are dropped").block_on(call)
    }
}

impl Drop for Threads {
    /// Waits for nobody: the last handle may be dropped by a task.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

pub(super) struct Pool {
    url: UrlFrom,
    threads: Arc<Threads>,
    places: Semaphore,
    waiting: AtomicUsize,
    resting: Mutex<Vec<(Session, Instant)>>,
}

/// The sessions with one database at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFigures {
    /// Places at which a call works, each with a session.
    pub in_use: usize,
    /// Sessions that are kept for the next call.
    pub resting: usize,
    /// Calls that wait for a place.
    pub waiting: usize,
}

/// Counts a call as waiting until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub fn new(url: UrlFrom, threads: Arc<Threads>) -> Self {
        let (places, waiting) = (Semaphore::new(MAX_SESSIONS), AtomicUsize::new(0));
        Self { url, threads, places, waiting, resting: Mutex::default() }
    }

    /// Its sessions at this moment.
    pub fn figures(&self) -> PoolFigures {
        PoolFigures {
            in_use: MAX_SESSIONS - self.places.available_permits(),
            resting: self.resting.lock().unwrap_or_else(PoisonError::into_inner).len(),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Runs a call that changes nothing, and leaves no transaction open where the session goes on. Blocks; not for
    /// threads that drive tasks.
    ///
    /// # Errors
    /// [`Failure::Clear`], [`Failure::Busy`].
    pub fn read<T>(&self, call: impl AsyncFn(&Session) -> Result<T, PostgresError>) -> Result<T, Failure> {
        self.threads.block_on(self.run(Kind::Read, call))
    }

    /// Runs a call whose one transaction changes something: it is tried again only where the first try surely did
    /// nothing. Blocks; not for threads that drive tasks.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn write<T>(&self, call: impl AsyncFn(&Session) -> Result<T, PostgresError>) -> Result<T, Failure> {
        self.threads.block_on(self.run(Kind::Write, call))
    }

    async fn run<T>(&self, kind: Kind, call: impl AsyncFn(&Session) -> Result<T, PostgresError>) -> Result<T, Failure> {
        let place = match self.places.try_acquire() {
            Ok(place) => Ok(Ok(place)),
            Err(_) => {
                let _waiting = Waiting::new(&self.waiting);
                tokio::time::timeout(WAIT_LIMIT, self.places.acquire()).await
            }
        };
        let _place = place.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?;
        let mut pause = PAUSE;
        for attempt in 1.. {
            let error = match self.session().await {
                Err(error) => error,
                Ok(session) => match call(&session).await {
                    Ok(done) => {
                        self.put_back(session);
                        return Ok(done);
                    }
                    Err(error) if is_unanswered(&error) => {
                        // The session is of no more use.
                        if kind == Kind::Write {
                            return Err(Failure::Unknown(error));
                        }
                        error
                    }
                    Err(error) => {
                        if !error.ends_session() {
                            self.put_back(session);
                        }
                        error
                    }
                },
            };
            if attempt >= ATTEMPTS || !matches!(error.trouble(), Trouble::Unreachable | Trouble::Conflict) {
                return Err(Failure::Clear(error));
            }
            tracing::warn!(%error, attempt, "a call to Postgres is tried again");
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
        unreachable!("the last attempt returns")
    }

    /// A session that is known to work, or worked a moment ago.
    async fn session(&self) -> Result<Session, PostgresError> {
        loop {
            let rested = self.resting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((session, since)) = rested else { break };
            if since.elapsed() < TRUSTED_FOR {
                return Ok(session);
            }
            if since.elapsed() < KEPT_FOR && session.batch("answer", "select 1").await.is_ok() {
                return Ok(session);
            }
        }
        Session::connect(&self.url.connection()?.with_statement_timeout(STATEMENT_LIMIT)).await
    }

    fn put_back(&self, session: Session) {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).push((session, Instant::now()));
    }
}

/// Whether what a call did is not known. A statement that the server refused has done nothing; one without an answer
/// may have, and so may one that was answered for a server that went away, as poolers do: with class 08, 57P0x or 58.
fn is_unanswered(error: &PostgresError) -> bool {
    let is_of_the_way = |code: &str| ["08", "57P0", "58"].iter().any(|class| code.starts_with(class));
    error.code().is_none_or(is_of_the_way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pooler_says_of_a_server_that_went_away_is_no_refusal() {
        let refused = |code: &str| {
            let (code, message, detail) = (code.to_owned(), "server conn crashed?".to_owned(), String::new());
            let trouble = Trouble::Other;
            PostgresError::Statement { doing: "write documents", code, message, detail, column: None, trouble }
        };
        for code in ["08P01", "08006", "57P01", "57P02", "57P03", "58000", "58030"] {
            assert!(is_unanswered(&refused(code)), "{code}");
        }
        for code in ["25006", "53300", "53100", "57014", "40001", "40P01", "23505", "42P01", "22012"] {
            assert!(!is_unanswered(&refused(code)), "{code}");
        }
        assert!(is_unanswered(&PostgresError::Timeout { doing: "write documents", limit: STATEMENT_LIMIT }));
    }
}
