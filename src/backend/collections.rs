//! All collections of a process: those of its store, and those that it knows in databases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::collection::{BackendFault, CollectionError, DefinitionRequest, difference};
use crate::database::Database;
use crate::log::{Change, creation_of_text};
use crate::manifest::ManifestError;
use crate::storage::StorageError;
use crate::types::{CollectionName, Definition, Quantization, Seq};

use super::pool::{Pool, PoolFigures, Threads};
use super::remote::{Inner as Remote, RemoteCollection};
use super::settings::{self, Entry, Placement, UrlFrom};
use super::table::{self, Standing};
use super::{AnyCollection, fault};

/// So long a call waits for another that creates or drops a collection of the same name.
const NAME_WAIT_LIMIT: Duration = Duration::from_secs(10);

/// The collections of a store and those in databases: cheap to clone.
#[derive(Clone)]
pub struct Collections {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    /// `Err` with why those in databases are not known.
    remote: Result<RwLock<Known>, String>,
    connections: Connections,
    defining: Defining,
}

/// Those in databases.
type Known = BTreeMap<CollectionName, RemoteCollection>;

type Names = BTreeSet<CollectionName>;

/// Has one call at a time create or drop a collection of a name.
#[derive(Default)]
struct Defining {
    /// The names of which a database is asked, which may take long. Held while a collection of the store is created or
    /// dropped, and while a change of those in databases is noted; never while a database is waited for.
    names: Mutex<Names>,
    /// Told when one of them goes.
    gone: Condvar,
}

/// A name that nobody else creates or drops until this is dropped.
struct Claim<'a> {
    defining: &'a Defining,
    name: &'a CollectionName,
}

/// One pool for each database, and the threads that they share. Nothing is started before it is needed.
#[derive(Default)]
struct Connections {
    pools: Mutex<BTreeMap<UrlFrom, Arc<Pool>>>,
    threads: OnceLock<Option<Arc<Threads>>>,
}

/// A collection that was asked for, and whether it is new to this process.
pub struct CreatedAnywhere {
    /// The collection.
    pub collection: AnyCollection,
    /// `false` where it stood already, with the same definition.
    pub created: bool,
}

impl Collections {
    /// Those of a store, and those that its directory names. Connects to nothing.
    pub fn open(database: &Database) -> Self {
        let connections = Connections::default();
        let remote = settings::load(database.path())
            .and_then(|entries| entries.into_iter().map(|entry| read(entry, database, &connections)).collect())
            .map(RwLock::new);
        if let Err(reason) = &remote {
            tracing::error!(reason, "the collections in databases are not known");
        }
        let (database, defining) = (database.clone(), Defining::default());
        Self { inner: Arc::new(Inner { database, remote, connections, defining }) }
    }

    /// The collection of this name.
    ///
    /// # Errors
    /// [`CollectionError::NotFound`]; [`CollectionError::Backend`] where the store has one of the name and a database
    /// too.
    pub fn get(&self, name: &CollectionName) -> Result<AnyCollection, CollectionError> {
        if let Some(collection) = self.remote(name) {
            self.check_alone(&collection)?;
            return Ok(AnyCollection::Remote(collection));
        }
        match self.inner.database.collection(name) {
            Err(CollectionError::NotFound { .. }) if self.inner.remote.is_err() => {
                Err(self.unknown(name).expect_err("the file could not be read"))
            }
            other => Ok(AnyCollection::Local(other?)),
        }
    }

    /// Whether a collection of this name is known to stand in a database.
    pub fn is_remote(&self, name: &CollectionName) -> bool {
        self.remote(name).is_some()
    }

    /// Every collection, by name: once, where the store has one of a name and a database too.
    pub fn all(&self) -> Vec<AnyCollection> {
        let mut all: Vec<_> = self.inner.database.collections().into_iter().map(AnyCollection::Local).collect();
        if let Ok(remote) = &self.inner.remote {
            let remote = remote.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(remote.values().cloned().map(AnyCollection::Remote));
        }
        // A stable sort: the store's come first.
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all.dedup_by(|later, first| later.name() == first.name());
        all
    }

