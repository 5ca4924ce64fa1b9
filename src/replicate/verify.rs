//! Compares a copy with its collection by the hashes of buckets, and names the rows that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::collection::{Collection, ListRequest};
use crate::postgres::{Param, PostgresError, Row, Session, Type, value};
use crate::types::limits::{MAX_ANSWER_BYTES, MAX_PAGE};
use crate::types::{Document, DocumentId, Seq};

use super::ReplicateError;
use super::apply::set_tenant;
use super::layout::{ColumnKind, Layout, Mode};
use super::row::{BUCKETS, Cell, KEY_SEPARATOR, bucket_of, hash_of, key_of, key_text, key_text_of, row_of};
use super::sql;

/// Longest time that hashing all rows of a table may take.
const LIMIT: Duration = Duration::from_secs(1_800);

/// In what a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A document has no row.
    Missing,
    /// A row has no document.
    Extra,
    /// The row says something else.
    Different,
    /// A document has no row to write into, where rows are somebody else's to make. Nothing can mend it but that row.
    NoRow,
}

/// A row that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// In what.
    pub kind: Kind,
    /// The row's key, its columns separated by U+001F.
    pub key: String,
    /// The document; `None` for a row that has none.
    pub id: Option<DocumentId>,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Documents of the collection.
    pub documents: u64,
    /// Rows of the copy.
    pub rows: u64,
    /// Dead letters, of documents that no row can hold and of deleted ones whose row could not be deleted;
    /// `differences` does not list them.
    pub dead_letters: u64,
    /// Rows that the collection lacks and that are kept; they are no difference.
    pub kept_rows: u64,
    /// Each row that is not as it should be, and each document without a row to write into.
    pub differences: Vec<Difference>,
    /// How long it took.
    pub took_ms: u64,
}

impl VerifyReport {
    /// Whether every document has its row, and every row its document. Documents without a row to write into do not
    /// count; dead letters do.
    pub fn is_equal(&self) -> bool {
        self.has_equal_rows() && self.dead_letters == 0
    }

    /// Whether every row that there can be is as it should be.
    pub(super) fn has_equal_rows(&self) -> bool {
        self.differences.iter().all(|difference| difference.kind == Kind::NoRow)
    }
}

/// What mending did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was found before.
    pub before: VerifyReport,
    /// Rows written.
    pub written: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// What is left; as before on a dry run.
    pub after: VerifyReport,
}

/// The rows of a bucket: how many, the sum of their hashes, and how many claim a change that nobody has made yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    rows: u64,
    sum: i128,
    ahead: u64,
}

/// The rows that stand under one key.
struct Standing {
    hash: i64,
    rows: u64,
    /// One is unlike another, or claims a change that nobody has made yet.
    is_off: bool,
}

impl Standing {
    /// Whether it is what should stand there. A key may stand there twice where rows are somebody else's to make.
    fn is_as(&self, layout: &Layout, hash: i64) -> bool {
        let is_once = self.rows == 1 || matches!(layout.mode, Mode::Inside { .. });
        self.hash == hash && is_once && !self.is_off
    }
}

/// Both sides once, as they are at this moment. What changes meanwhile may look like a difference. No row can be of a
/// younger change than `newest`: the sink would pass over what comes next, so such a row is different.
///
/// # Errors
/// [`ReplicateError`].
pub(super) async fn compare(
    session: &Session,
    layout: &Layout,
    collection: &Collection,
    buried: &BTreeSet<String>,
    newest: Seq,
) -> Result<VerifyReport, ReplicateError> {
    // One snapshot for all that is asked. Whole rows are not to be sorted by what they are grouped by.
    let begin = "begin isolation level repeatable read read only; set local statement_timeout = '30min'; \
                 set local enable_sort = off";
    session.batch("begin", &format!("{begin}{}", set_tenant(layout))).await?;
    // The database hashes its side while we hash ours: it has its statement before we begin.
    let ours = async { local_buckets(layout, collection, buried) };
    let (there, ours) = tokio::join!(remote_buckets(session, layout, newest), ours);
    let (there, (here, mut report)) = (there?, ours?);
    report.rows = there.iter().map(|bucket| bucket.rows).sum();
    let unlike: Vec<i32> = (0..BUCKETS).filter(|&n| here[n] != there[n]).map(|n| n as i32).collect();
    if !unlike.is_empty() {
        report.differences = {
            let there = rows_of(session, layout, &unlike, newest).await?;
            rows_that_differ(session, layout, collection, buried, there).await?
        };
        if layout.keeps_extra {
            let found = report.differences.len();
            report.differences.retain(|difference| difference.kind != Kind::Extra);
            report.kept_rows = (found - report.differences.len()) as u64;
        }
    }
    session.batch("commit", "commit").await?;
    Ok(report)
}

