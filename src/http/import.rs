//! The import stream: a document a line, of any length, with a report of the lines that did not get in.

use std::collections::HashSet;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::HeaderMap;
use http_body_util::BodyExt;
use serde::Serialize;
use utoipa::ToSchema;

use super::bodies::{self, Held, SMALL_BODY_BYTES};
use super::error::{ApiError, Code};
use super::extract::{self, InCollection, NoParams, check_encoding, media_type};
use super::ndjson::{Line, LineContent, LineSplitter};
use super::problem::Problem;
use super::state::AppState;
use super::wire::document::DocumentBody;
use super::wire::json::{self, JsonText};
use crate::backend::AnyCollection;
use crate::collection::Upserted;
use crate::embed::Cancellation;
use crate::telemetry;
use crate::types::limits::{MAX_METADATA_BYTES, MAX_TEXT_BYTES};
use crate::types::{CollectionName, DocumentId, NewDocument};

/// Longest line: the longest text with every character escaped, and the longest metadata.
const MAX_LINE_BYTES: usize = 6 * MAX_TEXT_BYTES + 2 * MAX_METADATA_BYTES;
/// A batch is written when it holds so many documents,
const BATCH_DOCUMENTS: usize = 256;
/// or lines of so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Most errors, and most ids of cut texts, that the report lists; all are counted.
const MAX_LISTED: usize = 1_000;
/// Most characters of the beginning and of the end of a sentence that the report keeps.
const MAX_DETAIL: (usize, usize) = (400, 100);
/// How often a batch of which nothing gets in is tried again while too many writes wait,
const OVERLOAD_RETRIES: u32 = 10;
/// and the first pause before that, which doubles each time up to [`MAX_OVERLOAD_PAUSE`]. What asks for a longer one
/// gets it.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(50);
const MAX_OVERLOAD_PAUSE: Duration = Duration::from_secs(5);
/// What a file may start with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What an import did.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ImportView {
    /// Lines that were read and were not blank.
    lines: u64,
    /// The line, counted from 1 and with blank ones, up to which every line was written or refused. Of an import that
    /// ends early, the lines after it are to be sent again, also where they were read.
    done_through: u64,
    /// Documents written.
    upserted: u64,
    /// Lines that did not get in.
    failed: u64,
    /// The first 1,000 of them.
    errors: Vec<LineError>,
    /// Texts that the model embedded.
    embedded: u64,
    /// Texts whose vector was known already.
    cached: u64,
    /// Documents whose text is longer than the model reads.
    truncated_count: u64,
    /// The ids of the first 1,000 of them.
    truncated: Vec<String>,
    /// The last change; null where nothing was written.
    #[schema(required)]
    seq: Option<u64>,
}

/// Why a line did not get in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineError {
    /// Counted from 1.
    line: u64,
    /// The same codes as of a problem.
    #[schema(value_type = String, example = "dim_mismatch")]
    code: &'static str,
    /// What to change.
    detail: String,
}

/// Writes documents from a stream of lines, a JSON document each.
///
/// Lines are written in batches as they come: what was written stays, also when a later line is refused or the stream
/// breaks. Of two lines with one id the later stands. Where an import ends early, the problem has the report so far as
/// `progress`: send the lines after its `done_through` again.
#[utoipa::path(
    post, path = "/v1/collections/{collection}/import", operation_id = "importDocuments", tag = "documents",
    params(("collection" = String, Path, description = "`[a-z0-9_-]{1,64}`")),
    request_body(content = String, content_type = "application/x-ndjson", description = "A document a line, of any length."),
    responses(
        (status = 200, body = ImportView, description = "The stream was read to its end."),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no such collection."),
    )
)]
pub(crate) async fn import(
    State(state): State<AppState>,
    InCollection(name): InCollection,
    _: NoParams,
    headers: HeaderMap,
    mut body: Body,
) -> Result<JsonText, ApiError> {
    admit(&state, &name, &headers)?;
    import_lines(state, name, &mut body).await
}

/// Refuses what is no import, and an unknown collection, before the first byte is read. It asks for no place: writes
/// wait for theirs, and what comes in portions would be refused between two of them.
fn admit(state: &AppState, name: &CollectionName, headers: &HeaderMap) -> Result<(), ApiError> {
    check_media_type(headers)?;
    check_encoding(headers)?;
    state.collections().get(name)?;
    Ok(())
}

