//! JSON values as metadata values.

use serde_json::Value as Json;

use crate::types::{Metadata, Value};

/// The same value. Integers beyond 64 bits become floats.
pub(super) fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(float)) if float.is_finite() => Value::Float(float),
            _ => Value::String(number.to_string()),
        },
        // No text of the store holds a NUL, and Postgres has none either.
        Json::String(text) => Value::String(text),
        Json::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        Json::Object(map) => Value::Object(object(map)),
    }
}

pub(super) fn object(map: serde_json::Map<String, Json>) -> Metadata {
    map.into_iter().map(|(name, json)| (name, value(json))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_kind() {
        let json: Json =
            serde_json::from_str("[1, 1.0, 9223372036854775808, 18446744073709551615, 1e300, null]").unwrap();
        let wanted = [
            Value::Int(1),
            Value::Float(1.0),
            Value::Float(9_223_372_036_854_775_808.0),
            Value::Float(18_446_744_073_709_551_616.0),
            Value::Float(1e300),
            Value::Null,
        ];
        assert_eq!(value(json), Value::Array(wanted.to_vec()));
    }
}
