//! Documents before they are embedded: guarded, with the text that the collection's template makes.

use crate::ingest::{Part, Rendered, Templater, inspect, inspect_made};
use crate::types::{DocumentId, EmbeddingState, Metadata, NewDocument, StoredDocument, TemplateDefinition, Weight};

use super::{Collection, CollectionError, Frame};

/// A document whose text stands.
pub struct Prepared {
    /// With the text that is stored.
    pub document: NewDocument,
    /// What is embedded apart and summed; empty where the text is embedded as one.
    pub parts: Vec<Part>,
}

impl Prepared {
    /// Whether its vector is to be made of its text.
    pub fn wants_vector(&self) -> bool {
        self.document.vector.is_none() && self.document.chunks.is_empty()
    }

    /// What is embedded for its vector: its parts, or its text.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let whole = self.document.text.as_deref().filter(|_| self.parts.is_empty());
        self.parts.iter().map(|part| part.text.as_str()).chain(whole)
    }

    /// How much each of [`Prepared::texts`] counts.
    pub fn weights(&self) -> impl Iterator<Item = Weight> {
        self.parts.iter().map(|part| part.weight).chain(std::iter::repeat(Weight::ONE))
    }
}

/// The text of a document that was not written.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// What would be stored, embedded and searched for words; `None` where it has none.
    pub text: Option<String>,
    /// Parts that would be embedded apart, each with its weight.
    pub parts: Vec<(String, f64)>,
}

impl Frame<'_> {
    /// Keeps personal data out and makes texts, as the definition says.
    ///
    /// # Errors
    /// [`CollectionError::Guard`], [`CollectionError::Template`], [`CollectionError::TextIsMade`],
    /// [`CollectionError::TooLong`], [`CollectionError::NothingToIndex`], [`CollectionError::NoModel`].
    pub fn prepare_documents(&self, documents: Vec<NewDocument>) -> Result<Vec<Prepared>, CollectionError> {
        let templater = self.templater()?;
        documents.into_iter().map(|document| self.prepare_one(templater.as_ref(), document)).collect()
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
        self.check_documents(&documents)?;
        let templater = match template {
            Some(template) => {
                template.check()?;
                Some(read(template)?)
            }
            None => self.templater()?,
        };
        let preview = |document| {
            let Prepared { document, parts } = self.prepare_one(templater.as_ref(), document)?;
            let parts = parts.into_iter().map(|Part { text, weight }| (text, weight.as_f64())).collect();
            Ok(Preview { text: document.text, parts })
        };
        documents.into_iter().map(preview).collect()
    }

    fn prepare_one(&self, templater: Option<&Templater>, mut new: NewDocument) -> Result<Prepared, CollectionError> {
        if let Some(guard) = &self.definition().guard {
            inspect(guard, &mut new, templater.is_some())
                .map_err(|source| CollectionError::Guard { id: new.id.clone(), source })?;
        }
        let mut parts = Vec::new();
        if let Some(templater) = templater {
            let rendered = self.render(templater, &new.id, &new.metadata)?;
            // A document that was read can be written back as it is.
            if new.text.as_ref().is_some_and(|text| *text != rendered.text) {
                return Err(CollectionError::TextIsMade { id: new.id });
            }
            new.text = (!rendered.text.is_empty()).then_some(rendered.text);
            parts = rendered.parts;
        }
        super::vectors::check_places(&new)?;
        match (&new.text, &new.vector) {
            (_, Some(_)) => {}
            _ if !new.chunks.is_empty() => {}
            (None, None) => return Err(CollectionError::NothingToIndex { id: new.id }),
            (Some(_), None) if self.definition().embedding.is_none() => {
                return Err(CollectionError::NoModel { name: self.name().clone() });
            }
            (Some(_), None) => {}
        }
        // A mark of the guard may be longer than what it stands for.
        let what = || format!("the text of document {:?}", new.id.as_str());
        super::write::check_length(what, new.text.as_ref().map_or(0, String::len))?;
        Ok(Prepared { document: new, parts })
    }

    /// Whether the vector of a stored document is what would be made of the prepared one.
    pub fn is_same_text(&self, old: &StoredDocument, new: &Prepared) -> Result<bool, CollectionError> {
        if old.embedding != EmbeddingState::Embedded || old.text != new.document.text {
            return Ok(false);
        }
        let template = self.definition().template.as_ref().filter(|template| template.has_weights());
        match template {
            // Where parts are weighed, the same text may be divided in another way, or not at all.
            Some(template) => Ok(self.render(&read(template)?, &old.id, &old.metadata)?.parts == new.parts),
            None => Ok(true),
        }
    }

    /// Makes a text, into which the guard looks too.
    fn render(&self, templater: &Templater, id: &DocumentId, metadata: &Metadata) -> Result<Rendered, CollectionError> {
        let rendered = templater.render(id, metadata);
        let mut rendered = rendered.map_err(|source| CollectionError::Template { id: id.clone(), source })?;
        if let Some(guard) = &self.definition().guard {
            let parts = rendered.parts.iter_mut().map(|part| &mut part.text);
            let texts = std::iter::once(&mut rendered.text).chain(parts);
            inspect_made(guard, metadata, texts).map_err(|source| CollectionError::Guard { id: id.clone(), source })?;
        }
        Ok(rendered)
    }

    fn templater(&self) -> Result<Option<Templater<'_>>, CollectionError> {
        self.definition().template.as_ref().map(read).transpose()
    }
}

impl Collection {
    /// What the guard and a template make of documents, which are not written. `template`: in place of the
    /// collection's.
    ///
    /// # Errors
    /// As [`Collection::upsert`] for the texts of documents.
    pub fn preview(
        &self,
        documents: Vec<NewDocument>,
        template: Option<&TemplateDefinition>,
    ) -> Result<Vec<Preview>, CollectionError> {
        self.check_exists()?;
        self.frame().preview(documents, template)
    }
}

fn read(template: &TemplateDefinition) -> Result<Templater<'_>, CollectionError> {
    Templater::new(template).map_err(|source| CollectionError::TemplateDefinition { source })
}
