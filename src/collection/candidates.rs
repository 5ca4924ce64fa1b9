//! The documents that may become hits, best first: by vector, by words, or by both.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::distance::VectorQuery;
use crate::embed::Cancellation;
use crate::index::{self, IndexQuery, Neighbour, Place, View};
use crate::types::{DocumentId, Explain, Fusion, Language, Method, Mode, Plan, SearchRequest, Seq};

use super::explain::{answered_by, explain};
use super::fusion::{self, Ranked, Scores};
use super::keywords::KeywordQuery;
use super::page::{self, ASKED_EVERY};
use super::passing::Passing;
use super::read::one_vector;
use super::recall::Sample;
use super::{Collection, CollectionError, Frame, Shelf};

/// What a search looks for, ready to be looked for.
pub struct Prepared {
    /// f32, shape `[dim]`, normalised where the metric is cosine.
    pub vector: Option<Vec<f32>>,
    /// The query's words.
    pub words: Option<QueryWords>,
    /// Documents that the query is made of: no hits of their own.
    pub excluded: Vec<DocumentId>,
    /// Whether a part of the query's text was not read.
    pub truncated: bool,
}

/// A query's words, and the text that they are of.
pub struct QueryWords {
    /// As we read them.
    pub query: KeywordQuery,
    /// As it came, as far as its words are looked for.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "Postgres reads the words in its own way"))]
    pub text: String,
}

impl QueryWords {
    /// Reads a text as words.
    ///
    /// # Errors
    /// As [`KeywordQuery::new`].
    pub fn new(language: Language, text: &str) -> Result<Self, CollectionError> {
        let query = KeywordQuery::new(language, text)?;
        let text = query.read_of(text).to_owned();
        Ok(Self { query, text })
    }
}

/// A document that may become a hit.
#[derive(Clone)]
pub struct Candidate {
    /// The document.
    pub id: DocumentId,
    /// Rises with relevance; what it is depends on the mode.
    pub score: f32,
    /// Where it stands.
    pub place: Place,
}

/// The best of a collection.
pub struct Ranking {
    /// By falling score, ties by ascending id.
    pub candidates: Vec<Candidate>,
    /// Others that match, for facets: no hits of this ranking.
    pub beyond: Vec<Candidate>,
    /// How they were found.
    pub plan: Plan,
    /// Whether there are no more candidates.
    pub complete: bool,
    /// How vectors were searched, where that was asked for.
    pub explain: Option<Explain>,
}

impl Ranking {
    /// Leaves out what has a lower score.
    pub fn keep_from(&mut self, least: f32) {
        let before = self.candidates.len();
        self.candidates.retain(|candidate| candidate.score >= least);
        self.beyond.retain(|candidate| candidate.score >= least);
        self.complete |= self.candidates.len() < before;
    }
}

/// The best by vector.
pub struct Nearest {
    /// By falling score, ties by ascending id.
    pub candidates: Vec<Candidate>,
    /// How they were found.
    pub plan: Plan,
    /// Where that was asked for.
    pub explain: Option<Explain>,
}

/// The nearest of some of the places.
struct Look {
    found: Vec<Neighbour>,
    plan: Plan,
    explain: Option<Explain>,
}

/// How deep a search ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    /// Candidates that its page is cut from.
    pub candidates: usize,
    /// Candidates of each kind that a hybrid search fuses.
    pub fused: usize,
    /// Whether it never fuses more.
    pub is_fixed: bool,
    /// Documents that facets are counted over; 0 where none are asked for.
    pub counted: usize,
}

