//! Searches over one collection: recall against the exact answer, queries a second and latency, by `ef_search`.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::super::CliError;
use super::stats::{Latencies, rounded, whole};
use super::store::{bare_request, rows_of};
use crate::collection::Collection;
use crate::types::{Hit, Plan, SearchRequest};

/// Hits of every search.
pub(super) const TOP_K: usize = 10;
/// A hit counts when its score reaches the tenth best less this, as in the peers' scripts: equal neighbours are equal.
const TIE: f32 = 1e-6;

/// The exact answers to all queries.
pub(super) struct Truth {
    /// Row and score, nearest first.
    pub hits: Vec<Vec<(usize, f32)>>,
    latencies: Latencies,
}

impl Truth {
    /// Asks for the exact answer to every query.
    ///
    /// # Errors
    /// [`CliError::Collection`].
    pub fn gather(collection: &Collection, queries: &[Vec<f32>], progress: &ProgressBar) -> Result<Self, CliError> {
        let requests: Vec<_> = queries.iter().map(|query| bare_request(query, TOP_K)).collect();
        Self::of(collection, &requests, progress)
    }

    /// Asks for the exact answer to every request.
    ///
    /// # Errors
    /// [`CliError::Collection`].
    pub fn of(collection: &Collection, requests: &[SearchRequest], progress: &ProgressBar) -> Result<Self, CliError> {
        let (mut all, mut durations) = (Vec::new(), Vec::new());
        for request in requests {
            let (hits, _, took) = timed(collection, &SearchRequest { exact: true, ..request.clone() })?;
            all.push(rows_of(&hits)?);
            durations.push(took);
            progress.inc(1);
        }
        Ok(Self { hits: all, latencies: Latencies::new(durations) })
    }

    /// The figures of the exact searches themselves.
    pub fn figures(&self) -> Value {
        figures(Plan::Exact, 1.0, &self.latencies)
    }

    /// Hits of one answer that belong there.
    pub fn right(&self, query: usize, hits: &[Hit]) -> usize {
        let exact = &self.hits[query];
        let floor = exact.last().map_or(f32::INFINITY, |&(_, score)| score - TIE);
        hits.iter().filter(|hit| hit.score >= floor).count()
    }

    /// Hits of all queries together.
    pub fn wanted(&self) -> usize {
        self.hits.iter().map(Vec::len).sum()
    }
}

/// Searches for every query twice, one call after the other on this thread: once for the recall, which also warms the
/// caches, then for the time. `ef_search`: `None` for the planner's choice.
///
/// # Errors
/// [`CliError::Collection`].
pub(super) fn measure(
    collection: &Collection,
    queries: &[Vec<f32>],
    truth: &Truth,
    ef_search: Option<usize>,
    progress: &ProgressBar,
) -> Result<Value, CliError> {
    let request = |query: &Vec<f32>| SearchRequest { ef_search, ..bare_request(query, TOP_K) };
    let mut figures = measure_requests(collection, &queries.iter().map(request).collect::<Vec<_>>(), truth, progress)?;
    figures["ef"] = json!(ef_search);
    Ok(figures)
}

/// As [`measure`], with requests of any kind.
///
/// # Errors
/// [`CliError::Collection`].
pub(super) fn measure_requests(
    collection: &Collection,
    requests: &[SearchRequest],
    truth: &Truth,
    progress: &ProgressBar,
) -> Result<Value, CliError> {
    let mut right = 0;
    for (index, request) in requests.iter().enumerate() {
        right += truth.right(index, &collection.search(request)?.hits);
    }
    let (mut durations, mut plan) = (Vec::with_capacity(requests.len()), Plan::Exact);
    for request in requests {
        let (_, answered_by, took) = timed(collection, request)?;
        if answered_by == Plan::Graph {
            plan = Plan::Graph;
        }
        durations.push(took);
    }
    progress.inc(requests.len() as u64);
    let recall = right as f64 / truth.wanted().max(1) as f64;
    Ok(figures(plan, recall, &Latencies::new(durations)))
}

/// The row of the lowest `ef_search` that reaches a recall, for each floor that is reached.
pub(super) fn at_floors(sweep: &[Value], floors: &[f64]) -> Vec<Value> {
    let reached = |floor: &f64| {
        let row = sweep.iter().find(|row| row["recall_at_10"].as_f64().is_some_and(|recall| recall >= *floor))?;
        let mut row = row.clone();
        row["floor"] = json!(floor);
        Some(row)
    };
    floors.iter().filter_map(reached).collect()
}

fn timed(collection: &Collection, request: &SearchRequest) -> Result<(Vec<Hit>, Plan, Duration), CliError> {
    let started = Instant::now();
    let response = collection.search(request)?;
    let took = started.elapsed();
    Ok((response.hits, response.plan, took))
}

fn figures(plan: Plan, recall: f64, latencies: &Latencies) -> Value {
    json!({
        "plan": plan.name(),
        // Cut, not rounded: 0.94999 does not reach 0.95.
        "recall_at_10": (recall * 1e4).floor() / 1e4,
        "qps_calls": whole(latencies.per_second()),
        "p50_us": rounded(latencies.percentile_us(0.5), 1),
        "p99_us": rounded(latencies.percentile_us(0.99), 1),
        "calls": latencies.count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DocumentId;

    #[test]
    fn hits_count_by_their_score_so_that_ties_do_not_cost_recall() {
        let truth = Truth { hits: vec![vec![(1, 0.9), (2, 0.8)]], latencies: Latencies::new(Vec::new()) };
        let hit = |id: &str, score| Hit {
            id: DocumentId::new(id).unwrap(),
            score,
            text: None,
            metadata: None,
            vector: None,
            chunk: None,
            highlights: None,
        };
        assert_eq!(truth.right(0, &[hit("1", 0.9), hit("7", 0.8)]), 2);
        assert_eq!(truth.right(0, &[hit("1", 0.9), hit("7", 0.79)]), 1);
        assert_eq!(truth.right(0, &[]), 0);
        assert_eq!(truth.wanted(), 2);
    }

    #[test]
    fn the_lowest_ef_that_reaches_a_floor_is_taken() {
        let sweep =
            [(16, 0.90), (32, 0.96), (64, 0.97)].map(|(ef, recall)| json!({ "ef": ef, "recall_at_10": recall }));
        let rows = at_floors(&sweep, &[0.95, 0.99]);
        assert_eq!(rows, [json!({ "ef": 32, "recall_at_10": 0.96, "floor": 0.95 })]);
    }
}
