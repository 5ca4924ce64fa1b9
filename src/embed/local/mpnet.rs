//! MPNet's bias of attention scores: distances fall into buckets, each of which has a learned number for every head.

use super::super::EmbedError;
use super::super::settings::Architecture;
use super::blocks::RelativeBias;
use super::weights::Weights;

/// The distance from which on all fall into the last bucket.
const MAX_DISTANCE: f32 = 128.0;

/// The biases of all layers, which share them.
///
/// # Errors
/// [`EmbedError::Malformed`].
pub(super) fn relative_bias(
    weights: &Weights,
    architecture: &Architecture,
    buckets: usize,
) -> Result<RelativeBias, EmbedError> {
    let heads = architecture.heads;
    let table = weights.tensor("encoder.relative_attention_bias.weight", &[buckets, heads])?;
    let of = |head: usize, distance: isize| table[bucket(distance, buckets) * heads + head];
    Ok(RelativeBias::new(heads, architecture.usable_positions(), of))
}

/// The bucket of a key `distance` tokens after the query. Keys before it have the lower half of the buckets, keys after
/// it the upper; of each half the first half is for one distance each, and the rest grows with the logarithm (Raffel et
/// al. 2020, section 2.1, as MPNet has it). At least 4 buckets.
pub(super) fn bucket(distance: isize, buckets: usize) -> usize {
    let half = buckets / 2;
    let side = if distance > 0 { half } else { 0 };
    let (apart, exact) = (distance.unsigned_abs(), half / 2);
    if apart < exact {
        return side + apart;
    }
    // In f32, as the weights were trained.
    let part = (apart as f32 / exact as f32).ln() / (MAX_DISTANCE / exact as f32).ln();
    let beyond = (part * (half - exact) as f32) as usize;
    side + exact.saturating_add(beyond).min(half - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_published_function() {
        // Made with numpy from transformers' formula, in f32 and in f64 alike.
        let cases = [
            (0, 0),
            (-1, 1),
            (-7, 7),
            (-8, 8),
            (-11, 8),
            (-12, 9),
            (-15, 9),
            (-16, 10),
            (-22, 10),
            (-23, 11),
            (-31, 11),
            (-32, 12),
            (-45, 12),
            (-46, 13),
            (-63, 13),
            (-64, 14),
            (-90, 14),
            (-91, 15),
            (-127, 15),
            (-128, 15),
            (-511, 15),
            (1, 17),
            (7, 23),
            (8, 24),
            (16, 26),
            (64, 30),
            (91, 31),
            (511, 31),
        ];
        for (distance, want) in cases {
            assert_eq!(bucket(distance, 32), want, "{distance}");
        }
        for buckets in [4, 5, 6, 7, 64, 4096] {
            for distance in -3000..=3000 {
                assert!(bucket(distance, buckets) < buckets, "{distance} of {buckets}");
            }
        }
    }
}
