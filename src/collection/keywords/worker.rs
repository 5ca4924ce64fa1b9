//! The thread that keeps the keyword indexes up with the log.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::storage::{self, start_thread};
use crate::text::{TextError, TextIndex};
use crate::types::{CollectionId, DocumentId, Seq, panic_message};

use super::super::CollectionError;
use super::super::engine::Shared;
use super::super::state::CollectionState;
use super::bell::Woken;
use super::catch_up::{Damaged, catch_up};
use super::origin;
use super::writers::Writers;

/// Documents told to an index between two commits.
const STEP: usize = 20_000;
/// After a failure, the next attempt waits this long,
const RETRY: Duration = Duration::from_secs(1);
/// and twice as long after each further one, up to this.
const MAX_RETRY: Duration = Duration::from_secs(60);
/// While some writer is open, the thread looks this often whether it is idle.
const TICK: Duration = Duration::from_secs(2);
/// While nothing is open, it looks this seldom: there is nothing to see.
const NAP: Duration = Duration::from_secs(3_600);

/// The running thread. Dropping it brings the indexes up to date, as far as that is quick, and joins it.
pub struct KeywordWorker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl KeywordWorker {
    /// Starts it, with a look at every collection.
    ///
    /// # Errors
    /// The system's, when it has no thread left.
    pub fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let worker = Worker { shared: shared.clone(), writers: Writers::default(), failed: Vec::new() };
        let thread = start_thread("pannier-text", move || worker.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for KeywordWorker {
    fn drop(&mut self) {
        self.shared.bell.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the keyword indexes panicked");
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    writers: Writers,
    failed: Vec<Failed>,
}

/// A collection whose index could not follow.
struct Failed {
    state: Arc<CollectionState>,
    /// When to try again.
    due: Instant,
    /// How long that was from the last attempt.
    pause: Duration,
}

impl Worker {
    fn run(mut self) {
        remove_leftovers(&self.shared);
        let (collections, _) = self.shared.catalog.all();
        for state in collections.iter().filter(|state| state.keywords.pending().is_active()) {
            self.shared.bell.ring_urgently(state);
        }
        loop {
            match self.shared.bell.wait(self.patience()) {
                Woken::Called(queue) => self.serve(queue),
                Woken::Quiet => {}
                Woken::Stopping => break,
            }
            self.retry();
            self.writers.close_idle();
        }
        self.farewell();
    }

    fn patience(&self) -> Duration {
        let calm = if self.writers.is_empty() { NAP } else { TICK };
        match self.failed.iter().map(|failed| failed.due).min() {
            Some(due) => due.saturating_duration_since(Instant::now()).min(calm),
            None => calm,
        }
    }

    fn retry(&self) {
        let now = Instant::now();
        self.failed.iter().filter(|failed| failed.due <= now).for_each(|f| self.shared.bell.ring_urgently(&f.state));
    }

    /// Whether its next attempt is still to wait, however many writes and searches call. One that was dropped is
    /// cleared up at once.
    fn is_waiting(&self, state: &Arc<CollectionState>) -> bool {
        let now = Instant::now();
        !state.is_dropped() && self.failed.iter().any(|f| Arc::ptr_eq(&f.state, state) && f.due > now)
    }

    /// One step for each. What has more work calls again, behind those that called meanwhile: a collection that is
    /// written to without a pause always has more.
    fn serve(&mut self, queue: VecDeque<Arc<CollectionState>>) {
        for state in queue {
            if self.shared.bell.is_stopping() {
                return;
            }
            if self.is_waiting(&state) {
                continue;
            }
            match self.guarded_step(&state) {
                Ok(more) => {
                    self.failed.retain(|failed| !Arc::ptr_eq(&failed.state, &state));
                    if more {
                        self.shared.bell.ring_urgently(&state);
                    }
                }
                Err(error) => self.failed(state, &error),
            }
        }
    }

    fn failed(&mut self, state: Arc<CollectionState>, error: &CollectionError) {
        self.writers.close(state.identity.id);
        if matches!(error, CollectionError::Stopped { .. }) {
            return;
        }
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        tracing::error!(collection = %state.identity.name, reason, "a keyword index cannot follow; trying again");
        state.keywords.pending().lose();
        state.keywords.set_status(|status| {
            status.index = None;
            status.failure = Some(reason);
        });
        let before = self.failed.iter().position(|failed| Arc::ptr_eq(&failed.state, &state));
        let before = before.map(|at| self.failed.swap_remove(at));
        let pause = before.map_or(RETRY, |failed| (2 * failed.pause).min(MAX_RETRY));
        self.failed.push(Failed { state, due: Instant::now() + pause, pause });
    }

    /// As [`Self::step`], and a panic is an error: the other collections' indexes go on.
    fn guarded_step(&mut self, state: &Arc<CollectionState>) -> Result<bool, CollectionError> {
        catch_unwind(AssertUnwindSafe(|| self.step(state))).unwrap_or_else(|panic| {
            let path = self.shared.paths.text_index_dir(state.identity.id.0);
            Err(TextError::Index { path, source: panic_message(panic.as_ref()).into() }.into())
        })
    }

    /// Tells the index of what waits. Returns whether more does.
    fn step(&mut self, state: &Arc<CollectionState>) -> Result<bool, CollectionError> {
        if state.is_dropped() {
            return self.remove(state.identity.id).map(|()| false);
        }
        let keywords = &state.keywords;
        if !keywords.pending().is_active() {
            return Ok(false);
        }
        let index = keywords.status().index.clone();
        let index = match index {
            Some(index) => {
                if keywords.pending().is_lost() {
                    let from = keywords.status().applied;
                    self.make_up(state, &index, from)?;
                }
                index
            }
            None => self.open(state)?,
        };
        let (mut ids, upto) = keywords.pending().take(STEP);
        ids.sort();
        ids.dedup();
        if ids.is_empty() && keywords.status().applied >= upto {
            return Ok(false);
        }
        let writer = self.writers.of(state.identity.id, &index)?;
        let mut damaged = Damaged::default();
        for id in &ids {
            match living_text(&self.shared, state, id) {
                Ok(Some((seq, text))) => writer.upsert(id, seq, &text)?,
                Ok(None) => writer.delete(id),
                Err(CollectionError::Segment(error)) => {
                    writer.delete(id);
                    damaged.add(error);
                }
                Err(error) => return Err(error),
            }
        }
        damaged.tell(state, &index);
        writer.commit(upto)?;
        keywords.set_status(|status| status.applied = upto);
        Ok(keywords.has_work())
    }

    /// Opens a collection's index and brings it up to what stood when the store was opened.
    fn open(&mut self, state: &CollectionState) -> Result<Arc<TextIndex>, CollectionError> {
        let keywords = &state.keywords;
        let path = self.shared.paths.text_index_dir(state.identity.id.0);
        let mut opened = TextIndex::open(&path, origin(&self.shared, state))?;
        let upto = keywords.pending().upto();
        if opened.applied > upto {
            let reason = format!("it has read up to change {}, the collection's last is {upto}", opened.applied);
            drop(opened);
            storage::remove_dir_all(&path).map_err(TextError::from)?;
            opened = TextIndex::open(&path, origin(&self.shared, state))?;
            opened.reason = Some(reason);
        }
        if let Some(reason) = &opened.reason {
            tracing::warn!(collection = %state.identity.name, reason, "the keyword index is made again");
        }
        let (index, applied) = (Arc::new(opened.index), opened.applied);
        let behind = applied < keywords.sealed_at_open || applied == Seq(0) || keywords.pending().is_lost();
        if behind {
            self.make_up(state, &index, applied)?;
        } else {
            keywords.pending().drop_up_to(applied);
            keywords.set_status(|status| status.applied = applied);
        }
        if index.documents() == 0 && index.unreadable() == 0 {
            keywords.pending().rest();
        }
        keywords.set_status(|status| {
            status.index = Some(index.clone());
            status.failure = None;
        });
        Ok(index)
    }

    /// Reads what the index lacks from segments and memtables.
    fn make_up(&mut self, state: &CollectionState, index: &Arc<TextIndex>, from: Seq) -> Result<(), CollectionError> {
        let upto = state.keywords.pending().restart();
        let writer = self.writers.of(state.identity.id, index)?;
        catch_up(&self.shared, state, index, writer, from)?;
        writer.commit(upto)?;
        state.keywords.set_status(|status| status.applied = upto);
        Ok(())
    }

    fn remove(&mut self, id: CollectionId) -> Result<(), CollectionError> {
        self.writers.close(id);
        Ok(storage::remove_dir_all(&self.shared.paths.text_index_dir(id.0)).map_err(TextError::from)?)
    }

    /// Leaves every index so that the next start has little to read: also that of a collection without texts, whose
    /// segments would be searched for some.
    fn farewell(mut self) {
        let (collections, _) = self.shared.catalog.all();
        for state in collections {
            while !self.shared.bell.is_over() && state.keywords.has_work() {
                match self.guarded_step(&state) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        self.failed(state.clone(), &error);
                        break;
                    }
                }
            }
            if let Err(error) = self.mark(&state) {
                tracing::warn!(collection = %state.identity.name, %error, "a keyword index could not be marked");
            }
        }
        self.writers.close_all();
    }

    /// Writes down that an index without documents has read everything.
    fn mark(&mut self, state: &CollectionState) -> Result<(), CollectionError> {
        let (resting, upto) = {
            let pending = state.keywords.pending();
            (!pending.is_active(), pending.upto())
        };
        if !resting || state.view().segments.is_empty() || state.keywords.status().applied >= upto {
            return Ok(());
        }
        let index = state.keywords.status().index.clone();
        let index = match index {
            Some(index) => index,
            None => {
                let path = self.shared.paths.text_index_dir(state.identity.id.0);
                Arc::new(TextIndex::open(&path, origin(&self.shared, state))?.index)
            }
        };
        Ok(self.writers.of(state.identity.id, &index)?.commit(upto)?)
    }
}

/// What is to be indexed under an id: the text of the version that lives, with its seq.
fn living_text(
    shared: &Shared,
    state: &CollectionState,
    id: &DocumentId,
) -> Result<Option<(Seq, String)>, CollectionError> {
    let Some(place) = state.find(&shared.meta, id)? else { return Ok(None) };
    let seq = place.seq()?;
    Ok(place.document()?.text.map(|text| (seq, text)))
}

/// Removes the indexes of collections that are no more.
fn remove_leftovers(shared: &Shared) {
    let Ok(entries) = storage::list_entries(&shared.paths.text_dir()) else { return };
    for path in entries {
        let id = path.file_name().and_then(|name| name.to_str()?.parse().ok()).map(CollectionId);
        if id.is_none_or(|id| shared.catalog.by_id(id).is_none())
            && let Err(error) = storage::remove_dir_all(&path)
        {
            tracing::warn!(%error, "an unused keyword index could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CollectionName;
    use crate::{Database, DefinitionRequest};

    #[test]
    fn attempts_that_fail_come_ever_more_seldom() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let name = CollectionName::new("things").unwrap();
        let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
        let shared = things.engine.shared.clone();
        let mut worker = Worker { shared, writers: Writers::default(), failed: Vec::new() };
        assert!(!worker.is_waiting(&things.state));
        let mut fail = || {
            let error = TextError::Index { path: directory.path().to_owned(), source: "it is a test".into() };
            worker.failed(things.state.clone(), &error.into());
            assert!(worker.is_waiting(&things.state) && worker.failed.len() == 1);
            worker.failed[0].pause.as_secs()
        };
        assert_eq!([fail(), fail(), fail()], [1, 2, 4]);
        assert_eq!((0..10).map(|_| fail()).last(), Some(60));
        things.state.mark_dropped();
        assert!(!worker.is_waiting(&things.state), "its files are removed at once");
    }
}
