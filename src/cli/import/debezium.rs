//! `import debezium`: change events, in their order.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};
use std::{process, thread};

use clap::Args;
use indicatif::ProgressBar;

use super::super::read::{self, LineError, LineReader, MAX_RECORD_BYTES};
use super::super::signals::{SECOND_SIGNAL, Signals};
use super::super::target::{Access, Target};
use super::super::{CliError, Context, output};
use super::writing::{Counts, Writer, document};
use crate::source::{Change, Events, KeyKinds};
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;
use crate::types::{CollectionName, Metadata};

/// Longest that what was read waits for more before it is applied.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Lines that are read ahead.
const LINES_AHEAD: usize = 16;
/// Longest line: a row before its change and after it, and what the schema says of them.
const MAX_EVENT_BYTES: usize = 4 * MAX_RECORD_BYTES;

/// Arguments of `import debezium`.
#[derive(Args, Debug)]
#[command(after_help = "\
A line holds one event, as Debezium writes it: op c, u, d or r with `before` and `after`, in the schema/payload envelope or
without, or flattened by ExtractNewRecordState. A tombstone deletes by the key beside it, {\"key\": .., \"value\": null};
one without a key is passed over. Let ExtractNewRecordState rewrite deletes, or rows that are deleted stay. Applying the
same events twice does no harm, as long as they keep their order. What was read is applied within half a second; SIGINT
and SIGTERM end the import after that.

Examples:
  kcat -C -t db.public.products -e | pannier import debezium products - --key product_id
  kcat -C -t db.public.products | pannier import debezium products - --key product_id")]
pub struct DebeziumArgs {
    /// Collection to write into
    collection: String,
    /// File of events, one a line, or - for stdin
    file: String,
    /// Columns of the key, joined by commas
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', default_value = "id")]
    key: Vec<String>,
    /// What stands before the key in a document's id
    #[arg(long, value_name = "TEXT", default_value = "")]
    id_prefix: String,
    /// Column that holds the text, where the collection has no template
    #[arg(long, value_name = "COLUMN")]
    text_column: Option<String>,
    /// Column that holds the vector
    #[arg(long, value_name = "COLUMN")]
    vector_column: Option<String>,
    /// Columns to leave out, joined by commas
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    exclude_columns: Vec<String>,
}

/// What comes of the input.
enum Next {
    /// A line, or why there is none to be understood.
    Line(Result<String, LineError>),
    /// Reading failed.
    Broken(io::Error),
    End,
    /// The program was asked to end.
    Signal,
}

/// Runs `import debezium`.
///
/// # Errors
/// [`CliError::Lines`] when some events could not be applied, after all others have been; [`CliError::Refused`] after a
/// signal, when what was read has been.
pub(super) fn run(args: &DebeziumArgs, context: &Context) -> Result<(), CliError> {
    let name = CollectionName::new(&args.collection)?;
    let (input, len_bytes) = read::open(&args.file)?;
    let target = Target::of(context, Access::Existing)?;
    super::postgres::require_collection(&target, &name, args.text_column.is_some() || args.vector_column.is_some())?;
    let progress = output::byte_progress(context, len_bytes);
    let input = read::buffered(input, &progress);
    let started = Instant::now();
    let mut import = Import {
        args,
        events: Events { key: args.key.clone(), exclude: args.exclude_columns.clone() },
        kinds: KeyKinds::default(),
        writer: Writer::new(&target, &name),
        progress: &progress,
        lines: 0,
        deletes: 0,
        tombstones: 0,
        waiting: BTreeMap::new(),
        since: Instant::now(),
    };
    let following = follow(input).map_err(|e| CliError::io("start a thread", e))?;
    let cut_short = loop {
        match following.recv_timeout(import.patience()) {
            Ok(Next::Line(line)) => import.take(line)?,
            Err(RecvTimeoutError::Timeout) => import.apply()?,
            Ok(Next::End) | Err(RecvTimeoutError::Disconnected) => break None,
            Ok(Next::Broken(error)) => break Some(CliError::io(format!("read {}", args.file), error)),
            Ok(Next::Signal) => {
                let lines = output::counted(import.lines, "line");
                let detail = format!("a signal ended the import after {lines} of {}, which were applied", args.file);
                break Some(CliError::Refused(detail));
            }
        }
    };
    import.apply()?;
    progress.finish_and_clear();
    // Behind an event of op d comes one, which says nothing more.
    let lost = import.tombstones.saturating_sub(import.deletes);
    if lost > 0 {
        let tombstones = output::counted(lost, "tombstone");
        let advice = "print keys with values, or let ExtractNewRecordState rewrite deletes";
        output::hint(
            context,
            format!("{tombstones} without a key: documents of rows that are gone may stay; {advice}"),
        );
    }
    let counts = Counts { events: Some(import.lines), ..import.writer.counts };
    let reported = counts.report(&name, &target.place(), started.elapsed().as_secs_f64(), "event", context);
    cut_short.map_or(reported, Err)
}

/// Reads lines in a thread of its own, so that what was read can be applied while nothing comes. A signal ends them.
fn follow(input: Box<dyn BufRead + Send>) -> io::Result<Receiver<Next>> {
    let (sender, receiver) = mpsc::sync_channel(LINES_AHEAD);
    let of_signals = sender.clone();
    thread::Builder::new().name("events".to_owned()).spawn(move || read_lines(input, &sender))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::listen()?
    };
    let wait = async move {
        signals.next().await;
        // After the lines that were read before it, and beside this: a second signal does not wait for those.
        drop(tokio::task::spawn_blocking(move || of_signals.send(Next::Signal)));
        signals.next().await;
        process::exit(SECOND_SIGNAL);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
    Ok(receiver)
}

/// Sends every line and then why there is no more, until nobody listens any more.
fn read_lines(input: impl BufRead, sender: &SyncSender<Next>) {
    let mut lines = LineReader::new(input, MAX_EVENT_BYTES);
    loop {
        let next = match lines.next_line() {
            Ok(Some(line)) => Next::Line(line.and_then(text_of)),
            Ok(None) => Next::End,
            Err(error) => Next::Broken(error),
        };
        let is_last = !matches!(next, Next::Line(_));
        if sender.send(next).is_err() || is_last {
            return;
        }
    }
}

fn text_of(line: &[u8]) -> Result<String, LineError> {
    let text = str::from_utf8(line).map_err(|_| LineError::new("invalid_json", "the line is not UTF-8"))?;
    Ok(text.to_owned())
}

/// Events on their way into a collection.
struct Import<'a> {
    args: &'a DebeziumArgs,
    events: Events,
    kinds: KeyKinds,
    writer: Writer<'a>,
    progress: &'a ProgressBar,
    /// Lines that were read.
    lines: u64,
    /// Events that deleted a row, of which tombstones follow.
    deletes: u64,
    /// Tombstones without a key.
    tombstones: u64,
    /// The last word on each id; within a batch nothing else counts.
    waiting: BTreeMap<String, Option<(String, Metadata)>>,
    /// When the first of these was read.
    since: Instant,
}