    /// The databases that collections stand in, each with its sessions at this moment.
    pub fn pools(&self) -> Vec<(UrlFrom, PoolFigures)> {
        let pools = self.inner.connections.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().map(|(url, pool)| (url.clone(), pool.figures())).collect()
    }

    /// Creates a collection in the store of this process, or finds the one that stands already.
    ///
    /// # Errors
    /// As [`Database::create_collection`]; [`CollectionError::Backend`] for a new one while those in databases, which
    /// may have its name, are not known, and where the name is being created or dropped in one.
    pub fn create_local(
        &self,
        name: &CollectionName,
        request: &DefinitionRequest,
    ) -> Result<CreatedAnywhere, CollectionError> {
        let _alone = self.inner.defining.wait_for(name)?;
        if let Some(there) = self.remote(name) {
            self.check_alone(&there)?;
            let difference = format!("backend: {} != none", there.placement().qualified().plain());
            return Err(CollectionError::Exists { name: name.clone(), difference });
        }
        if self.inner.database.collection(name).is_err() {
            self.unknown(name)?;
        }
        let created = self.inner.database.create_collection(name, request)?;
        Ok(CreatedAnywhere { collection: AnyCollection::Local(created.collection), created: created.created })
    }

    /// Creates a collection in a database: makes its table, or takes over the one that another process made with the
    /// same definition.
    ///
    /// # Errors
    /// [`CollectionError::NotOnBackend`] for what the backend has not, [`CollectionError::Exists`] where another
    /// collection has the name, [`CollectionError::Backend`] where the database or its table is not as needed,
    /// [`CollectionError::Manifest`] where the data directory takes no note of it, and what a definition is refused
    /// for.
    pub fn create_remote(
        &self,
        name: &CollectionName,
        request: &DefinitionRequest,
        placement: Placement,
    ) -> Result<CreatedAnywhere, CollectionError> {
        let cannot = |cannot: String| CollectionError::NotOnBackend { name: name.clone(), cannot };
        if let Some(fault) = placement.fault() {
            return Err(cannot(fault));
        }
        if request.quantization.is_some_and(|walked| walked != Quantization::None) {
            return Err(cannot("keeps vectors as they are; leave \"index.quantization\" out, or say \"none\"".into()));
        }
        let request = DefinitionRequest { quantization: Some(Quantization::None), ..request.clone() };
        let definition = request.complete(self.inner.database.models())?;
        if let Some(clause) = table::unsupported(&definition) {
            return Err(cannot(clause));
        }
        let defining = &self.inner.defining;
        let _claim = defining.claim(defining.wait_for(name)?, name);
        let known = self.known(name)?;
        if self.inner.database.collection(name).is_ok() {
            let difference = format!("backend: none != {}", placement.qualified().plain());
            return Err(CollectionError::Exists { name: name.clone(), difference });
        }
        let there = known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(there) = there {
            let differs = match there.placement() == &placement {
                true => difference(there.definition(), &definition),
                false => Some(format!("backend: {:?} != {placement:?}", there.placement())),
            };
            if let Some(difference) = differs {
                return Err(CollectionError::Exists { name: name.clone(), difference });
            }
            // One that somebody dropped is made again.
            if there.has_table()? {
                return Ok(CreatedAnywhere { collection: AnyCollection::Remote(there), created: false });
            }
        }
        let _unused = ForgetUnused(&self.inner.connections);
        let pool = self.inner.connections.pool(&placement.url).map_err(|reason| failed(name, reason))?;
        let now = jiff::Timestamp::now().as_millisecond();
        // Sent again, it finds what it made.
        let made = pool.write_again(async |session| {
            fault::settled(table::create(session, &placement, name, &definition, now).await)
        });
        let standing = fault::settle(name, made)?;
        let collection = self.collection(name, definition, placement, standing, pool);
        self.note(known, |known| _ = known.insert(name.clone(), collection.clone()))?;
        Ok(CreatedAnywhere { collection: AnyCollection::Remote(collection), created: true })
    }

