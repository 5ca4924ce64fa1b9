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

/// x (1 + erf(x / sqrt 2)) / 2, the exact form that BERT wants, within 8e-7.
///
/// It is max(x, 0) - |x| q(|x|), where q is the normal distribution's upper tail: a polynomial of least error of |x| q(|x|) for
/// |x| up to 5.25, beyond which the product is less than 4e-7. What is not a number stays one.
#[inline(always)]
pub(super) unsafe fn gelu<S: Simd>(x: S::F32) -> S::F32 {
    const END: f32 = 5.25;
    const POLYNOMIAL: [f32; 13] = [
        -0.019_899_57,
        -0.005_965_632_4,
        0.077_733_755,
        -0.067_850_076,
        -0.083_631_724,
        0.197_339_13,
        -0.101_198_45,
        -0.120_900_74,
        0.257_595_42,
        -0.225_967_74,
        0.115_051_31,
        -0.033_400_26,
        0.004_332_653,
    ];
    // SAFETY: the caller's promise of `Simd`.
    unsafe {
        let bounded = S::min(S::abs(x), S::splat(END));
        let u = S::mul_add(bounded, S::splat(2.0 / END), S::splat(-1.0));
        let mut tail = S::splat(0.006_761_892_7);
        for c in POLYNOMIAL {
            tail = S::mul_add(tail, u, S::splat(c));
        }
        // `max` gives its second operand where one is no number.
        S::neg_mul_add(bounded, tail, S::max(S::zero(), x))
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
