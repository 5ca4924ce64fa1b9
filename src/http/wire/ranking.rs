//! What a search may say of its mode, its pages, its groups and its facets, and how the last two are answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::HitView;
use super::cursor;
use super::list::AtMost;
use super::value::{AnyValue, ValueView};
use crate::http::error::{ApiError, Code};
use crate::types::limits::MAX_LIKE;
use crate::types::{
    CollectionName, DocumentId, Facet, Fusion, Grouping, HitGroup, Mode, Paging, Query, Rerank, SearchRequest,
};

/// What a search looks at.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SearchMode)]
pub(crate) enum WireMode {
    /// Nearness of vectors.
    Vector,
    /// Words, by BM25.
    Keyword,
    /// Both.
    Hybrid,
}

/// How a hybrid search makes one ranking of two.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Fusion)]
pub(crate) enum WireFusion {
    /// Reciprocal rank fusion: by the ranks alone.
    Rrf,
    /// By the scores, each brought to [0, 1].
    Weighted,
}

/// Documents to be like, and to be unlike.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LikeBody {
    /// Ids of 1 to 100 documents.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 100)]
    positive: AtMost<String, MAX_LIKE>,
    /// Ids of up to 100 documents.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 100)]
    negative: AtMost<String, MAX_LIKE>,
}

impl LikeBody {
    /// # Errors
    /// [`Code::InvalidName`] for what is no id.
    pub(crate) fn into_query(self) -> Result<Query, ApiError> {
        let ids = |names: AtMost<String, MAX_LIKE>| {
            names.into_items().iter().map(|name| DocumentId::new(name)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Query::Like { positive: ids(self.positive)?, negative: ids(self.negative)? })
    }
}

/// How a cross-encoder puts candidates in order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RerankBody {
    /// A cross-encoder that `pannier model list` names.
    #[schema(example = "cross-encoder/ms-marco-MiniLM-L6-v2")]
    model: String,
    /// Candidates that it reads, at least `offset` and `top_k` together; 50 when left out.
    #[schema(minimum = 1, maximum = 200)]
    top_n: Option<usize>,
    /// The metadata field that it reads; the text when left out.
    field: Option<String>,
}

/// Candidates that are reranked where nobody said how many.
const DEFAULT_TOP_N: usize = 50;

impl RerankBody {
    pub(crate) fn into_rerank(self) -> Rerank {
        Rerank { model: self.model, top_n: self.top_n.unwrap_or(DEFAULT_TOP_N), field: self.field }
    }
}

/// The share of the vectors where none is given.
const DEFAULT_ALPHA: f32 = 0.5;

/// # Errors
/// [`Code::InvalidQuery`] for what only hybrid searches have.
pub(crate) fn mode_of(
    mode: Option<WireMode>,
    fusion: Option<WireFusion>,
    alpha: Option<f64>,
) -> Result<Mode, ApiError> {
    let hybrid = matches!(mode, Some(WireMode::Hybrid));
    if !hybrid && (fusion.is_some() || alpha.is_some()) {
        let detail = "\"fusion\" and \"alpha\" are about \"mode\": \"hybrid\"; set that mode, or leave them out";
        return Err(ApiError::new(Code::InvalidQuery, detail));
    }
    match (mode, fusion, alpha) {
        (None | Some(WireMode::Vector), ..) => Ok(Mode::Vector),
        (Some(WireMode::Keyword), ..) => Ok(Mode::Keyword),
        (Some(WireMode::Hybrid), None, None) => Ok(Mode::Hybrid(Fusion::ReciprocalRank)),
        (Some(WireMode::Hybrid), Some(WireFusion::Rrf), None) => Ok(Mode::Hybrid(Fusion::ReciprocalRank)),
        (Some(WireMode::Hybrid), Some(WireFusion::Rrf), Some(_)) => {
            let detail = "\"alpha\" weighs scores, and \"fusion\": \"rrf\" looks at ranks alone; leave one of them out";
            Err(ApiError::new(Code::InvalidQuery, detail))
        }
        (Some(WireMode::Hybrid), Some(WireFusion::Weighted) | None, alpha) => {
            Ok(Mode::Hybrid(Fusion::Weighted { alpha: alpha.map_or(DEFAULT_ALPHA, |alpha| alpha as f32) }))
        }
    }
}