    /// Drops a collection with everything in it. `keep_table`: forgets one in a database, whose table stays for others.
    /// Returns the change that did it; 0 where only this process changed.
    ///
    /// # Errors
    /// [`CollectionError::NotFound`], [`CollectionError::Stopped`], [`CollectionError::Backend`],
    /// [`CollectionError::Query`] for a table to keep where there is none, [`CollectionError::Manifest`] where the data
    /// directory takes no note of it: the collection is then known still, its table perhaps gone; drop it again.
    pub fn drop_collection(&self, name: &CollectionName, keep_table: bool) -> Result<Seq, CollectionError> {
        let alone = self.inner.defining.wait_for(name)?;
        let Some(collection) = self.remote(name) else { return self.drop_local(name, keep_table) };
        let _claim = self.inner.defining.claim(alone, name);
        let known = self.known(name)?;
        if !keep_table {
            self.check_alone(&collection)?;
        }
        let inner = &collection.inner;
        // Sent again, it finds nothing.
        let version = match keep_table {
            true => 0,
            false => {
                let used = collection.used_table();
                let dropped = inner.pool.write_again(async |session| {
                    fault::settled(table::drop_table(session, &inner.placement, &inner.definition, used).await)
                });
                fault::settle(name, dropped)?
            }
        };
        self.note(known, |known| _ = known.remove(name))?;
        drop(collection);
        drop(ForgetUnused(&self.inner.connections));
        Ok(Seq(u64::try_from(version).unwrap_or(0)))
    }

    fn drop_local(&self, name: &CollectionName, keep_table: bool) -> Result<Seq, CollectionError> {
        if !keep_table {
            return self.inner.database.drop_collection(name);
        }
        self.get(name)?;
        let name = name.as_str();
        let detail = format!("\"keep_table\" is about collections in a database, and {name:?} is none; leave it out");
        Err(CollectionError::Query { detail })
    }

    fn collection(
        &self,
        name: &CollectionName,
        definition: Definition,
        placement: Placement,
        standing: Standing,
        pool: Arc<Pool>,
    ) -> RemoteCollection {
        let Standing { table, created_at_ms, creation } = standing;
        let models = self.inner.database.models().clone();
        let (checked, used, is_large) = (Mutex::default(), Mutex::new(Some(table)), Mutex::default());
        let name = name.clone();
        let inner =
            Remote { name, definition, created_at_ms, creation, placement, models, pool, checked, used, is_large };
        RemoteCollection { inner: Arc::new(inner) }
    }

    /// The collections in databases.
    fn known(&self, name: &CollectionName) -> Result<&RwLock<Known>, CollectionError> {
        self.inner.remote.as_ref().map_err(|reason| failed(name, reason.clone()))
    }

    fn unknown(&self, name: &CollectionName) -> Result<(), CollectionError> {
        self.known(name).map(drop)
    }

    /// Refuses a collection whose name the store has too, as after the restore of a snapshot: which of them is meant,
    /// nobody knows.
    fn check_alone(&self, remote: &RemoteCollection) -> Result<(), CollectionError> {
        let name = remote.name();
        if self.inner.database.collection(name).is_err() {
            return Ok(());
        }
        let detail = format!(
            "one of this name stands in the store, and another in table {}; DELETE it with \"keep_table=true\": that \
             forgets the table here, which stays as it is, and leaves the store's",
            remote.placement().qualified().plain()
        );
        Err(CollectionError::Backend { name: name.clone(), fault: BackendFault::Conflict, detail })
    }

