//! Metadata as Postgres prints a `jsonb`: what we send is what its text is there, so that both sides hash the same
//! bytes.
//!
//! How a finite number is written is the caller's: [`plain_number`], or a function that keeps more of it.

use std::fmt::Write;

use crate::types::{Metadata, Value};

/// The text of an object as `jsonb::text` prints it: keys by length, then by bytes; one blank after `:` and `,`;
/// numbers as `number` writes them.
pub fn object(metadata: &Metadata, number: fn(f64) -> String) -> String {
    let mut out = String::new();
    write_object(metadata, number, &mut out);
    out
}

/// The text of a value as `jsonb::text` prints it.
pub fn value(value: &Value, number: fn(f64) -> String) -> String {
    let mut out = String::new();
    write_value(value, number, &mut out);
    out
}

fn write_object(metadata: &Metadata, number: fn(f64) -> String, out: &mut String) {
    let mut fields: Vec<(&String, &Value)> = metadata.iter().collect();
    fields.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then(a.as_bytes().cmp(b.as_bytes())));
    out.push('{');
    for (n, (key, value)) in fields.into_iter().enumerate() {
        if n > 0 {
            out.push_str(", ");
        }
        write_text(key, out);
        out.push_str(": ");
        write_value(value, number, out);
    }
    out.push('}');
}

fn write_value(value: &Value, number: fn(f64) -> String, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(x) => out.push_str(if *x { "true" } else { "false" }),
        Value::Int(x) => _ = write!(out, "{x}"),
        Value::Float(x) => out.push_str(&number(*x)),
        Value::String(x) => write_text(x, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push_str(", ");
                }
                write_value(item, number, out);
            }
            out.push(']');
        }
        Value::Object(map) => write_object(map, number, out),
    }
}

/// A finite number without an exponent, which a `numeric` would spell out anyway; without the sign of zero, which it
/// would lose.
pub fn plain_number(x: f64) -> String {
    if x == 0.0 { "0".to_owned() } else { x.to_string() }
}

/// As `escape_json` of Postgres does it.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether a text or a value holds the one character that no text of Postgres can.
pub fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn looks_as_jsonb_prints_it() {
        let inner = BTreeMap::from([("z".to_owned(), Value::Float(1e-7)), ("aa".to_owned(), Value::Float(1e21))]);
        let metadata = BTreeMap::from([
            ("bb".to_owned(), Value::Array(vec![Value::Int(-1), Value::Null, Value::Bool(true)])),
            ("c".to_owned(), Value::String("a\"\\\u{1}\u{7f}\té".into())),
            ("aaa".to_owned(), Value::Object(inner)),
            ("d".to_owned(), Value::Float(-0.0)),
        ]);
        let expected = concat!(
            r#"{"c": "a\"\\\u0001"#,
            "\u{7f}",
            r#"\té", "d": 0, "bb": [-1, null, true], "aaa": {"z": 0.0000001, "aa": 1000000000000000000000}}"#
        );
        assert_eq!(object(&metadata, plain_number), expected);
        assert!(holds_nul(&Value::Array(vec![Value::String("a\0".into())])) && !holds_nul(&Value::Null));
    }
}
