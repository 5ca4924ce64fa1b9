//! The vectors of documents that are written: given, of their texts, or of the chunks of their texts.

use crate::embed::{InputKind, TextModel};
use crate::ingest::weighted_sum;
use crate::types::limits::{MAX_CHUNKS, MAX_REQUEST_NUMBERS};
use crate::types::{
    Chunk, ChunkDefinition, ChunkSpan, DocumentId, EmbeddingState, NewDocument, TemplateDefinition, VectorError,
    VectorStorage, Weight, admit_vector, check_vector_for, round_to_half,
};

use super::prepare::Prepared;
use super::split::split;
use super::{CollectionError, Frame};

/// Why a chunk's place is refused.
const NO_PLACE: &str = "a chunk's \"start\" and \"end\" must lie within \"text\", counted in its characters";

/// Chunks that are embedded in one call, so that those of one long request do not fill the queue of all.
const EMBEDDED_AT_ONCE: usize = 512;

/// What a document is searched by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DocumentVectors {
    /// f32, shape `[dim]`, or `[chunks, dim]` where there are chunks.
    pub numbers: Vec<f32>,
    /// Empty in a collection without chunks.
    pub chunks: Vec<ChunkSpan>,
}

/// The vectors of a document, and where they come from.
pub type Known = (DocumentVectors, EmbeddingState);

/// The vectors of a request's documents.
#[derive(Default)]
pub struct Made {
    /// In the order of the documents.
    pub vectors: Vec<Known>,
    /// Texts and chunks embedded by the model.
    pub embedded: usize,
    /// Texts and chunks whose vector was in the cache, and documents whose text has not changed.
    pub cached: usize,
    /// Documents with a text that is longer than the model reads.
    pub truncated: Vec<DocumentId>,
}

/// A text to embed, and which document's.
struct Wanted<'a> {
    document: usize,
    text: &'a str,
    piece: Piece,
}

/// What a text that is embedded is of its document's.
#[derive(Clone, Copy)]
enum Piece {
    /// A chunk, with a vector of its own.
    Chunk(ChunkSpan),
    /// A part of the one vector, or all of it.
    Part(Weight),
}

