//! Changes of parts of documents, and what is expected to stand where something is written.

use std::collections::BTreeMap;

use super::{DocumentId, Metadata, Seq};

/// What becomes of a part of a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Edit<T> {
    /// It stays.
    #[default]
    Keep,
    /// It is taken away.
    Remove,
    /// It is replaced.
    Set(T),
}

/// A change of a part of a document that is there. What it does not name stays.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentPatch {
    /// Which document.
    pub id: DocumentId,
    /// A JSON merge patch (RFC 7396) of its metadata; empty where they stay.
    pub metadata: Metadata,
    /// Its text, stored as given.
    pub text: Edit<String>,
    /// Its own vector, f32, shape `[dim]`. [`Edit::Remove`] has the model make it of the text again. A vector that the
    /// model made stays for as long as the text does, and one that came with the document until this names it.
    pub vector: Edit<Vec<f32>>,
    /// The [`Document::seq`](super::Document::seq) that must stand.
    pub if_seq: Option<Seq>,
}

impl DocumentPatch {
    /// A patch that changes nothing yet.
    pub fn new(id: DocumentId) -> Self {
        Self { id, metadata: Metadata::new(), text: Edit::Keep, vector: Edit::Keep, if_seq: None }
    }

    /// Whether it names nothing to change.
    pub fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.text == Edit::Keep && self.vector == Edit::Keep
    }
}

/// By document the [`Document::seq`](super::Document::seq) that must stand for a write to be done; seq 0: that there is
/// no such document.
pub type IfSeq = BTreeMap<DocumentId, Seq>;
