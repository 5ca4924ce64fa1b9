//! Maximal marginal relevance: a ranking in which what is like the hits before it comes later.

use crate::distance::dot_f32;

/// Picks `count` of the candidates, one after another: each time the one with the greatest
/// `(1 - diversity) * relevance - diversity * likeness`, where likeness is the greatest cosine similarity to those
/// picked already (Carbonell & Goldstein 1998). Relevance is the score brought to [0, 1] over the candidates, so that
/// it weighs the same in every mode.
///
/// `scores`: falling. `vectors`: f32, shape `[candidates, dim]`. Returns places in `scores`, in the order of the picks.
pub fn pick(scores: &[f32], vectors: &[Vec<f32>], diversity: f32, count: usize) -> Vec<usize> {
    let units: Vec<Vec<f32>> = vectors.iter().map(|vector| unit(vector)).collect();
    let (greatest, least) = (scores.first().copied().unwrap_or(0.0), scores.last().copied().unwrap_or(0.0));
    let relevance = |at: usize| if greatest > least { (scores[at] - least) / (greatest - least) } else { 1.0 };
    // Nothing is like what was picked before anything was.
    let mut likeness = vec![f32::NEG_INFINITY; scores.len()];
    let mut left: Vec<usize> = (0..scores.len()).collect();
    let mut picked = Vec::with_capacity(count.min(left.len()));
    while picked.len() < count {
        let worth = |at: usize| match picked.is_empty() {
            true => relevance(at),
            false => (1.0 - diversity) * relevance(at) - diversity * likeness[at],
        };
        // Of equals the one that ranks higher.
        let best = left.iter().enumerate().max_by(|(_, a), (_, b)| worth(**a).total_cmp(&worth(**b)).then(b.cmp(a)));
        let Some((place, &best)) = best else { break };
        left.remove(place);
        picked.push(best);
        for &at in &left {
            likeness[at] = likeness[at].max(dot_f32(&units[at], &units[best]));
        }
    }
    picked
}

/// The vector at length 1. One without a direction is like no other.
fn unit(vector: &[f32]) -> Vec<f32> {
    let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    vector.iter().map(|x| (f64::from(*x) / norm) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> Vec<Vec<f32>> {
        vec![vec![1.0, 0.0], vec![2.0, 0.01], vec![0.9, 0.1], vec![0.0, 5.0]]
    }

    #[test]
    fn without_diversity_the_ranking_stays() {
        assert_eq!(pick(&[0.9, 0.8, 0.7, 0.1], &vectors(), 0.0, 3), [0, 1, 2]);
    }

    #[test]
    fn what_is_like_the_first_comes_later() {
        assert_eq!(pick(&[0.9, 0.8, 0.7, 0.1], &vectors(), 0.6, 2), [0, 3]);
        assert_eq!(pick(&[0.9, 0.8, 0.7, 0.1], &vectors(), 1.0, 9), [0, 3, 2, 1]);
    }

    #[test]
    fn what_points_elsewhere_is_less_like_than_what_is_unrelated() {
        let vectors = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]].map(Vec::from);
        assert_eq!(pick(&[0.9, 0.2, 0.1], &vectors, 0.9, 3), [0, 2, 1]);
    }

    #[test]
    fn what_has_no_direction_is_like_nothing() {
        let vectors = [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]].map(Vec::from);
        assert_eq!(pick(&[0.9, 0.2, 0.2], &vectors, 0.9, 3), [0, 1, 2]);
        assert_eq!(pick(&[0.9, 0.8], &vectors[1..], 0.0, 2), [0, 1]);
    }

    #[test]
    fn equals_keep_their_order() {
        assert_eq!(pick(&[0.5, 0.5, 0.5], &vectors()[..3], 0.0, 3), [0, 1, 2]);
        assert_eq!(pick(&[], &[], 0.5, 3), Vec::<usize>::new());
    }
}
