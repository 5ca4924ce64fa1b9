//! A query prepared once, so that each of its many comparisons only runs a kernel.

use super::float16::{dot_f16, l2sq_f16};
use super::kernels::{CodeKernel, dot_f32, l2sq_f32, shift};
use super::score;
use super::vector_ref::VectorRef;
use crate::types::Metric;

/// The variance of the square of the sum of two errors, each anywhere within half a step: 1 / 15 - 1 / 36.
const SQUARED_ERROR_VARIANCE: f32 = 7.0 / 180.0;

/// A query of codes.
#[derive(Clone, Debug)]
pub struct CodeQuery {
    codes: Vec<i8>,
    kernel: CodeKernel,
    is_l2: bool,
    shift: i32,
}

impl CodeQuery {
    /// `codes`: i8 within -127..=127, as those of the rows, shape `[stride]`, padded with zeros as the rows are.
    pub fn new(metric: Metric, codes: Vec<i8>) -> Self {
        let shift = shift(&codes);
        Self { codes, kernel: CodeKernel::detect(), is_l2: metric == Metric::L2, shift }
    }

    /// Rises as `row` gets nearer. `row`: i8, shape `[stride]`.
    ///
    /// # Panics
    /// When `row` has another length than the query's codes.
    #[inline]
    pub fn closeness(&self, row: &[i8]) -> i32 {
        if self.is_l2 { -self.kernel.l2sq(row, &self.codes) } else { self.kernel.dot(row, &self.codes, self.shift) }
    }

    /// Replaces `closeness` by that of each of `rows`, in their order. `codes`: i8, shape `[rows, stride]`.
    ///
    /// # Panics
    /// When a row lies beyond `codes`.
    #[inline]
    pub fn compare(&self, codes: &[i8], rows: &[u32], closeness: &mut Vec<f32>) {
        closeness.clear();
        if self.is_l2 {
            self.kernel.l2sq_rows(codes, &self.codes, rows, |distance| closeness.push(-distance as f32));
        } else {
            self.kernel.dot_rows(codes, &self.codes, self.shift, rows, |dot| closeness.push(dot as f32));
        }
    }

    /// The standard deviation of what rounding to codes does to the closeness of `row`, where the components of both
    /// were rounded to the nearest code: each then errs by 1 / sqrt(12). `dim`: components that stand before the
    /// padding.
    pub fn rounding_error(&self, row: &[i8], dim: usize) -> f32 {
        let squared = |codes: &[i8]| self.kernel.dot(codes, codes, shift(codes)) as f32;
        let variance = match self.is_l2 {
            // With e, the sum of two errors, |q - r + e|^2 errs by 2 (q - r) . e, and by e . e but for its mean.
            true => 8.0 / 12.0 * self.kernel.l2sq(row, &self.codes) as f32 + SQUARED_ERROR_VARIANCE * dim as f32,
            false => (squared(row) + squared(&self.codes)) / 12.0,
        };
        variance.sqrt()
    }

    /// The codes, for their memory to be used again.
    pub fn into_codes(self) -> Vec<i8> {
        self.codes
    }
}

/// A query of f32 numbers.
#[derive(Clone, Debug)]
pub struct VectorQuery {
    vector: Vec<f32>,
    metric: Metric,
}

impl VectorQuery {
    /// `vector`: f32, shape `[dim]`, checked, and of length 1 where the metric is cosine.
    pub fn new(metric: Metric, vector: Vec<f32>) -> Self {
        Self { vector, metric }
    }

