//! SQL as tokens, as Postgres reads it: strings of every kind, quoted names, dollar quotes, nested comments.
//!
//! Every character belongs to exactly one token, so the tokens of a text joined are the text.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Space,
    Comment,
    /// A key word, a name or a number.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A string constant, dollar-quoted ones too.
    Text,
    /// One character of anything else.
    Sign,
}

/// A piece of a text: bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
    /// Whether the text ends before what closes it.
    pub is_open: bool,
    /// Whether backslashes mean something in this string.
    has_escapes: bool,
}

/// Reads a whole text.
pub(super) fn tokens(sql: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let token = token_at(sql, at, &found);
        at = token.end;
        found.push(token);
    }
    found
}

fn token_at(sql: &str, start: usize, before: &[Token]) -> Token {
    let rest = &sql[start..];
    let make = |kind, len: usize| Token { kind, start, end: start + len, is_open: false, has_escapes: false };
    let closed = |kind, len: Option<usize>| match len {
        Some(len) => make(kind, len),
        None => Token { is_open: true, ..make(kind, rest.len()) },
    };
    // A string's first quote may follow a letter that says how to read it.
    let prefix = before.last().filter(|token| token.kind == Kind::Word);
    let mut chars = rest.chars();
    let (first, second) = (chars.next().unwrap_or(' '), chars.next());
    match (first, second) {
        (c, _) if c.is_whitespace() => make(Kind::Space, len_while(rest, char::is_whitespace)),
        ('-', Some('-')) => make(Kind::Comment, rest.find(['\n', '\r']).map_or(rest.len(), |end| end + 1)),
        ('/', Some('*')) => closed(Kind::Comment, block_comment(rest)),
        ('\'', _) => {
            let has_escapes = match prefix {
                Some(token) => sql[token.start..token.end].eq_ignore_ascii_case("e"),
                None => continues_escapes(sql, before),
            };
            Token { has_escapes, ..closed(Kind::Text, string(rest, has_escapes)) }
        }
        ('"', _) => closed(Kind::Quoted, quoted(rest)),
        ('$', _) if prefix.is_none() && dollar_tag(rest).is_some() => closed(Kind::Text, dollar_quoted(rest)),
        (c, _) if is_word(c) => make(Kind::Word, len_while(rest, |c| is_word(c) || c == '$')),
        (c, _) => make(Kind::Sign, c.len_utf8()),
    }
}

/// Whether a string that begins here goes on one with escapes: the end of a line stands between them, and nothing but
/// space and line comments.
fn continues_escapes(sql: &str, before: &[Token]) -> bool {
    let mut line_ends = false;
    for token in before.iter().rev() {
        let text = &sql[token.start..token.end];
        match token.kind {
            Kind::Space => line_ends |= text.contains(['\n', '\r']),
            Kind::Comment if text.starts_with("--") => line_ends = true,
            Kind::Text => return line_ends && token.has_escapes,
            _ => return false,
        }
    }
    false
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || (!c.is_ascii() && !c.is_whitespace())
}

fn len_while(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// The length of a comment that begins here; comments nest.
fn block_comment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return Some(at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    None
}

/// The length of a string constant; a doubled quote stands for one, and where there are escapes a backslash takes the
/// next character with it.
fn string(text: &str, has_escapes: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if has_escapes => at += 2,
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

fn quoted(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' if bytes.get(at + 1) == Some(&b'"') => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// `$$` or `$name$`.
fn dollar_tag(text: &str) -> Option<&str> {
    let name = &text[1..];
    let len = len_while(name, is_word);
    let is_name = !name[..len].starts_with(|c: char| c.is_ascii_digit());
    (is_name && name[len..].starts_with('$')).then(|| &text[..len + 2])
}

fn dollar_quoted(text: &str) -> Option<usize> {
    let tag = dollar_tag(text)?;
    text[tag.len()..].find(tag).map(|end| tag.len() + end + tag.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(sql: &str) -> Vec<(Kind, &str)> {
        tokens(sql).iter().map(|token| (token.kind, &sql[token.start..token.end])).collect()
    }

    #[test]
    fn every_kind_of_quote_is_known() {
        use Kind::*;
        let one = |sql: &str, kind| assert_eq!(read(sql), [(kind, sql)], "{sql}");
        one("'it''s; \\'", Text);
        one("\"a;\"\"b\"", Quoted);
        one("$$ ; ' $a$ $$", Text);
        one("$fn$ $$ ; $$ $fn$", Text);
        one("/* a /* ; */ b; */", Comment);
        one("-- a; 'b\n", Comment);
        assert_eq!(read("-- a\rb"), [(Comment, "-- a\r"), (Word, "b")], "Postgres ends it there too");
        one("привет_1$x", Word);
        assert_eq!(read("E'a\\';'"), [(Word, "E"), (Text, "'a\\';'")]);
        assert_eq!(read("e'a' -- b\n '\\';' 'c").last(), Some(&(Text, "'c")), "goes on as it began");
        for other in ["E'a' '\\'", "E'a' /*\n*/ '\\'", "'a'\n'\\'", "E'a',\n'\\'", "$$a$$\n'\\'"] {
            assert_eq!(read(other).last(), Some(&(Text, "'\\'")), "{other}");
        }
        assert_eq!(read("a$1$"), [(Word, "a$1$")]);
        assert_eq!(read("$1 "), [(Sign, "$"), (Word, "1"), (Space, " ")]);
        for open in ["'a", "E'a\\'", "\"a", "$$ a", "/* /* */", "$a$ $b$"] {
            assert!(tokens(open).last().unwrap().is_open, "{open}");
        }
    }

    proptest! {
        #[test]
        fn tokens_joined_are_the_text(sql in "[a-eE$'\"/*; \\n\\r\\\\_1é-]{0,60}|\\PC{0,40}") {
            let mut at = 0;
            for token in tokens(&sql) {
                prop_assert_eq!(token.start, at);
                prop_assert!(token.end > at);
                at = token.end;
            }
            prop_assert_eq!(at, sql.len());
        }
    }
}
