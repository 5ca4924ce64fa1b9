//! The changes of a collection in the order of the log, for whoever keeps a copy of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log::{Change, Keep, LogIdentity, LogTail, LoggedDocument, TailStep};
use crate::types::{Definition, Document, DocumentId, Seq};

use super::read::document_of;
use super::{Collection, CollectionError};

/// Most bytes of log that are kept for copies alone, unless a store is told otherwise.
pub const DEFAULT_COPIES_LOG_BYTES: u64 = 1 << 30;
/// The store's own hold: while it opens and closes nobody else tells how far the copies are.
const OF_THE_STORE: u64 = 0;

/// How far each copy has read, so that the log is trimmed behind the slowest, within a bound.
pub struct LogHolds {
    seqs: Mutex<BTreeMap<u64, Seq>>,
    next: AtomicU64,
    max_bytes: AtomicU64,
}

impl LogHolds {
    /// Without any. `max_bytes`: as [`LogHolds::set_max_bytes`].
    pub fn new(max_bytes: u64) -> Self {
        let next = AtomicU64::new(OF_THE_STORE + 1);
        Self { seqs: Mutex::default(), next, max_bytes: AtomicU64::new(max_bytes) }
    }

    /// Keeps all of the log, until whoever keeps the copies holds it.
    pub fn hold_all(&self) {
        self.lock().insert(OF_THE_STORE, Seq(0));
    }

    /// Whoever keeps the copies holds what they need.
    #[cfg(any(test, feature = "postgres"))]
    pub fn let_go(&self) {
        self.lock().remove(&OF_THE_STORE);
    }

    /// Keeps what is held now, although its holders are about to let go.
    #[cfg(any(test, feature = "postgres"))]
    pub fn pin(&self) {
        let mut seqs = self.lock();
        if let Some(least) = seqs.values().min().copied() {
            seqs.insert(OF_THE_STORE, least);
        }
    }

    /// What trimming up to `up_to` has to leave.
    pub fn keep(&self, up_to: Seq) -> Keep {
        let after = self.lock().values().min().copied().unwrap_or(up_to);
        Keep { after, max_bytes: self.max_bytes.load(Ordering::Relaxed) }
    }

    /// Sets the bound on bytes that are kept for copies alone.
    pub fn set_max_bytes(&self, max_bytes: u64) {
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Seq>> {
        self.seqs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the log from being trimmed beyond what a copy has read, within the store's bound. Dropping it lets go.
pub struct LogHold {
    holds: Arc<LogHolds>,
    key: u64,
}

impl LogHold {
    fn new(holds: Arc<LogHolds>, after: Seq) -> Self {
        let key = holds.next.fetch_add(1, Ordering::Relaxed);
        holds.lock().insert(key, after);
        Self { holds, key }
    }

    /// The copy has everything up to `seq`.
    pub fn advance(&self, seq: Seq) {
        self.holds.lock().insert(self.key, seq);
    }
}

impl Drop for LogHold {
    fn drop(&mut self) {
        self.holds.lock().remove(&self.key);
    }
}

/// What became of one document.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentChange {
    /// Which document.
    pub id: DocumentId,
    /// The change that did it.
    pub seq: Seq,
    /// The document as it was written; `None` where it was deleted.
    pub written: Option<Document>,
}

/// What a step along the changes found.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeStep {
    /// Changes in order; everything up to `up_to` was seen.
    Changes {
        /// May be empty: other collections change too.
        changes: Vec<DocumentChange>,
        /// The cursor after this step.
        up_to: Seq,
    },
    /// The log no longer has what comes after the cursor: the copy has to be compared as a whole.
    Gone,
    /// The collection was dropped.
    Dropped,
}

/// A cursor in the changes of a collection.
pub struct Changes {
    collection: Collection,
    tail: LogTail,
}

impl Changes {
    /// Reads on, up to about `max_bytes`; nothing is waited for.
    ///
    /// # Errors
    /// [`CollectionError::Log`] when the log is damaged.
    pub fn next(&mut self, max_bytes: usize) -> Result<ChangeStep, CollectionError> {
        if self.collection.state.is_dropped() {
            return Ok(ChangeStep::Dropped);
        }
        let durable = self.collection.engine.shared.applied_seq();
        match self.tail.read(durable, max_bytes)? {
            TailStep::Gone => Ok(ChangeStep::Gone),
            TailStep::Changes { changes, up_to } => {
                let mut all = Vec::new();
                let definition = self.collection.definition();
                changes.into_iter().for_each(|(seq, change)| flatten(seq, change, definition, &mut all));
                Ok(ChangeStep::Changes { changes: all, up_to })
            }
        }
    }
}

impl Changes {
    /// Tells apart histories of one store that have the same seqs, as where a data directory was copied and both went
    /// on: a checksum of every change of the store up to the cursor. `None` where the log no longer has what stands
    /// there.
    ///
    /// # Errors
    /// [`CollectionError::Log`] when the log is damaged.
    pub fn digest(&mut self) -> Result<Option<u32>, CollectionError> {
        Ok(self.tail.digest()?)
    }
}

impl Collection {
    /// The changes after `after`.
    pub fn changes_after(&self, after: Seq) -> Changes {
        let shared = &self.engine.shared;
        let identity = LogIdentity { store_id: shared.identity.store_id, timeline: shared.identity.timeline };
        let tail = LogTail::new(shared.paths.clone(), identity, self.state.identity.id, after);
        Changes { collection: self.clone(), tail }
    }

