//! Searches on the wire.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::document::{IncludeName, include_of, include_of_parameter};
use super::explain::ExplainView;
use super::filter::WireFilter;
use super::value::MetadataView;
use super::vector::WireVector;
use crate::http::error::{ApiError, Code};
use crate::types::{DocumentId, Hit, Plan, Query, SearchRequest, SearchResponse};

/// A search; give one of `text`, `vector` and `id`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchBody {
    /// Embedded by the collection's model.
    #[schema(example = "who feeds the birds?")]
    text: Option<String>,
    /// As many numbers as the collection's dim.
    #[schema(value_type = Option<Vec<f32>>)]
    vector: Option<WireVector>,
    /// A stored document; it is left out of its own hits.
    id: Option<String>,
    /// Most hits; 10 when left out.
    #[schema(minimum = 1, maximum = 1000)]
    top_k: Option<usize>,
    /// Leaves out hits with a lower score.
    threshold: Option<f64>,
    /// Leaves out documents whose metadata do not match.
    #[schema(value_type = Option<Object>, example = json!({"price": {"$lt": 10}}))]
    filter: Option<WireFilter>,
    /// Only `vector` for now.
    mode: Option<WireMode>,
    /// `text` and `metadata` when left out.
    include: Option<Vec<IncludeName>>,
    /// Compares with every document instead of walking the graph.
    exact: Option<bool>,
    /// Candidates kept while walking the graph; chosen by the planner when left out.
    #[schema(minimum = 1, maximum = 4096)]
    ef_search: Option<usize>,
    /// Adds how the search was planned and what it cost.
    explain: Option<bool>,
}

/// What a search looks at.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SearchMode)]
pub(crate) enum WireMode {
    /// Closeness of vectors.
    Vector,
    /// Words; not supported yet.
    Keyword,
    /// Both; not supported yet.
    Hybrid,
}

impl SearchBody {
    /// # Errors
    /// No query or several, what is not supported yet, a filter or threshold that is not valid.
    pub(crate) fn into_request(self) -> Result<SearchRequest, ApiError> {
        match self.mode {
            None | Some(WireMode::Vector) => {}
            Some(WireMode::Keyword | WireMode::Hybrid) => {
                let detail = "only \"mode\": \"vector\" is supported for now; leave \"mode\" out";
                return Err(ApiError::new(Code::ModeNotSupported, detail));
            }
        }
        let query = match (self.text, self.vector, self.id) {
            (Some(text), None, None) => Query::Text(text),
            (None, Some(WireVector(vector)), None) => Query::Vector(vector),
            (None, None, Some(id)) => Query::Document(DocumentId::new(&id)?),
            _ => {
                let detail = "give exactly one of \"text\", \"vector\" and \"id\" to search near";
                return Err(ApiError::new(Code::InvalidQuery, detail));
            }
        };
        let defaults = SearchRequest::new(query);
        Ok(SearchRequest {
            top_k: self.top_k.unwrap_or(defaults.top_k),
            threshold: self.threshold.map(threshold).transpose()?,
            filter: self.filter.map(WireFilter::into_filter).transpose()?,
            include: include_of(self.include.as_deref()),
            exact: self.exact.unwrap_or(false),
            ef_search: self.ef_search,
            explain: self.explain.unwrap_or(false),
            ..defaults
        })
    }
}

/// A search by text in short form.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchParams {
    /// The text to search near.
    #[param(example = "who feeds the birds?")]
    q: String,
    /// Most hits, 1 to 1,000; 10 when left out.
    limit: Option<usize>,
    /// Leaves out hits with a lower score.
    threshold: Option<f64>,
    /// A filter as JSON.
    filter: Option<String>,
    /// `text`, `metadata` and `vector`, joined by commas; the first two when left out.
    include: Option<String>,
    /// Compares with every document instead of walking the graph.
    exact: Option<bool>,
    /// Candidates kept while walking the graph.
    ef_search: Option<usize>,
}

impl SearchParams {
    /// # Errors
    /// A filter, threshold or list that is not valid.
    pub(crate) fn into_request(self) -> Result<SearchRequest, ApiError> {
        let defaults = SearchRequest::new(Query::Text(self.q));
        Ok(SearchRequest {
            top_k: self.limit.unwrap_or(defaults.top_k),
            threshold: self.threshold.map(threshold).transpose()?,
            filter: self.filter.as_deref().map(WireFilter::from_parameter).transpose()?,
            include: include_of_parameter(self.include.as_deref())?,
            exact: self.exact.unwrap_or(false),
            ef_search: self.ef_search,
            ..defaults
        })
    }
}

fn threshold(value: f64) -> Result<f32, ApiError> {
    let threshold = value as f32;
    if !threshold.is_finite() {
        return Err(ApiError::new(Code::OutOfRange, format!("\"threshold\" is {value:e}; it must be a finite f32")));
    }
    Ok(threshold)
}

