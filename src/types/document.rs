//! Documents: as they arrive, as they are stored, as they are returned.

use super::metadata::metadata_bytes;
use super::vector::NUMBER_BYTES;
use super::{Chunk, DocumentId, Metadata, Seq};

/// A document to upsert. It needs a text (embedded by the collection's model) or a vector, or both.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDocument {
    /// Unique in the collection; an existing document with this id is replaced whole.
    pub id: DocumentId,
    /// The text, stored as given.
    pub text: Option<String>,
    /// Filterable fields.
    pub metadata: Metadata,
    /// f32, shape `[dim]`; taken instead of embedding the text.
    pub vector: Option<Vec<f32>>,
    /// Several vectors for one document, in a collection that has chunks; taken instead of splitting the text. Empty
    /// otherwise.
    pub chunks: Vec<Chunk>,
}

impl NewDocument {
    /// A document of a text alone.
    pub fn from_text(id: DocumentId, text: impl Into<String>) -> Self {
        Self { id, text: Some(text.into()), metadata: Metadata::new(), vector: None, chunks: Vec::new() }
    }
}

/// Whether a document has its vector yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum EmbeddingState {
    /// The vector is there; it came with the document, or an older version of this program embedded the text.
    Ready,
    /// The text waits to be embedded: a number of the formats that nothing writes.
    Pending,
    /// The vector is there, and is what the collection's model makes of the text.
    Embedded,
}

/// What the log and the segments hold of a document beside its vector and seq.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub struct StoredDocument {
    /// Unique in the collection.
    pub id: DocumentId,
    /// The text as given.
    pub text: Option<String>,
    /// Filterable fields.
    pub metadata: Metadata,
    /// First written, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Last written, in milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// Whether the vector is there.
    pub embedding: EmbeddingState,
}

/// A document as returned to a reader.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What was stored.
    pub stored: StoredDocument,
    /// The change that wrote it.
    pub seq: Seq,
    /// f32, shape `[dim]`; normalised to length 1 where the metric is cosine. The mean of its chunks where it has
    /// several.
    pub vector: Vec<f32>,
    /// In a collection that has chunks: each with its vector, as compared.
    pub chunks: Vec<Chunk>,
}

impl Document {
    /// About how many bytes it carries, as JSON.
    pub fn carried_bytes(&self) -> usize {
        let StoredDocument { id, text, metadata, .. } = &self.stored;
        let numbers = self.vector.len() + self.chunks.iter().map(|chunk| chunk.vector.len()).sum::<usize>();
        id.as_str().len() + text.as_ref().map_or(0, String::len) + metadata_bytes(metadata) + numbers * NUMBER_BYTES
    }
}
