//! Nibbles: four bits a component, with a range for each component, for the walks of a graph.
//!
//! A walk is bound by the cache lines that it asks from memory, and a row of nibbles has half as many as one of int8
//! codes. What they misplace is put right afterwards, by codes and in f32.

use crate::distance::{NIBBLE_BLOCK, NibbleQuery, VectorRef};
use crate::types::{IndexDefinition, Metric, Quantization};

/// The largest nibble.
const LARGEST: f32 = 15.0;
/// The range of a component reaches so many standard deviations to either side of its mean: beyond lie one in 100 of a
/// normal distribution, and a wider range would cost all others more precision than these lose.
const DEVIATIONS: f32 = 2.6;
/// Rows looked at to find the ranges.
const SAMPLE_ROWS: usize = 4_096;
/// A row that the ends of the ranges move so many times as far as rounding does may seem far from what it is near.
/// Embeddings of a hundred thousand sentences are moved 1.8 times as far at most.
const MOST_CLIPPED: f32 = 3.0;
/// Codes of a query lie within -127..=127.
const LARGEST_QUERY_CODE: f32 = 127.0;
/// Below this a range would leave those of f32.
const MIN_STEP: f32 = 1e-30;

/// Bytes that the nibbles of one row take.
pub(super) fn stride(dim: u32) -> usize {
    (dim as usize).div_ceil(NIBBLE_BLOCK) * (NIBBLE_BLOCK / 2)
}

/// Bytes of the whole section: the rows, then the lowest value and the step of each component.
pub(super) fn section_bytes(rows: u64, dim: u32) -> u64 {
    rows * stride(dim) as u64 + 8 * u64::from(dim)
}

/// Whether graphs over such rows may be walked on nibbles: for the cosine alone (dot products of vectors of length 1
/// tell distances), beside int8 codes alone (the best are compared by them), and only where they take fewer cache lines
/// than codes.
pub fn suits_nibbles(metric: Metric, dim: u32, index: &IndexDefinition) -> bool {
    metric == Metric::Cosine && index.quantization == Quantization::Int8 && stride(dim) < super::quantize::stride(dim)
}

/// The ranges of the components: value = low + step * nibble.
#[derive(Clone, Debug, PartialEq)]
pub struct NibbleQuantizer {
    lows: Vec<f32>,
    steps: Vec<f32>,
}

