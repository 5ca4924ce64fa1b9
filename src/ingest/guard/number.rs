//! Numbers with a form: payment cards, telephones, social security.

use std::ops::Range;

/// Digits together.
struct Group<'a> {
    /// From its first digit, or a plus sign or bracket before that.
    start: usize,
    end: usize,
    digits: &'a str,
    has_plus: bool,
}

/// Most digits of any number that is looked for.
const MAX_DIGITS: usize = 19;

/// Payment cards: 13 to 19 digits, alone or in groups, with a right check digit and the first digit of a card network.
/// Among other groups, a card's are of four digits, or of four, six and the rest.
pub(super) fn cards(text: &str) -> Vec<Range<usize>> {
    let is_card = |groups: &[Group], is_whole_run: bool| {
        let digits: Vec<u8> = groups.iter().flat_map(|group| group.digits.bytes()).map(|digit| digit - b'0').collect();
        let has_form = match groups {
            [_] => true,
            [first, second, _] if (first.digits.len(), second.digits.len()) == (4, 6) => true,
            [all_but_last @ .., last] => {
                all_but_last.iter().all(|group| group.digits.len() == 4) && last.digits.len() <= 4
            }
            [] => false,
        };
        (13..=MAX_DIGITS).contains(&digits.len())
            && matches!(digits[0], 2..=6)
            && luhn(&digits)
            && (is_whole_run || has_form && !groups.iter().all(is_year))
    };
    find(text, |c| is_space(c) || is_dash(c), is_card)
}

fn is_year(group: &Group) -> bool {
    group.digits.len() == 4 && matches!(group.digits.as_bytes()[..2], [b'1', b'9'] | [b'2', b'0'])
}

/// Whether the last digit is the check digit of the others (Luhn, ISO/IEC 7812-1 annex B).
fn luhn(digits: &[u8]) -> bool {
    let doubled = |(index, digit): (usize, &u8)| match (index % 2, digit * 2) {
        (0, _) => u32::from(*digit),
        (_, twice) => u32::from(twice / 10 + twice % 10),
    };
    digits.iter().rev().enumerate().map(doubled).sum::<u32>().is_multiple_of(10)
}

/// Telephone numbers: a plus sign and 8 to 15 digits (E.164), three groups of North America, or eleven digits after 8
/// or 7 in groups, as in Russia.
pub(super) fn phones(text: &str) -> Vec<Range<usize>> {
    find(text, |c| is_space(c) || is_dash(c) || matches!(c, '.' | '(' | ')' | '/'), |groups, _| is_phone(groups))
}

fn is_phone(groups: &[Group]) -> bool {
    let lengths: Vec<usize> = groups.iter().map(|group| group.digits.len()).collect();
    let digit = |group: usize| groups[group].digits.as_bytes()[0];
    if groups[0].has_plus {
        return (8..=15).contains(&lengths.iter().sum::<usize>()) && digit(0) != b'0';
    }
    let is_area = |at: usize| digit(at) >= b'2' && digit(at + 1) >= b'2';
    match (lengths.as_slice(), digit(0)) {
        ([3, 3, 4], _) => is_area(0),
        ([1, 3, 3, 4], b'1') => is_area(1),
        ([1, 3, 3, 4] | [1, 3, 3, 2, 2], b'7' | b'8') => true,
        _ => false,
    }
}

/// Social security numbers: `AAA-GG-SSSS`, without the parts that are never given out.
pub(super) fn social_security(text: &str) -> Vec<Range<usize>> {
    find(text, is_dash, |groups, _| {
        let [area, group, serial] = groups else { return false };
        let (area, group, serial) = (area.digits, group.digits, serial.digits);
        (area.len(), group.len(), serial.len()) == (3, 2, 4)
            && !matches!(area, "000" | "666")
            && !area.starts_with('9')
            && group != "00"
            && serial != "0000"
    })
}

/// Spaces within a line, those of fixed width and those that are not broken among them.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() && !matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// Groups that follow each other and are a number, from left to right, each as long as it can be. They may overlap:
/// where one begins within another, either may be the number that was meant. `is_number` learns whether the groups are
/// all that stand together.
fn find(
    text: &str,
    is_separator: impl Fn(char) -> bool,
    is_number: impl Fn(&[Group], bool) -> bool,
) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for run in runs(text, is_separator) {
        for first in 0..run.len() {
            let mut digits = 0;
            let fits = |group: &&Group| {
                digits += group.digits.len();
                digits <= MAX_DIGITS
            };
            let most = first + run[first..].iter().take_while(fits).count();
            let is_one = |end: &usize| is_number(&run[first..*end], first == 0 && *end == run.len());
            let Some(end) = (first + 1..=most).rev().find(is_one) else { continue };
            let number = run[first].start..run[end - 1].end;
            if found.last().is_none_or(|last| number.end > last.end) {
                found.push(number);
            }
        }
    }
    found
}

