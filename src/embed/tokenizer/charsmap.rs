//! SentencePiece's table of replacements, checked before the tokenizers crate reads it.
//!
//! The table is base64 in the file: the length in bytes of a trie of u32 (little-endian u32), the trie, then the
//! replacements, each ended by a zero byte. The trie's values are positions among the replacements.

/// Bytes of the longest replacement, or of the whole text where it is read from the middle of one.
///
/// # Errors
/// In words, why it is not such a table.
pub(super) fn longest_replacement(base64: &str) -> Result<usize, String> {
    let table = decode(base64.as_bytes()).ok_or("its table of replacements is not base64")?;
    let (length, rest) = table.split_first_chunk::<4>().ok_or("its table of replacements is cut short")?;
    let length = u32::from_le_bytes(*length) as usize;
    // The crate would reserve room for as long a trie as it says.
    let replacements = rest.get(length..).ok_or("its table of replacements is shorter than it says")?;
    if length < 4 {
        return Err("its table of replacements is empty".to_owned());
    }
    Ok(replacements.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0))
}

/// Standard base64 with padding; `None` for anything else.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            bits = bits << 6 | u32::from(value(digit)?);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
pub(in crate::embed) mod tests {
    use super::*;

    /// Standard base64.
    pub(in crate::embed) fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for i in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * i)) as usize % 64] as char;
                text.push(if i <= group.len() { digit } else { '=' });
            }
        }
        text
    }

    #[test]
    fn base64_is_the_standard_one() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(decode(text.as_bytes()).unwrap(), bytes.as_bytes());
            assert_eq!(encode(bytes.as_bytes()), text);
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(encode(&all).as_bytes()).unwrap(), all);
        for text in ["Z", "Zg=", "Z=g=", "Zm9v\n", "====", "Zm9*"] {
            assert!(decode(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn tables_that_lie_about_their_length_are_refused() {
        let table = |length: u32, rest: &[u8]| encode(&[&length.to_le_bytes(), rest].concat());
        assert_eq!(longest_replacement(&table(4, b"tttta\0bcd\0")), Ok(3));
        assert_eq!(longest_replacement(&table(4, b"tttt")), Ok(0));
        for hostile in [table(u32::MAX, b"tttt"), table(5, b"tttt"), table(0, b"a\0"), "AAA=".to_owned(), String::new()]
        {
            assert!(longest_replacement(&hostile).is_err(), "{hostile}");
        }
    }
}
