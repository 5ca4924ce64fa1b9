//! Change events of Debezium, one JSON object a line: with the `schema` and `payload` envelope or without, whole or
//! flattened, and tombstones.

mod kinds;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use self::kinds::{Kind, convert, digits, field_of, kinds_of};
use super::{SourceError, json, key};
use crate::types::Metadata;

/// What Debezium sends for a value that an update left as it was and Postgres stores apart (TOAST), where `REPLICA
/// IDENTITY` is not `FULL`: as a text, in the two ways of bytes, and as a map in a text.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
const UNAVAILABLE_BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
const UNAVAILABLE_HEX: &str = "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565";
const UNAVAILABLE_MAP: &str = r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#;

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The row is there, and this is what it holds.
    Upsert {
        /// Of its key.
        id: String,
        /// Its columns.
        fields: Metadata,
        /// Of the key that it had before, where this change gave it another: nothing is left under that one.
        before: Option<String>,
    },
    /// The row is gone.
    Delete {
        /// Of its key.
        id: String,
    },
    /// The row is gone, as the key beside a tombstone says.
    KeyedTombstone {
        /// Of its key.
        id: String,
    },
    /// A row is gone, and nothing says which: a tombstone without its key.
    Tombstone,
    /// The event says nothing about a row: a message.
    Nothing,
}

/// Reads events.
#[derive(Clone, Debug)]
pub struct Events {
    /// Columns that name a row; their values joined by colons are the document's id, colons within them escaped.
    pub key: Vec<String>,
    /// Columns that do not become fields.
    pub exclude: Vec<String>,
}

/// What was said of the columns of the key where the last row came: its document has its id by that.
#[derive(Clone, Debug, Default)]
pub struct KeyKinds(Option<BTreeMap<String, Kind>>);

impl Events {
    /// What one line says by itself.
    ///
    /// # Errors
    /// As [`Events::read_after`].
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn read(&self, line: &str) -> Result<Change, SourceError> {
        self.read_after(line, &mut KeyKinds::default())
    }

    /// What one line says after others. Keys and values may be written by different converters, with a schema and
    /// without: a tombstone means the id that the rows before it had.
    ///
    /// # Errors
    /// [`SourceError::Event`], which does not repeat the row.
    pub fn read_after(&self, line: &str, kinds: &mut KeyKinds) -> Result<Change, SourceError> {
        let line = line.trim();
        // What Kafka deletes a key with.
        if line.is_empty() || line == "null" {
            return Ok(Change::Tombstone);
        }
        let event: Json = serde_json::from_str(line).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
        // As tools print a record: its key beside its value.
        let (key, event) = match event {
            Json::Object(mut record) if self.is_around(&record, "value") && !record.contains_key("op") => {
                (record.remove("key").unwrap_or_default(), record.remove("value").unwrap_or_default())
            }
            other => (Json::Null, other),
        };
        let (schema, payload) = self.unpacked(event);
        match payload {
            Json::Null => self.of_tombstone(key, kinds),
            Json::Object(payload) if self.is_envelope(&payload) => self.of_envelope(&schema, payload, kinds),
            Json::Object(payload) => self.of_flat(&schema, payload, kinds),
            _ => Err(wrong("it is no object with \"op\", \"before\" and \"after\"")),
        }
    }

    /// Whether an object is something around a row. A row may have a column of any name itself.
    fn is_around(&self, object: &Map<String, Json>, name: &str) -> bool {
        object.contains_key(name) && !self.is_row(object)
    }

    /// The schema and what it is of; the schema is null where there is none.
    fn unpacked(&self, json: Json) -> (Json, Json) {
        match json {
            Json::Object(mut envelope) if self.is_around(&envelope, "payload") => {
                (envelope.remove("schema").unwrap_or_default(), envelope.remove("payload").unwrap_or_default())
            }
            other => (Json::Null, other),
        }
    }

    /// What a record without a value says: the row of its key is gone. Behind an event of op `d` that is known, and the
    /// transformation `ExtractNewRecordState` leaves nothing else of such an event.
    fn of_tombstone(&self, key: Json, KeyKinds(of_rows): &KeyKinds) -> Result<Change, SourceError> {
        match self.unpacked(key) {
            (schema, Json::Object(key)) if self.key.iter().all(|name| key.contains_key(name)) => {
                let of_key = || kinds_of(Some(&schema));
                Ok(Change::KeyedTombstone { id: self.id(&key, &of_rows.clone().unwrap_or_else(of_key))? })
            }
            _ => Ok(Change::Tombstone),
        }
    }

