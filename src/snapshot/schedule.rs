//! Snapshots taken by themselves, and how many of them are kept.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use crate::database::Database;
use crate::manifest::{Manifest, StoreId};
use crate::storage::DataPaths;

use super::metrics;
use super::{Contents, Snapshot, SnapshotError, SnapshotName, create, delete, list};

/// When snapshots are taken, and how long they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Time from one to the next.
    pub every: Duration,
    /// How many of them are kept; those that somebody asked for are not counted, and never removed.
    pub keep: usize,
}

/// After a failure, the next try.
const RETRY: Duration = Duration::from_secs(60);

/// A thread that takes snapshots. Dropping it waits for one that is being taken, and ends it.
pub struct Schedule {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Schedule {
    /// Starts it. What was taken before a restart counts: the next one comes when its time has come.
    ///
    /// # Errors
    /// The system's, when it starts no thread.
    pub fn start(database: Database, retention: Retention) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let thread = std::thread::Builder::new().name("pannier-snapshot".to_owned()).spawn({
            let stop = stop.clone();
            move || run(&database, retention, &stop)
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that takes snapshots panicked");
        }
    }
}

fn run(database: &Database, retention: Retention, stop: &(Mutex<bool>, Condvar)) {
    let data = database.path();
    let mut wait = until_due(data, retention, Timestamp::now());
    metrics::begin(last_taken(data));
    loop {
        let stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) =
            stop.1.wait_timeout_while(stopped, wait, |stopped| !*stopped).unwrap_or_else(PoisonError::into_inner);
        if *stopped {
            return;
        }
        drop(stopped);
        let now = Timestamp::now();
        wait = match take_due(database, retention, now) {
            Ok(_) => {
                metrics::succeeded(now.as_millisecond());
                retention.every
            }
            Err(error) => {
                tracing::error!(%error, "a scheduled snapshot could not be taken");
                metrics::failed();
                RETRY.min(retention.every)
            }
        };
    }
}

/// Those of the schedule, oldest first by what they hold: a clock may have been set back between two of them. Those of
/// other stores come before.
fn scheduled(data: &Path, store: StoreId) -> Result<Vec<Snapshot>, SnapshotError> {
    let all = list(data)?.into_iter().filter_map(|found| found.snapshot.ok());
    let mut scheduled: Vec<_> = all.filter(|snapshot| snapshot.name.is_scheduled()).collect();
    scheduled.sort_by_key(|snapshot| {
        let Contents { store_id, timeline, seq, .. } = snapshot.contents;
        (store_id == store).then_some((timeline, seq))
    });
    Ok(scheduled)
}

/// When the newest was taken, in milliseconds since the Unix epoch.
fn last_taken(data: &Path) -> Option<i64> {
    let manifest = Manifest::load(&DataPaths::new(data)).ok()?;
    scheduled(data, manifest.store_id).ok()?.last().map(|last| last.created_at_ms)
}

/// How long until the next one. When the last was taken is not known where its time is yet to come.
fn until_due(data: &Path, retention: Retention, now: Timestamp) -> Duration {
    let Some(last) = last_taken(data) else { return Duration::ZERO };
    match u64::try_from(now.as_millisecond().saturating_sub(last)) {
        Ok(passed) => retention.every.saturating_sub(Duration::from_millis(passed)),
        Err(_) => Duration::ZERO,
    }
}