    fn remote(&self, name: &CollectionName) -> Option<RemoteCollection> {
        // Those of the store are served although the file cannot be read.
        let known = self.inner.remote.as_ref().ok()?;
        known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Changes what is known, once the data directory has taken note of it.
    fn note(&self, known: &RwLock<Known>, change: impl FnOnce(&mut Known)) -> Result<(), CollectionError> {
        let _one_at_a_time = self.inner.defining.names();
        let mut changed = known.read().unwrap_or_else(PoisonError::into_inner).clone();
        change(&mut changed);
        // Without the lock, which every search of any collection asks for.
        self.save(&changed).map_err(not_noted)?;
        *known.write().unwrap_or_else(PoisonError::into_inner) = changed;
        Ok(())
    }

    fn save(&self, known: &Known) -> Result<(), StorageError> {
        let entry = |collection: &RemoteCollection| Entry {
            name: collection.name().to_string(),
            placement: collection.inner.placement.clone(),
            creation: collection.inner.creation.clone(),
            table_number: collection.used_table(),
        };
        let (database, entries) = (&self.inner.database, known.values().map(entry).collect());
        database.change_files(|| settings::save(database.path(), entries))
    }
}

impl Defining {
    /// Waits until no database is asked about this name; none is before the guard is dropped.
    ///
    /// # Errors
    /// [`CollectionError::Backend`] where that takes longer than [`NAME_WAIT_LIMIT`].
    fn wait_for(&self, name: &CollectionName) -> Result<MutexGuard<'_, Names>, CollectionError> {
        let is_asked = |names: &mut Names| names.contains(name);
        let waited = self.gone.wait_timeout_while(self.names(), NAME_WAIT_LIMIT, is_asked);
        let (names, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        match waited.timed_out() {
            false => Ok(names),
            true => {
                let detail = "another call creates or drops it in its database; try again shortly".to_owned();
                Err(CollectionError::Backend { name: name.clone(), fault: BackendFault::Busy, detail })
            }
        }
    }

    /// Takes a name that nobody has, as [`Defining::wait_for`] says, while a database is asked about it.
    fn claim<'a>(&'a self, mut alone: MutexGuard<'_, Names>, name: &'a CollectionName) -> Claim<'a> {
        alone.insert(name.clone());
        Claim { defining: self, name }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.defining.names().remove(self.name);
        self.defining.gone.notify_all();
    }
}

/// A collection as the file has it.
fn read(
    entry: Entry,
    database: &Database,
    connections: &Connections,
) -> Result<(CollectionName, RemoteCollection), String> {
    let Entry { name, placement, creation, table_number } = entry;
    let Some(Change::CreateCollection { definition, created_at_ms, .. }) = creation_of_text(&creation) else {
        return Err(format!("the definition of collection {name:?} cannot be read; it may be of a later version"));
    };
    let name = CollectionName::new(&name).map_err(|error| error.to_string())?;
    let inner = Remote {
        name: name.clone(),
        definition,
        created_at_ms,
        creation,
        models: database.models().clone(),
        pool: connections.pool(&placement.url)?,
        placement,
        checked: Mutex::default(),
        used: Mutex::new(table_number),
        is_large: Mutex::default(),
    };
    Ok((name, RemoteCollection { inner: Arc::new(inner) }))
}

fn failed(name: &CollectionName, detail: String) -> CollectionError {
    CollectionError::Backend { name: name.clone(), fault: BackendFault::Failed, detail }
}

/// A failure of the data directory, not of the database.
fn not_noted(error: StorageError) -> CollectionError {
    match error {
        StorageError::Stopped { reason } => CollectionError::Stopped { reason },
        other => CollectionError::Manifest(ManifestError::Storage(other)),
    }
}

/// Forgets the pools that no collection uses, once it is dropped.
struct ForgetUnused<'a>(&'a Connections);

impl Drop for ForgetUnused<'_> {
    fn drop(&mut self) {
        let mut pools = self.0.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|_, pool| Arc::strong_count(pool) > 1);
    }
}

