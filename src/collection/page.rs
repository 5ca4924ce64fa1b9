//! From a ranking to the part of it that a search returns: a page of hits, of diverse hits, or of groups.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::embed::Cancellation;
use crate::types::limits::MAX_SEARCH_WINDOW;
use crate::types::{Grouping, Mode, Paging, SearchAfter, SearchRequest, Value};

use super::candidates::{Candidate, Depths, Ranking};
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
const COUNTED: usize = 1_000;
/// A hybrid search fuses so many of each kind, the fewest that reach as deep as it must. Few steps, so that most pages
/// of one search fuse the same rankings.
const FUSED: [usize; 3] = [100, 1_000, 10_000];
/// The same with a cursor: all pages of one search fuse the same rankings, and end with them.
const FUSED_BY_CURSOR: usize = 1_000;
/// A search by vector with a cursor ranks so many at least: all pages within them are cut from one walk. Deeper ones
/// are exact, as walks of different depths find different rows, and what a deeper one finds before the cursor would be
/// on no page.
const WALKED_BY_CURSOR: usize = 1_000;
/// Documents that are looked at before it is asked whether somebody still waits for them.
pub(super) const ASKED_EVERY: usize = 256;
/// A ranking that does not fill its page is made so many times deeper.
const DEEPER: usize = 4;

/// What a search returns, before its documents are read.
pub struct Page {
    /// The hits, or those of each group.
    pub content: Content,
    /// Where the next page begins.
    pub next: Option<SearchAfter>,
    /// Whether a deeper ranking could add to it.
    pub wants_more: bool,
}

impl Page {
    /// Whether nothing is on it.
    pub fn is_empty(&self) -> bool {
        match &self.content {
            Content::Hits(hits) => hits.is_empty(),
            Content::Groups(groups) => groups.is_empty(),
        }
    }
}

/// Hits as they come, or in groups.
pub enum Content {
    /// Best first.
    Hits(Vec<Candidate>),
    /// By their best hit, best first.
    Groups(Vec<(Value, Vec<Candidate>)>),
}

/// How deep a search ranks at first.
pub fn first_depths(request: &SearchRequest) -> Depths {
    let window = start(request) + request.top_k;
    let mut candidates = window;
    if request.diversity.is_some() {
        candidates = (POOL_PER_HIT * window).clamp(MIN_POOL, MAX_POOL).max(window);
    }
    if let Some(grouping) = &request.grouping {
        candidates = candidates.max((POOL_PER_GROUPED_HIT * window * grouping.size).clamp(MIN_POOL, MAX_POOL));
    }
    if let Some(rerank) = &request.rerank {
        candidates = candidates.max(rerank.top_n);
    }
    if has_cursor(request) {
        // One more tells whether there is a page after this one.
        candidates += 1;
    }
    depths(request, candidates)
}

/// How deep a search ranks whose page is cut from so many candidates.
fn depths(request: &SearchRequest, candidates: usize) -> Depths {
    let is_fixed = has_cursor(request);
    let candidates = match is_fixed && request.mode == Mode::Vector {
        true => candidates.max(WALKED_BY_CURSOR),
        false => candidates,
    };
    let fused = match is_fixed {
        true => FUSED_BY_CURSOR,
        false => FUSED.into_iter().find(|fused| *fused >= candidates).unwrap_or(candidates),
    };
    let counted = match request.mode {
        _ if request.facets.is_empty() => 0,
        // What is fused may be no deeper on one page than on another.
        Mode::Hybrid(_) if is_fixed => FUSED_BY_CURSOR,
        _ => candidates.max(COUNTED),
    };
    Depths { candidates, fused, is_fixed, counted }
}

/// How deep to rank next where a page was not filled; `None` where it cannot go deeper.
pub fn deeper(request: &SearchRequest, now: Depths) -> Option<Depths> {
    let next = (now.candidates * DEEPER).min(MAX_SEARCH_WINDOW);
    (next > now.candidates).then(|| depths(request, next))
}

/// Whether a ranking so deep compares every document.
pub fn is_exact(request: &SearchRequest, depth: usize) -> bool {
    request.exact || (has_cursor(request) && request.mode == Mode::Vector && depth > WALKED_BY_CURSOR)
}

fn has_cursor(request: &SearchRequest) -> bool {
    matches!(request.paging, Paging::FirstPage | Paging::After(_))
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
        let hits = diverse(candidates, diversity, start(request) + request.top_k, dim)?;
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
    let next = match hits.last() {
        Some(last) if more && has_cursor(request) => {
            Some(SearchAfter { rank: start(request) + request.top_k, score: last.score, id: last.id.clone() })
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
    for (n, candidate) in candidates.iter().enumerate() {
        if n % ASKED_EVERY == 0 {
            Cancellation::check_current()?;
        }
        let metadata = candidate.place.metadata()?;
        for value in facets::values(&metadata, &grouping.field) {
            let place = match places.entry(facets::key(value)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(_) if groups.len() == count => continue,
                Entry::Vacant(new) => {
                    groups.push((value.clone(), Vec::new()));
                    *new.insert(groups.len() - 1)
                }
            };
            let hits = &mut groups[place].1;
            if hits.len() < grouping.size {
                hits.push(candidate.clone());
            }
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DocumentId, Query};

    #[test]
    fn every_page_by_cursor_fuses_the_same_rankings_also_where_values_are_counted() {
        let id = DocumentId::new("a").unwrap();
        for facets in [Vec::new(), vec!["kind".to_owned()]] {
            for rank in [0, 10, 990, 1_500, 9_000] {
                let paging = Paging::After(SearchAfter { rank, score: 0.5, id: id.clone() });
                let query = Query::Text("words".to_owned());
                let mode = Mode::Hybrid(crate::types::Fusion::ReciprocalRank);
                let request = SearchRequest { mode, paging, facets: facets.clone(), ..SearchRequest::new(query) };
                let depths = first_depths(&request);
                assert!(depths.fused == FUSED_BY_CURSOR && depths.counted <= FUSED_BY_CURSOR, "{rank}");
                assert!(depths.candidates > rank, "{rank}");
            }
        }
    }
}
