//! One pass over JSON text before it is parsed: nesting, and integers that no 64 bits hold.
//!
//! The parser itself allows more nesting than we do and reads an integer that is too long as a float, which would
//! change a client's number without a word.

use crate::types::limits::MAX_JSON_DEPTH;

/// Digits of the longest i64, without its sign.
const MAX_I64_DIGITS: usize = 19;
/// Most characters of a number that an error repeats.
const SHOWN_DIGITS: usize = 40;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScanError {
    /// Nesting passes [`MAX_JSON_DEPTH`] at this byte.
    TooDeep { offset: usize },
    /// An integer outside i64.
    Integer { digits: String },
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

/// Checks text that need not be valid JSON: what is not is left for the parser to refuse.
pub(crate) fn scan(text: &[u8]) -> Result<(), ScanError> {
    let (mut depth, mut digits, mut at) = (0usize, 0usize, 0usize);
    while let Some(&byte) = text.get(at) {
        let kind = KINDS[usize::from(byte)];
        at += 1;
        // Most bytes of most bodies are those of numbers, and no branch tells them apart.
        digits = (digits + 1) * usize::from(kind == Kind::Digit);
        match kind {
            Kind::Other => {}
            Kind::Digit if digits < MAX_I64_DIGITS => {}
            Kind::Digit => {
                let start = number_start(text, at);
                at = number_end(text, at);
                check_number(&text[start..at])?;
            }
            Kind::Quote => at = string_end(text, at),
            Kind::Opening if depth == MAX_JSON_DEPTH => return Err(ScanError::TooDeep { offset: at - 1 }),
            Kind::Opening => depth += 1,
            Kind::Closing => depth = depth.saturating_sub(1),
        }
    }
    Ok(())
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

fn check_number(number: &[u8]) -> Result<(), ScanError> {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    if digits.len() < MAX_I64_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    let text = std::str::from_utf8(number).unwrap_or_default();
    match text.parse::<i64>() {
        Ok(_) => Ok(()),
        Err(_) => Err(ScanError::Integer { digits: text.chars().take(SHOWN_DIGITS).collect() }),
    }
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
            assert_eq!(scan(body.as_bytes()), Err(ScanError::Integer { digits: outside.into() }), "{outside}");
        }
    }

    #[test]
    fn broken_text_is_left_to_the_parser() {
        for text in ["\"", "\"\\", "}}}]", "-", "{\"a", "\u{feff}"] {
            assert_eq!(scan(text.as_bytes()), Ok(()), "{text}");
        }
    }
}
