//! Vectors as JSON arrays of numbers.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::types::limits::MAX_DIM;

/// How the message of a refused component starts.
pub(super) const REFUSED: &str = "vector component";

/// f32, shape `[n]`, every component finite.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct WireVector(pub(crate) Vec<f32>);

impl<'de> Deserialize<'de> for WireVector {
    /// Only from JSON text that outlives the value: the parser finds where the array ends, and its numbers are read by
    /// the standard library, several times as fast as one by one through serde.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        numbers(text).map(Self).map_err(D::Error::custom)
    }
}

/// The numbers of an array, or what is wrong with it. `text`: valid JSON.
fn numbers(text: &str) -> Result<Vec<f32>, String> {
    let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) else {
        return Err(wrong_type(text));
    };
    // A component as most clients print it has a dozen characters.
    let mut vector = Vec::with_capacity((inside.len() / 12 + 1).min(MAX_DIM));
    if inside.trim_ascii().is_empty() {
        return Ok(vector);
    }
    let mut rest = inside;
    loop {
        rest = rest.trim_ascii_start();
        let (component, length) = match decimal(rest.as_bytes()) {
            Some(read) => read,
            None => {
                let length = rest.find(',').unwrap_or(rest.len());
                (rest[..length].trim_ascii_end().parse().map_err(|_| wrong_type(text))?, length)
            }
        };
        let number = &rest[..length];
        rest = rest[length..].trim_ascii_start();
        if !component.is_finite() {
            return Err(format!("{REFUSED} {} is {number:.40}, more than an f32 holds", vector.len()));
        }
        if vector.len() == MAX_DIM {
            return Err(format!("{REFUSED} {MAX_DIM} is one too many; the largest dim is {MAX_DIM}"));
        }
        vector.push(component);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Ok(vector),
            None => return Err(wrong_type(text)),
        }
    }
}

/// Digits of a mantissa that a u64 holds.
const MAX_DIGITS: usize = 19;
/// Powers of ten that an f64 holds exactly (Clinger 1990).
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Bits of an f64's mantissa that an f32 has not.
const DROPPED_BITS: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
/// Last places of an f64 by which the quotient below may be off: half a one for the mantissa, doubled where the quotient
/// has a smaller exponent, half a one for the division, and one to spare.
const MAX_ERROR: u64 = 3;

/// The number that `text` begins with, as the standard library reads it, and its length; `None` where that has to do it:
/// long mantissas, exponents, and what lies next to the middle between two f32. `text`: a part of valid JSON.
fn decimal(text: &[u8]) -> Option<(f32, usize)> {
    let is_negative = text.first() == Some(&b'-');
    let start = usize::from(is_negative);
    let (mut mantissa, mut at) = (0u64, start);
    let digits = |mantissa: &mut u64, at: &mut usize| {
        let from = *at;
        while let Some(eight) = text[*at..].first_chunk().and_then(eight_digits) {
            *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight);
            *at += 8;
        }
        while let Some(digit) = text.get(*at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            *at += 1;
        }
        *at - from
    };
    let whole = digits(&mut mantissa, &mut at);
    let mut decimals = 0;
    if text.get(at) == Some(&b'.') {
        at += 1;
        decimals = digits(&mut mantissa, &mut at);
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
    let rounded = size as f32;
    Some((if is_negative { -rounded } else { rounded }, at))
}

/// The number that eight digits are; `None` where not all are. In pairs, fours and eight at once (Lemire, "Number parsing at a
/// gigabyte per second", 2021).
fn eight_digits(text: &[u8; 8]) -> Option<u64> {
    const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
    const HIGH: u64 = u64::from_le_bytes([0xf0; 8]);
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let word = u64::from_le_bytes(*text);
    // Beyond 9, six more reaches into the next sixteen.
    if word & HIGH != ZEROS || word.wrapping_add(u64::from_le_bytes([6; 8])) & HIGH != ZEROS {
        return None;
    }
    let digits = word - ZEROS;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let low = ((pairs >> 16) & PAIRS).wrapping_mul(1 + (10_000 << 32));
    Some(high.wrapping_add(low) >> 32)
}

/// What is no array of numbers, in the words of the parser, without the place, which would be one within the value.
fn wrong_type(text: &str) -> String {
    let error = serde_json::from_str::<Vec<f64>>(text).err().map(|error| error.to_string()).unwrap_or_default();
    error.rsplit_once(" at line ").map_or(error.as_str(), |(what, _)| what).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<f32>, String> {
        serde_json::from_str::<WireVector>(text).map(|v| v.0).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_written_is_read_back_bit_for_bit() {
        let vector = [0.1f32, -0.0, 1.0, f32::MIN_POSITIVE, f32::MAX, 1e-45, -3.402_823e38, 16_777_217.0, 0.333_333_34];
        let text = serde_json::to_string(&vector).unwrap();
        assert!(text.starts_with("[0.1,-0.0,1.0,"), "{text}");
        let back = read(&text).unwrap();
        assert_eq!(back.map_bits(), vector.map_bits());
    }

    trait Bits {
        fn map_bits(&self) -> Vec<u32>;
    }

    impl<T: AsRef<[f32]>> Bits for T {
        fn map_bits(&self) -> Vec<u32> {
            self.as_ref().iter().map(|x| x.to_bits()).collect()
        }
    }

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
            // Every length of a mantissa, f32 as an f64 is printed, and middles between two f32 with what is next to them.
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
    fn eight_digits_are_read_at_once_and_nothing_else_is() {
        for number in [0u64, 1, 9, 10, 12_345_678, 87_654_321, 99_999_999, 10_000_000, 90_909_090] {
            let text = format!("{number:08}");
            assert_eq!(eight_digits(text.as_bytes().first_chunk().unwrap()), Some(number));
        }
        for at in 0..8 {
            for byte in 0..=255u8 {
                let mut text = *b"12345678";
                text[at] = byte;
                let read = str::from_utf8(&text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
                assert_eq!(eight_digits(&text), read.map(|t| t.parse().unwrap()), "{text:?}");
            }
        }
    }

    #[test]
    fn integers_are_numbers_and_overflow_is_refused() {
        assert_eq!(read("[1, -2, 3.5]"), Ok(vec![1.0, -2.0, 3.5]));
        for text in ["[1, 1e39]", "[1, -1e300]", "[1, 1e999]"] {
            assert!(read(text).unwrap_err().starts_with("vector component 1 is"), "{text}");
        }
        for text in
            ["[\"1\"]", "[null]", "[[1]]", "1", "{}", "[1,]", "[,1]", "[inf]", "[+1]", "[.5]", "[1.]", "[1 2]", "[1"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read(" [ ] "), Ok(Vec::new()));
        assert_eq!(read("\t[ 1 ,\n2E0\r, -0.5e1 ]"), Ok(vec![1.0, 2.0, -5.0]));
        let error = read("[1, \"2\"]").unwrap_err();
        assert_eq!(error, "invalid type: string \"2\", expected f64");
        assert!(read(&format!("[{}0]", "0,".repeat(MAX_DIM))).unwrap_err().contains("one too many"));
    }
}
