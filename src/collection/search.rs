//! Search by similarity: check the request, find its vector, search the view, fetch what the hits carry.

use std::time::Instant;

use crate::distance;
use crate::embed::InputKind;
use crate::index::{self, IndexQuery, Neighbour, SegmentOutcome, View};
use crate::types::limits::{MAX_EF, MAX_TOP_K};
use crate::types::{
    DocumentId, Explain, Hit, Include, Method, Metric, Plan, Query, SearchRequest, SearchResponse, check_vector,
    normalise,
};

use super::plan::SearchPlan;
use super::write::check_length;
use super::{Collection, CollectionError, out_of_range};

/// The vector to search near, and what came with it.
struct QueryVector {
    vector: Vec<f32>,
    truncated: bool,
    /// The document that the vector is of: no hit of its own search.
    itself: Option<DocumentId>,
}

impl Collection {
    /// Finds the documents nearest to a text, a vector or a document: nearest first, ties by ascending id.
    ///
    /// Approximate where a segment is searched by its graph; raising `ef_search` trades time for recall, and
    /// `exact: true` compares with every document. Sees every write that was acknowledged before the call.
    ///
    /// # Errors
    /// [`CollectionError`] names what in the request is to be changed, or what is damaged.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchResponse, CollectionError> {
        let started = Instant::now();
        self.check_exists()?;
        self.check_request(request)?;
        let query = self.query_vector(&request.query)?;
        let definition = self.definition();
        let wanted = request.top_k + usize::from(query.itself.is_some());
        let view = self.state.view();
        let plan = self.plan(&view, request, wanted)?;
        let segments: Vec<_> = plan.segments.iter().map(|segment| segment.query.clone()).collect();
        let found = index::search(
            &view,
            &IndexQuery {
                vector: &query.vector,
                metric: definition.metric,
                top_k: wanted,
                filter: request.filter.as_ref(),
                segments: &segments,
            },
        )?;
        let answered_by = answered_by(&found.segments);
        let explain = request.explain.then(|| explain(plan, &found.segments, &view, answered_by));
        let hits = found
            .neighbours
            .into_iter()
            .filter(|neighbour| query.itself.as_ref() != Some(&neighbour.id))
            .take(request.top_k)
            .map(|neighbour| hit(neighbour, definition.metric, request.include))
            .take_while(|hit| !matches!(hit, Ok(hit) if request.threshold.is_some_and(|least| hit.score < least)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(SearchResponse { hits, plan: answered_by, took: started.elapsed(), truncated: query.truncated, explain })
    }

    fn query_vector(&self, query: &Query) -> Result<QueryVector, CollectionError> {
        let dim = self.definition().dim as usize;
        let (mut vector, truncated, itself) = match query {
            Query::Vector(vector) => (vector.clone(), false, None),
            Query::Text(text) => {
                check_length(|| "the query text".to_owned(), text.len())?;
                let mut embeddings = self.model()?.embed(&[text], InputKind::Query)?;
                let truncated = embeddings.truncated.first().is_some_and(|cut| *cut);
                (embeddings.vectors.pop().unwrap_or_default(), truncated, None)
            }
            Query::Document(id) => match self.find(id)? {
                Some(place) => (place.vector()?, false, Some(id.clone())),
                None => return Err(CollectionError::QueryDocumentNotFound { id: id.clone() }),
            },
        };
        match self.definition().metric {
            Metric::Cosine => normalise(&mut vector, dim),
            Metric::Dot | Metric::L2 => check_vector(&vector, dim).map(|_| ()),
        }
        .map_err(CollectionError::QueryVector)?;
        Ok(QueryVector { vector, truncated, itself })
    }

    fn check_request(&self, request: &SearchRequest) -> Result<(), CollectionError> {
        if !(1..=MAX_TOP_K).contains(&request.top_k) {
            return Err(out_of_range("top_k", request.top_k, 1, MAX_TOP_K));
        }
        if let Some(ef) = request.ef_search
            && !(request.top_k..=MAX_EF).contains(&ef)
        {
            return Err(out_of_range("ef_search", ef, request.top_k, MAX_EF));
        }
        if let Some(threshold) = request.threshold
            && !threshold.is_finite()
        {
            return Err(out_of_range("threshold", threshold, f32::MIN, f32::MAX));
        }
        self.check_filter(request.filter.as_ref())
    }
}

/// One walk makes the answer approximate.
fn answered_by(segments: &[SegmentOutcome]) -> Plan {
    match segments.iter().any(|segment| matches!(segment.used, Method::Walk | Method::FilteredWalk)) {
        true => Plan::Graph,
        false => Plan::Exact,
    }
}

fn explain(plan: SearchPlan, outcomes: &[SegmentOutcome], view: &View, answered_by: Plan) -> Explain {
    let segments: Vec<_> = plan
        .segments
        .into_iter()
        .zip(outcomes)
        .map(|(planned, outcome)| {
            let mut explain = planned.explain;
            explain.used = outcome.used;
            explain.compared = outcome.stats.compared;
            explain.rescored = outcome.stats.rescored;
            explain.decoded += outcome.decoded;
            explain
        })
        .collect();
    Explain {
        plan: answered_by,
        estimated_matches: segments.iter().map(|segment| u64::from(segment.estimated_matches)).sum(),
        planning: plan.took,
        segments,
        memtable_rows: view.memtables().map(|memtable| u64::from(memtable.live_rows())).sum(),
    }
}

fn hit(neighbour: Neighbour, metric: Metric, include: Include) -> Result<Hit, CollectionError> {
    let Neighbour { closeness, id, place } = neighbour;
    let document = match include.text || include.metadata {
        true => Some(place.document()?),
        false => None,
    };
    let (text, metadata) = document.map_or((None, None), |document| (document.text, Some(document.metadata)));
    Ok(Hit {
        id,
        score: distance::score(metric, closeness),
        text: text.filter(|_| include.text),
        metadata: metadata.filter(|_| include.metadata),
        vector: if include.vector { Some(place.vector()?) } else { None },
    })
}
