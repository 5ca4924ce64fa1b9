//! Objects whose keys are names that a client chooses, each once: of two values of one name nobody knows which is
//! meant.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// An object by its keys, which stand once each.
#[derive(Debug)]
pub(super) struct UniqueMap<V>(pub(super) BTreeMap<String, V>);

/// Reads a field of that kind.
///
/// # Errors
/// A key that stands twice, and what is no object of such values.
pub(super) fn read<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, V>, D::Error> {
    UniqueMap::deserialize(deserializer).map(|UniqueMap(map)| map)
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for MapVisitor<V> {
            type Value = UniqueMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<UniqueMap<V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = entries.next_entry::<String, V>()? {
                    if map.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("the key {key:?} stands twice in one object")));
                    }
                    map.insert(key, value);
                }
                Ok(UniqueMap(map))
            }
        }

        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use crate::http::error::Code;
    use crate::http::wire::definition::DefinitionBody;
    use crate::http::wire::json;
    use crate::http::wire::replication::SinkBody;

    fn code<T: DeserializeOwned>(text: &str) -> Option<Code> {
        json::parse::<T>(text.as_bytes()).err().map(|error| error.code)
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_wherever_clients_choose_names() {
        assert_eq!(code::<DefinitionBody>(r#"{"fields":{"price":"keyword","name":"keyword"}}"#), None);
        assert_eq!(code::<DefinitionBody>(r#"{"fields":null}"#), None);
        let twice = r#"{"fields":{"price":"keyword","price":"number"}}"#;
        assert_eq!(code::<DefinitionBody>(twice), Some(Code::InvalidValue));
        let weights = |more: &str| format!(r#"{{"embedding":{{"template":{{"weights":{{"a":2{more}}}}}}}}}"#);
        assert_eq!(code::<DefinitionBody>(&weights(r#","b":2"#)), None);
        assert_eq!(code::<DefinitionBody>(&weights(r#","a":3"#)), Some(Code::InvalidValue));
        let columns = |more: &str| format!(r#"{{"collection":"c","layout":"custom","columns":{{"a":"id"{more}}}}}"#);
        let (once, twice) = (columns(""), columns(r#","a":"text""#));
        assert_ne!(code::<SinkBody>(&once), Some(Code::InvalidValue));
        assert_eq!(code::<SinkBody>(&twice), Some(Code::InvalidValue));
    }
}
