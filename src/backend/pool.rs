//! A few sessions with one database, for all collections that stand there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::embed::{Cancellation, EmbedError};
use crate::postgres::{ConnectSettings, PostgresError, Session, Trouble};

use super::settings::UrlFrom;
use super::transaction;

/// Sessions that are open at once.
pub(super) const MAX_SESSIONS: usize = 8;
/// Longest wait of a call for a session.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// Calls that wait for a session at most; one more is refused at once.
const MAX_WAITING: usize = 16;
/// Longest time that a statement may take; the server ends it a little before.
const STATEMENT_LIMIT: Duration = Duration::from_secs(25);
/// A session that rested longer is asked whether it still is one before it is used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Longest time that the answer to that may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A session that rested longer is closed.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How often sessions are looked for that rested longer.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// An older session is used no more: behind its name there may be another server since.
const MAX_AGE: Duration = Duration::from_secs(300);
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
    /// Every session was busy for [`WAIT_LIMIT`], or [`MAX_WAITING`] calls wait for one already.
    Busy,
    /// Nobody waits for its answer any more. Nothing was changed.
    Gone(EmbedError),
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
        self.runtime().block_on(call)
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("the threads are there until they are dropped")
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
    resting: Arc<Mutex<Resting<Session>>>,
}

/// A session and what it was made with.
struct Made<S> {
    session: S,
    settings: Arc<ConnectSettings>,
    at: Instant,
}

/// Sessions that wait for the next call, and since when: the one that came last goes first.
struct Resting<S> {
    sessions: Vec<(Made<S>, Instant)>,
    /// Whether a task closes those that rest too long.
    is_watched: bool,
}

impl<S> Resting<S> {
    fn new() -> Self {
        Self { sessions: Vec::new(), is_watched: false }
    }

    /// Adds one. Returns whether nobody closes those that rest too long.
    fn put(&mut self, made: Made<S>, now: Instant) -> bool {
        if now.duration_since(made.at) < MAX_AGE {
            self.sessions.push((made, now));
        }
        !std::mem::replace(&mut self.is_watched, true)
    }

    /// The one that rested least of those that may be used, and since when it rested. `settings`: what sessions are
    /// made with now, where that is known; others are dropped.
    fn take(
        &mut self,
        settings: Option<&ConnectSettings>,
        is_closed: impl Fn(&S) -> bool,
        now: Instant,
    ) -> Option<(Made<S>, Instant)> {
        while let Some((made, since)) = self.sessions.pop() {
            let is_fresh = now.duration_since(since) < KEPT_FOR && now.duration_since(made.at) < MAX_AGE;
            if is_fresh && settings.is_none_or(|settings| *made.settings == *settings) && !is_closed(&made.session) {
                return Some((made, since));
            }
        }
        None
    }

    /// Drops those that rested too long. Returns whether there are others, which are to be looked at again.
    fn close_unused(&mut self, now: Instant) -> bool {
        self.sessions.retain(|(_, since)| now.duration_since(*since) < KEPT_FOR);
        self.is_watched = !self.sessions.is_empty();
        self.is_watched
    }
}

