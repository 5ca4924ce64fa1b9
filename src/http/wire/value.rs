//! Metadata values as JSON.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};

use super::room;
use crate::types::{Metadata, Value};

/// A metadata value as a client sent it. Its depth is bounded by the scan before parsing, its memory by
/// [`room::within`].
#[derive(Debug, PartialEq)]
pub(crate) struct WireValue(pub(crate) Value);

/// A metadata object as a client sent it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct WireMetadata(pub(crate) Metadata);

/// Any JSON value, for the API's description.
pub(crate) struct AnyValue;

impl utoipa::PartialSchema for AnyValue {
    fn schema() -> RefOr<Schema> {
        // A schema without a type takes everything.
        ObjectBuilder::new().schema_type(SchemaType::AnyValue).into()
    }
}

impl ToSchema for AnyValue {}

/// A metadata value to write.
pub(crate) struct ValueView<'a>(pub(crate) &'a Value);

/// A metadata object to write.
pub(crate) struct MetadataView<'a>(pub(crate) &'a Metadata);

impl<'de> Deserialize<'de> for WireValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for WireMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = WireValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<WireValue, E> {
        Ok(WireValue(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<WireValue, E> {
        Ok(WireValue(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<WireValue, E> {
        Ok(WireValue(Value::Int(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<WireValue, E> {
        let outside = |_| E::custom(format_args!("the integer is outside {} to {}", i64::MIN, i64::MAX));
        let int = i64::try_from(value).map_err(outside)?;
        Ok(WireValue(Value::Int(int)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<WireValue, E> {
        Ok(WireValue(Value::Float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<WireValue, E> {
        room::take(room::STRING_BYTES)?;
        Ok(WireValue(Value::String(value.to_owned())))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<WireValue, E> {
        room::take(room::STRING_BYTES)?;
        Ok(WireValue(Value::String(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<WireValue, A::Error> {
        let mut items = Vec::new();
        while let Some(WireValue(item)) = seq.next_element()? {
            room::take(if items.is_empty() { room::ARRAY_BYTES } else { room::ITEM_BYTES })?;
            items.push(item);
        }
        Ok(WireValue(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WireValue, A::Error> {
        MetadataVisitor.visit_map(map).map(|WireMetadata(map)| WireValue(Value::Object(map)))
    }
}

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = WireMetadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WireMetadata, A::Error> {
        let mut metadata = Metadata::new();
        while let Some((key, WireValue(value))) = map.next_entry::<String, WireValue>()? {
            if metadata.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice in one object")));
            }
            room::take(if metadata.is_empty() { room::OBJECT_BYTES } else { room::ENTRY_BYTES })?;
            metadata.insert(key, value);
        }
        Ok(WireMetadata(metadata))
    }
}

impl Serialize for ValueView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::String(value) => serializer.serialize_str(value),
            Value::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&ValueView(item))?;
                }
                seq.end()
            }
            Value::Object(map) => MetadataView(map).serialize(serializer),
        }
    }
}

impl Serialize for MetadataView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, &ValueView(value))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_sent() {
        let text = r#"{"a":[1,-2,0.5,1e+300,null,true,"д\n"],"b":{"c":{}},"max":9223372036854775807,"one":1.0}"#;
        let WireMetadata(metadata) = serde_json::from_str(text).unwrap();
        assert_eq!(metadata["one"], Value::Float(1.0));
        assert_eq!(metadata["max"], Value::Int(i64::MAX));
        let written = serde_json::to_string(&MetadataView(&metadata)).unwrap();
        assert_eq!(written, text);
    }

    #[test]
    fn integers_beyond_i64_and_double_keys_are_refused() {
        let refused = |text: &str| serde_json::from_str::<WireMetadata>(text).unwrap_err().to_string();
        assert!(
            refused(r#"{"a":9223372036854775808}"#).contains("is outside -9223372036854775808 to 9223372036854775807")
        );
        assert!(refused(r#"{"a":1,"a":2}"#).contains("stands twice"));
        assert!(refused(r#"[1]"#).contains("expected an object"));
    }
}