    fn note(&self, kinds: &BTreeMap<String, Kind>, KeyKinds(known): &mut KeyKinds) {
        let of_key = self.key.iter().filter_map(|name| kinds.get_key_value(name));
        *known = Some(of_key.map(|(name, kind)| (name.clone(), kind.clone())).collect());
    }

    /// Whether an object has the key itself.
    fn is_row(&self, object: &Map<String, Json>) -> bool {
        let is_part = |name: &String| object.get(name).is_some_and(|value| value.is_string() || value.is_number());
        self.key.iter().all(is_part)
    }

    /// Whether an object tells of a row, and is none that has a column `op`: the columns of a row are no objects.
    fn is_envelope(&self, object: &Map<String, Json>) -> bool {
        let has_side = ["before", "after"].iter().any(|side| object.get(*side).is_some_and(Json::is_object));
        object.contains_key("op") && (has_side || !self.is_row(object))
    }

    fn of_envelope(
        &self,
        schema: &Json,
        mut payload: Map<String, Json>,
        known: &mut KeyKinds,
    ) -> Result<Change, SourceError> {
        let op = payload.get("op").and_then(Json::as_str).unwrap_or_default().to_owned();
        let side = match op.as_str() {
            "c" | "u" | "r" => "after",
            "d" => "before",
            // A message that a program wrote into the log.
            "m" => return Ok(Change::Nothing),
            "t" => return Err(wrong("the table was emptied (op \"t\"); delete its documents, and begin anew")),
            other => return Err(wrong(format!("op {other:?} is none of c, u, d, r"))),
        };
        let Some(Json::Object(mut row)) = payload.remove(side) else {
            return Err(wrong(format!("op {op:?} has no {side:?}; set REPLICA IDENTITY so that it holds the key")));
        };
        let kinds = kinds_of(field_of(schema, side));
        self.note(&kinds, known);
        if side == "before" {
            return Ok(Change::Delete { id: self.id(&row, &kinds)? });
        }
        let old = payload.remove("before");
        if op == "u" {
            self.complete(&mut row, old.as_ref().and_then(Json::as_object))?;
        }
        let id = self.id(&row, &kinds)?;
        // Without a key in it, `before` says nothing of another key.
        let before = match old {
            Some(Json::Object(old)) => self.id(&old, &kinds_of(field_of(schema, "before"))).ok(),
            _ => None,
        };
        let before = before.filter(|before| *before != id);
        Ok(Change::Upsert { id, fields: self.fields(row, &kinds), before })
    }

    /// As the transformation `ExtractNewRecordState` leaves an event: the row, with fields of its own beside.
    fn of_flat(&self, schema: &Json, mut row: Map<String, Json>, known: &mut KeyKinds) -> Result<Change, SourceError> {
        let kinds = kinds_of(Some(schema));
        self.note(&kinds, known);
        let is_deleted = |value: Option<Json>| match value {
            Some(Json::Bool(deleted)) => deleted,
            Some(Json::String(text)) => text == "true",
            _ => false,
        };
        let is_op = row.remove("__op").is_some_and(|op| op == "d");
        let is_gone = is_deleted(row.remove("__deleted")) || is_op;
        row.retain(|name, _| !name.starts_with("__") || self.key.contains(name));
        if is_gone {
            return Ok(Change::Delete { id: self.id(&row, &kinds)? });
        }
        self.complete(&mut row, None)?;
        Ok(Change::Upsert { id: self.id(&row, &kinds)?, fields: self.fields(row, &kinds), before: None })
    }

    /// Takes what an update did not send from what was there before.
    fn complete(&self, row: &mut Map<String, Json>, before: Option<&Map<String, Json>>) -> Result<(), SourceError> {
        let is_wanted = |name: &String| !self.exclude.contains(name) || self.key.contains(name);
        for (name, value) in row.iter_mut().filter(|(name, value)| is_wanted(name) && is_unavailable(value)) {
            let old = before.and_then(|before| before.get(name)).filter(|old| !is_unavailable(old));
            *value = old.cloned().ok_or_else(|| {
                wrong(format!(
                    "column {name:?} is not in it, since the update left it as it was; set REPLICA IDENTITY FULL for the \
                     table, or leave the column out with --exclude-columns {name}"
                ))
            })?;
        }
        Ok(())
    }

