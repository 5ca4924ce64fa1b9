//! All sinks of a store: their settings, and a task each, which fail and rest without the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::fence::Origin;
use super::settings::{self, ALL_COLLECTIONS, SinkName, SinkSettings};
use super::sink::{Running, Shown, Sink};
use super::status::{Phase, SinkStatus};
use super::verify::{RepairReport, VerifyReport};
use super::worker::{Command, Reply};
use super::{ReplicateError, layout, state};
use crate::collection::Collection;
use crate::database::Database;
use crate::postgres::{QualifiedName, Session};
use crate::types::CollectionName;

/// Threads that move bytes to and from databases.
const THREADS: usize = 2;
/// New collections are looked for, and lags measured, this often.
const TICK: Duration = Duration::from_millis(100);
/// The same where there are no sinks; one that is added is seen to at once.
const IDLE_TICK: Duration = Duration::from_secs(5);
/// Longest wait for the end of a worker.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The sinks of an open store. Cheap to clone.
#[derive(Clone)]
pub struct Replicator {
    inner: Arc<Inner>,
}

struct Inner {
    database: Mutex<Option<Database>>,
    data: std::path::PathBuf,
    origin: Origin,
    /// Held while settings are written, before `sinks` is locked.
    editing: Mutex<()>,
    sinks: Mutex<BTreeMap<SinkName, Sink>>,
    runtime: Mutex<Option<Runtime>>,
}

/// How the copies of a store are doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Copies that are kept, also those that rest.
    pub copies: usize,
    /// Of them those that follow the changes now.
    pub streaming: usize,
    /// The most changes that one lacks.
    pub lag_seqs: u64,
    /// The age of the oldest change that one lacks, in seconds.
    pub lag_seconds: f64,
}

