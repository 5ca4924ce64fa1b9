//! Which of the nearest rows become neighbours.

use super::points::Points;
use crate::types::Ordinal;

/// A row and its distance to the one that chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Near {
    pub(super) distance: f32,
    pub(super) row: Ordinal,
}

impl Near {
    /// Nearest first, ties by ascending row, so that every choice is the same on every machine.
    pub(super) fn order(a: &Self, b: &Self) -> std::cmp::Ordering {
        a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row))
    }
}

/// Chooses up to `count` of `candidates`, which stand nearest first.
///
/// A candidate is taken where no nearer one that was taken is nearer to it than the chooser is: links then lead into
/// different directions (algorithm 4 of Malkov & Yashunin 2018). Rows that are equal are one direction, also those that
/// equal the chooser: copies would take all places, and nothing would lead away from them. Places left go to the
/// nearest of those passed over.
pub(super) fn select(points: &Points<'_>, candidates: &[Near], count: usize) -> Vec<Near> {
    let mut chosen: Vec<Near> = Vec::with_capacity(count.min(candidates.len()));
    let mut passed_over = Vec::new();
    for &candidate in candidates {
        if chosen.len() >= count {
            return chosen;
        }
        let least = candidate.distance.max(f32::MIN_POSITIVE);
        match chosen.iter().all(|taken| points.distance(candidate.row, taken.row) >= least) {
            true => chosen.push(candidate),
            false => passed_over.push(candidate),
        }
    }
    chosen.extend(passed_over.into_iter().take(count - chosen.len()));
    chosen
}

/// As [`select`] of `row` among `others`, in any order and each once.
pub(super) fn select_among(points: &Points<'_>, row: Ordinal, others: &[Ordinal], count: usize) -> Vec<Near> {
    select(points, &in_order(points, row, others), count)
}

/// `others` with their distances to `row`, nearest first.
pub(super) fn in_order(points: &Points<'_>, row: Ordinal, others: &[Ordinal]) -> Vec<Near> {
    others.iter().for_each(|&other| points.prefetch(other));
    let mut candidates = Vec::with_capacity(others.len());
    let mut rest = others.iter();
    points.distances(row, others, |distance| {
        candidates.extend(rest.next().map(|&row| Near { distance, row }));
    });
    candidates.sort_unstable_by(Near::order);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::VectorRef;
    use crate::types::{Metric, Quantization};

    fn rows_of(chosen: &[Near]) -> Vec<Ordinal> {
        chosen.iter().map(|near| near.row).collect()
    }

    #[test]
    fn directions_come_first_and_the_nearest_fill_up() {
        // Row 0 at the origin; 1 and 2 close together to its right, 3 to its left, 4 behind 3.
        let vectors: Vec<Vec<f32>> = [0.0f32, 1.0, 1.1, -2.0, -2.5].iter().map(|&x| vec![x, 0.0]).collect();
        let rows: Vec<VectorRef<'_>> = vectors.iter().map(|vector| VectorRef::Float32(vector)).collect();
        let points = Points::new(&rows, Metric::L2, Quantization::None);
        let chosen = |count| rows_of(&select_among(&points, 0, &[4, 3, 2, 1], count));
        assert_eq!(chosen(1), [1]);
        assert_eq!(chosen(2), [1, 3]);
        assert_eq!(chosen(3), [1, 3, 2]);
        assert_eq!(chosen(9), [1, 3, 2, 4]);
        assert!(select(&points, &[], 3).is_empty());
    }

    #[test]
    fn copies_are_one_direction() {
        // Rows 0 to 3 are equal; 4 is to their right, 5 and 6, which are equal, to their left.
        let vectors: Vec<Vec<f32>> = [0.0f32, 0.0, 0.0, 0.0, 1.0, -2.0, -2.0].iter().map(|&x| vec![x, 0.5]).collect();
        let rows: Vec<VectorRef<'_>> = vectors.iter().map(|vector| VectorRef::Float32(vector)).collect();
        for metric in [Metric::L2, Metric::Dot] {
            for quantization in [Quantization::None, Quantization::Int8] {
                let points = Points::new(&rows, metric, quantization);
                let chosen = |count| rows_of(&select_among(&points, 0, &[6, 5, 4, 3, 2, 1], count));
                assert_eq!(chosen(3), [1, 4, 5], "{metric:?} {quantization:?}");
                assert_eq!(chosen(5), [1, 4, 5, 2, 3], "{metric:?} {quantization:?}");
            }
        }
    }
}
