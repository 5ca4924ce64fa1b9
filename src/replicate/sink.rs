//! One sink of a running store: a worker for each of its collections, or what is known of those that rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fence::Origin;
use super::settings::{ALL_COLLECTIONS, SinkSettings};
use super::status::{Phase, SharedStatus, SinkStatus};
use super::worker::{Command, Worker};
use crate::collection::{Collection, LogHold};
use crate::types::{CollectionName, Seq};

/// Commands that may wait for a worker.
const QUEUE: usize = 16;

/// A sink and what works for it.
pub(super) struct Sink {
    pub(super) settings: SinkSettings,
    pub(super) workers: BTreeMap<CollectionName, Running>,
    /// Copies that nobody works at while the sink is paused: how far each came, which is measured on.
    pub(super) resting: BTreeMap<CollectionName, Resting>,
    /// Keep the log for each copy, also while nobody works at it.
    pub(super) holds: BTreeMap<CollectionName, Arc<LogHold>>,
}

/// A worker.
pub(super) struct Running {
    pub(super) status: Arc<SharedStatus>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) task: JoinHandle<()>,
    pub(super) collection: Collection,
}

/// A copy that nobody works at.
pub(super) struct Resting {
    pub(super) status: Arc<SharedStatus>,
    pub(super) collection: Collection,
}

/// A sink as it is shown: its settings, and each collection's status.
pub type Shown = (SinkSettings, Vec<(CollectionName, SinkStatus)>);

impl Sink {
    pub(super) fn new(settings: SinkSettings) -> Self {
        Self { settings, workers: BTreeMap::new(), resting: BTreeMap::new(), holds: BTreeMap::new() }
    }

    /// Keeps the log for its collections; until a cursor is known, all of it.
    pub(super) fn hold(&mut self, collections: &[Collection]) {
        self.holds.retain(|name, _| collections.iter().any(|collection| collection.name() == name));
        for collection in collections.iter().filter(|collection| self.settings.copies(collection)) {
            let hold = || Arc::new(collection.hold_log(Seq(0)));
            self.holds.entry(collection.name().clone()).or_insert_with(hold);
        }
    }

    pub(super) fn spawn(&self, collection: &Collection, origin: &Origin, runtime: &Runtime) -> Running {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let status = Arc::new(SharedStatus::default());
        let sink = self.settings.name.as_str();
        let name = match self.settings.collection == ALL_COLLECTIONS {
            true => format!("{sink}/{}", collection.name()),
            false => sink.to_owned(),
        };
        let worker = Worker {
            settings: self.settings.clone(),
            name,
            collection: collection.clone(),
            origin: origin.clone(),
            status: status.clone(),
            commands: receiver,
            hold: self.holds.get(collection.name()).cloned().unwrap_or_else(|| Arc::new(collection.hold_log(Seq(0)))),
            take_over: false,
            distrusts: false,
            index: super::index::Attempts::default(),
        };
        let task = runtime.spawn(worker.run());
        Running { status, commands, task, collection: collection.clone() }
    }

    /// Ends the workers wherever they are: what a transaction has begun is rolled back by the database.
    pub(super) fn stop(&mut self) {
        for (name, Running { status, task, collection, .. }) in std::mem::take(&mut self.workers) {
            task.abort();
            self.resting.insert(name, Resting { status, collection });
        }
    }

    /// Counts the copies of a sink that was paused when the process began as lacking everything: nothing tells how far
    /// they came.
    pub(super) fn rest(&mut self, collections: &[Collection]) {
        self.resting.retain(|_, resting| !resting.collection.is_dropped());
        let is_missing = |collection: &&Collection| {
            self.settings.paused && self.settings.copies(collection) && !self.resting.contains_key(collection.name())
        };
        let missing: Vec<&Collection> = collections.iter().filter(is_missing).collect();
        for collection in missing {
            let resting = Resting { status: Arc::default(), collection: collection.clone() };
            self.resting.insert(collection.name().clone(), resting);
        }
    }

    pub(super) fn wake(&self) {
        // A full queue wakes it, too.
        self.workers.values().for_each(|running| _ = running.commands.try_send(Command::Wake));
    }

    pub(super) fn shown(&self) -> Shown {
        (self.settings.clone(), self.statuses().collect())
    }

    /// How each copy is doing, of those that rest what was last known.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (CollectionName, SinkStatus)> {
        let working = self.workers.iter().map(|(name, running)| (name.clone(), running.status.read()));
        let resting = self
            .resting
            .iter()
            .map(|(name, resting)| (name.clone(), SinkStatus { phase: Phase::Paused, ..resting.status.read() }));
        working.chain(resting)
    }

    pub(super) fn measure(&self) {
        let working = self.workers.values().map(|running| (&running.status, &running.collection));
        let resting = self.resting.values().map(|resting| (&resting.status, &resting.collection));
        for (status, collection) in working.chain(resting) {
            status.observe(collection.store_seq());
        }
    }
}

impl SinkSettings {
    pub(super) fn copies(&self, collection: &Collection) -> bool {
        self.collection == ALL_COLLECTIONS || self.collection == collection.name().as_str()
    }
}
