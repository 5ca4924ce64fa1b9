//! The best candidates in a better order: a cross-encoder reads the query and each of their texts together.

use crate::distance::VectorQuery;
use crate::embed::{CrossEncoder, EmbedError};
use crate::types::limits::MAX_RERANKED;
use crate::types::{Paging, Rerank, SearchRequest, Value, lookup};

use super::candidates::{Candidate, Prepared, Ranking, sort};
use super::check::{check_field, text_of};
use super::{CollectionError, Frame, Shelf, out_of_range};

impl Frame<'_> {
    /// Gives the candidates of a ranking, `top_n` of them, the scores of a cross-encoder.
    ///
    /// # Errors
    /// [`CollectionError::Query`] names a document without a text, or a model that cannot rerank.
    pub(super) fn rerank(
        &self,
        shelf: &dyn Shelf,
        request: &SearchRequest,
        prepared: &Prepared,
        ranking: &mut Ranking,
    ) -> Result<(), CollectionError> {
        let (Some(rerank), Some(query)) = (&request.rerank, text_of(&request.query)) else { return Ok(()) };
        let model = self.cross_encoder(rerank)?;
        let found = shelf.fetch(std::mem::take(&mut ranking.candidates), request)?;
        ranking.candidates = found.into_iter().flatten().collect();
        let texts = ranking.candidates.iter().map(|candidate| self.text_to_rerank(candidate, rerank, prepared));
        let texts = texts.collect::<Result<Vec<String>, _>>()?;
        let scores = model.score(query, &texts.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (candidate, score) in ranking.candidates.iter_mut().zip(scores) {
            candidate.score = score;
        }
        sort(&mut ranking.candidates);
        ranking.complete = true;
        if request.threshold.is_some() {
            // What was not read has no score to compare with it.
            ranking.beyond.clear();
        }
        Ok(())
    }

    /// Loads the model before anything is searched, so that a wrong name costs nothing.
    pub(super) fn cross_encoder(&self, rerank: &Rerank) -> Result<std::sync::Arc<CrossEncoder>, CollectionError> {
        match self.models().load_cross_encoder(&rerank.model) {
            Err(error @ EmbedError::Unsupported { .. }) => {
                Err(CollectionError::Query { detail: format!("\"rerank.model\": {error}") })
            }
            other => Ok(other?),
        }
    }

    /// The named field, or the text: of a document that was found by one of its chunks, that chunk.
    fn text_to_rerank(
        &self,
        candidate: &Candidate,
        rerank: &Rerank,
        prepared: &Prepared,
    ) -> Result<String, CollectionError> {
        let document = candidate.place.document()?;
        let text = match &rerank.field {
            Some(field) => match lookup(&document.metadata, field) {
                Some(Value::String(text)) => Some(text.clone()),
                _ => None,
            },
            None => document.text,
        };
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
            let (id, what) = (candidate.id.as_str(), rerank.field.as_deref().unwrap_or("text"));
            let detail = format!(
                "document {id:?} has no text in {what:?} to rerank by; name a metadata field of strings in \
                 \"rerank.field\", or leave such documents out by \"filter\""
            );
            return Err(CollectionError::Query { detail });
        };
        let (None, Some(vector)) = (&rerank.field, &prepared.vector) else { return Ok(text) };
        let spans = candidate.place.chunks()?;
        let nearest = || VectorQuery::new(self.definition().metric, vector.clone());
        let part = match spans.len() {
            0 => None,
            _ => spans[nearest().nearest(&candidate.place.vectors()?).0].of(&text).map(str::to_owned),
        };
        Ok(part.unwrap_or(text))
    }
}

/// Checks what a reranked search may ask for.
///
/// # Errors
/// [`CollectionError::OutOfRange`] and [`CollectionError::Query`].
pub fn check_rerank(request: &SearchRequest) -> Result<(), CollectionError> {
    let Some(rerank) = &request.rerank else { return Ok(()) };
    let refuse = |detail: &str| Err(CollectionError::Query { detail: detail.to_owned() });
    if text_of(&request.query).is_none() {
        return refuse("\"rerank\" compares texts with a query text; send \"text\", or leave \"rerank\" out");
    }
    if let Some(field) = &rerank.field {
        check_field("rerank.field", field)?;
    }
    if request.grouping.is_some() || request.diversity.is_some() {
        return refuse("\"rerank\" goes with neither \"group_by\" nor \"diversity\"; leave one of them out");
    }
    let Paging::Offset(offset) = request.paging else {
        return refuse("a reranked search has no cursor; page through its \"top_n\" by \"offset\"");
    };
    let least = offset.saturating_add(request.top_k);
    if !(least..=MAX_RERANKED).contains(&rerank.top_n) {
        return Err(out_of_range("rerank.top_n", rerank.top_n, least, MAX_RERANKED));
    }
    Ok(())
}
