//! From a record of a file to a document of the API: which field is the id, the text, the vector, the metadata.

use super::{FieldTypes, LineError, string};
use crate::http::wire::value::WireValue;
use crate::types::{Metadata, Value};

/// Fields of the API's document that may already be laid out so in the file.
const METADATA: &str = "metadata";
const CHUNKS: &str = "chunks";
/// Of a document in an upsert: written only where the stored one is at this seq.
const CONDITION: &str = "if_seq";
/// What the API adds to a document that it returns.
const READ_ONLY: [&str; 4] = ["seq", "created_at", "updated_at", "embedding"];

/// Which fields of a record become what.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Mapping {
    /// A string, or a whole number, which is written as a string.
    pub id_field: String,
    /// Strings; those that are there are joined by line ends.
    pub text_fields: Vec<String>,
    /// An array of numbers, a string that holds one, or base64.
    pub vector_field: String,
    /// `None`: every other field. An object named `metadata` counts as its fields.
    pub metadata_fields: Option<Vec<String>>,
}

impl Mapping {
    /// How cells are understood, of the columns that become fields. An id, a text and a vector are as they are written:
    /// the ids `7` and `007` are two.
    pub(in crate::cli) fn types(&self, mut declared: FieldTypes) -> FieldTypes {
        let is_own = |name: &String| *name == self.id_field || *name == self.vector_field;
        declared.retain(|name, _| !is_own(name) && !self.text_fields.contains(name));
        declared
    }

    /// The document as the API takes it: `id`, `text`, `vector`, `chunks`, `metadata`. Values are checked there. A
    /// document that the API has returned loses what the API added to it. `columns`: those of the file, where it has
    /// them, also those whose cell is empty here.
    ///
    /// # Errors
    /// [`LineError`] when a field is missing, or is nothing that could be turned into what it has to be; also for a
    /// condition, which an import would not hold.
    pub(in crate::cli) fn document(&self, mut record: Metadata, columns: &[String]) -> Result<Metadata, LineError> {
        let mut document = Metadata::new();
        document.insert("id".to_owned(), self.take_id(&mut record, columns)?);
        if let Some(text) = self.take_text(&mut record)? {
            document.insert("text".to_owned(), string(text));
        }
        match record.remove(&self.vector_field) {
            None | Some(Value::Null) => {}
            Some(value) => {
                document.insert("vector".to_owned(), self.vector(value)?);
            }
        }
        if record.get(CHUNKS).is_some_and(|value| are_chunks(value) && hold_vectors(value)) {
            document.extend(record.remove_entry(CHUNKS));
        }
        if is_returned(&record) {
            // Chunks that were returned without their vectors say nothing: the text is split again.
            let is_added =
                |name: &str, value: &Value| READ_ONLY.contains(&name) || (name == CHUNKS && are_chunks(value));
            record.retain(|name, value| !is_added(name, value));
        }
        self.refuse_condition(&record)?;
        let metadata = self.metadata(record)?;
        if !metadata.is_empty() {
            document.insert(METADATA.to_owned(), Value::Object(metadata));
        }
        Ok(document)
    }

    /// Whoever sends a condition relies on it. As a field of its own it can be named, or stand in `metadata`.
    fn refuse_condition(&self, record: &Metadata) -> Result<(), LineError> {
        let is_field = self.metadata_fields.iter().flatten().any(|field| field == CONDITION);
        if is_field || !record.contains_key(CONDITION) {
            return Ok(());
        }
        let detail = format!(
            "an import writes whatever stands there, so {CONDITION:?} would not be heeded; leave it out, or name it \
             with --metadata-fields if it is a field of the documents"
        );
        Err(LineError::new("invalid_value", detail))
    }

    fn take_id(&self, record: &mut Metadata, columns: &[String]) -> Result<Value, LineError> {
        let name = &self.id_field;
        match record.remove(name) {
            Some(Value::String(id)) => Ok(Value::String(id)),
            Some(Value::Int(id)) => Ok(string(id.to_string())),
            Some(other) => {
                let detail =
                    format!("the id field {name:?} is {}; it must be a string or a whole number", other.kind());
                Err(LineError::new("invalid_value", detail))
            }
            None if columns.contains(name) => {
                Err(LineError::new("missing_field", format!("the cell of the id column {name:?} is empty")))
            }
            None => {
                let present = record.keys().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
                let detail = format!("there is no id field {name:?} among {present}; name it with --id-field");
                Err(LineError::new("missing_field", detail))
            }
        }
    }

