//! exp, GELU and SiLU on registers.

use super::simd::Simd;

/// e^x within 2e-7 of its value, for x up to 0; below -87 it stays at e^-87, about 2e-38. Of no number it makes none.
///
/// Cody and Waite's reduction to |r| <= ln 2 / 2, then the polynomial of Cephes' expf.
///
/// # Safety
/// `Simd`'s promise.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S::F32) -> S::F32 {
    const POLYNOMIAL: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // SAFETY: the caller's promise of `Simd`.
    unsafe {
        // In this order what is no number stays so.
        let x = S::max(S::splat(-87.0), x);
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
///
/// # Safety
/// `Simd`'s promise.
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

/// [`gelu`] within 5e-5, in half the time: erf(|x| / sqrt 2) as |x| times a polynomial in x^2.
///
/// The polynomial was fitted over |x| <= 4.45, beyond which erf is 1 within 1e-5, by least squares whose weights were
/// raised where the result erred most, until the largest error was 2.9e-5.
///
/// # Safety
/// `Simd`'s promise.
#[inline(always)]
pub(super) unsafe fn near_gelu<S: Simd>(x: S::F32) -> S::F32 {
    const END: f32 = 4.45;
    const POLYNOMIAL: [f32; 8] = [
        -7.059_030_7e-9,
        3.330_195_3e-7,
        -9.176_596e-6,
        1.657_496_3e-4,
        -2.092_964_7e-3,
        1.923_012_5e-2,
        -0.132_065_09,
        0.797_476_9,
    ];
    // SAFETY: the caller's promise of `Simd`.
    unsafe {
        let z = S::min(S::abs(x), S::splat(END));
        let square = S::mul(z, z);
        let mut p = S::splat(6.588_224_4e-11);
        for c in POLYNOMIAL {
            p = S::mul_add(p, square, S::splat(c));
        }
        // The end of the fit lies a little above 1.
        let erf_of_abs = S::min(S::mul(p, z), S::splat(1.0));
        let half = S::mul(x, S::splat(0.5));
        S::mul_add(S::abs(half), erf_of_abs, half)
    }
}

/// x / (1 + e^-x).
///
/// # Safety
/// `Simd`'s promise.
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

#[cfg(test)]
mod tests {
    use super::super::scalar::Scalar;
    use super::*;

    #[test]
    fn near_gelu_is_as_near_as_it_says() {
        for x in (-4_000..=4_000).map(|i| i as f32 / 400.0).chain([-1e30, -1e4, 1e4, 1e30, -0.0]) {
            let (mut near, mut exact) = ([0.0; Scalar::LANES], [0.0; Scalar::LANES]);
            // SAFETY: every CPU runs plain Rust; a register is stored to as many numbers as it has.
            unsafe {
                Scalar::store(near.as_mut_ptr(), near_gelu::<Scalar>(Scalar::splat(x)));
                Scalar::store(exact.as_mut_ptr(), gelu::<Scalar>(Scalar::splat(x)));
            }
            let bound = 5e-5f32.max(1e-6 * x.abs());
            assert!((near[0] - exact[0]).abs() <= bound, "{} and {} for {x}", near[0], exact[0]);
        }
    }
}
