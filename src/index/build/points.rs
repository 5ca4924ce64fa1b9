//! The rows that a graph is built over, and the distances that decide its links.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::distance::{CodeQuery, CodeTable, VectorQuery, VectorRef, dot_f32, l2sq_f32, prefetch};
use crate::segment::{Quantizer, Rows};
use crate::storage::{Arena, Piece};
use crate::types::{Metric, Ordinal, Quantization};

/// Rows, and distances between them: never negative, and proper metrics squared.
///
/// The graph is built on int8 codes wherever its walks will read codes: those of one byte are what they read, and those
/// of one bit are too coarse to choose links by. Dot products are no distances, and links
/// chosen by them all lead to the longest vectors. One more dimension, sqrt(longest^2 - length^2), makes all rows
/// equally long; then the nearest to a query, which has 0 there, is the one of the largest dot product (Bachrach et al.
/// 2014).
pub(super) struct Points<'a> {
    rows: &'a [VectorRef<'a>],
    numbers: Numbers<'a>,
    metric: Metric,
    /// The added dimension of each row, or empty.
    added: Vec<f32>,
}

impl<'a> Points<'a> {
    /// `rows`: shape `[rows, dim]`, at least one. On the threads of the current rayon pool.
    pub(super) fn new(rows: &'a [VectorRef<'a>], metric: Metric, quantization: Quantization) -> Self {
        let numbers = match quantization {
            Quantization::None => Numbers::Vectors(rows.iter().map(|row| row.in_full()).collect()),
            Quantization::Int8 => codes_of(rows, Quantizer::fit(metric, rows.len(), rows[0].dim(), |row| rows[row])),
            // No search reads them, and finer ones choose better links.
            Quantization::Binary => codes_of(rows, Quantizer::fit_most(rows.len(), rows[0].dim(), |row| rows[row])),
        };
        let mut points = Self { rows, numbers, metric, added: Vec::new() };
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

    /// Shape `[dim]`.
    pub(super) fn vector(&self, row: Ordinal) -> VectorRef<'a> {
        self.rows[row as usize]
    }

    fn squared_norm(&self, row: Ordinal) -> f32 {
        match &self.numbers {
            Numbers::Codes(_, codes) => codes.squared_norm(row) as f32,
            Numbers::Vectors(rows) => dot_f32(&rows[row as usize], &rows[row as usize]),
        }
    }

    #[inline]
    pub(super) fn distance(&self, a: Ordinal, b: Ordinal) -> f32 {
        self.squared(a, b) + self.added(a, b)
    }

    /// The distance of `row` to each of `others`, in their order, to `take`.
    #[inline]
    pub(super) fn distances(&self, row: Ordinal, others: &[Ordinal], mut take: impl FnMut(f32)) {
        let mut rest = others.iter();
        self.squared_each(row, others, |squared| {
            take(squared + rest.next().map_or(0.0, |&other| self.added(row, other)));
        });
    }

    /// Without the added dimension.
    #[inline]
    fn squared(&self, a: Ordinal, b: Ordinal) -> f32 {
        match &self.numbers {
            Numbers::Codes(_, codes) => codes.l2sq(a, b) as f32,
            Numbers::Vectors(rows) => l2sq_f32(&rows[a as usize], &rows[b as usize]),
        }
    }

    #[inline]
    fn squared_each(&self, row: Ordinal, others: &[Ordinal], mut take: impl FnMut(f32)) {
        match &self.numbers {
            Numbers::Codes(_, codes) => codes.l2sq_each(row, others, |squared| take(squared as f32)),
            Numbers::Vectors(_) => others.iter().for_each(|&other| take(self.squared(row, other))),
        }
    }

    /// The rows as a search for `vector` sees them that reads neither nibbles nor bits.
    pub(super) fn searched_for(&self, vector: Vec<f32>) -> SearchedFor<'_> {
        let query = VectorQuery::new(self.metric, vector);
        let codes = match &self.numbers {
            Numbers::Codes(quantizer, table) if !quantizer.clips(&query) => {
                let mut codes = quantizer.query(&query, Vec::new()).into_codes();
                // Those of the table have no padding.
                codes.truncate(query.vector().len());
                Some((table, CodeQuery::new(self.metric, codes)))
            }
            Numbers::Codes(..) | Numbers::Vectors(_) => None,
        };
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
        match &self.numbers {
            Numbers::Codes(_, codes) => codes.prefetch(row),
            Numbers::Vectors(rows) => prefetch(&rows[row as usize]),
        }
    }
}

/// What distances are computed of.
enum Numbers<'a> {
    Codes(Quantizer, CodeTable<Piece<i8>>),
    Vectors(Vec<Cow<'a, [f32]>>),
}

fn codes_of<'a>(rows: &[VectorRef<'a>], quantizer: Quantizer) -> Numbers<'a> {
    let dim = rows[0].dim();
    let mut codes = Arena::default().zeroed(rows.len() * dim);
    rows.par_iter()
        .zip(codes.as_mut_slice().par_chunks_exact_mut(dim))
        .for_each_init(Vec::new, |memory, (row, codes)| quantizer.encode(row.read(memory), codes));
    Numbers::Codes(quantizer, CodeTable::new(codes, dim))
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
    codes: Option<(&'a CodeTable<Piece<i8>>, CodeQuery)>,
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
            None => self.query.closeness_of(self.points.vector(ordinal)),
        })
    }

    #[inline]
    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), Self::Error> {
        match &self.codes {
            Some((table, query)) => table.compare(query, ordinals, closeness),
            None => {
                closeness.clear();
                closeness.extend(ordinals.iter().map(|&row| self.query.closeness_of(self.points.vector(row))));
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
        let rows: Vec<VectorRef<'_>> = vectors.iter().map(|vector| VectorRef::Float32(vector)).collect();
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            for quantization in [Quantization::Int8, Quantization::None, Quantization::Binary] {
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
        let rows: Vec<VectorRef<'_>> = vectors.iter().map(|vector| VectorRef::Float32(vector)).collect();
        let points = Points::new(&rows, Metric::Dot, Quantization::None);
        // Of unit length 10.05 each in three dimensions, so that the distance is twice (that squared less the product).
        let product = |a: usize, b: usize, lift: f32| dot_f32(&vectors[a], &vectors[b]) + lift;
        let lift = (101.0f32 - 1.0).sqrt() * (101.0f32 - 0.82).sqrt();
        assert!((points.distance(0, 2) - 2.0 * (101.0 - product(0, 2, lift))).abs() < 1e-3);
    }
}
