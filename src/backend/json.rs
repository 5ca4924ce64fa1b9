//! Metadata as JSON for `jsonb` and back: what is read is what was written, and numbers compare there as they do here.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use serde_json::value::RawValue;

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

/// A new object as text, in which everything that it shares with `old`, an object as Postgres printed it, stands as
/// there: `jsonb` has numbers with more digits than are read here. `None` where `old` is no object.
pub(super) fn object_over(old: &str, new: &Metadata) -> Option<String> {
    let before = read(old)?;
    members_over(old, &before, new)
}

fn members_over(old: &str, before: &Metadata, new: &Metadata) -> Option<String> {
    let raw: BTreeMap<String, &RawValue> = serde_json::from_str(old).ok()?;
    let mut members = Vec::with_capacity(new.len());
    for (name, to) in new {
        let text = match (raw.get(name.as_str()), before.get(name), to) {
            (Some(raw), Some(from), _) if from == to => raw.get().to_owned(),
            (Some(raw), Some(Value::Object(from)), Value::Object(to)) => members_over(raw.get(), from, to)?,
            _ => value(to),
        };
        members.push(format!("{}:{text}", Json::from(name.as_str())));
    }
    Some(format!("{{{}}}", members.join(",")))
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
    fn what_stays_of_an_object_keeps_its_digits() {
        let old = "{\"n\": 12345678901234567890, \"deep\": {\"x\": 0.12345678901234567890, \"y\": 1}, \"gone\": 1, \"é\\n\": [1.50]}";
        let mut new = read(old).unwrap();
        new.remove("gone");
        new.insert("seen".into(), Value::Bool(true));
        let Some(Value::Object(deep)) = new.get_mut("deep") else { panic!("no object") };
        deep.insert("y".into(), Value::Float(2.0));
        let text = object_over(old, &new).unwrap();
        assert_eq!(read(&text).unwrap(), new, "{text}");
        for part in ["\"n\":12345678901234567890", "\"x\":0.12345678901234567890", "\"y\":2.0", "[1.50]"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(object_over(old, &Metadata::new()).unwrap(), "{}");
        assert_eq!(object_over("[1]", &new), None);
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
