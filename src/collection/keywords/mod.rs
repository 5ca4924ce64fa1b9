//! The keyword index of a collection as a view of the log: what it has still to read, how far it is, who reads.
//!
//! Applying a change only notes the ids that it wrote. One thread ([`KeywordWorker`]) looks up what stands under them
//! and tells the index; so a write waits for nothing, and an index that is behind catches up from segments and
//! memtables. Whether a hit still lives is for the search to ask: a version that was replaced or deleted is never
//! returned, however far the index is behind.
//!
//! Locks: `pending`, `status` and the bell's are leaves. None of them is held while another lock is taken.

mod bell;
mod catch_up;
mod pending;
mod worker;
mod writers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::log::LoggedDocument;
use crate::text::{MAX_WORD_BYTES, Search, TextIndex, Words, fragments};
use crate::types::{CollectionName, DocumentId, Language, Seq};

use super::state::CollectionState;
use super::{Collection, CollectionError};

pub use crate::text::TextHit as KeywordHit;
pub use bell::Bell;
pub use worker::KeywordWorker;

use pending::Pending;

/// Longest wait of a search for an index that is being opened or made again.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait of a refresh for the index to catch up.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// How far a collection's keyword index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeywordStats {
    /// Documents in it, replaced ones left out.
    pub documents: u64,
    /// It has read every change up to here.
    pub applied_seq: Seq,
    /// Writes of documents that it has still to read.
    pub waiting: u64,
    /// Documents that were damaged when it was to read them, and that it lacks.
    pub unreadable: u64,
}

/// What a collection knows of its keyword index.
pub struct Keywords {
    /// Changes up to here were in segments when the collection was opened, and no longer in the log.
    sealed_at_open: Seq,
    pending: Mutex<Pending>,
    status: Mutex<Status>,
    changed: Condvar,
    /// Whether the collection stands in the bell's queue.
    rung: AtomicBool,
}

#[derive(Default)]
struct Status {
    /// Once it is open and has caught up with what was written before.
    index: Option<Arc<TextIndex>>,
    /// What searches of the index see.
    applied: Seq,
    /// Why it could not be opened or written, when that was tried last.
    failure: Option<String>,
}

impl Keywords {
    /// `last_seq`: the collection's youngest change. `sealed_seq`: changes up to here are in segments. `sealed`:
    /// whether it has segments, which may hold texts that an index has to know.
    pub fn new(last_seq: Seq, sealed_seq: Seq, sealed: bool) -> Self {
        Self {
            sealed_at_open: sealed_seq,
            pending: Mutex::new(Pending::new(last_seq, sealed)),
            status: Mutex::default(),
            changed: Condvar::new(),
            rung: AtomicBool::new(false),
        }
    }

    /// What of an upsert the index wants to know, to be handed to [`Keywords::applied`] once it is applied.
    pub fn wanted(&self, documents: &[LoggedDocument]) -> Noted {
        let has_text = documents.iter().any(|logged| logged.document.text.is_some());
        if !has_text && !self.pending().is_active() {
            return Noted::default();
        }
        Noted { ids: documents.iter().map(|logged| logged.document.id.clone()).collect(), has_text }
    }

    /// What of a delete the index wants to know.
    pub fn wanted_of_delete(&self, ids: &[DocumentId]) -> Noted {
        let ids = if self.pending().is_active() { ids.to_vec() } else { Vec::new() };
        Noted { ids, has_text: false }
    }

    /// A change is applied. Call it in the order of the changes, before the collection's `last_seq` says so.
    pub fn applied(&self, seq: Seq, noted: Noted) {
        self.pending().push(seq, noted.ids, noted.has_text);
    }

    /// Whether there is something to read.
    pub fn has_work(&self) -> bool {
        self.pending().has_work()
    }

