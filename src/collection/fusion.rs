//! One ranking of two: reciprocal rank fusion, and a weighted sum of normalised scores.

use std::collections::HashMap;
use std::hash::Hash;

/// What flattens the difference between the first ranks (Cormack, Clarke & Büttcher 2009, section 2: 60).
const RANK_CONSTANT: f32 = 60.0;
/// The score by [`reciprocal_rank`] of what is first in both rankings.
pub const BEST_FUSED: f32 = 2.0 / (RANK_CONSTANT + 1.0);

/// Where a document stands in one ranking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// How many have a better score; `None` beyond the end of what is fused.
    pub rank: Option<usize>,
    /// Its score there.
    pub score: f32,
}

/// Where a document stands in each ranking.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// By vector; higher is nearer.
    pub vector: Option<Ranked>,
    /// By words; above 0.
    pub words: Option<Ranked>,
}

/// The sum of 1 / (60 + rank) over both rankings, ranks counted from 1; equals have one rank.
pub fn reciprocal_rank<K: Eq + Hash>(scores: HashMap<K, Scores>) -> Vec<(K, f32)> {
    let of = |ranked: Option<Ranked>| {
        let rank = ranked.and_then(|ranked| ranked.rank);
        rank.map_or(0.0, |rank| 1.0 / (RANK_CONSTANT + rank as f32 + 1.0))
    };
    scores.into_iter().map(|(key, scores)| (key, of(scores.vector) + of(scores.words))).collect()
}

/// `alpha` times the vector's score, brought from its least and greatest to [0, 1], and 1 - `alpha` times the words'
/// score over the greatest: a document with none of the words has 0 there.
pub fn weighted<K: Eq + Hash>(scores: HashMap<K, Scores>, alpha: f32) -> Vec<(K, f32)> {
    let vectors = || scores.values().filter_map(|scores| Some(scores.vector?.score));
    let (least, greatest) = (vectors().fold(f32::MAX, f32::min), vectors().fold(f32::MIN, f32::max));
    let most = scores.values().filter_map(|scores| Some(scores.words?.score)).fold(0.0, f32::max);
    // Where all are equal, all are best.
    let near = |score: f32| if greatest > least { (score - least) / (greatest - least) } else { 1.0 };
    let matched = |score: f32| if most > 0.0 { score / most } else { 0.0 };
    let fused = |scores: Scores| {
        alpha * scores.vector.map_or(0.0, |ranked| near(ranked.score))
            + (1.0 - alpha) * scores.words.map_or(0.0, |ranked| matched(ranked.score))
    };
    scores.into_iter().map(|(key, scores)| (key, fused(scores))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rank: usize, score: f32) -> Option<Ranked> {
        Some(Ranked { rank: Some(rank), score })
    }

    fn sample() -> HashMap<&'static str, Scores> {
        HashMap::from([
            ("both", Scores { vector: at(1, 0.5), words: at(0, 8.0) }),
            ("near", Scores { vector: at(0, 0.9), words: None }),
            ("matching", Scores { vector: None, words: at(1, 2.0) }),
        ])
    }

    fn by_key(fused: Vec<(&'static str, f32)>) -> HashMap<&'static str, f32> {
        fused.into_iter().collect()
    }

    #[test]
    fn reciprocal_ranks_add_up() {
        let fused = by_key(reciprocal_rank(sample()));
        assert_eq!(fused["both"], 1.0 / 62.0 + 1.0 / 61.0);
        assert_eq!((fused["near"], fused["matching"]), (1.0 / 61.0, 1.0 / 62.0));
    }

    #[test]
    fn what_is_beyond_the_ranks_has_its_score_alone() {
        let beyond = Scores { vector: at(0, 1.0), words: Some(Ranked { rank: None, score: 4.0 }) };
        assert_eq!(reciprocal_rank(HashMap::from([("a", beyond)])), [("a", 1.0 / 61.0)]);
        let best = Scores { vector: at(1, 0.0), words: at(0, 8.0) };
        let fused = by_key(weighted(HashMap::from([("a", beyond), ("b", best)]), 0.5));
        assert_eq!((fused["a"], fused["b"]), (0.75, 0.5));
    }

    #[test]
    fn weights_go_from_one_ranking_to_the_other() {
        for (alpha, both, near, matching) in [(1.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.25), (0.5, 0.5, 0.5, 0.125)] {
            let fused = by_key(weighted(sample(), alpha));
            assert_eq!((fused["both"], fused["near"], fused["matching"]), (both, near, matching), "{alpha}");
        }
    }

    #[test]
    fn one_document_is_the_best_of_its_kind() {
        let alone = HashMap::from([("a", Scores { vector: at(0, -3.0), words: None })]);
        assert_eq!(weighted(alone, 0.5), [("a", 0.5)]);
        assert_eq!(weighted(HashMap::<&str, Scores>::new(), 0.5), []);
    }
}
