//! Names and texts inside of SQL: the only place that quotes.

use std::fmt;

/// An identifier in double quotes. A NUL, which no name can hold, is left out.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// A name as it is told by a user: in double quotes, as in SQL, or without them, as it is, in whichever case.
pub fn identifier_of(text: &str) -> String {
    quoted(text).filter(|(_, rest)| rest.is_empty()).map_or(text.to_owned(), |(name, _)| name)
}

/// A text constant, right under either setting of `standard_conforming_strings`. A NUL, which no text can hold, is left
/// out.
pub fn quote_literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", text.replace('\\', "\\\\")),
        false => format!("'{text}'"),
    }
}

/// A name within a schema, as `schema.name`; its `Display` is quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QualifiedName {
    /// The schema.
    pub schema: String,
    /// The name in it.
    pub name: String,
}

impl QualifiedName {
    /// From its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// Reads `name` or `schema.name`; a name without a schema is in `public`. A part may stand in double quotes, as in
    /// SQL; one without is taken as it is, in whichever case.
    pub fn parse(text: &str) -> Self {
        let (first, rest) = match quoted(text) {
            Some((first, rest)) => (first, rest.strip_prefix('.')),
            None => {
                text.split_once('.').map_or((text.to_owned(), None), |(first, rest)| (first.to_owned(), Some(rest)))
            }
        };
        match rest {
            Some(rest) => Self::new(first, identifier_of(rest)),
            None => Self::new("public", first),
        }
    }

    /// `schema.name` without quotes, for messages.
    pub fn plain(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// A name in double quotes at the start of a text, and what follows it: nothing, or a point and more.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut rest, mut name) = (text.strip_prefix('"')?, String::new());
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (!name.is_empty() && (after.is_empty() || after.starts_with('.'))).then_some((name, after)),
        }
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_or_text_ends_its_quotes() {
        assert_eq!(quote_identifier(r#"a"; drop table b; --"#), r#""a""; drop table b; --""#);
        assert_eq!(quote_identifier("a\0b"), "\"ab\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"\' or 1=1"), r"E'\\'' or 1=1'");
        let names = [r#""Id""#, r#""a""b""#, "Id", r#""open"#, r#""a".b"#].map(identifier_of);
        assert_eq!(names, ["Id", "a\"b", "Id", "\"open", "\"a\".b"]);
        assert_eq!(QualifiedName::parse("a.b\"c").to_string(), r#""a"."b""c""#);
        assert_eq!(QualifiedName::parse("b"), QualifiedName::new("public", "b"));
        for (text, schema, name) in [
            (r#""My schema"."T.able""#, "My schema", "T.able"),
            (r#"app."T able""#, "app", "T able"),
            (r#""a""b"."""#, "a\"b", "\"\""),
            (r#""Rows""#, "public", "Rows"),
            (r#""open"#, "public", "\"open"),
            (r#""a"b.c"#, "\"a\"b", "c"),
            ("Rows.b.c", "Rows", "b.c"),
        ] {
            assert_eq!(QualifiedName::parse(text), QualifiedName::new(schema, name), "{text}");
        }
    }
}
