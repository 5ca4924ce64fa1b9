//! The kernels behind one safe function each: simsimd, or our own where that is slow.

use simsimd::SpatialSimilarity;

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Longest vector that the integer kernels sum without overflow: 255^2 * 32,768 < 2^31.
const MAX_CODES: usize = 32_768;
/// Bytes that one prefetch instruction fetches.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;
/// A core holds few cache misses in flight, so prefetching more of one row than this only delays the others.
#[cfg(target_arch = "x86_64")]
const MAX_PREFETCH_BYTES: usize = 24 * CACHE_LINE_BYTES;

/// Dot product of two f32 vectors.
///
/// # Panics
/// When the lengths differ.
#[inline]
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    <f32 as SpatialSimilarity>::dot(a, b).expect("simsimd refuses only unequal lengths") as f32
}

/// Squared Euclidean distance of two f32 vectors.
///
/// # Panics
/// When the lengths differ.
#[inline]
pub fn l2sq_f32(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    <f32 as SpatialSimilarity>::l2sq(a, b).expect("simsimd refuses only unequal lengths") as f32
}

/// Asks the processor to fetch `row`, or its beginning, before it is read. Only speed depends on it.
#[inline]
pub fn prefetch<T>(row: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = row.as_ptr().cast::<i8>();
        for line in (0..size_of_val(row).min(MAX_PREFETCH_BYTES)).step_by(CACHE_LINE_BYTES) {
            // SAFETY: the address lies inside `row`, and a prefetch reads nothing the program could see.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// What [`CodeKernel::dot`] takes off for its query: 128 * sum(query).
#[inline]
pub(super) fn shift(query: &[i8]) -> i32 {
    128 * query.iter().map(|&c| i32::from(c)).sum::<i32>()
}

/// The implementation for codes, which are within -127..=127, that this machine runs fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeKernel {
    Simsimd,
    /// As [`CodeKernel::Vnni`].
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Made only by [`CodeKernel::detect`], so the machine has the instructions.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl CodeKernel {
    #[inline]
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::is_available() {
                return Self::Vnni;
            }
            if avx2::is_available() {
                return Self::Avx2;
            }
        }
        Self::Simsimd
    }

    /// `shift`: [`shift`] of `query`, computed once a query.
    #[inline]
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
    pub(super) fn dot(self, row: &[i8], query: &[i8], shift: i32) -> i32 {
        assert!(row.len() == query.len() && row.len() <= MAX_CODES, "{} and {}", row.len(), query.len());
        match self {
            Self::Simsimd => <i8 as SpatialSimilarity>::dot(row, query).expect("the lengths are equal") as i32,
            // SAFETY: `detect` made these variants, and the lengths are equal.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::dot(row, query) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { avx512::dot_shifted(row, query) - shift },
        }
    }

    /// The dot product of `query` with each of `rows`, to `take` in their order. `codes`: shape `[rows, query.len()]`.
    #[inline]
    pub(super) fn dot_rows(self, codes: &[i8], query: &[i8], shift: i32, rows: &[u32], mut take: impl FnMut(i32)) {
        assert!(query.len() <= MAX_CODES, "{} codes", query.len());
        match self {
            Self::Simsimd => {
                rows.iter().for_each(|&row| take(self.dot(codes_of(codes, query.len(), row), query, shift)))
            }
            // SAFETY: `detect` made these variants.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::dot_rows(codes, query, rows, take) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { avx512::dot_rows(codes, query, rows, |dot| take(dot - shift)) },
        }
    }

    /// As [`CodeKernel::dot_rows`], of squared Euclidean distances.
    #[inline]
    pub(super) fn l2sq_rows(self, codes: &[i8], query: &[i8], rows: &[u32], mut take: impl FnMut(i32)) {
        assert!(query.len() <= MAX_CODES, "{} codes", query.len());
        match self {
            Self::Simsimd => rows.iter().for_each(|&row| take(self.l2sq(codes_of(codes, query.len(), row), query))),
            // SAFETY: `detect` made these variants.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::l2sq_rows(codes, query, rows, take) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { avx512::l2sq_rows(codes, query, rows, take) },
        }
    }

    #[inline]
    pub(super) fn l2sq(self, a: &[i8], b: &[i8]) -> i32 {
        assert!(a.len() == b.len() && a.len() <= MAX_CODES, "{} and {}", a.len(), b.len());
        match self {
            Self::Simsimd => <i8 as SpatialSimilarity>::l2sq(a, b).expect("the lengths are equal") as i32,
            // SAFETY: `detect` made these variants, and the lengths are equal.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::l2sq(a, b) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unsafe { avx512::l2sq(a, b) },
        }
    }
}