async fn import_lines(state: AppState, name: CollectionName, body: &mut Body) -> Result<JsonText, ApiError> {
    let mut import = Import { state, name, batch: Batch::default(), taken: 0, report: ImportView::default() };
    let mut splitter = LineSplitter::new(MAX_LINE_BYTES);
    let mut long: Option<LongLine> = None;
    loop {
        let chunk = match next_chunk(body, &import.state, long.as_ref().map(|line| line.until)).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => return Err(import.abandon(error).await),
        };
        let mut rest: &[u8] = &chunk;
        while !rest.is_empty() {
            if let Some(line) = splitter.next_line(&mut rest) {
                import.take(line, long.take()).await?;
            }
        }
        match splitter.partial_bytes() > SMALL_BODY_BYTES {
            true if long.is_none() => long = Some(import.begin_long(MAX_LINE_BYTES).await?),
            true => {}
            // Also of a line that is too long, whose bytes are gone.
            false => long = None,
        }
    }
    if let Some(line) = splitter.finish() {
        import.take(line, long).await?;
    }
    import.flush().await?;
    JsonText::of(&import.report)
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let allowed = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];
    match media_type(headers) {
        None => Ok(()),
        Some(media) if allowed.contains(&media.as_str()) => Ok(()),
        Some(media) => {
            let detail = format!("send lines of JSON with \"Content-Type: application/x-ndjson\", not {media:?}");
            Err(ApiError::new(Code::UnsupportedMediaType, detail))
        }
    }
}

/// `until`: when the line at hand has to have come.
async fn next_chunk(body: &mut Body, state: &AppState, until: Option<Instant>) -> Result<Option<Bytes>, ApiError> {
    let limits = &state.config().limits;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.unwrap_or(Duration::MAX).min(limits.import_idle_timeout);
        let frame = tokio::select! {
            biased;
            () = state.shutdown_began(), if !body.is_end_stream() => {
                return Err(stopping());
            }
            frame = tokio::time::timeout(timeout, body.frame()) => frame,
        };
        match frame {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                // Trailers carry no lines.
                if let Ok(chunk) = frame.into_data() {
                    return Ok(Some(chunk));
                }
            }
            Ok(Some(Err(_))) => return Err(ApiError::new(Code::BodyIncomplete, "the stream broke before its end")),
            Err(_) => {
                let detail = match until.is_some_and(|until| until <= Instant::now()) {
                    true => format!("a line of more than 1 MiB took longer than {} s", limits.body_timeout.as_secs()),
                    false => format!("no byte came for {} s", limits.import_idle_timeout.as_secs()),
                };
                return Err(ApiError::new(Code::BodyTimeout, detail));
            }
        }
    }
}

fn stopping() -> ApiError {
    let detail = "the server is stopping; send the lines after \"done_through\" of \"progress\" again";
    ApiError::new(Code::Stopping, detail)
}

/// How often a batch was tried without success.
#[derive(Default)]
struct Tries {
    in_vain: u32,
}

impl Tries {
    /// How long to wait before the next, with what the last one asked for; `None` to give up. Whoever gets on, however
    /// slowly, is not given up.
    fn next_pause(&mut self, got_on: bool, asked: Option<Duration>) -> Option<Duration> {
        self.in_vain = if got_on { 1 } else { self.in_vain + 1 };
        let pause = (OVERLOAD_PAUSE * (1 << (self.in_vain - 1).min(16))).min(MAX_OVERLOAD_PAUSE);
        (self.in_vain <= OVERLOAD_RETRIES).then_some(pause.max(asked.unwrap_or_default()))
    }
}

/// Documents that wait to be written together, with the numbers of their lines.
#[derive(Default)]
struct Batch {
    documents: Vec<(u64, NewDocument)>,
    ids: HashSet<DocumentId>,
    bytes: usize,
}

/// A line as long as a body that asks for room, and what it holds of it until it is written.
struct LongLine {
    held: Option<Held>,
    /// When it has to have come.
    until: Instant,
}

struct Import {
    state: AppState,
    name: CollectionName,
    batch: Batch,
    /// The last line that was read, and refused or put into a batch.
    taken: u64,
    report: ImportView,
}

impl Import {
    async fn take(&mut self, line: Line, long: Option<LongLine>) -> Result<(), ApiError> {
        let number = line.number;
        self.read(line, long).await?;
        self.taken = number;
        if self.batch.documents.is_empty() {
            self.report.done_through = number;
        }
        Ok(())
    }

    /// Waits for room for a long line, and holds none of others meanwhile: what was read before is written.
    async fn begin_long(&mut self, bytes: usize) -> Result<LongLine, ApiError> {
        self.flush().await?;
        let limits = self.state.config().limits;
        let taken = tokio::select! {
            () = self.state.shutdown_began() => Err(stopping()),
            taken = self.state.body_room().take(bytes, limits.import_idle_timeout) => taken,
        };
        let held = taken.map_err(|error| self.report.attach(error))?;
        Ok(LongLine { held, until: Instant::now() + limits.body_timeout })
    }

