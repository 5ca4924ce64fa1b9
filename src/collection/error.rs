//! What can go wrong when a collection is read or written.

use crate::embed::{EmbedError, Precision};
use crate::index::IndexError;
use crate::ingest::{GuardError, TemplateError};
use crate::log::LogError;
use crate::manifest::ManifestError;
use crate::meta::MetaError;
use crate::segment::SegmentError;
#[cfg(feature = "text")]
use crate::text::TextError;
use crate::types::{
    CollectionName, DefinitionError, DocumentId, FilterError, MetadataError, NameError, Seq, VectorError,
};

/// What is to be done where the database of a collection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendFault {
    /// It could not be reached, and nothing was changed: try again.
    Unreachable,
    /// Other transactions stood in the way, and nothing was changed: try again.
    Busy,
    /// A statement took longer than it may, and nothing was changed: ask for less.
    Timeout,
    /// The connection broke during a write: whether it was done is not known. Sending it again does no harm.
    Unknown,
    /// It refuses what was sent: change that.
    Refused,
    /// The table is somebody else's, or of another definition: name another, or change the definition.
    Conflict,
    /// The table is gone, or has no longer the columns that it was made with: mend it.
    Drift,
    /// The vector column has another dimension than the collection: mend it.
    Dim,
    /// The user or the password is wrong.
    Authentication,
    /// TLS could not be agreed on, or the certificate is not the right one.
    Tls,
    /// The role lacks a right.
    Rights,
    /// pgvector is missing or too old.
    Extension,
    /// Where the database is, is not said, or wrongly.
    Settings,
    /// Anything else: somebody has to look at the database.
    Failed,
}