impl NibbleQuantizer {
    /// With the ranges that suit `rows` vectors of `dim` finite components.
    pub fn fit<'a>(rows: usize, dim: usize, vector: impl Fn(usize) -> VectorRef<'a>) -> Self {
        let sample = || (0..rows).step_by((rows / SAMPLE_ROWS).max(1)).map(&vector);
        let count = sample().count().max(1) as f64;
        let (mut sums, mut squares, mut memory) = (vec![0.0f64; dim], vec![0.0f64; dim], Vec::new());
        for row in sample() {
            for ((sum, square), &x) in sums.iter_mut().zip(&mut squares).zip(row.read(&mut memory)) {
                *sum += f64::from(x);
                *square += f64::from(x) * f64::from(x);
            }
        }
        let range = |(sum, square): (f64, f64)| {
            let mean = sum / count;
            let deviation = (square / count - mean * mean).max(0.0).sqrt();
            let step = (2.0 * DEVIATIONS * deviation as f32 / LARGEST).clamp(MIN_STEP, f32::MAX / LARGEST);
            ((mean as f32 - 0.5 * LARGEST * step).max(f32::MIN), step)
        };
        let (lows, steps) = sums.into_iter().zip(squares).map(range).unzip();
        Self { lows, steps }
    }

    /// From the numbers of a stored segment; `None` where they are no ranges. `numbers`: shape `[2, dim]`.
    pub(super) fn from_numbers(numbers: &[f32]) -> Option<Self> {
        let (lows, steps) = numbers.split_at(numbers.len() / 2);
        let is_sound =
            lows.iter().all(|low| low.is_finite()) && steps.iter().all(|step| step.is_finite() && *step > 0.0);
        is_sound.then(|| Self { lows: lows.to_vec(), steps: steps.to_vec() })
    }

    /// As a segment stores them: lows, then steps.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f32> + '_ {
        self.lows.iter().chain(&self.steps).copied()
    }

    /// Writes the nibbles of `vector` to `nibbles`.
    ///
    /// # Panics
    /// When `nibbles` is no row of this dim.
    pub fn encode(&self, vector: &[f32], nibbles: &mut [u8]) {
        assert_eq!(nibbles.len(), stride(vector.len() as u32), "bytes of a row");
        let nibble = |at: usize| -> u8 {
            let (Some(x), Some(low), Some(step)) = (vector.get(at), self.lows.get(at), self.steps.get(at)) else {
                return 0;
            };
            ((x - low) / step + 0.5).clamp(0.0, LARGEST) as u8
        };
        for (block, bytes) in nibbles.chunks_exact_mut(NIBBLE_BLOCK / 2).enumerate() {
            let first = block * NIBBLE_BLOCK;
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = nibble(first + at) | (nibble(first + NIBBLE_BLOCK / 2 + at) << 4);
            }
        }
    }

    /// Whether the ends of the ranges move `vector` so far that its nibbles do not tell what it is near.
    pub fn clips(&self, vector: &[f32]) -> bool {
        let mut beyond = 0.0;
        for ((x, low), step) in vector.iter().zip(&self.lows).zip(&self.steps) {
            beyond += (x - (low + LARGEST * step)).max(low - x).max(0.0).powi(2);
        }
        let rounding = self.steps.iter().map(|step| step * step).sum::<f32>() / 12.0;
        beyond > MOST_CLIPPED * MOST_CLIPPED * rounding
    }

    /// Prepares `query`, whose dot products with rows order these. `memory`: for the query's codes; its content does
    /// not matter.
    pub fn query(&self, query: &[f32], mut memory: Vec<i8>) -> NibbleQuery {
        // The lows add the same to every row's dot product.
        let weight = |(x, step): (&f32, &f32)| x * step;
        let scale = LARGEST_QUERY_CODE / largest_product(query, &self.steps).max(MIN_STEP);
        memory.clear();
        memory.extend(
            query
                .iter()
                .zip(&self.steps)
                .map(weight)
                .map(|weight| nearest_code((weight * scale).clamp(-LARGEST_QUERY_CODE, LARGEST_QUERY_CODE))),
        );
        memory.resize(2 * stride(query.len() as u32), 0);
        NibbleQuery::new(memory)
    }
}

/// The whole number nearest to `x`, which lies within -127..=127. One and a half times 2^23 leaves f32 no bits below
/// one, and the lowest byte is then the number's: a conversion that minds every f32 is not made for many at once.
fn nearest_code(x: f32) -> i8 {
    (x + 12_582_912.0).to_bits() as i8
}