/// The answer to a search.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchView<'a> {
    /// Nearest first, ties by ascending id.
    hits: Vec<HitView<'a>>,
    /// Milliseconds spent, embedding of the query included.
    #[schema(example = 0.4)]
    took_ms: f64,
    plan: WirePlan,
    /// True where the query text was longer than the model reads and was cut; left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    truncated: bool,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<ExplainView<'a>>,
}

/// One document found.
#[derive(Serialize, ToSchema)]
struct HitView<'a> {
    id: &'a str,
    /// Rises with closeness: cosine similarity in [-1, 1], dot product, or minus the distance.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<MetadataView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
}

/// How a search was answered.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SearchPlan)]
pub(super) enum WirePlan {
    /// Approximate, by the graph.
    Graph,
    /// Every document that passed the filter was compared.
    Exact,
}

impl From<Plan> for WirePlan {
    fn from(plan: Plan) -> Self {
        match plan {
            Plan::Graph => WirePlan::Graph,
            Plan::Exact => WirePlan::Exact,
        }
    }
}

/// The plan as it stands on the wire and in the metrics.
pub(crate) fn plan_name(plan: Plan) -> &'static str {
    match plan {
        Plan::Graph => "graph",
        Plan::Exact => "exact",
    }
}

impl<'a> SearchView<'a> {
    pub(crate) fn of(response: &'a SearchResponse) -> Self {
        Self {
            hits: response.hits.iter().map(HitView::of).collect(),
            // Microseconds are as fine as the figure means anything.
            took_ms: response.took.as_micros() as f64 / 1_000.0,
            plan: response.plan.into(),
            truncated: response.truncated,
            explain: response.explain.as_ref().map(ExplainView::of),
        }
    }
}

impl<'a> HitView<'a> {
    fn of(hit: &'a Hit) -> Self {
        Self {
            id: hit.id.as_str(),
            score: hit.score,
            text: hit.text.as_deref(),
            metadata: hit.metadata.as_ref().map(MetadataView),
            vector: hit.vector.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::json;
    use crate::types::{Filter, Include, Value};
    use std::time::Duration;

    fn read(text: &str) -> Result<SearchRequest, ApiError> {
        json::parse::<SearchBody>(text.as_bytes())?.into_request()
    }

    #[test]
    fn every_option_arrives() {
        let full = r#"{"vector":[1,2],"top_k":3,"threshold":0.5,"filter":{"a":1},"mode":"vector",
            "include":["vector"],"exact":true,"ef_search":64,"explain":true}"#;
        let wanted = SearchRequest {
            query: Query::Vector(vec![1.0, 2.0]),
            top_k: 3,
            threshold: Some(0.5),
            filter: Some(Filter::eq("a", Value::Int(1))),
            include: Include { text: false, metadata: false, vector: true },
            exact: true,
            ef_search: Some(64),
            explain: true,
        };
        assert_eq!(read(full).unwrap(), wanted);
        assert_eq!(read(r#"{"text":"a"}"#).unwrap(), SearchRequest::new(Query::Text("a".into())));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        let cases = [
            (r#"{}"#, Code::InvalidQuery),
            (r#"{"text":"a","id":"b"}"#, Code::InvalidQuery),
            (r#"{"text":"a","mode":"hybrid"}"#, Code::ModeNotSupported),
            (r#"{"text":"a","mode":"keyword"}"#, Code::ModeNotSupported),
            (r#"{"text":"a","mode":"magic"}"#, Code::InvalidValue),
            (r#"{"text":"a","topk":1}"#, Code::UnknownField),
            (r#"{"text":"a","top_k":-1}"#, Code::InvalidValue),
            (r#"{"text":"a","threshold":1e300}"#, Code::OutOfRange),
            (r#"{"text":"a","filter":{"$x":1}}"#, Code::InvalidFilter),
            (r#"{"text":"a","include":["id"]}"#, Code::InvalidValue),
            (r#"{"id":""}"#, Code::InvalidName),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text).unwrap_err().code, wanted, "{text}");
        }
    }

    #[test]
    fn an_answer_is_written_exactly_so() {
        let mut response = SearchResponse {
            hits: vec![Hit {
                id: DocumentId::new("a").unwrap(),
                score: 0.1,
                text: Some("t".into()),
                metadata: Some([("n".to_owned(), Value::Int(1))].into()),
                vector: None,
            }],
            plan: Plan::Graph,
            took: Duration::from_nanos(400_900),
            truncated: false,
            explain: None,
        };
        let wanted = r#"{"hits":[{"id":"a","score":0.1,"text":"t","metadata":{"n":1}}],"took_ms":0.4,"plan":"graph"}"#;
        assert_eq!(serde_json::to_string(&SearchView::of(&response)).unwrap(), wanted);
        response.truncated = true;
        assert!(
            serde_json::to_string(&SearchView::of(&response)).unwrap().ends_with(r#""plan":"graph","truncated":true}"#)
        );
    }
}