impl Frame<'_> {
    /// Embeds what is to be embedded, and brings all vectors into the form in which they are stored. `known`: by
    /// document the vectors that it goes on with, in this form, and where they come from.
    ///
    /// # Errors
    /// [`CollectionError`] names the document.
    pub fn make_vectors(&self, documents: &[Prepared], known: Vec<Option<Known>>) -> Result<Made, CollectionError> {
        let mut made = Made::default();
        let mut wanted = Vec::new();
        for (at, (prepared, known)) in documents.iter().zip(known).enumerate() {
            let document = &prepared.document;
            let vectors = match (known, &document.vector, document.chunks.as_slice()) {
                (Some(known), ..) => {
                    made.cached += usize::from(known.1 == EmbeddingState::Embedded);
                    known
                }
                (None, Some(vector), _) => (self.whole(document, vector.clone())?, EmbeddingState::Ready),
                (None, None, [_, ..]) => (self.given_chunks(document)?, EmbeddingState::Ready),
                (None, None, []) => {
                    self.want(at, prepared, &mut wanted)?;
                    (DocumentVectors::default(), EmbeddingState::Embedded)
                }
            };
            made.vectors.push(vectors);
        }
        let given = made.vectors.iter().map(|(vectors, _)| vectors.numbers.len()).sum();
        self.check_count(given, wanted.len())?;
        self.embed_wanted(documents, &wanted, &mut made)?;
        Ok(made)
    }

    /// Adds the parts of a document's text that are to be embedded.
    fn want<'a>(&self, at: usize, prepared: &'a Prepared, wanted: &mut Vec<Wanted<'a>>) -> Result<(), CollectionError> {
        let (Some(definition), Some(text)) = (self.definition().chunks, prepared.document.text.as_deref()) else {
            let pieces = prepared.texts().zip(prepared.weights());
            wanted.extend(pieces.map(|(text, weight)| Wanted { document: at, text, piece: Piece::Part(weight) }));
            return Ok(());
        };
        let spans = split_text(&*self.model()?, text, definition)?;
        check_chunks(&prepared.document.id, spans.len())?;
        let bytes: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let byte = |character: u32| bytes.get(character as usize).copied().unwrap_or(text.len());
        let part = |span: ChunkSpan| text.get(byte(span.start)..byte(span.end)).unwrap_or_default();
        let want = |span| Wanted { document: at, text: part(span), piece: Piece::Chunk(span) };
        wanted.extend(spans.into_iter().map(want));
        Ok(())
    }

    /// Whether the request's vectors fit into one record of the log: so many numbers that were given, and so many
    /// vectors to come.
    fn check_count(&self, given: usize, wanted: usize) -> Result<(), CollectionError> {
        let dim = self.definition().dim as usize;
        let (got, max) = (given / dim + wanted, MAX_REQUEST_NUMBERS / dim);
        match got <= max {
            true => Ok(()),
            false => Err(CollectionError::TooManyChunks { what: "the documents of one request".into(), got, max }),
        }
    }

    fn embed_wanted(
        &self,
        documents: &[Prepared],
        wanted: &[Wanted<'_>],
        made: &mut Made,
    ) -> Result<(), CollectionError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let model = self.model()?;
        let all_at_once = if self.definition().chunks.is_some() { EMBEDDED_AT_ONCE } else { wanted.len() };
        let mut embedded = Vec::with_capacity(wanted.len());
        for part in wanted.chunks(all_at_once) {
            let texts: Vec<&str> = part.iter().map(|wanted| wanted.text).collect();
            let embeddings = model.embed_with(&texts, InputKind::Document, Some(self.definition().dim as usize))?;
            made.cached += embeddings.cached;
            made.embedded += texts.len() - embeddings.cached;
            embedded.extend(embeddings.vectors.into_iter().zip(embeddings.truncated));
        }
        let is_weighed = self.definition().template.as_ref().is_some_and(TemplateDefinition::has_weights);
        let mut parts = Vec::new();
        for (n, (one, (vector, cut))) in wanted.iter().zip(embedded).enumerate() {
            let id = &documents[one.document].document.id;
            if cut && made.truncated.last() != Some(id) {
                made.truncated.push(id.clone());
            }
            let vectors = &mut made.vectors[one.document].0;
            match one.piece {
                Piece::Chunk(span) => {
                    vectors.numbers.extend(self.admit(id, vector)?);
                    vectors.chunks.push(span);
                }
                Piece::Part(weight) => {
                    parts.push((weight, vector));
                    if wanted.get(n + 1).is_none_or(|next| next.document != one.document) {
                        vectors.numbers = self.admit(id, sum_of(id, std::mem::take(&mut parts), is_weighed)?)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One vector for all of a document.
    fn whole(&self, document: &NewDocument, vector: Vec<f32>) -> Result<DocumentVectors, CollectionError> {
        let span = || document.text.as_deref().map_or(ChunkSpan::NOWHERE, all_of);
        let chunks = if self.definition().chunks.is_some() { vec![span()] } else { Vec::new() };
        Ok(DocumentVectors { numbers: self.admit(&document.id, vector)?, chunks })
    }

    /// Several vectors that came with a document.
    fn given_chunks(&self, document: &NewDocument) -> Result<DocumentVectors, CollectionError> {
        let mut vectors = DocumentVectors::default();
        for Chunk { span, vector } in &document.chunks {
            vectors.numbers.extend(self.admit(&document.id, vector.clone())?);
            vectors.chunks.push(span.unwrap_or(ChunkSpan::NOWHERE));
        }
        Ok(vectors)
    }

    /// Refuses given chunks that cannot be stored.
    pub(super) fn check_given_chunks(&self, document: &NewDocument) -> Result<(), CollectionError> {
        let NewDocument { id, vector, chunks, .. } = document;
        if chunks.is_empty() {
            return Ok(());
        }
        let refuse = |detail: &str| Err(refused_chunks(id, detail));
        if self.definition().chunks.is_none() {
            return refuse(
                "the collection holds one vector a document; create one with \"chunks\": {} to send several",
            );
        }
        if vector.is_some() {
            return refuse("\"vector\" and \"chunks\" are two ways to give vectors; send one of them");
        }
        check_chunks(id, chunks.len())?;
        let definition = self.definition();
        for Chunk { span, vector } in chunks {
            // Here already: marks that the guard puts into the text move both.
            if span.is_some_and(|span| span.start > span.end) {
                return refuse(NO_PLACE);
            }
            check_vector_for(definition.metric, vector, definition.dim as usize)
                .map_err(|source| refused(id, source))?;
        }
        Ok(())
    }

    /// A vector as it is stored: rounded here, so that it is the same in the log, in memory and in segments.
    fn admit(&self, id: &DocumentId, mut vector: Vec<f32>) -> Result<Vec<f32>, CollectionError> {
        let definition = self.definition();
        admit_vector(definition.metric, &mut vector, definition.dim as usize)
            .and_then(|()| match definition.index.storage {
                VectorStorage::Float32 => Ok(()),
                VectorStorage::Float16 => round_to_half(&mut vector),
            })
            .map_err(|source| refused(id, source))?;
        Ok(vector)
    }
}

/// The one vector of a text's parts. Where fields have weights it has length 1, however many of them a document fills:
/// lengths of a model that does not normalise would tell nothing beside those of sums. A text without weights is one
/// part.
fn sum_of(id: &DocumentId, mut parts: Vec<(Weight, Vec<f32>)>, is_weighed: bool) -> Result<Vec<f32>, CollectionError> {
    match parts.pop() {
        Some((_, vector)) if !is_weighed => Ok(vector),
        last => {
            parts.extend(last);
            weighted_sum(&parts).map_err(|source| refused(id, source))
        }
    }
}

/// The span of one vector for all of a text.
pub(super) fn all_of(text: &str) -> ChunkSpan {
    ChunkSpan { start: 0, end: text.chars().count() as u32 }
}

/// The spans of a text's chunks, by the model's own tokens.
fn split_text(model: &TextModel, text: &str, definition: ChunkDefinition) -> Result<Vec<ChunkSpan>, CollectionError> {
    let pieces = model.tokenize(text, InputKind::Plain, false)?;
    let tokens: Vec<_> = pieces.into_iter().filter_map(|piece| piece.range).map(|(start, end)| start..end).collect();
    Ok(split(text, &tokens, definition))
}

/// Refuses given chunks whose places are none of the document's text, which a template has made by now.
pub(super) fn check_places(document: &NewDocument) -> Result<(), CollectionError> {
    let NewDocument { id, text, chunks, .. } = document;
    let mut spans = chunks.iter().filter_map(|chunk| chunk.span).peekable();
    if spans.peek().is_none() {
        return Ok(());
    }
    let characters = text.as_ref().map_or(0, |text| text.chars().count()) as u32;
    match spans.any(|span| span.start > span.end || span.end > characters) {
        true => Err(refused_chunks(id, NO_PLACE)),
        false => Ok(()),
    }
}

fn refused_chunks(id: &DocumentId, detail: &str) -> CollectionError {
    CollectionError::Chunks { id: id.clone(), detail: detail.to_owned() }
}

fn check_chunks(id: &DocumentId, got: usize) -> Result<(), CollectionError> {
    match got <= MAX_CHUNKS {
        true => Ok(()),
        false => {
            let what = format!("document {:?}", id.as_str());
            Err(CollectionError::TooManyChunks { what, got, max: MAX_CHUNKS })
        }
    }
}

pub(super) fn refused(id: &DocumentId, source: VectorError) -> CollectionError {
    CollectionError::DocumentVector { id: id.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::ChunkRequest;
    use crate::types::{CollectionName, GuardAction, GuardDefinition, PersonalData};
    use crate::{Database, DefinitionRequest};

    #[test]
    fn a_chunk_that_ends_before_it_begins_is_refused_also_where_a_mark_would_move_it() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let (action, kinds) = (GuardAction::Redact, PersonalData::ALL.into());
        let guard = Some(GuardDefinition { action, kinds, allow: Default::default() });
        let request =
            DefinitionRequest { guard, chunks: Some(ChunkRequest::default()), ..DefinitionRequest::vectors(2) };
        let collection = database.create_collection(&CollectionName::new("c").unwrap(), &request).unwrap().collection;
        let id = DocumentId::new("a").unwrap();
        let write = |start, end| {
            let chunks = vec![Chunk { span: Some(ChunkSpan { start, end }), vector: vec![1.0, 0.0] }];
            // The address is 5..20.
            let document = NewDocument { chunks, ..NewDocument::from_text(id.clone(), "mail ann@example.com now") };
            collection.upsert(vec![document])
        };
        for (start, end) in [(12, 10), (2, 1), (24, 25)] {
            let refused = write(start, end).unwrap_err();
            assert!(matches!(refused, CollectionError::Chunks { .. }), "{start}..{end}: {refused}");
        }
        write(10, 12).unwrap();
        let stored = collection.get(&id).unwrap().unwrap();
        assert_eq!(stored.stored.text.as_deref(), Some("mail [email] now"));
        assert_eq!(stored.chunks[0].span, Some(ChunkSpan { start: 5, end: 12 }));
    }
}
