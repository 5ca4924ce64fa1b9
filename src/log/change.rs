//! What one record of the log says.

use crate::types::{ChunkSpan, CollectionId, CollectionName, Definition, DocumentId, StoredDocument};

/// One change, as one request asked for it; it is applied as a whole or not at all.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "few stand in memory at a time, and nearly all are of the large kind of work"
)]
pub enum Change {
    /// A collection begins.
    CreateCollection {
        /// Its number, new in this store.
        id: CollectionId,
        /// Its name, not taken at this point of the log.
        name: CollectionName,
        /// What it is.
        definition: Definition,
        /// When, in milliseconds since the Unix epoch.
        created_at_ms: i64,
    },
    /// A collection ends, with everything in it.
    DropCollection {
        /// Its number.
        id: CollectionId,
    },
    /// Documents are written, each whole, over what stood under their ids.
    Upsert {
        /// Where.
        collection: CollectionId,
        /// The documents; each id once.
        documents: Vec<LoggedDocument>,
    },
    /// Documents are deleted.
    Delete {
        /// Where.
        collection: CollectionId,
        /// Their ids.
        ids: Vec<DocumentId>,
    },
}

/// A document with its vector, or with the vectors of its chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedDocument {
    /// The document.
    pub document: StoredDocument,
    /// f32, shape `[dim]`, or `[chunks, dim]` where there are chunks; empty while the document waits for its embedding.
    pub vector: Vec<f32>,
    /// Where each chunk stands; empty in a collection without chunks.
    pub chunks: Vec<ChunkSpan>,
}
