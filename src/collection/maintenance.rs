//! The background threads: one seals memtables, one merges segments.
//!
//! They are two so that sealing, on which writers wait, never waits for a graph to be built.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::index::IndexError;
use crate::index::plan_merge::{self, Candidate};
use crate::log::{self, LogError};
use crate::meta::is_disk_full;
use crate::storage::{is_failed_sync, start_thread};
use crate::types::{Chain, CollectionId, Seq, panic_message};

use super::CollectionError;
use super::engine::Shared;
use super::install;
use super::state::{CollectionState, SealRefusal};
use super::turns::{Ended, Scope, Turns};

/// Work for the sealing thread.
pub enum Job {
    /// A memtable of the collection is frozen, or its field index lacks a segment.
    Seal(Arc<CollectionState>),
    /// The collection was dropped: remove its files.
    Drop(Arc<CollectionState>),
    /// Tells that everything asked for before is done.
    Reach(mpsc::Sender<()>),
    /// The store closes.
    Close,
}

/// The sealing thread looks this often whether the log has grown too long, a memtable is written to no longer, or
/// deletes have made a merge due; and this often large segments give back what was mapped of them for few reads.
const TICK: Duration = Duration::from_secs(5);
/// A log of more bytes than this seals the collection that holds its oldest change.
const MAX_LOG_BYTES: u64 = 256 << 20;
/// A memtable of so many rows that nobody writes to is sealed before it is full: a segment is searched in a tenth of
/// the time.
const QUIET_ROWS: u32 = 2_048;
/// A memtable is sealed at the end of a log file where that has more than the segments' bytes divided by this.
const SEGMENT_BYTES_PER_LOG_BYTE: u64 = 4;
/// The merging thread, with nothing to merge, looks this seldom: whoever asks wakes it.
const NAP: Duration = Duration::from_secs(3_600);
/// After a failed attempt at sealing, the next one waits this long; other collections do not.
const RETRY: Duration = Duration::from_secs(5);

/// What the threads tell those who wait for them.
#[derive(Default)]
struct Progress {
    lock: Mutex<Status>,
    changed: Condvar,
}

#[derive(Default)]
struct Status {
    /// Whose segments are to be merged.
    turns: Turns,
    /// Whose are being merged, and what calls that off.
    merging: Option<(CollectionId, Arc<AtomicBool>)>,
    stopping: bool,
}

impl Status {
    /// Calls off the merge that is under way, where it is one of `wanted`.
    fn call_off(&self, wanted: impl Fn(CollectionId) -> bool) {
        if let Some((_, cancel)) = self.merging.as_ref().filter(|(id, _)| wanted(*id)) {
            cancel.store(true, Ordering::Release);
        }
    }
}

/// The running threads. Dropping it finishes the step at hand, gives up a merge, and joins them.
pub struct Maintenance {
    progress: Arc<Progress>,
    cancel: Arc<AtomicBool>,
    /// To wake the sealing thread at the end.
    jobs: mpsc::Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl Maintenance {
    /// Starts both, with a look at every collection.
    ///
    /// # Errors
    /// The system's, when it has no thread left.
    pub fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let cancel = Arc::new(AtomicBool::new(false));
        let (collections, _) = shared.catalog.all();
        for state in collections {
            progress.suggest_merging(&state);
            _ = jobs.send(Job::Seal(state));
        }
        shared.connect(jobs.clone());
        let sealer = {
            let (shared, progress, cancel) = (shared.clone(), progress.clone(), cancel.clone());
            move || seal_loop(&shared, &queue, &progress, &cancel)
        };
        let merger = {
            let progress = progress.clone();
            move || merge_loop(&shared, &progress)
        };
        let mut maintenance = Self { progress, cancel, jobs, threads: Vec::new() };
        maintenance.threads.push(start_thread("pannier-seal", sealer)?);
        maintenance.threads.push(start_thread("pannier-merge", merger)?);
        Ok(maintenance)
    }

    /// Merges everything of a collection into one segment with a graph, and waits for it.
    ///
    /// # Errors
    /// [`CollectionError::Unmerged`] when the merge failed, [`CollectionError::Stopped`] when the store closes.
    pub fn optimise(&self, state: &CollectionState) -> Result<(), CollectionError> {
        self.merge_and_wait(state.identity.id, Scope::Whole)
    }

