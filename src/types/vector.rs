//! Vectors at the door: finite, of a sane size, normalised in f64.

use super::{Metric, half};

/// Norms outside `MIN_NORM..=MAX_NORM` are refused: their squares leave the range in which f32 dot products keep
/// their precision, and no embedding model makes them.
const MIN_NORM: f64 = 1e-12;
const MAX_NORM: f64 = 1e12;

/// How far rounding to half precision may move a vector, as a share of its norm: twice what 11 significant bits move it
/// by at most.
const MAX_MOVED_BY_HALF: f64 = 1.0 / 1024.0;

/// About how many bytes a number of a vector has as JSON.
pub const NUMBER_BYTES: usize = 12;

/// Why a vector was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// The vector has another dimension than its collection.
    #[error("vector has {got} numbers, the collection's dim is {expected}")]
    DimMismatch {
        /// The collection's dim.
        expected: usize,
        /// The vector's length.
        got: usize,
    },
    /// A component is NaN or infinite.
    #[error("vector component {index} is {value}; every component must be a finite number")]
    NotFinite {
        /// Position of the first such component, counted from 0.
        index: usize,
        /// The component.
        value: f32,
    },
    /// A component does not fit the half precision that the collection stores.
    #[error(
        "vector component {index} is {value}, and half precision reaches from -{max} to {max}; scale the vectors, or use \
         a collection of \"storage\": \"float32\"", max = half::MAX
    )]
    TooLargeForHalf {
        /// Position of the first such component, counted from 0.
        index: usize,
        /// The component.
        value: f32,
    },
    /// The vector is so small that half precision takes more from it than rounding to 11 significant bits does.
    #[error(
        "vector has norm {norm:e}, of which half precision keeps too little: its numbers are multiples of 6e-8; scale the \
         vectors, or use a collection of \"storage\": \"float32\""
    )]
    TooSmallForHalf {
        /// L2 norm in f64.
        norm: f64,
    },
    /// The vector is zero, or so small or large that its direction is lost in f32.
    #[error(
        "vector has norm {norm:e}, outside {MIN_NORM:e} to {MAX_NORM:e}; a zero or absurd vector has no usable direction"
    )]
    Norm {
        /// L2 norm in f64.
        norm: f64,
    },
}

/// Checks dimension, finiteness and norm.
///
/// `vector`: f32, shape `[dim]`. Returns its L2 norm, computed in f64.
///
/// # Errors
/// [`VectorError`] names the first thing wrong.
pub fn check_vector(vector: &[f32], dim: usize) -> Result<f64, VectorError> {
    if vector.len() != dim {
        return Err(VectorError::DimMismatch { expected: dim, got: vector.len() });
    }
    let norm = squared_sum(vector).sqrt();
    if (MIN_NORM..=MAX_NORM).contains(&norm) {
        // The squares of f32 are finite in f64, so that no component is anything else.
        return Ok(norm);
    }
    match vector.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        Some((index, &value)) => Err(VectorError::NotFinite { index, value }),
        None => Err(VectorError::Norm { norm }),
    }
}

/// As [`check_vector`], of a vector to be compared by `metric`: distances need no direction, so that for them it may be
/// zero.
///
/// # Errors
/// As [`check_vector`].
pub fn check_vector_for(metric: Metric, vector: &[f32], dim: usize) -> Result<f64, VectorError> {
    match check_vector(vector, dim) {
        Err(VectorError::Norm { norm }) if metric == Metric::L2 && norm < MIN_NORM => Ok(norm),
        checked => checked,
    }
}

/// Checks a vector as [`check_vector_for`] does, and scales it to L2 norm 1 where the metric is cosine.
///
/// # Errors
/// As [`check_vector`].
pub fn admit_vector(metric: Metric, vector: &mut [f32], dim: usize) -> Result<(), VectorError> {
    match metric {
        Metric::Cosine => normalise(vector, dim),
        Metric::Dot | Metric::L2 => check_vector_for(metric, vector, dim).map(drop),
    }
}

