//! One pass over JSON text before it is parsed: nesting, and integers that no 64 bits hold.
//!
//! The parser itself allows more nesting than we do and reads an integer that is too long as a float, which would
//! change a client's number without a word.

use crate::types::limits::MAX_JSON_DEPTH;

/// Digits of the longest i64, without its sign.
const MAX_I64_DIGITS: usize = 19;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScanError {
    /// Nesting passes [`MAX_JSON_DEPTH`] at this byte.
    TooDeep { offset: usize },
    /// An integer outside i64 begins at this byte.
    Integer { offset: usize },
}

/// What a byte outside of strings may change.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Other,
    Digit,
    Quote,
    Opening,
    Closing,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Other; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        kinds[digit as usize] = Kind::Digit;
        digit += 1;
    }
    kinds[b'"' as usize] = Kind::Quote;
    (kinds[b'{' as usize], kinds[b'[' as usize]) = (Kind::Opening, Kind::Opening);
    (kinds[b'}' as usize], kinds[b']' as usize]) = (Kind::Closing, Kind::Closing);
    kinds
};

/// Bytes looked at together.
const BLOCK: usize = 64;

/// Checks text that need not be valid JSON: what is not is left for the parser to refuse.
pub(crate) fn scan(text: &[u8]) -> Result<(), ScanError> {
    let (mut depth, mut digits, mut at, mut plain_from) = (0usize, 0usize, 0usize, 0usize);
    while let Some(&byte) = text.get(at) {
        // Bodies are mostly numbers, and strings are passed over elsewhere.
        if at >= plain_from {
            while let Some(block) = text[at..].first_chunk()
                && let Some(last) = plain_block(block, digits)
            {
                (digits, at) = (last, at + BLOCK);
            }
            plain_from = at + BLOCK;
            continue;
        }
        let kind = KINDS[usize::from(byte)];
        at += 1;
        // No branch tells the bytes of numbers apart.
        digits = (digits + 1) * usize::from(kind == Kind::Digit);
        match kind {
            Kind::Other => {}
            Kind::Digit if digits < MAX_I64_DIGITS => {}
            Kind::Digit => {
                let start = number_start(text, at);
                at = number_end(text, at);
                if !is_fine(&text[start..at]) {
                    return Err(ScanError::Integer { offset: start });
                }
            }
            Kind::Quote => at = string_end(text, at),
            Kind::Opening if depth == MAX_JSON_DEPTH => return Err(ScanError::TooDeep { offset: at - 1 }),
            Kind::Opening => depth += 1,
            Kind::Closing => depth = depth.saturating_sub(1),
        }
    }
    Ok(())
}

/// With how many digits in a row the block ends, where nothing in it changes the depth, begins a string or may be an
/// integer that is too long. `digits`: in a row, right before it. Those that follow a point are not counted, as long as
/// they stand in one block with it.
fn plain_block(block: &[u8; BLOCK], digits: usize) -> Option<usize> {
    let Bytes { digit, point, other } = kinds_of(block);
    // Added to the first of a row of ones, a carry goes through them all and ends beyond the last.
    let decimals = digit & !digit.wrapping_add((point << 1) & digit);
    let digit = digit & !decimals;
    // A bit for each place where as many ones as shown begin.
    let of_2 = digit & (digit >> 1);
    let of_4 = of_2 & (of_2 >> 2);
    let of_8 = of_4 & (of_4 >> 4);
    let of_16 = of_8 & (of_8 >> 8);
    let of_19 = of_16 & (of_16 >> 3);
    let first = digits + digit.trailing_ones() as usize;
    let is_plain = !other && of_19 == 0 && first < MAX_I64_DIGITS;
    is_plain.then_some(digit.leading_ones() as usize)
}

/// What stands in a block, a bit for each byte from the lowest on.
#[derive(Debug, PartialEq)]
struct Bytes {
    digit: u64,
    point: u64,
    /// Whether there are quotes or brackets.
    other: bool,
}

fn kinds_of(block: &[u8; BLOCK]) -> Bytes {
    let (mut digit, mut point, mut others) = (0, 0, 0);
    for (at, bytes) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*bytes);
        let nibbles = word ^ every(b'0');
        // A sum beyond 127 in each byte that is no digit, and no carry into the next.
        let no_digit = (nibbles & every(0x7f)).wrapping_add(every(0x7f - 9)) | nibbles;
        digit |= together(!no_digit) << (8 * at);
        point |= together(is(word, b'.')) << (8 * at);
        // One bit tells square brackets from curly ones.
        let brackets = word | every(b'[' ^ b'{');
        others |= is(word, b'"') | is(brackets, b'{') | is(brackets, b'}');
    }
    Bytes { digit, point, other: others & every(0x80) != 0 }
}

