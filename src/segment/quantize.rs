//! Int8 codes: one byte a component, with one scale for all rows of a segment.

use crate::distance::{CodeQuery, VectorQuery, VectorRef};
use crate::types::Metric;

/// Codes lie within -LARGEST..=LARGEST, so that each has its negative.
const LARGEST: f32 = 127.0;
/// Share of components that are not clipped. Clipping one in 20,000 keeps the precision of the others where a few
/// components are extreme, as in embeddings with outlier dimensions.
const QUANTILE: f64 = 0.999_95;
/// Components looked at to find the quantile.
const SAMPLE_COMPONENTS: usize = 1 << 20;
/// Below this the scale would leave the range of f32.
const MIN_LARGEST_COMPONENT: f32 = 1e-30;
/// Codes of a row are padded to a multiple of this: the bytes of a SIMD register and of a cache line.
const STRIDE: usize = 64;

/// Bytes that the codes of one row take.
pub(super) fn stride(dim: u32) -> usize {
    (dim as usize).next_multiple_of(STRIDE)
}

/// Turns vectors into codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantizer {
    scale: f32,
}

impl Quantizer {
    /// With the scale of a stored segment; finite and above 0.
    pub(super) fn with_scale(scale: f32) -> Self {
        assert!(scale.is_finite() && scale > 0.0, "scale {scale}");
        Self { scale }
    }

    /// With the finest scale that clips no component of a size up to `largest`.
    pub fn for_largest(largest: f32) -> Self {
        Self { scale: LARGEST / largest.max(MIN_LARGEST_COMPONENT) }
    }

    /// With the scale that suits `rows` vectors of `dim` finite components that are searched by these codes: the finest
    /// that clips no row farther than rounding moves it, so that what a search allows for rounding finds every row. A
    /// row that is clipped more would seem farther than it is by dot products, and nearer than those that are nearest
    /// by distance. Of dot products, which rise with a component without bound, none is clipped at all.
    pub fn fit<'a>(metric: Metric, rows: usize, dim: usize, vector: impl Fn(usize) -> VectorRef<'a>) -> Self {
        let (mut fitting, mut reaches) = match metric {
            Metric::Dot => (Self::for_largest(0.0), 0.0),
            Metric::Cosine | Metric::L2 => {
                let most = Self::fit_most(rows, dim, &vector);
                (most, LARGEST / most.scale)
            }
        };
        let mut memory = Vec::new();
        for row in 0..rows {
            let vector = vector(row);
            let vector = vector.read(&mut memory);
            let largest = largest_component(vector);
            if largest > reaches && (metric == Metric::Dot || fitting.moves(vector)) {
                (fitting, reaches) = (Self::for_largest(largest), largest);
            }
        }
        fitting
    }

    /// With the scale that suits most of `rows` vectors of `dim` finite components, and clips what is rare.
    pub fn fit_most<'a>(rows: usize, dim: usize, vector: impl Fn(usize) -> VectorRef<'a>) -> Self {
        let step = (rows * dim).div_ceil(SAMPLE_COMPONENTS).max(1);
        let (mut sizes, mut memory): (Vec<f32>, _) = (Vec::new(), Vec::new());
        for row in (0..rows).step_by(step) {
            sizes.extend(vector(row).read(&mut memory).iter().map(|x| x.abs()));
        }
        if sizes.is_empty() {
            return Self { scale: 1.0 };
        }
        let rank = (sizes.len() as f64 * QUANTILE) as usize;
        let (_, &mut quantile, above) = sizes.select_nth_unstable_by(rank, f32::total_cmp);
        // In very sparse data even a high quantile is 0, and only the largest component tells the scale.
        let largest = if quantile > 0.0 { quantile } else { above.iter().copied().fold(0.0, f32::max) };
        Self::for_largest(largest)
    }

    /// Codes are `round(component * scale)`.
    pub fn scale(self) -> f32 {
        self.scale
    }

    /// Writes the codes of `vector` to the beginning of `codes` and leaves the rest as it is.
    ///
    /// # Panics
    /// When `codes` is shorter than `vector`.
    pub fn encode(self, vector: &[f32], codes: &mut [i8]) {
        assert!(vector.len() <= codes.len(), "{} components into {} codes", vector.len(), codes.len());
        for (code, &x) in codes.iter_mut().zip(vector) {
            let scaled = (x * self.scale).clamp(-LARGEST, LARGEST);
            // Half away from zero, which is symmetric, in instructions that every processor has for many at once.
            *code = (scaled + 0.5f32.copysign(scaled)) as i32 as i8;
        }
    }

    /// Whether clipping moves `query` farther than rounding does, so that codes do not tell what is near it: the
    /// distance of a row would be that from another point.
    pub fn clips(self, query: &VectorQuery) -> bool {
        query.metric() == Metric::L2 && self.moves(query.vector())
    }

    /// Whether clipping moves a vector farther than rounding does.
    fn moves(self, vector: &[f32]) -> bool {
        let beyond = |x: &f32| ((x * self.scale).abs() - LARGEST).max(0.0);
        let squared = vector.iter().map(beyond).map(|steps| steps * steps).sum::<f32>();
        // Rounding errs by 1 / sqrt(12) in each component.
        squared > vector.len() as f32 / 12.0
    }

    /// Prepares `query`, which these codes do not [clip](Self::clips), for rows of them. `memory`: for the query's
    /// codes; its content does not matter.
    pub fn query(self, query: &VectorQuery, mut memory: Vec<i8>) -> CodeQuery {
        memory.clear();
        memory.resize(stride(query.vector().len() as u32), 0);
        let quantizer = match query.metric() {
            // Distances need both sides on one scale.
            Metric::L2 => self,
            // Dot products order rows alike on any scale of the query, so it gets the one that clips nothing.
            Metric::Cosine | Metric::Dot => Self::for_largest(largest_component(query.vector())),
        };
        quantizer.encode(query.vector(), &mut memory);
        CodeQuery::new(query.metric(), memory)
    }
}

