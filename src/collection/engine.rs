//! What the collections of a store share: the log, the document index, the manifest, the models, the background
//! threads.

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};

use crate::embed::Models;
use crate::index::LiveSegment;
use crate::log::{Change, GroupCommit, LogError};
use crate::manifest::Manifest;
use crate::meta::{self, MetaIndex};
use crate::storage::{self, DataPaths, DirectoryLock, RateLimit, StorageError};
use crate::types::{Chain, CollectionId, GraphBuilder, Seq};

use super::CollectionError;
use super::catalog::Catalog;
use super::changes::LogHolds;
use super::keywords::{Bell, KeywordWorker};
use super::maintenance::{Job, Maintenance};
use super::packing::{PackWorker, Packing};
use super::recall::{RecallWorker, Sampler};
use super::state::{CollectionState, Identity, SealedPart};

/// How an engine works, as decided when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What builds graphs.
    pub builder: GraphBuilder,
    /// Threads for building graphs; `None` for all cores.
    pub threads: Option<NonZeroUsize>,
    /// Most entries of a memtable before it is sealed.
    pub memtable_entries: u32,
    /// One search in so many is answered again to sample recall; 0 for none.
    pub sampled_one_in: u32,
    /// Most memory for rows that are packed for filters asked often; 0 for none.
    pub packed_bytes: usize,
    /// Bytes a second that merges write at most; `None` for no limit.
    pub merge_bytes_per_s: Option<NonZeroU64>,
    /// Most bytes of log that are kept for copies alone.
    pub copies_log_bytes: u64,
}

/// Everything that the log's thread and the background threads need.
pub struct Shared {
    /// Where the files are.
    pub paths: DataPaths,
    /// Whose files they are.
    pub identity: meta::Identity,
    /// The collections.
    pub catalog: Catalog,
    /// Where sealed documents stand.
    pub meta: MetaIndex,
    /// How it works.
    pub settings: Settings,
    /// Decides which searches are answered again.
    pub sampler: Arc<Sampler>,
    /// Packs what filters that are asked often let through.
    pub packing: Arc<Packing>,
    /// Holds merges to their rate.
    pub merge_rate: RateLimit,
    /// Calls the thread of the keyword indexes.
    pub bell: Bell,
    /// How far copies elsewhere have read the log.
    pub holds: Arc<LogHolds>,
    /// What a merge reads, opened for itself.
    merging: Mutex<Vec<Arc<LiveSegment>>>,
    /// The manifest as last published. Held while segments are installed; taken before any collection's locks.
    manifest: Mutex<Manifest>,
    applied_seq: AtomicU64,
    log: OnceLock<GroupCommit>,
    jobs: OnceLock<mpsc::Sender<Job>>,
}

impl Shared {
    /// The state of a store before its log is replayed.
    pub fn new(paths: DataPaths, catalog: Catalog, meta: MetaIndex, manifest: Manifest, settings: Settings) -> Self {
        let holds = LogHolds::new(settings.copies_log_bytes);
        // Nobody has told yet how far the copies are.
        if paths.copies().exists() {
            holds.hold_all();
        }
        Self {
            paths,
            identity: meta::Identity { store_id: manifest.store_id.0, timeline: manifest.timeline },
            catalog,
            meta,
            settings,
            sampler: Arc::new(Sampler::new(settings.sampled_one_in)),
            packing: Arc::new(Packing::new(settings.packed_bytes)),
            merge_rate: RateLimit::new(settings.merge_bytes_per_s),
            bell: Bell::default(),
            holds: Arc::new(holds),
            merging: Mutex::default(),
            applied_seq: AtomicU64::new(manifest.log_start.0),
            manifest: Mutex::new(manifest),
            log: OnceLock::new(),
            jobs: OnceLock::new(),
        }
    }

    /// The log, once it is open for writing.
    pub fn log(&self) -> Option<&GroupCommit> {
        self.log.get()
    }

    /// The youngest change applied.
    pub fn applied_seq(&self) -> Seq {
        Seq(self.applied_seq.load(Ordering::Acquire))
    }

    /// The manifest, for whoever installs segments.
    pub fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments that the merge under way has opened for itself.
    pub fn merging(&self) -> MutexGuard<'_, Vec<Arc<LiveSegment>>> {
        self.merging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the background threads for work. Before they run, during recovery, there is nobody to ask: they look at
    /// everything when they start.
    pub fn ask(&self, job: Job) {
        if let Some(jobs) = self.jobs.get() {
            // A send fails only while the store closes, when the work waits for the next start.
            _ = jobs.send(job);
        }
    }

    /// Opens the log for writing.
    pub fn attach_log(&self, log: GroupCommit) {
        assert!(self.log.set(log).is_ok(), "the log is attached once");
    }