    /// Rises as `row` gets nearer; [`score`] makes it what users see. `row`: f32, shape `[dim]`.
    ///
    /// # Panics
    /// When `row` has another length than the query.
    #[inline]
    pub fn closeness(&self, row: &[f32]) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::Dot => dot_f32(row, &self.vector),
            Metric::L2 => -l2sq_f32(row, &self.vector),
        }
    }

    /// As [`VectorQuery::closeness`], of a row as it is stored.
    ///
    /// # Panics
    /// When `row` has another length than the query.
    #[inline]
    pub fn closeness_of(&self, row: VectorRef<'_>) -> f32 {
        match (row, self.metric) {
            (VectorRef::Float32(row), _) => self.closeness(row),
            (VectorRef::Float16(row), Metric::Cosine | Metric::Dot) => dot_f16(row, &self.vector),
            (VectorRef::Float16(row), Metric::L2) => -l2sq_f16(row, &self.vector),
        }
    }

    /// The [`score`] of a row as it is stored.
    ///
    /// # Panics
    /// When `row` has another length than the query.
    #[inline]
    pub fn score_of(&self, row: VectorRef<'_>) -> f32 {
        score(self.metric, self.closeness_of(row))
    }

    /// The nearest of several vectors, the first of equals: its place, and its [`score`]. `rows`: f32, shape
    /// `[rows, dim]`, at least one.
    #[inline]
    pub fn nearest(&self, rows: &[f32]) -> (usize, f32) {
        let mut best = (0, f32::NEG_INFINITY);
        for (at, row) in rows.chunks_exact(self.vector.len()).enumerate() {
            let closeness = self.closeness(row);
            if closeness > best.1 {
                best = (at, closeness);
            }
        }
        (best.0, score(self.metric, best.1))
    }

    /// How closeness is measured.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// f32, shape `[dim]`.
    pub fn vector(&self) -> &[f32] {
        &self.vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closeness_rises_as_rows_get_nearer() {
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let codes = CodeQuery::new(metric, vec![100, -50, 0]);
            assert!(codes.closeness(&[90, -60, 0]) > codes.closeness(&[-90, 60, 10]), "{metric:?}");
            let vectors = VectorQuery::new(metric, vec![0.8, -0.6]);
            assert!(vectors.closeness(&[0.6, -0.8]) > vectors.closeness(&[0.6, 0.8]), "{metric:?}");
        }
    }

    #[test]
    fn comparing_many_rows_is_comparing_each() {
        let codes: Vec<i8> = (0..20 * 70).map(|i| ((i * 37 % 251) as i16 - 125) as i8).collect();
        for metric in [Metric::Cosine, Metric::L2] {
            let query = CodeQuery::new(metric, codes[3 * 70..4 * 70].to_vec());
            let rows = [7, 0, 19, 7, 3];
            let mut many = vec![1.0];
            query.compare(&codes, &rows, &mut many);
            let row = |row: u32| &codes[row as usize * 70..(row as usize + 1) * 70];
            assert_eq!(many, rows.map(|at| query.closeness(row(at)) as f32));
        }
    }

    #[test]
    fn rounding_errors_are_of_the_stated_size() {
        let mut state = 5u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f64 / (1u64 << 24) as f64 - 0.5) * 200.0
        };
        // Anywhere, and of one code: then every pair errs by the mean square of two errors, which moves none before
        // another.
        for (metric, of_one_code, mean) in
            [(Metric::Dot, false, 0.0), (Metric::L2, false, 0.0), (Metric::L2, true, 200.0 / 6.0)]
        {
            let (mut squared, mut stated) = (0.0, 0.0);
            for _ in 0..300 {
                let a: Vec<f64> = (0..200).map(|_| random()).collect();
                let near = |a: &f64, other: f64| if of_one_code { a.round() + other / 200.0 } else { other };
                let b: Vec<f64> = a.iter().map(|a| near(a, random())).collect();
                let codes = |x: &[f64]| x.iter().map(|x| x.round() as i8).collect::<Vec<_>>();
                let query = CodeQuery::new(metric, codes(&a));
                let exact: f64 = match metric {
                    Metric::L2 => -a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum::<f64>(),
                    _ => a.iter().zip(&b).map(|(x, y)| x * y).sum(),
                };
                squared += (f64::from(query.closeness(&codes(&b))) - exact - mean).powi(2);
                stated += f64::from(query.rounding_error(&codes(&b), 200)).powi(2);
            }
            assert!((0.7..1.4).contains(&(squared / stated)), "{metric:?}: {}", squared / stated);
        }
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn rows_beyond_the_codes_are_refused() {
        CodeQuery::new(Metric::Dot, vec![1; 8]).compare(&[0; 16], &[1, 2], &mut Vec::new());
    }

    #[test]
    fn closeness_is_the_dot_product_or_minus_the_squared_distance() {
        assert_eq!(CodeQuery::new(Metric::Cosine, vec![3, -4]).closeness(&[5, 6]), -9);
        assert_eq!(CodeQuery::new(Metric::Dot, vec![3, -4]).closeness(&[5, 6]), -9);
        assert_eq!(CodeQuery::new(Metric::L2, vec![3, -4]).closeness(&[5, 6]), -104);
        assert_eq!(VectorQuery::new(Metric::Dot, vec![3.0, -4.0]).closeness(&[5.0, 6.0]), -9.0);
        assert_eq!(VectorQuery::new(Metric::L2, vec![3.0, -4.0]).closeness(&[5.0, 6.0]), -104.0);
        assert_eq!(CodeQuery::new(Metric::Dot, vec![1, 2]).into_codes(), [1, 2]);
        assert_eq!(VectorQuery::new(Metric::Dot, vec![1.0]).nearest(&[1.0, 3.0, 3.0, 2.0]), (1, 3.0));
        assert_eq!(VectorQuery::new(Metric::L2, vec![1.0]).nearest(&[9.0, 3.0]), (1, -2.0));
        assert_eq!(VectorQuery::new(Metric::L2, vec![1.0]).score_of(VectorRef::Float32(&[9.0])), -8.0);
    }
}
