//! Records out of files: JSON arrays, JSON lines and CSV, one at a time and never the whole file.

mod csv;
mod json_array;
mod json_lines;
mod line_reader;
mod mapping;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use indicatif::ProgressBar;

use super::CliError;
use crate::http::wire::json;
use crate::http::wire::value::{MetadataView, WireMetadata};
use crate::types::limits::{MAX_METADATA_BYTES, MAX_TEXT_BYTES};
use crate::types::{Metadata, Value};

pub(super) use csv::FieldTypes;
pub(super) use line_reader::LineReader;
pub(super) use mapping::Mapping;

/// Most refused records that a command prints; all are counted.
pub(super) const MAX_PRINTED: u64 = 50;
/// Longest record: the longest text with every character escaped, and the longest metadata.
pub(super) const MAX_RECORD_BYTES: usize = 6 * MAX_TEXT_BYTES + 2 * MAX_METADATA_BYTES;
/// What a file of UTF-8 may start with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How inputs begin that are read as nothing useful, and what to do about each.
const NO_TEXT: [(&[u8], &str); 5] = [
    (
        b"\x1f\x8b",
        "compressed (gzip); unpack it first, as in `zcat FILE | pannier import COLLECTION - --format FORMAT`",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "compressed (zstd); unpack it first, as in `zstdcat FILE | pannier import COLLECTION - --format FORMAT`",
    ),
    (b"PK\x03\x04", "a zip archive or a workbook; unpack it, or save its sheet as CSV"),
    (b"\xff\xfe", "UTF-16; write it as UTF-8, as `iconv -f UTF-16 -t UTF-8 FILE` does"),
    (b"\xfe\xff", "UTF-16; write it as UTF-8, as `iconv -f UTF-16 -t UTF-8 FILE` does"),
];
/// Stands for stdin where a file is named.
pub(super) const STDIN: &str = "-";

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An array of objects.
    Json,
    /// An object a line.
    #[value(alias = "ndjson")]
    Jsonl,
    /// Columns separated by commas, with their names in the first row.
    Csv,
}

/// One object of a file, or why it is none.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    /// Its line, element or row, counted from 1.
    pub position: u64,
    pub content: Result<Metadata, LineError>,
    /// The columns of its file, in a format that has them: its content lacks those whose cell is empty.
    pub columns: Option<Arc<[String]>>,
}

/// Why a line, element or row cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineError {
    /// One of the API's codes.
    pub code: String,
    /// What to change.
    pub detail: String,
}

/// Records as they are read; `Err` where nothing more can be.
pub(super) type Records = Box<dyn Iterator<Item = Result<Record, CliError>>>;

impl LineError {
    pub(super) fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into() }
    }
}

impl Format {
    /// The format that a file's name says.
    ///
    /// # Errors
    /// [`CliError::Usage`] when it says none.
    pub(super) fn of_name(name: &str) -> Result<Self, CliError> {
        let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match extension.as_str() {
            "json" => Ok(Self::Json),
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            "csv" => Ok(Self::Csv),
            _ => Err(CliError::Usage(format!("the format of {name:?} is not clear; add --format json, jsonl or csv"))),
        }
    }

    /// What its records are called in messages.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Json => "element",
            Self::Jsonl => "line",
            Self::Csv => "row",
        }
    }

    /// Reads the records of an input. `types`: how the cells of a CSV file are to be understood.
    ///
    /// # Errors
    /// [`CliError::Io`] when the input cannot be read, [`CliError::Refused`] when it is of another format as a whole.
    pub(super) fn records(self, mut input: Box<dyn BufRead>, types: FieldTypes) -> Result<Records, CliError> {
        let start = input.fill_buf().map_err(|e| CliError::io("read the input", e))?;
        if let Some((_, what)) = NO_TEXT.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Err(CliError::Refused(format!("the input is {what}")));
        }
        if start.starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
        }
        Ok(match self {
            Self::Json => Box::new(json_array::read(input)?),
            Self::Jsonl => Box::new(json_lines::JsonLines::new(input)),
            Self::Csv => Box::new(csv::read(input, types)?),
        })
    }
}

/// Opens a file or, for `-`, stdin. Returns its length too, where it has one.
///
/// # Errors
/// [`CliError::Io`] with the name, [`CliError::Usage`] where a person would have to type the input.
pub(super) fn open(name: &str) -> Result<(Box<dyn Read + Send>, Option<u64>), CliError> {
    use std::io::IsTerminal;
    if name == STDIN {
        if io::stdin().is_terminal() {
            return Err(CliError::Usage("nothing is piped into stdin; name a file, or pipe one in".to_owned()));
        }
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(name).map_err(|e| CliError::io(format!("open {name}"), e))?;
    let metadata = file.metadata().map_err(|e| CliError::io(format!("read {name}"), e))?;
    if metadata.is_dir() {
        return Err(CliError::Usage(format!("{name} is a directory; name a file of documents")));
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// Buffers an input and moves a progress bar by the bytes that are read.
pub(super) fn buffered(input: Box<dyn Read + Send>, progress: &ProgressBar) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(1 << 16, progress.wrap_read(input)))
}

/// Understands the bytes of one JSON object.
fn parse_object(bytes: &[u8], unit: &str) -> Result<Metadata, LineError> {
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(too_long(bytes.len(), MAX_RECORD_BYTES, unit));
    }
    match json::parse::<WireMetadata>(bytes) {
        Ok(WireMetadata(object)) => Ok(object),
        Err(error) => {
            Err(LineError::new(error.code.as_str(), error.detail.replace("the body", &format!("the {unit}"))))
        }
    }
}

fn too_long(len_bytes: usize, max_bytes: usize, unit: &str) -> LineError {
    let detail = format!("the {unit} is {len_bytes} bytes long, at most {max_bytes} are allowed");
    LineError::new("too_long", detail)
}

/// Writes an object as one line of JSON.
///
/// # Errors
/// As the writer.
pub(super) fn write_json_line(mut out: impl Write, object: &Metadata) -> io::Result<()> {
    serde_json::to_writer(&mut out, &MetadataView(object))?;
    out.write_all(b"\n")
}

/// A string as a value.
pub(super) fn string(text: impl Into<String>) -> Value {
    Value::String(text.into())
}
