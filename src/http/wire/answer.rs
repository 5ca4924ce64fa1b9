//! Answers to searches on the wire.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::cursor;
use super::explain::ExplainView;
use super::ranking::{FacetView, GroupView, facets_of, fingerprint};
use super::value::MetadataView;
use crate::types::{CollectionName, Hit, Paging, Plan, SearchRequest, SearchResponse};

/// The answer to a search.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchView<'a> {
    /// Best first, ties by ascending id; empty where they are in groups.
    hits: Vec<HitView<'a>>,
    /// Where `group_by` asked for them: by their best hit, best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupView<'a>>>,
    /// By field, where `facets` asked for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    facets: BTreeMap<&'a str, FacetView<'a>>,
    /// Where a `cursor` was sent: the next page's, or null on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    next_cursor: Option<Option<String>>,
    /// Milliseconds spent, embedding of the query included.
    #[schema(example = 0.4)]
    took_ms: f64,
    plan: WirePlan,
    /// True where the query text was longer than is read and was cut; left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    truncated: bool,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<ExplainView<'a>>,
}

/// One document found.
#[derive(Serialize, ToSchema)]
pub(super) struct HitView<'a> {
    id: &'a str,
    /// Rises with relevance. Mode `vector`: cosine similarity in [-1, 1], dot product, or minus the distance.
    /// `keyword`: BM25, above 0. `hybrid`: fused, above 0; at most 2/61 with `rrf`, at most 1 with `weighted`.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<MetadataView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
    /// In a collection that has chunks: the one nearest to the query. Left out in mode `keyword`.
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk: Option<HitChunkView<'a>>,
    /// Where `highlight` asked for them: parts of the text as HTML, the query's words in `<mark>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    highlights: Option<&'a [String]>,
}

/// The part of a document that was found.
#[derive(Serialize, ToSchema)]
#[schema(as = HitChunk)]
struct HitChunkView<'a> {
    /// Which of the document's chunks, counted from 0.
    index: usize,
    /// Its first character in the document's text (Unicode scalar values); left out where its vector was given without
    /// a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<u32>,
    /// After its last character.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<u32>,
    /// Where `include` names `chunk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// How a search was answered.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SearchPlan)]
pub(super) enum WirePlan {
    /// Approximate, by the graph.
    Graph,
    /// Every document that passed the filter was compared: exact with `exact`, nearly so otherwise, since codes and
    /// bits choose what is compared in f32.
    Exact,
    /// By the keyword index.
    Keyword,
    /// By the keyword index and by vectors.
    Hybrid,
}

impl From<Plan> for WirePlan {
    fn from(plan: Plan) -> Self {
        match plan {
            Plan::Graph => WirePlan::Graph,
            Plan::Exact => WirePlan::Exact,
            Plan::Keyword => WirePlan::Keyword,
            Plan::Hybrid => WirePlan::Hybrid,
        }
    }
}

impl<'a> SearchView<'a> {
    /// The answer to a request to a collection.
    pub(crate) fn of(response: &'a SearchResponse, request: &SearchRequest, collection: &CollectionName) -> Self {
        let paged = !matches!(request.paging, Paging::Offset(_));
        let next = || response.next.as_ref().map(|after| cursor::encode_hit(after, fingerprint(request, collection)));
        Self {
            hits: response.hits.iter().map(HitView::of).collect(),
            groups: response.groups.as_ref().map(|groups| groups.iter().map(GroupView::of).collect()),
            facets: facets_of(&response.facets),
            next_cursor: paged.then(next),
            // Microseconds are as fine as the figure means anything.
            took_ms: response.took.as_micros() as f64 / 1_000.0,
            plan: response.plan.into(),
            truncated: response.truncated,
            explain: response.explain.as_ref().map(ExplainView::of),
        }
    }
}

/// The answers to several searches.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchesView<'a> {
    /// In the order of the searches.
    pub(crate) results: Vec<SearchView<'a>>,
    /// Milliseconds spent on all.
    #[schema(example = 1.9)]
    pub(crate) took_ms: f64,
}

