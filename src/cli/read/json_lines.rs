//! JSON lines: an object a line; blank lines do not count.

use std::io::BufRead;

use super::{LineReader, MAX_RECORD_BYTES, Record, parse_object};
use crate::cli::CliError;

/// Reads objects line by line; holds one line.
pub(super) struct JsonLines<R> {
    lines: LineReader<R>,
    number: u64,
}

impl<R: BufRead> JsonLines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { lines: LineReader::new(input, MAX_RECORD_BYTES), number: 0 }
    }
}

impl<R: BufRead> Iterator for JsonLines<R> {
    type Item = Result<Record, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next_line() {
                Ok(line) => line?,
                Err(error) => return Some(Err(CliError::io("read the input", error))),
            };
            self.number += 1;
            let content = match line {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                Ok(line) => parse_object(line, "line"),
                Err(error) => Err(error),
            };
            return Some(Ok(Record { position: self.number, content, columns: None }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Value;

    fn read(text: &[u8]) -> Vec<Record> {
        JsonLines::new(text).map(Result::unwrap).collect()
    }

    #[test]
    fn blank_lines_count_as_lines_and_are_no_records() {
        let records = read(b"{\"id\":\"a\"}\r\n\n  \n{\"id\":\"b\"}");
        let found: Vec<_> = records.iter().map(|r| (r.position, r.content.as_ref().unwrap()["id"].clone())).collect();
        assert_eq!(found, [(1, Value::String("a".into())), (4, Value::String("b".into()))]);
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\n"), []);
    }

    #[test]
    fn a_bad_line_is_named_and_the_next_is_read() {
        let records = read(b"{\"id\":\n[1]\n\xff\n{\"a\":1e999}\n{\"id\":\"b\"}\n");
        let codes: Vec<_> = records.iter().map(|r| r.content.as_ref().err().map(|e| e.code.as_str())).collect();
        assert_eq!(codes[..3], [Some("invalid_json"), Some("invalid_value"), Some("invalid_json")]);
        assert_eq!(codes[4], None);
        assert!(records[2].content.as_ref().unwrap_err().detail.starts_with("the line is not UTF-8"));
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_the_next_is_read() {
        let mut text = vec![b' '; MAX_RECORD_BYTES + 1];
        text.extend(b"\n{\"id\":\"b\"}");
        let mut lines = JsonLines::new(text.as_slice());
        let first = lines.next().unwrap().unwrap();
        assert_eq!((first.position, first.content.unwrap_err().code.as_str()), (1, "too_long"));
        assert!(lines.next().unwrap().unwrap().content.is_ok());
    }
}
