//! Search: check the request, prepare its query, rank, cut the page, fetch what the hits carry.

use std::time::Instant;

use crate::embed::{Cancellation, InputKind};
use crate::types::limits::{MAX_EF, MAX_TOP_K};
use crate::types::{
    DocumentId, Facet, Fusion, Hit, HitGroup, Metric, Mode, Paging, Query, SearchRequest, SearchResponse, admit_vector,
    carried_value_bytes,
};

use super::candidates::{Candidate, Prepared, QueryWords, Ranking};
use super::check::{check_parts, text_of, too_deep};
use super::facets::Counts;
use super::fusion::BEST_FUSED;
use super::hits::{Carried, Carry};
use super::page::{self, ASKED_EVERY, Content};
use super::{Collection, CollectionError, Frame, Shelf, out_of_range};

/// Documents that are in memory at once while hits are made of them, where they stand elsewhere.
const FETCHED_AT_ONCE: usize = 64;

/// A query text's vector, and whether the model read less than all of the text.
type Embedded = (Vec<f32>, bool);

impl Collection {
    /// Finds the documents that fit a query best: best first, ties by ascending id.
    ///
    /// By vector it is approximate where a segment is searched by its graph; raising `ef_search` trades time for
    /// recall, and `exact: true` compares with every document. It sees every write that was acknowledged before the
    /// call; words are seen within a second, or at once with `refresh`. What was replaced or deleted is never a hit.
    ///
    /// # Errors
    /// [`CollectionError`] names what in the request is to be changed, or what is damaged.
    pub fn search(&self, request: &SearchRequest) -> Result<SearchResponse, CollectionError> {
        self.check_exists()?;
        self.frame().search(self, request)
    }

    /// Answers several searches, whose texts are embedded together. One that cannot be answered refuses all.
    ///
    /// # Errors
    /// The place of the first search that failed, and why.
    pub fn search_all(&self, requests: &[SearchRequest]) -> Result<Vec<SearchResponse>, (usize, CollectionError)> {
        self.check_exists().map_err(|error| (0, error))?;
        self.frame().search_all(self, requests)
    }
}

