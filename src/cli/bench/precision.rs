//! How much the vectors of a precision differ from those of float32, and what that does to the answers.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::cranfield::Cranfield;
use super::quality::ranking_of;
use super::ranking;
use super::report::Column;
use super::stats::rounded;

/// Columns of [`compare`]'s row.
pub(super) const COLUMNS: [Column; 6] = [
    ("overlap@10", "overlap_at_10"),
    ("nDCG@10", "ndcg_at_10"),
    ("float32's", "ndcg_at_10_float32"),
    ("ratio", "ndcg_ratio"),
    ("mean cosine", "mean_cosine"),
    ("smallest cosine", "min_cosine"),
];

/// Hits that are compared.
const TOP: usize = 10;

/// Vectors of documents and of queries.
pub(super) type Embedded<'a> = (&'a [Vec<f32>], &'a [Vec<f32>]);

/// Compares vectors in a precision with those in float32.
pub(super) fn compare(set: &Cranfield, [ours, reference]: [Embedded; 2]) -> Value {
    let hits = [ours, reference].map(|(documents, queries)| {
        queries.iter().map(|query| nearest(query, documents)).collect::<Vec<Vec<(usize, f32)>>>()
    });
    let rankings = hits.each_ref().map(|hits| hits.iter().map(|hits| ranking_of(set, hits)).collect::<Vec<_>>());
    let [ndcg, ndcg_float32] = rankings.each_ref().map(|rankings| mean_ndcg(set, rankings));
    let overlaps = rankings[0].iter().zip(&rankings[1]).map(|(a, b)| ranking::overlap(a, b, TOP));
    let overlap = overlaps.sum::<f64>() / rankings[0].len().max(1) as f64;
    let cosines: Vec<f64> =
        ours.0.iter().chain(ours.1).zip(reference.0.iter().chain(reference.1)).map(|(a, b)| dot(a, b)).collect();
    json!({
        "overlap_at_10": rounded(overlap, 4),
        "ndcg_at_10": rounded(ndcg, 4),
        "ndcg_at_10_float32": rounded(ndcg_float32, 4),
        "ndcg_ratio": rounded(ndcg / ndcg_float32, 4),
        "mean_cosine": rounded(cosines.iter().sum::<f64>() / cosines.len().max(1) as f64, 6),
        "min_cosine": rounded(cosines.iter().copied().fold(1.0, f64::min), 6),
    })
}

fn mean_ndcg(set: &Cranfield, rankings: &[Vec<&str>]) -> f64 {
    let mut gains = Vec::new();
    for (query, ranking) in set.queries.iter().zip(rankings) {
        if let Some(relevant) = set.relevant.get(&query.id) {
            let relevant: HashSet<&str> = relevant.iter().map(String::as_str).collect();
            gains.push(ranking::ndcg(ranking, &relevant, TOP));
        }
    }
    gains.iter().sum::<f64>() / gains.len().max(1) as f64
}

/// The rows nearest to `query` with their scores, nearest first, ties by row.
fn nearest(query: &[f32], documents: &[Vec<f32>]) -> Vec<(usize, f32)> {
    let mut scored: Vec<(usize, f32)> =
        documents.iter().enumerate().map(|(row, document)| (row, dot(query, document) as f32)).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored.truncate(TOP);
    scored
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_ties_by_row() {
        let documents = [vec![0.0, 1.0], vec![1.0, 0.0], vec![1.0, 0.0], vec![0.6, 0.8]];
        let rows: Vec<usize> = nearest(&[1.0, 0.0], &documents).into_iter().map(|(row, _)| row).collect();
        assert_eq!(rows, [1, 2, 3, 0]);
    }
}
