//! The stream that an import sends: records turned into JSON lines while they are read.

use std::io::{self, Read};
use std::time::Instant;

use indicatif::ProgressBar;

use super::super::read::{Format, LineError, MAX_PRINTED, Mapping, Records, write_json_line};
use super::super::{CliError, output};
use super::report::MAX_LISTED;
use crate::types::{Metadata, Value};

/// Lines are handed over in pieces of about so many bytes.
const PIECE_BYTES: usize = 32 << 10;

/// Reads as JSON lines. What cannot be sent is printed, counted and left out.
pub(super) struct Lines<'a> {
    records: Records,
    mapping: Mapping,
    progress: ProgressBar,
    started: Instant,
    piece: Vec<u8>,
    /// Bytes of `piece` that were handed over.
    used: usize,
    read: InputRead<'a>,
}

/// What was read of an input.
pub(super) struct InputRead<'a> {
    /// Name and format, for messages.
    pub file: &'a str,
    pub format: Format,
    /// Records read.
    pub count: u64,
    /// Where each line that was sent comes from: positions in the input, in the order of the lines.
    pub positions: Vec<u64>,
    /// The first records that were not sent, and why.
    pub refused: Vec<(u64, LineError)>,
    /// How many were not sent.
    pub refused_count: u64,
    /// Fields that options named and that no record has had.
    pub unseen: Vec<String>,
    /// Records whose fields could be read.
    pub understood: u64,
    /// Why reading ended before the input did.
    pub broken: Option<CliError>,
    printed: std::cell::Cell<u64>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(
        records: Records,
        mapping: Mapping,
        format: Format,
        file: &'a str,
        progress: ProgressBar,
    ) -> Self {
        let (count, printed) = (0, std::cell::Cell::new(0));
        let (positions, refused, unseen) = (Vec::new(), Vec::new(), Vec::new());
        let (refused_count, understood, broken) = (0, 0, None);
        let read =
            InputRead { file, format, count, positions, refused, refused_count, unseen, understood, broken, printed };
        Self { records, mapping, progress, started: Instant::now(), piece: Vec::new(), used: 0, read }
    }

    /// Notes which of these fields no record has.
    pub(super) fn expecting(mut self, fields: impl Iterator<Item = String>) -> Self {
        self.read.unseen = fields.collect();
        self
    }

    pub(super) fn finish(self) -> InputRead<'a> {
        self.read
    }

    fn fill(&mut self) -> io::Result<()> {
        self.piece.clear();
        self.used = 0;
        while self.piece.len() < PIECE_BYTES && self.read.broken.is_none() {
            let record = match self.records.next() {
                Some(Ok(record)) => record,
                Some(Err(error)) => {
                    // What was read before is still written: the stream ends as if the input did.
                    self.read.broken = Some(error);
                    break;
                }
                None => break,
            };
            self.read.count += 1;
            let columns = record.columns.as_deref().unwrap_or_default();
            self.read.unseen.retain(|field| !columns.contains(field));
            if let Ok(object) = &record.content {
                self.read.unseen.retain(|field| !has_field(object, field));
                self.read.understood += 1;
            }
            match record.content.and_then(|object| self.mapping.document(object, columns)) {
                Ok(document) => {
                    write_json_line(&mut self.piece, &document)?;
                    self.read.positions.push(record.position);
                }
                Err(error) => {
                    self.progress.suspend(|| self.read.print(record.position, &error));
                    self.read.refused_count += 1;
                    // Of a long input each record may be refused.
                    if self.read.refused.len() < MAX_LISTED {
                        self.read.refused.push((record.position, error));
                    }
                }
            }
        }
        self.show_speed();
        Ok(())
    }

    fn show_speed(&self) {
        let speed = self.read.count as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        self.progress.set_message(format!("{} documents, {speed:.0}/s", output::count(self.read.count)));
    }
}

/// Whether a record has a field, also as one of its `metadata`.
fn has_field(object: &Metadata, field: &str) -> bool {
    let within = |metadata: &Value| matches!(metadata, Value::Object(metadata) if metadata.contains_key(field));
    object.contains_key(field) || object.get("metadata").is_some_and(within)
}

impl Read for Lines<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.used == self.piece.len() {
            self.fill()?;
        }
        let rest = &self.piece[self.used..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.used += len;
        Ok(len)
    }
}

