//! What a collection's definition decides, wherever its documents stand: checks, texts, vectors, rankings.

use std::collections::HashMap;
use std::sync::Arc;

use crate::embed::{EmbedError, Models, TextModel};
use crate::types::{CollectionName, Definition, DocumentId, Filter, FilterError, SearchRequest};

use super::CollectionError;
use super::candidates::{Candidate, Nearest, QueryWords};

/// A collection without its documents.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    name: &'a CollectionName,
    definition: &'a Definition,
    models: &'a Models,
}

/// Where the documents of a collection stand, as far as searches ask.
pub trait Shelf {
    /// Makes every acknowledged write visible to keyword search.
    ///
    /// # Errors
    /// [`CollectionError::KeywordsNotReady`].
    fn refresh(&self) -> Result<(), CollectionError>;

    /// The vector of a document, f32, shape `[dim]`.
    ///
    /// # Errors
    /// [`CollectionError::QueryDocumentNotFound`].
    fn vector_of(&self, id: &DocumentId) -> Result<Vec<f32>, CollectionError>;

    /// The `depth` nearest to a vector (f32, shape `[dim]`, as [`Frame::admit_query`] makes it) but for `excluded`:
    /// best first, ties by ascending id; fewer only where there are no more.
    ///
    /// # Errors
    /// [`CollectionError`] when documents cannot be read.
    fn nearest(
        &self,
        vector: &[f32],
        excluded: &[DocumentId],
        request: &SearchRequest,
        depth: usize,
    ) -> Result<Nearest, CollectionError>;

    /// The best `depth` by words: best first, ties by ascending id; fewer only where there are no more.
    ///
    /// # Errors
    /// [`CollectionError`] when documents cannot be read.
    fn matching(
        &self,
        words: &QueryWords,
        request: &SearchRequest,
        depth: usize,
    ) -> Result<Vec<Candidate>, CollectionError>;

    /// The scores by words of those of `candidates` that have one of the words, on the scale of [`Shelf::matching`] and
    /// whatever rank they would have there.
    ///
    /// # Errors
    /// [`CollectionError`] when documents cannot be read.
    fn words_of(
        &self,
        words: &QueryWords,
        candidates: &[&Candidate],
    ) -> Result<HashMap<DocumentId, f32>, CollectionError>;

    /// Candidates with all that hits of the request are made of, in their places, where they were ranked without it:
    /// `None` for one that is gone since.
    ///
    /// # Errors
    /// [`CollectionError`] when documents cannot be read.
    fn fetch(
        &self,
        candidates: Vec<Candidate>,
        _request: &SearchRequest,
    ) -> Result<Vec<Option<Candidate>>, CollectionError> {
        Ok(candidates.into_iter().map(Some).collect())
    }
}

impl<'a> Frame<'a> {
    /// Of its parts.
    pub fn new(name: &'a CollectionName, definition: &'a Definition, models: &'a Models) -> Self {
        Self { name, definition, models }
    }

    /// Its name.
    pub fn name(&self) -> &'a CollectionName {
        self.name
    }

    /// Its definition.
    pub fn definition(&self) -> &'a Definition {
        self.definition
    }

    /// Every model.
    pub fn models(&self) -> &'a Models {
        self.models
    }

    /// The collection's model, which must be the one that made the stored vectors.
    ///
    /// # Errors
    /// [`CollectionError::NoModel`], [`CollectionError::ModelChanged`], [`CollectionError::Embed`].
    pub fn model(&self) -> Result<Arc<TextModel>, CollectionError> {
        let Some(embedding) = &self.definition.embedding else {
            return Err(CollectionError::NoModel { name: self.name.clone() });
        };
        let model = self.models.load(&embedding.model).map_err(|error| match error {
            // It was there when the collection was made.
            EmbedError::Unknown { .. } => EmbedError::NotInstalled {
                name: embedding.model.clone(),
                dir: self.models.dir().join(&embedding.model),
                missing: "modules.json".to_owned(),
            },
            other => other,
        })?;
        let fingerprint = model.fingerprint_at(self.definition.dim as usize);
        if fingerprint != embedding.fingerprint {
            return Err(CollectionError::ModelChanged {
                name: self.name.clone(),
                model: embedding.model.clone(),
                expected: embedding.fingerprint.clone(),
                got: fingerprint,
                made_in: model.precision_of(&embedding.fingerprint, self.definition.dim as usize),
            });
        }
        Ok(model)
    }

    /// Refuses a filter that is too large, that asks a declared field what it can never meet, or that excludes itself.
    ///
    /// # Errors
    /// [`CollectionError::Filter`].
    pub fn check_filter(&self, filter: Option<&Filter>) -> Result<(), CollectionError> {
        let Some(filter) = filter else { return Ok(()) };
        filter.check()?;
        Ok(filter.check_fields(&self.definition.fields)?)
    }

    /// As [`Frame::check_filter`], of what is to be deleted: refuses also a filter that every document passes.
    ///
    /// # Errors
    /// [`CollectionError::Filter`].
    pub fn check_deletion(&self, filter: &Filter) -> Result<(), CollectionError> {
        self.check_filter(Some(filter))?;
        match filter.passes_everything(&self.definition.fields) {
            true => Err(FilterError::PassesEverything.into()),
            false => Ok(()),
        }
    }
}