/// # Errors
/// [`Code::InvalidQuery`] for an offset and a cursor at once.
pub(crate) fn paging_of(offset: Option<usize>, cursor: Option<&str>) -> Result<Paging, ApiError> {
    match (offset, cursor) {
        (Some(_), Some(_)) => {
            let detail = "\"offset\" and \"cursor\" are two ways to page; send one of them";
            Err(ApiError::new(Code::InvalidQuery, detail))
        }
        (offset, None) => Ok(Paging::Offset(offset.unwrap_or(0))),
        // Which page a cursor means is known once the rest of the request is: `turn_page`.
        (None, Some(_)) => Ok(Paging::FirstPage),
    }
}

/// The page that a cursor stands for, in a request to a collection that is complete but for it.
///
/// # Errors
/// [`Code::InvalidCursor`] for one that is none, or that belongs to another search.
pub(crate) fn turn_page(
    request: &mut SearchRequest,
    collection: &CollectionName,
    cursor: Option<&str>,
) -> Result<(), ApiError> {
    if let Some(cursor) = cursor.filter(|cursor| *cursor != cursor::FIRST_PAGE) {
        request.paging = Paging::After(cursor::decode_hit(cursor, fingerprint(request, collection))?);
    }
    Ok(())
}

/// Tells searches apart whose pages do not belong together. The size of a page and what its hits carry may change.
pub(crate) fn fingerprint(request: &SearchRequest, collection: &CollectionName) -> u32 {
    let SearchRequest { query, mode, filter, threshold, exact, ef_search, .. } = request;
    let search = format!("{collection}/{query:?}{mode:?}{filter:?}{threshold:?}{exact}{ef_search:?}");
    crate::storage::crc32c(search.as_bytes())
}

/// # Errors
/// [`Code::InvalidQuery`] for a size without a field.
pub(crate) fn grouping_of(field: Option<String>, size: Option<usize>) -> Result<Option<Grouping>, ApiError> {
    match (field, size) {
        (None, Some(_)) => {
            let detail = "\"group_size\" is about \"group_by\"; name the field there, or leave it out";
            Err(ApiError::new(Code::InvalidQuery, detail))
        }
        (field, size) => Ok(field.map(|field| Grouping { field, size: size.unwrap_or(1) })),
    }
}

/// Hits that share a value.
#[derive(Serialize, ToSchema)]
#[schema(as = HitGroup)]
pub(crate) struct GroupView<'a> {
    /// The value of the field in `group_by`.
    #[schema(value_type = AnyValue, inline)]
    value: ValueView<'a>,
    hits: Vec<HitView<'a>>,
}

impl<'a> GroupView<'a> {
    pub(crate) fn of(group: &'a HitGroup) -> Self {
        Self { value: ValueView(&group.value), hits: group.hits.iter().map(HitView::of).collect() }
    }
}

/// How often each value of a field stands in the best documents.
#[derive(Serialize, ToSchema)]
#[schema(as = Facet)]
pub(crate) struct FacetView<'a> {
    /// The most frequent first, at most 100.
    values: Vec<FacetValueView<'a>>,
    /// Documents looked at: the best 1,000 of those that match, or more where the page needs more.
    documents: u64,
}

/// A value and how many documents have it.
#[derive(Serialize, ToSchema)]
#[schema(as = FacetValue)]
struct FacetValueView<'a> {
    #[schema(value_type = AnyValue, inline)]
    value: ValueView<'a>,
    count: u64,
}

/// Facets by field.
pub(crate) fn facets_of(facets: &[Facet]) -> BTreeMap<&str, FacetView<'_>> {
    facets.iter().map(|facet| (facet.field.as_str(), FacetView::of(facet))).collect()
}

impl<'a> FacetView<'a> {
    fn of(facet: &'a Facet) -> Self {
        let value = |(value, count): &'a (_, u64)| FacetValueView { value: ValueView(value), count: *count };
        Self { values: facet.values.iter().map(value).collect(), documents: facet.documents }
    }
}