    fn id(&self, row: &Map<String, Json>, kinds: &BTreeMap<String, Kind>) -> Result<String, SourceError> {
        let part = |name: &String| {
            let value = row.get(name).ok_or_else(|| wrong(format!("it has no key column {name:?}")))?;
            // With all its digits, as `import postgres` reads it.
            if let Some(digits) = kinds.get(name).and_then(|kind| digits(value, kind)) {
                return Ok(digits);
            }
            match convert(value.clone(), kinds.get(name)) {
                Json::String(text) => Ok(text),
                Json::Number(number) => Ok(number.to_string()),
                Json::Bool(value) => Ok(value.to_string()),
                _ => Err(wrong(format!("key column {name:?} is no string and no number"))),
            }
        };
        Ok(key::id_of(&self.key.iter().map(part).collect::<Result<Vec<_>, _>>()?))
    }

    fn fields(&self, row: Map<String, Json>, kinds: &BTreeMap<String, Kind>) -> Metadata {
        let kept = row.into_iter().filter(|(name, _)| !self.exclude.contains(name));
        json::object(kept.map(|(name, value)| (name.clone(), convert(value, kinds.get(&name)))).collect())
    }
}

/// Whether a value stands for one that was not sent.
fn is_unavailable(value: &Json) -> bool {
    match value {
        Json::String(text) => {
            [UNAVAILABLE, UNAVAILABLE_BASE64, UNAVAILABLE_HEX, UNAVAILABLE_MAP].contains(&text.as_str())
        }
        // Arrays of texts have it once, those of numbers its bytes.
        Json::Array(items) => match items.as_slice() {
            [item] => item.is_string() && is_unavailable(item),
            items => items.iter().map(Json::as_f64).eq(UNAVAILABLE.bytes().map(|byte| Some(f64::from(byte)))),
        },
        Json::Object(map) => map.len() == 1 && map.contains_key(UNAVAILABLE),
        _ => false,
    }
}

