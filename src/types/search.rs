//! A search and its answer.

use std::time::Duration;

use super::{DocumentId, Explain, Filter, Metadata};

/// What to search near.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// A text, embedded by the collection's model.
    Text(String),
    /// f32, shape `[dim]`.
    Vector(Vec<f32>),
    /// A stored document; it is left out of its own hits.
    Document(DocumentId),
}

/// Which fields hits carry beside id and score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Include {
    /// The document's text.
    pub text: bool,
    /// The document's metadata.
    pub metadata: bool,
    /// The document's vector.
    pub vector: bool,
}

impl Default for Include {
    fn default() -> Self {
        Self { text: true, metadata: true, vector: false }
    }
}

/// A search by similarity.
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
    /// Compares with every document instead of walking the graph.
    pub exact: bool,
    /// Candidates kept while walking the graph; `None` lets the planner choose for recall@10 >= 0.95.
    pub ef_search: Option<usize>,
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
            exact: false,
            ef_search: None,
            explain: false,
        }
    }
}

/// How a search was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Every document that passed the filter was compared: the answer is exact.
    Exact,
    /// At least one segment was searched by its graph: the answer is approximate.
    Graph,
}

/// One document found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The document.
    pub id: DocumentId,
    /// Rises with closeness: cosine similarity in [-1, 1], dot product, or minus the Euclidean distance, by the
    /// collection's metric.
    pub score: f32,
    /// Where [`Include::text`] asked for it and the document has one.
    pub text: Option<String>,
    /// Where [`Include::metadata`] asked for it.
    pub metadata: Option<Metadata>,
    /// Where [`Include::vector`] asked for it.
    pub vector: Option<Vec<f32>>,
}

/// The answer to a search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResponse {
    /// Nearest first, ties by ascending id; at most `top_k`.
    pub hits: Vec<Hit>,
    /// How it was answered.
    pub plan: Plan,
    /// Time spent, embedding of the query included.
    pub took: Duration,
    /// Whether the query text was longer than the model reads and was cut.
    pub truncated: bool,
    /// Where [`SearchRequest::explain`] asked for it.
    pub explain: Option<Explain>,
}