    /// Keeps the log after `after` for a copy.
    pub fn hold_log(&self, after: Seq) -> LogHold {
        LogHold::new(self.engine.shared.holds.clone(), after)
    }

    /// The youngest change of the store, this collection's or not.
    pub fn store_seq(&self) -> Seq {
        self.engine.shared.applied_seq()
    }

    /// The change that created it.
    pub fn created_seq(&self) -> Seq {
        self.state.identity.created_seq
    }

    /// Whether it was dropped.
    pub fn is_dropped(&self) -> bool {
        self.state.is_dropped()
    }
}

fn flatten(seq: Seq, change: Change, definition: &Definition, all: &mut Vec<DocumentChange>) {
    match change {
        Change::Upsert { documents, .. } => all.extend(documents.into_iter().map(|logged| {
            let LoggedDocument { document: stored, vector, chunks } = logged;
            let id = stored.id.clone();
            DocumentChange { id, seq, written: Some(document_of(stored, seq, &vector, &chunks, definition)) }
        })),
        Change::Delete { ids, .. } => {
            all.extend(ids.into_iter().map(|id| DocumentChange { id, seq, written: None }));
        }
        Change::CreateCollection { .. } | Change::DropCollection { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::list_files;
    use crate::types::{CollectionName, NewDocument};
    use crate::{Database, DefinitionRequest};

    /// Seals a document in a log file of its own, and returns how many files the log has then.
    fn seal(things: &Collection) -> usize {
        let document =
            NewDocument { vector: Some(vec![1.0]), ..NewDocument::from_text(DocumentId::new("a").unwrap(), "") };
        things.upsert(vec![document]).unwrap();
        let shared = &things.engine.shared;
        shared.log().unwrap().rotate().unwrap();
        things.flush().unwrap();
        list_files(&shared.paths.log_dir()).unwrap().len()
    }

    #[test]
    fn the_log_is_kept_for_copies_while_nobody_tells_how_far_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let database = Database::open(dir.path()).unwrap();
            let name = CollectionName::new("things").unwrap();
            let things = database.create_collection(&name, &DefinitionRequest::vectors(1)).unwrap().collection;
            (database, things)
        };
        {
            let (_database, things) = open();
            assert_eq!([seal(&things), seal(&things)], [1, 1], "there are no copies");
        }
        std::fs::write(dir.path().join("replication.json"), "{}").unwrap();
        {
            let (_database, things) = open();
            assert_eq!([seal(&things), seal(&things)], [2, 3], "as any command on a stopped store does");
        }
        let (_database, things) = open();
        let holds = &things.engine.shared.holds;
        assert_eq!(seal(&things), 4);
        let hold = things.hold_log(things.store_seq());
        holds.let_go();
        assert_eq!([seal(&things), seal(&things)], [2, 3], "the copy has come so far");
        holds.pin();
        drop(hold);
        assert_eq!(seal(&things), 4, "until the store is closed");
    }
}