    async fn read(&mut self, line: Line, long: Option<LongLine>) -> Result<(), ApiError> {
        let Line { number, content } = line;
        let text = match content {
            LineContent::Text(text) => text,
            LineContent::TooLong { length_bytes } => {
                self.report.lines += 1;
                let detail = format!("the line is {length_bytes} bytes long, at most {MAX_LINE_BYTES} are allowed");
                self.report.refuse(number, &ApiError::new(Code::TooLong, detail));
                return Ok(());
            }
        };
        let mut text = Bytes::from(text);
        if number == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text = text.slice(BYTE_ORDER_MARK.len()..);
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let length = text.len();
        let mut long = match long {
            None if length > SMALL_BODY_BYTES => Some(self.begin_long(length).await?),
            long => long,
        };
        let parsed = extract::parse::<DocumentBody>(text).await;
        if let (Some(held), Ok((_, taken))) = (long.as_mut().and_then(|long| long.held.as_mut()), &parsed) {
            held.settle(2 * length + taken).map_err(|error| self.report.attach(error))?;
        }
        self.report.lines += 1;
        match parsed.and_then(|(body, _)| body.into_document()) {
            // One that is long fills a batch, which is written before what it holds is given back: where the client
            // goes meanwhile, the write goes on, and holds it.
            Ok(document) => {
                bodies::keep(long.and_then(|long| long.held));
                let added = self.add(number, document, length).await;
                bodies::keep(None);
                added
            }
            Err(error) => {
                self.report.refuse(number, &error);
                Ok(())
            }
        }
    }

