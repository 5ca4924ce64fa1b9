//! CSV with a header row: each row an object of its cells.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use super::{LineError, MAX_RECORD_BYTES, Record, string, too_long};
use crate::cli::CliError;
use crate::types::{FieldType, GeoPoint, Metadata, Value};

/// Declared types of metadata fields: how a cell of that column is understood. Other cells stay strings.
pub(in crate::cli) type FieldTypes = BTreeMap<String, FieldType>;

/// Begins to read a CSV file.
///
/// # Errors
/// [`CliError::Refused`] when the first row is no row of names, [`CliError::Io`].
pub(super) fn read<R: BufRead + 'static>(
    input: R,
    types: FieldTypes,
) -> Result<impl Iterator<Item = Result<Record, CliError>>, CliError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(Quotes::new(input));
    let names = reader.headers().cloned();
    check_end(reader.get_ref(), "the first row")?;
    let end = reader.position().byte();
    if reader.get_mut().long_row(end).is_some() {
        return Err(CliError::Refused(format!(
            "the first row does not end within {MAX_RECORD_BYTES} bytes; end rows with line feeds"
        )));
    }
    let names = names.map_err(refuse)?;
    if names.is_empty() {
        return Err(CliError::Refused(
            "the input is empty; a CSV file begins with the names of its columns".to_owned(),
        ));
    }
    if let (1, Some(separator)) = (names.len(), names.get(0).and_then(|name| name.find([';', '\t', '|']))) {
        let separator = &names[0][separator..=separator];
        return Err(CliError::Refused(format!(
            "the first row is one column with {separator:?} in its name; columns are separated by commas: write the file anew \
             with commas"
        )));
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() || names.iter().take(index).any(|earlier| earlier == name) {
            let detail =
                format!("column {} of the first row is named {name:?}; give every column its own name", index + 1);
            return Err(CliError::Refused(detail));
        }
    }
    let columns: Arc<[String]> = names.iter().map(str::to_owned).collect();
    let (mut position, mut is_over) = (0, false);
    let mut row = csv::ByteRecord::new();
    Ok(std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let read = reader.read_byte_record(&mut row);
        if let Ok(false) = read {
            return None;
        }
        position += 1;
        let read = check_end(reader.get_ref(), &format!("row {position}")).and_then(|()| read.map_err(refuse));
        is_over = read.is_err();
        let end = reader.position().byte();
        let long = reader.get_mut().long_row(end);
        let content = || long.map_or_else(|| object(&row, &names, &types), |long| Err(long.refusal()));
        let columns = Some(Arc::clone(&columns));
        Some(read.map(|_| Record { position, content: content(), columns }))
    }))
}

/// Refuses an input that has ended within quotes: the row that was read last holds all that came after them.
fn check_end<R>(quotes: &Quotes<R>, row: &str) -> Result<(), CliError> {
    if !quotes.is_at_end || quotes.place != Place::Quoted {
        return Ok(());
    }
    Err(CliError::Refused(format!(
        "a quote opens in {row} (line {} of the input) and is never closed; close it, or write a quote within a cell \
         twice and put the cell into quotes",
        quotes.opened_at
    )))
}

/// Passes an input on and notes whether it is within quotes, as the reader of rows understands them. Of a row of more
/// than [`MAX_RECORD_BYTES`], which the reader would take into memory whatever its length, only so many are passed on.
struct Quotes<R> {
    input: R,
    place: Place,
    line: u64,
    /// The line on which the last quoted cell began.
    opened_at: u64,
    /// The line on which the row began.
    row_began_at: u64,
    /// Bytes since the last row ended, those that were left out too.
    row_bytes: usize,
    /// Bytes that were passed on.
    passed: u64,
    /// How many of them when the row at hand was cut, where it was.
    cut_at: u64,
    /// Rows of which a part was left out, in their order.
    long: VecDeque<LongRow>,
    is_at_end: bool,
}

/// A row of which a part was left out.
struct LongRow {
    /// Bytes that had been passed on when it was cut.
    cut_at: u64,
    bytes: usize,
    /// The first and the last line of the input that it stands on.
    lines: (u64, u64),
}

impl LongRow {
    fn refusal(&self) -> LineError {
        let LineError { code, detail } = too_long(self.bytes, MAX_RECORD_BYTES, "row");
        let (first, last) = self.lines;
        if first == last {
            return LineError { code, detail };
        }
        let lines = format!("lines {first} to {last} of the input; if these are several rows, a quote joins them");
        LineError { code, detail: format!("{detail} ({lines})") }
    }
}

