//! Documents of a source into a collection: through the API's import, with a report of what was refused.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::super::read::write_json_line;
use super::super::target::{Streamed, Target, collection_path};
use super::super::{CliError, Context, output};
use super::report::truncation;
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;
use crate::types::{CollectionName, Metadata, Value};

/// Most refused rows that are printed; all are counted.
const MAX_PRINTED: u64 = 50;

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub upserted: u64,
    pub embedded: u64,
    /// Texts whose vector was known.
    pub kept: u64,
    /// Texts of which the vector is that of the start: the model reads no more.
    pub truncated: u64,
    pub deleted: u64,
    pub failed: u64,
    /// Rows that were read and had not changed.
    pub unchanged: u64,
    /// Events that were read: several may become one change, and one none.
    pub events: Option<u64>,
}

/// Writes to one collection.
pub(super) struct Writer<'a> {
    target: &'a Target,
    name: &'a CollectionName,
    pub counts: Counts,
    refused: BTreeSet<String>,
    /// More were refused than the answer names.
    some_unnamed: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(target: &'a Target, name: &'a CollectionName) -> Self {
        Self { target, name, counts: Counts::default(), refused: BTreeSet::new(), some_unnamed: false }
    }

    /// Forgets which documents were refused.
    pub(super) fn forget_refused(&mut self) {
        self.refused.clear();
        self.some_unnamed = false;
    }

    /// Whether a document was refused since [`Writer::forget_refused`], or may have been.
    pub(super) fn may_have_refused(&self, id: &str) -> bool {
        self.some_unnamed || self.refused.contains(id)
    }

    /// Writes documents as the API takes them, each with where it came from; those that are refused are printed by
    /// their ids, or by where they came from where the id may be personal data.
    ///
    /// # Errors
    /// [`CliError`] when the stream as a whole fails.
    pub(super) fn upsert(&mut self, documents: &[(String, Metadata)]) -> Result<(), CliError> {
        if documents.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for (_, document) in documents {
            write_json_line(&mut lines, document).map_err(|e| CliError::io("write a document", e))?;
        }
        let path = format!("{}/import", collection_path(self.name));
        let Streamed { report: answer, failure } = self.target.stream(&path, &mut lines.as_slice());
        let number = |key: &str| answer[key].as_u64().unwrap_or(0);
        self.counts.upserted += number("upserted");
        self.counts.embedded += number("embedded");
        self.counts.kept += number("cached");
        self.counts.truncated += number("truncated_count");
        let errors = answer["errors"].as_array().map_or(&[][..], Vec::as_slice);
        self.some_unnamed |= number("failed") > errors.len() as u64;
        for error in errors {
            let line = error["line"].as_u64().unwrap_or(0) as usize;
            let sent = line.checked_sub(1).and_then(|index| documents.get(index));
            let (place, id) = sent.map_or(("?", "?"), |(place, document)| (place, id_of(document)));
            self.print(named(error, place, id), error);
            self.refused.insert(id.to_owned());
        }
        self.counts.failed += number("failed");
        failure.map_or(Ok(()), Err)
    }

    /// Deletes documents.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) fn delete(&mut self, ids: &[String]) -> Result<(), CliError> {
        for ids in ids.chunks(MAX_DOCUMENTS_PER_REQUEST) {
            let path = format!("{}/documents/delete", collection_path(self.name));
            let answer = self.target.value("POST", &path, Some(&json!({ "ids": ids })))?;
            self.counts.deleted += answer["deleted"].as_u64().unwrap_or(0);
        }
        Ok(())
    }

    /// Notes a row that cannot be sent.
    pub(super) fn refuse(&mut self, id: &str, detail: &str) {
        self.print(id, &json!({ "detail": detail }));
        self.refused.insert(id.to_owned());
        self.counts.failed += 1;
    }

    fn print(&self, id: &str, error: &Json) {
        if self.counts.failed < MAX_PRINTED {
            output::complain(format!("{id}: {}", error["detail"].as_str().unwrap_or("it was refused")));
        }
    }
}

impl Counts {
    /// The outcome in a sentence.
    pub(super) fn summary(&self, name: &CollectionName, place: &str, seconds: f64) -> String {
        let written = output::counted(self.upserted, "document");
        let speed = (self.upserted + self.unchanged) as f64 / seconds.max(1e-3);
        let mut text = format!(
            "{written} written into {name} at {place} in {seconds:.1} s ({speed:.0}/s): {} embedded, {} with the vector they had.",
            output::count(self.embedded),
            output::count(self.kept)
        );
        if self.truncated > 0 {
            text.push_str(&format!(" {}", truncation(self.truncated)));
        }
        for (count, what) in [(self.unchanged, "unchanged"), (self.deleted, "deleted"), (self.failed, "refused")] {
            if count > 0 {
                text.push_str(&format!(" {} {what}.", output::count(count)));
            }
        }
        text
    }

