//! Documents on the wire.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::filter::WireFilter;
use super::json::Object;
use super::list::AtMost;
use super::patch::given;
use super::time::rfc3339;
use super::value::{MetadataView, WireMetadata};
use super::vector::{VectorSchema, WireVector};
use crate::collection::Upserted;
use crate::http::error::{ApiError, Code};
use crate::types::limits::{MAX_CHUNKS, MAX_DOCUMENTS_PER_REQUEST};
use crate::types::{Chunk, ChunkSpan, Document, DocumentId, EmbeddingState, Filter, IfSeq, Include, NewDocument, Seq};

/// Documents to write; all of them or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpsertBody {
    /// 1 to 1,000, each id once.
    #[schema(value_type = Vec<DocumentBody>, min_items = 1, max_items = 1000)]
    documents: AtMost<Object<DocumentBody>, MAX_DOCUMENTS_PER_REQUEST>,
    /// Whether the answer waits until the write is safe and visible. Only true for now.
    #[schema(default = true)]
    wait: Option<bool>,
    /// Whether the answer waits until keyword search sees the documents, which it does by itself within a second.
    #[schema(default = false)]
    refresh: Option<bool>,
}

/// A document to write. It needs a text or a vector, or both; then the vector stands and the text is stored. In a
/// collection that has chunks, `chunks` may stand for the vector.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentBody {
    /// Unique in the collection; a document that has it already is replaced whole.
    #[schema(min_length = 1, max_length = 512, example = "a")]
    id: String,
    /// The text to embed, stored as given.
    #[schema(example = "The lighthouse keeper feeds the gulls.")]
    text: Option<String>,
    /// Fields to filter by.
    #[schema(value_type = Option<Object>)]
    metadata: Option<WireMetadata>,
    /// As many numbers as the collection's dim.
    #[schema(value_type = Option<VectorSchema>)]
    vector: Option<WireVector>,
    /// Several vectors for one document, in a collection that has chunks; without them its text is split.
    #[schema(value_type = Option<Vec<ChunkBody>>, max_items = 4096)]
    chunks: Option<AtMost<Object<ChunkBody>, MAX_CHUNKS>>,
    /// Writes it only where the document stands at this `seq`, as it was read; 0: where there is none. Else nothing is
    /// written: 409 `seq_conflict`. Not in an import.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = u64, required = false)]
    if_seq: Option<u64>,
    /// Read over, as are the three that follow: so a document that was read can be written back. It is no guard, as
    /// `if_seq` is: what was written since is replaced all the same.
    #[schema(value_type = Option<u64>, read_only)]
    seq: Option<IgnoredAny>,
    /// Read over.
    #[serde(rename = "created_at")]
    #[schema(value_type = Option<String>, read_only)]
    _created_at: Option<IgnoredAny>,
    /// Read over.
    #[serde(rename = "updated_at")]
    #[schema(value_type = Option<String>, read_only)]
    _updated_at: Option<IgnoredAny>,
    /// Read over.
    #[serde(rename = "embedding")]
    #[schema(value_type = Option<String>, read_only)]
    _embedding: Option<IgnoredAny>,
}

impl UpsertBody {
    /// Whether to wait for keyword search.
    pub(crate) fn wants_refresh(&self) -> bool {
        self.refresh == Some(true)
    }

    /// # Errors
    /// An empty or overlong list, an id that is not allowed, `wait: false`.
    pub(crate) fn into_documents(self) -> Result<(Vec<NewDocument>, IfSeq), ApiError> {
        if self.wait == Some(false) {
            let detail = "\"wait\": false is not supported yet: every write is on disk before its answer; leave it out";
            return Err(ApiError::new(Code::WaitNotSupported, detail));
        }
        check_count("documents", self.documents.count())?;
        let mut if_seq = IfSeq::new();
        let mut documents = Vec::with_capacity(self.documents.count());
        for Object(mut document) in self.documents.into_items() {
            let expected = document.if_seq.take();
            let document = document.into_document()?;
            if_seq.extend(expected.map(|seq| (document.id.clone(), Seq(seq))));
            documents.push(document);
        }
        Ok((documents, if_seq))
    }
}

