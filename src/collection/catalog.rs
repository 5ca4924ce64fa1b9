//! The collections of a store, by name and by number.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::types::{CollectionId, CollectionName};

use super::state::CollectionState;
use super::{CollectionError, out_of_range};

/// Every collection that exists.
#[derive(Default)]
pub struct Catalog {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    by_name: BTreeMap<CollectionName, Arc<CollectionState>>,
    by_id: BTreeMap<CollectionId, Arc<CollectionState>>,
    next_id: u32,
}

impl Catalog {
    /// An empty one, whose next collection gets the number `next_id`.
    pub fn new(next_id: u32) -> Self {
        let inner = Inner { next_id, ..Inner::default() };
        Self { inner: RwLock::new(inner) }
    }

    /// Takes a collection in, and its number out of use for others.
    pub fn insert(&self, state: Arc<CollectionState>) {
        let mut inner = self.write();
        inner.next_id = inner.next_id.max(state.identity.id.0 + 1);
        inner.by_name.insert(state.identity.name.clone(), state.clone());
        inner.by_id.insert(state.identity.id, state);
    }

    /// Takes a collection out.
    pub fn remove(&self, id: CollectionId) -> Option<Arc<CollectionState>> {
        let mut inner = self.write();
        let state = inner.by_id.remove(&id)?;
        inner.by_name.remove(&state.identity.name);
        Some(state)
    }

    /// The collection of this name.
    pub fn by_name(&self, name: &CollectionName) -> Option<Arc<CollectionState>> {
        self.read().by_name.get(name).cloned()
    }

    /// The collection of this number.
    pub fn by_id(&self, id: CollectionId) -> Option<Arc<CollectionState>> {
        self.read().by_id.get(&id).cloned()
    }

    /// The number after the highest that was ever taken in.
    pub fn next_id(&self) -> u32 {
        self.read().next_id
    }

    /// The number for a new collection.
    ///
    /// # Errors
    /// [`CollectionError::OutOfRange`] when none is left.
    pub fn new_id(&self) -> Result<CollectionId, CollectionError> {
        match CollectionId(self.next_id()) {
            id if id < CollectionId::END => Ok(id),
            id => Err(out_of_range("the collection's number", id, 1, CollectionId::END.0 - 1)),
        }
    }

    /// All of them by name, and the number after the highest that was ever taken in, both of one moment.
    pub fn all(&self) -> (Vec<Arc<CollectionState>>, u32) {
        let inner = self.read();
        (inner.by_name.values().cloned().collect(), inner.next_id)
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_given_out_and_none_after_it() {
        let last = CollectionId(CollectionId::END.0 - 1);
        assert_eq!(Catalog::new(last.0).new_id().unwrap(), last);
        let error = Catalog::new(CollectionId::END.0).new_id().unwrap_err();
        assert!(matches!(error, CollectionError::OutOfRange { .. }), "{error}");
    }
}