impl Frame<'_> {
    /// As [`Collection::search`], over documents wherever they stand.
    ///
    /// # Errors
    /// As there.
    pub fn search(&self, shelf: &dyn Shelf, request: &SearchRequest) -> Result<SearchResponse, CollectionError> {
        let started = Instant::now();
        self.check_request(request)?;
        let prepared = self.prepare(shelf, request, None)?;
        self.answer(shelf, request, &prepared, &mut Carried::default(), started)
    }

    /// As [`Collection::search_all`], over documents wherever they stand.
    ///
    /// # Errors
    /// As there.
    pub fn search_all(
        &self,
        shelf: &dyn Shelf,
        requests: &[SearchRequest],
    ) -> Result<Vec<SearchResponse>, (usize, CollectionError)> {
        let at = |n: usize| move |error: CollectionError| (n, error);
        for (n, request) in requests.iter().enumerate() {
            self.check_request(request).map_err(at(n))?;
        }
        let mut embedded = self.embed_texts_of(requests)?;
        let mut carried = Carried::default();
        let answer = |(n, request): (usize, &SearchRequest)| {
            Cancellation::check_current().map_err(|gone| (n, gone.into()))?;
            let started = Instant::now();
            let prepared = self.prepare(shelf, request, embedded[n].take()).map_err(at(n))?;
            self.answer(shelf, request, &prepared, &mut carried, started).map_err(at(n))
        };
        requests.iter().enumerate().map(answer).collect()
    }

    fn embed_texts_of(&self, requests: &[SearchRequest]) -> Result<Vec<Option<Embedded>>, (usize, CollectionError)> {
        let text = |request: &'_ SearchRequest| match (&request.query, request.mode) {
            (Query::Text(text), Mode::Vector | Mode::Hybrid(_)) => Some(text.clone()),
            _ => None,
        };
        let wanted: Vec<(usize, String)> =
            requests.iter().enumerate().filter_map(|(n, request)| Some((n, text(request)?))).collect();
        let mut embedded: Vec<Option<Embedded>> = vec![None; requests.len()];
        let Some(&(first, _)) = wanted.first() else { return Ok(embedded) };
        let texts: Vec<&str> = wanted.iter().map(|(_, text)| text.as_str()).collect();
        let model = self.model().map_err(|error| (first, error))?;
        let dim = Some(self.definition().dim as usize);
        let embeddings = model.embed_with(&texts, InputKind::Query, dim).map_err(|error| (first, error.into()))?;
        for ((n, _), one) in wanted.iter().zip(embeddings.vectors.into_iter().zip(embeddings.truncated)) {
            embedded[*n] = Some(one);
        }
        Ok(embedded)
    }

    /// Makes of a query what can be looked for. `embedded`: its text's vector, where that is known already.
    fn prepare(
        &self,
        shelf: &dyn Shelf,
        request: &SearchRequest,
        embedded: Option<Embedded>,
    ) -> Result<Prepared, CollectionError> {
        if let Some(rerank) = &request.rerank {
            self.cross_encoder(rerank)?;
        }
        let language = self.definition().text.language;
        let words = match (text_of(&request.query), request.mode) {
            (Some(text), Mode::Keyword | Mode::Hybrid(_)) => Some(QueryWords::new(language, text)?),
            // Without a word there is nothing to mark, and vectors need none.
            (Some(text), Mode::Vector) if request.highlight => match QueryWords::new(language, text) {
                Err(CollectionError::Query { .. }) => None,
                other => Some(other?),
            },
            _ => None,
        };
        let mut truncated = words.as_ref().is_some_and(|words| words.query.is_cut());
        let mut excluded = Vec::new();
        let vector = match (&request.query, request.mode) {
            (_, Mode::Keyword) => None,
            (Query::Vector(vector) | Query::TextAndVector { vector, .. }, _) => Some(vector.clone()),
            (Query::Text(text), _) => {
                let (vector, cut) = embedded.map_or_else(|| self.embed_query(text), Ok)?;
                truncated |= cut;
                Some(vector)
            }
            (Query::Document(id), _) => {
                excluded.push(id.clone());
                Some(shelf.vector_of(id)?)
            }
            (Query::Like { positive, negative }, _) => {
                excluded.extend(positive.iter().chain(negative).cloned());
                Some(self.vector_like(shelf, positive, negative)?)
            }
        };
        let vector = vector.map(|vector| self.admit_query(vector)).transpose()?;
        Ok(Prepared { vector, words, excluded, truncated })
    }

    fn embed_query(&self, text: &str) -> Result<Embedded, CollectionError> {
        let dim = Some(self.definition().dim as usize);
        let mut embeddings = self.model()?.embed_with(&[text], InputKind::Query, dim)?;
        let truncated = embeddings.truncated.first().is_some_and(|cut| *cut);
        Ok((embeddings.vectors.pop().unwrap_or_default(), truncated))
    }

    /// The mean of what is liked, and as far again from the mean of what is not: 2 p - n (Rocchio 1971 with equal
    /// weights).
    fn vector_like(
        &self,
        shelf: &dyn Shelf,
        positive: &[DocumentId],
        negative: &[DocumentId],
    ) -> Result<Vec<f32>, CollectionError> {
        let mut sum = vec![0.0_f64; self.definition().dim as usize];
        let liked = if negative.is_empty() { 1.0 } else { 2.0 };
        for (ids, weight) in [(positive, liked), (negative, -1.0)] {
            for id in ids {
                let vector = shelf.vector_of(id)?;
                let share = weight / ids.len() as f64;
                sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += share * f64::from(x));
            }
        }
        Ok(sum.into_iter().map(|x| x as f32).collect())
    }

    /// A query's vector as the stored ones are.
    ///
    /// # Errors
    /// [`CollectionError::QueryVector`].
    pub fn admit_query(&self, mut vector: Vec<f32>) -> Result<Vec<f32>, CollectionError> {
        let definition = self.definition();
        admit_vector(definition.metric, &mut vector, definition.dim as usize).map_err(CollectionError::QueryVector)?;
        Ok(vector)
    }

    fn answer(
        &self,
        shelf: &dyn Shelf,
        request: &SearchRequest,
        prepared: &Prepared,
        carried: &mut Carried,
        started: Instant,
    ) -> Result<SearchResponse, CollectionError> {
        if request.refresh {
            shelf.refresh()?;
        }
        let dim = self.definition().dim as usize;
        let mut depths = page::first_depths(request);
        let (ranking, facets, page) = loop {
            let mut ranking = self.rank(shelf, prepared, request, depths)?;
            self.rerank(shelf, request, prepared, &mut ranking)?;
            if let Some(least) = request.threshold {
                ranking.keep_from(least);
            }
            let facets = facets(request, &ranking)?;
            let page = page::cut(request, &mut ranking, dim)?;
            match page::deeper(request, depths) {
                Some(deeper) if page.wants_more && !ranking.complete => depths = deeper,
                // Documents that were written since the page before push this one beyond the last.
                None if page.is_empty() && !ranking.complete && matches!(request.paging, Paging::After(_)) => {
                    return Err(too_deep());
                }
                _ => break (ranking, facets, page),
            }
        };
        let carry = Carry::new(request, prepared, self.definition());
        carried.add(facets.iter().map(Facet::carried_bytes).sum(), request.max_bytes)?;
        let (hits, groups) = match page.content {
            Content::Hits(candidates) => {
                let mut hits = Vec::with_capacity(candidates.len());
                each_hit(shelf, request, &carry, carried, candidates, &mut |_, hit| hits.push(hit))?;
                (hits, None)
            }
            Content::Groups(found) => {
                let group_of: Vec<usize> =
                    found.iter().enumerate().flat_map(|(n, (_, hits))| vec![n; hits.len()]).collect();
                let (mut groups, mut candidates) =
                    (Vec::with_capacity(found.len()), Vec::with_capacity(group_of.len()));
                for (value, hits) in found {
                    carried.add(carried_value_bytes(&value), request.max_bytes)?;
                    groups.push(HitGroup { value, hits: Vec::with_capacity(hits.len()) });
                    candidates.extend(hits);
                }
                let mut place = |at: usize, hit: Hit| groups[group_of[at]].hits.push(hit);
                each_hit(shelf, request, &carry, carried, candidates, &mut place)?;
                groups.retain(|group| !group.hits.is_empty());
                (Vec::new(), Some(groups))
            }
        };
        Ok(SearchResponse {
            hits,
            groups,
            facets,
            next: page.next,
            plan: ranking.plan,
            took: started.elapsed(),
            truncated: prepared.truncated,
            explain: ranking.explain,
        })
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
        if let Some(threshold) = request.threshold {
            let best = self.best_score(request);
            if !(f32::MIN..=best).contains(&threshold) {
                return Err(out_of_range("threshold", threshold, f32::MIN, best));
            }
        }
        self.check_filter(request.filter.as_ref())?;
        check_parts(request)
    }
}

