//! Whether int8 codes tell the vectors of a segment apart, measured before a graph is built over them.
//!
//! One scale serves all components, so where vectors all point nearly the same way, as features that are all positive
//! do, what they differ by is smaller than a step of the codes. Walks by such codes lead anywhere.

use super::SegmentSpec;
use super::calibration::CALIBRATED_TOP_K;
use super::pool::Candidate;
use super::quantize::{Quantizer, stride};
use super::sampled::SampledQueries;
use super::sieve::Sieve;
use crate::distance::{VectorQuery, VectorRef};
use crate::types::{IndexDefinition, Ordinal, Quantization};

/// Vectors looked at.
const ROWS: usize = 8_192;
/// Queries among them.
const QUERIES: usize = 32;
/// Candidates by codes that the nearest are looked for in; fewer among few vectors, so that most are no candidates.
const CANDIDATES: usize = 4 * CALIBRATED_TOP_K;
/// Share of the nearest that must be among them. Embeddings have all of theirs.
const MIN_RECALL: f64 = 0.95;

/// As which kind a segment of these vectors is written: without codes where they would not tell the vectors apart.
/// Where there are so few that every search returns them all, codes hide none.
pub fn fitting(spec: &SegmentSpec, vectors: &[VectorRef<'_>]) -> SegmentSpec {
    let are_few = vectors.len() <= CALIBRATED_TOP_K;
    if spec.index.quantization != Quantization::Int8 || are_few || tell_apart(spec, vectors) {
        return *spec;
    }
    tracing::debug!(vectors = vectors.len(), "codes do not tell the vectors apart, so the segment has none");
    SegmentSpec { index: IndexDefinition { quantization: Quantization::None, ..spec.index }, ..*spec }
}

fn tell_apart(spec: &SegmentSpec, vectors: &[VectorRef<'_>]) -> bool {
    let sample: Vec<VectorRef<'_>> = vectors.iter().step_by(vectors.len().div_ceil(ROWS)).copied().collect();
    let dim = spec.dim as usize;
    // The codes that the segment would have, not those that would suit the sample.
    let quantizer = Quantizer::fit(spec.metric, vectors.len(), dim, |row| vectors[row]);
    let (stride, mut memory) = (stride(spec.dim), Vec::new());
    let mut codes = vec![0_i8; stride * sample.len()];
    for (codes, vector) in codes.chunks_exact_mut(stride).zip(&sample) {
        quantizer.encode(vector.read(&mut memory), codes);
    }
    let sampled = SampledQueries::new(sample.len(), QUERIES);
    let count = CANDIDATES.min(sample.len() / 4).max(CALIBRATED_TOP_K);
    let found = (0..sampled.count()).map(|at| {
        let query = VectorQuery::new(spec.metric, sampled.query(at, |row| sample[row as usize]));
        let by_codes = quantizer.query(&query, Vec::new());
        let candidates = nearest(count, codes.chunks_exact(stride).map(|codes| by_codes.closeness(codes) as f32));
        let closeness = |row: Ordinal| query.closeness_of(sample[row as usize]);
        let exact = nearest(CALIBRATED_TOP_K, sample.iter().map(|&vector| query.closeness_of(vector)));
        let last = exact.iter().fold(f32::INFINITY, |last, near| last.min(near.closeness));
        candidates.iter().filter(|candidate| closeness(candidate.ordinal) >= last).count().min(CALIBRATED_TOP_K)
    });
    let wanted = (sampled.count() * CALIBRATED_TOP_K) as f64;
    found.sum::<usize>() as f64 >= MIN_RECALL * wanted
}

fn nearest(count: usize, closeness: impl Iterator<Item = f32>) -> Vec<Candidate> {
    let mut sieve = Sieve::new(count);
    for (ordinal, closeness) in (0..).zip(closeness) {
        if sieve.admits(closeness) {
            sieve.insert(Candidate { closeness, ordinal });
        }
    }
    sieve.nearest().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CollectionId, Metric, SegmentId, normalise};

    const DIM: usize = 32;

    /// Directions all over, moved by `shift` in every component; one of them, which no sample has, times `outlier`.
    fn kind(shift: f32, outlier: f32, metric: Metric) -> Quantization {
        kind_of(10_000, shift, outlier, metric)
    }

    fn kind_of(count: usize, shift: f32, outlier: f32, metric: Metric) -> Quantization {
        let mut state = 7_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let row = |_| {
            let mut row: Vec<f32> = (0..DIM).map(|_| number() + shift).collect();
            if metric == Metric::Cosine {
                normalise(&mut row, DIM).unwrap();
            }
            row
        };
        let mut rows: Vec<Vec<f32>> = (0..count).map(row).collect();
        rows[3_419 % count].iter_mut().for_each(|x| *x *= outlier);
        let vectors: Vec<VectorRef<'_>> = rows.iter().map(|row| VectorRef::Float32(row)).collect();
        let (id, collection, index) = (SegmentId(1), CollectionId(1), IndexDefinition::default());
        let spec = SegmentSpec { id, collection, generation: 1, metric, dim: DIM as u32, index };
        fitting(&spec, &vectors).index.quantization
    }

    #[test]
    fn vectors_that_point_nearly_the_same_way_have_no_codes() {
        for metric in [Metric::Cosine, Metric::L2] {
            assert_eq!(kind(0.0, 1.0, metric), Quantization::Int8, "{metric:?}");
            assert_eq!(kind(50.0, 1.0, metric), Quantization::None, "{metric:?}");
        }
    }

    #[test]
    fn one_long_vector_that_makes_codes_coarse_is_seen() {
        for metric in [Metric::Dot, Metric::L2] {
            assert_eq!(kind(0.0, 1.0, metric), Quantization::Int8, "{metric:?}");
            assert_eq!(kind(0.0, 1_000.0, metric), Quantization::None, "{metric:?}");
        }
    }

    #[test]
    fn one_long_vector_among_few_is_seen() {
        for count in [20, 40, 42] {
            assert_eq!(kind_of(count, 0.0, 1_000.0, Metric::L2), Quantization::None, "{count}");
        }
        for count in [1, 10, 200] {
            assert_eq!(kind_of(count, 0.0, 1.0, Metric::L2), Quantization::Int8, "{count}");
        }
    }
}