/// Where in a row a byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    CellStart,
    Plain,
    Quoted,
    /// After a quote within quotes, which ends them unless another follows.
    MaybeEnded,
}

impl<R> Quotes<R> {
    fn new(input: R) -> Self {
        let (place, long) = (Place::CellStart, VecDeque::new());
        let (line, row_began_at, opened_at) = (1, 1, 0);
        let (row_bytes, passed, cut_at, is_at_end) = (0, 0, 0, false);
        Self { input, place, line, opened_at, row_began_at, row_bytes, passed, cut_at, long, is_at_end }
    }

    /// The row that ends at this byte of what was passed on, if a part of it was left out.
    fn long_row(&mut self, end: u64) -> Option<LongRow> {
        self.long.pop_front_if(|row| row.cut_at <= end)
    }

    /// Takes the next byte of the input. Returns the one to pass on.
    fn pass(&mut self, byte: u8) -> Option<u8> {
        let before = self.place;
        self.place = match (self.place, byte) {
            (Place::CellStart, b'"') => {
                self.opened_at = self.line;
                Place::Quoted
            }
            (Place::Quoted, b'"') => Place::MaybeEnded,
            (Place::Quoted, _) | (Place::MaybeEnded, b'"') => Place::Quoted,
            (_, b',' | b'\n' | b'\r') => Place::CellStart,
            _ => Place::Plain,
        };
        let is_row_end = self.place == Place::CellStart && byte != b',';
        if is_row_end {
            self.end_row();
        } else {
            self.row_bytes += 1;
        }
        self.line += u64::from(byte == b'\n');
        if self.row_bytes == 0 {
            self.row_began_at = self.line;
        }
        let passed = match self.row_bytes.checked_sub(MAX_RECORD_BYTES) {
            None | Some(0) => Some(byte),
            Some(1) => {
                self.cut_at = self.passed;
                // What the reader has of the cell ends here.
                (before == Place::Quoted).then_some(b'"')
            }
            Some(_) => None,
        };
        self.passed += u64::from(passed.is_some());
        passed
    }

    fn end_row(&mut self) {
        let bytes = std::mem::take(&mut self.row_bytes);
        if bytes > MAX_RECORD_BYTES {
            let lines = (self.row_began_at, self.line);
            self.long.push_back(LongRow { cut_at: self.cut_at, bytes, lines });
        }
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let len = self.input.read(out)?;
            let mut passed = 0;
            for at in 0..len {
                if let Some(byte) = self.pass(out[at]) {
                    out[passed] = byte;
                    passed += 1;
                }
            }
            if len == 0 && !out.is_empty() {
                self.end_row();
                self.is_at_end = true;
            }
            if passed > 0 || len == 0 {
                return Ok(passed);
            }
        }
    }
}

fn refuse(error: csv::Error) -> CliError {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => CliError::io("read the input", error),
        _ => CliError::Refused(format!("the input is not valid CSV: {text}")),
    }
}

/// Empty cells are left out: CSV cannot tell an empty text from none.
fn object(row: &csv::ByteRecord, names: &csv::StringRecord, types: &FieldTypes) -> Result<Metadata, LineError> {
    if row.len() != names.len() {
        let detail = format!("the row has {} cells, the first row names {} columns", row.len(), names.len());
        return Err(LineError::new("invalid_value", detail));
    }
    let mut object = Metadata::new();
    for (name, bytes) in names.iter().zip(row) {
        let cell = std::str::from_utf8(bytes).map_err(|error| {
            let detail = format!("column {name:?} is not UTF-8 (byte {}); save the file as UTF-8", error.valid_up_to());
            LineError::new("invalid_value", detail)
        })?;
        if !cell.is_empty() {
            object.insert(name.to_owned(), value(name, cell, types.get(name))?);
        }
    }
    Ok(object)
}

fn value(name: &str, cell: &str, declared: Option<&FieldType>) -> Result<Value, LineError> {
    let fail = |what| {
        let detail = format!("column {name:?} is declared as {what} and the cell is {cell:?}");
        LineError::new("field_type_mismatch", detail)
    };
    match declared {
        Some(FieldType::Number) => match number(cell.trim()) {
            Some(number) => Ok(number),
            None if is_integer(cell.trim()) => {
                let detail = format!(
                    "column {name:?} is declared as a number and {cell:?} does not fit 64 bits with a sign; declare it as keyword"
                );
                Err(LineError::new("integer_out_of_range", detail))
            }
            None => Err(fail("a number")),
        },
        Some(FieldType::Boolean) => match cell.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(fail("a boolean (true or false)")),
        },
        Some(FieldType::Geo) => point(cell).ok_or_else(|| fail("a point (latitude, longitude)")),
        Some(FieldType::Keyword) | None => Ok(string(cell)),
    }
}

