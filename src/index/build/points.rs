//! The rows that a graph is built over, and the distances that decide its links.

use crate::distance::{CodeQuery, CodeTable, VectorQuery, dot_f32, l2sq_f32, prefetch};
use crate::segment::{Quantizer, Rows};
use crate::types::{Metric, Ordinal, Quantization};

/// Rows, and distances between them: never negative, and proper metrics squared.
///
/// The graph is built on what its walks will read: codes, where there are any. Dot products are no distances, and links
/// chosen by them all lead to the longest vectors. One more dimension, sqrt(longest^2 - length^2), makes all rows
/// equally long; then the nearest to a query, which has 0 there, is the one of the largest dot product (Bachrach et al.
/// 2014).
pub(super) struct Points<'a> {
    rows: &'a [&'a [f32]],
    codes: Option<(Quantizer, CodeTable)>,
    metric: Metric,
    /// The added dimension of each row, or empty.
    added: Vec<f32>,
}

impl<'a> Points<'a> {
    /// `rows`: f32, shape `[rows, dim]`, at least one.
    pub(super) fn new(rows: &'a [&'a [f32]], metric: Metric, quantization: Quantization) -> Self {
        let codes = (quantization == Quantization::Int8).then(|| {
            let dim = rows[0].len();
            let quantizer = Quantizer::fit(rows.len(), dim, |row| rows[row]);
            let mut codes = vec![0; rows.len() * dim];
            for (row, codes) in rows.iter().zip(codes.chunks_exact_mut(dim)) {
                quantizer.encode(row, codes);
            }
            (quantizer, CodeTable::new(codes, dim))
        });
        let mut points = Self { rows, codes, metric, added: Vec::new() };
        if metric == Metric::Dot {
            let norms: Vec<f32> = (0..rows.len() as Ordinal).map(|row| points.squared_norm(row)).collect();
            let longest = norms.iter().copied().fold(0.0, f32::max);
            points.added = norms.into_iter().map(|norm| (longest - norm).max(0.0).sqrt()).collect();
        }
        points
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// f32, shape `[dim]`.
    pub(super) fn vector(&self, row: Ordinal) -> &'a [f32] {
        self.rows[row as usize]
    }

    fn squared_norm(&self, row: Ordinal) -> f32 {
        match &self.codes {
            Some((_, codes)) => codes.squared_norm(row) as f32,
            None => dot_f32(self.rows[row as usize], self.rows[row as usize]),
        }
    }

    #[inline]
    pub(super) fn distance(&self, a: Ordinal, b: Ordinal) -> f32 {
        let squared = match &self.codes {
            Some((_, codes)) => codes.l2sq(a, b) as f32,
            None => l2sq_f32(self.rows[a as usize], self.rows[b as usize]),
        };
        squared + self.added(a, b)
    }

    /// The distance of `row` to each of `others`, in their order, to `take`.
    #[inline]
    pub(super) fn distances(&self, row: Ordinal, others: &[Ordinal], mut take: impl FnMut(f32)) {
        let Some((_, codes)) = &self.codes else {
            return others.iter().for_each(|&other| take(self.distance(row, other)));
        };
        let mut rest = others.iter();
        codes.l2sq_each(row, others, |squared| {
            let added = rest.next().map_or(0.0, |&other| self.added(row, other));
            take(squared as f32 + added);
        });
    }

    /// The rows as a search sees them whose query is the vector of one of them, and that reads no nibbles.
    pub(super) fn searched_for(&self, row: Ordinal) -> SearchedFor<'_> {
        let query = VectorQuery::new(self.metric, self.vector(row).to_vec());
        let codes = self.codes.as_ref().map(|(quantizer, table)| {
            let mut codes = quantizer.query(&query, Vec::new()).into_codes();
            codes.truncate(query.vector().len());
            (table, CodeQuery::new(self.metric, codes))
        });
        SearchedFor { points: self, query, codes }
    }

    /// What the added dimension adds.
    #[inline]
    fn added(&self, a: Ordinal, b: Ordinal) -> f32 {
        match (self.added.get(a as usize), self.added.get(b as usize)) {
            (Some(x), Some(y)) => (x - y) * (x - y),
            _ => 0.0,
        }
    }

    /// Asks the processor to fetch a row.
    #[inline]
    pub(super) fn prefetch(&self, row: Ordinal) {
        match &self.codes {
            Some((_, codes)) => codes.prefetch(row),
            None => prefetch(self.rows[row as usize]),
        }
    }
}

/// The rows as one of them sees them: closeness is the distance, negative.
pub(super) struct SeenFrom<'a> {
    pub(super) points: &'a Points<'a>,
    pub(super) row: Ordinal,
}

impl Rows for SeenFrom<'_> {
    type Error = std::convert::Infallible;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        self.points.prefetch(ordinal);
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, Self::Error> {
        Ok(-self.points.distance(self.row, ordinal))
    }

    #[inline]
    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), Self::Error> {
        closeness.clear();
        self.points.distances(self.row, ordinals, |distance| closeness.push(-distance));
        Ok(())
    }
}

/// The rows as a search of the finished segment sees them: closeness is that of its walks.
pub(super) struct SearchedFor<'a> {
    points: &'a Points<'a>,
    query: VectorQuery,
    codes: Option<(&'a CodeTable, CodeQuery)>,
}

impl Rows for SearchedFor<'_> {
    type Error = std::convert::Infallible;

    #[inline]
    fn prefetch(&self, ordinal: Ordinal) {
        self.points.prefetch(ordinal);
    }

    #[inline]
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, Self::Error> {
        Ok(match &self.codes {
            Some((table, query)) => query.closeness(table.row(ordinal)) as f32,
            None => self.query.closeness(self.points.vector(ordinal)),
        })
    }

    #[inline]
    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), Self::Error> {
        match &self.codes {
            Some((table, query)) => table.compare(query, ordinals, closeness),
            None => {
                closeness.clear();
                closeness.extend(ordinals.iter().map(|&row| self.query.closeness(self.points.vector(row))));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_to_many_are_those_to_each() {
        let vectors: Vec<Vec<f32>> =
            (0..7).map(|r| (0..9).map(|c| ((r * 31 + c * 17) % 13) as f32 - 6.0).collect()).collect();
        let rows: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            for quantization in [Quantization::Int8, Quantization::None] {
                let points = Points::new(&rows, metric, quantization);
                let others = [3, 0, 6, 6];
                let mut all = Vec::new();
                points.distances(2, &others, |distance| all.push(distance));
                assert_eq!(all, others.map(|other| points.distance(2, other)), "{metric:?} {quantization:?}");
                let mut seen = Vec::new();
                let Ok(()) = SeenFrom { points: &points, row: 2 }.compare(&others, &mut seen);
                assert_eq!(seen, all.iter().map(|distance| -distance).collect::<Vec<_>>());
                assert_eq!(points.distance(4, 4), 0.0);
            }
        }
    }

    #[test]
    fn the_added_dimension_makes_dot_products_distances() {
        let vectors = [vec![1.0f32, 0.0], vec![10.0, 1.0], vec![0.9, 0.1]];
        let rows: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        let points = Points::new(&rows, Metric::Dot, Quantization::None);
        // Of unit length 10.05 each in three dimensions, so that the distance is twice (that squared less the product).
        let product = |a: usize, b: usize, lift: f32| dot_f32(rows[a], rows[b]) + lift;
        let lift = (101.0f32 - 1.0).sqrt() * (101.0f32 - 0.82).sqrt();
        assert!((points.distance(0, 2) - 2.0 * (101.0 - product(0, 2, lift))).abs() < 1e-3);
    }
}