/// Takes a snapshot, unless nothing has changed since the last one, and removes those beyond what is kept.
fn take_due(database: &Database, retention: Retention, now: Timestamp) -> Result<bool, SnapshotError> {
    let data = database.path();
    let manifest = Manifest::load(&DataPaths::new(data))?;
    let state = (manifest.store_id, manifest.timeline, database.health().last_seq);
    let is_current = |last: &Snapshot| (last.contents.store_id, last.contents.timeline, last.contents.seq) == state;
    let mut taken = scheduled(data, manifest.store_id)?;
    let is_due = !taken.last().is_some_and(is_current);
    if is_due {
        let created = create(database, Some(SnapshotName::scheduled(now)))?;
        tracing::info!(name = %created.snapshot.name, seq = created.snapshot.contents.seq.0, "a snapshot was taken");
        taken.push(created.snapshot);
    }
    let beyond = taken.len().saturating_sub(retention.keep.max(1));
    taken.iter().take(beyond).try_for_each(|old| database.change_files(|| delete(data, &old.name)))?;
    Ok(is_due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DefinitionRequest;
    use crate::types::CollectionName;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_oldest_go_those_asked_for_stay_and_an_unchanged_store_is_not_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let data = dir.path();
        let retention = Retention { every: HOUR, keep: 2 };
        create(&database, Some(SnapshotName::new("mine").unwrap())).unwrap();
        for n in 0..4 {
            let name = CollectionName::new(&format!("c{n}")).unwrap();
            database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap();
            let now = Timestamp::from_second(1_700_000_000 + n).unwrap();
            assert!(take_due(&database, retention, now).unwrap());
            assert!(!take_due(&database, retention, now).unwrap(), "nothing has changed");
        }
        let mut names: Vec<String> = list(data).unwrap().into_iter().map(|f| f.name.to_string()).collect();
        names.sort();
        assert_eq!(names, ["auto-20231114-221322-000", "auto-20231114-221323-000", "mine"]);
    }

    #[test]
    fn after_the_clock_was_set_back_the_newest_stay_and_the_next_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let data = dir.path();
        let retention = Retention { every: HOUR, keep: 2 };
        let take = |n: i64, second: i64| {
            let name = CollectionName::new(&format!("c{n}")).unwrap();
            database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            assert!(take_due(&database, retention, now).unwrap());
            // As if the clock had shown that time.
            let home = DataPaths::new(data).snapshots_dir().join(SnapshotName::scheduled(now).as_str());
            std::fs::write(home.join("CREATED"), format!("{}\n", now.as_millisecond())).unwrap();
        };
        let (ahead, back) = (4_000_000_000, 1_700_000_000);
        (0..2).for_each(|n| take(n, ahead + n));
        assert_eq!(until_due(data, retention, Timestamp::from_second(back).unwrap()), Duration::ZERO);
        (2..5).for_each(|n| take(n, back + n));
        let names: Vec<String> = list(data).unwrap().into_iter().map(|f| f.name.to_string()).collect();
        assert_eq!(names, ["auto-20231114-221323-000", "auto-20231114-221324-000"]);
        let now = Timestamp::from_second(back + 4).unwrap();
        assert!(!take_due(&database, retention, now).unwrap(), "nothing has changed");
        assert_eq!(until_due(data, retention, now), HOUR);
    }

    #[cfg(feature = "server")]
    #[test]
    fn what_became_of_the_last_try_is_told() {
        let recorder = crate::telemetry::install_recorder().unwrap();
        let metric = |name: &str| -> Option<f64> {
            let text = recorder.render();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            Some(line.parse().unwrap())
        };
        let last = || metric(crate::telemetry::SNAPSHOT_LAST_SUCCESS_TIMESTAMP_SECONDS);
        let failures = || metric(crate::telemetry::SNAPSHOT_FAILURES_TOTAL).unwrap_or_default();
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let retention = Retention { every: Duration::from_millis(1), keep: 1 };
        let began = Timestamp::now().as_second() as f64;
        let schedule = Schedule::start(database, retention).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let wait = |done: &dyn Fn() -> bool| {
            while !done() {
                assert!(std::time::Instant::now() < deadline, "{:?} {}", last(), failures());
                std::thread::yield_now();
            }
        };
        wait(&|| last().is_some_and(|last| last >= began));
        let before = failures();
        std::fs::remove_file(DataPaths::new(dir.path()).manifest()).unwrap();
        wait(&|| failures() > before);
        drop(schedule);
    }

    #[test]
    fn a_restart_does_not_put_the_next_one_off() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let data = dir.path();
        let retention = Retention { every: HOUR, keep: 1 };
        let now = Timestamp::now();
        assert_eq!(until_due(data, retention, now), Duration::ZERO);
        take_due(&database, retention, now).unwrap();
        let half = now + Duration::from_secs(1_800);
        let left = until_due(data, retention, half);
        assert!(left <= HOUR / 2 + Duration::from_secs(60) && left >= HOUR / 2 - Duration::from_secs(60), "{left:?}");
        assert_eq!(until_due(data, retention, now + 2 * HOUR), Duration::ZERO);
        drop(Schedule::start(database, retention).unwrap());
    }
}