impl Replicator {
    /// The sinks of a store, at rest until [`Replicator::start`].
    ///
    /// # Errors
    /// [`ReplicateError::Settings`] when the settings' file cannot be understood.
    pub fn open(database: &Database) -> Result<Self, ReplicateError> {
        let data = database.path().to_owned();
        let sinks = settings::load(&data)?.into_iter().map(|settings| (settings.name.clone(), Sink::new(settings)));
        let origin = Origin { store_id: database.health().store_id, timeline: database.timeline() };
        let sinks = Mutex::new(sinks.collect());
        let database = Mutex::new(Some(database.clone()));
        let (editing, runtime) = (Mutex::default(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { database, data, origin, editing, sinks, runtime }) })
    }

    /// Sets the sinks to work. A second call does nothing.
    ///
    /// # Errors
    /// [`ReplicateError::Settings`] when the system starts no thread.
    pub fn start(&self) -> Result<(), ReplicateError> {
        let mut runtime = lock(&self.inner.runtime);
        if runtime.is_some() {
            return Ok(());
        }
        let started = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("pannier-replicate")
            .enable_all()
            .build()
            .map_err(|error| ReplicateError::Settings { reason: format!("no thread can be started: {error}") })?;
        let weak = Arc::downgrade(&self.inner);
        started.spawn(async move {
            while let Some(inner) = weak.upgrade() {
                inner.tick();
                let pause = if lock(&inner.sinks).is_empty() { IDLE_TICK } else { TICK };
                drop(inner);
                tokio::time::sleep(pause).await;
            }
        });
        *runtime = Some(started);
        drop(runtime);
        self.inner.tick();
        Ok(())
    }

    /// Ends every task and lets go of the store.
    pub fn stop(&self) {
        let runtime = lock(&self.inner.runtime).take();
        // Segments are sealed until it is closed.
        if let Some(database) = lock(&self.inner.database).as_ref() {
            database.keep_log_until_closed();
        }
        for sink in lock(&self.inner.sinks).values_mut() {
            sink.stop();
            sink.resting.clear();
            sink.holds.clear();
        }
        drop(lock(&self.inner.database).take());
        if let Some(runtime) = runtime {
            // Never from within a task of its own.
            runtime.shutdown_timeout(STOP_LIMIT);
        }
    }

    /// Adds a sink and sets it to work. Waits for the disk, as every change of the sinks does.
    ///
    /// # Errors
    /// [`ReplicateError::Exists`]; [`ReplicateError::NoCollection`]; [`ReplicateError::TableTaken`] where another sink
    /// writes the same rows; [`ReplicateError::Settings`] also for a connection URL that cannot be read now;
    /// [`ReplicateError::Storage`], and nothing was added.
    pub fn add(&self, settings: SinkSettings) -> Result<(), ReplicateError> {
        let database = settings.url.connection()?.database();
        if settings.collection != ALL_COLLECTIONS {
            let name = &settings.collection;
            let there = self.inner.collections().iter().any(|collection| collection.name().as_str() == name);
            if !there {
                return Err(ReplicateError::NoCollection { name: name.clone() });
            }
        }
        layout::check(&settings)?;
        let collections = self.inner.collections();
        for collection in collections.iter().filter(|collection| settings.copies(collection)) {
            layout::check_collection(&settings, collection.name().as_str(), collection.definition())?;
        }
        let sink = Sink::new(settings.clone());
        let add = |sinks: &mut BTreeMap<SinkName, SinkSettings>| {
            if sinks.contains_key(&settings.name) {
                return Err(ReplicateError::Exists { name: settings.name.as_str().to_owned() });
            }
            for other in sinks.values() {
                // What cannot be told now is told by the database, once it is connected to.
                let is_same = other.url.connection().is_ok_and(|connection| connection.database() == database);
                let shared = if is_same { shared_table(&settings, other, &collections)? } else { None };
                if let Some(table) = shared {
                    let (table, sink) = (table.plain(), other.name.as_str().to_owned());
                    return Err(ReplicateError::TableTaken { table, sink, store: None });
                }
            }
            sinks.insert(settings.name.clone(), settings.clone());
            Ok(settings.name.clone())
        };
        self.inner.edit(add, |sinks, name| _ = sinks.insert(name, sink))
    }

    /// All sinks by name.
    pub fn list(&self) -> Vec<Shown> {
        lock(&self.inner.sinks).values().map(Sink::shown).collect()
    }

    /// How all copies are doing together; `None` without any.
    pub fn summary(&self) -> Option<Summary> {
        let sinks = lock(&self.inner.sinks);
        let copies: Vec<SinkStatus> = sinks.values().flat_map(Sink::statuses).map(|(_, status)| status).collect();
        let streaming = copies.iter().filter(|status| status.phase == Phase::Streaming).count();
        let lag_seqs = copies.iter().map(|status| status.lag_seqs).max()?;
        let lag_seconds = copies.iter().map(|status| status.lag_seconds).fold(0.0, f64::max);
        Some(Summary { copies: copies.len(), streaming, lag_seqs, lag_seconds })
    }

    /// One sink.
    ///
    /// # Errors
    /// [`ReplicateError::NotFound`].
    pub fn status(&self, name: &str) -> Result<Shown, ReplicateError> {
        let sinks = lock(&self.inner.sinks);
        let sink = sinks.values().find(|sink| sink.settings.name.as_str() == name);
        sink.map(Sink::shown).ok_or_else(|| not_found(name))
    }

    /// Lets a sink rest, or work again; one that was fenced takes its place back.
    ///
    /// # Errors
    /// [`ReplicateError::NotFound`].
    pub fn set_paused(&self, name: &str, paused: bool) -> Result<(), ReplicateError> {
        let pause = |sinks: &mut BTreeMap<SinkName, SinkSettings>| {
            let settings = sinks.values_mut().find(|settings| settings.name.as_str() == name);
            let settings = settings.ok_or_else(|| not_found(name))?;
            settings.paused = paused;
            Ok(settings.name.clone())
        };
        self.inner.edit(pause, |sinks, name| {
            let Some(sink) = sinks.get_mut(&name) else { return };
            sink.settings.paused = paused;
            match paused {
                true => sink.stop(),
                false => sink.wake(),
            }
        })
    }

    /// Removes a sink, and what it left in the database to know how far it was; the table stays.
    ///
    /// # Errors
    /// [`ReplicateError::NotFound`]; [`ReplicateError::Storage`], and the sink goes on. A database that cannot be
    /// reached is no error, but said in the answer.
    pub async fn remove(&self, name: &str) -> Result<Option<String>, ReplicateError> {
        let (inner, sink) = (self.inner.clone(), name.to_owned());
        let taking_out = tokio::task::spawn_blocking(move || inner.take_out(&sink));
        let settings = taking_out.await.expect("nobody cancels it")?;
        let forgetting = async {
            let session = Session::connect(&settings.url.connection()?).await?;
            Ok::<_, ReplicateError>(state::forget(&session, &settings.state_schema, name, &self.inner.origin).await?)
        };
        Ok(forgetting.await.err().map(|error| error.chain()))
    }

    /// Compares a sink's tables with their collections.
    ///
    /// # Errors
    /// [`ReplicateError::NotFound`], [`ReplicateError::Busy`], and what kept it from comparing.
    pub async fn verify(&self, name: &str) -> Result<Vec<(CollectionName, VerifyReport)>, ReplicateError> {
        self.ask(name, Command::Verify).await
    }

    /// Mends a sink's tables where they differ, or only says what would be done.
    ///
    /// # Errors
    /// As [`Replicator::verify`].
    pub async fn repair(
        &self,
        name: &str,
        dry_run: bool,
    ) -> Result<Vec<(CollectionName, RepairReport)>, ReplicateError> {
        self.ask(name, |reply| Command::Repair { dry_run, reply }).await
    }

    /// Takes a sink over whose state is another store's; its table is then compared as a whole.
    ///
    /// # Errors
    /// As [`Replicator::verify`].
    pub async fn take_over(&self, name: &str) -> Result<(), ReplicateError> {
        self.ask(name, Command::TakeOver).await.map(drop)
    }

    /// Asks each of a sink's workers and waits for the answers.
    async fn ask<T>(
        &self,
        name: &str,
        command: impl Fn(Reply<T>) -> Command,
    ) -> Result<Vec<(CollectionName, T)>, ReplicateError> {
        // Without a server nobody has set it to work yet.
        self.start()?;
        let workers: Vec<_> = {
            let sinks = lock(&self.inner.sinks);
            let sink =
                sinks.values().find(|sink| sink.settings.name.as_str() == name).ok_or_else(|| not_found(name))?;
            if sink.settings.paused {
                return Err(ReplicateError::Busy { phase: "paused".to_owned(), reason: "resume it first".to_owned() });
            }
            let of = |(name, running): (&CollectionName, &Running)| {
                (name.clone(), running.commands.clone(), running.collection.clone())
            };
            sink.workers.iter().map(of).collect()
        };
        let mut answers = Vec::new();
        for (name, commands, collection) in workers {
            let (reply, answer) = oneshot::channel();
            let gone = || {
                let reason = match collection.is_dropped() {
                    true => "its collection was dropped",
                    false => "it broke off or was stopped meanwhile; look at its status, then ask again",
                };
                ReplicateError::Busy { phase: "stopped".to_owned(), reason: reason.to_owned() }
            };
            commands.send(command(reply)).await.map_err(|_| gone())?;
            answers.push((name, answer.await.map_err(|_| gone())??));
        }
        Ok(answers)
    }
}