impl Frame<'_> {
    /// The best documents as deep as asked for, or all where there are fewer.
    pub(super) fn rank(
        &self,
        shelf: &dyn Shelf,
        query: &Prepared,
        request: &SearchRequest,
        depths: Depths,
    ) -> Result<Ranking, CollectionError> {
        let depth = depths.candidates.max(depths.counted);
        let (mut candidates, plan, complete, explain) = match (request.mode, &query.vector, &query.words) {
            (Mode::Vector, Some(vector), _) => {
                let Nearest { candidates, plan, explain } = shelf.nearest(vector, &query.excluded, request, depth)?;
                let complete = candidates.len() < depth;
                (candidates, plan, complete, explain)
            }
            (Mode::Keyword, _, Some(words)) => {
                let candidates = shelf.matching(words, request, depth)?;
                let complete = candidates.len() < depth;
                (candidates, Plan::Keyword, complete, None)
            }
            (Mode::Hybrid(fusion), Some(vector), Some(words)) => {
                return self.rank_both(shelf, query, request, depths, (vector, words, fusion));
            }
            _ => unreachable!("a query is prepared with all that its mode needs"),
        };
        let beyond = candidates.split_off(depths.candidates.min(candidates.len()));
        let complete = complete && beyond.is_empty();
        Ok(Ranking { candidates, beyond, plan, complete, explain })
    }

    fn rank_both(
        &self,
        shelf: &dyn Shelf,
        query: &Prepared,
        request: &SearchRequest,
        depths: Depths,
        (vector, words, fusion): (&[f32], &QueryWords, Fusion),
    ) -> Result<Ranking, CollectionError> {
        let each = depths.fused.max(depths.counted);
        let Nearest { candidates: mut near, explain, .. } = shelf.nearest(vector, &query.excluded, request, each)?;
        // One more tells whether there are others, and whether they are equals of the last.
        let mut matching = shelf.matching(words, request, each + 1)?;
        let next = matching.get(each).map(|candidate| candidate.score);
        matching.truncate(each);
        let all_ranked = near.len() < depths.fused && matching.len() < depths.fused;
        let last = matching.last().map(|candidate| candidate.score);
        let is_looked_up = match fusion {
            // Those who have the words and are not among them have no rank, unless they are equals of the last.
            Fusion::ReciprocalRank => next.is_some() && next == last,
            Fusion::Weighted { .. } => next.is_some(),
        };
        let by_words = words_of_all(shelf, words, &near, &matching, is_looked_up)?;
        // What facets count would move hits if it were fused with them; and its scores, which are of more documents,
        // cannot be held against a threshold.
        let counts_more = depths.counted > 0 && request.threshold.is_none();
        let counted = match counts_more {
            false => Vec::new(),
            true => self.fuse(vector, near.clone(), matching.clone(), &by_words, fusion)?,
        };
        near.truncate(depths.fused);
        matching.truncate(depths.fused);
        let mut candidates = self.fuse(vector, near, matching, &by_words, fusion)?;
        let complete = (all_ranked || depths.is_fixed) && candidates.len() <= depths.candidates;
        let cut_off = candidates.split_off(depths.candidates.min(candidates.len()));
        let others = if counts_more { counted } else { cut_off };
        let hits: HashSet<&DocumentId> = candidates.iter().map(|candidate| &candidate.id).collect();
        let others = others.into_iter().filter(|candidate| !hits.contains(&candidate.id));
        let beyond = others.take(depths.counted.saturating_sub(candidates.len())).collect();
        Ok(Ranking { candidates, beyond, plan: Plan::Hybrid, complete, explain })
    }

    /// `by_words`: scores of those of `near` that `matching` may lack though they have one of the words.
    fn fuse(
        &self,
        vector: &[f32],
        near: Vec<Candidate>,
        matching: Vec<Candidate>,
        by_words: &HashMap<DocumentId, f32>,
        fusion: Fusion,
    ) -> Result<Vec<Candidate>, CollectionError> {
        let mut places: HashMap<DocumentId, Place> = HashMap::with_capacity(near.len() + matching.len());
        let mut scores: HashMap<DocumentId, Scores> = HashMap::with_capacity(near.len() + matching.len());
        let beyond = |score: &f32| Ranked { rank: rank_of(&matching, *score), score: *score };
        for (rank, candidate) in ranks(&near).into_iter().zip(near) {
            let vector = Some(Ranked { rank: Some(rank), score: candidate.score });
            let words = by_words.get(&candidate.id).map(beyond);
            scores.insert(candidate.id.clone(), Scores { vector, words });
            places.insert(candidate.id, candidate.place);
        }
        for (rank, candidate) in ranks(&matching).into_iter().zip(matching) {
            let words = Ranked { rank: Some(rank), score: candidate.score };
            scores.entry(candidate.id.clone()).or_default().words = Some(words);
            // Looked up after the vectors were searched, so it is the younger version if they differ.
            places.insert(candidate.id, candidate.place);
        }
        let fused = match fusion {
            Fusion::ReciprocalRank => fusion::reciprocal_rank(scores),
            Fusion::Weighted { alpha } => {
                let query = VectorQuery::new(self.definition().metric, vector.to_vec());
                fill_in_vector_scores(&mut scores, &places, &query)?;
                fusion::weighted(scores, alpha)
            }
        };
        let place = |(id, score): (DocumentId, f32)| Some(Candidate { place: places.remove(&id)?, id, score });
        let mut candidates: Vec<_> = fused.into_iter().filter_map(place).collect();
        sort(&mut candidates);
        Ok(candidates)
    }
}