    /// Does the merges of a collection that are due, and waits for it.
    ///
    /// # Errors
    /// As [`Maintenance::optimise`].
    pub fn settle(&self, state: &CollectionState) -> Result<(), CollectionError> {
        // What was sealed may be about to ask for merges.
        let (reached, wait) = mpsc::channel();
        _ = self.jobs.send(Job::Reach(reached));
        _ = wait.recv();
        self.merge_and_wait(state.identity.id, Scope::Due)
    }

    fn merge_and_wait(&self, id: CollectionId, scope: Scope) -> Result<(), CollectionError> {
        let failures = self.progress.edit(|status| {
            status.turns.ask(id, scope);
            status.turns.failures()
        });
        let mut status = self.progress.lock();
        while status.turns.has(id, scope) && !status.stopping {
            status = self.progress.changed.wait(status).unwrap_or_else(PoisonError::into_inner);
        }
        match status.turns.failure_after(id, scope, failures) {
            Some(reason) => Err(CollectionError::Unmerged { reason: reason.to_owned() }),
            None if status.turns.has(id, scope) => Err(CollectionError::Stopped { reason: "it is closing".to_owned() }),
            None => Ok(()),
        }
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Release);
        self.progress.edit(|status| {
            status.stopping = true;
            status.call_off(|_| true);
        });
        // Where the thread has ended by a panic, joining it says so.
        _ = self.jobs.send(Job::Close);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a background thread panicked");
            }
        }
    }
}

impl Progress {
    fn edit<T>(&self, edit: impl FnOnce(&mut Status) -> T) -> T {
        let done = edit(&mut self.lock());
        self.changed.notify_all();
        done
    }

