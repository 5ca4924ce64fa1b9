//! A store: opening it, its collections, closing it.

use std::io::Write;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::collection::{
    self, Collection, CollectionError, Created, DefinitionRequest, Engine, HeldFiles, Recovered, Settings, VerifyReport,
};
use crate::embed::{Compute, Models, default_models_dir};
use crate::index::MAX_MEMTABLE_ENTRIES;
use crate::manifest::{Manifest, ManifestError, refuse_foreign, refuse_snapshot};
use crate::storage::{DataPaths, DirectoryLock, Publishing, StorageError, create_dir_all};
use crate::types::{CollectionName, Definition, GraphBuilder, Seq};

/// How to open a store.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the embedding models are; `None` for the user's cache directory.
    pub models_dir: Option<PathBuf>,
    /// How models compute. Precision is part of a model's fingerprint: a collection's vectors are all of one.
    pub compute: Compute,
    /// Most documents of a collection that stand in memory before they are sealed into a segment; `None` for 16,384,
    /// which is also the most.
    pub memtable_documents: Option<u32>,
    /// Most bytes of vectors kept on disk, so that a text that was embedded before is not embedded again; 0 for none.
    /// At most 1 TiB; a file of another size is begun anew. `None` for that of the file that is there, else 256 MiB.
    pub vector_cache_bytes: Option<u64>,
    /// What builds graphs.
    pub graph_builder: GraphBuilder,
    /// One search in so many is answered again without the graph, in the background, to sample recall
    /// ([`crate::collection::CollectionStats::recall`]); `None` for 1,000, 0 for none.
    pub sampled_one_in: Option<u32>,
    /// Most bytes of memory for what filters that are asked often let through, packed so that it is searched faster;
    /// `None` for 16 MiB, 0 for none.
    pub packed_bytes: Option<usize>,
    /// Bytes a second that merging segments writes at most; `None` for no limit.
    pub merge_bytes_per_s: Option<NonZeroU64>,
    /// Most bytes of log that are kept for copies which have not read them, beside what recovery needs; `None` for
    /// 1 GiB. They are kept as soon as the store is open, before anybody keeps the copies up to date.
    pub copies_log_bytes: Option<u64>,
}

/// What a disk that refused a write has to take before it is tried with another: about a group of the log.
const TRIED_BYTES: usize = 1 << 20;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory could not be locked, read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its manifest is missing, damaged or of another version.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its log, a segment or the document index could not be opened.
    #[error("the data directory {} could not be opened", path.display())]
    Recover {
        /// The directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: Box<CollectionError>,
    },
}

/// What a health check wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether writes are taken.
    pub accepting_writes: bool,
    /// Why they are not.
    pub reason: Option<String>,
    /// The youngest change, durable and visible.
    pub last_seq: Seq,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// The store's id, in hex.
    pub store_id: String,
}

/// What merging segments has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeFigures {
    /// Bytes of segments, of unfinished ones too.
    pub written_bytes: u64,
    /// How long [`Options::merge_bytes_per_s`] held it back.
    pub held_back: Duration,
}

/// An open store: cheap to clone, safe to share between threads. Dropping the last handle, and the last collection's,
/// closes it.
///
/// ```
/// use pannier::{Database, DefinitionRequest};
/// use pannier::types::{CollectionName, DocumentId, NewDocument, Query, SearchRequest};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path();
/// let database = Database::open(path)?;
/// let name = CollectionName::new("colours")?;
/// // With the feature `local-models`, `DefinitionRequest::default()` embeds texts by the default model.
/// let colours = database.create_collection(&name, &DefinitionRequest::vectors(3))?.collection;
///
/// let colour = |id: &str, rgb: [f32; 3]| -> Result<_, pannier::types::NameError> {
///     let id = DocumentId::new(id)?;
///     Ok(NewDocument { id, text: None, metadata: Default::default(), vector: Some(rgb.to_vec()), chunks: Vec::new() })
/// };
/// colours.upsert(vec![colour("red", [1.0, 0.0, 0.0])?, colour("lime", [0.7, 1.0, 0.0])?])?;
///
/// let orange = SearchRequest::new(Query::Vector(vec![1.0, 0.5, 0.0]));
/// let hits = colours.search(&orange)?.hits;
/// assert_eq!(hits[0].id.as_str(), "red");
///
/// colours.delete(&[DocumentId::new("red")?])?;
/// assert!(colours.get(&DocumentId::new("red")?)?.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Database {
    engine: Arc<Engine>,
    recovered: Arc<Recovered>,
    path: Arc<Path>,
}

