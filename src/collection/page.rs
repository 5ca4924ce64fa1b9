//! From a ranking to the part of it that a search returns: a page of hits, of diverse hits, or of groups.

use std::collections::HashMap;

use crate::types::{Grouping, Paging, SearchAfter, SearchRequest, Value};

use super::candidates::{Candidate, Ranking};
use super::{CollectionError, diversity, facets};

/// Candidates that a diverse ranking chooses from, for each hit.
const POOL_PER_HIT: usize = 5;
/// The fewest that it chooses from.
const MIN_POOL: usize = 50;
/// The most that it chooses from, beyond one for each hit.
const MAX_POOL: usize = 2_000;
/// Candidates that groups are filled from, for each hit that they may hold.
const POOL_PER_GROUPED_HIT: usize = 4;
/// Candidates whose values are counted, at least, where there are as many.
const FACET_POOL: usize = 1_000;

/// What a search returns, before its documents are read.
pub struct Page {
    /// The hits, or those of each group.
    pub content: Content,
    /// Where the next page begins.
    pub next: Option<SearchAfter>,
    /// Whether a deeper ranking could add to it.
    pub wants_more: bool,
}

/// Hits as they come, or in groups.
pub enum Content {
    /// Best first.
    Hits(Vec<Candidate>),
    /// By their best hit, best first.
    Groups(Vec<(Value, Vec<Candidate>)>),
}

/// How deep a ranking a search needs at first.
pub fn first_depth(request: &SearchRequest) -> usize {
    let window = start(request) + request.top_k;
    let mut depth = window;
    if request.diversity.is_some() {
        depth = depth.max((POOL_PER_HIT * window).clamp(MIN_POOL, MAX_POOL));
    }
    if let Some(grouping) = &request.grouping {
        depth = depth.max((POOL_PER_GROUPED_HIT * window * grouping.size).clamp(MIN_POOL, MAX_POOL));
    }
    if let Some(rerank) = &request.rerank {
        depth = depth.max(rerank.top_n);
    }
    if !request.facets.is_empty() {
        depth = depth.max(FACET_POOL);
    }
    depth
}

/// Hits before the page.
fn start(request: &SearchRequest) -> usize {
    match &request.paging {
        Paging::Offset(offset) => *offset,
        Paging::FirstPage => 0,
        Paging::After(after) => after.rank,
    }
}

/// Cuts the page out of a ranking, which need not keep its candidates.
///
/// # Errors
/// [`CollectionError`] when a document cannot be read.
pub fn cut(request: &SearchRequest, ranking: &mut Ranking, dim: usize) -> Result<Page, CollectionError> {
    let candidates = &ranking.candidates;
    if let Some(grouping) = &request.grouping {
        let groups = group(candidates, grouping, start(request) + request.top_k)?;
        let wants_more = groups.len() < start(request) + request.top_k;
        let content = Content::Groups(groups.into_iter().skip(start(request)).collect());
        return Ok(Page { content, next: None, wants_more });
    }
    if let Some(diversity) = request.diversity {
        let pool = &candidates[..candidates.len().min(MAX_POOL.max(start(request) + request.top_k))];
        let hits = diverse(pool, diversity, start(request) + request.top_k, dim)?;
        let content = Content::Hits(hits.into_iter().skip(start(request)).collect());
        return Ok(Page { content, next: None, wants_more: false });
    }
    let mut hits = std::mem::take(&mut ranking.candidates);
    match &request.paging {
        Paging::Offset(offset) => _ = hits.drain(..hits.len().min(*offset)),
        Paging::FirstPage => {}
        // By score and id, not by number: what was written since the page before moves nothing to another page.
        Paging::After(after) => hits.retain(|candidate| comes_after(candidate, after)),
    }
    let more = hits.len() > request.top_k || !ranking.complete;
    hits.truncate(request.top_k);
    let wants_more = hits.len() < request.top_k;
    let next = match (&request.paging, hits.last()) {
        (Paging::FirstPage | Paging::After(_), Some(last)) if more && !wants_more => {
            Some(SearchAfter { rank: start(request) + hits.len(), score: last.score, id: last.id.clone() })
        }
        _ => None,
    };
    Ok(Page { content: Content::Hits(hits), next, wants_more })
}

fn comes_after(candidate: &Candidate, after: &SearchAfter) -> bool {
    candidate.score.total_cmp(&after.score).reverse().then_with(|| candidate.id.cmp(&after.id)).is_gt()
}

fn diverse(pool: &[Candidate], diversity: f32, count: usize, dim: usize) -> Result<Vec<Candidate>, CollectionError> {
    let scores: Vec<f32> = pool.iter().map(|candidate| candidate.score).collect();
    let vectors = pool.iter().map(|candidate| candidate.place.vector(dim)).collect::<Result<Vec<_>, _>>()?;
    Ok(diversity::pick(&scores, &vectors, diversity, count).into_iter().map(|at| pool[at].clone()).collect())
}

/// The first `count` groups.
fn group(
    candidates: &[Candidate],
    grouping: &Grouping,
    count: usize,
) -> Result<Vec<(Value, Vec<Candidate>)>, CollectionError> {
    let mut groups: Vec<(Value, Vec<Candidate>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for candidate in candidates {
        let metadata = candidate.place.document()?.metadata;
        for value in facets::values(&metadata, &grouping.field) {
            let place = *places.entry(facets::key(value)).or_insert_with(|| {
                groups.push((value.clone(), Vec::new()));
                groups.len() - 1
            });
            let hits = &mut groups[place].1;
            if hits.len() < grouping.size {
                hits.push(candidate.clone());
            }
        }
    }
    groups.truncate(count);
    Ok(groups)
}
