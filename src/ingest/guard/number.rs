//! Numbers with a form: payment cards, telephones, social security.

use std::ops::Range;

/// A run of digits with separators between them.
struct Run {
    /// From its first digit, or a plus sign or bracket before that, to after its last digit.
    range: Range<usize>,
    digits: Vec<u8>,
}

/// Payment cards: 13 to 19 digits, alone or in groups, with a right check digit and the first digit of a card network.
pub(super) fn cards(text: &str) -> Vec<Range<usize>> {
    let runs = runs(text, |c| matches!(c, ' ' | '-'));
    let is_card =
        |run: &Run| (13..=19).contains(&run.digits.len()) && matches!(run.digits[0], 2..=6) && luhn(&run.digits);
    runs.into_iter().filter(is_card).map(|run| run.range).collect()
}

/// Whether the last digit is the check digit of the others (Luhn, ISO/IEC 7812-1 annex B).
fn luhn(digits: &[u8]) -> bool {
    let doubled = |(index, digit): (usize, &u8)| match (index % 2, digit * 2) {
        (0, _) => u32::from(*digit),
        (_, twice) => u32::from(twice / 10 + twice % 10),
    };
    digits.iter().rev().enumerate().map(doubled).sum::<u32>().is_multiple_of(10)
}

/// Telephone numbers: a plus sign and 8 to 15 digits (E.164), three groups of North America, or eleven digits after 8 or
/// 7 in groups, as in Russia.
pub(super) fn phones(text: &str) -> Vec<Range<usize>> {
    let runs = runs(text, |c| matches!(c, ' ' | '-' | '.' | '(' | ')' | '/'));
    runs.into_iter().filter(|run| is_phone(&text[run.range.clone()], &run.digits)).map(|run| run.range).collect()
}

fn is_phone(text: &str, digits: &[u8]) -> bool {
    if text.starts_with('+') {
        return (8..=15).contains(&digits.len()) && digits[0] != 0;
    }
    let groups: Vec<usize> =
        text.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).map(str::len).collect();
    let is_area = |at: usize| digits[at] >= 2 && digits[at + 3] >= 2;
    match (groups.as_slice(), digits.first()) {
        ([3, 3, 4], _) => is_area(0),
        ([1, 3, 3, 4], Some(1)) => is_area(1),
        ([1, 3, 3, 4] | [1, 3, 3, 2, 2], Some(7 | 8)) => true,
        _ => false,
    }
}

/// Social security numbers: `AAA-GG-SSSS`, without the parts that are never given out.
pub(super) fn social_security(text: &str) -> Vec<Range<usize>> {
    let is_given_out = |run: &Run| {
        let text = &text[run.range.clone()];
        let parts: Vec<&str> = text.split('-').collect();
        let [area, group, serial] = parts.as_slice() else { return false };
        (area.len(), group.len(), serial.len()) == (3, 2, 4)
            && !matches!(*area, "000" | "666")
            && !area.starts_with('9')
            && *group != "00"
            && *serial != "0000"
    };
    runs(text, |c| c == '-').into_iter().filter(is_given_out).map(|run| run.range).collect()
}

/// Runs of digits, at most two separators between any two of them, that no letter, digit or point touches.
fn runs(text: &str, is_separator: impl Fn(char) -> bool) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut current: Option<Run> = None;
    let mut gap = 0;
    for (at, c) in text.char_indices().chain([(text.len(), '\n')]) {
        if let Some(digit) = c.to_digit(10) {
            let run = current.get_or_insert_with(|| Run { range: opening(text, at), digits: Vec::new() });
            run.digits.push(digit as u8);
            run.range.end = at + c.len_utf8();
            gap = 0;
        } else if current.is_some() && is_separator(c) && gap < 2 {
            gap += 1;
        } else if let Some(run) = current.take() {
            // A letter right after a digit makes it a code; after a separator it is the next word.
            let touches = gap == 0 && (c.is_alphanumeric() || c == '_');
            if !touches {
                runs.push(run);
            }
        }
    }
    runs.retain(|run| {
        let before = text[..run.range.start].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '#'))
    });
    runs
}

/// Where a run begins whose first digit is at `at`: a plus sign or an opening bracket before it belongs to it.
fn opening(text: &str, at: usize) -> Range<usize> {
    let mut start = at;
    for sign in ['(', '+'] {
        if text[..start].ends_with(sign) {
            start -= 1;
        }
    }
    start..at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(find: fn(&str) -> Vec<Range<usize>>, text: &str) -> Vec<&str> {
        find(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn cards_have_their_check_digit() {
        let cases: [(&str, &[&str]); 6] = [
            ("4111111111111111", &["4111111111111111"]),
            ("card 5500-0000-0000-0004, ok", &["5500-0000-0000-0004"]),
            ("3782 822463 10005 is amex", &["3782 822463 10005"]),
            ("4111111111111112 x4111111111111111 4111111111111111a", &[]),
            ("9999999999999995", &[]),
            ("1234567890", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(texts(cards, text), wanted, "{text}");
        }
    }

    #[test]
    fn telephones_have_a_form() {
        let cases: [(&str, &[&str]); 8] = [
            ("call +1 (415) 555-2671 now", &["+1 (415) 555-2671"]),
            ("(415) 555-2671, 415.555.2671", &["(415) 555-2671", "415.555.2671"]),
            ("8 (495) 123-45-67 или +74951234567", &["8 (495) 123-45-67", "+74951234567"]),
            ("1-800-555-2671", &["1-800-555-2671"]),
            ("2024-01-15 10:30, 1,234,567.89, 100 200 3000", &[]),
            ("order 4155552671, 192.168.0.1", &[]),
            ("+12", &[]),
            ("A-415-555-2671x", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(texts(phones, text), wanted, "{text}");
        }
    }

    #[test]
    fn social_security_numbers_have_three_parts() {
        let text = "123-45-6789 000-12-3456 666-12-3456 900-12-3456 123-00-4567 12-345-6789 123-45-67890";
        assert_eq!(texts(social_security, text), ["123-45-6789"]);
    }
}
