//! Metadata as JSON for `jsonb` and back: what is read is what was written, and numbers compare there as they do here.

use serde_json::Value as Json;

use crate::postgres::jsonb;
use crate::types::{Metadata, Value};

/// From here on every `f64` is whole, and its shortest digits are no longer its value.
const WHOLE_FROM: f64 = 9_007_199_254_740_992.0;

/// An object as text.
pub(super) fn object(metadata: &Metadata) -> String {
    jsonb::object(metadata, float)
}

/// A value as text.
pub(super) fn value(value: &Value) -> String {
    jsonb::value(value, float)
}

/// A finite number with a point, which an integer has not; `numeric` keeps it. Whole ones stand with all their digits,
/// so that they compare with integers as they do here. There is no negative zero.
pub(super) fn float(x: f64) -> String {
    match x {
        0.0 => "0.0".to_owned(),
        x if x.abs() >= WHOLE_FROM => format!("{x:.1}"),
        // Never an exponent.
        x => {
            let text = x.to_string();
            if text.contains('.') { text } else { format!("{text}.0") }
        }
    }
}

/// Reads an object that Postgres printed. `None` for what is no object.
pub(super) fn read(text: &str) -> Option<Metadata> {
    match serde_json::from_str(text).ok()? {
        Json::Object(map) => Some(map.into_iter().map(|(key, value)| (key, value_of(value))).collect()),
        _ => None,
    }
}

fn value_of(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(x) => Value::Bool(x),
        // What others wrote may be an integer that is too long for us.
        Json::Number(number) => match number.as_i64() {
            Some(int) => Value::Int(int),
            None => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::String(text),
        Json::Array(items) => Value::Array(items.into_iter().map(value_of).collect()),
        Json::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, value_of(value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_kind_and_their_value() {
        let floats =
            [0.5, 3.0, -2.0, 1e15, 1e300, 5e-324, f64::MAX, 1_152_921_504_606_847_232.0, 9_007_199_254_740_993.0];
        for x in floats {
            assert!(float(x).contains('.') && !float(x).contains('e'), "{}", float(x));
            assert_eq!(float(x).parse::<f64>().unwrap(), x);
            let metadata: Metadata = [("x".to_owned(), Value::Float(x))].into();
            assert_eq!(read(&object(&metadata)).unwrap(), metadata);
        }
        assert_eq!(float(1_152_921_504_606_847_232.0), "1152921504606847232.0");
        assert_eq!(float(-0.0), "0.0");
        let ints: Metadata = [("a".to_owned(), Value::Int(i64::MIN)), ("b".to_owned(), Value::Int(3))].into();
        assert_eq!(read(&object(&ints)).unwrap(), ints);
    }

    #[test]
    fn texts_and_trees_come_back() {
        let inner = [("k\"\\".to_owned(), Value::Null)].into();
        let items = vec![Value::String("\u{1}é\n".into()), Value::Bool(true), Value::Object(inner)];
        let metadata: Metadata = [("".to_owned(), Value::Array(items))].into();
        assert_eq!(read(&object(&metadata)).unwrap(), metadata);
        assert_eq!(read("[1]"), None);
    }
}
