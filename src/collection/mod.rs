//! Collections: the only place where the log, the document index, the segments and the models meet.

mod candidates;
mod catalog;
mod changes;
mod check;
mod count;
mod definition;
mod diversity;
mod engine;
mod error;
mod explain;
mod facets;
mod frame;
mod fusion;
mod hits;
mod hold;
mod install;
#[cfg(feature = "text")]
mod keywords;
#[cfg(not(feature = "text"))]
#[path = "keywords_off.rs"]
mod keywords;
mod maintenance;
mod packing;
mod page;
mod passing;
mod patch;
mod plan;
mod prepare;
mod quick;
mod read;
mod recall;
mod recover;
mod rerank;
mod salvaged;
mod search;
mod select;
#[cfg(test)]
mod shuttled;
mod split;
mod state;
mod sync;
mod turns;
mod turnstile;
mod unnamed;
mod vectors;
mod verify;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::index::Place;
use crate::log::Change;
use crate::types::{CollectionName, Definition, DocumentId, Seq};

#[cfg(feature = "postgres")]
pub(crate) use candidates::{Candidate, Nearest, QueryWords, sort};
pub use changes::{ChangeStep, Changes, DEFAULT_COPIES_LOG_BYTES, DocumentChange, LogHold};
#[cfg(feature = "postgres")]
pub(crate) use definition::difference;
pub use definition::{ChunkRequest, DefinitionRequest};
pub(crate) use engine::{Engine, Settings};
pub use error::{BackendFault, CollectionError};
pub(crate) use frame::{Frame, Shelf};
pub(crate) use hold::{HeldFiles, hold_files};
pub use keywords::KeywordStats;
pub use packing::DEFAULT_PACKED_BYTES;
#[cfg(feature = "postgres")]
pub(crate) use page::is_exact;
pub use patch::Updated;
#[cfg(feature = "postgres")]
pub(crate) use patch::{Draft, MAX_DRAFTS, Original};
#[cfg(feature = "postgres")]
pub(crate) use prepare::Prepared;
pub use prepare::Preview;
pub use read::{CollectionStats, ListRequest, Page};
pub use recall::{DEFAULT_SAMPLED_ONE_IN, SampledRecall};
pub(crate) use recover::{Recovered, check_named, read_dead, recover};
pub(crate) use salvaged::create_as;
#[cfg(feature = "postgres")]
pub(crate) use vectors::{DocumentVectors, Known, Made};
pub(crate) use verify::{VerifyReport, verify};
#[cfg(feature = "postgres")]
pub(crate) use write::check_if_seq;
pub use write::{Deleted, Upserted};

use maintenance::Job;
use state::CollectionState;

/// A collection of documents: cheap to clone, safe to share between threads.
#[derive(Clone)]
pub struct Collection {
    engine: Arc<Engine>,
    state: Arc<CollectionState>,
}

/// A collection that was asked for, and whether it is new.
pub struct Created {
    /// The collection.
    pub collection: Collection,
    /// `false` where it stood already, with the same definition.
    pub created: bool,
    /// The change that created it.
    pub seq: Seq,
}

impl Collection {
    /// Its name.
    pub fn name(&self) -> &CollectionName {
        &self.state.identity.name
    }

    /// Its definition.
    pub fn definition(&self) -> &Definition {
        &self.state.identity.definition
    }

    /// Its number in the store, which no later collection has, not one of the same name either.
    #[cfg(feature = "postgres")]
    pub(crate) fn number(&self) -> u32 {
        self.state.identity.id.0
    }

    /// When it was created, in milliseconds since the Unix epoch.
    pub fn created_at_ms(&self) -> i64 {
        self.state.identity.created_at_ms
    }