    fn take_text(&self, record: &mut Metadata) -> Result<Option<String>, LineError> {
        let mut parts = Vec::new();
        for name in &self.text_fields {
            match record.remove(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => parts.push(text),
                Some(other) => {
                    let detail = format!("the text field {name:?} is {}; it must be a string", other.kind());
                    return Err(LineError::new("invalid_value", detail));
                }
            }
        }
        Ok((!parts.is_empty()).then(|| parts.join("\n")))
    }

    fn vector(&self, value: Value) -> Result<Value, LineError> {
        let name = &self.vector_field;
        let fail = |what: &str| {
            let detail = format!("the vector field {name:?} is {what}; it must be an array of numbers, or base64");
            LineError::new("invalid_value", detail)
        };
        match value {
            Value::Array(_) => Ok(value),
            // A cell of a CSV file.
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(WireValue(array @ Value::Array(_))) => Ok(array),
                _ if is_base64(&text) => Ok(Value::String(text)),
                _ => Err(fail("a string that holds no JSON array")),
            },
            other => Err(fail(other.kind())),
        }
    }

    fn metadata(&self, mut record: Metadata) -> Result<Metadata, LineError> {
        let mut fields = match record.remove(METADATA) {
            Some(Value::Object(fields)) => fields,
            None | Some(Value::Null) => Metadata::new(),
            Some(other) => Metadata::from([(METADATA.to_owned(), other)]),
        };
        for (name, value) in record {
            if fields.contains_key(&name) {
                let detail = format!("field {name:?} stands both beside and in {METADATA:?}; keep one of them");
                return Err(LineError::new("invalid_metadata", detail));
            }
            fields.insert(name, value);
        }
        if let Some(wanted) = &self.metadata_fields {
            fields.retain(|name, _| wanted.contains(name));
        }
        Ok(fields)
    }
}

/// Whether a field is what the API calls chunks: other programs may call something else so.
fn are_chunks(value: &Value) -> bool {
    const KEYS: [&str; 3] = ["vector", "start", "end"];
    let is_chunk = |item: &Value| match item {
        Value::Object(chunk) => !chunk.is_empty() && chunk.keys().all(|key| KEYS.contains(&key.as_str())),
        _ => false,
    };
    matches!(value, Value::Array(items) if !items.is_empty() && items.iter().all(is_chunk))
}

/// Whether any chunk brings a vector.
fn hold_vectors(chunks: &Value) -> bool {
    let has_vector = |item: &Value| matches!(item, Value::Object(chunk) if chunk.contains_key("vector"));
    matches!(chunks, Value::Array(items) if items.iter().any(has_vector))
}

/// Whether the API has returned this record: it then has all that the API adds. One of these names alone is a field.
fn is_returned(record: &Metadata) -> bool {
    let is_time = |name: &str| matches!(record.get(name), Some(Value::String(_)));
    let is_state =
        matches!(record.get("embedding"), Some(Value::String(state)) if state == "ready" || state == "pending");
    is_state && matches!(record.get("seq"), Some(Value::Int(_))) && is_time("created_at") && is_time("updated_at")
}