/// A cell such as `59.91, 10.75`.
fn point(cell: &str) -> Option<Value> {
    let (lat, lon) = cell.split_once(',')?;
    let object = [("lat".to_owned(), number(lat.trim())?), ("lon".to_owned(), number(lon.trim())?)];
    let value = Value::Object(object.into());
    GeoPoint::of(&value).map(|_| value)
}

/// A number. An integer that no 64 bits hold is none, as in the API: a float would be another number.
fn number(cell: &str) -> Option<Value> {
    if is_integer(cell) {
        return cell.parse::<i64>().ok().map(Value::Int);
    }
    cell.parse::<f64>().ok().filter(|float| float.is_finite()).map(Value::Float)
}

fn is_integer(cell: &str) -> bool {
    let digits = cell.strip_prefix(['+', '-']).unwrap_or(cell);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &'static str, types: &[(&str, FieldType)]) -> Vec<Result<Metadata, String>> {
        let types = types.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        let rows = read(text.as_bytes(), types).unwrap();
        rows.map(|record| record.unwrap().content.map_err(|error| error.detail)).collect()
    }

    fn refusal(text: &'static str) -> String {
        read(text.as_bytes(), FieldTypes::new()).err().unwrap().to_string()
    }

    #[test]
    fn cells_stay_strings_unless_the_field_is_declared() {
        let text = "id,price,stock,note\n1,9.50,true,\"a, \"\"b\"\"\nc\"\n2,3,FALSE,\n";
        let plain = rows(text, &[]);
        assert_eq!(plain[0].as_ref().unwrap()["price"], string("9.50"));
        assert_eq!(plain[0].as_ref().unwrap()["note"], string("a, \"b\"\nc"));
        assert!(!plain[1].as_ref().unwrap().contains_key("note"));
        let typed = rows(text, &[("price", FieldType::Number), ("stock", FieldType::Boolean)]);
        assert_eq!(typed[0].as_ref().unwrap()["price"], Value::Float(9.5));
        assert_eq!(typed[1].as_ref().unwrap()["price"], Value::Int(3));
        assert_eq!(typed[1].as_ref().unwrap()["stock"], Value::Bool(false));
    }

    #[test]
    fn points_are_two_numbers_in_a_cell() {
        let found = rows("id,at\na,\"59.91, 10.75\"\nb,\"91,0\"\nc,1\n", &[("at", FieldType::Geo)]);
        let point = GeoPoint::of(&found[0].as_ref().unwrap()["at"]).unwrap();
        assert_eq!((point.lat(), point.lon()), (59.91, 10.75));
        assert!(found[1..].iter().all(|row| row.as_ref().unwrap_err().contains("a point")), "{found:?}");
    }

    #[test]
    fn bad_rows_are_named_and_the_next_is_read() {
        let types = [("n", FieldType::Number)];
        let found = rows("id,n\na\nb,x\nc,NaN\nd,inf\ne,1\nf,1,2\n", &types);
        assert!(found[0].as_ref().unwrap_err().contains("1 cells, the first row names 2"));
        for row in &found[1..4] {
            assert!(row.as_ref().unwrap_err().contains("declared as a number"), "{row:?}");
        }
        assert!(found[4].is_ok() && found[5].is_err());
    }

    #[test]
    fn integers_are_kept_to_the_last_digit_or_refused() {
        let text = "id,n\na,9223372036854775807\nb,-9223372036854775808\nc,+7\nd,1e20\ne,12345678901234567890.5\n\
                    f,9223372036854775808\ng, -12345678901234567890\n";
        let types = FieldTypes::from([("n".to_owned(), FieldType::Number)]);
        let found: Vec<_> = read(text.as_bytes(), types).unwrap().map(|record| record.unwrap().content).collect();
        let numbers = [Value::Int(i64::MAX), Value::Int(i64::MIN), Value::Int(7), Value::Float(1e20)];
        for (row, wanted) in found.iter().zip(numbers) {
            assert_eq!(row.as_ref().unwrap()["n"], wanted);
        }
        assert_eq!(found[4].as_ref().unwrap()["n"], Value::Float(1.234_567_890_123_456_7e19));
        for row in &found[5..7] {
            assert_eq!(row.as_ref().unwrap_err().code, "integer_out_of_range");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_is_named_by_its_row() {
        let ends = |text: &'static str| {
            let rows: Vec<_> = read(text.as_bytes(), FieldTypes::new()).unwrap().collect();
            let last = rows.last().unwrap().as_ref().err().map(ToString::to_string);
            (rows.iter().filter(|row| row.is_ok()).count(), last)
        };
        let (read, error) = ends("id,n\na,\"x\ny\"\nb,\"open\nc,2\nd,3\n");
        let error = error.unwrap();
        assert!(read == 1 && error.contains("row 2 (line 4 of the input)"), "{read} {error}");
        // A quote that ends the input closes its cell, and one within a plain cell opens nothing.
        for text in
            ["id,n\na,\"x\"", "id,n\na,\"x\"\"\"\n", "id,n\na,5\" pipe\n", "id,n\na,\"x\"y\"\n", "id,n\r\na,\"\"\r\n"]
        {
            assert_eq!(ends(text), (1, None), "{text}");
        }
        assert!(refusal("id,\"n\na,1\n").contains("the first row (line 1"));
    }

    #[test]
    fn a_long_row_is_refused_alone() {
        const MORE: usize = MAX_RECORD_BYTES + 10_000;
        let x = "x".repeat(MORE);
        let lines = "x\n".repeat(MORE / 2);
        let is_too_long = |record: &Record| record.content.as_ref().is_err_and(|error| error.code == "too_long");
        for (row, lines) in [
            (format!("a,{x}"), None),
            (format!("a,\"{x}\""), None),
            (format!("a,\"{x}\"\"\""), None),
            (format!("a,\"{}\"", "\"\"".repeat(MORE / 2)), None),
            (format!("a,\"{}\"", "x\"\"".repeat(MORE / 3)), None),
            (format!("\"{x}\",{x}"), None),
            (format!("a,\"{lines}\""), Some((3, 3 + MORE / 2))),
        ] {
            for end in ["\n", "\r\n"] {
                let text = format!("id,n\nb,1\n{row}{end}c,2\n{row}{end}d,3\n{row}");
                let records = read(io::Cursor::new(text.into_bytes()), FieldTypes::new()).unwrap();
                let records: Vec<Record> = records.map(Result::unwrap).collect();
                let found: Vec<bool> = records.iter().map(is_too_long).collect();
                let begins = &row[..10];
                assert_eq!(found, [false, true, false, true, false, true], "{begins} {end:?}");
                assert!(records.iter().step_by(2).all(|record| record.content.is_ok()), "{begins} {end:?}");
                let detail = &records[1].content.as_ref().unwrap_err().detail;
                assert!(detail.starts_with(&format!("the row is {} bytes long", row.len())), "{begins}: {detail}");
                let of_lines = lines.map(|(first, last)| format!("(lines {first} to {last} of the input"));
                assert!(of_lines.is_none_or(|lines| detail.contains(&lines)), "{detail}");
            }
        }
        // Of the longest that is allowed nothing is left out, nor is one after another a long one.
        let row = format!("a,{}\n", "x".repeat(MAX_RECORD_BYTES - 2));
        let rows = read(io::Cursor::new(format!("id,n\n{}", row.repeat(3)).into_bytes()), FieldTypes::new()).unwrap();
        let lengths = rows.map(|record| match &record.unwrap().content.unwrap()["n"] {
            Value::String(cell) => cell.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(lengths.collect::<Vec<_>>(), [MAX_RECORD_BYTES - 2; 3]);
    }

    #[test]
    fn quotes_that_stay_open_end_the_input_whatever_its_length() {
        let x = "x".repeat(2 * MAX_RECORD_BYTES);
        let text = format!("id,n\na,1\nb,\"{x}\nc,1\n");
        let rows: Vec<_> = read(io::Cursor::new(text.into_bytes()), FieldTypes::new()).unwrap().collect();
        let error = rows.last().unwrap().as_ref().unwrap_err().to_string();
        assert!(rows.len() == 2 && error.contains("row 2 (line 3 of the input) and is never closed"), "{error}");
        let first = read(io::Cursor::new(format!("id;{x}\nc,1\n").into_bytes()), FieldTypes::new());
        let error = first.err().unwrap().to_string();
        assert!(error.contains("the first row does not end within"), "{error}");
    }

    #[test]
    fn the_first_row_names_every_column_once() {
        assert!(refusal("").contains("empty"));
        assert!(refusal("a,b,a\n").contains("column 3"));
        assert!(refusal("a,\n").contains("column 2"));
    }
}