    async fn add(&mut self, number: u64, document: NewDocument, bytes: usize) -> Result<(), ApiError> {
        if self.batch.ids.contains(&document.id) || self.batch.bytes + bytes > BATCH_BYTES {
            self.flush().await?;
        }
        self.batch.ids.insert(document.id.clone());
        self.batch.bytes += bytes;
        self.batch.documents.push((number, document));
        if self.batch.documents.len() >= BATCH_DOCUMENTS || self.batch.bytes >= BATCH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes the batch. Where one of its documents is refused, the others get in.
    ///
    /// # Errors
    /// What is no document's fault, with the report so far. Once the server wants to end, nothing more is written: none
    /// of it was acknowledged, and its texts may take longer to embed than there is time.
    async fn flush(&mut self) -> Result<(), ApiError> {
        if !self.batch.documents.is_empty() && self.state.is_shutting_down() {
            return Err(self.report.attach(stopping()));
        }
        let documents: Arc<[_]> = std::mem::take(&mut self.batch).documents.into();
        let (mut next, mut tries) = (0, Tries::default());
        while next < documents.len() {
            let outcome = match self.write(Arc::clone(&documents), next).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome { stopped: Some((next, error)), ..Outcome::default() },
            };
            outcome.done.iter().for_each(|upserted| self.report.add(upserted));
            outcome.refused.iter().for_each(|(number, error)| self.report.refuse(*number, error));
            let got_on = !outcome.done.is_empty() || !outcome.refused.is_empty();
            let Some((at, error)) = outcome.stopped else {
                self.report.done_through = self.taken;
                return Ok(());
            };
            self.report.done_through = documents.get(at).map_or(self.taken, |(number, _)| number - 1);
            self.state.notice(&error);
            let pause = match error.code {
                Code::Overloaded => tries.next_pause(got_on, error.retry_after),
                _ => None,
            };
            let Some(pause) = pause else { return Err(self.report.attach(error)) };
            next = at;
            tokio::select! {
                () = self.state.shutdown_began() => return Err(self.report.attach(stopping())),
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Writes the documents from this one on. A shutdown ends the embedding of those that are not embedded yet.
    async fn write(&self, documents: Arc<[(u64, NewDocument)]>, next: usize) -> Result<Outcome, ApiError> {
        let cancellation = Cancellation::new();
        // This future is dropped when the client disconnects.
        let _gone = cancellation.cancel_on_drop();
        let around = cancellation.clone();
        let mut write = pin!(self.state.on_collection_writing(self.name.clone(), move |collection| {
            let mut outcome = Outcome::default();
            around.scope(|| write_splitting(collection, &documents, next..documents.len(), &mut outcome));
            Ok(outcome)
        }));
        tokio::select! {
            biased;
            outcome = &mut write => return outcome,
            () = self.state.shutdown_began() => cancellation.cancel(),
        }
        // What is embedded already is written, and counts.
        let mut outcome = write.await?;
        if let Some((_, error)) = outcome.stopped.as_mut().filter(|(_, error)| error.code == Code::Timeout) {
            *error = stopping();
        }
        Ok(outcome)
    }

    /// Writes what has been read of a broken stream, unless the server wants to end, and says with its error how far it
    /// got.
    async fn abandon(&mut self, error: ApiError) -> ApiError {
        match self.flush().await {
            Ok(()) => self.report.attach(error),
            Err(worse) => worse,
        }
    }
}

/// What became of a batch.
#[derive(Default)]
struct Outcome {
    done: Vec<Upserted>,
    refused: Vec<(u64, ApiError)>,
    /// The first document that was not tried to the end, nor were those after it, and why.
    stopped: Option<(usize, ApiError)>,
}

/// Writes documents together. When one is refused, writes the halves on their own, and so on down to that one:
/// log2(256) steps instead of one write and one fsync for each document.
fn write_splitting(
    collection: &AnyCollection,
    documents: &[(u64, NewDocument)],
    of: Range<usize>,
    outcome: &mut Outcome,
) {
    if outcome.stopped.is_some() {
        return;
    }
    match collection.upsert(documents[of.clone()].iter().map(|(_, document)| document.clone()).collect()) {
        Ok(upserted) => outcome.done.push(upserted),
        Err(error) => {
            let error = ApiError::from(error);
            if !error.is_documents_fault() {
                outcome.stopped = Some((of.start, error));
            } else if of.len() == 1 {
                outcome.refused.push((documents[of.start].0, error));
            } else {
                let middle = of.end - of.len() / 2;
                write_splitting(collection, documents, of.start..middle, outcome);
                write_splitting(collection, documents, middle..of.end, outcome);
            }
        }
    }
}

impl ImportView {
    fn add(&mut self, upserted: &Upserted) {
        self.upserted += upserted.upserted as u64;
        self.embedded += upserted.embedded as u64;
        self.cached += upserted.cached as u64;
        self.truncated_count += upserted.truncated.len() as u64;
        let room = MAX_LISTED - self.truncated.len();
        self.truncated.extend(upserted.truncated.iter().take(room).map(DocumentId::to_string));
        self.seq = self.seq.max(Some(upserted.seq.0));
        metrics::counter!(telemetry::DOCUMENTS_UPSERTED_TOTAL).increment(upserted.upserted as u64);
    }

    fn refuse(&mut self, line: u64, error: &ApiError) {
        self.failed += 1;
        if self.errors.len() < MAX_LISTED {
            let detail = json::shortened(&error.detail, MAX_DETAIL.0, MAX_DETAIL.1).into_owned();
            self.errors.push(LineError { line, code: error.code.as_str(), detail });
        }
    }

    /// Puts the report so far into the error that ends the import.
    fn attach(&self, mut error: ApiError) -> ApiError {
        if let Ok(report) = serde_json::to_value(self) {
            error.extra = Some(serde_json::Map::from_iter([("progress".to_owned(), report)]));
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_lists_so_many_errors_and_counts_all() {
        let mut report = ImportView::default();
        for line in 1..=1_500 {
            report.refuse(line, &ApiError::new(Code::InvalidJson, "x"));
        }
        assert_eq!((report.failed, report.errors.len(), report.errors[999].line), (1_500, MAX_LISTED, 1_000));
    }

    #[test]
    fn who_gets_on_is_tried_again_and_waits_as_long_as_is_asked() {
        let mut tries = Tries::default();
        assert_eq!(tries.next_pause(false, None), Some(OVERLOAD_PAUSE));
        assert_eq!(tries.next_pause(false, None), Some(2 * OVERLOAD_PAUSE));
        let asked = 10 * MAX_OVERLOAD_PAUSE;
        assert_eq!(tries.next_pause(false, Some(asked)), Some(asked));
        for _ in 0..100 {
            assert_eq!(tries.next_pause(true, None), Some(OVERLOAD_PAUSE));
        }
        let pauses: Vec<_> = std::iter::from_fn(|| tries.next_pause(false, None)).collect();
        assert_eq!((pauses.len() + 1, pauses.last()), (OVERLOAD_RETRIES as usize, Some(&MAX_OVERLOAD_PAUSE)));
    }

    #[test]
    fn the_error_that_ends_an_import_says_how_far_it_got() {
        let report = ImportView { lines: 7, upserted: 5, ..ImportView::default() };
        let error = report.attach(ApiError::new(Code::Stopping, "stopping"));
        let progress = &error.extra.unwrap()["progress"];
        assert_eq!((progress["lines"].as_u64(), progress["upserted"].as_u64()), (Some(7), Some(5)));
    }
}