    /// The outcome as JSON.
    pub(super) fn to_json(self, seconds: f64) -> Json {
        json!({"upserted": self.upserted, "embedded": self.embedded, "cached": self.kept,
            "truncated_count": self.truncated, "deleted": self.deleted, "failed": self.failed,
            "unchanged": self.unchanged, "took_ms": (seconds * 1e3) as u64})
    }

    /// Prints the outcome; an error where rows were refused. `place`: where the collection is.
    ///
    /// # Errors
    /// [`CliError::Lines`].
    pub(super) fn report(
        self,
        name: &CollectionName,
        place: &str,
        seconds: f64,
        unit: &'static str,
        context: &Context,
    ) -> Result<(), CliError> {
        if context.json {
            output::json(self.to_json(seconds))?;
        }
        output::hint(context, self.summary(name, place, seconds));
        match self.failed {
            0 => Ok(()),
            failed => Err(CliError::Lines { failed, total: self.total(), unit }),
        }
    }

    /// What came: events, or rows that each became something.
    fn total(&self) -> u64 {
        self.events.unwrap_or(self.failed + self.upserted + self.deleted + self.unchanged)
    }
}

/// How a refused document is named in messages, which may end in a log: a key may be an address that was refused.
fn named<'a>(error: &Json, place: &'a str, id: &'a str) -> &'a str {
    if error["code"] == "personal_data" { place } else { id }
}

fn id_of(document: &Metadata) -> &str {
    match document.get("id") {
        Some(Value::String(id)) => id,
        _ => "?",
    }
}

/// A document as the API takes it. `text_field`, `vector_field`: fields that are taken out to be its text and vector.
///
/// # Errors
/// A sentence, where those are of another type.
pub(super) fn document(
    id: String,
    mut fields: Metadata,
    text_field: Option<&str>,
    vector_field: Option<&str>,
) -> Result<Metadata, String> {
    let mut document = Metadata::from([("id".to_owned(), Value::String(id))]);
    if let Some(name) = text_field {
        match fields.remove(name) {
            Some(Value::String(text)) => _ = document.insert("text".to_owned(), Value::String(text)),
            None | Some(Value::Null) => {}
            Some(other) => return Err(format!("the text column {name:?} is {}; it must be a string", other.kind())),
        }
    }
    if let Some(name) = vector_field {
        match fields.remove(name) {
            Some(Value::Array(numbers)) => _ = document.insert("vector".to_owned(), Value::Array(numbers)),
            // As pgvector writes its type.
            Some(Value::String(text)) => {
                let numbers: Vec<f64> = serde_json::from_str(&text)
                    .map_err(|_| format!("the vector column {name:?} holds no array of numbers"))?;
                let numbers = numbers.into_iter().map(Value::Float).collect();
                document.insert("vector".to_owned(), Value::Array(numbers));
            }
            None | Some(Value::Null) => {}
            Some(other) => return Err(format!("the vector column {name:?} is {}; it must be numbers", other.kind())),
        }
    }
    document.insert("metadata".to_owned(), Value::Object(fields));
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_may_be_personal_data_is_not_named() {
        let refusal = |code: &str| json!({"line": 1, "code": code, "detail": "d"});
        assert_eq!(named(&refusal("personal_data"), "row 7", "ann@example.org"), "row 7");
        assert_eq!(named(&refusal("nothing_to_index"), "row 7", "a"), "a");
    }

    #[test]
    fn what_failed_is_counted_among_what_was_read() {
        let rows = Counts { upserted: 2, deleted: 1, failed: 3, unchanged: 4, ..Counts::default() };
        assert_eq!((rows.total(), Counts { events: Some(30), ..rows }.total()), (10, 30));
    }

    #[test]
    fn texts_and_vectors_are_taken_out_of_the_fields() {
        let fields = || {
            Metadata::from([
                ("body".to_owned(), Value::String("t".into())),
                ("v".to_owned(), Value::String("[1,0.5]".into())),
                ("n".to_owned(), Value::Int(1)),
            ])
        };
        let made = document("a".into(), fields(), Some("body"), Some("v")).unwrap();
        assert_eq!(made["text"], Value::String("t".into()));
        assert_eq!(made["vector"], Value::Array(vec![Value::Float(1.0), Value::Float(0.5)]));
        assert_eq!(made["metadata"], Value::Object(Metadata::from([("n".to_owned(), Value::Int(1))])));
        assert!(document("a".into(), fields(), Some("n"), None).unwrap_err().contains("\"n\" is a number"));
        assert!(document("a".into(), fields(), None, Some("body")).unwrap_err().contains("no array"));
        assert!(!document("a".into(), fields(), None, None).unwrap().contains_key("text"));
    }
}
