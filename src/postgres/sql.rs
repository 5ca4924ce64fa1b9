//! Names and texts inside of SQL: the only place that quotes.

use std::fmt;

/// An identifier in double quotes. A NUL, which no name can hold, is left out.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
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

    /// Reads `name` or `schema.name`; a name without a schema is in `public`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some((schema, name)) => Self::new(schema, name),
            None => Self::new("public", text),
        }
    }

    /// `schema.name` without quotes, for messages.
    pub fn plain(&self) -> String {
        format!("{}.{}", self.schema, self.name)
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
        assert_eq!(QualifiedName::parse("a.b\"c").to_string(), r#""a"."b""c""#);
        assert_eq!(QualifiedName::parse("b"), QualifiedName::new("public", "b"));
    }
}