impl Collection {
    /// What is needed to answer a search again.
    fn sample(&self, view: &Arc<View>, query: &IndexQuery<'_>, found: &[Neighbour], seen: Seq) -> Sample {
        Sample {
            view: view.clone(),
            vector: query.vector.to_vec(),
            metric: query.metric,
            quantization: self.definition().index.quantization,
            top_k: query.top_k,
            filter: query.filter.cloned(),
            segments: query.segments.to_vec(),
            found: found.iter().map(|neighbour| (neighbour.id.clone(), neighbour.score)).collect(),
            seen,
            counts: self.state.recall.clone(),
        }
    }

    /// The `wanted` nearest of a view. `seen`: it holds every change up to there, and what is found may be a sample.
    fn nearest_in(
        &self,
        view: &Arc<View>,
        seen: Option<Seq>,
        vector: &[f32],
        request: &SearchRequest,
        (wanted, is_exact): (usize, bool),
    ) -> Result<Look, CollectionError> {
        Cancellation::check_current()?;
        let definition = self.definition();
        let plan = self.plan(view, request, wanted, is_exact)?;
        let segments: Vec<_> = plan.segments.iter().map(|segment| segment.query.clone()).collect();
        let index_query = IndexQuery {
            vector,
            metric: definition.metric,
            top_k: wanted,
            filter: request.filter.as_ref(),
            segments: &segments,
        };
        let found = index::search(view, &index_query)?;
        let answered_by = answered_by(&found.segments);
        let sampler = &self.engine.shared.sampler;
        let packed = || found.segments.iter().any(|segment| segment.used == Method::PackedScan);
        if let Some(seen) = seen
            && (answered_by == Plan::Graph || packed())
            && request.ef_search.is_none()
            && sampler.wants()
        {
            sampler.offer(self.sample(view, &index_query, &found.neighbours, seen));
        }
        let explain =
            request.explain.then(|| explain(plan, &found.segments, view, request.filter.as_ref(), answered_by));
        Ok(Look { found: found.neighbours, plan: answered_by, explain })
    }
}

impl Shelf for Collection {
    fn refresh(&self) -> Result<(), CollectionError> {
        self.refresh()
    }

    fn vector_of(&self, id: &DocumentId) -> Result<Vec<f32>, CollectionError> {
        match self.find(id)? {
            Some(place) => Ok(one_vector(&place.vectors()?, self.definition())),
            None => Err(CollectionError::QueryDocumentNotFound { id: id.clone() }),
        }
    }

    fn nearest(
        &self,
        vector: &[f32],
        excluded: &[DocumentId],
        request: &SearchRequest,
        depth: usize,
    ) -> Result<Nearest, CollectionError> {
        let (wanted, is_exact) = (depth + excluded.len(), page::is_exact(request, depth));
        // Before the view: it holds every change up to here.
        let mut seen = Some(self.state.last_seq());
        let mut whole: Option<Look> = None;
        self.state.read_whole(|view| {
            let look = self.nearest_in(view, seen.take(), vector, request, (wanted, is_exact))?;
            whole = Some(match whole.take() {
                None => look,
                // How the view of the beginning was searched is what tells.
                Some(first) => Look { found: index::join(first.found, look.found, wanted)?, ..first },
            });
            Ok::<_, CollectionError>(())
        })?;
        let Look { found, plan, explain } = whole.expect("every read has a look");
        let candidates = found
            .into_iter()
            .filter(|neighbour| !excluded.contains(&neighbour.id))
            .take(depth)
            .map(|Neighbour { score, id, place }| Candidate { score, id, place })
            .collect();
        Ok(Nearest { candidates, plan, explain })
    }

