//! Kernels between a row of half-precision numbers and a query of f32. simsimd has none for such a pair, and rounding
//! the query too would double the error.

use crate::types::half;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Numbers that the kernels below take at once; those that are left over are summed one by one.
const LANES: usize = 32;

/// Dot product of a row and a query. `row`: bits of binary16 numbers.
///
/// # Panics
/// When the lengths differ.
#[inline]
pub fn dot_f16(row: &[u16], query: &[f32]) -> f32 {
    sum::<false>(HalfKernel::detect(), row, query)
}

/// Squared Euclidean distance of a row and a query. `row`: bits of binary16 numbers.
///
/// # Panics
/// When the lengths differ.
#[inline]
pub fn l2sq_f16(row: &[u16], query: &[f32]) -> f32 {
    sum::<true>(HalfKernel::detect(), row, query)
}

/// The implementation that this machine runs fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HalfKernel {
    Portable,
    /// Made only where the machine has the instructions, as the one below.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl HalfKernel {
    #[inline]
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if has_avx2() {
                return Self::Avx2;
            }
        }
        Self::Portable
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") && is_x86_feature_detected!("fma")
}

/// The sum of squared differences with `L2`, else of products.
#[inline]
fn sum<const L2: bool>(kernel: HalfKernel, row: &[u16], query: &[f32]) -> f32 {
    assert_eq!(row.len(), query.len());
    let ((rows, row_rest), (queries, query_rest)) = (row.as_chunks::<LANES>(), query.as_chunks::<LANES>());
    let whole: f32 = match kernel {
        HalfKernel::Portable => rows.iter().zip(queries).map(|(row, query)| portable::<L2>(row, query)).sum(),
        // SAFETY: `detect` made this variant, so the machine has the instructions.
        #[cfg(target_arch = "x86_64")]
        HalfKernel::Avx2 => unsafe { avx2::<L2>(rows, queries) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        HalfKernel::Avx512 => unsafe { avx512::<L2>(rows, queries) },
    };
    whole + portable::<L2>(row_rest, query_rest)
}

/// In eight sums, so that each addition need not wait for the one before it.
#[inline]
fn portable<const L2: bool>(row: &[u16], query: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (row, query) in row.chunks(8).zip(query.chunks(8)) {
        for ((sum, &bits), &y) in sums.iter_mut().zip(row).zip(query) {
            let x = half::widen(bits);
            *sum += if L2 { (x - y) * (x - y) } else { x * y };
        }
    }
    sums.iter().sum()
}

/// # Safety
/// The machine has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const L2: bool>(rows: &[[u16; LANES]], queries: &[[f32; LANES]]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 2];
    for (row, query) in rows.iter().zip(queries) {
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: each array has 32 numbers, of which the 16 from `16 * part` are read; no alignment is needed.
            // Covered by `kernels_agree_with_scalar`.
            let (x, y) = unsafe {
                let bits = _mm256_loadu_si256(row.as_ptr().add(16 * part).cast());
                (_mm512_cvtph_ps(bits), _mm512_loadu_ps(query.as_ptr().add(16 * part)))
            };
            let (a, b) = if L2 { (_mm512_sub_ps(x, y), _mm512_sub_ps(x, y)) } else { (x, y) };
            *sum = _mm512_fmadd_ps(a, b, *sum);
        }
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
}

/// # Safety
/// The machine has AVX2, F16C and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c,fma")]
unsafe fn avx2<const L2: bool>(rows: &[[u16; LANES]], queries: &[[f32; LANES]]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    for (row, query) in rows.iter().zip(queries) {
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: each array has 32 numbers, of which the 8 from `8 * part` are read; no alignment is needed.
            // Covered by `kernels_agree_with_scalar`.
            let (x, y) = unsafe {
                let bits = _mm_loadu_si128(row.as_ptr().add(8 * part).cast());
                (_mm256_cvtph_ps(bits), _mm256_loadu_ps(query.as_ptr().add(8 * part)))
            };
            let (a, b) = if L2 { (_mm256_sub_ps(x, y), _mm256_sub_ps(x, y)) } else { (x, y) };
            *sum = _mm256_fmadd_ps(a, b, *sum);
        }
    }
    let all = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let mut lanes = [0.0f32; 8];
    // SAFETY: the array has the register's 8 numbers.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), all) };
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::scalar;
    use super::*;

    fn kernels() -> Vec<HalfKernel> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
        let mut all = vec![HalfKernel::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                all.push(HalfKernel::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                all.push(HalfKernel::Avx512);
            }
        }
        all
    }

    #[test]
    fn kernels_agree_with_scalar() {
        let mut state = 3u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        for dim in (1..=200).chain([384, 768, 1_000, 1_024, 4_096]) {
            for size in [1e-6f32, 1.0, 6e4] {
                let row: Vec<u16> = (0..dim).map(|_| half::narrow(random() * size)).collect();
                let wide: Vec<f32> = row.iter().map(|&bits| half::widen(bits)).collect();
                let query: Vec<f32> = (0..dim).map(|_| random() * size).collect();
                let (dot, l2sq) = (scalar::dot_f32(&wide, &query), scalar::l2sq_f32(&wide, &query));
                let bound = |terms: f32| terms * dim as f32 * f32::EPSILON;
                let dots: f32 = wide.iter().zip(&query).map(|(x, y)| (x * y).abs()).sum();
                for kernel in kernels() {
                    let got = sum::<false>(kernel, &row, &query);
                    assert!((got - dot).abs() <= bound(dots), "{kernel:?} dot, dim {dim}: {got} and {dot}");
                    let got = sum::<true>(kernel, &row, &query);
                    assert!((got - l2sq).abs() <= bound(l2sq), "{kernel:?} l2sq, dim {dim}: {got} and {l2sq}");
                }
            }
        }
    }

    #[test]
    fn the_chosen_kernel_is_one_that_was_tested() {
        assert!(kernels().contains(&HalfKernel::detect()));
        assert_eq!((dot_f16(&[0x3c00], &[3.0]), l2sq_f16(&[0x3c00], &[3.0])), (3.0, 4.0));
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn unequal_lengths_are_refused() {
        dot_f16(&[1, 2], &[1.0]);
    }
}