impl InputRead<'_> {
    /// Prints why a record did not get in, up to a number of them.
    pub(super) fn print(&self, position: u64, error: &LineError) {
        let printed = self.printed.get();
        self.printed.set(printed + 1);
        if printed < MAX_PRINTED {
            let unit = self.format.unit();
            output::complain(format!("{}: {unit} {position}: {} ({})", self.file, error.detail, error.code));
        } else if printed == MAX_PRINTED {
            output::complain(format!("{}: more were refused; --json lists the first 1,000", self.file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::read::{FieldTypes, Record};

    fn mapping() -> Mapping {
        Mapping {
            id_field: "id".into(),
            text_fields: vec!["text".into()],
            vector_field: "vector".into(),
            metadata_fields: None,
        }
    }

    fn lines(records: Records) -> Lines<'static> {
        Lines::new(records, mapping(), Format::Jsonl, "test", ProgressBar::hidden())
    }

    fn jsonl(text: &'static str) -> Records {
        Format::Jsonl.records(Box::new(text.as_bytes()), FieldTypes::new()).unwrap()
    }

    #[test]
    fn bad_lines_are_left_out_and_positions_kept() {
        let lines = lines(jsonl("\u{feff}{\"id\":\"a\"}\n\nnonsense\n{\"id\":1,\"x\":2}\n"));
        let mut lines = lines.expecting(["x", "y"].map(str::to_owned).into_iter());
        let mut sent = String::new();
        lines.read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "{\"id\":\"a\"}\n{\"id\":\"1\",\"metadata\":{\"x\":2}}\n");
        let read = lines.finish();
        assert_eq!((read.count, read.positions, read.refused[0].0), (3, vec![1, 4], 3));
        assert!(read.broken.is_none());
        assert_eq!(read.unseen, ["y"]);
    }

    #[test]
    fn a_column_of_empty_cells_and_of_rows_that_are_refused_is_there() {
        let types = FieldTypes::from([("n".to_owned(), crate::types::FieldType::Number)]);
        let records = Format::Csv.records(Box::new("id,text,note,n\na,t,,x\n,t,,1\n".as_bytes()), types).unwrap();
        let mut lines = lines(records).expecting(["text", "note", "y"].map(str::to_owned).into_iter());
        assert_eq!(lines.read_to_end(&mut Vec::new()).unwrap(), 0);
        let read = lines.finish();
        assert_eq!((read.unseen, read.understood), (vec!["y".to_owned()], 1));
        assert_eq!(read.refused[1].1.detail, "the cell of the id column \"id\" is empty");
    }

    #[test]
    fn of_records_that_are_refused_the_first_are_kept_and_all_are_counted() {
        let bad = || LineError::new("invalid_json", "it is not JSON");
        let record = move |position| Ok(Record { position, content: Err(bad()), columns: None });
        let records = (1..=MAX_LISTED as u64 + 5).map(record);
        let mut lines = lines(Box::new(records));
        assert_eq!(lines.read_to_end(&mut Vec::new()).unwrap(), 0);
        let read = lines.finish();
        assert_eq!((read.refused.len(), read.refused_count), (MAX_LISTED, MAX_LISTED as u64 + 5));
        assert_eq!((read.refused[0].0, read.refused[MAX_LISTED - 1].0), (1, MAX_LISTED as u64));
    }

    #[test]
    fn a_broken_input_ends_the_stream_after_what_was_read() {
        let good = jsonl("{\"id\":\"a\"}\n");
        let broken = std::iter::once(Err::<Record, _>(CliError::Refused("broken".into())));
        let mut lines = lines(Box::new(good.chain(broken)));
        let mut sent = String::new();
        lines.read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "{\"id\":\"a\"}\n");
        assert!(lines.finish().broken.is_some());
    }

    #[test]
    fn pieces_of_any_size_make_the_same_stream() {
        let mut whole = String::new();
        lines(jsonl("{\"id\":\"a\"}\n{\"id\":\"b\"}")).read_to_string(&mut whole).unwrap();
        let mut lines = lines(jsonl("{\"id\":\"a\"}\n{\"id\":\"b\"}"));
        let mut sent = Vec::new();
        let mut byte = [0];
        while lines.read(&mut byte).unwrap() > 0 {
            sent.push(byte[0]);
        }
        assert_eq!(sent, whole.as_bytes());
    }
}
