//! What a hit carries beside id and score, read from where its document stands.

use crate::distance::VectorQuery;
use crate::index::Place;
use crate::types::{Definition, Hit, HitChunk, Include, SearchRequest};

use super::CollectionError;
use super::candidates::{Candidate, Prepared};
use super::keywords::KeywordQuery;
use super::read::one_vector;

/// What the answers of one call carry together.
#[derive(Debug, Default)]
pub struct Carried {
    bytes: usize,
}

impl Carried {
    /// Adds what a hit, a group or a facet carries.
    ///
    /// # Errors
    /// [`CollectionError::AnswerTooLarge`] where they carry more than `max` bytes with it.
    pub fn add(&mut self, bytes: usize, max: Option<usize>) -> Result<(), CollectionError> {
        let Some(max) = max else { return Ok(()) };
        self.bytes += bytes;
        if self.bytes > max { Err(CollectionError::AnswerTooLarge { max }) } else { Ok(()) }
    }
}

/// What hits of one search carry.
pub struct Carry<'a> {
    include: Include,
    highlight: bool,
    words: Option<&'a KeywordQuery>,
    /// Chunks are told by their nearness to it.
    query: Option<VectorQuery>,
    definition: &'a Definition,
}

impl<'a> Carry<'a> {
    /// As the request asks for.
    pub fn new(request: &SearchRequest, prepared: &'a Prepared, definition: &'a Definition) -> Self {
        let vector = prepared.vector.as_ref().filter(|_| definition.chunks.is_some());
        Self {
            include: request.include,
            highlight: request.highlight,
            words: prepared.words.as_ref().map(|words| &words.query),
            query: vector.map(|vector| VectorQuery::new(definition.metric, vector.clone())),
            definition,
        }
    }

    /// Makes a hit of a candidate.
    ///
    /// # Errors
    /// [`CollectionError`] when the document cannot be read.
    pub fn hit(&self, candidate: Candidate) -> Result<Hit, CollectionError> {
        let Candidate { id, score, place } = candidate;
        let include = self.include;
        let document = match include.text || include.metadata || include.chunk || self.highlight {
            true => Some(place.document()?),
            false => None,
        };
        let (text, metadata) = document.map_or((None, None), |document| (document.text, Some(document.metadata)));
        let chunk = self.query.as_ref().map(|query| self.nearest_chunk(&place, query, text.as_deref())).transpose()?;
        let highlights = self.highlight.then(|| match (self.words, &text) {
            (Some(words), Some(text)) => words.fragments(text),
            _ => Vec::new(),
        });
        let vector = match (include.vector, &chunk) {
            (false, _) => None,
            (true, Some(chunk)) => {
                place.vectors()?.chunks_exact(self.definition.dim as usize).nth(chunk.index).map(<[f32]>::to_vec)
            }
            (true, None) => Some(one_vector(&place.vectors()?, self.definition)),
        };
        Ok(Hit {
            id,
            score,
            text: text.filter(|_| include.text),
            metadata: metadata.filter(|_| include.metadata),
            vector,
            chunk,
            highlights,
        })
    }

    /// The chunk that the document was found by.
    fn nearest_chunk(
        &self,
        place: &Place,
        query: &VectorQuery,
        text: Option<&str>,
    ) -> Result<HitChunk, CollectionError> {
        let (index, _) = query.nearest(&place.vectors()?);
        let span = place.chunks()?.get(index).and_then(|span| span.place());
        let text = text.filter(|_| self.include.chunk).and_then(|text| span?.of(text)).map(str::to_owned);
        Ok(HitChunk { index, span, text })
    }
}