/// Why a call on a collection failed. The first group is for the caller to mend, the second for a later try, the rest
/// are faults of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectionError {
    /// No collection has this name.
    #[error("there is no collection {name:?}; check its name, or create it with PUT /v1/collections/{name} or `pannier collection create`", name = name.as_str())]
    NotFound {
        /// The name asked for.
        name: CollectionName,
    },
    /// A collection of this name stands already with another definition.
    #[error("collection {name:?} exists with another definition ({difference}); delete it first or use another name", name = name.as_str())]
    Exists {
        /// The name.
        name: CollectionName,
        /// What differs, as `setting: existing != asked for`.
        difference: String,
    },
    /// A name or id is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A definition is not allowed, or a document does not fit it.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// A document does not fit the declared fields.
    #[error("document {id:?}: {source}", id = id.as_str())]
    Fields {
        /// The document.
        id: DocumentId,
        /// Why.
        source: DefinitionError,
    },
    /// A document's vector was refused.
    #[error("document {id:?}: {source}", id = id.as_str())]
    DocumentVector {
        /// The document.
        id: DocumentId,
        /// Why.
        source: VectorError,
    },
    /// The query vector was refused.
    #[error("query: {0}")]
    QueryVector(VectorError),
    /// A document's metadata were refused.
    #[error("document {id:?}: {source}", id = id.as_str())]
    Metadata {
        /// The document.
        id: DocumentId,
        /// Why.
        source: MetadataError,
    },
    /// Something is longer than its limit.
    #[error("{what} is {got} bytes long, at most {max} are allowed")]
    TooLong {
        /// What is too long, with the document's id where there is one.
        what: String,
        /// Its length in bytes.
        got: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// One request holds too many documents.
    #[error(
        "{got} documents in one request, at most {max} are allowed; send several requests or use the import stream"
    )]
    TooManyDocuments {
        /// Documents in the request.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// More chunks than are allowed.
    #[error(
        "{what} would have {got} chunks, at most {max} are allowed; send shorter texts, or fewer of them, or create a collection with longer chunks"
    )]
    TooManyChunks {
        /// What has them.
        what: String,
        /// Chunks.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// Chunks that came with a document were refused.
    #[error("document {id:?}: {detail}", id = id.as_str())]
    Chunks {
        /// The document.
        id: DocumentId,
        /// What is wrong, and what to send instead.
        detail: String,
    },
    /// Two documents of one request have the same id.
    #[error("document id {id:?} stands twice in one request; send each id once", id = id.as_str())]
    DuplicateId {
        /// The id.
        id: DocumentId,
    },
    /// A document has neither a text nor a vector.
    #[error("document {id:?} has neither \"text\" nor \"vector\"; it needs at least one, and where the collection has a template, fields that this makes a text of", id = id.as_str())]
    NothingToIndex {
        /// The document.
        id: DocumentId,
    },
    /// A text came with a document, and the collection's template makes another of its fields.
    #[error("document {id:?}: the collection's template makes the text of its fields, so \"text\" is neither taken nor taken away; leave it out, or send it as a metadata field that the template names", id = id.as_str())]
    TextIsMade {
        /// The document.
        id: DocumentId,
    },
    /// A collection's template cannot be read.
    #[error(transparent)]
    TemplateDefinition {
        /// Why.
        source: TemplateError,
    },
    /// A collection's template makes no text of a document.
    #[error("document {id:?}: {source}", id = id.as_str())]
    Template {
        /// The document.
        id: DocumentId,
        /// Why.
        source: TemplateError,
    },
    /// A document carries personal data.
    // An id may be what was found, so it is not repeated then.
    #[error("{}{source}", if source.place == "the id" { "a document: ".to_owned() } else { format!("document {:?}: ", id.as_str()) })]
    Guard {
        /// The document.
        id: DocumentId,
        /// What, and where.
        source: GuardError,
    },
    /// A text came and the collection has no model.
    #[error("collection {name:?} has no embedding model, so it takes vectors only; send \"vector\", or create a collection with \"embedding\": {{\"model\": ..}}", name = name.as_str())]
    NoModel {
        /// The collection.
        name: CollectionName,
    },
    /// The model on disk makes other vectors than the collection holds.
    #[error("collection {name:?} was embedded by model {model} with fingerprint {expected}, and the installed one is {got}; {advice}", name = name.as_str(), advice = same_again(*made_in))]
    ModelChanged {
        /// The collection.
        name: CollectionName,
        /// The model's name.
        model: String,
        /// Fingerprint in the definition.
        expected: String,
        /// Fingerprint of the installed files, in the precision that they run in.
        got: String,
        /// The precision in which the installed files are that model; `None` where there is none.
        made_in: Option<Precision>,
    },
    /// A document to patch does not exist.
    #[error("there is no document {id:?} in collection {name:?}", id = id.as_str(), name = name.as_str())]
    DocumentNotFound {
        /// The collection.
        name: CollectionName,
        /// The id asked for.
        id: DocumentId,
    },
    /// A patch has nothing to change.
    #[error("the patch of document {id:?} changes nothing; name a field of \"metadata\", \"text\" or \"vector\"", id = id.as_str())]
    EmptyPatch {
        /// The document.
        id: DocumentId,
    },
    /// A document is not at the seq that a write expects.
    #[error("{}; read it again and decide anew, nothing was written", seq_conflict(id, *expected, *stands))]
    SeqConflict {
        /// The document.
        id: DocumentId,
        /// As expected; 0 for no document.
        expected: Seq,
        /// As it stands; 0 where there is no document.
        stands: Seq,
    },
    /// Patches were overtaken by other writes again and again while their texts were embedded.
    #[error("others write the same documents, document {id:?} or another, again and again while their texts are embedded; nothing was written, try again shortly", id = id.as_str())]
    Overtaken {
        /// The first document of the request.
        id: DocumentId,
    },
    /// The document to search near does not exist.
    #[error("there is no document {id:?} in the collection to search near", id = id.as_str())]
    QueryDocumentNotFound {
        /// The id asked for.
        id: DocumentId,
    },
    /// Parts of a search do not go together.
    #[error("{detail}")]
    Query {
        /// What is wrong, and what to send instead.
        detail: String,
    },
    /// A search for words in a program that has no keyword search.
    #[error(
        "this program was built without keyword search (cargo feature \"text\"); search by vector, or use one that has it"
    )]
    KeywordsOff,
    /// A filter is too large or too deep.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The hits of a search, or of several in one call, carry too much.
    #[error(
        "the hits carry more than {max} bytes; ask for fewer, or leave the text, the metadata or the vector out with \"include\""
    )]
    AnswerTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// A number in a request is outside its range.
    #[error("{name} is {got}, allowed are {min} to {max}")]
    OutOfRange {
        /// The option.
        name: &'static str,
        /// As given.
        got: String,
        /// Smallest allowed.
        min: String,
        /// Largest allowed.
        max: String,
    },

    /// The collection's backend cannot do it.
    #[error("collection {name:?} stands in Postgres, which {cannot}", name = name.as_str())]
    NotOnBackend {
        /// The collection.
        name: CollectionName,
        /// What it cannot do, and what to do instead.
        cannot: String,
    },
    /// The database of a collection did not do it.
    #[error("collection {name:?}: {detail}", name = name.as_str())]
    Backend {
        /// The collection.
        name: CollectionName,
        /// What is to be done about it.
        fault: BackendFault,
        /// What happened; holds no secret.
        detail: String,
    },

    /// Every session with a collection's database was busy for as long as a call waits for one.
    #[error("collection {name:?}: the {sessions} sessions with its database are all busy; try again shortly", name = name.as_str())]
    SessionsBusy {
        /// The collection.
        name: CollectionName,
        /// How many there are.
        sessions: usize,
    },
    /// Too much work is queued.
    #[error("too many writes are waiting; try again shortly")]
    Overloaded,
    /// The keyword index cannot answer now; it mends itself.
    #[error("the keyword index of collection {name:?} is not ready: {reason}; try again shortly", name = name.as_str())]
    KeywordsNotReady {
        /// The collection.
        name: CollectionName,
        /// Why.
        reason: String,
    },
    /// Segments could not be sealed or merged; what there is stays as it was.
    #[error("segments could not be sealed or merged: {reason}")]
    Unmerged {
        /// The error and its causes.
        reason: String,
    },
    /// The database is closing or has stopped after a failed write to disk.
    #[error("the database no longer accepts writes: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },

    /// The embedding model failed or is not there.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The change log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A segment is damaged or could not be read or written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A segment could not be built or searched.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The manifest could not be read or written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A keyword index failed.
    #[cfg(feature = "text")]
    #[error(transparent)]
    Text(#[from] TextError),
    /// The document index failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

fn seq_conflict(id: &DocumentId, expected: Seq, stands: Seq) -> String {
    let id = id.as_str();
    match (expected, stands) {
        (Seq(0), _) => format!("\"if_seq\" is 0, so document {id:?} must not be there, and it is, at seq {stands}"),
        (_, Seq(0)) => format!("\"if_seq\" expects document {id:?} at seq {expected}, and there is no such document"),
        _ => format!("\"if_seq\" expects document {id:?} at seq {expected}, and it stands at seq {stands}"),
    }
}

/// How vectors of an earlier fingerprint are had again.
fn same_again(made_in: Option<Precision>) -> String {
    match made_in {
        Some(precision) => format!("these files made it with `--precision {}`: start with that", precision.name()),
        None => "other files made it: install the same again".to_owned(),
    }
}