/// Whether a text could be base64 of numbers; whether it is one is for the API to say.
fn is_base64(text: &str) -> bool {
    let plain = text.trim_end_matches('=');
    !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::value::{MetadataView, WireMetadata};

    fn mapping() -> Mapping {
        Mapping {
            id_field: "id".into(),
            text_fields: vec!["text".into()],
            vector_field: "vector".into(),
            metadata_fields: None,
        }
    }

    #[test]
    fn cells_of_an_id_a_text_and_a_vector_are_as_they_are_written() {
        let declared = ["id", "text", "vector", "n"].map(|name| (name.to_owned(), crate::types::FieldType::Number));
        assert_eq!(mapping().types(declared.into()).into_keys().collect::<Vec<_>>(), ["n"]);
    }

    fn map(mapping: &Mapping, record: &str) -> Result<String, String> {
        let WireMetadata(record) = serde_json::from_str(record).unwrap();
        let document = mapping.document(record, &[]).map_err(|error| error.detail)?;
        Ok(serde_json::to_string(&MetadataView(&document)).unwrap())
    }

    #[test]
    fn a_document_of_the_api_stays_as_it_is() {
        let text = r#"{"id":"a","metadata":{"n":1},"text":"t","vector":[0.5,1]}"#;
        assert_eq!(map(&mapping(), text).unwrap(), text);
        assert_eq!(map(&mapping(), r#"{"id":7,"text":null,"vector":null}"#).unwrap(), r#"{"id":"7"}"#);
    }

    #[test]
    fn other_fields_become_metadata() {
        let text = r#"{"id":"a","metadata":{"n":1},"price":2,"tags":["x"]}"#;
        assert_eq!(map(&mapping(), text).unwrap(), r#"{"id":"a","metadata":{"n":1,"price":2,"tags":["x"]}}"#);
        let only = Mapping { metadata_fields: Some(vec!["price".into()]), ..mapping() };
        assert_eq!(map(&only, text).unwrap(), r#"{"id":"a","metadata":{"price":2}}"#);
        assert!(map(&mapping(), r#"{"id":"a","metadata":{"n":1},"n":2}"#).unwrap_err().contains("beside and in"));
        assert_eq!(map(&mapping(), r#"{"id":"a","metadata":5}"#).unwrap(), r#"{"id":"a","metadata":{"metadata":5}}"#);
    }

    #[test]
    fn a_condition_is_refused_unless_it_is_a_field() {
        let text = r#"{"id":"a","if_seq":0,"vector":[1]}"#;
        assert!(map(&mapping(), text).unwrap_err().contains("\"if_seq\" would not be heeded"));
        let others = Mapping { metadata_fields: Some(vec!["price".into()]), ..mapping() };
        assert!(map(&others, text).unwrap_err().contains("\"if_seq\" would not be heeded"));
        let named = Mapping { metadata_fields: Some(vec!["if_seq".into()]), ..mapping() };
        let as_field = r#"{"id":"a","metadata":{"if_seq":0},"vector":[1]}"#;
        assert_eq!(map(&named, text).unwrap(), as_field);
        assert_eq!(map(&mapping(), as_field).unwrap(), as_field);
    }

    #[test]
    fn a_document_that_was_read_can_be_written_back() {
        let read = r#"{"id":"a","text":"t","metadata":{"n":1},"seq":7,"created_at":"2024-01-01T00:00:00.000Z","updated_at":"2024-01-01T00:00:00.000Z","embedding":"ready"}"#;
        assert_eq!(map(&mapping(), read).unwrap(), r#"{"id":"a","metadata":{"n":1},"text":"t"}"#);
        let chunked = read.replace(r#""metadata""#, r#""chunks":[{"start":0,"end":1}],"metadata""#);
        assert_eq!(map(&mapping(), &chunked).unwrap(), map(&mapping(), read).unwrap());
        // Fields of such names that are not the API's stay.
        let own = r#"{"id":"a","metadata":{"created_at":"2024","seq":1}}"#;
        assert_eq!(map(&mapping(), r#"{"id":"a","created_at":"2024","seq":1}"#).unwrap(), own);
    }

    #[test]
    fn chunks_are_a_field_of_the_document() {
        let text = r#"{"chunks":[{"end":2,"start":0,"vector":[1]},{"vector":"AACAPw=="}],"id":"a"}"#;
        assert_eq!(map(&mapping(), text).unwrap(), text);
        let other = r#"{"id":"a","metadata":{"chunks":["x"]}}"#;
        assert_eq!(map(&mapping(), r#"{"id":"a","chunks":["x"]}"#).unwrap(), other);
    }

    #[test]
    fn texts_are_joined_in_the_order_of_the_options() {
        let two = Mapping { text_fields: vec!["title".into(), "body".into()], id_field: "sku".into(), ..mapping() };
        let text = r#"{"sku":"a","body":"B","title":"T"}"#;
        assert_eq!(map(&two, text).unwrap(), r#"{"id":"a","text":"T\nB"}"#);
        assert_eq!(map(&two, r#"{"sku":"a","body":"B"}"#).unwrap(), r#"{"id":"a","text":"B"}"#);
        assert!(map(&two, r#"{"sku":"a","title":5}"#).unwrap_err().contains("\"title\" is a number"));
    }

    #[test]
    fn a_vector_may_stand_in_a_cell() {
        assert_eq!(map(&mapping(), r#"{"id":"a","vector":"[1, 0.5]"}"#).unwrap(), r#"{"id":"a","vector":[1,0.5]}"#);
        let base64 = r#"{"id":"a","vector":"AACAPwAAAAA="}"#;
        assert_eq!(map(&mapping(), base64).unwrap(), base64);
        assert!(map(&mapping(), r#"{"id":"a","vector":"1 2"}"#).unwrap_err().contains("no JSON array"));
        assert!(map(&mapping(), r#"{"id":"a","vector":1}"#).unwrap_err().contains("is a number"));
    }

    #[test]
    fn a_missing_id_is_named_with_what_is_there() {
        let error = map(&mapping(), r#"{"sku":"a","name":"b"}"#).unwrap_err();
        assert!(error.contains("name, sku") && error.contains("--id-field"), "{error}");
        assert!(map(&mapping(), r#"{"id":[]}"#).unwrap_err().contains("is an array"));
    }
}
