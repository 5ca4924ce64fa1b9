//! Collections wherever their documents stand: in the store of this process, or in a table of Postgres that any number
//! of processes share.

mod collections;
mod columns;
mod fault;
mod filter;
mod json;
mod patch;
mod pool;
mod remote;
mod rows;
mod search;
mod settings;
mod table;
mod transaction;
mod writes;

pub use collections::{Collections, CreatedAnywhere};
pub use pool::PoolFigures;
pub use remote::RemoteCollection;
pub use settings::{Placement, UrlFrom};

use crate::collection::{
    Collection, CollectionError, CollectionStats, Deleted, ListRequest, Page, Preview, Updated, Upserted,
};
use crate::types::{
    CollectionName, Definition, Document, DocumentId, DocumentPatch, Filter, IfSeq, NewDocument, SearchRequest,
    SearchResponse, TemplateDefinition,
};

/// A collection: cheap to clone, safe to share between threads. Calls may block.
#[derive(Clone)]
pub enum AnyCollection {
    /// Its documents stand in the store of this process.
    Local(Collection),
    /// Its documents stand in Postgres.
    Remote(RemoteCollection),
}

/// Calls the same method of whichever it is.
macro_rules! either {
    ($self:ident, $collection:ident => $call:expr) => {
        match $self {
            AnyCollection::Local($collection) => $call,
            AnyCollection::Remote($collection) => $call,
        }
    };
}

impl AnyCollection {
    /// Its name.
    pub fn name(&self) -> &CollectionName {
        either!(self, collection => collection.name())
    }

    /// Its definition.
    pub fn definition(&self) -> &Definition {
        either!(self, collection => collection.definition())
    }

    /// When it was created, in milliseconds since the Unix epoch.
    pub fn created_at_ms(&self) -> i64 {
        either!(self, collection => collection.created_at_ms())
    }

    /// Where its documents stand, unless they stand here.
    pub fn placement(&self) -> Option<&Placement> {
        match self {
            Self::Local(_) => None,
            Self::Remote(collection) => Some(collection.placement()),
        }
    }

    /// As [`Collection::get`].
    ///
    /// # Errors
    /// As there; for a remote one also [`CollectionError::Backend`], as of every method below.
    pub fn get(&self, id: &DocumentId) -> Result<Option<Document>, CollectionError> {
        either!(self, collection => collection.get(id))
    }

    /// As [`Collection::list`].
    ///
    /// # Errors
    /// As there, and [`CollectionError::NotOnBackend`].
    pub fn list(&self, request: &ListRequest) -> Result<Page, CollectionError> {
        either!(self, collection => collection.list(request))
    }

    /// As [`Collection::upsert`].
    ///
    /// # Errors
    /// As there, and [`CollectionError::NotOnBackend`].
    pub fn upsert(&self, documents: Vec<NewDocument>) -> Result<Upserted, CollectionError> {
        either!(self, collection => collection.upsert(documents))
    }

    /// As [`Collection::upsert_if`].
    ///
    /// # Errors
    /// As there, and [`CollectionError::NotOnBackend`].
    pub fn upsert_if(&self, documents: Vec<NewDocument>, if_seq: &IfSeq) -> Result<Upserted, CollectionError> {
        either!(self, collection => collection.upsert_if(documents, if_seq))
    }

    /// As [`Collection::patch`].
    ///
    /// # Errors
    /// As there, and [`CollectionError::NotOnBackend`].
    pub fn patch(&self, patches: &[DocumentPatch]) -> Result<Updated, CollectionError> {
        either!(self, collection => collection.patch(patches))
    }

    /// As [`Collection::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, ids: &[DocumentId]) -> Result<Deleted, CollectionError> {
        either!(self, collection => collection.delete(ids))
    }

    /// As [`Collection::delete_matching`].
    ///
    /// # Errors
    /// As there, and [`CollectionError::NotOnBackend`].
    pub fn delete_matching(&self, filter: &Filter) -> Result<Deleted, CollectionError> {
        either!(self, collection => collection.delete_matching(filter))
    }

    /// As [`Collection::count`].
    ///
    /// # Errors
    /// As there, and [`CollectionError::NotOnBackend`].
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64, CollectionError> {
        either!(self, collection => collection.count(filter))
    }

    /// As [`Collection::search`].
    ///
    /// # Errors
    /// As there, and [`CollectionError::NotOnBackend`].
    pub fn search(&self, request: &SearchRequest) -> Result<SearchResponse, CollectionError> {
        either!(self, collection => collection.search(request))
    }

    /// As [`Collection::search_all`].
    ///
    /// # Errors
    /// As there.
    pub fn search_all(&self, requests: &[SearchRequest]) -> Result<Vec<SearchResponse>, (usize, CollectionError)> {
        either!(self, collection => collection.search_all(requests))
    }

    /// As [`Collection::preview`].
    ///
    /// # Errors
    /// As there.
    pub fn preview(
        &self,
        documents: Vec<NewDocument>,
        template: Option<&TemplateDefinition>,
    ) -> Result<Vec<Preview>, CollectionError> {
        either!(self, collection => collection.preview(documents, template))
    }

    /// Whether a search should be answered within a fraction of a millisecond, without waiting for anybody.
    pub fn answers_at_once(&self, request: &SearchRequest) -> bool {
        match self {
            Self::Local(collection) => collection.answers_at_once(request),
            Self::Remote(_) => false,
        }
    }

    /// Makes every acknowledged write visible to keyword search.
    ///
    /// # Errors
    /// As [`Collection::refresh`].
    pub fn refresh(&self) -> Result<(), CollectionError> {
        match self {
            Self::Local(collection) => collection.refresh(),
            // Words are committed with their document.
            Self::Remote(_) => Ok(()),
        }
    }

    /// The collection's figures at this moment.
    ///
    /// # Errors
    /// As for every method of a remote one.
    pub fn stats(&self) -> Result<CollectionStats, CollectionError> {
        match self {
            Self::Local(collection) => Ok(collection.stats()),
            Self::Remote(collection) => collection.stats(),
        }
    }
}
