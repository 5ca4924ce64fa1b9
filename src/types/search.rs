//! A search and its answer.

use std::time::Duration;

use super::metadata::metadata_bytes;
use super::vector::NUMBER_BYTES;
use super::{ChunkSpan, DocumentId, Explain, Filter, Metadata, Value};

/// What to search near.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// A text, embedded by the collection's model.
    Text(String),
    /// f32, shape `[dim]`.
    Vector(Vec<f32>),
    /// A stored document; it is left out of its own hits.
    Document(DocumentId),
    /// What some stored documents have in common and others have not; none of them is a hit.
    Like {
        /// At least one.
        positive: Vec<DocumentId>,
        /// To stay away from.
        negative: Vec<DocumentId>,
    },
    /// A text for its words, a vector for its nearness: for hybrid searches of a collection without a model.
    TextAndVector {
        /// The words.
        text: String,
        /// f32, shape `[dim]`.
        vector: Vec<f32>,
    },
}

/// What a search looks at, and so what its scores are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mode {
    /// Nearness of vectors. Scores: see [`Hit::score`].
    #[default]
    Vector,
    /// Words: BM25 with k1 = 1.2 and b = 0.75 (Robertson & Zaragoza 2009). Scores are above 0 and have no upper bound.
    Keyword,
    /// Both.
    Hybrid(Fusion),
}

/// How a hybrid search makes one ranking of two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fusion {
    /// Reciprocal rank fusion (Cormack, Clarke & Büttcher 2009): the sum of 1 / (60 + rank) over the rankings that have
    /// the document. Scores are above 0, at most 2/61.
    #[default]
    ReciprocalRank,
    /// `alpha` times the vector's score and 1 - `alpha` times the words', each brought to [0, 1] over the candidates.
    Weighted {
        /// 0 to 1.
        alpha: f32,
    },
}

/// Which part of the ranking to return.
#[derive(Clone, Debug, PartialEq)]
pub enum Paging {
    /// The hits after so many.
    Offset(usize),
    /// The first page, and where the next one begins.
    FirstPage,
    /// The page after a hit.
    After(SearchAfter),
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchAfter {
    /// Hits on the pages so far.
    pub rank: usize,
    /// The last hit's score.
    pub score: f32,
    /// The last hit.
    pub id: DocumentId,
}

/// Hits in groups by a field of their metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouping {
    /// A field's name or path. A document without it is in no group; one with an array is in the group of each element.
    pub field: String,
    /// Most hits of a group.
    pub size: usize,
}

/// How a cross-encoder orders the best candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rerank {
    /// Registry name, such as `cross-encoder/ms-marco-MiniLM-L6-v2`, or that of an installed one.
    pub model: String,
    /// Candidates that it reads: at least as many as the page reaches, at most [`super::limits::MAX_RERANKED`].
    pub top_n: usize,
    /// The metadata field that it reads; `None` for the text.
    pub field: Option<String>,
}

/// Which fields hits carry beside id and score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Include {
    /// The document's text.
    pub text: bool,
    /// The document's metadata.
    pub metadata: bool,
    /// The document's vector; that of its nearest chunk where it has chunks.
    pub vector: bool,
    /// The text of its nearest chunk, in a collection that has chunks.
    pub chunk: bool,
}

impl Default for Include {
    fn default() -> Self {
        Self { text: true, metadata: true, vector: false, chunk: false }
    }
}

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchRequest {
    /// What to search near.
    pub query: Query,
    /// Most hits to return, 1 to [`super::limits::MAX_TOP_K`].
    pub top_k: usize,
    /// Leaves out hits with a lower score.
    pub threshold: Option<f32>,
    /// Leaves out documents whose metadata do not match.
    pub filter: Option<Filter>,
    /// What hits carry.
    pub include: Include,
    /// Refuses an answer whose hits carry more bytes, those of the searches before it in one call included.
    pub max_bytes: Option<usize>,
    /// Compares with every document instead of walking the graph.
    pub exact: bool,
    /// Candidates kept while walking the graph; `None` lets the planner choose for recall@10 >= 0.95.
    pub ef_search: Option<usize>,
    /// What it looks at.
    pub mode: Mode,
    /// Which part of the ranking to return.
    pub paging: Paging,
    /// Returns groups in place of hits; `top_k` counts groups then.
    pub grouping: Option<Grouping>,
    /// 0 to 1: how much a hit loses for being like those before it (Carbonell & Goldstein 1998, 1 - lambda).
    pub diversity: Option<f32>,
    /// Orders the best candidates by a cross-encoder; scores are its then.
    pub rerank: Option<Rerank>,
    /// Fields whose values are counted over the candidates.
    pub facets: Vec<String>,
    /// Adds the parts of a hit's text that hold the query's words.
    pub highlight: bool,
    /// Waits until keyword search sees every write that was acknowledged.
    pub refresh: bool,
    /// Adds how the search was planned and what it cost.
    pub explain: bool,
}

