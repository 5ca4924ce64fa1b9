//! One run over a source: from where the last one ended to the end, then the rows that are gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value as Json;
use tokio::runtime::Runtime;

use super::super::super::target::{Target, collection_path};
use super::super::super::{CliError, Context, output};
use super::super::writing::{Counts, Writer, document};
use super::PostgresArgs;
use crate::postgres::{ConnectSettings, Trouble};
use crate::source::{
    Begin, Boundary, Deletions, LeftOut, Relation, Row, SourceError, SourceState, TableReader, TableSource,
};
use crate::types::{CollectionName, Metadata};

/// Documents of a collection that are compared with the table's keys at a time.
const LISTED: usize = 1_000;
/// How far the source was read is kept after each page as long as no more rows than these are remembered with it,
const REMEMBERED_CHEAPLY: usize = 1_000;
/// else so often.
const SAVED_EVERY: Duration = Duration::from_secs(5);
/// So many documents may go without a question, also where that is all of them.
const FEW: usize = 10;

/// What a run needs.
pub(super) struct Run<'a> {
    pub args: &'a PostgresArgs,
    pub context: &'a Context,
    pub target: &'a Target,
    pub name: &'a CollectionName,
    pub settings: &'a ConnectSettings,
    pub source: &'a TableSource,
    /// Where the conversation with the database runs. The target may have a runtime of its own, so nothing here is
    /// async beyond single calls.
    pub runtime: &'a Runtime,
}

