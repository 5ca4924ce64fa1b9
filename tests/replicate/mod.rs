//! Copies of collections in real Postgres servers: what stands there, what is mended, and what no failure may break.

mod chaos;
mod drift;
mod functions;
mod layouts;
mod owners;
pub mod pooler;
mod proxy;
mod refused;
mod routes;
mod shapes;
mod streaming;
mod trouble;

use std::path::Path;
use std::time::{Duration, Instant};

use pannier::postgres::{ConnectSettings, Session};
use pannier::replicate::{Phase, Replicator, SecretFrom, SinkName, SinkSettings, SinkStatus, VerifyReport};
use pannier::types::{DocumentId, NewDocument};
use pannier::{Collection, Database, DefinitionRequest, Options};
use tempfile::TempDir;

use crate::support::postgres::{TestDatabase, database};
use crate::support::{Random, document, id, name};

const DIM: usize = 4;
/// Far beyond what any step here takes, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// A store with a collection `c`, and a sink `s` to a database of its own.
struct Setup {
    postgres: TestDatabase,
    store: Store,
}

/// An open store and what copies it.
struct Store {
    directory: TempDir,
    database: Database,
    collection: Collection,
    replicator: Replicator,
}

impl Setup {
    fn new() -> Self {
        Self { postgres: database(), store: Store::new() }
    }

    fn settings(&self) -> SinkSettings {
        settings(&self.postgres.url)
    }

    /// Adds the sink and waits until it follows.
    fn copy(&self, settings: SinkSettings) {
        self.store.add(settings);
        self.store.wait_until_copied();
    }
}

fn settings(url: &str) -> SinkSettings {
    SinkSettings::new(SinkName::new("s").unwrap(), "c", SecretFrom::Clear(url.to_owned()))
}

impl Store {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), Options::default())
    }

    fn open(directory: TempDir, options: Options) -> Self {
        Self::open_with_dim(directory, options, DIM)
    }

    fn open_with_dim(directory: TempDir, options: Options, dim: usize) -> Self {
        let database = Database::open_with(directory.path(), options).unwrap();
        let request = DefinitionRequest::vectors(dim as u32);
        let collection = database.create_collection(&name("c"), &request).unwrap().collection;
        let replicator = Replicator::open(&database).unwrap();
        replicator.start().unwrap();
        Self { directory, database, collection, replicator }
    }

    /// Closes everything; the directory stays.
    fn close(self) -> TempDir {
        let Self { directory, database, collection, replicator } = self;
        replicator.stop();
        drop((replicator, collection));
        database.close();
        directory
    }

    fn add(&self, settings: SinkSettings) {
        self.replicator.add(settings).unwrap();
    }

    fn write(&self, numbers: impl IntoIterator<Item = u64>, group: i64) {
        let documents: Vec<NewDocument> = numbers.into_iter().map(|n| numbered(n, group)).collect();
        for part in documents.chunks(500) {
            self.collection.upsert(part.to_vec()).unwrap();
        }
    }

    fn delete(&self, numbers: impl IntoIterator<Item = u64>) {
        let ids: Vec<DocumentId> = numbers.into_iter().map(|n| id(&n.to_string())).collect();
        self.collection.delete(&ids).unwrap();
    }

    fn status(&self) -> SinkStatus {
        self.replicator.status("s").unwrap().1.into_iter().next().map(|(_, status)| status).unwrap_or_default()
    }

    /// Waits until a look at the status is as wanted.
    #[track_caller]
    fn wait_for(&self, what: &str, wanted: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what} never came: {status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until everything written so far is in the copy.
    #[track_caller]
    fn wait_until_copied(&self) {
        let seq = self.collection.store_seq();
        self.wait_for("the copy", |status| status.phase == Phase::Streaming && status.cursor >= seq);
    }

    #[track_caller]
    fn verify(&self) -> VerifyReport {
        let mut reports = block_on(self.replicator.verify("s")).unwrap();
        assert_eq!(reports.len(), 1);
        reports.remove(0).1
    }

    /// Fails unless the copy is the collection.
    #[track_caller]
    fn assert_equal(&self) {
        let report = self.verify();
        assert_eq!(report.differences, [], "{report:?}");
        assert_eq!(report.documents - report.dead_letters, report.rows, "{report:?}");
    }
}

/// Waits for the failure that the sink waits after, and returns its message.
#[track_caller]
fn failure(store: &Store, code: &str) -> String {
    let status = store.wait_for(code, |status| status.error.as_ref().is_some_and(|(got, _)| got == code));
    status.error.unwrap().1
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A connection with a transaction that holds what `sql` takes.
struct Holding {
    runtime: tokio::runtime::Runtime,
    session: Session,
}

impl Holding {
    fn new(url: &str, sql: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let session = runtime.block_on(async {
            let session = Session::connect(&ConnectSettings::from_url(url).unwrap()).await.unwrap();
            session.batch("hold", &format!("begin; {sql}")).await.unwrap();
            session
        });
        Self { runtime, session }
    }

    fn release(self) {
        self.runtime.block_on(self.session.batch("release", "commit")).unwrap();
    }
}

/// A document whose vector and text tell its number and group.
fn numbered(n: u64, group: i64) -> NewDocument {
    let vector = Random(n * 1_000 + group as u64).whole_vector(DIM);
    document(&n.to_string(), &vector, group)
}

/// Copies a data directory as a careless administrator does.
fn copy_directory(from: &Path) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => _ = std::fs::copy(entry.path(), target).unwrap(),
            }
        }
    }
    let to = tempfile::tempdir().unwrap();
    copy(from, to.path());
    to
}
