//! Numbers of bank accounts with check digits (IBAN, ISO 13616).

use std::ops::Range;

use super::number::is_space;

/// Letters and digits that such a number has, at least and at most.
const LEN: std::ops::RangeInclusive<usize> = 15..=34;

/// Numbers with right check digits, together or in groups of four. They may overlap: where one begins within another,
/// either may be the number that was meant.
pub(super) fn ibans(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let begins = c.is_ascii_alphabetic() && !before.is_alphanumeric();
        before = c;
        if begins
            && let Some(end) = iban_at(text, at)
            && found.last().is_none_or(|last| end > last.end)
        {
            found.push(at..end);
        }
    }
    found
}

/// Where the number ends that begins at `at`: the longest that has right check digits.
fn iban_at(text: &str, at: usize) -> Option<usize> {
    // Longer than any number with its spaces: so a long word is not read to its end at each place in it.
    let rest = &text[at..];
    let rest = rest.char_indices().nth(2 * LEN.end()).map_or(rest, |(end, _)| &rest[..end]);
    let mut characters = Vec::new();
    let mut longest = None;
    let mut end = at;
    for group in rest.split_inclusive(is_space) {
        let len = group.bytes().take_while(u8::is_ascii_alphanumeric).count();
        characters.extend_from_slice(&group.as_bytes()[..len]);
        end += len;
        let is_cut = group[len..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if characters.len() > *LEN.end() || is_cut {
            break;
        }
        if is_iban(&characters) {
            longest = Some(end);
        }
        // Only a group of four is followed by another, after one space.
        let space = &group[len..];
        if len != 4 || space.chars().count() != 1 || !space.chars().all(is_space) {
            break;
        }
        end += space.len();
    }
    longest
}

/// Two letters, two check digits, and a remainder of 1 once those four stand last (ISO 7064, MOD 97-10).
fn is_iban(characters: &[u8]) -> bool {
    let [a, b, c, d, rest @ ..] = characters else { return false };
    let has_form = a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && c.is_ascii_digit() && d.is_ascii_digit();
    if !has_form || !LEN.contains(&characters.len()) {
        return false;
    }
    let remainder = rest.iter().chain(&[*a, *b, *c, *d]).fold(0u32, |sum, c| match c {
        b'0'..=b'9' => (sum * 10 + u32::from(c - b'0')) % 97,
        _ => (sum * 100 + u32::from(c.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_accounts_have_check_digits() {
        let cases: [(&str, &[&str]); 7] = [
            ("DE89370400440532013000", &["DE89370400440532013000"]),
            ("pay DE89 3704 0044 0532 0130 00 today, please", &["DE89 3704 0044 0532 0130 00"]),
            (
                "DE89\u{a0}3704\u{a0}0044\u{a0}0532\u{a0}0130\u{a0}00 DE88 3704",
                &["DE89\u{a0}3704\u{a0}0044\u{a0}0532\u{a0}0130\u{a0}00"],
            ),
            ("GB82 WEST 1234 5698 7654 32.", &["GB82 WEST 1234 5698 7654 32"]),
            ("de89370400440532013000, NO9386011117947", &["de89370400440532013000", "NO9386011117947"]),
            ("DE88370400440532013000 xDE89370400440532013000 DE89370400440532013000y", &[]),
            ("This text has many words that are four long each", &[]),
        ];
        for (text, wanted) in cases {
            let found: Vec<&str> = ibans(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, wanted, "{text}");
        }
    }

    /// Half a million places where a number may begin: where each is followed to the end of the text, this takes
    /// minutes.
    #[test]
    fn a_long_word_is_read_once() {
        assert!(ibans(&"a-".repeat(1 << 19)).is_empty());
    }
}