impl DocumentBody {
    /// # Errors
    /// [`Code::InvalidName`] when the id is not allowed, [`Code::InvalidValue`] for an `if_seq`, which nobody has taken
    /// out.
    pub(crate) fn into_document(self) -> Result<NewDocument, ApiError> {
        if self.if_seq.is_some() {
            let detail =
                "\"if_seq\" is for POST ../documents and for patches, which write all or nothing; leave it out";
            return Err(ApiError::new(Code::InvalidValue, detail));
        }
        let chunks = match self.chunks.map(AtMost::into_items) {
            Some(chunks) if chunks.is_empty() => {
                let detail = "\"chunks\" is empty; leave it out to have the text split";
                return Err(ApiError::new(Code::InvalidChunks, detail));
            }
            // As it was returned without vectors: its text is split again.
            Some(chunks) if self.seq.is_some() && chunks.iter().all(|Object(chunk)| chunk.vector.is_none()) => {
                Vec::new()
            }
            chunks => chunks.unwrap_or_default(),
        };
        Ok(NewDocument {
            id: DocumentId::new(&self.id)?,
            text: self.text,
            metadata: self.metadata.unwrap_or_default().0,
            vector: self.vector.map(|WireVector(vector)| vector),
            chunks: chunks.into_iter().map(|Object(chunk)| chunk.into_chunk()).collect::<Result<_, _>>()?,
        })
    }
}

/// One of a document's vectors.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewChunk)]
pub(crate) struct ChunkBody {
    /// As many numbers as the collection's dim. Left out of every chunk of a document that was read without vectors,
    /// and has its `seq`: its text is split again.
    #[schema(value_type = Option<VectorSchema>)]
    vector: Option<WireVector>,
    /// First character of `text` that it is of; with `end`.
    start: Option<u32>,
    /// After the last character of `text` that it is of.
    end: Option<u32>,
}

impl ChunkBody {
    fn into_chunk(self) -> Result<Chunk, ApiError> {
        let Some(WireVector(vector)) = self.vector else {
            let detail = "missing field `vector` of a chunk; send one, or leave \"chunks\" out to have the text split";
            return Err(ApiError::new(Code::MissingField, detail));
        };
        let span = match (self.start, self.end) {
            (Some(start), Some(end)) => Some(ChunkSpan { start, end }),
            (None, None) => None,
            _ => {
                let detail = "\"start\" and \"end\" of a chunk go together; send both or none";
                return Err(ApiError::new(Code::InvalidChunks, detail));
            }
        };
        Ok(Chunk { span, vector })
    }
}

pub(super) fn check_count(what: &str, count: usize) -> Result<(), ApiError> {
    if count == 0 {
        return Err(ApiError::new(Code::InvalidValue, format!("\"{what}\" is empty; send at least one")));
    }
    if count > MAX_DOCUMENTS_PER_REQUEST {
        let detail = format!(
            "\"{what}\" holds {count}, at most {MAX_DOCUMENTS_PER_REQUEST} are allowed; send several requests or use \
             the import stream"
        );
        return Err(ApiError::new(Code::TooManyDocuments, detail));
    }
    Ok(())
}

/// What a write did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UpsertedView {
    upserted: usize,
    /// The change that holds them.
    seq: u64,
    /// Texts that the model embedded.
    embedded: usize,
    /// Texts whose vector was known already.
    cached: usize,
    /// Ids of documents whose text, embedded now or taken from the cache, is longer than the model reads; their vector
    /// is that of the text's start.
    truncated: Vec<String>,
    /// Where `refresh` asked for it: whether keyword search sees the documents now. They are written either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refreshed: Option<bool>,
}