    /// Writes what stands in memory into a segment, and waits for it. Nothing needs this for safety: the log has it.
    ///
    /// # Errors
    /// [`CollectionError::Overloaded`] when it takes longer than ten minutes, [`CollectionError::Stopped`] when the
    /// store closes.
    pub fn flush(&self) -> Result<(), CollectionError> {
        self.check_exists()?;
        self.state.freeze();
        // Sealing then finds every older log file at its end, and can delete it.
        let rotated = self.engine.shared.log().map_or(Ok(()), |log| log.rotate());
        // Also where that failed: nobody else asks for what is frozen now.
        self.engine.shared.ask(Job::Seal(self.state.clone()));
        rotated?;
        let deadline = Instant::now() + Duration::from_secs(600);
        while !self.state.view().frozen.is_empty() {
            if let Some(reason) = self.engine.stop_reason() {
                return Err(CollectionError::Stopped { reason });
            }
            if Instant::now() > deadline {
                return Err(CollectionError::Overloaded);
            }
            self.state.wait_for_change();
        }
        Ok(())
    }

    /// Merges everything into one segment with a graph and without dead rows, and waits for it.
    ///
    /// # Errors
    /// As [`Collection::flush`], and [`CollectionError::Unmerged`] with the reason when merging fails.
    pub fn optimise(&self) -> Result<(), CollectionError> {
        self.flush()?;
        self.engine.maintenance().optimise(&self.state)
    }

    fn frame(&self) -> Frame<'_> {
        Frame::new(self.name(), self.definition(), &self.engine.models)
    }

    /// Writes what stands in memory into a segment, and waits until every merge that is due is done.
    ///
    /// # Errors
    /// As [`Collection::optimise`].
    pub fn settle(&self) -> Result<(), CollectionError> {
        self.flush()?;
        self.engine.maintenance().settle(&self.state)
    }

    fn find(&self, id: &DocumentId) -> Result<Option<Place>, CollectionError> {
        self.state.find(&self.engine.shared.meta, id)
    }

    fn check_exists(&self) -> Result<(), CollectionError> {
        match self.state.is_dropped() {
            true => Err(CollectionError::NotFound { name: self.name().clone() }),
            false => Ok(()),
        }
    }
}

/// Creates a collection, or finds the one that stands already.
pub(crate) fn create(
    engine: &Arc<Engine>,
    name: &CollectionName,
    request: &DefinitionRequest,
) -> Result<Created, CollectionError> {
    let definition = request.complete(&engine.models)?;
    let _defining = engine.defining.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(state) = engine.shared.catalog.by_name(name) {
        return match definition::difference(&state.identity.definition, &definition) {
            Some(difference) => Err(CollectionError::Exists { name: name.clone(), difference }),
            None => {
                let seq = state.identity.created_seq;
                Ok(Created { collection: Collection { engine: engine.clone(), state }, created: false, seq })
            }
        };
    }
    let id = engine.shared.catalog.new_id()?;
    let change = Change::CreateCollection { id, name: name.clone(), definition, created_at_ms: now_ms() };
    let seq = engine.commit(change)?;
    Ok(Created { collection: open(engine, name)?, created: true, seq })
}

/// The collection of this name.
pub(crate) fn open(engine: &Arc<Engine>, name: &CollectionName) -> Result<Collection, CollectionError> {
    match engine.shared.catalog.by_name(name) {
        Some(state) => Ok(Collection { engine: engine.clone(), state }),
        None => Err(CollectionError::NotFound { name: name.clone() }),
    }
}

/// Every collection, by name.
pub(crate) fn all(engine: &Arc<Engine>) -> Vec<Collection> {
    let (states, _) = engine.shared.catalog.all();
    states.into_iter().map(|state| Collection { engine: engine.clone(), state }).collect()
}

/// Drops a collection with everything in it.
pub(crate) fn drop_collection(engine: &Arc<Engine>, name: &CollectionName) -> Result<Seq, CollectionError> {
    let _defining = engine.defining.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let collection = open(engine, name)?;
    engine.commit(Change::DropCollection { id: collection.state.identity.id })
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn out_of_range(name: &'static str, got: impl ToString, min: impl ToString, max: impl ToString) -> CollectionError {
    CollectionError::OutOfRange { name, got: got.to_string(), min: min.to_string(), max: max.to_string() }
}