    /// Takes no more writes once a file of the store could not be made durable: what the disk holds is not known then.
    pub fn stop_on_failed_sync(&self, error: &(dyn std::error::Error + 'static)) {
        if storage::is_failed_sync(error)
            && let Some(log) = self.log()
        {
            tracing::error!(error = %Chain(error), "the store stops: the disk failed");
            log.stop(&Chain(error).to_string());
        }
    }

    /// Connects the background threads.
    pub fn connect(&self, jobs: mpsc::Sender<Job>) {
        assert!(self.jobs.set(jobs).is_ok(), "the background threads start once");
    }

    /// Applies a change that is in the log. Changes come in the order of their seqs, each once; during recovery also
    /// those that the segments have already, which are passed over.
    pub fn apply(&self, seq: Seq, change: Change) {
        match change {
            // A number that was given out already: the manifest has the collection, or had it before it was dropped.
            Change::CreateCollection { id, .. } if id.0 < self.catalog.next_id() => {}
            Change::CreateCollection { id, name, definition, created_at_ms } => {
                let identity = Identity { id, name, definition, created_at_ms, created_seq: seq };
                let sealed = SealedPart { segments: Vec::new(), sealed_seq: Seq(0) };
                self.catalog.insert(Arc::new(CollectionState::new(identity, sealed, self.settings.memtable_entries)));
            }
            Change::DropCollection { id } => {
                if let Some(state) = self.catalog.remove(id) {
                    state.mark_dropped();
                    self.bell.ring(&state);
                    self.ask(Job::Drop(state));
                }
            }
            Change::Upsert { collection, documents } => {
                self.on_collection(collection, seq, |state| state.apply_upsert(&self.meta, seq, documents));
            }
            Change::Delete { collection, ids } => {
                self.on_collection(collection, seq, |state| state.apply_delete(&self.meta, seq, ids));
            }
        }
        self.applied_seq.store(seq.0, Ordering::Release);
    }

    /// A change to a collection that was dropped meanwhile, or that the segments have already, changes nothing.
    fn on_collection(&self, id: CollectionId, seq: Seq, apply: impl FnOnce(&CollectionState) -> bool) {
        let Some(state) = self.catalog.by_id(id) else { return };
        if seq <= state.last_seq() {
            return;
        }
        let froze = apply(&state);
        self.bell.ring(&state);
        if froze {
            self.ask(Job::Seal(state));
        }
    }
}

/// An open store. Dropping the last handle finishes accepted writes and closes it.
pub struct Engine {
    /// What the threads share.
    pub shared: Arc<Shared>,
    /// The embedding models.
    pub models: Models,
    /// Held while a collection is created or dropped, so that names and numbers are given out one at a time.
    pub defining: Mutex<()>,
    maintenance: Option<Maintenance>,
    keywords: Option<KeywordWorker>,
    recall: Option<RecallWorker>,
    packer: Option<PackWorker>,
    stopped: OnceLock<String>,
    // Last, so that the directory is free only once everything is closed.
    _lock: DirectoryLock,
}

impl Engine {
    /// Starts the background threads over a recovered store. Where one does not start, the store is closed again.
    ///
    /// # Errors
    /// [`StorageError::Io`] when the system has no thread left.
    pub fn start(shared: Arc<Shared>, models: Models, lock: DirectoryLock) -> Result<Self, StorageError> {
        let mut engine = Self {
            shared,
            models,
            defining: Mutex::new(()),
            maintenance: None,
            keywords: None,
            recall: None,
            packer: None,
            stopped: OnceLock::new(),
            _lock: lock,
        };
        let started = engine.start_threads();
        started.map_err(|e| StorageError::io(engine.shared.paths.root(), "start a thread for", e))?;
        Ok(engine)
    }

    fn start_threads(&mut self) -> io::Result<()> {
        self.maintenance = Some(Maintenance::start(self.shared.clone())?);
        self.keywords = Some(KeywordWorker::start(self.shared.clone())?);
        self.recall = Some(RecallWorker::start(self.shared.sampler.clone())?);
        self.packer = Some(PackWorker::start(self.shared.packing.clone())?);
        Ok(())
    }

    /// Logs a change and waits until it is durable and visible.
    ///
    /// # Errors
    /// [`CollectionError::Stopped`] once the store closes or its disk failed, [`CollectionError::Overloaded`] when too
    /// much is queued, [`CollectionError::Log`] when the write was refused, or failed: [`LogError`] says which.
    pub fn commit(&self, change: Change) -> Result<Seq, CollectionError> {
        if let Some(reason) = self.stop_reason() {
            return Err(CollectionError::Stopped { reason });
        }
        let log = self.shared.log().expect("an engine starts over an open log");
        match log.submit(change).and_then(|ticket| ticket.wait()) {
            Err(LogError::QueueFull { .. }) => Err(CollectionError::Overloaded),
            other => Ok(other?),
        }
    }

    /// Why writes are no longer taken, if so.
    pub fn stop_reason(&self) -> Option<String> {
        self.stopped.get().cloned().or_else(|| self.shared.log()?.failed())
    }

    /// Stops taking writes; those accepted are finished when the last handle is dropped.
    pub fn stop(&self) {
        _ = self.stopped.set("it is closing".to_owned());
    }

    /// Bytes of log on disk.
    pub fn log_bytes(&self) -> u64 {
        self.shared.log().map_or(0, |log| log.position().bytes)
    }

    /// The background threads.
    pub fn maintenance(&self) -> &Maintenance {
        self.maintenance.as_ref().expect("the threads are there until the engine is dropped")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Ends the log's thread, which holds `shared` too.
        if let Some(log) = self.shared.log()
            && let Err(error) = log.close()
        {
            tracing::error!(%error, "closing the log failed");
        }
        drop(self.recall.take());
        drop(self.packer.take());
        drop(self.keywords.take());
        drop(self.maintenance.take());
    }
}

/// Flushes the document index and leaves its mark. Without it, the index is made again at the next start.
impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.meta.close(self.identity) {
            tracing::warn!(%error, "the document index was not closed cleanly; it will be made again");
        }
    }
}