impl<'a> HitView<'a> {
    pub(super) fn of(hit: &'a Hit) -> Self {
        Self {
            id: hit.id.as_str(),
            score: hit.score,
            text: hit.text.as_deref(),
            metadata: hit.metadata.as_ref().map(MetadataView),
            vector: hit.vector.as_deref(),
            chunk: hit.chunk.as_ref().map(|chunk| HitChunkView {
                index: chunk.index,
                start: chunk.span.map(|span| span.start),
                end: chunk.span.map(|span| span.end),
                text: chunk.text.as_deref(),
            }),
            highlights: hit.highlights.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::{ApiError, Code};
    use crate::http::wire::json;
    use crate::http::wire::search::SearchBody;
    use crate::types::{ChunkSpan, DocumentId, Facet, HitChunk, HitGroup, Query, SearchAfter, Value};
    use std::time::Duration;

    fn things() -> CollectionName {
        CollectionName::new("things").unwrap()
    }

    fn read(text: &str) -> Result<SearchRequest, ApiError> {
        json::parse::<SearchBody>(text.as_bytes())?.into_request(&things())
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
                chunk: Some(HitChunk { index: 2, span: Some(ChunkSpan { start: 5, end: 9 }), text: Some("u".into()) }),
                highlights: None,
            }],
            groups: None,
            facets: Vec::new(),
            next: None,
            plan: Plan::Graph,
            took: Duration::from_nanos(400_900),
            truncated: false,
            explain: None,
        };
        let request = SearchRequest::new(Query::Text("a".into()));
        let wanted = r#"{"hits":[{"id":"a","score":0.1,"text":"t","metadata":{"n":1},"chunk":{"index":2,"start":5,"end":9,"text":"u"}}],"took_ms":0.4,"plan":"graph"}"#;
        assert_eq!(serde_json::to_string(&SearchView::of(&response, &request, &things())).unwrap(), wanted);
        response.truncated = true;
        assert!(
            serde_json::to_string(&SearchView::of(&response, &request, &things()))
                .unwrap()
                .ends_with(r#""plan":"graph","truncated":true}"#)
        );
    }

    #[test]
    fn more_of_an_answer_stands_where_it_was_asked_for() {
        let id = DocumentId::new("a").unwrap();
        let hit = Hit {
            id: id.clone(),
            score: 2.5,
            text: None,
            metadata: None,
            vector: None,
            chunk: None,
            highlights: Some(vec!["<mark>a</mark>".into()]),
        };
        let response = SearchResponse {
            hits: Vec::new(),
            groups: Some(vec![HitGroup { value: Value::Int(1), hits: vec![hit] }]),
            facets: vec![Facet { field: "f".into(), values: vec![(Value::Bool(true), 3)], documents: 9 }],
            next: Some(SearchAfter { rank: 1, score: 2.5, id }),
            plan: Plan::Keyword,
            took: Duration::ZERO,
            truncated: false,
            explain: None,
        };
        let request = SearchRequest { paging: Paging::FirstPage, ..SearchRequest::new(Query::Text("a".into())) };
        let written = serde_json::to_value(SearchView::of(&response, &request, &things())).unwrap();
        let cursor = written["next_cursor"].as_str().unwrap().to_owned();
        let wanted = serde_json::json!({
            "hits": [],
            "groups": [{"value": 1, "hits": [{"id": "a", "score": 2.5, "highlights": ["<mark>a</mark>"]}]}],
            "facets": {"f": {"values": [{"value": true, "count": 3}], "documents": 9}},
            "next_cursor": cursor, "took_ms": 0.0, "plan": "keyword",
        });
        assert_eq!(written, wanted);
        let next = read(&format!(r#"{{"text":"a","cursor":"{cursor}"}}"#)).unwrap();
        assert!(matches!(next.paging, Paging::After(SearchAfter { rank: 1, .. })), "{next:?}");
        let other = read(&format!(r#"{{"text":"b","cursor":"{cursor}"}}"#));
        assert_eq!(other.unwrap_err().code, Code::InvalidCursor);
        let body = json::parse::<SearchBody>(format!(r#"{{"text":"a","cursor":"{cursor}"}}"#).as_bytes()).unwrap();
        let elsewhere = body.into_request(&CollectionName::new("others").unwrap());
        assert_eq!(elsewhere.unwrap_err().code, Code::InvalidCursor);
        let last = SearchResponse { next: None, ..response };
        assert_eq!(
            serde_json::to_value(SearchView::of(&last, &request, &things())).unwrap()["next_cursor"],
            serde_json::Value::Null
        );
    }
}