impl Database {
    /// Opens the store in a directory, or makes one where the directory is empty or missing.
    ///
    /// # Errors
    /// [`OpenError`] that names the file and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, Options::default())
    }

    /// As [`Database::open`], with settings.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let paths = DataPaths::new(path);
        refuse_snapshot(&paths)?;
        create_dir_all(path)?;
        refuse_foreign(&paths)?;
        let lock = DirectoryLock::acquire_with_directory(paths.lock())?;
        let manifest = Manifest::open(&paths)?;
        let settings = Settings {
            builder: options.graph_builder,
            threads: options.compute.threads,
            memtable_entries: options.memtable_documents.unwrap_or(MAX_MEMTABLE_ENTRIES),
            sampled_one_in: options.sampled_one_in.unwrap_or(collection::DEFAULT_SAMPLED_ONE_IN),
            packed_bytes: options.packed_bytes.unwrap_or(collection::DEFAULT_PACKED_BYTES),
            merge_bytes_per_s: options.merge_bytes_per_s,
            copies_log_bytes: options.copies_log_bytes.unwrap_or(collection::DEFAULT_COPIES_LOG_BYTES),
        };
        let vector_cache = paths.vector_cache();
        let (shared, recovered) = collection::recover(paths, manifest, settings)
            .map_err(|source| OpenError::Recover { path: path.to_owned(), source: Box::new(source) })?;
        let models_dir = options.models_dir.unwrap_or_else(default_models_dir);
        let models = Models::computing(models_dir, options.compute);
        models.keep_vectors(vector_cache, options.vector_cache_bytes);
        let engine = Engine::start(shared, models, lock)?;
        Ok(Self { engine: Arc::new(engine), recovered: Arc::new(recovered), path: path.into() })
    }

    /// Creates a collection, or finds the one that stands already with the same definition.
    ///
    /// # Errors
    /// [`CollectionError::Exists`] when another definition stands, [`CollectionError::Embed`] when the model is not
    /// there, [`CollectionError::Definition`] for a setting outside its range.
    pub fn create_collection(
        &self,
        name: &CollectionName,
        request: &DefinitionRequest,
    ) -> Result<Created, CollectionError> {
        collection::create(&self.engine, name, request)
    }

    /// The collection of this name.
    ///
    /// # Errors
    /// [`CollectionError::NotFound`].
    pub fn collection(&self, name: &CollectionName) -> Result<Collection, CollectionError> {
        collection::open(&self.engine, name)
    }

    /// Every collection, by name.
    pub fn collections(&self) -> Vec<Collection> {
        collection::all(&self.engine)
    }

    /// Drops a collection with everything in it.
    ///
    /// # Errors
    /// [`CollectionError::NotFound`], [`CollectionError::Stopped`].
    pub fn drop_collection(&self, name: &CollectionName) -> Result<Seq, CollectionError> {
        collection::drop_collection(&self.engine, name)
    }

    /// The embedding models.
    pub fn models(&self) -> &Models {
        &self.engine.models
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What opening found.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Whether all is well.
    pub fn health(&self) -> Health {
        let reason = self.stop_reason();
        Health {
            accepting_writes: reason.is_none(),
            reason,
            last_seq: self.engine.shared.applied_seq(),
            log_bytes: self.engine.log_bytes(),
            store_id: self.engine.shared.identity.store_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// Which timeline of the store this is; a restored snapshot begins another.
    pub fn timeline(&self) -> u32 {
        self.engine.shared.identity.timeline
    }

    /// Sets anew what [`Options::copies_log_bytes`] has set.
    pub fn keep_log_for_copies(&self, max_bytes: u64) {
        self.engine.shared.holds.set_max_bytes(max_bytes);
    }

    /// The copies hold the log that they need by themselves from now on.
    #[cfg(feature = "postgres")]
    pub(crate) fn copies_hold_the_log(&self) {
        self.engine.shared.holds.let_go();
    }

    /// Keeps the log that the copies hold until the store is closed, although they are about to let go.
    #[cfg(feature = "postgres")]
    pub(crate) fn keep_log_until_closed(&self) {
        self.engine.shared.holds.pin();
    }

    /// Why writes are no longer taken, if so. After a failed write to disk the process is to exit: it must not go on
    /// as if the next sync could make up for it.
    pub fn stop_reason(&self) -> Option<String> {
        self.engine.stop_reason()
    }

    /// Changes files of the data directory beside log and segments. Once the store has stopped they are not changed any
    /// more; and where one cannot be made durable, the store stops: a second try that succeeds would prove nothing.
    ///
    /// # Errors
    /// [`StorageError::Stopped`], or what `change` returns.
    pub(crate) fn change_files<T, E>(&self, change: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        E: std::error::Error + From<StorageError> + 'static,
    {
        if let Some(reason) = self.engine.shared.log().and_then(|log| log.failed()) {
            return Err(StorageError::Stopped { reason }.into());
        }
        change().inspect_err(|error| self.engine.shared.stop_on_failed_sync(error))
    }

    /// Tries whether the disk takes writes: writes a file beside the log's, and removes it.
    ///
    /// # Errors
    /// Why a write would fail.
    pub fn try_disk(&self) -> Result<(), StorageError> {
        let path = DataPaths::new(&*self.path).log_dir().join("try");
        let mut file = Publishing::create(&path)?;
        let written = file.write_all(&vec![0; TRIED_BYTES]).and_then(|()| file.flush());
        written.map_err(|error| StorageError::io(&path, "write", error))
    }

    /// Reads every stored byte again. `progress` gets the bytes done and the bytes in all.
    ///
    /// # Errors
    /// [`CollectionError`] when something cannot be read at all; what is damaged stands in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, CollectionError> {
        collection::verify(&self.engine, progress)
    }

    /// What merging segments has written since the store was opened.
    pub fn merges(&self) -> MergeFigures {
        let rate = &self.engine.shared.merge_rate;
        MergeFigures { written_bytes: rate.written_bytes(), held_back: rate.held_back() }
    }

    /// Memory that [`Options::packed_bytes`] bounds.
    pub fn packed_bytes(&self) -> usize {
        self.engine.shared.packing.bytes()
    }

    /// Creates a collection with a definition that another store had, whether or not its model is installed here.
    ///
    /// # Errors
    /// [`CollectionError::Exists`], [`CollectionError::Definition`].
    pub(crate) fn create_as(
        &self,
        name: &CollectionName,
        definition: Definition,
        created_at_ms: i64,
    ) -> Result<Collection, CollectionError> {
        collection::create_as(&self.engine, name, definition, created_at_ms)
    }

    /// Holds the store's files still while `take` gives them second names; writes go on meanwhile.
    ///
    /// # Errors
    /// [`CollectionError`] when the log cannot go on in a new file, or what `take` returns.
    pub(crate) fn hold_files<T, E: From<CollectionError>>(
        &self,
        take: impl FnOnce(HeldFiles<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        collection::hold_files(&self.engine, take)
    }

    /// Takes no more writes, finishes those accepted, and closes once the last other handle is gone.
    pub fn close(self) {
        self.engine.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::refused_threads;
    use crate::types::{Chain, DocumentId, NewDocument};

    #[test]
    fn a_system_without_a_thread_left_is_an_error_and_the_next_start_works() {
        let directory = tempfile::tempdir().unwrap();
        let name = CollectionName::new("things").unwrap();
        {
            let database = Database::open(directory.path()).unwrap();
            let things = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
            let mut document = NewDocument::from_text(DocumentId::new("a").unwrap(), "a text");
            document.vector = Some(vec![1.0, 2.0]);
            things.upsert(vec![document]).unwrap();
        }
        let mut refused = 0;
        let database = loop {
            refused_threads::after(refused);
            match Database::open(directory.path()) {
                Ok(database) => break database,
                Err(error) => {
                    let text = Chain(&error).to_string();
                    assert!(text.contains("cannot start a thread for "), "{text}");
                    assert!(text.contains(directory.path().to_str().unwrap()), "{text}");
                }
            }
            refused += 1;
        };
        refused_threads::after(usize::MAX);
        // The document index, sealing, merging, the sample of recall and packing, and words where they are built in.
        assert_eq!(refused, 5 + usize::from(cfg!(feature = "text")));
        assert!(database.recovered().index_rebuilt.is_none(), "every store was closed in order");
        assert_eq!(database.collection(&name).unwrap().stats().documents, 1);
    }
}