/// The largest size of a product, in sixteen maxima, so that each need not wait for the one before it.
fn largest_product(a: &[f32], b: &[f32]) -> f32 {
    let mut largest = [0.0f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for (largest, (a, b)) in largest.iter_mut().zip(a.iter().zip(b)) {
            let product = (a * b).abs();
            *largest = if product > *largest { product } else { *largest };
        }
    }
    largest.into_iter().fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_queries_are_the_nearest_whole_numbers() {
        for tenths in -1_270..=1_270 {
            let x = tenths as f32 / 10.0;
            let code = nearest_code(x);
            assert!((f32::from(code) - x).abs() <= 0.5, "{x} is not {code}");
        }
    }

    fn rows(dim: usize) -> Vec<Vec<f32>> {
        (0..200).map(|r| (0..dim).map(|c| ((r * 31 + c * 17 + r * c) % 23) as f32 * 0.1 + c as f32).collect()).collect()
    }

    #[test]
    fn components_come_back_within_half_a_step() {
        for dim in [1, 64, 65, 128, 129, 300] {
            let rows = rows(dim);
            let quantizer = NibbleQuantizer::fit(rows.len(), dim, |row| VectorRef::Float32(&rows[row]));
            let mut nibbles = vec![0xff; stride(dim as u32)];
            for row in &rows {
                quantizer.encode(row, &mut nibbles);
                for (at, x) in row.iter().enumerate() {
                    let byte = nibbles[at / 128 * 64 + at % 64];
                    let nibble = if at % 128 < 64 { byte & 15 } else { byte >> 4 };
                    let back = quantizer.lows[at] + quantizer.steps[at] * f32::from(nibble);
                    let clipped = x.clamp(quantizer.lows[at], quantizer.lows[at] + LARGEST * quantizer.steps[at]);
                    assert!((back - clipped).abs() <= 0.501 * quantizer.steps[at], "{dim} {at}: {x} {back}");
                }
            }
        }
    }

    #[test]
    fn queries_order_rows_as_dot_products_do() {
        let rows = rows(300);
        let quantizer = NibbleQuantizer::fit(rows.len(), 300, |row| VectorRef::Float32(&rows[row]));
        let mut codes = vec![0; rows.len() * stride(300)];
        for (row, codes) in rows.iter().zip(codes.chunks_exact_mut(stride(300))) {
            quantizer.encode(row, codes);
        }
        let vector: Vec<f32> = (0..300).map(|c| ((c * 7 % 11) as f32 - 5.0) * 0.2).collect();
        let query = quantizer.query(&vector, vec![9; 3]);
        let mut closeness = Vec::new();
        query.compare(&codes, &(0..200).collect::<Vec<u32>>(), &mut closeness);
        let dots: Vec<f32> = rows.iter().map(|row| row.iter().zip(&vector).map(|(a, b)| a * b).sum()).collect();
        // The scale between both is that of the query's codes; the offset is that of the lows.
        let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
        let (x, y) = (mean(&closeness), mean(&dots));
        let product =
            |a: &[f32], p: f32, b: &[f32], q: f32| a.iter().zip(b).map(|(a, b)| (a - p) * (b - q)).sum::<f32>();
        let correlation = product(&closeness, x, &dots, y)
            / (product(&closeness, x, &closeness, x) * product(&dots, y, &dots, y)).sqrt();
        assert!(correlation > 0.99, "{correlation}");
        assert!(query.rounding_error() > 0.0);
    }

    #[test]
    fn degenerate_rows_have_usable_ranges() {
        for x in [0.0f32, 1e-40, 3e38, -1.0] {
            let row = [x; 70];
            let quantizer = NibbleQuantizer::fit(1, 70, |_| VectorRef::Float32(&row));
            let numbers: Vec<f32> = quantizer.numbers().collect();
            assert_eq!(NibbleQuantizer::from_numbers(&numbers), Some(quantizer.clone()), "{x}");
            quantizer.encode(&row, &mut vec![0; stride(70)]);
            quantizer.query(&row, Vec::new());
        }
        assert_eq!(NibbleQuantizer::from_numbers(&[0.0, f32::NAN]), None);
        assert_eq!(NibbleQuantizer::from_numbers(&[0.0, 0.0]), None);
    }

    #[test]
    fn only_cosines_over_codes_of_some_length_are_walked_on_nibbles() {
        let codes = IndexDefinition::default();
        let full = IndexDefinition { quantization: Quantization::None, ..codes };
        assert!(suits_nibbles(Metric::Cosine, 384, &codes) && suits_nibbles(Metric::Cosine, 65, &codes));
        assert!(!suits_nibbles(Metric::L2, 384, &codes) && !suits_nibbles(Metric::Dot, 384, &codes));
        assert!(!suits_nibbles(Metric::Cosine, 64, &codes));
        assert!(!suits_nibbles(Metric::Cosine, 384, &full));
    }
}