/// Whether any row stands there that would be the sink's.
///
/// # Errors
/// [`ReplicateError`].
pub(super) async fn has_rows(session: &Session, layout: &Layout) -> Result<bool, ReplicateError> {
    session.batch("begin", &format!("begin read only{}", set_tenant(layout))).await?;
    let rows = session.query("look for rows", &sql::any_row(layout), &[]).await?;
    session.batch("commit", "commit").await?;
    Ok(rows.first().map_or(Ok(false), |row| value(row, 0))?)
}

async fn remote_buckets(session: &Session, layout: &Layout, newest: Seq) -> Result<Vec<Bucket>, ReplicateError> {
    let mut buckets = vec![Bucket::default(); BUCKETS];
    let mut read = |row: &Row| {
        let (rows, ahead) = (value::<i64>(row, 1)? as u64, value::<i64>(row, 3)? as u64);
        let bucket = Bucket { rows, sum: value::<&str>(row, 2)?.parse().unwrap_or(0), ahead };
        let place = usize::try_from(value::<i32>(row, 0)?).ok().and_then(|n| buckets.get_mut(n));
        place.into_iter().for_each(|place| *place = bucket);
        Ok(())
    };
    read_all(session, "hash the rows", &sql::buckets(layout, newest), &[], &mut read).await?;
    Ok(buckets)
}

