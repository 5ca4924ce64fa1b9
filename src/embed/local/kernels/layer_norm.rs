//! Layer normalisation of each row, in place.

use super::simd::Simd;

/// Operands of [`run`].
pub(super) struct Args<'a> {
    /// First element of the matrix, shape `[count, weight.len()]`.
    pub x: *mut f32,
    pub stride: usize,
    pub count: usize,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// Makes each row's mean 0 and variance 1, then applies weight and bias.
///
/// # Safety
/// `Simd`'s promise; `x` covers its matrix; weight and bias have one length, a multiple of `S::LANES`.
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(args: &Args) {
    let width = args.weight.len();
    let (weight, bias) = (args.weight.as_ptr(), args.bias.as_ptr());
    for index in 0..args.count {
        // SAFETY: the caller's promise; every offset is below `width`.
        unsafe {
            let row = args.x.add(index * args.stride);
            let mut total = S::zero();
            for k in (0..width).step_by(S::LANES) {
                total = S::add(total, S::load(row.add(k)));
            }
            let mean = S::splat(S::sum(total) / width as f32);
            let mut squares = S::zero();
            for k in (0..width).step_by(S::LANES) {
                let centred = S::sub(S::load(row.add(k)), mean);
                squares = S::mul_add(centred, centred, squares);
            }
            let variance = S::sum(squares) / width as f32;
            let scale = S::splat(1.0 / (variance + args.epsilon).sqrt());
            for k in (0..width).step_by(S::LANES) {
                let x = S::mul(S::sub(S::load(row.add(k)), mean), scale);
                S::store(row.add(k), S::mul_add(x, S::load(weight.add(k)), S::load(bias.add(k))));
            }
        }
    }
}