const fn every(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The highest bit of each byte that is `byte`; of the other bits nothing is said.
fn is(word: u64, byte: u8) -> u64 {
    let differs = word ^ every(byte);
    !((differs & every(0x7f)).wrapping_add(every(0x7f)) | differs)
}

/// The highest bit of each byte, in eight bits.
fn together(word: u64) -> u64 {
    ((word & every(0x80)) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// The byte after the closing quote of a string whose content starts at `at`.
fn string_end(text: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// Where the number begins that goes on before `at`.
fn number_start(text: &[u8], at: usize) -> usize {
    text[..at].iter().rposition(|byte| !is_part(byte)).map_or(0, |before| before + 1)
}

fn number_end(text: &[u8], at: usize) -> usize {
    text[at..].iter().position(|byte| !is_part(byte)).map_or(text.len(), |length| at + length)
}

fn is_part(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether it is no integer, or one that fits i64.
fn is_fine(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let is_integer = digits.iter().all(u8::is_ascii_digit);
    !is_integer || std::str::from_utf8(number).is_ok_and(|text| text.parse::<i64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings_only() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(scan(nested(MAX_JSON_DEPTH).as_bytes()), Ok(()));
        assert_eq!(scan(nested(MAX_JSON_DEPTH + 1).as_bytes()), Err(ScanError::TooDeep { offset: MAX_JSON_DEPTH }));
        assert_eq!(scan("{\"a\":[1]},".repeat(1_000).as_bytes()), Ok(()));
        let quoted = format!("\"\\\"{}\"", "[".repeat(100));
        assert_eq!(scan(quoted.as_bytes()), Ok(()));
        assert!(scan("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn integers_have_to_fit_i64() {
        for fine in [
            "9223372036854775807",
            "-9223372036854775808",
            "1e400",
            "9223372036854775808.0",
            "\"99999999999999999999\"",
        ] {
            assert_eq!(scan(fine.as_bytes()), Ok(()), "{fine}");
        }
        for outside in ["9223372036854775808", "-9223372036854775809", "18446744073709551616"] {
            let body = format!("{{\"a\":[{outside}]}}");
            assert_eq!(scan(body.as_bytes()), Err(ScanError::Integer { offset: 6 }), "{outside}");
        }
    }

    #[test]
    fn blocks_are_told_apart_as_bytes_are() {
        let all: Vec<u8> = (0..=255).chain(*b"[1.25,-3e7]{\"a\":\"b\"}").chain(0..=255).collect();
        let plain: Vec<u8> = all[..256].iter().copied().filter(|byte| !b"\"[]{}".contains(byte)).collect();
        for block in plain.windows(BLOCK) {
            assert!(!kinds_of(block.first_chunk().unwrap()).other, "{block:?}");
        }
        for block in all.windows(BLOCK) {
            let block = block.first_chunk().unwrap();
            let mut one_by_one = Bytes { digit: 0, point: 0, other: false };
            for (at, &byte) in block.iter().enumerate() {
                match KINDS[usize::from(byte)] {
                    Kind::Other => one_by_one.point |= u64::from(byte == b'.') << at,
                    Kind::Digit => one_by_one.digit |= 1 << at,
                    Kind::Quote | Kind::Opening | Kind::Closing => one_by_one.other = true,
                }
            }
            assert_eq!(kinds_of(block), one_by_one, "{block:?}");
        }
    }

    #[test]
    fn long_integers_are_found_wherever_they_stand() {
        for before in 0..150 {
            for (number, is_fine) in
                [("9223372036854775807", true), ("9223372036854775808", false), ("0.9223372036854775808", true)]
            {
                // Spaces are plain, brackets are not.
                for filling in [" ", "1,", "[]", "\"]\","] {
                    let body =
                        format!("{}{} {number},{}", filling.repeat(before), " ".repeat(before % 7), " ".repeat(99));
                    assert_eq!(scan(body.as_bytes()).is_ok(), is_fine, "{body}");
                }
            }
        }
        let nested = format!("{}{}", " ".repeat(200), "[".repeat(MAX_JSON_DEPTH + 1));
        assert_eq!(scan(nested.as_bytes()), Err(ScanError::TooDeep { offset: 200 + MAX_JSON_DEPTH }));
    }

    #[test]
    fn decimals_of_any_length_are_plain() {
        for length in 1..=59 {
            let block = format!("{:<64}", format!("  7.{},", &"1234567890".repeat(6)[..length]));
            assert_eq!(plain_block(block.as_bytes().first_chunk().unwrap(), 18), Some(0), "{block}");
            // A whole part is counted, wherever it stands.
            for whole in [format!("0.{length},1234567890123456789,"), "1234567890123456789.5,".to_owned()] {
                let block = format!("{whole:<64}");
                assert_eq!(plain_block(block.as_bytes().first_chunk().unwrap(), 0), None, "{whole}");
            }
        }
        assert_eq!(plain_block(&[b'1'; BLOCK], 0), None);
        let ends = format!("{:>64}", "0.25,123");
        assert_eq!(plain_block(ends.as_bytes().first_chunk().unwrap(), 0), Some(3));
    }

    #[test]
    fn broken_text_is_left_to_the_parser() {
        for text in ["\"", "\"\\", "}}}]", "-", "{\"a", "\u{feff}"] {
            assert_eq!(scan(text.as_bytes()), Ok(()), "{text}");
        }
    }
}
