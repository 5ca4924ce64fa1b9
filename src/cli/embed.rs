//! `embed`: one text, or JSON lines of texts, to vectors.

use std::io::{self, BufWriter, Write};
use std::time::Instant;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::output::{self, stdout};
use super::read::{self, FieldTypes, Format, LineError, MAX_PRINTED, Record, Records, STDIN};
use super::{CliError, Context};
use crate::embed::{DEFAULT_MODEL, Embeddings, InputKind, TextModel};
use crate::http::wire::value::ValueView;
use crate::types::{Metadata, Value};

/// Texts are embedded so many at a time,
const BATCH_TEXTS: usize = 256;
/// or so many bytes of them.
const BATCH_BYTES: usize = 1 << 20;
/// As the routes refuse it.
const EMPTY: &str = "an empty string; send at least one character";

/// Arguments of `embed`.
#[derive(Args, Debug)]
#[command(after_help = "\
Reads lines such as {\"id\": \"a\", \"text\": \"..\"} and writes {\"id\": \"a\", \"embedding\": [..]} in the same order, with
\"truncated\": true where the text is longer than the model reads. Runs in this process, with or without a server.

Examples:
  pannier embed \"a text\"
  pannier embed < texts.jsonl > vectors.jsonl")]
pub struct EmbedArgs {
    /// The text; - or nothing reads JSON lines from stdin
    text: Option<String>,
    /// Model
    #[arg(long, value_name = "NAME", default_value = DEFAULT_MODEL)]
    model: String,
    /// What the texts are for; some models tell them apart
    #[arg(long, value_name = "KIND", default_value = "document")]
    input_type: InputType,
}

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputType {
    /// To search with.
    Query,
    /// To be stored and found.
    Document,
}

/// Runs `embed`. It ends well where whoever reads its vectors has read enough, as `head` does.
///
/// # Errors
/// [`CliError::Lines`] when some lines hold no text, after all others are embedded.
pub(super) fn run(args: &EmbedArgs, context: &Context) -> Result<(), CliError> {
    match embed(args, context) {
        Err(CliError::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn embed(args: &EmbedArgs, context: &Context) -> Result<(), CliError> {
    let kind = match args.input_type {
        InputType::Query => InputKind::Query,
        InputType::Document => InputKind::Document,
    };
    match args.text.as_deref() {
        Some("") => Err(CliError::Usage(format!("the text is {EMPTY}"))),
        Some(text) if text != STDIN => {
            let model = context.model_store().load(&args.model)?;
            let embedded = model.embed(&[text], kind)?;
            write_vector(&mut io::stdout().lock(), None, &embedded.vectors[0], embedded.truncated[0]).map_err(stdout)
        }
        _ => {
            let (input, len_bytes) = read::open(STDIN)?;
            let model = context.model_store().load(&args.model)?;
            let progress = output::byte_progress(context, len_bytes);
            let records = Format::Jsonl.records(read::buffered(input, &progress), FieldTypes::new())?;
            let out = BufWriter::new(io::stdout().lock());
            Stream { model: &model, kind, progress, started: Instant::now(), out }.run(records, context)
        }
    }
}

/// Lines in, lines out, a batch at a time.
struct Stream<'a, W: Write> {
    model: &'a TextModel,
    kind: InputKind,
    progress: ProgressBar,
    started: Instant,
    out: W,
}

/// A line's id, as it stands there, and its text.
struct Text {
    id: Value,
    text: String,
}

impl<W: Write> Stream<'_, W> {
    fn run(mut self, records: Records, context: &Context) -> Result<(), CliError> {
        let (mut lines, mut failed, mut embedded, mut truncated) = (0, 0, 0, 0);
        let mut batch: Vec<Text> = Vec::new();
        let mut bytes = 0;
        for record in records {
            let Record { position, content, .. } = record?;
            lines += 1;
            match content.and_then(text_of) {
                Ok(text) => {
                    bytes += text.text.len();
                    batch.push(text);
                }
                Err(error) => {
                    failed += 1;
                    if failed <= MAX_PRINTED {
                        self.progress.suspend(|| {
                            output::complain(format!("stdin: line {position}: {} ({})", error.detail, error.code))
                        });
                    }
                }
            }
            if batch.len() >= BATCH_TEXTS || bytes >= BATCH_BYTES {
                truncated += self.write(&batch)?;
                embedded += batch.len() as u64;
                self.show_speed(embedded);
                batch.clear();
                bytes = 0;
            }
        }
        truncated += self.write(&batch)?;
        embedded += batch.len() as u64;
        self.progress.finish_and_clear();
        if failed > MAX_PRINTED {
            let more = output::counted(failed - MAX_PRINTED, "line");
            output::complain(format!("stdin: {more} more were refused"));
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let texts = output::counted(embedded, "text");
        let cut = if truncated == 0 { String::new() } else { format!(", {truncated} cut") };
        let speed = embedded as f64 / seconds.max(1e-3);
        output::hint(context, format!("{texts} embedded in {seconds:.1} s ({speed:.0}/s){cut}."));
        if failed > 0 { Err(CliError::Lines { failed, total: lines, unit: "line" }) } else { Ok(()) }
    }

    /// Embeds a batch and writes it; returns how many texts were cut.
    fn write(&mut self, batch: &[Text]) -> Result<u64, CliError> {
        if batch.is_empty() {
            return Ok(0);
        }
        let texts: Vec<&str> = batch.iter().map(|text| text.text.as_str()).collect();
        let Embeddings { vectors, truncated, .. } = self.model.embed(&texts, self.kind)?;
        for ((text, vector), &cut) in batch.iter().zip(&vectors).zip(&truncated) {
            write_vector(&mut self.out, Some(&text.id), vector, cut).map_err(stdout)?;
        }
        self.out.flush().map_err(stdout)?;
        Ok(truncated.iter().filter(|&&cut| cut).count() as u64)
    }

    fn show_speed(&self, embedded: u64) {
        let speed = embedded as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        self.progress.set_message(format!("{} texts, {speed:.0}/s", output::count(embedded)));
    }
}

fn text_of(mut record: Metadata) -> Result<Text, LineError> {
    let text = match record.remove("text") {
        Some(Value::String(text)) if text.is_empty() => {
            return Err(LineError::new("invalid_input", format!("\"text\" is {EMPTY}")));
        }
        Some(Value::String(text)) => text,
        Some(other) => {
            let detail = format!("\"text\" is {}; it must be a string", other.kind());
            return Err(LineError::new("invalid_value", detail));
        }
        None => {
            return Err(LineError::new(
                "missing_field",
                "there is no \"text\"; write {\"id\": \"a\", \"text\": \"..\"}",
            ));
        }
    };
    match record.remove("id") {
        Some(id @ (Value::String(_) | Value::Int(_))) => Ok(Text { id, text }),
        Some(other) => {
            let detail = format!("\"id\" is {}; it must be a string or a whole number", other.kind());
            Err(LineError::new("invalid_value", detail))
        }
        None => Err(LineError::new("missing_field", "there is no \"id\"; write {\"id\": \"a\", \"text\": \"..\"}")),
    }
}

/// Writes one line. Numbers are the shortest that read back as the same f32.
fn write_vector(out: &mut impl Write, id: Option<&Value>, vector: &[f32], truncated: bool) -> io::Result<()> {
    out.write_all(b"{")?;
    if let Some(id) = id {
        out.write_all(b"\"id\":")?;
        serde_json::to_writer(&mut *out, &ValueView(id))?;
        out.write_all(b",")?;
    }
    out.write_all(b"\"embedding\":")?;
    serde_json::to_writer(&mut *out, vector)?;
    out.write_all(if truncated { b",\"truncated\":true}\n" } else { b"}\n" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::wire::value::WireMetadata;

    fn text(line: &str) -> Result<(Value, String), String> {
        let WireMetadata(record) = serde_json::from_str(line).unwrap();
        text_of(record).map(|text| (text.id, text.text)).map_err(|error| error.detail)
    }

    #[test]
    fn a_line_has_an_id_and_a_text() {
        assert_eq!(text(r#"{"id":7,"text":"a","more":1}"#).unwrap(), (Value::Int(7), "a".to_owned()));
        for line in [
            r#"{"id":"a"}"#,
            r#"{"id":"a","text":""}"#,
            r#"{"text":"a"}"#,
            r#"{"id":"a","text":1}"#,
            r#"{"id":null,"text":"a"}"#,
        ] {
            assert!(text(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_vector_is_written_exactly_so() {
        let mut out = Vec::new();
        write_vector(&mut out, Some(&Value::String("é\"".into())), &[0.1, -1.0], true).unwrap();
        write_vector(&mut out, None, &[0.5], false).unwrap();
        let wanted = "{\"id\":\"é\\\"\",\"embedding\":[0.1,-1.0],\"truncated\":true}\n{\"embedding\":[0.5]}\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
