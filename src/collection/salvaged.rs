//! Taking in what was rescued of another store, as it was: definitions complete, documents with their times and
//! vectors.

use std::sync::Arc;

use crate::log::{Change, LoggedDocument};
use crate::types::{CollectionName, Definition};

use super::engine::Engine;
use super::{Collection, CollectionError, open};

/// Creates a collection with a definition that another store had, whether or not its model is installed here.
///
/// # Errors
/// [`CollectionError::Exists`], [`CollectionError::Definition`], or what committing returns.
pub fn create_as(
    engine: &Arc<Engine>,
    name: &CollectionName,
    definition: Definition,
    created_at_ms: i64,
) -> Result<Collection, CollectionError> {
    definition.check()?;
    let _defining = engine.defining.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if engine.shared.catalog.by_name(name).is_some() {
        return Err(CollectionError::Exists { name: name.clone(), difference: "it is there already".to_owned() });
    }
    let id = engine.shared.catalog.new_id()?;
    engine.commit(Change::CreateCollection { id, name: name.clone(), definition, created_at_ms })?;
    open(engine, name)
}

impl Collection {
    /// Writes documents as they are. Their vectors have the collection's dim, and its length where the metric is
    /// cosine.
    ///
    /// # Errors
    /// [`CollectionError`] when they cannot be logged.
    pub(crate) fn take_in(&self, documents: Vec<LoggedDocument>) -> Result<(), CollectionError> {
        self.state.wait_for_room()?;
        let change = Change::Upsert { collection: self.state.identity.id, documents };
        self.engine.commit(change).map(drop)
    }
}