    /// The index's figures; `None` where the collection has no texts.
    pub fn stats(&self) -> Option<KeywordStats> {
        let (active, waiting) = {
            let pending = self.pending();
            (pending.is_active(), pending.len())
        };
        let status = self.status();
        active.then(|| KeywordStats {
            documents: status.index.as_ref().map_or(0, |index| index.documents()),
            applied_seq: status.applied,
            waiting: waiting as u64,
            unreadable: status.index.as_ref().map_or(0, |index| index.unreadable()),
        })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_status(&self, edit: impl FnOnce(&mut Status)) {
        edit(&mut self.status());
        self.changed.notify_all();
    }

    /// Waits until the status is as wanted.
    fn wait<T>(&self, deadline: Instant, mut look: impl FnMut(&Status) -> Option<T>) -> Option<T> {
        let mut status = self.status();
        loop {
            if let Some(found) = look(&status) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            status = self.changed.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take_rung(&self) {
        self.rung.store(false, Ordering::Release);
    }

    fn set_rung(&self) -> bool {
        !self.rung.swap(true, Ordering::AcqRel)
    }
}

/// Ids that a change wrote, as far as the index wants them.
#[derive(Default)]
pub struct Noted {
    ids: Vec<DocumentId>,
    has_text: bool,
}

/// A query's words.
pub struct KeywordQuery(Words);

impl KeywordQuery {
    /// Reads a text as words.
    ///
    /// # Errors
    /// [`CollectionError::Query`] when it has none.
    pub fn new(language: Language, text: &str) -> Result<Self, CollectionError> {
        let words = Words::of(language, text);
        if words.is_empty() {
            let detail = format!(
                "the query text has no words to look for; send at least one run of letters or digits of at most \
                 {MAX_WORD_BYTES} bytes"
            );
            return Err(CollectionError::Query { detail });
        }
        Ok(Self(words))
    }

    /// Whether it had more words than are looked for.
    pub fn is_cut(&self) -> bool {
        self.0.cut.is_some()
    }

    /// The part of its text that holds the words which are looked for.
    pub fn read_of<'a>(&self, text: &'a str) -> &'a str {
        self.0.cut.and_then(|end| text.get(..end)).unwrap_or(text)
    }

    /// Whether a text has one of the words.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.are_in(text)
    }

    /// The parts of a text that hold the words.
    pub fn fragments(&self, text: &str) -> Vec<String> {
        fragments(&self.0, text)
    }
}

/// A search of one moment of the index.
pub struct KeywordSearch(Option<Search>);

impl KeywordSearch {
    /// The hits from rank `from` on, `count` of them where there are as many.
    ///
    /// # Errors
    /// [`CollectionError::Text`].
    pub fn hits(&self, from: usize, count: usize) -> Result<Vec<KeywordHit>, CollectionError> {
        let Some(search) = &self.0 else { return Ok(Vec::new()) };
        Ok(search.hits(from, count)?)
    }

    /// The hits among the documents of these ids, in no order: whatever rank they have.
    ///
    /// # Errors
    /// [`CollectionError::Text`].
    pub fn hits_among(&self, ids: &[&DocumentId]) -> Result<Vec<KeywordHit>, CollectionError> {
        let Some(search) = &self.0 else { return Ok(Vec::new()) };
        Ok(search.hits_among(ids)?)
    }
}

impl Collection {
    /// Makes every write that was acknowledged before the call visible to keyword search, which happens by itself
    /// within a second.
    ///
    /// # Errors
    /// [`CollectionError::KeywordsNotReady`] with the reason when the index cannot follow.
    pub fn refresh(&self) -> Result<(), CollectionError> {
        self.check_exists()?;
        let keywords = &self.state.keywords;
        let target = self.state.last_seq();
        if !keywords.pending().is_active() {
            return Ok(());
        }
        self.engine.shared.bell.ring_urgently(&self.state);
        let done = keywords.wait(Instant::now() + REFRESH_TIMEOUT, |status| match &status.failure {
            Some(reason) => Some(Err(not_ready(self.name(), reason))),
            None => (status.index.is_some() && status.applied >= target).then_some(Ok(())),
        });
        self.check_exists()?;
        done.unwrap_or_else(|| Err(not_ready(self.name(), "it is catching up with many writes")))
    }

    /// Begins a search for words. It sees what was acknowledged a second ago, or, after [`Collection::refresh`], all.
    pub(super) fn keyword_search(&self, query: &KeywordQuery) -> Result<KeywordSearch, CollectionError> {
        let keywords = &self.state.keywords;
        if !keywords.pending().is_active() {
            return Ok(KeywordSearch(None));
        }
        let ready = |status: &Status| status.index.clone().map(Ok);
        let at_once = ready(&keywords.status());
        let index = at_once.or_else(|| {
            self.engine.shared.bell.ring_urgently(&self.state);
            keywords.wait(Instant::now() + OPEN_TIMEOUT, |status| match &status.failure {
                Some(reason) => Some(Err(not_ready(self.name(), reason))),
                None => ready(status),
            })
        });
        let index = index.unwrap_or_else(|| Err(not_ready(self.name(), "it is being made again")))?;
        Ok(KeywordSearch(Some(index.search(&query.0))))
    }
}

fn not_ready(name: &CollectionName, reason: &str) -> CollectionError {
    CollectionError::KeywordsNotReady { name: name.clone(), reason: reason.to_owned() }
}

/// For the worker: what a state's index is a view of.
fn origin(shared: &super::engine::Shared, state: &CollectionState) -> crate::text::Origin {
    crate::text::Origin {
        store_id: shared.identity.store_id,
        timeline: shared.identity.timeline,
        collection: state.identity.id,
        language: state.identity.definition.text.language,
    }
}