    /// Notes that merges of a collection may be due.
    fn suggest_merging(&self, state: &CollectionState) {
        self.edit(|status| status.turns.suggest(state.identity.id));
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seal_loop(shared: &Shared, queue: &mpsc::Receiver<Job>, progress: &Progress, cancel: &AtomicBool) {
    let (mut looked, mut quiet, mut deaths) = (Instant::now(), Quiet::default(), Deaths::default());
    let mut postponed: VecDeque<(Instant, Job)> = VecDeque::new();
    while !cancel.load(Ordering::Acquire) {
        if looked.elapsed() >= TICK {
            release_large_segments(shared);
            deaths.look(shared, progress);
            // Also while others are sealed without a pause: one that nobody writes to holds the log as well.
            if let Some(state) = pins_the_log(shared).or_else(|| quiet.find(shared))
                && state.freeze()
            {
                shared.ask(Job::Seal(state));
            }
            looked = Instant::now();
        }
        let patience = postponed.front().map_or(TICK, |(at, _)| at.saturating_duration_since(Instant::now()).min(TICK));
        let due = if patience.is_zero() { postponed.pop_front().map(|(_, job)| job) } else { None };
        let Some(job) = due.or_else(|| queue.recv_timeout(patience).ok()) else { continue };
        let (state, done) = match job {
            Job::Close => break,
            Job::Reach(reached) => {
                _ = reached.send(());
                continue;
            }
            Job::Seal(state) => {
                let done = attempt(shared, || seal_all(shared, &state, progress, cancel));
                state.note_seal(done.as_ref().err().map(|error| SealRefusal {
                    reason: format!("what was written before cannot be sealed: {}", Chain(error)),
                    disk_full: is_disk_full(error),
                    // Also where another file's sync failed before: sealing needs the log.
                    stops: has_stopped(shared),
                }));
                (state, done)
            }
            Job::Drop(state) => {
                // The merges of others wait for it.
                progress.edit(|status| status.call_off(|id| id == state.identity.id));
                let done = attempt(shared, || install::remove_collection(shared, &state));
                (state, done)
            }
        };
        match done {
            Ok(()) => progress.suggest_merging(&state),
            Err(error) => {
                let name = &state.identity.name;
                tracing::error!(collection = %name, error = %Chain(&error), "background work failed");
                if has_stopped(shared) {
                    // The next start takes it up.
                    continue;
                }
                let job = if state.is_dropped() { Job::Drop(state) } else { Job::Seal(state) };
                postponed.push_back((Instant::now() + RETRY, job));
            }
        }
    }
}

/// Whether the store takes no more writes since a sync failed.
fn has_stopped(shared: &Shared) -> bool {
    shared.log().is_some_and(|log| log.failed().is_some())
}

/// As [`guarded`]. A failed sync stops the store before anybody hears of it.
fn attempt<T>(shared: &Shared, work: impl FnOnce() -> Result<T, CollectionError>) -> Result<T, CollectionError> {
    guarded(work).inspect_err(|error| shared.stop_on_failed_sync(error))
}

/// Makes a panic an error: the thread has other collections to look after, and whoever waits is to hear of it.
fn guarded<T>(work: impl FnOnce() -> Result<T, CollectionError>) -> Result<T, CollectionError> {
    // What is shared is changed in single steps, each whole.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(CollectionError::Unmerged { reason: panic_message(panic.as_ref()) }))
}

fn seal_all(
    shared: &Shared,
    state: &CollectionState,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<(), CollectionError> {
    while !state.is_dropped() && !cancel.load(Ordering::Acquire) {
        let Some(memtable) = state.view().frozen.first().cloned() else { break };
        end_log_file(shared)?;
        install::seal(shared, state, &memtable)?;
        // Each time: while writes go on, there may always be another one to seal.
        progress.suggest_merging(state);
    }
    if !state.is_dropped() {
        install::index_missing_fields(shared, state);
    }
    Ok(())
}

/// Lets the log go on in a new file where the present one is large beside the segments, so that it can be deleted once
/// what it holds is sealed: a small store that is written over and over is not to carry a log many times its size.
fn end_log_file(shared: &Shared) -> Result<(), CollectionError> {
    let Some(log) = shared.log() else { return Ok(()) };
    let segments: u64 = {
        let manifest = shared.manifest();
        manifest.collections.iter().flat_map(|collection| &collection.segments).map(|segment| segment.len_bytes).sum()
    };
    if log.position().newest_bytes <= segments / SEGMENT_BYTES_PER_LOG_BYTE {
        return Ok(());
    }
    match log.rotate() {
        // Sealing itself may find room, and makes some.
        Ok(()) | Err(LogError::NotWritten { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// See [`crate::segment::Segment::release`].
fn release_large_segments(shared: &Shared) {
    let (collections, _) = shared.catalog.all();
    let views = collections.iter().map(|state| state.view());
    views.for_each(|view| view.segments.iter().for_each(|live| live.segment.release()));
    shared.merging().iter().for_each(|live| live.segment.release());
}

/// The collection with the oldest unsealed change, when the log has grown too long.
fn pins_the_log(shared: &Shared) -> Option<Arc<CollectionState>> {
    // Files that are kept for copies alone do not count: sealing would not free them.
    let log_start = shared.manifest().log_start;
    if log::needed_bytes(&shared.paths, log_start).ok()? <= MAX_LOG_BYTES {
        return None;
    }
    let first_seq = |state: &Arc<CollectionState>| state.view().active.first_seq();
    let (collections, _) = shared.catalog.all();
    collections.into_iter().filter(|state| first_seq(state) > Seq(0)).min_by_key(first_seq)
}

/// How far each collection's memtable had come at the last look.
#[derive(Default)]
struct Quiet(HashMap<CollectionId, Seq>);

impl Quiet {
    /// A collection whose memtable holds many rows and was not written to since the last look.
    fn find(&mut self, shared: &Shared) -> Option<Arc<CollectionState>> {
        let (collections, _) = shared.catalog.all();
        let before = std::mem::take(&mut self.0);
        let last_seq = |state: &Arc<CollectionState>| (state.identity.id, state.view().active.last_seq());
        self.0 = collections.iter().map(last_seq).collect();
        let is_quiet = |state: &Arc<CollectionState>| {
            let id = state.identity.id;
            before.get(&id) == self.0.get(&id) && state.view().active.live_rows() >= QUIET_ROWS
        };
        collections.into_iter().find(is_quiet)
    }
}

/// Whose rows have died: what deletes write fills a memtable, whose sealing asks for merges, only after many of them.
#[derive(Default)]
struct Deaths(HashMap<CollectionId, Seen>);

/// What the last look at a collection saw.
#[derive(Clone, Copy, Default)]
struct Seen {
    dead: u64,
    /// Whether it was the same at the look before.
    rests: bool,
}

impl Deaths {
    /// Asks for the merges that deletes have made due.
    fn look(&mut self, shared: &Shared, progress: &Progress) {
        let (collections, _) = shared.catalog.all();
        self.0.retain(|id, _| collections.iter().any(|state| state.identity.id == *id));
        for state in collections {
            let candidates: Vec<Candidate> = state.view().segments.iter().map(|live| live.as_candidate()).collect();
            if self.has_become_due(state.identity.id, &candidates) {
                progress.suggest_merging(&state);
            }
        }
    }

    /// Whether a merge is due where rows have died, at the first look at which no more have than at the one before:
    /// whoever deletes many in pieces gets one merge.
    fn has_become_due(&mut self, id: CollectionId, candidates: &[Candidate]) -> bool {
        let before = self.0.get(&id).copied().unwrap_or_default();
        let dead = candidates.iter().map(|candidate| candidate.dead).sum();
        let rests = dead == before.dead;
        self.0.insert(id, Seen { dead, rests });
        rests && !before.rests && plan_merge::due(candidates).is_some()
    }
}

fn merge_loop(shared: &Shared, progress: &Progress) {
    while let Some((id, scope, cancel)) = next_merge(progress) {
        let ended = match attempt(shared, || merge_once(shared, id, scope, &cancel)) {
            Ok(ended) => ended,
            Err(error) => {
                if !matches!(error, CollectionError::Index(IndexError::Cancelled)) {
                    tracing::error!(collection = %id, error = %Chain(&error), "merging segments failed; trying again later");
                }
                Ended::Failed { reason: Chain(&error).to_string(), again: !is_failed_sync(&error) }
            }
        };
        progress.edit(|status| {
            status.merging = None;
            status.turns.end(Instant::now(), ended);
        });
    }
}

/// The next turn, and what calls it off.
fn next_merge(progress: &Progress) -> Option<(CollectionId, Scope, Arc<AtomicBool>)> {
    let mut status = progress.lock();
    while !status.stopping {
        let now = Instant::now();
        if let Some((id, scope)) = status.turns.begin(now) {
            let cancel = Arc::new(AtomicBool::new(false));
            status.merging = Some((id, cancel.clone()));
            return Some((id, scope, cancel));
        }
        let patience = status.turns.next_retry().map_or(NAP, |at| at.saturating_duration_since(now));
        status = progress.changed.wait_timeout(status, patience).unwrap_or_else(PoisonError::into_inner).0;
    }
    None
}

fn merge_once(shared: &Shared, id: CollectionId, scope: Scope, cancel: &AtomicBool) -> Result<Ended, CollectionError> {
    let Some(state) = shared.catalog.by_id(id) else { return Ok(Ended::Nothing) };
    let candidates: Vec<_> = state.view().segments.iter().map(|s| s.as_candidate()).collect();
    let plan = match scope {
        Scope::Due => plan_merge::due(&candidates),
        Scope::Whole => plan_merge::full(&candidates),
    };
    let Some(plan) = plan else { return Ok(Ended::Nothing) };
    install::merge(shared, &state, &plan, cancel)?;
    Ok(Ended::Merged)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::storage::fault::{ENOSPC, Faults, Operation, Plan, Then};
    use crate::types::{CollectionName, DocumentId, NewDocument};
    use crate::{Database, DefinitionRequest, Options};

    #[test]
    fn a_panic_is_an_error_that_says_what_it_said() {
        assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
        let refused = guarded::<()>(|| panic!("rows 7")).unwrap_err();
        assert!(refused.to_string().contains("rows 7"), "{refused}");
    }

    #[test]
    fn what_is_frozen_is_sealed_where_the_log_cannot_begin_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let [things, others] = ["things", "others"].map(|name| {
            let name = CollectionName::new(name).unwrap();
            let collection = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
            let id = DocumentId::new("a").unwrap();
            let document = NewDocument { vector: Some(vec![1.0, 2.0]), ..NewDocument::from_text(id, "") };
            collection.upsert(vec![document]).unwrap();
            collection
        });
        let full = Plan { only: &[Operation::Create], fail_at: 0, then: Then::Recover, errno: ENOSPC };
        let faults = Faults::with(&dir.path().join("log"), full);
        assert!(things.flush().is_err() && faults.fired());
        // One is sealed after the other, as they are asked for.
        others.flush().unwrap();
        assert_eq!(things.state.view().frozen.len(), 0);
        assert_eq!(things.stats().sealed_seq, things.stats().last_seq);
    }

    #[test]
    fn a_merge_that_the_disk_refused_is_made_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let name = CollectionName::new("things").unwrap();
        let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        let id = |n: u32| DocumentId::new(&n.to_string()).unwrap();
        let document = |n: u32| NewDocument {
            id: id(n),
            text: None,
            metadata: Default::default(),
            vector: Some(vec![1.0, n as f32]),
            chunks: Vec::new(),
        };
        things.upsert((0..20).map(document).collect()).unwrap();
        things.settle().unwrap();
        things.delete(&(0..12).map(id).collect::<Vec<_>>()).unwrap();
        let full = Plan { only: &[Operation::Write], fail_at: 0, then: Then::Recover, errno: ENOSPC };
        let faults = Faults::with(&dir.path().join("segments"), full);
        let refused = things.engine.maintenance().settle(&things.state).unwrap_err();
        assert!(faults.fired() && matches!(refused, CollectionError::Unmerged { .. }), "{refused}");
        // Nothing more is written, and nobody asks.
        let deadline = Instant::now() + Duration::from_secs(60);
        while things.stats().deleted_rows > 0 {
            assert!(Instant::now() < deadline, "{:?}", things.stats());
            things.state.wait_for_change();
        }
    }

    #[test]
    fn deletes_ask_for_a_merge_once_when_they_rest() {
        let mut deaths = Deaths::default();
        let mut look = |dead: u64| {
            let candidate = Candidate { id: crate::types::SegmentId(1), rows: 2_000, dead, has_graph: false };
            deaths.has_become_due(CollectionId(1), &[candidate])
        };
        assert!(!look(0) && !look(0), "nothing is dead");
        assert!(!look(900) && !look(1_500), "more may die");
        assert!(look(1_500));
        assert!(!look(1_500), "it is asked for once");
        assert!(!look(100) && !look(100), "few are dead");
    }

    #[test]
    fn what_was_deleted_is_merged_away_though_nothing_more_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let name = CollectionName::new("things").unwrap();
        let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        let id = |n: u32| DocumentId::new(&n.to_string()).unwrap();
        let document = |n: u32| NewDocument { vector: Some(vec![1.0, n as f32]), ..NewDocument::from_text(id(n), "") };
        things.upsert((0..20).map(document).collect()).unwrap();
        things.settle().unwrap();
        things.delete(&(0..12).map(id).collect::<Vec<_>>()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while things.stats().deleted_rows > 0 {
            assert!(Instant::now() < deadline, "{:?}", things.stats());
            things.state.wait_for_change();
        }
        assert_eq!(things.stats().documents, 8);
    }

    #[test]
    fn a_collection_that_is_dropped_during_its_merge_keeps_no_other_waiting() {
        let dir = tempfile::tempdir().unwrap();
        // A byte a second: the merge would take hours.
        let options = Options { merge_bytes_per_s: NonZeroU64::new(1), ..Options::default() };
        let database = Database::open_with(dir.path(), options).unwrap();
        let [things, others] = ["things", "others"].map(|name| {
            let name = CollectionName::new(name).unwrap();
            database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection
        });
        let id = |n: u32| DocumentId::new(&n.to_string()).unwrap();
        let document = |n: u32| NewDocument { vector: Some(vec![1.0, n as f32]), ..NewDocument::from_text(id(n), "") };
        things.upsert((0..20).map(document).collect()).unwrap();
        things.flush().unwrap();
        let merged = things.clone();
        std::thread::spawn(move || merged.optimise());
        let shared = &things.engine.shared;
        let deadline = Instant::now() + Duration::from_secs(60);
        while shared.merging().is_empty() {
            assert!(Instant::now() < deadline, "the merge does not begin");
            things.state.wait_for_change();
        }
        database.drop_collection(&things.state.identity.name).unwrap();
        let (told, settled) = mpsc::channel();
        std::thread::spawn(move || told.send(others.settle().is_ok()));
        assert_eq!(settled.recv_timeout(Duration::from_secs(60)), Ok(true));
    }

    #[test]
    fn a_drop_calls_off_the_merge_of_its_collection_alone() {
        let status = |id: u32| {
            let cancel = Arc::new(AtomicBool::new(false));
            (Status { merging: Some((CollectionId(id), cancel.clone())), ..Status::default() }, cancel)
        };
        for (id, called_off) in [(1, true), (2, false)] {
            let (status, cancel) = status(id);
            status.call_off(|id| id == CollectionId(1));
            assert_eq!(cancel.load(Ordering::Acquire), called_off, "{id}");
        }
    }
}