/// Groups of digits that no letter, digit or decimal point touches, those together that have one or two separators
/// between them.
fn runs(text: &str, is_separator: impl Fn(char) -> bool) -> Vec<Vec<Group<'_>>> {
    let mut runs: Vec<Vec<Group>> = vec![Vec::new()];
    let mut at = 0;
    while let Some(next) = text[at..].find(|c: char| c.is_ascii_digit()) {
        let first = at + next;
        let end = text[first..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |len| first + len);
        let start = opening(text, first);
        let between = &text[at..first];
        let is_next = (1..=2).contains(&between.chars().count()) && between.chars().all(&is_separator);
        at = end;
        let touched = |c: char| c.is_alphanumeric() || c == '_';
        let mut before = text[..start].chars().rev();
        let is_touched = match before.next() {
            Some('.') if !is_separator('.') => before.next().is_some_and(|c| c.is_ascii_digit()),
            other => other.is_some_and(touched),
        };
        let is_free = (is_next || !is_touched) && !text[end..].chars().next().is_some_and(touched);
        if !(is_next && is_free) {
            runs.push(Vec::new());
        }
        if is_free {
            let has_plus = text[start..].starts_with('+');
            runs.last_mut().expect("one was pushed").push(Group { start, end, digits: &text[first..end], has_plus });
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// Where a group begins whose first digit is at `at`: a plus sign or an opening bracket before it belongs to it.
fn opening(text: &str, at: usize) -> usize {
    ['(', '+'].into_iter().fold(at, |start, sign| if text[..start].ends_with(sign) { start - 1 } else { start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(find: fn(&str) -> Vec<Range<usize>>, text: &str) -> Vec<&str> {
        find(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn cards_have_their_check_digit() {
        let cases: [(&str, &[&str]); 12] = [
            ("4111111111111111", &["4111111111111111"]),
            ("card 5500-0000-0000-0004, ok", &["5500-0000-0000-0004"]),
            ("3782 822463 10005 is amex", &["3782 822463 10005"]),
            ("4111111111111112 x4111111111111111 4111111111111111a", &[]),
            ("4111 1111 1111 1111 12/27, order #4111111111111111", &["4111 1111 1111 1111", "4111111111111111"]),
            ("4111111111111111 123 cvv", &["4111111111111111"]),
            ("4111-1111-1111-1111 5500 0000 0000 0004", &["4111-1111-1111-1111", "5500 0000 0000 0004"]),
            ("4111\u{a0}1111\u{a0}1111\u{a0}1111", &["4111\u{a0}1111\u{a0}1111\u{a0}1111"]),
            ("0.4111111111111111 No.4111111111111111", &["4111111111111111"]),
            ("years 2012 2013 2014 2015 2016 2017 2018 2019 2020 2021 2022 2023 2024 2025", &[]),
            ("9999999999999995", &[]),
            ("1234567890", &[]),
        ];
        for (text, wanted) in cases {
            assert_eq!(texts(cards, text), wanted, "{text}");
        }
    }

    #[test]
    fn telephones_have_a_form() {
        let cases: [(&str, &[&str]); 12] = [
            ("call +1 (415) 555-2671 now", &["+1 (415) 555-2671"]),
            ("(415) 555-2671, 415.555.2671", &["(415) 555-2671", "415.555.2671"]),
            ("8 (495) 123-45-67 или +74951234567", &["8 (495) 123-45-67", "+74951234567"]),
            ("1-800-555-2671", &["1-800-555-2671"]),
            ("2024-01-15 10:30, 1,234,567.89, 100 200 3000", &[]),
            ("order 4155552671, 192.168.0.1", &[]),
            ("+12", &[]),
            ("A-415-555-2671x", &[]),
            ("415-555-2671 415-555-2672", &["415-555-2671", "415-555-2672"]),
            ("call 415-555-2671 2 times, 2024-01-02 415-555-2671", &["415-555-2671", "415-555-2671"]),
            ("+14155552671 2024-11-02", &["+14155552671 2024"]),
            (
                "#415-555-2671, +49\u{a0}30 123456, 415\t555\u{2011}2671",
                &["415-555-2671", "+49\u{a0}30 123456", "415\t555\u{2011}2671"],
            ),
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