impl Inner {
    fn collections(&self) -> Vec<Collection> {
        lock(&self.database).as_ref().map(Database::collections).unwrap_or_default()
    }

    /// Changes the settings, and once they are kept the sinks. While they are written nobody waits for the sinks.
    fn edit<T, U>(
        &self,
        change: impl FnOnce(&mut BTreeMap<SinkName, SinkSettings>) -> Result<T, ReplicateError>,
        apply: impl FnOnce(&mut BTreeMap<SinkName, Sink>, T) -> U,
    ) -> Result<U, ReplicateError> {
        let editing = lock(&self.editing);
        let settings = |sink: &Sink| (sink.settings.name.clone(), sink.settings.clone());
        let mut all = lock(&self.sinks).values().map(settings).collect();
        let changed = change(&mut all)?;
        let database = lock(&self.database).clone();
        let save = || settings::save(&self.data, all.into_values().collect());
        match database {
            Some(database) => database.change_files(save)?,
            None => save()?,
        }
        let done = apply(&mut lock(&self.sinks), changed);
        drop(editing);
        self.tick();
        Ok(done)
    }

    fn take_out(&self, name: &str) -> Result<SinkSettings, ReplicateError> {
        let remove = |sinks: &mut BTreeMap<SinkName, SinkSettings>| {
            let key = sinks.keys().find(|key| key.as_str() == name).cloned();
            key.and_then(|key| sinks.remove(&key)).ok_or_else(|| not_found(name))
        };
        self.edit(remove, |sinks, settings| {
            sinks.remove(&settings.name).iter_mut().for_each(Sink::stop);
            settings
        })
    }

