//! exp, GELU and SiLU on registers.

use super::simd::Simd;

/// e^x within 2e-7 of its value, for x up to 0; below -87 it stays at e^-87, about 2e-38.
///
/// Cody and Waite's reduction to |r| <= ln 2 / 2, then the polynomial of Cephes' expf.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::F32) -> S::F32 {
    const POLYNOMIAL: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // SAFETY: the caller's promise of `Simd`.
    unsafe {
        let x = S::max(x, S::splat(-87.0));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::neg_mul_add(n, S::splat(0.693_359_4), x);
        let r = S::neg_mul_add(n, S::splat(-2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in POLYNOMIAL {
            p = S::mul_add(p, r, S::splat(c));
        }
        let p = S::mul_add(p, S::mul(r, r), S::add(r, S::splat(1.0)));
        S::scale_by_power_of_two(p, n)
    }
}

/// x (1 + erf(x / sqrt 2)) / 2, the exact form that BERT wants.
///
/// erf by Abramowitz and Stegun 7.1.26, whose absolute error is below 1.5e-7.
#[inline(always)]
pub(super) unsafe fn gelu<S: Simd>(x: S::F32) -> S::F32 {
    const POLYNOMIAL: [f32; 4] = [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6];
    // SAFETY: the caller's promise of `Simd`.
    unsafe {
        let z = S::mul(S::abs(x), S::splat(std::f32::consts::FRAC_1_SQRT_2));
        // Beyond 10, erf is 1 in f32; the bound keeps z * z finite for any finite x.
        let z = S::sub(S::zero(), S::max(S::sub(S::zero(), z), S::splat(-10.0)));
        let t = S::reciprocal(S::mul_add(z, S::splat(0.327_591_1), S::splat(1.0)));
        let mut p = S::splat(1.061_405_4);
        for c in POLYNOMIAL {
            p = S::mul_add(p, t, S::splat(c));
        }
        let e = exp::<S>(S::sub(S::zero(), S::mul(z, z)));
        let erf_of_abs = S::neg_mul_add(S::mul(p, t), e, S::splat(1.0));
        let half = S::mul(x, S::splat(0.5));
        S::mul_add(S::abs(half), erf_of_abs, half)
    }
}

/// x / (1 + e^-x).
#[inline(always)]
pub(super) unsafe fn silu<S: Simd>(x: S::F32) -> S::F32 {
    // SAFETY: the caller's promise of `Simd`.
    unsafe {
        let e = exp::<S>(S::sub(S::zero(), S::abs(x)));
        let positive = S::max(x, S::zero());
        let negative = S::sub(x, positive);
        S::mul(S::mul_add(negative, e, positive), S::reciprocal(S::add(S::splat(1.0), e)))
    }
}
