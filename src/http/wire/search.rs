//! Searches on the wire.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::document::{IncludeName, include_of, include_of_parameter};
use super::filter::WireFilter;
use super::json::Object;
use super::list::AtMost;
use super::ranking::{LikeBody, RerankBody, WireFusion, WireMode, grouping_of, mode_of, paging_of, turn_page};
use super::vector::{VectorSchema, WireVector};
use crate::http::error::{ApiError, Code};
use crate::types::limits::{MAX_FACETS, MAX_SEARCHES_PER_REQUEST};
use crate::types::{CollectionName, DocumentId, Query, SearchRequest};

/// A search; give one of `text`, `vector`, `id` and `like`, or `text` and `vector` for a hybrid one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchBody {
    /// Embedded by the collection's model, read as words, or both, by the mode.
    #[schema(example = "who feeds the birds?")]
    text: Option<String>,
    /// As many numbers as the collection's dim.
    #[schema(value_type = Option<VectorSchema>)]
    vector: Option<WireVector>,
    /// A stored document; it is left out of its own hits.
    id: Option<String>,
    /// Stored documents to be like and unlike; none of them is a hit.
    #[schema(value_type = Option<LikeBody>)]
    like: Option<Object<LikeBody>>,
    /// Most hits, or groups; 10 when left out.
    #[schema(minimum = 1, maximum = 1000)]
    top_k: Option<usize>,
    /// Leaves out hits with a lower score.
    threshold: Option<f64>,
    /// Leaves out documents whose metadata do not match.
    #[schema(value_type = Option<Object>, example = json!({"price": {"$lt": 10}}))]
    filter: Option<WireFilter>,
    /// `vector` when left out.
    mode: Option<WireMode>,
    /// Of a hybrid search; `rrf` when left out, `weighted` where there is an `alpha`.
    fusion: Option<WireFusion>,
    /// Of a weighted fusion: the vectors' share; 0.5 when left out.
    #[schema(minimum = 0, maximum = 1)]
    alpha: Option<f64>,
    /// Hits, or groups, to pass over. With `top_k` at most 10,000.
    #[schema(minimum = 0, maximum = 9999)]
    offset: Option<usize>,
    /// Pages that move no hit from one to another while documents are written: `*` for the first, then `next_cursor`.
    cursor: Option<String>,
    /// A metadata field: answers with groups of hits that share a value of it.
    group_by: Option<String>,
    /// Most hits of a group; 1 when left out.
    #[schema(minimum = 1, maximum = 100)]
    group_size: Option<usize>,
    /// How much a hit loses for being like those before it.
    #[schema(minimum = 0, maximum = 1)]
    diversity: Option<f64>,
    /// Has the best candidates put in order by a cross-encoder, which reads the query's `text` and theirs together;
    /// scores are its then.
    #[schema(value_type = Option<RerankBody>)]
    rerank: Option<Object<RerankBody>>,
    /// Metadata fields whose values are counted over the best 1,000 documents that match.
    #[schema(value_type = Option<Vec<String>>, max_items = 16)]
    facets: Option<AtMost<String, MAX_FACETS>>,
    /// Adds the parts of each hit's text that hold the query's words.
    highlight: Option<bool>,
    /// Waits until keyword search sees every write that was answered before.
    refresh: Option<bool>,
    /// `text` and `metadata` when left out; `vector`, and `chunk` for the text of the chunk that was found.
    include: Option<Vec<IncludeName>>,
    /// Compares with every document instead of walking the graph.
    exact: Option<bool>,
    /// Candidates kept while walking the graph; chosen by the planner when left out.
    #[schema(minimum = 1, maximum = 4096)]
    ef_search: Option<usize>,
    /// Adds how the search was planned and what it cost.
    explain: Option<bool>,
}

impl SearchBody {
    /// # Errors
    /// No query or several, what is not supported yet, a filter or threshold that is not valid, a cursor of another
    /// search or collection.
    pub(crate) fn into_request(self, collection: &CollectionName) -> Result<SearchRequest, ApiError> {
        let query = match (self.text, self.vector, self.id, self.like) {
            (Some(text), None, None, None) => Query::Text(text),
            (None, Some(WireVector(vector)), None, None) => Query::Vector(vector),
            (Some(text), Some(WireVector(vector)), None, None) => Query::TextAndVector { text, vector },
            (None, None, Some(id), None) => Query::Document(DocumentId::new(&id)?),
            (None, None, None, Some(Object(like))) => like.into_query()?,
            _ => {
                let detail = "give exactly one of \"text\", \"vector\", \"id\" and \"like\" to search near";
                return Err(ApiError::new(Code::InvalidQuery, detail));
            }
        };
        let defaults = SearchRequest::new(query);
        let mut request = SearchRequest {
            mode: mode_of(self.mode, self.fusion, self.alpha)?,
            paging: paging_of(self.offset, self.cursor.as_deref())?,
            grouping: grouping_of(self.group_by, self.group_size)?,
            diversity: self.diversity.map(|diversity| diversity as f32),
            rerank: self.rerank.map(|Object(rerank)| rerank.into_rerank()),
            facets: self.facets.map(AtMost::into_items).unwrap_or_default(),
            highlight: self.highlight.unwrap_or(false),
            refresh: self.refresh.unwrap_or(false),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            threshold: self.threshold.map(threshold).transpose()?,
            filter: self.filter.map(WireFilter::into_filter).transpose()?,
            include: include_of(self.include.as_deref()),
            exact: self.exact.unwrap_or(false),
            ef_search: self.ef_search,
            explain: self.explain.unwrap_or(false),
            ..defaults
        };
        turn_page(&mut request, collection, self.cursor.as_deref())?;
        Ok(request)
    }
}

