//! A few sessions with one database, for all collections that stand there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::postgres::{PostgresError, Session, Trouble};

use super::settings::UrlFrom;
use super::transaction;

/// Sessions that are open at once.
const MAX_SESSIONS: usize = 8;
/// Longest wait of a call for a session.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time that a statement may take; the server ends it a little before.
const STATEMENT_LIMIT: Duration = Duration::from_secs(25);
/// A session that rested longer is asked whether it still is one before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Longest time that the answer to that may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
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

/// Why a try of a call did not come to its end.
struct Stopped {
    error: PostgresError,
    /// Whether COMMIT was sent and not answered.
    may_be_done: bool,
}

impl Stopped {
    /// Before a COMMIT, without which a transaction changes nothing.
    fn clear(error: PostgresError) -> Self {
        Self { error, may_be_done: false }
    }
}

/// What may be done once a COMMIT was not answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Do it again: it finds what it did.
    Repeat,
    /// Ask the caller: another's write may have come between.
    Ask,
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
    resting: Mutex<Resting<Session>>,
}

/// Sessions that wait for the next call: the one that came last goes first.
struct Resting<S>(Vec<(S, Instant)>);

impl<S> Resting<S> {
    /// Adds one, and gives back those that rested too long.
    fn put(&mut self, session: S, now: Instant) -> Vec<(S, Instant)> {
        let kept_from = self.0.partition_point(|(_, since)| now.duration_since(*since) >= KEPT_FOR);
        self.0.push((session, now));
        self.0.drain(..kept_from).collect()
    }
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
        Self { url, threads, places, waiting, resting: Mutex::new(Resting(Vec::new())) }
    }

    /// Its sessions at this moment.
    pub fn figures(&self) -> PoolFigures {
        PoolFigures {
            in_use: MAX_SESSIONS - self.places.available_permits(),
            resting: self.resting().0.len(),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Runs a call that changes nothing, and leaves no transaction open where the session goes on. Blocks; not for
    /// threads that drive tasks.
    ///
    /// # Errors
    /// [`Failure::Clear`], [`Failure::Busy`].
    pub fn read<T>(&self, call: impl AsyncFn(&Session) -> Result<T, PostgresError>) -> Result<T, Failure> {
        let call = async |session: &Session| call(session).await.map_err(Stopped::clear);
        self.threads.block_on(self.run(Then::Repeat, call))
    }

    /// Runs a call in a transaction, which what it refuses (`Ok(Err(_))`) rolls back. It is tried again only where the
    /// first try surely did nothing. Blocks; not for threads that drive tasks.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn write<T, E>(
        &self,
        call: impl AsyncFn(&Session) -> Result<Result<T, E>, PostgresError>,
    ) -> Result<Result<T, E>, Failure> {
        let call = async |session: &Session| transact(session, &call).await;
        self.threads.block_on(self.run(Then::Ask, call))
    }

    /// As [`Pool::write`], of a call that may be done twice.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn write_again<T, E>(
        &self,
        call: impl AsyncFn(&Session) -> Result<Result<T, E>, PostgresError>,
    ) -> Result<Result<T, E>, Failure> {
        let call = async |session: &Session| transact(session, &call).await;
        self.threads.block_on(self.run(Then::Repeat, call))
    }

    async fn run<T>(&self, then: Then, call: impl AsyncFn(&Session) -> Result<T, Stopped>) -> Result<T, Failure> {
        let place = match self.places.try_acquire() {
            Ok(place) => Ok(Ok(place)),
            Err(_) => {
                let _waiting = Waiting::new(&self.waiting);
                tokio::time::timeout(WAIT_LIMIT, self.places.acquire()).await
            }
        };
        let _place = place.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?;
        let (mut pause, mut may_be_done) = (PAUSE, false);
        for attempt in 1.. {
            let error = match self.session().await {
                Err(error) => error,
                Ok(session) => match call(&session).await {
                    Ok(done) => {
                        self.put_back(session);
                        return Ok(done);
                    }
                    Err(stopped) => {
                        // Else the session is of no more use.
                        if !stopped.error.ends_session() && !is_unanswered(&stopped.error) {
                            self.put_back(session);
                        }
                        may_be_done |= stopped.may_be_done;
                        stopped.error
                    }
                },
            };
            let passes_by = matches!(error.trouble(), Trouble::Unreachable | Trouble::Conflict);
            if attempt >= ATTEMPTS || !passes_by || (may_be_done && then == Then::Ask) {
                return Err(if may_be_done { Failure::Unknown(error) } else { Failure::Clear(error) });
            }
            tracing::warn!(%error, attempt, "a call to Postgres is tried again");
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
        unreachable!("the last attempt returns")
    }

    /// A session that is known to work, or worked a moment ago.
    async fn session(&self) -> Result<Session, PostgresError> {
        while let Some((session, since)) = self.newest() {
            if since.elapsed() < TRUSTED_FOR {
                return Ok(session);
            }
            if since.elapsed() >= KEPT_FOR {
                continue;
            }
            if session.long_batch("answer", "select 1", ANSWER_LIMIT).await.is_ok() {
                return Ok(session);
            }
            // Those below it rested longer: whatever ended this one has ended them.
            let gone = std::mem::take(&mut self.resting().0);
            drop(gone);
        }
        Session::connect(&self.url.connection()?.with_statement_timeout(STATEMENT_LIMIT)).await
    }

    fn put_back(&self, session: Session) {
        let too_old = self.resting().put(session, Instant::now());
        drop(too_old);
    }

    /// The session that rested least.
    fn newest(&self) -> Option<(Session, Instant)> {
        self.resting().0.pop()
    }

    fn resting(&self) -> MutexGuard<'_, Resting<Session>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a call between BEGIN and COMMIT.
async fn transact<T, E>(
    session: &Session,
    call: &impl AsyncFn(&Session) -> Result<Result<T, E>, PostgresError>,
) -> Result<Result<T, E>, Stopped> {
    session.batch("begin", &transaction::begin(session, "")).await.map_err(Stopped::clear)?;
    let done = session.rolled_back(call(session).await, PostgresError::ends_session).await.map_err(Stopped::clear)?;
    if done.is_err() {
        session.batch("roll back", "rollback").await.map_err(Stopped::clear)?;
        return Ok(done);
    }
    // By itself: what is given up before is never committed.
    let committed = session.batch("commit", "commit").await;
    committed.map_err(|error| Stopped { may_be_done: is_unanswered(&error), error })?;
    Ok(done)
}

/// Whether what a COMMIT did is not known. One that the server refused has done nothing; one without an answer may
/// have, and so may one that was answered for a server that went away, as poolers do: with class 08, 57P0x or 58.
fn is_unanswered(error: &PostgresError) -> bool {
    let is_of_the_way = |code: &str| ["08", "57P0", "58"].iter().any(|class| code.starts_with(class));
    error.code().is_none_or(is_of_the_way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_rested_too_long_go_also_where_others_are_used() {
        let (start, mut resting) = (Instant::now(), Resting(Vec::new()));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for (n, seconds) in [(1, 0), (2, 1), (3, 30)] {
            assert!(resting.put(n, at(seconds)).is_empty(), "{n}");
        }
        // The same one is used again and again.
        let (third, _) = resting.0.pop().unwrap();
        let gone: Vec<u32> = resting.put(third, at(61)).into_iter().map(|(n, _)| n).collect();
        assert_eq!(gone, [1, 2]);
        assert_eq!(resting.0.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3]);
    }

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
