//! f32 to the 16-bit numbers of pgvector's `halfvec`.

/// The bits of the nearest binary16 number, ties to even (IEEE 754), as pgvector rounds.
pub(super) fn half_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127;
    let mantissa = bits & 0x7f_ffff;
    let rounded = |value: u32, dropped: u32| -> u16 {
        let half = 1u32 << (dropped - 1);
        let (kept, rest) = (value >> dropped, value & ((1 << dropped) - 1));
        let up = rest > half || (rest == half && kept & 1 == 1);
        (kept + u32::from(up)) as u16
    };
    match exponent {
        16.. => sign | 0x7c00,
        // A carry out of the mantissa goes into the exponent, as it should.
        -14..=15 => sign + (((exponent + 15) as u16) << 10) + rounded(mantissa, 13),
        -25..=-15 => sign | rounded(mantissa | 0x80_0000, (-1 - exponent) as u32),
        _ => sign,
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