/// Gives each row to `read`, and fails with the first failure of it.
async fn read_all(
    session: &Session,
    doing: &'static str,
    sql: &str,
    params: &[Param<'_>],
    read: &mut (dyn FnMut(&Row) -> Result<(), PostgresError> + Send),
) -> Result<(), PostgresError> {
    let mut done = Ok(());
    let visit = &mut |row: &Row| {
        if done.is_ok() {
            done = read(row);
        }
    };
    session.each_row(doing, sql, params, LIMIT, visit).await?;
    done
}

fn local_buckets(
    layout: &Layout,
    collection: &Collection,
    buried: &BTreeSet<String>,
) -> Result<(Vec<Bucket>, VerifyReport), ReplicateError> {
    let dead_letters = buried.len() as u64;
    let mut report = VerifyReport { dead_letters, ..VerifyReport::default() };
    let mut buckets = vec![Bucket::default(); BUCKETS];
    each_document(collection, &mut |document| {
        report.documents += 1;
        match hashed(layout, document) {
            _ if buried.contains(document.stored.id.as_str()) => {}
            Expected::Row { key, hash } => {
                let bucket = &mut buckets[bucket_of(&key)];
                bucket.rows += 1;
                bucket.sum += i128::from(hash);
            }
            Expected::Impossible { .. } => report.dead_letters += 1,
            Expected::Nothing => {}
        }
    })?;
    Ok((buckets, report))
}

/// The rows of the buckets `unlike`, by key.
async fn rows_of(
    session: &Session,
    layout: &Layout,
    unlike: &[i32],
    newest: Seq,
) -> Result<(BTreeSet<i32>, BTreeMap<String, Standing>), ReplicateError> {
    let mut there: BTreeMap<String, Standing> = BTreeMap::new();
    let mut read = |row: &Row| {
        let (hash, is_ahead): (i64, bool) = (value(row, 1)?, value(row, 2)?);
        let standing = there.entry(value(row, 0)?).or_insert(Standing { hash, rows: 0, is_off: false });
        standing.rows += 1;
        standing.is_off |= is_ahead || standing.hash != hash;
        Ok(())
    };
    let params: [Param<'_>; 1] = [(&unlike, Type::INT4_ARRAY)];
    read_all(session, "hash rows", &sql::rows_of_buckets(layout, newest), &params, &mut read).await?;
    Ok((unlike.iter().copied().collect(), there))
}

async fn rows_that_differ(
    session: &Session,
    layout: &Layout,
    collection: &Collection,
    buried: &BTreeSet<String>,
    (wanted, mut there): (BTreeSet<i32>, BTreeMap<String, Standing>),
) -> Result<Vec<Difference>, ReplicateError> {
    let mut differences = Vec::new();
    each_document(collection, &mut |document| {
        let (key, hash) = match hashed(layout, document) {
            Expected::Row { key, .. } if buried.contains(document.stored.id.as_str()) => (key, None),
            Expected::Row { key, hash } => (key, Some(hash)),
            Expected::Impossible { key: Some(key) } => (key, None),
            Expected::Impossible { key: None } | Expected::Nothing => return,
        };
        if !wanted.contains(&(bucket_of(&key) as i32)) {
            return;
        }
        let kind = match (there.remove(&key), hash) {
            (None, Some(_)) => Kind::Missing,
            (Some(standing), Some(hash)) if standing.is_as(layout, hash) => return,
            // A document that is a dead letter has no row.
            (Some(_), _) => Kind::Different,
            (None, None) => return,
        };
        differences.push(Difference { kind, key, id: Some(document.stored.id.clone()) });
    })?;
    differences.extend(there.into_keys().map(|key| Difference { kind: Kind::Extra, key, id: None }));
    if matches!(layout.mode, Mode::Inside { .. }) {
        tell_rowless(session, layout, &mut differences).await?;
    }
    differences.sort();
    Ok(differences)
}

/// Marks missing documents as `NoRow` where the table has no row of their key: such layouts update rows and insert
/// none.
async fn tell_rowless(
    session: &Session,
    layout: &Layout,
    differences: &mut [Difference],
) -> Result<(), ReplicateError> {
    let mut missing: Vec<&mut Difference> =
        differences.iter_mut().filter(|difference| difference.kind == Kind::Missing).collect();
    let (statement, column) = (sql::rows_of_keys(layout), &layout.columns[layout.key[0]]);
    for part in missing.chunks_mut(MAX_PAGE) {
        let cells: Vec<Cell> = part.iter().flat_map(|missing| key_cells(layout, &missing.key)).collect();
        let (keys, kind) = sql::array_of(layout, column, cells.iter());
        let rows = session.query("look for rows by key", &statement, &[(keys.as_ref() as _, kind)]).await?;
        let there: BTreeSet<&str> = rows.iter().map(|row| value(row, 0)).collect::<Result<_, _>>()?;
        for missing in part.iter_mut().filter(|missing| !there.contains(missing.key.as_str())) {
            missing.kind = Kind::NoRow;
        }
    }
    Ok(())
}

/// The cells of a key from its text.
pub(super) fn key_cells(layout: &Layout, text: &str) -> Vec<Cell> {
    let parts = text.splitn(layout.key.len(), KEY_SEPARATOR);
    let cell = |(part, &index): (&str, &usize)| match layout.columns[index].kind {
        ColumnKind::Integer => part.parse().map_or(Cell::Null, Cell::Integer),
        _ => Cell::Text(part.to_owned()),
    };
    parts.zip(&layout.key).map(cell).collect()
}

/// What of a document should stand in the table.
enum Expected {
    Row {
        key: String,
        hash: i64,
    },
    /// It should, and no row can hold it; where it has a key, none stands there.
    Impossible {
        key: Option<String>,
    },
    Nothing,
}

fn hashed(layout: &Layout, document: &Document) -> Expected {
    // Without a vector there is nothing to write into a row of somebody else's.
    if matches!(layout.mode, Mode::Inside { .. }) && document.vector.is_empty() {
        return Expected::Nothing;
    }
    match row_of(layout, document) {
        Ok(row) => Expected::Row { key: key_text(layout, &row.cells), hash: hash_of(layout, &row.cells) },
        Err(_) => {
            let key = key_of(layout, &document.stored.id).ok();
            Expected::Impossible { key: key.map(|cells| key_text_of(cells.iter())) }
        }
    }
}

/// Gives every document to `visit`, by ascending id, a page in memory at a time.
fn each_document(collection: &Collection, visit: &mut dyn FnMut(&Document)) -> Result<(), ReplicateError> {
    let mut after = None;
    loop {
        let request =
            ListRequest { after, limit: MAX_PAGE, max_bytes: Some(MAX_ANSWER_BYTES), ..ListRequest::default() };
        let page = tokio::task::block_in_place(|| collection.list(&request))?;
        page.documents.iter().for_each(&mut *visit);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
