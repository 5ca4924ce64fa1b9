//! What an import did: the API's report, with positions in the file instead of lines of the stream.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::output;
use super::super::read::LineError;
use super::lines::InputRead;
use crate::types::CollectionName;

/// Most refusals in the JSON report, as in the API's.
pub(super) const MAX_LISTED: usize = 1_000;

/// The outcome of an import.
pub(super) struct Report {
    /// Documents written.
    pub upserted: u64,
    /// Records that did not get in.
    pub failed: u64,
    truncated: u64,
    /// Records that the API refused, by position.
    refused_there: Vec<(u64, LineError)>,
    /// Of both sides, by position.
    refused: Vec<(u64, LineError)>,
    answer: Value,
    lines: u64,
    took: Duration,
}

impl Report {
    /// `answer`: what the import's route answered.
    pub(super) fn new(answer: Value, read: &InputRead<'_>, took: Duration) -> Self {
        let number = |key: &str| answer[key].as_u64().unwrap_or(0);
        let refused_there: Vec<_> = answer["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| {
                // Lines of the stream are counted from 1.
                let line = error["line"].as_u64().unwrap_or(0) as usize;
                let position = line.checked_sub(1).and_then(|index| read.positions.get(index)).copied();
                let text = |key: &str| error[key].as_str().unwrap_or_default();
                (position.unwrap_or(0), LineError::new(text("code"), text("detail")))
            })
            .collect();
        let mut refused: Vec<_> = read.refused.iter().chain(&refused_there).cloned().collect();
        refused.sort_by_key(|(position, _)| *position);
        Self {
            upserted: number("upserted"),
            failed: number("failed") + read.refused_count,
            truncated: number("truncated_count"),
            refused_there,
            refused,
            lines: read.count,
            took,
            answer,
        }
    }

    /// Prints what the API refused; what was not sent was printed while reading.
    pub(super) fn print_refusals(&self, read: &InputRead<'_>) {
        self.refused_there.iter().for_each(|(position, error)| read.print(*position, error));
    }

    /// The report in the shape of the API's.
    pub(super) fn to_json(&self) -> Value {
        let listed = self.refused.iter().take(MAX_LISTED);
        let errors: Vec<Value> = listed
            .map(|(position, error)| json!({"line": position, "code": error.code, "detail": error.detail}))
            .collect();
        json!({
            "lines": self.lines,
            "upserted": self.upserted,
            "failed": self.failed,
            "errors": errors,
            "embedded": self.answer["embedded"].as_u64().unwrap_or(0),
            "cached": self.answer["cached"].as_u64().unwrap_or(0),
            "truncated_count": self.truncated,
            "truncated": self.answer["truncated"].as_array().map_or(&[][..], Vec::as_slice),
            "seq": self.answer["seq"],
            "took_ms": self.took.as_millis() as u64,
        })
    }

    /// The outcome in a sentence or two. `place`: where the collection is.
    pub(super) fn summary(&self, name: &CollectionName, place: &str, read: &InputRead<'_>) -> String {
        let seconds = self.took.as_secs_f64();
        let speed = self.upserted as f64 / seconds.max(1e-3);
        let written = output::counted(self.upserted, "document");
        let mut text = format!("{written} written into {name} at {place} in {seconds:.1} s ({speed:.0}/s).");
        if self.truncated > 0 {
            text.push_str(&format!(" {}", truncation(self.truncated)));
        }
        if self.failed > 0 {
            text.push_str(&format!(" {} refused.", output::counted(self.failed, read.format.unit())));
        }
        text
    }
}

/// How many texts were cut, in a sentence.
pub(super) fn truncation(count: u64) -> String {
    format!("{} longer than the model reads: the vector is that of the start.", output::counted(count, "text"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use indicatif::ProgressBar;

    use super::super::lines::Lines;
    use super::*;
    use crate::cli::read::{FieldTypes, Format, Mapping};

    #[test]
    fn refusals_of_both_sides_are_named_by_their_place_in_the_file() {
        let text = "nonsense\n\n{\"id\":\"a\"}\n{\"id\":\"b\"}\n";
        let records = Format::Jsonl.records(Box::new(text.as_bytes()), FieldTypes::new()).unwrap();
        let mapping = Mapping {
            id_field: "id".into(),
            text_fields: vec!["text".into()],
            vector_field: "vector".into(),
            metadata_fields: None,
        };
        let mut lines = Lines::new(records, mapping, Format::Jsonl, "test", ProgressBar::hidden());
        lines.read_to_end(&mut Vec::new()).unwrap();
        let read = lines.finish();
        let answer = json!({"lines": 2, "upserted": 1, "failed": 1, "seq": 7, "truncated_count": 1,
            "errors": [{"line": 2, "code": "nothing_to_index", "detail": "d"}]});
        let report = Report::new(answer, &read, Duration::from_secs(2));
        let json = report.to_json();
        assert_eq!(
            (json["lines"].as_u64(), json["failed"].as_u64(), json["seq"].as_u64()),
            (Some(3), Some(2), Some(7))
        );
        assert_eq!((json["errors"][0]["line"].as_u64(), json["errors"][1]["line"].as_u64()), (Some(1), Some(4)));
        let name = CollectionName::new("c").unwrap();
        let summary = report.summary(&name, "/data", &read);
        assert!(summary.starts_with("1 document written into c at /data in 2.0 s (0/s)."), "{summary}");
        assert!(summary.ends_with("2 lines refused."), "{summary}");
    }
}