impl From<Upserted> for UpsertedView {
    fn from(upserted: Upserted) -> Self {
        Self {
            upserted: upserted.upserted,
            seq: upserted.seq.0,
            embedded: upserted.embedded,
            cached: upserted.cached,
            truncated: upserted.truncated.iter().map(DocumentId::to_string).collect(),
            refreshed: None,
        }
    }
}

/// Documents to delete, by id or by filter; give one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteBody {
    /// 1 to 1,000 ids; unknown ones are no error.
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 1000)]
    ids: Option<AtMost<String, MAX_DOCUMENTS_PER_REQUEST>>,
    /// Deletes every document that passes. One that all pass, such as the empty one, is refused.
    #[schema(value_type = Option<Object>)]
    filter: Option<WireFilter>,
}

/// What to delete.
#[derive(Debug)]
pub(crate) enum Deletion {
    Ids(Vec<DocumentId>),
    Matching(Filter),
}

impl DeleteBody {
    /// # Errors
    /// Neither or both of the keys, an empty or overlong list, a filter that has no meaning.
    pub(crate) fn into_deletion(self) -> Result<Deletion, ApiError> {
        match (self.ids, self.filter) {
            (Some(ids), None) => {
                check_count("ids", ids.count())?;
                let ids = ids.into_items().iter().map(|id| DocumentId::new(id)).collect::<Result<_, _>>()?;
                Ok(Deletion::Ids(ids))
            }
            (None, Some(filter)) => Ok(Deletion::Matching(filter.into_filter()?)),
            _ => Err(ApiError::new(Code::InvalidValue, "give either \"ids\" or \"filter\"")),
        }
    }
}

/// What a deletion did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedView {
    /// Documents that were there.
    pub(crate) deleted: usize,
    /// The change that deleted them.
    pub(crate) seq: u64,
}

/// Which documents to count.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountBody {
    /// Counts the documents that pass; without it, or where it is `{}`, all.
    #[schema(value_type = Option<Object>)]
    filter: Option<WireFilter>,
}

impl CountBody {
    /// # Errors
    /// A filter that has no meaning.
    pub(crate) fn into_filter(self) -> Result<Option<Filter>, ApiError> {
        self.filter.map(WireFilter::into_filter).transpose()
    }
}

/// How many there are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CountView {
    /// Exact, at one moment.
    pub(crate) count: u64,
}

/// A stored document.
#[derive(Serialize, ToSchema)]
pub(crate) struct DocumentView<'a> {
    id: &'a str,
    /// Left out where `include` does not name it; null where the document has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Option<&'a str>>,
    /// Left out where `include` does not name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<MetadataView<'a>>,
    /// Left out where `include` does not name it. Of length 1 where the metric is cosine.
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
    /// In a collection that has chunks; then the vectors are here, where `include` names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks: Option<Vec<ChunkView<'a>>>,
    /// The change that wrote it.
    seq: u64,
    /// First written; RFC 3339, UTC.
    #[schema(format = DateTime)]
    created_at: String,
    /// Last written; RFC 3339, UTC.
    #[schema(format = DateTime)]
    updated_at: String,
    embedding: WireEmbeddingState,
}

/// That a document has its vector: one without is never stored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EmbeddingState)]
enum WireEmbeddingState {
    Ready,
}

impl<'a> DocumentView<'a> {
    pub(crate) fn of(document: &'a Document, include: Include) -> Self {
        let stored = &document.stored;
        Self {
            id: stored.id.as_str(),
            text: include.text.then_some(stored.text.as_deref()),
            metadata: include.metadata.then_some(MetadataView(&stored.metadata)),
            vector: (include.vector && document.chunks.is_empty()).then_some(document.vector.as_slice()),
            chunks: (!document.chunks.is_empty()).then(|| chunks_of(document, include)),
            seq: document.seq.0,
            created_at: rfc3339(stored.created_at_ms),
            updated_at: rfc3339(stored.updated_at_ms),
            embedding: WireEmbeddingState::Ready,
        }
    }
}

/// A chunk of a document.
#[derive(Serialize, ToSchema)]
struct ChunkView<'a> {
    /// First character in the text; left out where its vector was given without a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<u32>,
    /// After its last character.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
}

