//! One ranking of two: reciprocal rank fusion, and a weighted sum of normalised scores.

use std::collections::HashMap;
use std::hash::Hash;

/// What flattens the difference between the first ranks (Cormack, Clarke & Büttcher 2009, section 2: 60).
const RANK_CONSTANT: f32 = 60.0;

/// Where a document stands in each ranking, counted from 0, and its score there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// By vector; higher is nearer.
    pub vector: Option<(usize, f32)>,
    /// By words; above 0.
    pub words: Option<(usize, f32)>,
}

/// The sum of 1 / (60 + rank) over both rankings, ranks counted from 1.
pub fn reciprocal_rank<K: Eq + Hash>(scores: HashMap<K, Scores>) -> Vec<(K, f32)> {
    let of = |ranked: Option<(usize, f32)>| ranked.map_or(0.0, |(rank, _)| 1.0 / (RANK_CONSTANT + rank as f32 + 1.0));
    scores.into_iter().map(|(key, scores)| (key, of(scores.vector) + of(scores.words))).collect()
}

/// `alpha` times the vector's score, brought from its least and greatest to [0, 1], and 1 - `alpha` times the words'
/// score over the greatest: a document with none of the words has 0 there.
pub fn weighted<K: Eq + Hash>(scores: HashMap<K, Scores>, alpha: f32) -> Vec<(K, f32)> {
    let vectors = || scores.values().filter_map(|scores| Some(scores.vector?.1));
    let (least, greatest) = (vectors().fold(f32::MAX, f32::min), vectors().fold(f32::MIN, f32::max));
    let most = scores.values().filter_map(|scores| Some(scores.words?.1)).fold(0.0, f32::max);
    // Where all are equal, all are best.
    let near = |score: f32| if greatest > least { (score - least) / (greatest - least) } else { 1.0 };
    let matched = |score: f32| if most > 0.0 { score / most } else { 0.0 };
    let fused = |scores: Scores| {
        alpha * scores.vector.map_or(0.0, |(_, score)| near(score))
            + (1.0 - alpha) * scores.words.map_or(0.0, |(_, score)| matched(score))
    };
    scores.into_iter().map(|(key, scores)| (key, fused(scores))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> HashMap<&'static str, Scores> {
        HashMap::from([
            ("both", Scores { vector: Some((1, 0.5)), words: Some((0, 8.0)) }),
            ("near", Scores { vector: Some((0, 0.9)), words: None }),
            ("matching", Scores { vector: None, words: Some((1, 2.0)) }),
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
    fn weights_go_from_one_ranking_to_the_other() {
        for (alpha, both, near, matching) in [(1.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.25), (0.5, 0.5, 0.5, 0.125)] {
            let fused = by_key(weighted(sample(), alpha));
            assert_eq!((fused["both"], fused["near"], fused["matching"]), (both, near, matching), "{alpha}");
        }
    }

    #[test]
    fn one_document_is_the_best_of_its_kind() {
        let alone = HashMap::from([("a", Scores { vector: Some((0, -3.0)), words: None })]);
        assert_eq!(weighted(alone, 0.5), [("a", 0.5)]);
        assert_eq!(weighted(HashMap::<&str, Scores>::new(), 0.5), []);
    }
}