/// The codes of a row among those of all rows, `stride` each.
#[inline]
pub(super) fn codes_of(codes: &[i8], stride: usize, row: u32) -> &[i8] {
    &codes[row as usize * stride..(row as usize + 1) * stride]
}

#[cfg(test)]
mod tests {
    use super::super::scalar;
    use super::*;

    /// splitmix64.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn kernels() -> Vec<CodeKernel> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut all = vec![CodeKernel::Simsimd, CodeKernel::detect()];
        #[cfg(target_arch = "x86_64")]
        if avx2::is_available() {
            all.push(CodeKernel::Avx2);
        }
        all
    }

    /// [`CodeKernel::dot_rows`] takes some rows at once, whose sums must not mix.
    fn assert_rows_agree(codes: &[i8], query: &[i8]) {
        let rows: Vec<u32> = (0..codes.len() as u32 / query.len() as u32).collect();
        let row = |row: u32| codes_of(codes, query.len(), row);
        for kernel in kernels() {
            let (mut dots, mut distances) = (Vec::new(), Vec::new());
            kernel.dot_rows(codes, query, shift(query), &rows, |dot| dots.push(dot));
            kernel.l2sq_rows(codes, query, &rows, |distance| distances.push(distance));
            let all = |of: fn(&[i8], &[i8]) -> i32| rows.iter().map(|&at| of(row(at), query)).collect::<Vec<_>>();
            assert_eq!(dots, all(scalar::dot_i8), "{kernel:?} dots, dim {}", query.len());
            assert_eq!(distances, all(scalar::l2sq_i8), "{kernel:?} distances, dim {}", query.len());
        }
    }

    fn assert_codes_agree(a: &[i8], b: &[i8]) {
        for kernel in kernels() {
            assert_eq!(kernel.dot(a, b, shift(b)), scalar::dot_i8(a, b), "{kernel:?} dot, dim {}", a.len());
            assert_eq!(kernel.l2sq(a, b), scalar::l2sq_i8(a, b), "{kernel:?} l2sq, dim {}", a.len());
        }
    }

    #[test]
    fn codes_agree_with_scalar() {
        let mut seed = 1;
        for dim in (1..=300).chain([384, 1_000, 1_024, 4_096]) {
            let mut code = || ((next(&mut seed) % 255) as i16 - 127) as i8;
            let mut random = |codes: usize| (0..codes).map(|_| code()).collect::<Vec<_>>();
            let (a, b) = (random(dim), random(dim));
            assert_codes_agree(&a, &b);
            assert_rows_agree(&random(7 * dim), &a);
            for (x, y) in [(127, 127), (-127, 127), (127, -127), (-127, -127), (0, -127)] {
                assert_codes_agree(&vec![x; dim], &vec![y; dim]);
                assert_codes_agree(&a, &vec![y; dim]);
            }
        }
    }

    #[test]
    fn vectors_agree_with_scalar() {
        let mut seed = 2;
        for dim in (1..=300).chain([384, 1_000, 1_024, 4_096]) {
            for size in [1e-12f32, 1e-3, 1.0, 1e12] {
                let mut random = || {
                    let unit = |bits: u64| (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                    (0..dim).map(|_| unit(next(&mut seed)) * size).collect::<Vec<_>>()
                };
                let (a, b) = (random(), random());
                // f32 sums of n terms err by at most n ulps of the sum of their sizes.
                let bound = |terms: f64| (terms * dim as f64 * f64::from(f32::EPSILON)) as f32;
                let dots = a.iter().zip(&b).map(|(x, y)| f64::from(x * y).abs()).sum();
                let (got, expected) = (dot_f32(&a, &b), scalar::dot_f32(&a, &b));
                assert!((got - expected).abs() <= bound(dots), "dot, dim {dim}: {got} and {expected}");
                let (got, expected) = (l2sq_f32(&a, &b), scalar::l2sq_f32(&a, &b));
                assert!((got - expected).abs() <= bound(f64::from(expected)), "l2sq, dim {dim}: {got}, {expected}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn unequal_lengths_are_refused() {
        dot_f32(&[1.0, 2.0], &[1.0]);
    }

    #[test]
    #[should_panic(expected = "2 and 1")]
    fn unequal_code_lengths_are_refused() {
        CodeKernel::detect().dot(&[1, 2], &[1], 0);
    }

    #[test]
    fn prefetching_takes_any_slice() {
        prefetch::<f32>(&[]);
        prefetch(&[1.0f32; 5_000]);
        prefetch(&[1i8; 7]);
    }
}