/// Closes sessions that rest too long, until there are none.
async fn watch(resting: Weak<Mutex<Resting<Session>>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(resting) = resting.upgrade() else { return };
        if !resting.lock().unwrap_or_else(PoisonError::into_inner).close_unused(Instant::now()) {
            return;
        }
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
    /// # Errors
    /// [`Failure::Busy`] where enough wait already.
    fn new(count: &'a AtomicUsize) -> Result<Self, Failure> {
        let waiting = Self(count);
        match count.fetch_add(1, Ordering::Relaxed) {
            MAX_WAITING.. => Err(Failure::Busy),
            _ => Ok(waiting),
        }
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
        Self { url, threads, places, waiting, resting: Arc::new(Mutex::new(Resting::new())) }
    }

    /// Its sessions at this moment.
    pub fn figures(&self) -> PoolFigures {
        PoolFigures {
            in_use: MAX_SESSIONS - self.places.available_permits(),
            resting: self.resting().sessions.len(),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Runs a call that changes nothing, and leaves no transaction open where the session goes on. Blocks; not for
    /// threads that drive tasks.
    ///
    /// # Errors
    /// [`Failure::Clear`], [`Failure::Busy`], [`Failure::Gone`].
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
                let _waiting = Waiting::new(&self.waiting)?;
                tokio::time::timeout(WAIT_LIMIT, self.places.acquire()).await
            }
        };
        let _place = place.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?;
        let (mut pause, mut may_be_done) = (PAUSE, false);
        for attempt in 1.. {
            // It runs on the caller's thread.
            match Cancellation::check_current() {
                Err(gone) if !may_be_done => return Err(Failure::Gone(gone)),
                _ => {}
            }
            let error = match self.session().await {
                Err(error) => error,
                Ok(made) => match call(&made.session).await {
                    Ok(done) => {
                        self.put_back(made);
                        return Ok(done);
                    }
                    Err(stopped) => {
                        // Else the session is of no more use.
                        if !stopped.error.ends_session() && !is_unanswered(&stopped.error) {
                            self.put_back(made);
                        } else if stopped.error.trouble() == Trouble::Unreachable {
                            // What ended it has ended the others.
                            drop(self.take_all());
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
    async fn session(&self) -> Result<Made<Session>, PostgresError> {
        // Read for each call: from an edited URL on, none goes to the database of the old one.
        let settings = self.url.connection().map(|settings| settings.for_collections(STATEMENT_LIMIT));
        loop {
            let rested = self.resting().take(settings.as_ref().ok(), Session::is_closed, Instant::now());
            let Some((made, since)) = rested else { break };
            if since.elapsed() < TRUSTED_FOR {
                return Ok(made);
            }
            if made.session.long_batch("answer", "select 1", ANSWER_LIMIT).await.is_ok() {
                return Ok(made);
            }
            // Those below it rested longer: whatever ended this one has ended them.
            drop(self.take_all());
        }
        let (settings, at) = (Arc::new(settings?), Instant::now());
        Ok(Made { session: Session::connect(&settings).await?, settings, at })
    }

    fn put_back(&self, made: Made<Session>) {
        if self.resting().put(made, Instant::now()) {
            _ = self.threads.runtime().spawn(watch(Arc::downgrade(&self.resting)));
        }
    }

    fn take_all(&self) -> Vec<(Made<Session>, Instant)> {
        std::mem::take(&mut self.resting().sessions)
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

    fn settings(url: &str) -> Arc<ConnectSettings> {
        Arc::new(ConnectSettings::from_url(url).unwrap())
    }

    fn made(session: u32, settings: &Arc<ConnectSettings>, at: Instant) -> Made<u32> {
        Made { session, settings: settings.clone(), at }
    }

    #[test]
    fn sessions_that_rested_too_long_go_also_where_no_call_comes() {
        let (start, mut resting, settings) = (Instant::now(), Resting::new(), settings("postgres://me@h/x"));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for (n, seconds) in [(1, 0), (2, 1), (3, 30)] {
            assert_eq!(resting.put(made(n, &settings, start), at(seconds)), n == 1, "one task is enough");
        }
        assert!(resting.close_unused(at(61)));
        assert_eq!(resting.sessions.iter().map(|(made, _)| made.session).collect::<Vec<_>>(), [3]);
        assert!(!resting.close_unused(at(90)) && resting.sessions.is_empty(), "and the task ends");
        assert!(resting.put(made(4, &settings, start), at(91)), "the next one begins");
    }

    #[test]
    fn sessions_are_used_while_they_are_young_open_and_of_the_url_that_stands() {
        let (start, old, new) = (Instant::now(), settings("postgres://me@old/x"), settings("postgres://me@new/x"));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let used = |settings: Option<&ConnectSettings>, seconds: u64| {
            let mut resting = Resting::new();
            for (n, (url, made_at)) in [(&new, 0), (&new, 100), (&old, 100), (&new, 100)].into_iter().enumerate() {
                resting.put(made(n as u32, url, at(made_at)), at(290));
            }
            // The last one is known to have ended.
            let taken = resting.take(settings, |n| *n == 3, at(seconds));
            taken.map(|(made, _)| made.session)
        };
        assert_eq!(used(Some(&new), 291), Some(1));
        assert_eq!(used(Some(&old), 291), Some(2));
        assert_eq!(used(None, 291), Some(2), "the file cannot be read at the moment");
        assert_eq!(used(Some(&new), 350), None, "they rested too long");
        let mut resting = Resting::new();
        resting.put(made(0, &new, start), at(299));
        assert!(resting.take(Some(&new), |_| false, at(300)).is_none(), "it is too old");
        resting.put(made(0, &new, start), at(300));
        assert!(resting.sessions.is_empty(), "it is too old");
    }

    #[test]
    fn where_enough_wait_for_a_session_the_next_is_told_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        // It takes connections and says nothing.
        let url = format!("postgres://me@{}/x?sslmode=disable&connect_timeout=600", listener.local_addr().unwrap());
        std::fs::write(&file, url).unwrap();
        let pool = Arc::new(Pool::new(UrlFrom::File(file), Arc::new(Threads::start().unwrap())));
        let call = |pool: &Pool| pool.read(async |session| session.batch("answer", "select 1").await);
        let calls: Vec<_> = (0..MAX_SESSIONS + MAX_WAITING)
            .map(|_| {
                let pool = pool.clone();
                std::thread::spawn(move || call(&pool))
            })
            .collect();
        while pool.figures().waiting < MAX_WAITING {
            std::thread::yield_now();
        }
        let refused = call(&pool).unwrap_err();
        assert!(matches!(refused, Failure::Busy), "{refused:?}");
        assert_eq!(pool.figures().waiting, MAX_WAITING, "it waits no more");
        // The others find nobody there.
        drop(listener);
        for waited in calls {
            waited.join().unwrap().unwrap_err();
        }
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