/// Rounds each component to the nearest half-precision number.
///
/// # Errors
/// [`VectorError::TooLargeForHalf`] names the first component beyond the range of half precision;
/// [`VectorError::TooSmallForHalf`] where the vector would move by more than a 1,024th of its norm. Then nothing
/// has changed.
pub fn round_to_half(vector: &mut [f32]) -> Result<(), VectorError> {
    if let Some((index, &value)) = vector.iter().enumerate().find(|(_, x)| x.abs() > half::MAX) {
        return Err(VectorError::TooLargeForHalf { index, value });
    }
    let rounded = |x: f32| half::widen(half::narrow(x));
    let norm = squared_sum(vector).sqrt();
    let moved = vector.iter().map(|&x| f64::from(x - rounded(x)).powi(2)).sum::<f64>().sqrt();
    if moved > MAX_MOVED_BY_HALF * norm {
        return Err(VectorError::TooSmallForHalf { norm });
    }
    vector.iter_mut().for_each(|x| *x = rounded(*x));
    Ok(())
}

/// In eight sums, so that each addition need not wait for the one before it.
fn squared_sum(vector: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    for part in vector.chunks(8) {
        for (sum, &x) in sums.iter_mut().zip(part) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum()
}

/// Checks a vector and scales it to L2 norm 1 in f64.
///
/// # Errors
/// As [`check_vector`].
pub fn normalise(vector: &mut [f32], dim: usize) -> Result<(), VectorError> {
    let scale = check_vector(vector, dim)?.recip();
    for x in vector {
        *x = (f64::from(*x) * scale) as f32;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_and_their_range_is_checked() {
        let mut vector = [1.0 + 1.0 / 4096.0, -0.1, 65_504.0];
        round_to_half(&mut vector).unwrap();
        assert_eq!(vector, [1.0, -0.099_975_586, 65_504.0]);
        let error = round_to_half(&mut [1.0, -65_505.0]).unwrap_err();
        assert_eq!(error, VectorError::TooLargeForHalf { index: 1, value: -65_505.0 });
        assert!(error.to_string().contains("from -65504 to 65504"), "{error}");
        let mut small = [1e-8, -3e-8];
        let error = round_to_half(&mut small).unwrap_err();
        assert!(error.to_string().contains("float32"), "{error}");
        assert_eq!(small, [1e-8, -3e-8]);
        assert!(round_to_half(&mut [1e-6, 1e-6]).is_err(), "of which four bits would be left");
        for kept in [[0.0, 0.0], [1.0, 1e-8], [0.01, 1e-6]] {
            assert_eq!(round_to_half(&mut kept.clone()), Ok(()), "{kept:?}");
        }
    }

    #[test]
    fn refuses_what_has_no_direction() {
        assert!(matches!(check_vector(&[1.0], 2), Err(VectorError::DimMismatch { expected: 2, got: 1 })));
        assert!(matches!(check_vector(&[1.0, f32::NAN], 2), Err(VectorError::NotFinite { index: 1, .. })));
        assert!(matches!(check_vector(&[f32::INFINITY, 0.0], 2), Err(VectorError::NotFinite { index: 0, .. })));
        for x in [0.0, 1e25, 1e-24] {
            assert!(matches!(check_vector(&[x, 0.0], 2), Err(VectorError::Norm { .. })), "{x}");
        }
    }

    #[test]
    fn distances_need_no_direction() {
        for x in [0.0, 1e-24] {
            assert!(admit_vector(Metric::L2, &mut [x, 0.0], 2).is_ok(), "{x}");
            assert!(admit_vector(Metric::Cosine, &mut [x, 0.0], 2).is_err(), "{x}");
        }
        for bad in [[1e25, 0.0], [f32::NAN, 0.0]] {
            assert!(check_vector_for(Metric::L2, &bad, 2).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn normalises_to_unit_length() {
        let mut v = [3.0e-5, 4.0e-5];
        normalise(&mut v, 2).unwrap();
        assert!((v[0] - 0.6).abs() < 1e-7 && (v[1] - 0.8).abs() < 1e-7, "{v:?}");
    }
}