fn chunks_of(document: &Document, include: Include) -> Vec<ChunkView<'_>> {
    let mut views = Vec::with_capacity(document.chunks.len());
    for Chunk { span, vector } in &document.chunks {
        let vector = include.vector.then_some(vector.as_slice());
        views.push(ChunkView { start: span.map(|span| span.start), end: span.map(|span| span.end), vector });
    }
    views
}

/// One page of documents, by ascending id.
#[derive(Serialize, ToSchema)]
pub(crate) struct PageView<'a> {
    pub(crate) documents: Vec<DocumentView<'a>>,
    /// Where the next page starts; null on the last.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

/// Which page of documents, and what of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
    /// 1 to 1,000; 100 when left out. A page ends sooner where its documents carry 64 MiB.
    pub(crate) limit: Option<usize>,
    /// A filter as JSON.
    pub(crate) filter: Option<String>,
    /// `text`, `metadata` and `vector`, joined by commas; the first two when left out. `own_vector`: the vectors of
    /// documents that came with them, and no others.
    pub(crate) include: Option<String>,
}

/// What of a document.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadParams {
    /// `text`, `metadata` and `vector`, joined by commas; the first two when left out. `own_vector`: the vector where
    /// it came with the document.
    pub(crate) include: Option<String>,
}

/// What to return beside id and score.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IncludeName {
    Text,
    Metadata,
    Vector,
    /// Of hits alone: the text of the chunk that was found.
    Chunk,
}

/// The fields that a list names, or the default ones without a list.
pub(crate) fn include_of(names: Option<&[IncludeName]>) -> Include {
    let Some(names) = names else { return Include::default() };
    let has = |name| names.contains(&name);
    Include {
        text: has(IncludeName::Text),
        metadata: has(IncludeName::Metadata),
        vector: has(IncludeName::Vector),
        chunk: has(IncludeName::Chunk),
    }
}

/// Reads names joined by commas; an empty string names none.
///
/// # Errors
/// [`Code::InvalidParameter`] for another name.
pub(crate) fn include_of_parameter(text: Option<&str>) -> Result<Include, ApiError> {
    let Some(text) = text else { return Ok(Include::default()) };
    let name = |name: &str| match name {
        "text" => Ok(IncludeName::Text),
        "metadata" => Ok(IncludeName::Metadata),
        "vector" => Ok(IncludeName::Vector),
        "chunk" => Ok(IncludeName::Chunk),
        other => Err(not_included(other, "text, metadata, vector and chunk")),
    };
    Ok(include_of(Some(&names_of(text).map(name).collect::<Result<Vec<_>, _>>()?)))
}

fn names_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn not_included(name: &str, allowed: &str) -> ApiError {
    let detail = format!("\"include\" holds {name:?}; allowed are {allowed}, joined by commas");
    ApiError::new(Code::InvalidParameter, detail)
}

/// What to return of documents that were not searched for, and so have no chunk that was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DocumentInclude {
    include: Include,
    /// Vectors that came with their documents.
    own_vector: bool,
}

impl DocumentInclude {
    /// What to return of this one.
    pub(crate) fn of(self, document: &Document) -> Include {
        let is_own = document.stored.embedding == EmbeddingState::Ready;
        Include { vector: self.include.vector || self.own_vector && is_own, ..self.include }
    }
}

