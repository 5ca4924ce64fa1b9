//! Binary codes: the signs of a vector's components as seen from the segment's center, and two numbers for each row
//! that make closeness of them (`distance/binary.rs`).
//!
//! With the center c, a row x and o = x - c, the dot product of a query q with x is q.o + q.c, of which the last is the
//! same for all rows; and q.o = (q - c).o + c.o. The signs s of o stand for o: (q - c).o is about (q - c).s times
//! |o|^2 / |o|_1, which makes it exact where q - c is o. So the factor is |o|^2 / |o|_1 and the offset c.o. For
//! distances, -|q - x|^2 / 2 is (q - c).o - |o|^2 / 2 and a part that is the same for all rows: the offset is
//! -|o|^2 / 2.

use crate::distance::{BitBlockQuery, BitQuery, VectorQuery, VectorRef, set_corrections};
use crate::types::Metric;

/// Rows and the center before them begin at multiples of this: a cache line.
const STRIDE: usize = 64;
/// Two f32 numbers at the end of each row.
const CORRECTION_BYTES: usize = 8;
/// Rows whose mean is the center, at most.
const SAMPLE_ROWS: usize = 1 << 16;

/// Bytes that the signs of one row take.
pub(super) fn sign_bytes(dim: u32) -> usize {
    dim.div_ceil(8) as usize
}

/// Bytes that the bits of one row take, with its two numbers.
pub(super) fn stride(dim: u32) -> usize {
    (sign_bytes(dim) + CORRECTION_BYTES).next_multiple_of(STRIDE)
}

/// Bytes that the center takes, which stands before the rows.
pub(super) fn center_bytes(dim: u32) -> usize {
    (4 * dim as usize).next_multiple_of(STRIDE)
}

/// Bytes of a whole section: the center, then the rows.
pub(super) fn section_bytes(rows: u64, dim: u32) -> u64 {
    center_bytes(dim) as u64 + rows * stride(dim) as u64
}

/// Turns vectors into bits.
#[derive(Clone, Debug, PartialEq)]
pub struct BitQuantizer {
    center: Vec<f32>,
    metric: Metric,
}

impl BitQuantizer {
    /// With the center of a stored segment: f32, shape `[dim]`.
    pub(super) fn with_center(center: Vec<f32>, metric: Metric) -> Self {
        Self { center, metric }
    }

