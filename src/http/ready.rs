//! Whether the server is ready: the disk takes writes, and the models of the collections are there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::error::{ApiError, Code};
use crate::backend::{AnyCollection, Collections};
use crate::collection::Frame;
use crate::database::Database;
use crate::embed::Cancellation;

/// Why a server is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    /// Its store is being opened.
    Starting,
    /// The disk of the data directory takes no writes.
    Disk,
    /// The model of a collection is not there, or is another than the one that made its vectors.
    Model,
}

impl Unready {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Disk => "disk",
            Self::Model => "model",
        }
    }
}

/// What is known of it from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// Whether the disk refused a write since it was last seen to take one.
    disk_refused: AtomicBool,
    /// Models that were loaded, by name and fingerprint. They stay loaded.
    loaded: Mutex<HashSet<(String, String)>>,
    /// What the log was last told.
    told: Mutex<Option<Unready>>,
}

impl Readiness {
    /// Remembers that a request failed because the disk took no write.
    pub(crate) fn notice(&self, error: &ApiError) {
        if matches!(error.code, Code::StorageFull | Code::NotWritten) {
            self.disk_refused.store(true, Ordering::Relaxed);
        }
    }

    /// Looks what stands in the way. May block: it loads models that were not there before, and writes a file where
    /// the disk refused to.
    pub(crate) fn look(&self, database: &Database, collections: &Collections) -> Option<Unready> {
        let found = match self.disk_takes_writes(database) {
            false => Some((Unready::Disk, "the disk takes no writes".to_owned())),
            true => collections.all().iter().find_map(|collection| self.lacks_model(database, collection)),
        };
        let unready = found.as_ref().map(|(unready, _)| *unready);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != unready {
            match found {
                Some((_, cause)) => tracing::warn!(cause, "the server is not ready"),
                None => tracing::info!("the server is ready again"),
            }
            *told = unready;
        }
        unready
    }

    /// Whether writes are taken. May block: where the last one was refused, it tries.
    pub(crate) fn disk_takes_writes(&self, database: &Database) -> bool {
        if database.stop_reason().is_some() {
            return false;
        }
        if !self.disk_refused.load(Ordering::Relaxed) {
            return true;
        }
        let tried = database.try_disk();
        match &tried {
            Ok(()) => self.disk_refused.store(false, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "the disk still takes no writes"),
        }
        tried.is_ok()
    }

    fn lacks_model(&self, database: &Database, collection: &AnyCollection) -> Option<(Unready, String)> {
        let embedding = collection.definition().embedding.as_ref()?;
        let key = (embedding.model.clone(), embedding.fingerprint.clone());
        let loaded = || self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded().contains(&key) {
            return None;
        }
        let frame = Frame::new(collection.name(), collection.definition(), database.models());
        // That a probe has gone says nothing of the model.
        match Cancellation::new().scope(|| frame.model()) {
            Ok(_) => {
                loaded().insert(key);
                None
            }
            Err(error) => Some((Unready::Model, format!("collection {}: {error}", collection.name()))),
        }
    }
}