/// As [`include_of_parameter`], of documents that were not searched for.
///
/// # Errors
/// [`Code::InvalidParameter`] for another name.
pub(crate) fn include_of_documents(text: Option<&str>) -> Result<DocumentInclude, ApiError> {
    let Some(text) = text else { return Ok(DocumentInclude::default()) };
    let include = Include { text: false, metadata: false, vector: false, chunk: false };
    let mut all = DocumentInclude { include, own_vector: false };
    for name in names_of(text) {
        match name {
            "text" => all.include.text = true,
            "metadata" => all.include.metadata = true,
            "vector" => all.include.vector = true,
            "own_vector" => all.own_vector = true,
            other => return Err(not_included(other, "text, metadata, vector and own_vector")),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::json;
    use crate::types::{Seq, StoredDocument, Value};

    #[test]
    fn a_batch_is_read_whole_or_refused() {
        let read = |text: &str| {
            let read = json::parse::<UpsertBody>(text.as_bytes()).and_then(UpsertBody::into_documents);
            read.map(|(documents, _)| documents)
        };
        let documents =
            read(r#"{"documents":[{"id":"a","text":"t","metadata":{"n":1},"vector":[1,0]}],"wait":true}"#).unwrap();
        let wanted = NewDocument {
            id: DocumentId::new("a").unwrap(),
            text: Some("t".into()),
            metadata: [("n".to_owned(), Value::Int(1))].into(),
            vector: Some(vec![1.0, 0.0]),
            chunks: Vec::new(),
        };
        assert_eq!(documents, [wanted]);
        let documents = read(
            r#"{"documents":[{"id":"a","text":"tu","chunks":[{"vector":[1],"start":0,"end":2},{"vector":[2]}]}]}"#,
        );
        let chunk = |span, x| Chunk { span, vector: vec![x] };
        let wanted = [chunk(Some(ChunkSpan { start: 0, end: 2 }), 1.0), chunk(None, 2.0)];
        assert_eq!(documents.unwrap()[0].chunks, wanted);
        let many = format!("{{\"documents\":[{}{{\"id\":\"z\"}}]}}", "{\"id\":\"a\"},".repeat(1_000));
        let cases = [
            (r#"{"documents":[]}"#, Code::InvalidValue),
            (r#"{}"#, Code::MissingField),
            (r#"{"documents":[{"text":"t"}]}"#, Code::MissingField),
            (r#"{"documents":[{"id":""}]}"#, Code::InvalidName),
            (r#"{"documents":[{"id":"a\n"}]}"#, Code::InvalidName),
            (r#"{"documents":[["a","t"]]}"#, Code::InvalidValue),
            (r#"{"documents":[{"id":"a","metadata":[1]}]}"#, Code::InvalidValue),
            (r#"{"documents":[{"id":"a","vector":[1e39]}]}"#, Code::InvalidVector),
            (r#"{"documents":[{"id":"a","vector":[NaN]}]}"#, Code::InvalidJson),
            (r#"{"documents":[{"id":"a","chunks":[]}]}"#, Code::InvalidChunks),
            (r#"{"documents":[{"id":"a","chunks":[{"vector":[1],"start":1}]}]}"#, Code::InvalidChunks),
            (r#"{"documents":[{"id":"a","chunks":[{"start":1,"end":2}]}]}"#, Code::MissingField),
            (r#"{"documents":[{"id":"a"}],"wait":false}"#, Code::WaitNotSupported),
            (many.as_str(), Code::TooManyDocuments),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text).unwrap_err().code, wanted, "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn a_seq_is_expected_of_those_that_name_one() {
        let text = r#"{"documents":[{"id":"a","if_seq":7,"seq":9},{"id":"b"},{"id":"c","if_seq":0}]}"#;
        let (documents, if_seq) = json::parse::<UpsertBody>(text.as_bytes()).unwrap().into_documents().unwrap();
        assert_eq!(documents.len(), 3);
        let expected: Vec<_> = if_seq.iter().map(|(id, seq)| (id.as_str(), seq.0)).collect();
        assert_eq!(expected, [("a", 7), ("c", 0)]);
        let line = |text: &str| json::parse::<DocumentBody>(text.as_bytes()).and_then(DocumentBody::into_document);
        for text in [r#"{"id":"a","if_seq":7}"#, r#"{"id":"a","if_seq":null}"#] {
            assert_eq!(line(text).unwrap_err().code, Code::InvalidValue, "{text}");
        }
    }

    #[test]
    fn what_was_read_can_be_written_back() {
        let read = |text: &str| {
            let read = json::parse::<UpsertBody>(text.as_bytes()).and_then(UpsertBody::into_documents);
            read.map(|(documents, _)| documents)
        };
        let rest = r#""seq":7,"created_at":"1970-01-01T00:00:00.000Z","updated_at":"1970-01-01T00:00:00.001Z","embedding":"ready""#;
        let body = |document: &str| format!(r#"{{"documents":[{{"id":"a","text":"t",{document}{rest}}}]}}"#);
        let document = read(&body(r#""metadata":{"n":1},"#)).unwrap().remove(0);
        assert_eq!((document.text.as_deref(), document.metadata.len()), (Some("t"), 1));
        let chunks = r#""chunks":[{"start":0,"end":1}],"#;
        assert!(read(&body(chunks)).unwrap()[0].chunks.is_empty());
        // Chunks of one's own need their vectors.
        let own = body(chunks).replace(r#""seq":7,"#, "");
        assert_eq!(read(&own).unwrap_err().code, Code::MissingField);
        assert_eq!(read(&body(r#""score":1,"#)).unwrap_err().code, Code::UnknownField);
    }

    #[test]
    fn a_deletion_names_ids_or_a_filter() {
        let read = |text: &str| json::parse::<DeleteBody>(text.as_bytes()).and_then(DeleteBody::into_deletion);
        assert!(matches!(read(r#"{"ids":["a"]}"#), Ok(Deletion::Ids(ids)) if ids.len() == 1));
        assert!(matches!(read(r#"{"filter":{"a":1}}"#), Ok(Deletion::Matching(_))));
        for text in [r#"{}"#, r#"{"ids":["a"],"filter":{"a":1}}"#, r#"{"ids":[]}"#] {
            assert_eq!(read(text).unwrap_err().code, Code::InvalidValue, "{text}");
        }
        assert_eq!(read(r#"{"filter":{"$any":1}}"#).unwrap_err().code, Code::InvalidFilter);
    }

    #[test]
    fn include_decides_what_is_written() {
        let document = Document {
            stored: StoredDocument {
                id: DocumentId::new("a").unwrap(),
                text: None,
                metadata: [("n".to_owned(), Value::Int(1))].into(),
                created_at_ms: 0,
                updated_at_ms: 1,
                embedding: EmbeddingState::Ready,
            },
            seq: Seq(7),
            vector: vec![0.5, 1.0],
            chunks: Vec::new(),
        };
        let write = |include| {
            serde_json::to_string(&DocumentView::of(&document, include_of_parameter(include).unwrap())).unwrap()
        };
        let rest = r#""seq":7,"created_at":"1970-01-01T00:00:00.000Z","updated_at":"1970-01-01T00:00:00.001Z","embedding":"ready"}"#;
        assert_eq!(write(None), format!(r#"{{"id":"a","text":null,"metadata":{{"n":1}},{rest}"#));
        assert_eq!(write(Some("vector")), format!(r#"{{"id":"a","vector":[0.5,1.0],{rest}"#));
        assert_eq!(write(Some("")), format!(r#"{{"id":"a",{rest}"#));
        assert_eq!(include_of_parameter(Some("text,body")).unwrap_err().code, Code::InvalidParameter);
        assert!(include_of_parameter(Some("text,chunk")).is_ok_and(|include| include.chunk));
        assert_eq!(include_of_documents(Some("text,chunk")).unwrap_err().code, Code::InvalidParameter);
        let given = StoredDocument { embedding: EmbeddingState::Ready, ..document.stored.clone() };
        let made = StoredDocument { embedding: EmbeddingState::Embedded, ..document.stored.clone() };
        for (include, wanted) in [(None, [false; 2]), (Some("vector"), [true; 2]), (Some("own_vector"), [true, false])]
        {
            let include = include_of_documents(include).unwrap();
            let has = |stored: &StoredDocument| include.of(&Document { stored: stored.clone(), ..document.clone() });
            assert_eq!([&given, &made].map(|stored| has(stored).vector), wanted, "{include:?}");
        }
    }
}
