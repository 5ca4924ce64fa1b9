//! The vectors of a text's tokens made one.

use super::super::Pooling;

/// One vector of the tokens' vectors, of which there is at least one, in f64: sums of hundreds of f32 keep their last
/// digits. As sentence-transformers defines it.
pub(super) fn pool(tokens: &[&[f32]], pooling: Pooling) -> Vec<f64> {
    let (first, last) = (tokens[0], tokens[tokens.len() - 1]);
    let count = tokens.len() as f64;
    match pooling {
        Pooling::Mean => weighted_sum(tokens, |_| 1.0, count),
        Pooling::MeanSqrtLength => weighted_sum(tokens, |_| 1.0, count.sqrt()),
        Pooling::WeightedMean => weighted_sum(tokens, |index| (index + 1) as f64, count * (count + 1.0) / 2.0),
        Pooling::FirstToken => widen(first),
        Pooling::LastToken => widen(last),
        Pooling::Max => {
            let mut largest = widen(first);
            for token in &tokens[1..] {
                for (largest, x) in largest.iter_mut().zip(*token) {
                    // What is not a number stays and is refused later; `f64::max` would drop it.
                    if f64::from(*x) > *largest || x.is_nan() {
                        *largest = f64::from(*x);
                    }
                }
            }
            largest
        }
    }
}

fn weighted_sum(tokens: &[&[f32]], weight: impl Fn(usize) -> f64, divisor: f64) -> Vec<f64> {
    let mut sums = vec![0.0; tokens[0].len()];
    for (index, token) in tokens.iter().enumerate() {
        let weight = weight(index);
        for (sum, x) in sums.iter_mut().zip(*token) {
            *sum += weight * f64::from(*x);
        }
    }
    let scale = 1.0 / divisor;
    sums.iter_mut().for_each(|sum| *sum *= scale);
    sums
}

fn widen(token: &[f32]) -> Vec<f64> {
    token.iter().map(|x| f64::from(*x)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_its_own_result() {
        let tokens: [&[f32]; 4] = [&[1.0, -8.0], &[3.0, 2.0], &[5.0, 4.0], &[-1.0, 6.0]];
        for (pooling, want) in [
            (Pooling::Mean, [2.0, 1.0]),
            (Pooling::FirstToken, [1.0, -8.0]),
            (Pooling::Max, [5.0, 6.0]),
            (Pooling::MeanSqrtLength, [4.0, 2.0]),
            (Pooling::WeightedMean, [1.8, 3.2]),
            (Pooling::LastToken, [-1.0, 6.0]),
        ] {
            let got = pool(&tokens, pooling);
            assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-12), "{pooling:?}: {got:?}");
            assert_eq!(pool(&tokens[..1], pooling), [1.0, -8.0], "{pooling:?}");
        }
        let broken: [&[f32]; 3] = [&[1.0], &[f32::NAN], &[2.0]];
        for pooling in [Pooling::Mean, Pooling::Max, Pooling::WeightedMean] {
            assert!(pool(&broken, pooling)[0].is_nan(), "{pooling:?}");
        }
    }
}