fn wrong(reason: impl Into<String>) -> SourceError {
    SourceError::Event { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::types::Value;

    fn events() -> Events {
        Events { key: vec!["id".into()], exclude: vec!["secret".into()] }
    }

    fn upsert(id: &str, fields: &[(&str, Value)]) -> Change {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Change::Upsert { id: id.into(), fields, before: None }
    }

    #[test]
    fn a_changed_key_names_the_old_one() {
        let before = |line: &str| match events().read(line).unwrap() {
            Change::Upsert { id, before, .. } => (id, before),
            other => panic!("{other:?}"),
        };
        let moved = |old: &str| ("2".to_owned(), Some(old.to_owned()));
        assert_eq!(before(r#"{"op":"u","before":{"id":1,"a":"x"},"after":{"id":2,"a":"x"}}"#), moved("1"));
        assert_eq!(before(r#"{"op":"u","before":{"id":2},"after":{"id":2,"a":"y"}}"#).1, None);
        // Snapshots and inserts have no before; one without the key tells nothing.
        for old in ["null", r#"{"a":"x"}"#, r#"{"id":null}"#] {
            assert_eq!(before(&format!(r#"{{"op":"u","before":{old},"after":{{"id":2}}}}"#)).1, None, "{old}");
        }
        let field =
            |side: &str| format!(r#"{{"field":"{side}","fields":[{{"field":"id","name":"io.debezium.time.Date"}}]}}"#);
        let line = format!(
            r#"{{"schema":{{"fields":[{},{}]}},"payload":{{"op":"u","before":{{"id":0}},"after":{{"id":1}}}}}}"#,
            field("before"),
            field("after")
        );
        assert_eq!(before(&line), ("1970-01-02".to_owned(), Some("1970-01-01".to_owned())));
    }

    #[test]
    fn keys_of_several_columns_are_never_the_same_id() {
        let events = Events { key: vec!["a".into(), "b".into()], exclude: vec![] };
        let id = |line: &str| match events.read(line).unwrap() {
            Change::Upsert { id, .. } => id,
            other => panic!("{other:?}"),
        };
        assert_eq!(id(r#"{"op":"c","after":{"a":"a:b","b":"c"}}"#), r"a\:b:c");
        assert_eq!(id(r#"{"op":"c","after":{"a":"a","b":"b:c"}}"#), r"a:b\:c");
        assert_eq!(id(r#"{"op":"c","after":{"a":1,"b":"x"}}"#), "1:x");
    }

    #[test]
    fn events_are_read_in_every_envelope() {
        let one = upsert("1", &[("id", Value::Int(1)), ("a", Value::String("x".into()))]);
        let gone = Change::Delete { id: "1".into() };
        let cases = [
            (r#"{"op":"c","before":null,"after":{"id":1,"a":"x","secret":2},"ts_ms":5}"#, one.clone()),
            (r#"{"op":"r","after":{"id":1,"a":"x"}}"#, one.clone()),
            (r#"{"schema":{},"payload":{"op":"u","before":{"id":1},"after":{"id":1,"a":"x"}}}"#, one.clone()),
            (r#"{"key":{"id":1},"value":{"payload":{"op":"d","before":{"id":1},"after":null}}}"#, gone.clone()),
            (r#"{"id":1,"a":"x","__deleted":"false","__op":"u","__ts":1}"#, one),
            (r#"{"id":1,"__deleted":"true"}"#, gone),
            // A row has columns of any name.
            (r#"{"id":1,"value":null}"#, upsert("1", &[("id", Value::Int(1)), ("value", Value::Null)])),
            (r#"{"id":1,"payload":null}"#, upsert("1", &[("id", Value::Int(1)), ("payload", Value::Null)])),
            (
                r#"{"schema":{},"payload":{"op":"c","after":{"id":1,"value":2}}}"#,
                upsert("1", &[("id", Value::Int(1)), ("value", Value::Int(2))]),
            ),
            (
                r#"{"id":1,"op":"m","after":"x"}"#,
                upsert(
                    "1",
                    &[("id", Value::Int(1)), ("op", Value::String("m".into())), ("after", Value::String("x".into()))],
                ),
            ),
            (
                r#"{"payload":{"id":1,"op":null,"__op":"c"}}"#,
                upsert("1", &[("id", Value::Int(1)), ("op", Value::Null)]),
            ),
            ("null", Change::Tombstone),
            (" ", Change::Tombstone),
            (r#"{"schema":null,"payload":null}"#, Change::Tombstone),
            (r#"{"key":{"other":1},"value":null}"#, Change::Tombstone),
            (r#"{"key":null,"value":null}"#, Change::Tombstone),
            (r#"{"op":"m","message":{}}"#, Change::Nothing),
        ];
        for (line, wanted) in cases {
            assert_eq!(events().read(line).unwrap(), wanted, "{line}");
        }
    }

    #[test]
    fn a_tombstone_deletes_the_row_of_its_key() {
        let days = r#"{"fields":[{"field":"id","name":"io.debezium.time.Date"}]}"#;
        let cases = [
            (r#"{"key":{"id":1},"value":null}"#.to_owned(), "1"),
            (r#"{"key":{"id":"a","other":2},"value":{"schema":null,"payload":null}}"#.to_owned(), "a"),
            (format!(r#"{{"key":{{"schema":{days},"payload":{{"id":1}}}},"value":null}}"#), "1970-01-02"),
        ];
        for (line, id) in cases {
            assert_eq!(events().read(&line).unwrap(), Change::KeyedTombstone { id: id.into() }, "{line}");
        }
        let pair = Events { key: vec!["a".into(), "b".into()], exclude: vec![] };
        let gone = pair.read(r#"{"key":{"b":"x:y","a":1},"value":null}"#).unwrap();
        assert_eq!(gone, Change::KeyedTombstone { id: r"1:x\:y".into() });
        assert_eq!(pair.read(r#"{"key":{"a":1},"value":null}"#).unwrap(), Change::Tombstone);
    }

    #[test]
    fn a_tombstone_means_the_id_that_the_rows_have() {
        let field = r#"{"field":"id","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}"#;
        let with_schema = format!(r#"{{"schema":{{"fields":[{field}]}},"payload":{{"id":"BOI="}}}}"#);
        let whole = format!(
            r#"{{"schema":{{"fields":[{{"field":"after","fields":[{field}]}}]}},"payload":{{"op":"c","after":{{"id":"BOI="}}}}}}"#
        );
        let plain = r#"{"id":"BOI="}"#;
        let flat = r#"{"id":"BOI=","a":1}"#;
        for (row, key, wanted) in [
            (Some(whole.as_str()), plain, "12.50"),
            (Some(with_schema.as_str()), plain, "12.50"),
            (Some(flat), with_schema.as_str(), "BOI="),
            (Some(flat), plain, "BOI="),
            (None, with_schema.as_str(), "12.50"),
            (None, plain, "BOI="),
        ] {
            let mut kinds = KeyKinds::default();
            if let Some(row) = row {
                let read = events().read_after(row, &mut kinds).unwrap();
                let Change::Upsert { id, .. } = read else { panic!("{read:?}") };
                assert_eq!(id, wanted, "{row}");
            }
            let tombstone = format!(r#"{{"key":{key},"value":null}}"#);
            let gone = events().read_after(&tombstone, &mut kinds).unwrap();
            assert_eq!(gone, Change::KeyedTombstone { id: wanted.into() }, "{row:?} {key}");
        }
    }

    #[test]
    fn keys_may_be_named_as_what_an_event_has_itself() {
        let id = |key: &str, line: &str| {
            let events = Events { key: vec![key.into()], exclude: vec![] };
            match events.read(line).unwrap() {
                Change::Upsert { id, .. } => id,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(id("op", r#"{"op":"c","before":null,"after":{"op":"x"},"ts_ms":5}"#), "x");
        assert_eq!(id("op", r#"{"op":"x","name":"n"}"#), "x");
        assert_eq!(id("__id", r#"{"__id":7,"__op":"c","__v":1}"#), "7");
    }

    #[test]
    fn the_schema_says_what_numbers_mean() {
        let field =
            |name: &str, kind: &str| format!(r#"{{"field":"{name}","name":"{kind}","parameters":{{"scale":"2"}}}}"#);
        let fields = [
            field("d", "io.debezium.time.Date"),
            field("m", "io.debezium.time.MicroTimestamp"),
            field("t", "io.debezium.time.MicroTime"),
            field("e", "org.apache.kafka.connect.data.Time"),
            field("n", "org.apache.kafka.connect.data.Decimal"),
            field("j", "io.debezium.data.Json"),
            r#"{"field":"id","type":"string","name":"io.debezium.data.Uuid"}"#.to_owned(),
        ];
        let line = format!(
            r#"{{"schema":{{"fields":[{{"field":"after","fields":[{}]}}]}},"payload":{{"op":"c","after":{{"id":"u","d":19723,"m":1700000000000000,"t":45296789000,"e":86400000,"n":"/zg=","j":"{{\"a\":[1]}}"}}}}}}"#,
            fields.join(",")
        );
        let wanted = upsert(
            "u",
            &[
                ("id", Value::String("u".into())),
                ("d", Value::String("2024-01-01".into())),
                ("m", Value::String("2023-11-14T22:13:20Z".into())),
                ("t", Value::String("12:34:56.789".into())),
                ("e", Value::String("24:00:00".into())),
                ("n", Value::Float(-2.0)),
                ("j", Value::Object([("a".to_owned(), Value::Array(vec![Value::Int(1)]))].into())),
            ],
        );
        assert_eq!(events().read(&line).unwrap(), wanted);
    }

    #[test]
    fn numbers_with_scales_of_their_own_and_arrays_are_converted() {
        let scaled = |name: &str| {
            format!(
                r#"{{"type":"struct","fields":[{{"type":"int32","optional":false,"field":"scale"}},{{"type":"bytes","optional":false,"field":"value"}}],"optional":true,"name":"io.debezium.data.VariableScaleDecimal","version":1{name}}}"#
            )
        };
        let array = |name: &str, items: &str| format!(r#"{{"type":"array","items":{items},"field":"{name}"}}"#);
        let fields = [
            scaled(r#","field":"id""#),
            scaled(r#","field":"price""#),
            array("prices", &scaled("")),
            array("days", r#"{"type":"int32","optional":true,"name":"io.debezium.time.Date","version":1}"#),
            array(
                "costs",
                r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}"#,
            ),
            array("tags", r#"{"type":"string"}"#),
        ];
        let line = format!(
            r#"{{"schema":{{"fields":[{{"field":"after","fields":[{}]}}]}},"payload":{{"op":"c","after":{{"id":{{"scale":2,"value":"BOI="}},"price":{{"scale":2,"value":"MDk="}},"prices":[{{"scale":0,"value":"/w=="}},null,{{"scale":1,"value":"Dw=="}}],"days":[19723,null],"costs":["/zg="],"tags":["a"]}}}}}}"#,
            fields.join(",")
        );
        let strings = |text: &str| Value::String(text.into());
        let wanted = upsert(
            "12.50",
            &[
                ("id", Value::Float(12.5)),
                ("price", Value::Float(123.45)),
                ("prices", Value::Array(vec![Value::Int(-1), Value::Null, Value::Float(1.5)])),
                ("days", Value::Array(vec![strings("2024-01-01"), Value::Null])),
                ("costs", Value::Array(vec![Value::Float(-2.0)])),
                ("tags", Value::Array(vec![strings("a")])),
            ],
        );
        assert_eq!(events().read(&line).unwrap(), wanted);
        // What is no such object stays as it came.
        let odd = line.replace(r#""scale":2,"value":"MDk=""#, r#""scale":-2,"value":"MDk=""#);
        let Change::Upsert { fields, .. } = events().read(&odd).unwrap() else { panic!("{odd}") };
        assert_eq!(
            fields["price"],
            Value::Object([("scale".to_owned(), Value::Int(-2)), ("value".to_owned(), strings("MDk="))].into())
        );
    }

    #[test]
    fn what_an_update_did_not_send_is_taken_from_before_or_named() {
        let spelled = [
            format!("\"{UNAVAILABLE}\""),
            format!("\"{}\"", STANDARD.encode(UNAVAILABLE)),
            format!("\"{}\"", UNAVAILABLE.bytes().map(|byte| format!("{byte:02x}")).collect::<String>()),
            format!("[\"{UNAVAILABLE}\"]"),
            format!("{:?}", UNAVAILABLE.as_bytes()),
            format!("{{\"{UNAVAILABLE}\":\"{UNAVAILABLE}\"}}"),
            serde_json::to_string(&format!("{{\"{UNAVAILABLE}\":\"{UNAVAILABLE}\"}}")).unwrap(),
        ];
        let whole = upsert("1", &[("id", Value::Int(1)), ("a", Value::String("x".into()))]);
        for gone in &spelled {
            let update = |before: &str| {
                events()
                    .read(&format!(r#"{{"op":"u","before":{before},"after":{{"id":1,"a":{gone},"secret":{gone}}}}}"#))
            };
            assert_eq!(update(r#"{"id":1,"a":"x"}"#).unwrap(), whole, "{gone}");
            for before in ["null".to_owned(), r#"{"id":1}"#.to_owned(), format!(r#"{{"id":1,"a":{gone}}}"#)] {
                let error = update(&before).unwrap_err().to_string();
                assert!(error.contains("column \"a\"") && error.contains("REPLICA IDENTITY FULL"), "{gone}: {error}");
            }
            let error = events().read(&format!(r#"{{"id":1,"a":{gone},"__op":"u"}}"#)).unwrap_err().to_string();
            assert!(error.contains("REPLICA IDENTITY FULL"), "{gone}: {error}");
            assert_eq!(
                events().read(&format!(r#"{{"id":1,"a":{gone},"__deleted":"true"}}"#)).unwrap(),
                Change::Delete { id: "1".into() }
            );
        }
    }

    #[test]
    fn a_key_of_decimals_has_all_its_digits() {
        let id = |number: i128, scale: u32| {
            let field = format!(
                r#"{{"field":"id","name":"org.apache.kafka.connect.data.Decimal","parameters":{{"scale":"{scale}"}}}}"#
            );
            let line = format!(
                r#"{{"schema":{{"fields":[{{"field":"after","fields":[{field}]}}]}},"payload":{{"op":"c","after":{{"id":"{}"}}}}}}"#,
                STANDARD.encode(number.to_be_bytes())
            );
            match events().read(&line).unwrap() {
                Change::Upsert { id, .. } => id,
                other => panic!("{other:?}"),
            }
        };
        for text in ["12345678901234567890123", "12345678901234567890124", "-7"] {
            assert_eq!(id(text.parse().unwrap(), 0), text);
        }
        assert_eq!(id(1_250, 2), "12.50");
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let cases = [
            ("{", "not JSON"),
            ("[1]", "no object"),
            (r#"{"op":"x","after":{}}"#, "none of c, u, d, r"),
            (r#"{"op":"t"}"#, "emptied"),
            (r#"{"op":"d","before":null}"#, "REPLICA IDENTITY"),
            (r#"{"op":"c","after":{"a":"s3cret"}}"#, "key column \"id\""),
            (r#"{"op":"c","after":{"id":{"s3cret":1}}}"#, "no string"),
        ];
        for (line, wanted) in cases {
            let error = events().read(line).unwrap_err().to_string();
            assert!(error.contains(wanted) && !error.contains("s3cret"), "{error}");
        }
    }
}
