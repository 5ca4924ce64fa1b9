//! Filters, tests and functions that a template names and that there are not: found when it is read, since the parser
//! asks for them only when a document meets them.

use super::TemplateError;
use super::filters::{FILTERS, TESTS};
use super::syntax::{Seen, each_sign, line_of};

/// Words that a parenthesis may follow without a call, and the one variable that can be called.
const NO_CALLS: [&str; 11] = ["if", "elif", "else", "for", "in", "not", "and", "or", "is", "recursive", "loop"];

/// A piece of an expression or a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, a keyword or a number.
    Word(String),
    /// Any other sign.
    Sign(char),
    /// A character of a string.
    Quoted,
    /// The end of an expression or a tag.
    End,
}

/// Checks the names in a template that can be parsed.
///
/// # Errors
/// [`TemplateError::Unknown`] for the first of them.
pub(super) fn check(source: &str) -> Result<(), TemplateError> {
    let tokens = tokens(source);
    let token = |at: Option<usize>| at.and_then(|at| tokens.get(at)).map(|(_, token)| token);
    let is_word = |at: Option<usize>, word: &str| matches!(token(at), Some(Token::Word(found)) if found == word);
    let is_sign = |at: Option<usize>, sign: char| token(at) == Some(&Token::Sign(sign));
    for (n, (place, word)) in tokens.iter().enumerate() {
        let Token::Word(name) = word else { continue };
        let (before, earlier) = (n.checked_sub(1), n.checked_sub(2));
        let unknown = |kind: &str, there: String| {
            Err(TemplateError::Unknown { line: line_of(source, *place), what: format!("{kind} {name:?}"), there })
        };
        if is_sign(before, '|') {
            if !FILTERS.contains(&name.as_str()) {
                return unknown("filter", FILTERS.join(", "));
            }
        } else if is_test(&is_word, &is_sign, before, earlier) {
            if name != "not" && !TESTS.contains(&name.as_str()) {
                return unknown("test", TESTS.join(", "));
            }
        } else if is_sign(Some(n + 1), '(') {
            let is_of_loop = is_sign(before, '.') && is_word(earlier, "loop");
            let is_call = !NO_CALLS.contains(&name.as_str()) || is_sign(before, '.');
            if is_call && !is_of_loop {
                return unknown("function", "none: filters do what functions would".to_owned());
            }
        }
    }
    Ok(())
}

/// Whether the word after those at `before` and `earlier` is what `is` or `is not` asks. After a point `is` is a field.
fn is_test(
    is_word: &dyn Fn(Option<usize>, &str) -> bool,
    is_sign: &dyn Fn(Option<usize>, char) -> bool,
    before: Option<usize>,
    earlier: Option<usize>,
) -> bool {
    let is_keyword = |at: Option<usize>| is_word(at, "is") && !is_sign(at.and_then(|at| at.checked_sub(1)), '.');
    is_keyword(before) || is_word(before, "not") && is_keyword(earlier)
}

/// The pieces of all expressions and tags, and where each begins.
pub(super) fn tokens(source: &str) -> Vec<(usize, Token)> {
    let mut tokens: Vec<(usize, Token)> = Vec::new();
    let mut end = 0;
    each_sign(source, &mut |at, seen| match seen {
        Seen::Sign(c) if c.is_alphanumeric() || c == '_' => {
            match tokens.last_mut() {
                Some((_, Token::Word(word))) if end == at => word.push(c),
                _ => tokens.push((at, Token::Word(c.to_string()))),
            }
            end = at + c.len_utf8();
        }
        Seen::Sign(c) if c.is_whitespace() => {}
        Seen::Sign(c) => tokens.push((at, Token::Sign(c))),
        Seen::Quoted => tokens.push((at, Token::Quoted)),
        Seen::End => tokens.push((at, Token::End)),
    });
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_there_are_pass() {
        for source in [
            "{{ a|upper }} {{ a | replace('|nothing', \"|x\") | trim }} | nothing",
            "{% if a is defined and b is not none %}{% elif (a) and not (b) %}{% endif %}",
            "{% for x in (a) if (x) %}{{ loop.cycle(1, 2) }}{% endfor %}{# {{ a | nothing(1) }} #}",
            "{{ a.is }} {{ a.is.nothing }} {{ a['is nothing'] }} {{ (a) | default((b)) }} {{ 1 is number }}",
            "{{ a -}}{{- upper }}{{ nothing }} is nothing {{ [a, (b)] | join }}",
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
    }

    #[test]
    fn others_are_named_with_their_line() {
        for (source, wanted) in [
            ("a\n{{ a | nothing }}", "filter \"nothing\""),
            ("a\n{{ a|upper|nothing(1) }}", "filter \"nothing\""),
            ("a\n{% if b %}{{ ('x' ~ a) | e }}{% endif %}", "filter \"e\""),
            ("a\n{% for x in a | sorted %}{% endfor %}", "filter \"sorted\""),
            ("a\n{% if a is even %}{% endif %}", "test \"even\""),
            ("a\n{{ a is not odd }}", "test \"odd\""),
            ("a\n{{ range(3) }}", "function \"range\""),
            ("a\n{{ a.upper () }}", "function \"upper\""),
            ("a\n{{ a | join(now()) }}", "function \"now\""),
        ] {
            match check(source).unwrap_err() {
                TemplateError::Unknown { line: 2, what, there } => {
                    assert_eq!(what, wanted, "{source}");
                    assert!(!there.is_empty());
                }
                other => panic!("{source}: {other:?}"),
            }
        }
    }
}
