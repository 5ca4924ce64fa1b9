//! `~` joins what plain `{{ }}` writes of its operands.
//!
//! The template machine writes them in its own way there (`None`, `2.0`, `['a']`), and lets nobody change that. So each
//! operand is put through a filter: `a ~ b.c` becomes `(a)|text ~ (b.c)|text`.

use super::filters::TEXT;
use super::names::{Token, tokens};

/// Words that end an operand: what binds less than `~`.
const ENDS: [&str; 9] = ["if", "elif", "else", "for", "in", "and", "or", "not", "endfor"];

/// An operand that is being read, within its brackets.
#[derive(Default)]
struct Operand {
    /// Where it begins.
    start: Option<usize>,
    /// Whether it stands after a `~`.
    is_joined: bool,
}

/// The template with a filter after each operand of `~`, line by line. `source` can be parsed.
pub(super) fn as_texts(source: &str) -> String {
    let mut inserts: Vec<(usize, String)> = Vec::new();
    let mut end = |operand: &Operand, at: usize, is_joined: bool| {
        if let Some(start) = operand.start.filter(|_| operand.is_joined || is_joined) {
            inserts.push((start, "(".to_owned()));
            inserts.push((at, format!(")|{TEXT} ")));
        }
    };
    let mut outer: Vec<Operand> = Vec::new();
    let mut operand = Operand::default();
    let (mut before, mut earlier) = (None, None);
    for (at, token) in tokens(source) {
        match &token {
            Token::Sign('~') => {
                end(&operand, at, true);
                operand = Operand { start: None, is_joined: true };
            }
            Token::Sign('(' | '[' | '{') => {
                operand.start.get_or_insert(at);
                outer.push(std::mem::take(&mut operand));
            }
            Token::Sign(')' | ']' | '}') => {
                end(&operand, at, false);
                operand = outer.pop().unwrap_or_default();
            }
            Token::Sign('-' | '+') if is_trimming(source, at) => {}
            Token::Sign('-') if operand.start.is_none() => operand.start = Some(at),
            ended if ends(ended, before.as_ref(), earlier.as_ref()) => {
                end(&operand, at, false);
                operand = Operand::default();
            }
            _ => _ = operand.start.get_or_insert(at),
        }
        earlier = before.replace(token);
    }
    inserts.sort_by_key(|(at, _)| *at);
    with(source, &inserts)
}

/// Whether the sign belongs to `{{-`, `{%-` or `{%+`.
fn is_trimming(source: &str, at: usize) -> bool {
    source[..at].ends_with("{{") || source[..at].ends_with("{%")
}

/// Whether a piece ends an operand, after those at `before` and `earlier`. A field may be named like a keyword, and
/// `is not` asks.
fn ends(token: &Token, before: Option<&Token>, earlier: Option<&Token>) -> bool {
    let is_word = |token: Option<&Token>, word: &str| matches!(token, Some(Token::Word(found)) if found == word);
    let is_point = |token: Option<&Token>| token == Some(&Token::Sign('.'));
    match token {
        Token::End | Token::Sign('+' | '-' | '=' | '<' | '>' | '!' | ',' | ':') => true,
        Token::Word(_) if is_point(before) => false,
        Token::Word(word) if word == "not" => !is_word(before, "is") || is_point(earlier),
        Token::Word(word) => ENDS.contains(&word.as_str()),
        Token::Sign(_) | Token::Quoted => false,
    }
}

fn with(source: &str, inserts: &[(usize, String)]) -> String {
    let (mut text, mut from) = (String::with_capacity(source.len()), 0);
    for (at, inserted) in inserts {
        text.push_str(&source[from..*at]);
        text.push_str(inserted);
        from = *at;
    }
    text + &source[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_what_stands_between_signs_that_bind_less() {
        for (source, wanted) in [
            ("a ~ b {{ a }}", "a ~ b {{ a }}"),
            ("{{- a ~ ' ~ ' -}}", "{{- (a )|text ~ (' ~ ' )|text -}}"),
            ("{{a~-b*2|round}}", "{{(a)|text ~(-b*2|round)|text }}"),
            ("{{ 1 + a ~ b - 2 }}", "{{ 1 + (a )|text ~ (b )|text - 2 }}"),
            ("{% if not a.if ~ b is not none == c %}", "{% if not (a.if )|text ~ (b is not none )|text == c %}"),
            (
                "{{ (a ~ b) ~ c|default('' ~ d) }}",
                "{{ (((a )|text ~ (b)|text ) )|text ~ (c|default(('' )|text ~ (d)|text ) )|text }}",
            ),
            ("{{ {'a': {'b': c ~ d}}.a }}~", "{{ {'a': {'b': (c )|text ~ (d)|text }}.a }}~"),
            (
                "{{ a ~ b if c else -d ~ [e, f ~ 1] }}",
                "{{ (a )|text ~ (b )|text if c else (-d )|text ~ ([e, (f )|text ~ (1)|text ] )|text }}",
            ),
        ] {
            assert_eq!(as_texts(source), wanted);
        }
    }
}
