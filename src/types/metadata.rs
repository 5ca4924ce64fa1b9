//! Metadata: a JSON-like tree of bounded depth.

use std::collections::BTreeMap;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

use super::limits::{MAX_FIELD_NAME_BYTES, MAX_JSON_DEPTH};

/// A document's metadata: field name to value, in key order.
pub type Metadata = BTreeMap<String, Value>;

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON null.
    Null,
    /// JSON true or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; finite.
    Float(f64),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, in key order.
    Object(Metadata),
}

/// Why metadata was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Nesting is deeper than [`MAX_JSON_DEPTH`].
    #[error("metadata is nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
    /// A float is NaN or infinite.
    #[error("metadata field {field:?} holds a number that is not finite")]
    NotFinite {
        /// Top-level field.
        field: String,
    },
    /// A field's name is longer than [`MAX_FIELD_NAME_BYTES`].
    #[error(
        "the name of a metadata field has {len} bytes, at most {MAX_FIELD_NAME_BYTES} are allowed; it begins with \
         {start:?}"
    )]
    LongName {
        /// How long it is, in bytes.
        len: usize,
        /// Its first characters.
        start: String,
    },
}

/// Characters of a name that is too long, for the error.
const SHOWN_CHARS: usize = 32;

impl Value {
    /// The kind of value, in JSON's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        }
    }

    /// `depth`: levels from the document's metadata object, which is level 1. `field`: for the error.
    fn check(&self, field: &str, depth: usize) -> Result<(), MetadataError> {
        if depth > MAX_JSON_DEPTH {
            return Err(MetadataError::TooDeep);
        }
        match self {
            Value::Float(x) if !x.is_finite() => Err(MetadataError::NotFinite { field: field.to_owned() }),
            Value::Array(items) => items.iter().try_for_each(|v| v.check(field, depth + 1)),
            Value::Object(map) => map.iter().try_for_each(|(name, v)| {
                check_name(name)?;
                v.check(field, depth + 1)
            }),
            _ => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), MetadataError> {
    match name.len() {
        len if len > MAX_FIELD_NAME_BYTES => {
            Err(MetadataError::LongName { len, start: name.chars().take(SHOWN_CHARS).collect() })
        }
        _ => Ok(()),
    }
}

/// Checks names, depth and numbers of a document's metadata.
///
/// # Errors
/// [`MetadataError`] names what is wrong.
pub fn check_metadata(metadata: &Metadata) -> Result<(), MetadataError> {
    metadata.iter().try_for_each(|(field, value)| {
        check_name(field)?;
        value.check(field, 2)
    })
}

/// The value at a path: a field of that very name, else the field named by the part before a dot and the rest below it.
pub fn lookup<'a>(metadata: &'a Metadata, path: &str) -> Option<&'a Value> {
    if let Some(value) = metadata.get(path) {
        return Some(value);
    }
    let below = |name: &str, value: &'a Value| match value {
        Value::Object(inner) => lookup(inner, &path[name.len() + 1..]),
        _ => None,
    };
    // Of names or dots, whichever are fewer: a path may be nothing but dots. Both ways shorter names come first.
    if path.bytes().filter(|byte| *byte == b'.').count() > metadata.len() {
        let starts = |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        return metadata.iter().filter(|(name, _)| starts(name)).find_map(|(name, value)| below(name, value));
    }
    path.match_indices('.').find_map(|(dot, _)| below(&path[..dot], metadata.get(&path[..dot])?))
}

/// What metadata weigh against their limit: bytes of all names and strings, and 9 for each value.
pub fn metadata_bytes(metadata: &Metadata) -> usize {
    fn value_bytes(value: &Value) -> usize {
        9 + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(value_bytes).sum(),
            Value::Object(map) => metadata_bytes(map),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        }
    }
    metadata.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

/// Memory that metadata take, about, in bytes. It may be many times [`metadata_bytes`].
pub fn metadata_memory(metadata: &Metadata) -> usize {
    /// Entries of a node of a B-tree, which is half full or more.
    const NODE_ENTRIES: usize = 11;
    const NODE_BYTES: usize = NODE_ENTRIES * (size_of::<String>() + size_of::<Value>());
    fn below(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(|item| size_of::<Value>() + below(item)).sum(),
            Value::Object(map) => metadata_memory(map),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        }
    }
    let nodes = metadata.len().div_ceil(NODE_ENTRIES) * NODE_BYTES;
    nodes + metadata.iter().map(|(name, value)| name.len() + below(value)).sum::<usize>()
}

const NULL: u8 = 0;
const BOOL: u8 = 1;
const INT: u8 = 2;
const FLOAT: u8 = 3;
const STRING: u8 = 4;
const ARRAY: u8 = 5;
const OBJECT: u8 = 6;

impl Encode for Value {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self {
            Value::Null => NULL.encode(encoder),
            Value::Bool(x) => (BOOL, x).encode(encoder),
            Value::Int(x) => (INT, x).encode(encoder),
            Value::Float(x) => (FLOAT, x).encode(encoder),
            Value::String(x) => (STRING, x).encode(encoder),
            Value::Array(x) => (ARRAY, x).encode(encoder),
            Value::Object(x) => (OBJECT, x).encode(encoder),
        }
    }
}

