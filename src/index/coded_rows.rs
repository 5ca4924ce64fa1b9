//! Int8 codes of some vectors, which tell how close each can be at most: what cannot be among the nearest need not be
//! compared in f32.
//!
//! With `x^` for what the codes of `x` stand for, `|q . r - q^ . r^| <= |q - q^| |r| + |q^| |r - r^|`, by Cauchy and
//! Schwarz. The bound holds for every vector, so that a search that goes by it is exact.

use crate::distance::{CodeQuery, VectorQuery, dot_f32};
use crate::segment::{Quantizer, largest_component};
use crate::types::Metric;

/// Steps of rounding beside those of the sums: of the products by steps, of the errors and of their sum.
const OTHER_STEPS: f32 = 8.0;

/// Vectors of one dim, rounded.
#[derive(Debug)]
pub struct CodedRows {
    /// i8, shape `[rows, dim]`.
    codes: Vec<i8>,
    /// Numbers of the rows, as comparing takes them.
    rows: Vec<u32>,
    scale: f32,
    squared_norms: Vec<f32>,
    largest_norm: f32,
    /// How far the worst of the rows is from what its codes stand for.
    largest_error: f32,
}

impl CodedRows {
    /// Rounds `vectors`, each f32, shape `[dim]`. `None` where they have no common dim.
    pub fn new<'a>(dim: usize, vectors: impl Iterator<Item = &'a [f32]> + Clone) -> Option<Self> {
        if dim == 0 || vectors.clone().any(|vector| vector.len() != dim) {
            return None;
        }
        let quantizer = Quantizer::for_largest(vectors.clone().map(largest_component).fold(0.0, f32::max));
        let rows = vectors.clone().count();
        let mut coded = Self {
            codes: vec![0; rows * dim],
            rows: (0..rows as u32).collect(),
            scale: quantizer.scale(),
            squared_norms: Vec::with_capacity(rows),
            largest_norm: 0.0,
            largest_error: 0.0,
        };
        let mut difference = vec![0.0; dim];
        for (vector, codes) in vectors.zip(coded.codes.chunks_exact_mut(dim)) {
            quantizer.encode(vector, codes);
            let error = error_of(vector, codes, coded.scale, &mut difference);
            let squared_norm = dot_f32(vector, vector);
            coded.squared_norms.push(squared_norm);
            coded.largest_norm = coded.largest_norm.max(squared_norm.sqrt());
            coded.largest_error = coded.largest_error.max(error);
        }
        Some(coded)
    }

    /// Replaces `closeness` by what that of each vector is at most.
    ///
    /// # Panics
    /// When the query has another dim.
    pub fn at_most(&self, query: &CodedQuery, closeness: &mut Vec<f32>) {
        query.codes.compare(&self.codes, &self.rows, closeness);
        // One after the other, since their product may leave f32.
        let (row_step, query_step) = (1.0 / self.scale, 1.0 / query.scale);
        let error = query.error * self.largest_norm
            + (query.norm + query.error) * self.largest_error
            + query.rounding * self.largest_norm * query.norm
            + f32::MIN_POSITIVE;
        let dot_at_most = |dot: f32| dot * row_step * query_step + error;
        match query.metric {
            Metric::Cosine | Metric::Dot => closeness.iter_mut().for_each(|dot| *dot = dot_at_most(*dot)),
            Metric::L2 => {
                let query_squared = query.norm * query.norm;
                for (dot, row_squared) in closeness.iter_mut().zip(&self.squared_norms) {
                    let squares = query_squared + row_squared;
                    *dot = 2.0 * dot_at_most(*dot) - squares + query.rounding * squares;
                }
            }
        }
        // Numbers near the ends of f32 leave it on the way, and tell nothing then.
        closeness.iter_mut().filter(|bound| bound.is_nan()).for_each(|bound| *bound = f32::INFINITY);
    }
}

/// A query of [`CodedRows`].
pub struct CodedQuery {
    metric: Metric,
    /// Compares by the dot product.
    codes: CodeQuery,
    scale: f32,
    norm: f32,
    /// How far the query is from what its codes stand for.
    error: f32,
    /// What f32 may err by in a sum of products, as a share of the lengths that are multiplied: an ulp a step (Higham
    /// 2002, section 3.1).
    rounding: f32,
}

impl CodedQuery {
    /// Rounds a query.
    pub fn new(query: &VectorQuery) -> Self {
        let vector = query.vector();
        let quantizer = Quantizer::for_largest(largest_component(vector));
        let mut codes = vec![0; vector.len()];
        quantizer.encode(vector, &mut codes);
        let error = error_of(vector, &codes, quantizer.scale(), &mut vec![0.0; vector.len()]);
        Self {
            metric: query.metric(),
            codes: CodeQuery::new(Metric::Dot, codes),
            scale: quantizer.scale(),
            norm: dot_f32(vector, vector).sqrt(),
            error,
            rounding: (vector.len() as f32 + OTHER_STEPS) * f32::EPSILON,
        }
    }
}

/// The length of what rounding took off. `difference`: room for it.
fn error_of(vector: &[f32], codes: &[i8], scale: f32, difference: &mut [f32]) -> f32 {
    let step = 1.0 / scale;
    for ((difference, &x), &code) in difference.iter_mut().zip(vector).zip(codes) {
        *difference = x - f32::from(code) * step;
    }
    dot_f32(difference, difference).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of `size`, some with a component that is much larger than the others.
    fn vectors(rows: usize, dim: usize, size: f32) -> Vec<Vec<f32>> {
        let mut state = 11u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * size
        };
        let mut rows: Vec<Vec<f32>> = (0..rows).map(|_| (0..dim).map(|_| random()).collect()).collect();
        rows.iter_mut().step_by(50).for_each(|row| row[dim / 2] *= 40.0);
        rows
    }

    #[test]
    fn no_vector_is_closer_than_it_can_be_at_most() {
        for size in [1e-25, 1e-19, 1e-3, 1.0, 1e17] {
            for (metric, dim) in [Metric::Cosine, Metric::Dot, Metric::L2].into_iter().zip([384, 3, 65]) {
                let rows = vectors(200, dim, size);
                let coded = CodedRows::new(dim, rows.iter().map(Vec::as_slice)).unwrap();
                for vector in vectors(30, dim, size * 0.7).into_iter().chain(rows[..3].iter().cloned()) {
                    let query = VectorQuery::new(metric, vector);
                    let mut at_most = Vec::new();
                    coded.at_most(&CodedQuery::new(&query), &mut at_most);
                    for (row, &at_most) in rows.iter().zip(&at_most) {
                        let closeness = query.closeness(row);
                        assert!(closeness <= at_most, "{metric:?} {size}: {closeness} and {at_most}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_bound_is_of_use() {
        let rows = vectors(1_000, 384, 1.0);
        let query = VectorQuery::new(Metric::Dot, rows[7].clone());
        let mut at_most = Vec::new();
        CodedRows::new(384, rows.iter().map(Vec::as_slice)).unwrap().at_most(&CodedQuery::new(&query), &mut at_most);
        let floor = query.closeness(&rows[7]);
        let possible = at_most.iter().filter(|&&bound| bound >= floor).count();
        assert!(possible < 10, "{possible} of 1,000 may be nearer than the query's own row");
    }

    #[test]
    fn what_is_no_list_of_vectors_of_one_dim_is_not_coded() {
        let rows = [vec![1.0, 2.0], vec![1.0]];
        assert!(CodedRows::new(2, rows.iter().map(Vec::as_slice)).is_none());
        assert!(CodedRows::new(0, [].into_iter()).is_none());
    }
}