    /// With the mean of `rows` vectors of `dim` finite components, or of evenly spaced ones of them.
    pub fn fit<'a>(metric: Metric, rows: usize, dim: usize, vector: impl Fn(usize) -> VectorRef<'a>) -> Self {
        let (mut sums, mut memory, mut count) = (vec![0.0f64; dim], Vec::new(), 0u32);
        for row in (0..rows).step_by(rows.div_ceil(SAMPLE_ROWS).max(1)) {
            for (sum, &x) in sums.iter_mut().zip(vector(row).read(&mut memory)) {
                *sum += f64::from(x);
            }
            count += 1;
        }
        let center = sums.into_iter().map(|sum| (sum / f64::from(count.max(1))) as f32).collect();
        Self { center, metric }
    }

    /// Numbers in a vector.
    pub(super) fn dim(&self) -> usize {
        self.center.len()
    }

    /// Bytes of a row's signs.
    pub(super) fn sign_bytes(&self) -> usize {
        sign_bytes(self.center.len() as u32)
    }

    /// What stands before the rows: the center, and zeros up to the next multiple of 64 bytes.
    pub(super) fn preamble(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.center.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes.resize(center_bytes(self.center.len() as u32), 0);
        bytes
    }

    /// Bytes of a row.
    pub fn stride(&self) -> usize {
        stride(self.center.len() as u32)
    }

    /// Replaces `row`, of [`BitQuantizer::stride`] bytes, by what stands for `vector`.
    ///
    /// # Panics
    /// When one of them has another length.
    pub fn encode(&self, vector: &[f32], row: &mut [u8]) {
        assert_eq!((vector.len(), row.len()), (self.center.len(), self.stride()), "components, and bytes for them");
        row.fill(0);
        let (mut length, mut squared, mut along) = (0.0f64, 0.0f64, 0.0f64);
        for (at, (&x, &c)) in vector.iter().zip(&self.center).enumerate() {
            let o = x - c;
            row[at / 8] |= u8::from(o > 0.0) << (at % 8);
            let (o, c) = (f64::from(o), f64::from(c));
            length += o.abs();
            squared += o * o;
            along += o * c;
        }
        let factor = if length > 0.0 { squared / length } else { 0.0 };
        let offset = match self.metric {
            Metric::Cosine | Metric::Dot => along,
            Metric::L2 => -squared / 2.0,
        };
        set_corrections(row, factor as f32, offset as f32);
    }

    /// Prepares `query` for rows of these bits.
    pub fn query(&self, query: &VectorQuery) -> BitQuery {
        BitQuery::new(&self.centered(query), self.stride())
    }

    /// Prepares `query` for blocks of such rows.
    pub(super) fn block_query(&self, query: &VectorQuery) -> BitBlockQuery {
        BitBlockQuery::new(&self.centered(query))
    }

    fn centered(&self, query: &VectorQuery) -> Vec<f32> {
        query.vector().iter().zip(&self.center).map(|(q, c)| q - c).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_these_bytes() {
        let quantizer = BitQuantizer::with_center(vec![1.0, 1.0, 0.0], Metric::Dot);
        let mut row = vec![7u8; 64];
        quantizer.encode(&[3.0, 0.0, 1.0], &mut row);
        // o is (2, -1, 1): |o|^2 = 6, |o|_1 = 4, c.o = 1.
        let mut expected = vec![0b101u8];
        expected.resize(56, 0);
        expected.extend([1.5f32, 1.0].iter().flat_map(|number| number.to_le_bytes()));
        assert_eq!(row, expected);
        BitQuantizer { metric: Metric::L2, ..quantizer }.encode(&[3.0, 0.0, 1.0], &mut row);
        assert_eq!(row[60..], (-3.0f32).to_le_bytes());
    }

    #[test]
    fn the_center_is_the_mean() {
        let rows = [[1.0f32, 4.0], [3.0, -4.0]];
        let fit = BitQuantizer::fit(Metric::L2, 2, 2, |row| VectorRef::Float32(&rows[row]));
        assert_eq!(fit.center, [2.0, 0.0]);
        assert_eq!(BitQuantizer::fit(Metric::L2, 0, 2, |_| VectorRef::Float32(&[])).center, [0.0, 0.0]);
    }

    #[test]
    fn closeness_is_nearly_that_of_the_vectors() {
        let mut state = 8u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        const DIM: usize = 1_024;
        let vectors: Vec<Vec<f32>> = (0..200).map(|_| (0..DIM).map(|_| random() + 0.3).collect()).collect();
        for metric in [Metric::Dot, Metric::L2] {
            let quantizer = BitQuantizer::fit(metric, vectors.len(), DIM, |row| VectorRef::Float32(&vectors[row]));
            let vector: Vec<f32> = vectors[0].iter().map(|x| x + random()).collect();
            let query = VectorQuery::new(metric, vector);
            let bits = quantizer.query(&query);
            let mut row = vec![0; quantizer.stride()];
            let pairs: Vec<(f64, f64)> = vectors
                .iter()
                .map(|vector| {
                    quantizer.encode(vector, &mut row);
                    let exact = query.closeness(vector) * if metric == Metric::L2 { 0.5 } else { 1.0 };
                    (f64::from(bits.closeness(&row)), f64::from(exact))
                })
                .collect();
            // The same for all rows but for the error, which for numbers spread evenly is 0.58 of |q - c| |o| /
            // sqrt(dim).
            let mean = pairs.iter().map(|(got, exact)| got - exact).sum::<f64>() / pairs.len() as f64;
            let error = pairs.iter().map(|(got, exact)| (got - exact - mean).powi(2)).sum::<f64>() / pairs.len() as f64;
            let wanted = 0.75 * (2.0f64 / 3.0).sqrt() * (1.0f64 / 3.0).sqrt() * (DIM as f64).sqrt();
            assert!(error.sqrt() < wanted, "{metric:?}: {} and {wanted}", error.sqrt());
        }
    }
}
