//! What of Jinja a template may use, found before it is parsed: what could make a text grow without bound is refused.
//!
//! A variable set to twice itself, again and again, takes all memory in a few hundred bytes of template. So there are
//! loops and conditions but no `set`, and the signs that join texts are counted.

use super::TemplateError;

/// Tags that there are.
const TAGS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];
/// Most signs that may join or repeat texts. Each operand is a text of at most a mebibyte.
const MAX_OPERATORS: usize = 16;

/// Checks a template's tags and counts its operators.
///
/// # Errors
/// [`TemplateError::NotAllowed`] and [`TemplateError::TooManyOperators`]. What is not Jinja at all is for the parser.
pub(super) fn check(source: &str) -> Result<(), TemplateError> {
    // Every place where a tag could begin is looked at, also within strings and comments: a tag is never overlooked.
    for (at, _) in source.match_indices("{%") {
        let rest = source[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !TAGS.contains(&name.as_str()) {
            let instead = "there are if, elif, else, for, their ends, and expressions in {{ }}";
            return Err(TemplateError::NotAllowed {
                line: line_of(source, at),
                what: format!("{{% {name} %}}"),
                instead,
            });
        }
    }
    let got = operators(source);
    match got > MAX_OPERATORS {
        true => Err(TemplateError::TooManyOperators { got, max: MAX_OPERATORS }),
        false => Ok(()),
    }
}

/// Signs that join or repeat.
fn operators(source: &str) -> usize {
    let mut count = 0;
    each_sign(source, &mut |_, seen| count += usize::from(matches!(seen, Seen::Sign('+' | '*' | '~'))));
    count
}

/// What stands at a place of an expression or a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A character outside strings.
    Sign(char),
    /// A character of a string, or its quote.
    Quoted,
    /// The end of the expression or the tag.
    End,
}

/// Gives every character of expressions and tags to `visit`, with its place, and their ends.
pub(super) fn each_sign(source: &str, visit: &mut dyn FnMut(usize, Seen)) {
    let mut at = 0;
    while let Some(open) = source[at..].find('{') {
        at += open + 1;
        let Some(kind @ ('{' | '%' | '#')) = source[at..].chars().next() else { continue };
        at += 1;
        at = match kind {
            '#' => source[at..].find("#}").map_or(source.len(), |end| at + end + 2),
            '{' => each_sign_until(source, at, "}}", visit),
            _ => each_sign_until(source, at, "%}", visit),
        };
    }
}

/// From `start` up to the `close` that stands in no brackets, after which it ends.
fn each_sign_until(source: &str, start: usize, close: &str, visit: &mut dyn FnMut(usize, Seen)) -> usize {
    let (mut quote, mut escaped, mut depth) = (None, false, 0i64);
    for (at, c) in source[start..].char_indices().map(|(at, c)| (start + at, c)) {
        let mut seen = Seen::Quoted;
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if depth == 0 && source[at..].starts_with(close) => {
                visit(at, Seen::End);
                return at + close.len();
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None => {
                depth += i64::from(matches!(c, '(' | '[' | '{')) - i64::from(matches!(c, ')' | ']' | '}'));
                seen = Seen::Sign(c);
            }
        }
        visit(at, seen);
    }
    source.len()
}

pub(super) fn line_of(source: &str, at: usize) -> usize {
    source[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_and_conditions_pass() {
        let good = "{%- for x in xs -%}{{ x }}{% if not loop.last %}, {% endif %}{%+ endfor %}{# {{ a }} #} 1 + 1 ~ 2";
        assert_eq!(check(good), Ok(()));
        assert_eq!(operators("{{ a + '+*~' }} + {% if a ~ \"\\\"+\" %}{{b*c}}{# + #}{ +"), 3);
    }

    #[test]
    fn other_tags_are_named_with_their_line() {
        for tag in
            ["set x = 1", "include 'a'", "macro m()", "filter upper", "with a = 1", "raw", "do x", "extends 'a'", ""]
        {
            for source in [format!("a\n{{% {tag} %}}"), format!("a\n{{%-{tag}%}}"), format!("\n{{{{ '{{% {tag}' }}}}")]
            {
                let error = check(&source).unwrap_err();
                assert!(matches!(error, TemplateError::NotAllowed { line: 2, .. }), "{source}: {error:?}");
            }
        }
    }

    #[test]
    fn joining_is_bounded() {
        let source = format!("{{{{ a{} }}}}", "~a".repeat(MAX_OPERATORS + 1));
        assert_eq!(check(&source), Err(TemplateError::TooManyOperators { got: 17, max: 16 }));
    }
}