impl Frame<'_> {
    /// A score that no hit of the request is above: a threshold beyond it leaves none, and is meant for another scale,
    /// such as a distance.
    fn best_score(&self, request: &SearchRequest) -> f32 {
        match (request.mode, self.definition().metric) {
            // A cross-encoder's are of its own.
            _ if request.rerank.is_some() => f32::MAX,
            (Mode::Keyword, _) | (Mode::Vector, Metric::Dot) => f32::MAX,
            (Mode::Vector, Metric::Cosine) | (Mode::Hybrid(Fusion::Weighted { .. }), _) => 1.0,
            (Mode::Vector, Metric::L2) => 0.0,
            (Mode::Hybrid(Fusion::ReciprocalRank), _) => BEST_FUSED,
        }
    }
}

/// Makes hits of candidates, some at a time, and gives each to `take` with the place of its candidate.
fn each_hit(
    shelf: &dyn Shelf,
    request: &SearchRequest,
    carry: &Carry<'_>,
    carried: &mut Carried,
    mut candidates: Vec<Candidate>,
    take: &mut dyn FnMut(usize, Hit),
) -> Result<(), CollectionError> {
    let mut first = 0;
    while !candidates.is_empty() {
        Cancellation::check_current()?;
        let rest = candidates.split_off(FETCHED_AT_ONCE.min(candidates.len()));
        let piece = std::mem::replace(&mut candidates, rest);
        let count = piece.len();
        // Those of a reranking were fetched for it.
        let piece = match request.rerank {
            Some(_) => piece.into_iter().map(Some).collect(),
            None => shelf.fetch(piece, request)?,
        };
        for (n, candidate) in piece.into_iter().enumerate() {
            let Some(candidate) = candidate else { continue };
            let hit = carry.hit(candidate)?;
            carried.add(hit.carried_bytes(), request.max_bytes)?;
            take(first + n, hit);
        }
        first += count;
    }
    Ok(())
}

/// Counts over everything that was ranked.
fn facets(request: &SearchRequest, ranking: &Ranking) -> Result<Vec<Facet>, CollectionError> {
    let mut counts = Counts::new(&request.facets);
    if !request.facets.is_empty() {
        for (n, candidate) in ranking.candidates.iter().chain(&ranking.beyond).enumerate() {
            if n % ASKED_EVERY == 0 {
                Cancellation::check_current()?;
            }
            counts.add(&*candidate.place.metadata()?)?;
        }
    }
    Ok(counts.into_facets())
}
