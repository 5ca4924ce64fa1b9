//! Sinks on the wire: what is asked of a new one, and how one is doing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::unique;
use crate::http::error::{ApiError, Code};
use crate::replicate::{
    ExtraRows, IndexKind, Kind, LayoutKind, RepairReport, SecretFrom, Shown, SinkName, SinkSettings, SinkStatus,
    VectorType, VerifyReport,
};
use crate::types::CollectionName;

/// Rows of one kind that an answer lists; the rest is counted.
const MAX_LISTED: usize = 10_000;

/// A new sink.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SinkBody {
    /// `[a-z0-9_-]{1,64}`, unique in the store.
    name: String,
    /// The collection, or `*` for every one.
    collection: String,
    /// The environment variable of the server that holds the connection URL.
    url_variable: Option<String>,
    /// The file on the server that holds the connection URL.
    url_file: Option<String>,
    /// The connection URL itself; it is stored in clear.
    url: Option<String>,
    /// `pannier` (the default), `learning_vectors_384_v1`, `embeddings`, `product_embeddings`, `jobs`, `vecs`,
    /// `match_documents` or `custom`.
    layout: Option<String>,
    /// `schema.table`; `{collection}` stands for the collection's name.
    table: Option<String>,
    /// Whether a missing table is made; true where it is left out.
    create: Option<bool>,
    /// `vector` (the default) or `halfvec`, where the table is made.
    vector_type: Option<String>,
    /// `hnsw` (the default), `ivfflat` or `none`.
    index: Option<String>,
    /// The tenant whose rows these are, where the layout has tenants.
    tenant: Option<String>,
    /// What the documents are, where the layout asks for it.
    entity_type: Option<String>,
    /// The key column, where the layout leaves its name open.
    key: Option<String>,
    /// Column to field, for the layout `custom`: `id`, `text`, `vector`, `metadata`, `metadata.PATH`, `created_at`,
    /// `updated_at`, `seq`, or a constant in single quotes.
    #[serde(default, deserialize_with = "unique::read")]
    columns: BTreeMap<String, String>,
    /// What becomes of rows that the collection lacks, in a table that is there: `refuse` (the default: a table that
    /// has any is not adopted), `keep` or `delete`.
    extra_rows: Option<String>,
    /// The schema of the sink's own state; `pannier` where it is left out.
    state_schema: Option<String>,
}

fn invalid(detail: String) -> ApiError {
    ApiError::new(Code::InvalidSink, detail)
}

impl SinkBody {
    pub(crate) fn into_settings(self) -> Result<SinkSettings, ApiError> {
        let url = match (self.url_variable, self.url_file, self.url) {
            (Some(name), None, None) => SecretFrom::Variable(name),
            (None, Some(path), None) => SecretFrom::File(path.into()),
            (None, None, Some(url)) => SecretFrom::Clear(url),
            _ => return Err(invalid("give exactly one of url_variable, url_file and url".to_owned())),
        };
        let layout = match &self.layout {
            None => LayoutKind::default(),
            Some(name) => LayoutKind::from_name(name).ok_or_else(|| {
                let names: Vec<&str> = LayoutKind::NAMES.iter().map(|(name, _)| *name).collect();
                invalid(format!("there is no layout {name:?}; there are {}", names.join(", ")))
            })?,
        };
        let vector_type = match self.vector_type.as_deref() {
            None | Some("vector") => VectorType::Vector,
            Some("halfvec") => VectorType::Halfvec,
            Some(other) => return Err(invalid(format!("vector_type {other:?}: use vector or halfvec"))),
        };
        let index = match self.index.as_deref() {
            None | Some("hnsw") => IndexKind::Hnsw,
            Some("ivfflat") => IndexKind::Ivfflat,
            Some("none") => IndexKind::None,
            Some(other) => return Err(invalid(format!("index {other:?}: use hnsw, ivfflat or none"))),
        };
        let extra_rows = match self.extra_rows.as_deref() {
            None | Some("refuse") => ExtraRows::Refuse,
            Some("keep") => ExtraRows::Keep,
            Some("delete") => ExtraRows::Delete,
            Some(other) => return Err(invalid(format!("extra_rows {other:?}: use refuse, keep or delete"))),
        };
        let mut settings = SinkSettings::new(SinkName::new(&self.name)?, &self.collection, url);
        settings.layout = layout;
        settings.table = self.table;
        settings.create = self.create.unwrap_or(true);
        settings.vector_type = vector_type;
        settings.index = index;
        settings.tenant = self.tenant;
        settings.entity_type = self.entity_type;
        settings.key = self.key;
        settings.columns = self.columns;
        settings.extra_rows = extra_rows;
        if let Some(schema) = self.state_schema {
            settings.state_schema = schema;
        }
        Ok(settings)
    }
}

/// All sinks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SinksView {
    pub(crate) sinks: Vec<SinkView>,
}

/// A sink and how it is doing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SinkView {
    name: String,
    collection: String,
    #[schema(value_type = String)]
    layout: &'static str,
    /// Where the connection URL comes from.
    url: String,
    paused: bool,
    /// One for each collection; empty while nobody works at it.
    copies: Vec<CopyView>,
}

