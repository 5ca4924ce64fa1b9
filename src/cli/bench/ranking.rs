//! Measures of a ranking against relevance judgements: nDCG, recall, reciprocal rank. Relevance is binary.

use std::collections::HashSet;

/// Normalised discounted cumulative gain of the first `k` (Jarvelin & Kekalainen 2002): a relevant document at rank r,
/// counted from 1, gains 1 / log2(r + 1); divided by what the best ranking would gain. 0 when nothing is relevant.
pub(super) fn ndcg(ranking: &[&str], relevant: &HashSet<&str>, k: usize) -> f64 {
    let gain = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
    let hits = ranking.iter().take(k).enumerate().filter(|(_, id)| relevant.contains(*id));
    let ideal: f64 = (0..relevant.len().min(k)).map(gain).sum();
    match relevant.is_empty() {
        true => 0.0,
        false => hits.map(|(rank, _)| gain(rank)).sum::<f64>() / ideal,
    }
}

/// Share of the relevant documents among the first `k`. 0 when nothing is relevant.
pub(super) fn recall(ranking: &[&str], relevant: &HashSet<&str>, k: usize) -> f64 {
    match relevant.len() {
        0 => 0.0,
        all => ranking.iter().take(k).filter(|id| relevant.contains(*id)).count() as f64 / all as f64,
    }
}

/// One over the rank of the first relevant document among the first `k`; 0 when there is none.
pub(super) fn reciprocal_rank(ranking: &[&str], relevant: &HashSet<&str>, k: usize) -> f64 {
    let first = ranking.iter().take(k).position(|id| relevant.contains(id));
    first.map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
}

/// Share of the first `k` that two rankings have in common, of the longer one's length.
pub(super) fn overlap(a: &[&str], b: &[&str], k: usize) -> f64 {
    let (a, b): (HashSet<_>, HashSet<_>) = (a.iter().take(k).collect(), b.iter().take(k).collect());
    match a.len().max(b.len()) {
        0 => 1.0,
        longer => a.intersection(&b).count() as f64 / longer as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, wanted: f64) {
        assert!((got - wanted).abs() < 1e-12, "{got} is not {wanted}");
    }

    #[test]
    fn ndcg_by_hand() {
        let relevant = HashSet::from(["a", "b", "c"]);
        close(ndcg(&["a", "b", "c", "x"], &relevant, 10), 1.0);
        // Ranks 2 and 4: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3 + 1/log2 4).
        let wanted = (0.630_929_753_571_457_4 + 0.430_676_558_073_393_06) / (1.0 + 0.630_929_753_571_457_4 + 0.5);
        close(ndcg(&["x", "a", "y", "b"], &relevant, 10), wanted);
        // A relevant document behind the cut gains nothing, and the ideal is cut as well: 1 / (1 + 1/log2 3).
        close(ndcg(&["a", "x", "b", "c"], &relevant, 2), 1.0 / 1.630_929_753_571_457_4);
        close(ndcg(&["x", "y"], &relevant, 10), 0.0);
        close(ndcg(&["x"], &HashSet::new(), 10), 0.0);
    }

    #[test]
    fn recall_and_reciprocal_rank_by_hand() {
        let relevant = HashSet::from(["a", "b", "c", "d"]);
        close(recall(&["x", "a", "b"], &relevant, 10), 0.5);
        close(recall(&["x", "a", "b"], &relevant, 2), 0.25);
        close(recall(&[], &relevant, 10), 0.0);
        close(reciprocal_rank(&["x", "y", "a"], &relevant, 10), 1.0 / 3.0);
        close(reciprocal_rank(&["x", "y", "a"], &relevant, 2), 0.0);
    }

    #[test]
    fn overlap_ignores_order_and_counts_missing_results() {
        close(overlap(&["a", "b"], &["b", "a"], 10), 1.0);
        close(overlap(&["a", "b", "c", "d"], &["a", "b"], 10), 0.5);
        close(overlap(&["a", "x"], &["a", "y"], 1), 1.0);
        close(overlap(&[], &[], 10), 1.0);
    }
}
