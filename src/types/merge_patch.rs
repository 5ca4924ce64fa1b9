//! JSON merge patches (RFC 7396), on metadata.

use super::{Metadata, Value};

/// Merges a patch into metadata: null takes a field away, objects are merged field by field, and anything else, an
/// array too, takes the place of what stands there.
pub fn merge_patch(target: &mut Metadata, patch: Metadata) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(&name)),
            Value::Object(patch) => match target.get_mut(&name) {
                Some(Value::Object(inner)) => merge_patch(inner, patch),
                _ => {
                    // Of what is new, too, nulls are no fields.
                    let mut inner = Metadata::new();
                    merge_patch(&mut inner, patch);
                    target.insert(name, Value::Object(inner));
                }
            },
            other => drop(target.insert(name, other)),
        }
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    fn of(json: serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::Null,
            Json::Bool(x) => Value::Bool(x),
            Json::Number(x) => x.as_i64().map_or_else(|| Value::Float(x.as_f64().unwrap()), Value::Int),
            Json::String(x) => Value::String(x),
            Json::Array(items) => Value::Array(items.into_iter().map(of).collect()),
            Json::Object(map) => Value::Object(map.into_iter().map(|(name, value)| (name, of(value))).collect()),
        }
    }

    /// As the field of a document: there any value may stand, and be patched.
    fn patched(target: &str, patch: &str) -> Option<Value> {
        let read = |text: &str| of(serde_json::from_str(text).unwrap());
        let mut metadata = Metadata::from([("m".to_owned(), read(target))]);
        merge_patch(&mut metadata, Metadata::from([("m".to_owned(), read(patch))]));
        metadata.remove("m")
    }

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn the_examples_of_the_rfc_hold() {
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ];
        for (target, patch, wanted) in cases {
            assert_eq!(patched(target, patch), Some(of(serde_json::from_str(wanted).unwrap())), "{target} {patch}");
        }
        // A field that is null is one that is gone.
        assert_eq!(patched(r#"{"a":"foo"}"#, "null"), None);
    }

    #[test]
    fn names_with_dots_are_names() {
        assert_eq!(patched(r#"{"a":{"b":1}}"#, r#"{"a.b":2}"#), Some(of(serde_json::json!({"a": {"b": 1}, "a.b": 2}))));
    }
}