/// Several searches in one request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchesBody {
    /// 1 to 100.
    #[schema(value_type = Vec<SearchBody>, min_items = 1, max_items = 100)]
    searches: AtMost<Object<SearchBody>, MAX_SEARCHES_PER_REQUEST>,
}

impl SearchesBody {
    /// # Errors
    /// None or too many, and those of the first search that is not valid, with its place.
    pub(crate) fn into_requests(self, collection: &CollectionName) -> Result<Vec<SearchRequest>, ApiError> {
        let got = self.searches.count();
        if !(1..=MAX_SEARCHES_PER_REQUEST).contains(&got) {
            let detail = format!("\"searches\" holds {got}, allowed are 1 to {MAX_SEARCHES_PER_REQUEST}");
            return Err(ApiError::new(Code::OutOfRange, detail));
        }
        let request = |(n, Object(body)): (usize, Object<SearchBody>)| {
            body.into_request(collection).map_err(|error| placed(n, error))
        };
        self.searches.into_items().into_iter().enumerate().map(request).collect()
    }
}

/// Says which search of several failed.
pub(crate) fn placed(n: usize, mut error: ApiError) -> ApiError {
    error.detail = format!("searches[{n}]: {}", error.detail).into();
    error
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
    /// `text`, `metadata`, `vector` and `chunk`, joined by commas; the first two when left out.
    include: Option<String>,
    /// Compares with every document instead of walking the graph.
    exact: Option<bool>,
    /// Candidates kept while walking the graph.
    ef_search: Option<usize>,
    /// `vector` when left out.
    #[param(inline)]
    mode: Option<WireMode>,
    /// Hits to pass over.
    offset: Option<usize>,
    /// Adds the parts of each hit's text that hold the query's words.
    highlight: Option<bool>,
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
            mode: mode_of(self.mode, None, None)?,
            paging: paging_of(self.offset, None)?,
            highlight: self.highlight.unwrap_or(false),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::json;
    use crate::types::{Filter, Fusion, Grouping, Include, Mode, Paging, Rerank, Value};

    fn read(text: &str) -> Result<SearchRequest, ApiError> {
        json::parse::<SearchBody>(text.as_bytes())?.into_request(&CollectionName::new("things").unwrap())
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
            include: Include { text: false, metadata: false, vector: true, chunk: false },
            exact: true,
            ef_search: Some(64),
            explain: true,
            ..SearchRequest::new(Query::Vector(Vec::new()))
        };
        assert_eq!(read(full).unwrap(), wanted);
        assert_eq!(read(r#"{"text":"a"}"#).unwrap(), SearchRequest::new(Query::Text("a".into())));
        let more = r#"{"text":"a","vector":[1],"mode":"hybrid","alpha":0.25,"offset":7,"group_by":"g","group_size":2,
            "diversity":0.5,"rerank":{"model":"m","top_n":20,"field":"t"},"facets":["f"],"highlight":true,"refresh":true}"#;
        let wanted = SearchRequest {
            mode: Mode::Hybrid(Fusion::Weighted { alpha: 0.25 }),
            paging: Paging::Offset(7),
            grouping: Some(Grouping { field: "g".into(), size: 2 }),
            diversity: Some(0.5),
            rerank: Some(Rerank { model: "m".into(), top_n: 20, field: Some("t".into()) }),
            facets: vec!["f".into()],
            highlight: true,
            refresh: true,
            ..SearchRequest::new(Query::TextAndVector { text: "a".into(), vector: vec![1.0] })
        };
        assert_eq!(read(more).unwrap(), wanted);
        let like = read(r#"{"like":{"positive":["a"],"negative":["b"]}}"#).unwrap();
        let ids = |name| vec![DocumentId::new(name).unwrap()];
        assert_eq!(like.query, Query::Like { positive: ids("a"), negative: ids("b") });
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        let cases = [
            (r#"{}"#, Code::InvalidQuery),
            (r#"{"text":"a","id":"b"}"#, Code::InvalidQuery),
            (r#"{"text":"a","like":{"positive":["b"]}}"#, Code::InvalidQuery),
            (r#"{"like":{"negative":["b"]}}"#, Code::MissingField),
            (r#"{"text":"a","alpha":0.5}"#, Code::InvalidQuery),
            (r#"{"text":"a","mode":"hybrid","fusion":"rrf","alpha":0.5}"#, Code::InvalidQuery),
            (r#"{"text":"a","mode":"hybrid","fusion":"sum"}"#, Code::InvalidValue),
            (r#"{"text":"a","offset":1,"cursor":"*"}"#, Code::InvalidQuery),
            (r#"{"text":"a","offset":-1}"#, Code::InvalidValue),
            (r#"{"text":"a","cursor":"AWE"}"#, Code::InvalidCursor),
            (r#"{"text":"a","group_size":2}"#, Code::InvalidQuery),
            (r#"{"text":"a","rerank":{}}"#, Code::MissingField),
            (r#"{"text":"a","rerank":{"model":"m","top":3}}"#, Code::UnknownField),
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
}