    /// The index proposes, the collection decides: a document that was rewritten since counts where it still has one of
    /// the words, by the score that it had.
    fn matching(
        &self,
        words: &QueryWords,
        request: &SearchRequest,
        depth: usize,
    ) -> Result<Vec<Candidate>, CollectionError> {
        let search = self.keyword_search(&words.query)?;
        let (mut candidates, mut from, mut count) = (Vec::new(), 0, depth);
        let mut taken: HashSet<DocumentId> = HashSet::new();
        let mut passing = request.filter.as_ref().map(|filter| Passing::new(self, filter));
        loop {
            let hits = search.hits(from, count)?;
            let last = hits.len() < count;
            for (n, hit) in hits.into_iter().enumerate() {
                if n % ASKED_EVERY == 0 {
                    Cancellation::check_current()?;
                }
                // The last bits of a score differ from one call to the next, and with them the order of near equals.
                if taken.contains(&hit.id) {
                    continue;
                }
                let Some(place) = self.find(&hit.id)? else { continue };
                if place.seq()? != hit.seq && !has_words(&place, &words.query) {
                    continue;
                }
                if let Some(passing) = &mut passing
                    && !passing.passes(&place)?
                {
                    continue;
                }
                taken.insert(hit.id.clone());
                candidates.push(Candidate { id: hit.id, score: hit.score, place });
            }
            if last || candidates.len() >= depth {
                break;
            }
            // The first hits were mostly passed over, so the next are too: reach deeper each time.
            (from, count) = (from + count, count * 4);
        }
        candidates.truncate(depth);
        Ok(candidates)
    }

    fn words_of(
        &self,
        words: &QueryWords,
        candidates: &[&Candidate],
    ) -> Result<HashMap<DocumentId, f32>, CollectionError> {
        let ids: Vec<&DocumentId> = candidates.iter().map(|candidate| &candidate.id).collect();
        let places: HashMap<&DocumentId, &Place> =
            candidates.iter().map(|candidate| (&candidate.id, &candidate.place)).collect();
        let mut scores = HashMap::new();
        for hit in self.keyword_search(&words.query)?.hits_among(&ids)? {
            let Some(place) = places.get(&hit.id) else { continue };
            if place.seq()? == hit.seq || has_words(place, &words.query) {
                scores.insert(hit.id, hit.score);
            }
        }
        Ok(scores)
    }
}

/// Whether a document has one of the words. One that cannot be read has none, as in the index.
fn has_words(place: &Place, query: &KeywordQuery) -> bool {
    let text = place.document().ok().and_then(|document| document.text);
    text.is_some_and(|text| query.is_in(&text))
}

/// Documents that only their words brought in have a vector too.
fn fill_in_vector_scores(
    scores: &mut HashMap<DocumentId, Scores>,
    places: &HashMap<DocumentId, Place>,
    query: &VectorQuery,
) -> Result<(), CollectionError> {
    for (id, scores) in scores.iter_mut().filter(|(_, scores)| scores.vector.is_none()) {
        if let Some(place) = places.get(id) {
            scores.vector = Some(Ranked { rank: None, score: query.nearest(&place.vectors()?).1 });
        }
    }
    Ok(())
}

/// The scores by words of `near`, as `matching`, the best by words, has them; those that it lacks are looked up where
/// that is wanted.
fn words_of_all(
    shelf: &dyn Shelf,
    words: &QueryWords,
    near: &[Candidate],
    matching: &[Candidate],
    is_looked_up: bool,
) -> Result<HashMap<DocumentId, f32>, CollectionError> {
    let ranked: HashMap<&DocumentId, f32> = matching.iter().map(|found| (&found.id, found.score)).collect();
    let lacking: Vec<&Candidate> = near.iter().filter(|candidate| !ranked.contains_key(&candidate.id)).collect();
    let mut scores = if is_looked_up { shelf.words_of(words, &lacking)? } else { HashMap::new() };
    let both = near.iter().filter_map(|candidate| Some((candidate.id.clone(), *ranked.get(&candidate.id)?)));
    scores.extend(both);
    Ok(scores)
}

/// Of each, how many before it have a better score: equals have one rank, whatever their ids are.
fn ranks(candidates: &[Candidate]) -> Vec<usize> {
    let mut rank = 0;
    let mut before = f32::INFINITY;
    let of = |(at, candidate): (usize, &Candidate)| {
        if candidate.score < before {
            (rank, before) = (at, candidate.score);
        }
        rank
    };
    candidates.iter().enumerate().map(of).collect()
}

/// The rank that a score has among these, best first; `None` below the last of them.
fn rank_of(candidates: &[Candidate], score: f32) -> Option<usize> {
    let better = candidates.partition_point(|candidate| candidate.score > score);
    (better < candidates.len()).then_some(better)
}

/// By falling score, ties by ascending id.
pub fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
}