/// The largest size of a component, in sixteen maxima, so that each need not wait for the one before it.
pub fn largest_component(vector: &[f32]) -> f32 {
    let mut largest = [0.0f32; 16];
    for part in vector.chunks(16) {
        for (largest, x) in largest.iter_mut().zip(part) {
            *largest = largest.max(x.abs());
        }
    }
    largest.into_iter().fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_rounded_and_clipped() {
        let mut codes = [9i8; 8];
        Quantizer::with_scale(10.0).encode(&[0.0, 0.04, 0.05, -0.05, 12.7, 13.0, -1e30], &mut codes);
        assert_eq!(codes, [0, 0, 1, -1, 127, 127, -127, 9]);
    }

    #[test]
    fn the_scale_fits_the_largest_of_few_components_and_clips_rare_ones() {
        let few = [[1.0f32, -2.0], [0.5, 0.25]];
        assert_eq!(Quantizer::fit_most(2, 2, |i| VectorRef::Float32(&few[i])).scale(), 63.5);
        let mut many = vec![1.0f32; 100_000];
        many[77_777] = 1e6;
        assert_eq!(Quantizer::fit_most(1_000, 100, |i| VectorRef::Float32(&many[i * 100..][..100])).scale(), 127.0);
    }

    #[test]
    fn degenerate_data_has_a_usable_scale() {
        assert_eq!(Quantizer::fit_most(0, 3, |_| VectorRef::Float32(&[])).scale(), 1.0);
        for x in [0.0f32, 1e-40, 3e38] {
            let scale = Quantizer::fit_most(1, 1, |_| VectorRef::Float32(std::slice::from_ref(&x))).scale();
            assert!(scale.is_finite() && scale > 0.0, "{x}: {scale}");
        }
        let mut sparse = vec![0.0f32; 1 << 20];
        sparse[3] = 2.0;
        assert_eq!(Quantizer::fit_most(1, 1 << 20, |_| VectorRef::Float32(&sparse)).scale(), 63.5);
    }

    #[test]
    fn queries_are_scaled_to_their_own_size_unless_distances_are_asked_for() {
        let quantizer = Quantizer::with_scale(1.0);
        let dot = quantizer.query(&VectorQuery::new(Metric::Dot, vec![0.5, -1.0]), vec![7; 3]);
        assert_eq!(dot.into_codes()[..3], [64, -127, 0]);
        let l2 = quantizer.query(&VectorQuery::new(Metric::L2, vec![3.0, -1.0]), Vec::new());
        assert_eq!(l2.into_codes()[..3], [3, -1, 0]);
    }

    #[test]
    fn no_component_is_clipped_for_dot_products() {
        let mut many = vec![1.0f32; 100_000];
        many[77_777] = 100.0;
        let row = |row: usize| VectorRef::Float32(&many[row * 100..][..100]);
        assert_eq!(Quantizer::fit(Metric::Dot, 1_000, 100, row).scale(), 1.27);
        assert!(Quantizer::fit(Metric::Dot, 0, 3, |_| VectorRef::Float32(&[])).scale().is_finite());
    }

    #[test]
    fn no_row_is_clipped_farther_than_rounding_moves_it() {
        for metric in [Metric::Cosine, Metric::L2] {
            let scale = |largest: f32| {
                let mut many = vec![1.0f32; 100_000];
                many[77_777] = largest;
                Quantizer::fit(metric, 1_000, 100, |row| VectorRef::Float32(&many[row * 100..][..100])).scale()
            };
            // Rounding moves a row of 100 components by 2.9 steps, each of 1 / 127.
            assert_eq!(scale(1.02), 127.0, "{metric:?}");
            assert_eq!(scale(1.04), 127.0 / 1.04, "{metric:?}");
            assert_eq!(scale(100.0), 1.27, "{metric:?}");
        }
    }

    #[test]
    fn queries_are_clipped_where_that_moves_them_farther_than_rounding() {
        let quantizer = Quantizer::with_scale(127.0);
        let query = |metric: Metric, x: f32| {
            let mut vector = vec![0.5; 48];
            vector[7] = x;
            VectorQuery::new(metric, vector)
        };
        // Rounding moves it by two steps, each of 1 / 127.
        for (x, clips) in [(1.0, false), (-1.015, false), (1.017, true), (-1.017, true), (3e38, true)] {
            assert_eq!(quantizer.clips(&query(Metric::L2, x)), clips, "{x}");
            assert!(!quantizer.clips(&query(Metric::Dot, x)), "{x}: it has a scale of its own");
        }
    }
}