impl SearchRequest {
    /// The ten nearest to `query`, with defaults for the rest.
    pub fn new(query: Query) -> Self {
        Self {
            query,
            top_k: 10,
            threshold: None,
            filter: None,
            include: Include::default(),
            max_bytes: None,
            exact: false,
            ef_search: None,
            mode: Mode::default(),
            paging: Paging::Offset(0),
            grouping: None,
            diversity: None,
            rerank: None,
            facets: Vec::new(),
            highlight: false,
            refresh: false,
            explain: false,
        }
    }
}

/// How a search was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Every document that passed the filter was compared: the answer is exact where [`SearchRequest::exact`] asked for
    /// it, and nearly so otherwise, since codes and bits choose what is compared in f32.
    Exact,
    /// At least one segment was searched by its graph: the answer is approximate.
    Graph,
    /// By the keyword index.
    Keyword,
    /// By the keyword index and by vectors.
    Hybrid,
}

impl Plan {
    /// Its name, as the API and the metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Plan::Exact => "exact",
            Plan::Graph => "graph",
            Plan::Keyword => "keyword",
            Plan::Hybrid => "hybrid",
        }
    }
}

/// One document found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document.
    pub id: DocumentId,
    /// Rises with closeness: cosine similarity in [-1, 1], dot product, or minus the Euclidean distance, by the
    /// collection's metric. In other modes than [`Mode::Vector`] as they say.
    pub score: f32,
    /// Where [`Include::text`] asked for it and the document has one.
    pub text: Option<String>,
    /// Where [`Include::metadata`] asked for it.
    pub metadata: Option<Metadata>,
    /// Where [`Include::vector`] asked for it.
    pub vector: Option<Vec<f32>>,
    /// In a collection that has chunks: the one nearest to the query's vector. `None` in mode [`Mode::Keyword`].
    pub chunk: Option<HitChunk>,
    /// Where [`SearchRequest::highlight`] asked for it: parts of the text as HTML, the query's words in `<mark>`.
    pub highlights: Option<Vec<String>>,
}

impl Hit {
    /// About how many bytes it carries, as JSON.
    pub fn carried_bytes(&self) -> usize {
        let chunk = self.chunk.as_ref().and_then(|chunk| chunk.text.as_ref());
        let texts = self.text.iter().chain(chunk).chain(self.highlights.iter().flatten());
        let numbers = self.vector.as_ref().map_or(0, Vec::len);
        texts.map(String::len).sum::<usize>()
            + self.metadata.as_ref().map_or(0, metadata_bytes)
            + numbers * NUMBER_BYTES
            + self.id.as_str().len()
    }
}

/// The part of a document that a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HitChunk {
    /// Which of the document's chunks, counted from 0.
    pub index: usize,
    /// Where it stands in the text; `None` where its vector was given without a place.
    pub span: Option<ChunkSpan>,
    /// Where [`Include::chunk`] asked for it.
    pub text: Option<String>,
}

/// Hits that share a value.
#[derive(Clone, Debug, PartialEq)]
pub struct HitGroup {
    /// The value of the grouping's field.
    pub value: Value,
    /// Best first.
    pub hits: Vec<Hit>,
}

/// How often each value of a field stands in the candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Facet {
    /// The field.
    pub field: String,
    /// Values with the documents that have them, the most frequent first, at most 100.
    pub values: Vec<(Value, u64)>,
    /// Documents looked at: the best 1,000 of those that match, or more where the page needs more.
    pub documents: u64,
}

impl Facet {
    /// About how many bytes it carries, as JSON.
    pub fn carried_bytes(&self) -> usize {
        self.values.iter().map(|(value, _)| carried_value_bytes(value) + NUMBER_BYTES).sum()
    }
}

/// About how many bytes the value of a group or of a facet carries, as JSON.
pub fn carried_value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        _ => NUMBER_BYTES,
    }
}

/// The answer to a search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResponse {
    /// Best first, ties by ascending id; at most `top_k`. Empty where hits are grouped.
    pub hits: Vec<Hit>,
    /// Where [`SearchRequest::grouping`] asked for them: by their best hit, best first; at most `top_k`.
    pub groups: Option<Vec<HitGroup>>,
    /// One for each of [`SearchRequest::facets`].
    pub facets: Vec<Facet>,
    /// Where the next page begins, for [`Paging::After`]; `None` on the last page, and where no pages were asked for.
    pub next: Option<SearchAfter>,
    /// How it was answered.
    pub plan: Plan,
    /// Time spent, embedding of the query included.
    pub took: Duration,
    /// Whether the query text was longer than the model reads, or had more words than are looked for, and was cut.
    pub truncated: bool,
    /// Where [`SearchRequest::explain`] asked for it.
    pub explain: Option<Explain>,
}