impl Import<'_> {
    /// How long to wait for the next line before what waits is applied.
    fn patience(&self) -> Duration {
        match self.waiting.is_empty() {
            true => Duration::MAX,
            false => MAX_WAIT.saturating_sub(self.since.elapsed()),
        }
    }

    /// Understands a line, and applies what waits where that is enough for a request, or has waited long enough.
    fn take(&mut self, line: Result<String, LineError>) -> Result<(), CliError> {
        self.lines += 1;
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        let place = format!("{}: line {}", self.args.file, self.lines);
        let change = line.map_err(|error| error.detail);
        match change.and_then(|line| self.events.read_after(&line, &mut self.kinds).map_err(|error| error.to_string()))
        {
            Ok(Change::Nothing) => {}
            Ok(Change::Tombstone) => self.tombstones += 1,
            Ok(Change::KeyedTombstone { id }) => self.note(&id, None),
            Ok(Change::Delete { id }) => {
                self.deletes += 1;
                self.note(&id, None);
            }
            Ok(Change::Upsert { id, fields, before }) => {
                if let Some(before) = before {
                    self.note(&before, None);
                }
                let (text, vector) = (self.args.text_column.as_deref(), self.args.vector_column.as_deref());
                match document(self.document_id(&id), fields, text, vector) {
                    Ok(document) => self.note(&id, Some((place, document))),
                    Err(detail) => self.refuse(&place, &detail),
                }
            }
            Err(detail) => self.refuse(&place, &detail),
        }
        match self.waiting.len() >= MAX_DOCUMENTS_PER_REQUEST - 1 || self.patience().is_zero() {
            true => self.apply(),
            false => Ok(()),
        }
    }

    fn document_id(&self, key: &str) -> String {
        format!("{}{key}", self.args.id_prefix)
    }

    fn note(&mut self, key: &str, row: Option<(String, Metadata)>) {
        self.waiting.insert(self.document_id(key), row);
    }

    fn refuse(&mut self, place: &str, detail: &str) {
        self.progress.suspend(|| self.writer.refuse(place, detail));
    }

    /// Writes and deletes what waits.
    fn apply(&mut self) -> Result<(), CliError> {
        let waiting = std::mem::take(&mut self.waiting);
        let gone: Vec<String> = waiting.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| id.clone()).collect();
        let there: Vec<(String, Metadata)> = waiting.into_values().flatten().collect();
        self.writer.upsert(&there)?;
        self.writer.delete(&gone)
    }
}