impl Connections {
    fn pool(&self, url: &UrlFrom) -> Result<Arc<Pool>, String> {
        let make = || {
            let started = Threads::start();
            started.inspect_err(|error| tracing::error!(%error, "no threads for databases")).ok().map(Arc::new)
        };
        let threads = self.threads.get_or_init(make).clone().ok_or("no threads for connections to databases")?;
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(pools.entry(url.clone()).or_insert_with(|| Arc::new(Pool::new(url.clone(), threads))).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::log::creation_to_text;
    use crate::storage::fault::{ENOSPC, Faults, Operation, Plan, Then};
    use crate::storage::is_disk_full;
    use crate::types::CollectionId;

    #[test]
    fn a_drop_that_cannot_be_noted_is_the_disks_failure_and_can_be_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let name = CollectionName::new("a").unwrap();
        let definition = DefinitionRequest::vectors(3).complete(database.models()).unwrap();
        let change = Change::CreateCollection { id: CollectionId(0), name: name.clone(), definition, created_at_ms: 1 };
        let creation = creation_to_text(&change).unwrap();
        let placement = Placement::new(&name, None, None, None);
        settings::save(dir.path(), vec![Entry { name: name.to_string(), placement, creation, table_number: None }])
            .unwrap();
        let collections = Collections::open(&database);
        let plan = Plan { only: &[Operation::Create], fail_at: 0, then: Then::Recover, errno: ENOSPC };
        let faults = Faults::with(dir.path(), plan);
        let error = collections.drop_collection(&name, true).unwrap_err();
        assert!(faults.fired() && is_disk_full(&error), "{error:?}");
        drop(faults);
        assert!(collections.get(&name).is_ok(), "it stands in the file still");
        assert_eq!(settings::load(dir.path()).unwrap().len(), 1);
        collections.drop_collection(&name, true).unwrap();
        assert!(matches!(collections.get(&name), Err(CollectionError::NotFound { .. })), "it was forgotten");
        assert_eq!(settings::load(dir.path()).unwrap(), []);
    }

    #[test]
    fn a_database_that_no_collection_uses_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path()).unwrap();
        let (collections, name) = (Collections::open(&database), CollectionName::new("a").unwrap());
        for variable in ["PANNIER_NO_SUCH_A", "PANNIER_NO_SUCH_B"] {
            let placement = Placement::new(&name, Some(UrlFrom::Variable(variable.to_owned())), None, None);
            let created = collections.create_remote(&name, &DefinitionRequest::vectors(3), placement);
            assert!(created.is_err(), "there is no such variable");
        }
        assert!(collections.pools().is_empty(), "nobody uses one");
    }

    /// A database that takes connections and says nothing, and where a collection of it would stand.
    fn silent(dir: &std::path::Path, name: &CollectionName) -> (TcpListener, Placement) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, file) = (listener.local_addr().unwrap(), dir.join("url"));
        std::fs::write(&file, format!("postgres://me@{address}/x?sslmode=disable")).unwrap();
        (listener, Placement::new(name, Some(UrlFrom::File(file)), None, None))
    }

    #[test]
    fn a_database_that_does_not_answer_keeps_no_other_name_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path().join("data")).unwrap();
        let [near, far] = ["near", "far"].map(|name| CollectionName::new(name).unwrap());
        let (listener, placement) = silent(dir.path(), &far);
        let collections = Collections::open(&database);
        let request = DefinitionRequest::vectors(3);
        let asked = std::thread::spawn({
            let (collections, far, request) = (collections.clone(), far.clone(), request.clone());
            move || collections.create_remote(&far, &request, placement).map(|created| created.created)
        });
        let (stream, _): (TcpStream, _) = listener.accept().unwrap();
        assert!(collections.create_local(&near, &request).unwrap().created);
        assert!(!collections.create_local(&near, &request).unwrap().created);
        collections.drop_collection(&near, false).unwrap();
        assert!(!asked.is_finished(), "they waited until the database was given up");
        // The next tries find nobody there.
        drop((stream, listener));
        let error = asked.join().unwrap().unwrap_err();
        let CollectionError::Backend { fault, .. } = &error else { panic!("{error}") };
        assert_eq!(*fault, BackendFault::Unreachable);
        assert!(collections.create_local(&far, &request).unwrap().created, "the name is free again");
    }

    #[cfg(feature = "local-models")]
    #[test]
    fn a_database_is_not_asked_again_for_a_client_that_has_gone() {
        use crate::embed::{Cancellation, EmbedError};

        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path().join("data")).unwrap();
        let name = CollectionName::new("far").unwrap();
        let (listener, placement) = silent(dir.path(), &name);
        let collections = Collections::open(&database);
        let client = Cancellation::new();
        let asked = std::thread::spawn({
            let client = client.clone();
            move || {
                let create = || collections.create_remote(&name, &DefinitionRequest::vectors(3), placement);
                client.scope(create).map(|created| created.created)
            }
        });
        let (stream, _): (TcpStream, _) = listener.accept().unwrap();
        client.cancel();
        drop(stream);
        let error = asked.join().unwrap().unwrap_err();
        let CollectionError::Embed(EmbedError::Cancelled) = error else { panic!("{error}") };
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "it was tried again");
    }
}