impl Run<'_> {
    /// Reads one page, and writes nothing.
    pub(super) fn try_reading(&self) -> Result<(), CliError> {
        let reader = self.wait(TableReader::connect(self.settings, self.source.clone()))?;
        let begin = if self.source.cursor.is_some() { Begin::From(None) } else { Begin::Keys(None) };
        self.wait(reader.page(&begin)).map(drop)
    }

    /// Reads and writes what changed, and counts it, also where it fails. `restart`: everything; it is unset once that
    /// is noted beside the collection, so that a run that fails later is gone on with from there.
    pub(super) fn once(&self, restart: &mut bool, counts: &mut Counts) -> Result<(), CliError> {
        let mut writer = Writer::new(self.target, self.name);
        let done = self.read(restart, &mut writer);
        *counts = writer.counts;
        done
    }

    /// Where a run goes on after one that failed.
    pub(super) fn goes_on(&self) -> &'static str {
        match self.source.cursor {
            Some(_) => "The next run goes on from the last page that was noted.",
            None => "The next run reads all rows again; texts that stay the same are not embedded again.",
        }
    }

    fn read(&self, restart: &mut bool, writer: &mut Writer<'_>) -> Result<(), CliError> {
        let kept_under = self.kept_under()?;
        let identity = self.source.identity(&self.settings.place());
        let history = self.history()?;
        let mut state = match *restart {
            true => SourceState::begin(&identity, &history),
            false => self.load(&kept_under, &identity, &history)?,
        };
        if std::mem::take(restart) {
            self.save(&kept_under, &state).inspect_err(|_| *restart = true)?;
        }
        let reader = self.wait(TableReader::connect(self.settings, self.source.clone()))?;
        let mut begin = Some(match (&self.source.cursor, &state.cursor) {
            (None, _) => Begin::Keys(None),
            (Some(_), Some(cursor)) => Begin::From(Some(cursor.clone())),
            (Some(_), None) => Begin::NullCursors(None),
        });
        let progress = self.progress(&reader, begin.as_ref());
        let left_out = match &begin {
            // Rows without a cursor, and then all others.
            Some(Begin::NullCursors(_)) => self.left_out(&reader, &Begin::Keys(None))?,
            Some(begin) => self.left_out(&reader, begin)?,
            None => LeftOut::default(),
        };
        let (mut met, mut saved) = (Boundary::default(), Instant::now());
        let (mut read, mut without_cursor) = (0usize, 0u64);
        while let Some(from) = begin {
            let page = self.wait(reader.page(&from))?;
            progress.suspend(|| self.write(writer, &page.rows, read, &state.boundary))?;
            read += page.rows.len();
            progress.inc(page.rows.len() as u64);
            without_cursor += page.rows.iter().filter(|row| row.cursor.is_none()).count() as u64;
            if self.source.cursor.is_some() {
                self.note(&mut state, &mut met, &page.rows, writer);
                let is_due = met.count() <= REMEMBERED_CHEAPLY || saved.elapsed() >= SAVED_EVERY;
                if !page.rows.is_empty() && is_due {
                    saved = Instant::now();
                    // Rows met so far are known even if this run is killed.
                    self.save(&kept_under, &SourceState { boundary: met.clone(), ..state.clone() })?;
                }
            }
            begin = page.next;
        }
        progress.finish_and_clear();
        if self.source.cursor.is_some() && without_cursor > 0 {
            let rows = output::counted(without_cursor, "row");
            let what = "have no cursor, or one after all others for good";
            output::hint(self.context, format!("{rows} {what}; later changes of theirs will not be seen"));
        }
        if self.source.deletions == Deletions::Missing {
            self.delete_missing(&reader, writer)?;
        }
        self.report(left_out, writer);
        state.boundary = met;
        state.runs += 1;
        state.finished_at = Some(jiff::Timestamp::now().to_string());
        self.save(&kept_under, &state)
    }

    /// Counts the rows that are no documents of their own. Where that takes too long, they are none the less left out.
    fn left_out(&self, reader: &TableReader, begin: &Begin) -> Result<LeftOut, CliError> {
        match self.runtime.block_on(reader.left_out(begin)) {
            Err(SourceError::Postgres(error)) if error.trouble() == Trouble::Timeout && !error.ends_session() => {
                let what =
                    "rows without a key of their own were not counted, which takes longer than statement_timeout";
                output::hint(self.context, format!("{what}: of rows that share a key one becomes a document"));
                Ok(LeftOut::default())
            }
            counted => counted.map_err(refused),
        }
    }

    /// Writes the rows of a page, but for those that were read before as they are. `read`: rows of this run before it.
    fn write(&self, writer: &mut Writer, rows: &[Row], read: usize, known: &Boundary) -> Result<(), CliError> {
        writer.forget_refused();
        // A query may give a key twice; the later row counts.
        let mut last: BTreeMap<String, (usize, &Row)> = BTreeMap::new();
        for (index, row) in rows.iter().enumerate() {
            match known.knows(&row.id(), row.hash) {
                true => writer.counts.unchanged += 1,
                false => _ = last.insert(row.id(), (read + index + 1, row)),
            }
        }
        let (mut there, mut gone): (Vec<(String, Metadata)>, Vec<String>) = (Vec::new(), Vec::new());
        for (key, (number, row)) in last {
            let id = format!("{}{key}", self.args.id_prefix);
            if row.is_deleted {
                gone.push(id);
                continue;
            }
            let (text, vector) = (self.args.text_column.as_deref(), self.args.vector_column.as_deref());
            let made = row.fields.clone().and_then(|fields| document(id.clone(), fields, text, vector));
            match made {
                Ok(document) => there.push((format!("row {number} of this run"), document)),
                Err(detail) => writer.refuse(&id, &detail),
            }
        }
        writer.upsert(&there)?;
        writer.delete(&gone)
    }

    /// Says which rows are no documents of their own. They count as refused.
    fn report(&self, left_out: LeftOut, writer: &mut Writer<'_>) {
        let key = self.source.key.join(", ");
        if left_out.without_key > 0 {
            let rows = output::counted(left_out.without_key, "row");
            let why = "is null there, and a document needs a key; choose another --key";
            output::complain(format!("{rows} left out: {key} {why}"));
        }
        if left_out.repeated > 0 {
            let rows = output::counted(left_out.repeated, "row");
            let advice = "choose a --key that tells all rows apart";
            output::complain(format!("{rows} left out: another row has the same {key}; {advice}"));
        }
        writer.counts.failed += left_out.without_key + left_out.repeated;
    }

    /// Moves the cursor on, and remembers the rows that the next run will meet again; not those that were refused,
    /// which it tries again.
    fn note(&self, state: &mut SourceState, met: &mut Boundary, rows: &[Row], writer: &Writer<'_>) {
        for row in rows {
            let Some(cursor) = &row.cursor else { continue };
            if self.source.overlap.is_none() && state.cursor.as_ref() != Some(cursor) {
                met.clear();
            }
            state.cursor = Some(cursor.clone());
            if !writer.may_have_refused(&format!("{}{}", self.args.id_prefix, row.id())) {
                met.remember(&row.id(), row.hash);
            }
        }
    }

    /// Deletes documents whose rows are gone: ids are listed first and looked up then, so a row that comes back between
    /// the two stays.
    fn delete_missing(&self, reader: &TableReader, writer: &mut Writer<'_>) -> Result<(), CliError> {
        let mut missing: Vec<String> = Vec::new();
        let (mut own, mut cursor) = (0usize, None::<String>);
        loop {
            let after = cursor.as_ref().map_or(String::new(), |cursor| format!("&cursor={cursor}"));
            let path = format!("{}/documents?limit={LISTED}&include={after}", collection_path(self.name));
            let page = self.target.value("GET", &path, None)?;
            let ids = page["documents"].as_array().into_iter().flatten().filter_map(|document| document["id"].as_str());
            let keys: Vec<String> =
                ids.filter_map(|id| id.strip_prefix(&self.args.id_prefix)).map(str::to_owned).collect();
            let (could_be, gone) = self.wait(reader.missing(&keys))?;
            own += could_be;
            missing.extend(gone.into_iter().map(|key| format!("{}{key}", self.args.id_prefix)));
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        if missing.len() > FEW && missing.len() * 2 > own && !self.args.delete_many {
            return Err(CliError::Refused(format!(
                "{} of {} documents have no row any more, and that is more than half; add --delete-many if they are to go",
                output::count(missing.len() as u64),
                output::count(own as u64)
            )));
        }
        writer.delete(&missing)
    }

    /// A bar over the rows; without its end where they cannot be counted, as where that takes too long.
    fn progress(&self, reader: &TableReader, begin: Option<&Begin>) -> ProgressBar {
        if self.context.quiet {
            return ProgressBar::hidden();
        }
        let count = |begin: &Begin| self.wait(reader.count(begin)).ok();
        let total = match begin {
            // Rows without a cursor, and then all others.
            Some(Begin::NullCursors(_)) => {
                count(&Begin::NullCursors(None)).and_then(|null| Some(null + count(&Begin::From(None))?))
            }
            Some(begin) => count(begin),
            None => Some(0),
        };
        let template = match total {
            Some(_) => "{bar:30} {human_pos}/{human_len} rows, {per_sec}, {eta} left",
            None => "{spinner} {human_pos} rows, {per_sec}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is a constant");
        ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style)
    }

    fn wait<T>(&self, reading: impl Future<Output = Result<T, SourceError>>) -> Result<T, CliError> {
        self.runtime.block_on(reading).map_err(refused)
    }

    /// The name under which the state is kept.
    fn kept_under(&self) -> Result<CollectionName, CliError> {
        if let Some(name) = &self.args.source_name {
            let wrong =
                format!("source name {name:?} is not allowed: use 1 to 64 of the characters a-z, 0-9, '_' and '-'");
            return CollectionName::new(name).map_err(|_| CliError::Usage(wrong));
        }
        let relation = match &self.source.relation {
            Relation::Table(name) => name.plain(),
            Relation::Query(_) => "query".to_owned(),
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name: String = format!("{}_{relation}", self.name).chars().map(plain).take(64).collect();
        Ok(CollectionName::new(&name)?)
    }

    /// What rows are read into, and which documents they become. A snapshot that is restored begins another timeline,
    /// and a collection that is deleted and made again is created at another time.
    fn history(&self) -> Result<String, CliError> {
        let version = self.target.value("GET", "/version", None)?;
        let definition = self.target.value("GET", &collection_path(self.name), None)?;
        let (store, created) = (&version["store_id"], &definition["created_at"]);
        let text = |value: &Json| value.as_str().unwrap_or("-").to_owned();
        let (store, created) = (text(store), text(created));
        let made = self.made_as();
        Ok(format!("store {store} timeline {} collection {} of {created}{made}", version["timeline"], self.name))
    }

    /// What the options make of a row; nothing where they are the usual ones.
    fn made_as(&self) -> String {
        let prefix = (!self.args.id_prefix.is_empty()).then_some(&self.args.id_prefix);
        let flag = match &self.source.deletions {
            Deletions::Flag(flag) => Some(flag),
            Deletions::Ignored | Deletions::Missing => None,
        };
        let columns = self.source.columns.as_ref().map(|columns| columns.join(","));
        let exclude = (!self.source.exclude.is_empty()).then(|| self.source.exclude.join(","));
        let options = [
            ("id-prefix", prefix),
            ("columns", columns.as_ref()),
            ("exclude-columns", exclude.as_ref()),
            ("text-column", self.args.text_column.as_ref()),
            ("vector-column", self.args.vector_column.as_ref()),
            ("deleted-flag", flag),
        ];
        let set = |(name, value): (&str, Option<&String>)| value.map(|value| format!(" --{name} {value:?}"));
        options.into_iter().filter_map(set).collect()
    }

    /// How far the source was read; nothing where that was read into something else.
    fn load(&self, kept_under: &CollectionName, identity: &str, history: &str) -> Result<SourceState, CliError> {
        let kept = match self.target.value("GET", &format!("/admin/sources/{kept_under}"), None) {
            Ok(kept) => SourceState::from_json(&kept, identity).map_err(refused)?,
            Err(CliError::Api { code, .. }) if code == "source_not_found" => {
                return Ok(SourceState::begin(identity, history));
            }
            Err(error) => return Err(error),
        };
        if kept.is_of(history) {
            return Ok(kept);
        }
        if kept.cursor.is_some() {
            let why = match kept.history {
                Some(_) => {
                    "since then a snapshot was restored, or the collection was deleted and made again, or other options \
                     (--id-prefix, --columns, ..) make other documents of the rows; runs side by side need a \
                     --source-name each"
                }
                None => "an earlier version kept it, which did not note into which collection it was read",
            };
            let what = format!("how far source {kept_under} was read does not count any more: {why}");
            output::hint(self.context, format!("{what}; reading all rows again"));
        }
        Ok(SourceState::begin(identity, history))
    }

    fn save(&self, kept_under: &CollectionName, state: &SourceState) -> Result<(), CliError> {
        let body: Json = state.to_json();
        self.target.call("PUT", &format!("/admin/sources/{kept_under}"), Some(&body))?;
        Ok(())
    }
}

fn refused(error: SourceError) -> CliError {
    match error {
        SourceError::Postgres(error) => CliError::Other(Box::new(error)),
        other => CliError::Refused(other.to_string()),
    }
}
