//! IEEE half precision: how numbers are narrowed to it, and widened where no instruction of the processor is at hand.

/// Largest half-precision number.
pub const MAX: f32 = 65_504.0;

/// The nearest half-precision number, ties to even. What is beyond its range becomes its largest number, NaN stays NaN.
pub fn narrow(x: f32) -> u16 {
    let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
    if x.is_nan() {
        return sign | 0x7e00;
    }
    let magnitude = x.abs().min(MAX);
    // Below 2^-14 numbers are multiples of 2^-24, and adding 2^-1 leaves just these bits; above, 13 bits are rounded
    // away.
    let bits = if magnitude < f32::from_bits(0x3880_0000) {
        (magnitude + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        let bits = magnitude.to_bits();
        (bits + 0xfff + ((bits >> 13) & 1) - (112 << 23)) >> 13
    };
    sign | bits as u16
}

/// The same number in f32.
#[inline(always)]
pub fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let rest = u32::from(half & 0x7fff);
    let magnitude = match rest >> 10 {
        0 => f32::from_bits(0.5f32.to_bits() + rest) - 0.5,
        31 => f32::from_bits(0x7f80_0000 | (rest << 13)),
        _ => f32::from_bits((rest << 13) + (112 << 23)),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back() {
        for half in 0..=u16::MAX {
            let wide = widen(half);
            if (half & 0x7fff) < 0x7c00 {
                assert_eq!(narrow(wide), half, "{half:#06x} is {wide}");
            } else {
                assert_eq!(wide.is_nan(), half & 0x3ff != 0, "{half:#06x} is {wide}");
            }
        }
        assert_eq!((widen(0x3c00), widen(0xc000), widen(1)), (1.0, -2.0, 2f32.powi(-24)));
    }

    #[test]
    fn rounding_is_to_the_nearest_and_ties_to_even() {
        for (x, half) in [
            (1.0 + 1.0 / 2048.0, 0x3c00),
            (1.0 + 3.0 / 2048.0, 0x3c02),
            (1.0 + 1.1 / 2048.0, 0x3c01),
            (2f32.powi(-25), 0),
            (1.5 * 2f32.powi(-24), 2),
            (-1e9, 0xfbff),
            (65_519.0, 0x7bff),
            (-0.0, 0x8000),
        ] {
            assert_eq!(narrow(x), half, "{x}");
        }
        assert!(widen(narrow(f32::NAN)).is_nan());
    }
}
