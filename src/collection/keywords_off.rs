//! The surface of the keyword index in a build without it: nothing is noted, every keyword search says so.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use crate::log::LoggedDocument;
use crate::types::{DocumentId, Language, Seq};

use super::engine::Shared;
use super::state::CollectionState;
use super::{Collection, CollectionError};

/// How far a collection's keyword index is; there is none in this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeywordStats {
    /// Documents in it.
    pub documents: u64,
    /// It has read every change up to here.
    pub applied_seq: Seq,
    /// Writes of documents that it has still to read.
    pub waiting: u64,
    /// Documents that were damaged when it was to read them.
    pub unreadable: u64,
}

/// What a collection knows of its keyword index: nothing.
pub struct Keywords;

impl Keywords {
    /// Knows nothing.
    pub fn new(_last_seq: Seq, _sealed_seq: Seq, _sealed: bool) -> Self {
        Self
    }

    /// Wants nothing.
    pub fn wanted(&self, _documents: &[LoggedDocument]) {}

    /// Wants nothing.
    pub fn wanted_of_delete(&self, _ids: &[DocumentId]) {}

    /// Notes nothing.
    pub fn applied(&self, _seq: Seq, _noted: ()) {}

    /// There are none.
    pub fn stats(&self) -> Option<KeywordStats> {
        None
    }
}

/// Rings for nobody.
#[derive(Default)]
pub struct Bell;

impl Bell {
    /// Nobody hears it.
    pub fn ring(&self, _state: &Arc<CollectionState>) {}
}

/// No thread.
pub struct KeywordWorker;

impl KeywordWorker {
    /// Starts nothing.
    ///
    /// # Errors
    /// None in this build.
    pub fn start(_shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self)
    }
}

/// A query's words; there are none in this build.
pub struct KeywordQuery(Infallible);

impl KeywordQuery {
    /// No query can be made.
    ///
    /// # Errors
    /// Always [`CollectionError::KeywordsOff`].
    pub fn new(_language: Language, _text: &str) -> Result<Self, CollectionError> {
        Err(CollectionError::KeywordsOff)
    }

    /// Never asked.
    pub fn is_cut(&self) -> bool {
        match self.0 {}
    }

    /// Never asked.
    pub fn read_of<'a>(&self, _text: &'a str) -> &'a str {
        match self.0 {}
    }

    /// Never asked.
    pub fn is_in(&self, _text: &str) -> bool {
        match self.0 {}
    }

    /// Never asked.
    pub fn fragments(&self, _text: &str) -> Vec<String> {
        match self.0 {}
    }
}

/// A version of a document that has one of the words.
pub struct KeywordHit {
    /// The document.
    pub id: DocumentId,
    /// The change that wrote the version.
    pub seq: Seq,
    /// BM25.
    pub score: f32,
}

/// A search; there is none in this build.
pub struct KeywordSearch(Infallible);

impl KeywordSearch {
    /// Never asked.
    ///
    /// # Errors
    /// Never.
    pub fn hits(&self, _from: usize, _count: usize) -> Result<Vec<KeywordHit>, CollectionError> {
        match self.0 {}
    }

    /// Never asked.
    ///
    /// # Errors
    /// Never.
    pub fn hits_among(&self, _ids: &[&DocumentId]) -> Result<Vec<KeywordHit>, CollectionError> {
        match self.0 {}
    }
}

impl Collection {
    /// Everything that was acknowledged is visible: there is no keyword index in this build.
    ///
    /// # Errors
    /// [`CollectionError::NotFound`] once it was dropped.
    pub fn refresh(&self) -> Result<(), CollectionError> {
        self.check_exists()
    }

    pub(super) fn keyword_search(&self, query: &KeywordQuery) -> Result<KeywordSearch, CollectionError> {
        match query.0 {}
    }
}