    /// Gives every collection of every sink its worker, and measures.
    fn tick(&self) {
        let collections = self.collections();
        let runtime = lock(&self.runtime);
        let Some(runtime) = runtime.as_ref() else { return };
        let mut sinks = lock(&self.sinks);
        for sink in sinks.values_mut() {
            // One that ended although its collection is there is begun anew.
            sink.workers.retain(|_, running| !running.task.is_finished());
            sink.hold(&collections);
            let is_new = |collection: &&Collection| {
                sink.settings.copies(collection) && !sink.workers.contains_key(collection.name())
            };
            let new: Vec<&Collection> = match sink.settings.paused {
                true => Vec::new(),
                false => collections.iter().filter(is_new).collect(),
            };
            for collection in new {
                let running = sink.spawn(collection, &self.origin, runtime);
                sink.resting.remove(collection.name());
                sink.workers.insert(collection.name().clone(), running);
            }
            sink.rest(&collections);
            sink.measure();
        }
        drop(sinks);
        if let Some(database) = lock(&self.database).as_ref() {
            database.copies_hold_the_log();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Perhaps from within a task, where nothing may be waited for.
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

/// The table that two sinks of one database would both write to.
fn shared_table(
    one: &SinkSettings,
    other: &SinkSettings,
    collections: &[Collection],
) -> Result<Option<QualifiedName>, ReplicateError> {
    let copied = |settings: &SinkSettings| -> Vec<&str> {
        collections.iter().filter(|c| settings.copies(c)).map(|c| c.name().as_str()).collect()
    };
    for ours in copied(one) {
        for theirs in copied(other) {
            if let Some(table) = layout::shares_rows((one, ours), (other, theirs))? {
                return Ok(Some(table));
            }
        }
    }
    Ok(None)
}

fn not_found(name: &str) -> ReplicateError {
    ReplicateError::NotFound { name: name.to_owned() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicate::SecretFrom;
    use crate::storage::fault::{Faults, Operation, Then};

    #[test]
    fn what_cannot_be_kept_is_not_done() {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let replicator = Replicator::open(&database).unwrap();
        let sink = |name: &str| {
            let url = SecretFrom::Clear("postgres://me@127.0.0.1:1/x".into());
            let mut settings = SinkSettings::new(SinkName::new(name).unwrap(), ALL_COLLECTIONS, url);
            settings.table = Some(format!("public.{name}_{{collection}}"));
            settings
        };
        let shown = || replicator.list().into_iter().map(|(settings, _)| settings).collect::<Vec<_>>();
        replicator.add(sink("a")).unwrap();
        let failing = |what: &dyn Fn() -> Result<(), ReplicateError>| {
            let faults = Faults::arm_only(directory.path(), Operation::Rename, 0, Then::Recover);
            assert!(matches!(what(), Err(ReplicateError::Storage(_))) && faults.fired());
            drop(faults);
            assert_eq!(shown(), [sink("a")]);
            assert_eq!(settings::load(directory.path()).unwrap(), [sink("a")]);
        };
        failing(&|| replicator.add(sink("b")));
        failing(&|| replicator.set_paused("a", true));
        failing(&|| replicator.inner.take_out("a").map(drop));
        replicator.set_paused("a", true).unwrap();
        assert!(shown()[0].paused);
        assert!(runtime.block_on(replicator.remove("a")).unwrap().is_some(), "no such server");
        assert_eq!(settings::load(directory.path()).unwrap(), []);
    }
}