/// The copy of one collection.
#[derive(Debug, Serialize, ToSchema)]
struct CopyView {
    collection: String,
    table: String,
    /// `starting`, `scanning`, `indexing`, `streaming`, `verifying`, `waiting`, `drifted` (the table is not as it
    /// should be), `fenced` or `stopped`.
    #[schema(value_type = String)]
    phase: &'static str,
    /// Changes up to here are in the copy.
    cursor: u64,
    lag_seqs: u64,
    lag_seconds: f64,
    /// Rows that the database changed.
    rows_written: u64,
    rows_deleted: u64,
    transactions: u64,
    connections: u64,
    /// Times that the whole collection was written.
    scans: u64,
    /// Documents that no row can hold; they stand in the table `dead_letters`.
    dead_letters: u64,
    scanned_documents: u64,
    documents_to_scan: u64,
    /// The last failure, until something succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<SinkErrorView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// A failure of a sink.
#[derive(Debug, Serialize, ToSchema)]
struct SinkErrorView {
    /// Stable.
    code: String,
    message: String,
}

impl SinkView {
    pub(crate) fn of((settings, copies): Shown) -> Self {
        Self {
            name: settings.name.as_str().to_owned(),
            collection: settings.collection.clone(),
            layout: settings.layout.name(),
            url: settings.url.shown(),
            paused: settings.paused,
            copies: copies.into_iter().map(|(name, status)| CopyView::of(&name, status)).collect(),
        }
    }
}

impl CopyView {
    fn of(collection: &CollectionName, status: SinkStatus) -> Self {
        Self {
            collection: collection.to_string(),
            table: status.table,
            phase: status.phase.name(),
            cursor: status.cursor.0,
            lag_seqs: status.lag_seqs,
            lag_seconds: status.lag_seconds,
            rows_written: status.rows_written,
            rows_deleted: status.rows_deleted,
            transactions: status.transactions,
            connections: status.connections,
            scans: status.scans,
            dead_letters: status.dead_letters,
            scanned_documents: status.scanned.0,
            documents_to_scan: status.scanned.1,
            error: status.error.map(|(code, message)| SinkErrorView { code, message }),
            note: status.note,
        }
    }
}

/// What removing a sink did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RemovedView {
    /// Its name.
    pub(crate) removed: String,
    /// Why its state in the database could not be forgotten, where that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) left_behind: Option<String>,
}

/// What a comparison found, for each collection.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerifiedView {
    /// Whether every document has its row as it should be, and every row its document; not where there are dead
    /// letters. Documents without a row to write into do not count.
    equal: bool,
    copies: Vec<ComparedView>,
}

/// A copy and its collection, compared.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComparedView {
    collection: String,
    documents: u64,
    rows: u64,
    /// Dead letters: documents that no row can hold, and deleted ones whose row could not be deleted; they are not
    /// listed below.
    dead_letters: u64,
    /// Rows that the collection lacks and that are kept, as the sink's `extra_rows` says.
    kept_rows: u64,
    /// Rows that are missing, extra and different, however many are listed.
    missing_count: u64,
    extra_count: u64,
    different_count: u64,
    /// Documents that have no row to write into, where rows are somebody else's to make (layout `jobs`).
    no_row_count: u64,
    /// Ids of documents without a row.
    missing: Vec<String>,
    /// Keys of rows without a document.
    extra: Vec<String>,
    /// Ids of documents whose row says something else.
    different: Vec<String>,
    /// Ids of documents that have no row to write into.
    no_row: Vec<String>,
    took_ms: u64,
}

impl VerifiedView {
    pub(crate) fn of(reports: Vec<(CollectionName, VerifyReport)>) -> Self {
        let equal = reports.iter().all(|(_, report)| report.is_equal());
        Self { equal, copies: reports.iter().map(|(name, report)| ComparedView::of(name, report)).collect() }
    }
}

impl ComparedView {
    fn of(collection: &CollectionName, report: &VerifyReport) -> Self {
        let of_kind = |kind| report.differences.iter().filter(move |difference| difference.kind == kind);
        let names = |kind| -> Vec<String> {
            let name = |difference: &crate::replicate::Difference| {
                difference.id.as_ref().map_or_else(|| difference.key.clone(), ToString::to_string)
            };
            of_kind(kind).take(MAX_LISTED).map(name).collect()
        };
        let count = |kind| of_kind(kind).count() as u64;
        Self {
            collection: collection.to_string(),
            documents: report.documents,
            rows: report.rows,
            dead_letters: report.dead_letters,
            kept_rows: report.kept_rows,
            missing_count: count(Kind::Missing),
            extra_count: count(Kind::Extra),
            different_count: count(Kind::Different),
            no_row_count: count(Kind::NoRow),
            missing: names(Kind::Missing),
            extra: names(Kind::Extra),
            different: names(Kind::Different),
            no_row: names(Kind::NoRow),
            took_ms: report.took_ms,
        }
    }
}

/// How to repair.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RepairBody {
    /// Only say what would be done.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Take the sink over where its state is another store's, and compare all.
    #[serde(default)]
    pub(crate) take_over: bool,
}

/// What repairing did, for each collection.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RepairedView {
    copies: Vec<RepairedCopyView>,
}

/// A repaired copy.
#[derive(Debug, Serialize, ToSchema)]
struct RepairedCopyView {
    before: ComparedView,
    written: u64,
    deleted: u64,
    after: ComparedView,
}

impl RepairedView {
    pub(crate) fn of(reports: Vec<(CollectionName, RepairReport)>) -> Self {
        let view = |(name, report): &(CollectionName, RepairReport)| RepairedCopyView {
            before: ComparedView::of(name, &report.before),
            written: report.written,
            deleted: report.deleted,
            after: ComparedView::of(name, &report.after),
        };
        Self { copies: reports.iter().map(view).collect() }
    }
}