/// Decodes one value; `depth_left` bounds the recursion that hostile bytes could otherwise drive.
fn decode_value<D: Decoder>(decoder: &mut D, depth_left: usize) -> Result<Value, DecodeError> {
    let deeper = depth_left.checked_sub(1).ok_or(DecodeError::Other("metadata is nested too deep"))?;
    Ok(match u8::decode(decoder)? {
        NULL => Value::Null,
        BOOL => Value::Bool(Decode::decode(decoder)?),
        INT => Value::Int(Decode::decode(decoder)?),
        FLOAT => Value::Float(Decode::decode(decoder)?),
        STRING => Value::String(Decode::decode(decoder)?),
        ARRAY => {
            let count = u64::decode(decoder)?;
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(decode_value(decoder, deeper)?);
            }
            Value::Array(items)
        }
        OBJECT => {
            let count = u64::decode(decoder)?;
            let mut map = Metadata::new();
            for _ in 0..count {
                let key = String::decode(decoder)?;
                map.insert(key, decode_value(decoder, deeper)?);
            }
            Value::Object(map)
        }
        _ => return Err(DecodeError::Other("unknown kind of metadata value")),
    })
}

impl<C> Decode<C> for Value {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        decode_value(decoder, MAX_JSON_DEPTH)
    }
}

impl<'de, C> BorrowDecode<'de, C> for Value {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        decode_value(decoder, MAX_JSON_DEPTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> impl bincode::config::Config {
        bincode::config::standard().with_fixed_int_encoding()
    }

    #[test]
    fn round_trips() {
        let value = Value::Object(BTreeMap::from([
            ("a".into(), Value::Array(vec![Value::Null, Value::Bool(true), Value::Int(-1), Value::Float(0.5)])),
            ("b".into(), Value::Object(BTreeMap::from([("c".into(), Value::String("д".into()))]))),
        ]));
        let bytes = bincode::encode_to_vec(&value, config()).unwrap();
        let (back, used): (Value, usize) = bincode::decode_from_slice(&bytes, config()).unwrap();
        assert_eq!((back, used), (value, bytes.len()));
    }

    #[test]
    fn hostile_nesting_is_an_error() {
        let mut bytes = Vec::new();
        for _ in 0..1_000_000 {
            bytes.push(ARRAY);
            bytes.extend(1u64.to_le_bytes());
        }
        assert!(bincode::decode_from_slice::<Value, _>(&bytes, config()).is_err());
    }

    fn object(pairs: &[(&str, Value)]) -> Metadata {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn names_have_a_limit_at_every_depth() {
        let longest = "ä".repeat(MAX_FIELD_NAME_BYTES / 2);
        let named = |name: &str| object(&[(name, Value::Null)]);
        assert_eq!(check_metadata(&named(&longest)), Ok(()));
        let long = format!("{longest}.");
        let below = Value::Array(vec![Value::Object(named(&long))]);
        for metadata in [named(&long), object(&[("a", below)])] {
            let error = check_metadata(&metadata).unwrap_err();
            assert_eq!(error, MetadataError::LongName { len: MAX_FIELD_NAME_BYTES + 1, start: "ä".repeat(32) });
            assert!(error.to_string().contains("at most 1024"), "{error}");
        }
    }

    #[test]
    fn a_path_is_looked_up_the_same_way_by_names_and_by_dots() {
        let leaf = |n: i64| Value::Object(object(&[("b", Value::Int(n)), ("b.c", Value::Int(n + 1))]));
        let few = object(&[("a", leaf(1)), ("a.b", leaf(3))]);
        let more: Vec<_> = ["v", "w", "x", "y", "z"].iter().map(|name| (*name, Value::Null)).collect();
        for metadata in [few.clone(), few.into_iter().chain(object(&more)).collect()] {
            let found = |path: &str| lookup(&metadata, path).cloned();
            assert_eq!(found("a.b"), Some(leaf(3)));
            assert_eq!(found("a.b.c"), Some(Value::Int(2)));
            assert_eq!(found("a.b.b"), Some(Value::Int(3)));
            assert_eq!(found("a.b.b.c"), Some(Value::Int(4)));
            assert_eq!(found("a.b.d.e.f.g.h.i"), None);
            assert_eq!(found(".........."), None);
        }
    }

    #[test]
    fn memory_is_that_of_every_value() {
        let small = object(&[("", Value::Int(0))]);
        let nested = Value::Array(vec![Value::Object(small.clone()); 10]);
        assert!(metadata_memory(&object(&[("a", nested)])) > 10 * metadata_memory(&small));
        let text = object(&[("a", Value::String("x".repeat(10_000)))]);
        assert!((10_000..11_000).contains(&metadata_memory(&text)));
        assert_eq!(metadata_memory(&Metadata::new()), 0);
    }

    #[test]
    fn depth_is_counted_from_the_metadata_object() {
        let mut value = Value::Int(1);
        for _ in 0..MAX_JSON_DEPTH - 2 {
            value = Value::Array(vec![value]);
        }
        assert_eq!(check_metadata(&BTreeMap::from([("a".into(), value.clone())])), Ok(()));
        let deeper = Value::Array(vec![value]);
        assert_eq!(check_metadata(&BTreeMap::from([("a".into(), deeper)])), Err(MetadataError::TooDeep));
    }
}
