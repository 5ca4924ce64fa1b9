//! Decimal numbers as clients print them, faster than the standard library reads them.

/// Digits of a mantissa that a u64 holds.
const MAX_DIGITS: usize = 19;
/// Powers of ten that an f64 holds exactly (Clinger 1990).
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Bits of an f64's mantissa that an f32 has not.
const DROPPED_BITS: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
/// Last places of an f64 by which the quotient below may be off: half a one for the mantissa, doubled where the
/// quotient has a smaller exponent, half a one for the division, and one to spare.
const MAX_ERROR: u64 = 3;

/// The number that `text` begins with, as the standard library reads it, and its length; `None` where that has to do
/// it: long mantissas, exponents, and what lies next to the middle between two f32. `text`: a part of valid JSON.
#[inline]
pub(super) fn decimal(text: &[u8]) -> Option<(f32, usize)> {
    let is_negative = text.first() == Some(&b'-');
    let start = usize::from(is_negative);
    let (mut mantissa, whole) = digits(text, start, 0);
    let (mut at, mut decimals) = (start + whole, 0);
    if text.get(at) == Some(&b'.') {
        (mantissa, decimals) = digits(text, at + 1, mantissa);
        at += 1 + decimals;
        if decimals == 0 {
            return None;
        }
    }
    let ends = matches!(text.get(at), None | Some(b',' | b' ' | b'\t' | b'\n' | b'\r'));
    let mut significant = whole + decimals;
    if significant > MAX_DIGITS {
        // What begins with zeros may be as long again by as many.
        let zeros = text[start..].iter().take_while(|byte| matches!(byte, b'0' | b'.')).count();
        significant -= zeros.saturating_sub(1).min(significant);
    }
    if whole == 0 || significant > MAX_DIGITS || decimals >= POWERS.len() || !ends {
        return None;
    }
    let size = mantissa as f64 / POWERS[decimals];
    let dropped = size.to_bits() & ((1 << DROPPED_BITS) - 1);
    let is_clear = dropped.abs_diff(1 << (DROPPED_BITS - 1)) > MAX_ERROR && size >= f64::from(f32::MIN_POSITIVE);
    if !is_clear && mantissa != 0 {
        return None;
    }
    Some((f32::from_bits((size as f32).to_bits() | (u32::from(is_negative) << 31)), at))
}

/// Continues `mantissa` by the digits that stand from `at` on; how many there are.
#[inline]
fn digits(text: &[u8], at: usize, mut mantissa: u64) -> (u64, usize) {
    const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
    let mut count = 0;
    while let Some(eight) = text[at + count..].first_chunk() {
        let (number, read) = leading_digits(eight);
        mantissa = mantissa.wrapping_mul(TENS[read]).wrapping_add(number);
        count += read;
        if read < eight.len() {
            return (mantissa, count);
        }
    }
    while let Some(digit) = text.get(at + count).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
        mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        count += 1;
    }
    (mantissa, count)
}

/// The number that the digits are which `text` begins with, and how many they are. In pairs, fours and eight at once
/// (Lemire, "Number parsing at a gigabyte per second", 2021).
#[inline]
fn leading_digits(text: &[u8; 8]) -> (u64, usize) {
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let values = u64::from_le_bytes(*text) ^ u64::from_le_bytes([b'0'; 8]);
    // A sum beyond 127 in each byte that is no digit, and no carry into the next.
    let beyond = (values & u64::from_le_bytes([0x7f; 8])).wrapping_add(u64::from_le_bytes([0x7f - 9; 8])) | values;
    let others = beyond & u64::from_le_bytes([0x80; 8]);
    let count = others.trailing_zeros() / 8;
    // Zeros in front of them, in two steps, since no digit at all would be a shift by all bits.
    let digits = (values << (4 * (8 - count))) << (4 * (8 - count));
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let low = ((pairs >> 16) & PAIRS).wrapping_mul(1 + (10_000 << 32));
    (high.wrapping_add(low) >> 32, count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_as_the_standard_library_does() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 11
        };
        let mut read = 0;
        for round in 0..200_000u64 {
            let float = f32::from_bits(next() as u32);
            // Every length of a mantissa, f32 as an f64 is printed, and middles between two f32 with what is next to
            // them.
            let middle = f64::from(float) + f64::from(float) * f64::from(f32::EPSILON) / 2.0;
            let text = match round % 7 {
                0 => format!("{}.{}", next() % 10u64.pow((next() % 10) as u32), next()),
                1 => format!("-0.{:0width$}", next() % 1_000_000_007, width = (next() % 19) as usize + 1),
                2 => format!("{}", f64::from(float)),
                3 => format!("{float}"),
                4 => format!("{middle}"),
                5 => format!("0.{}{}", "0".repeat((next() % 24) as usize), next()),
                _ => format!("{}", f64::from_bits(middle.to_bits().wrapping_add(next() % 9).wrapping_sub(4))),
            };
            if let Some((number, length)) = decimal(text.as_bytes()) {
                assert_eq!((number.to_bits(), length), (text.parse::<f32>().unwrap().to_bits(), text.len()), "{text}");
                read += 1;
            }
        }
        assert!(read > 50_000, "{read} were read");
        for text in ["0", "-0", "-0.0", "1", "0.1", "16777219.5", "9999999999999999999", "0.3333333432674408"] {
            let wanted: f32 = text.parse().unwrap();
            assert_eq!(decimal(text.as_bytes()).map(|(number, _)| number.to_bits()), Some(wanted.to_bits()), "{text}");
        }
        for text in [
            "1e5",
            "1.",
            ".5",
            "-",
            "",
            "+1",
            "1E2",
            "1x",
            "12345678901234567890",
            "1e-46",
            "16777217",
            "16777217.0000000001",
        ] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn digits_are_read_as_many_as_there_are() {
        for number in [0u64, 1, 9, 10, 12_345_678, 87_654_321, 99_999_999, 10_000_000, 90_909_090] {
            let text = format!("{number:08}");
            assert_eq!(leading_digits(text.as_bytes().first_chunk().unwrap()), (number, 8));
        }
        for at in 0..8 {
            for byte in 0..=255u8 {
                let mut text = *b"12345678";
                text[at] = byte;
                let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = str::from_utf8(&text[..count]).unwrap().parse().unwrap_or(0);
                assert_eq!(leading_digits(&text), (number, count), "{text:?}");
            }
        }
    }
}
