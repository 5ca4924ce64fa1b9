//! f32 to the 16-bit numbers of pgvector's `halfvec`.

use crate::types::half;

/// From here on the nearest binary16 number is infinite.
const OVERFLOW: f32 = 65_520.0;

/// The bits of the nearest binary16 number, ties to even (IEEE 754), as pgvector rounds; it refuses infinite ones.
pub(super) fn half_bits(x: f32) -> u16 {
    match x.abs() < OVERFLOW {
        true => half::narrow(x),
        false => (((x.to_bits() >> 16) & 0x8000) as u16) | 0x7c00,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_and_ties() {
        let cases = [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65504.0, 0x7bff),
            (65519.0, 0x7bff),
            (-65520.0, 0xfc00),
            (f32::MAX, 0x7c00),
            (0.1, 0x2e66),
            (5.960_464_5e-8, 0x0001),
            (6.097_555e-5, 0x03ff),
            (1.000_488_3, 0x3c00),
            (1.001_464_8, 0x3c02),
            (2.980_232_2e-8, 0x0000),
            (2.0 - f32::EPSILON, 0x4000),
        ];
        for (x, bits) in cases {
            assert_eq!(half_bits(x), bits, "{x}");
        }
    }
}
