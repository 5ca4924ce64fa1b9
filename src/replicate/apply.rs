//! One transaction: deletes, rows, dead letters and cursor, all or none.

use crate::collection::DocumentChange;
use crate::postgres::{Param, Session, Type, quote_literal};
use crate::types::{Document, DocumentId, Seq};

use super::ReplicateError;
use super::fence::{Cursor, Fence};
use super::layout::Layout;
use super::row::{Cell, Poison, Row, key_of, row_of};
use super::search::Searched;
use super::sql::Overwrites;
use super::{copy, drift, sql};

/// Fewer rows are not worth the statements around a COPY.
const MIN_COPIED_ROWS: usize = 64;
/// Rows of one statement: its time is limited, and an index that is not in memory takes tens of milliseconds for each.
const STATEMENT_ROWS: usize = 250;

/// What a transaction is to do.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    pub(super) deletes: Vec<Delete>,
    poisons: Vec<Poison>,
    /// Deleted documents that could have no row.
    rowless: Vec<DocumentId>,
    bytes: usize,
    /// Younger rows are overwritten, too.
    pub(super) force: bool,
    /// All of it was refused before.
    pub(super) tries_again: bool,
}

/// A row that is to be deleted, unless a younger change wrote it.
#[derive(Debug)]
pub(super) struct Delete {
    /// `None` for a row that is no document's.
    pub(super) id: Option<DocumentId>,
    key: Vec<Cell>,
    pub(super) seq: Seq,
}

impl Delete {
    /// The row that a document has from its change `seq` or an older one; `None` where it can have no row.
    pub(super) fn of_older(layout: &Layout, id: &DocumentId, seq: Seq) -> Option<Self> {
        let key = key_of(layout, id).ok()?;
        Some(Self { id: Some(id.clone()), key, seq: Seq(seq.0.saturating_add(1)) })
    }
}

/// What a transaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) written: u64,
    pub(super) deleted: u64,
    pub(super) poisoned: u64,
    /// What [`Fence::advanced`] is to keep.
    pub(super) stamp: i64,
}

impl Batch {
    /// An empty one. `force`: rows of younger changes are overwritten, too.
    pub(super) fn new(force: bool) -> Self {
        Self { force, ..Self::default() }
    }

    /// The newest change of each document.
    pub(super) fn of_changes(layout: &Layout, changes: Vec<DocumentChange>) -> Self {
        let mut newest = std::collections::BTreeMap::new();
        for change in changes {
            newest.insert(change.id.clone(), change);
        }
        let mut batch = Self::default();
        for (id, change) in newest {
            match &change.written {
                Some(document) => batch.write(layout, document),
                None => batch.delete(layout, id, change.seq),
            }
        }
        batch
    }

    pub(super) fn write(&mut self, layout: &Layout, document: &Document) {
        match row_of(layout, document) {
            Ok(row) => {
                self.bytes += row.bytes;
                self.rows.push(row);
            }
            Err(poison) => self.poisons.push(poison),
        }
    }

    /// Deletes the row of a document.
    pub(super) fn delete(&mut self, layout: &Layout, id: DocumentId, seq: Seq) {
        match key_of(layout, &id) {
            Ok(key) => self.deletes.push(Delete { id: Some(id), key, seq }),
            Err(_) => self.rowless.push(id),
        }
    }

    /// Deletes a row that is no document's.
    pub(super) fn delete_row(&mut self, key: Vec<Cell>) {
        self.deletes.push(Delete { id: None, key, seq: Seq(i64::MAX as u64) });
    }

    /// What has gathered; an empty one of the same kind stays.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self { force: self.force, tries_again: self.tries_again, ..Self::default() };
        std::mem::replace(self, empty)
    }

    /// Of rows, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len() + self.deletes.len() + self.poisons.len()
    }

    fn ids(&self) -> Vec<&str> {
        let deleted = self.deletes.iter().filter_map(|delete| delete.id.as_ref());
        self.rows.iter().map(|row| &row.id).chain(deleted).chain(&self.rowless).map(DocumentId::as_str).collect()
    }
}

/// Where batches go.
pub(super) struct Link<'a> {
    pub(super) session: &'a Session,
    pub(super) layout: &'a Layout,
    pub(super) fence: &'a Fence,
    /// Whether there may be dead letters to forget.
    pub(super) has_dead_letters: bool,
    /// Whether none of the rows can be in the table yet, which is of our own making.
    pub(super) is_fresh: bool,
    /// The store's newest change: no row of ours is of a later one.
    pub(super) newest: Seq,
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// By COPY, which refuses a row that is there.
    Copy,
    /// In one statement.
    Upsert,
    /// In as many as it takes to find those that Postgres refuses.
    Search,
}

impl Link<'_> {
    /// Does it all and moves the cursor, in one transaction, and looks whether it is there.
    ///
    /// # Errors
    /// [`ReplicateError`]; then nothing of it is there, or, where the session broke, all or nothing.
    pub(super) async fn apply(&self, batch: &Batch, cursor: &Cursor) -> Result<Applied, ReplicateError> {
        let how = if self.is_fresh && batch.rows.len() >= MIN_COPIED_ROWS { How::Copy } else { How::Upsert };
        let mut applied = self.transact(batch, cursor, how).await;
        // Row-level security, a trigger, a row: whatever COPY cannot do, an insert may.
        if how == How::Copy && applied.as_ref().is_err_and(ReplicateError::is_of_a_statement) {
            applied = self.transact(batch, cursor, How::Upsert).await;
        }
        if applied.as_ref().is_err_and(ReplicateError::may_be_of_a_table) {
            drift::look(self.session, self.layout, self.fence).await?;
        }
        if applied.as_ref().is_err_and(ReplicateError::is_of_a_row) {
            applied = self.transact(batch, cursor, How::Search).await;
        }
        let applied = applied?;
        self.fence.confirm(self.session, cursor).await?;
        Ok(applied)
    }

    async fn transact(&self, batch: &Batch, cursor: &Cursor, how: How) -> Result<Applied, ReplicateError> {
        self.session.batch("begin", &self.begin(cursor)).await?;
        let done = self.within(batch, cursor, how).await;
        let done = match done {
            Ok(applied) => self.session.batch("commit", "commit").await.map(|()| applied).map_err(Into::into),
            Err(error) => Err(error),
        };
        let ends_session =
            |error: &ReplicateError| matches!(error, ReplicateError::Postgres(error) if error.ends_session());
        self.session.rolled_back(done, ends_session).await
    }

    /// Settings end with the transaction, so that a pooler may give the connection to anybody after it.
    fn begin(&self, cursor: &Cursor) -> String {
        let tenant = set_tenant(self.layout);
        // A scan's rows stand and fall with its cursor, so the disk may be waited for once, at its end.
        let waiting = if cursor.scan.is_some() { "set local synchronous_commit = off; " } else { "" };
        // The server gives up before we do, so that its answer tells what became of the statement.
        let limit = self.session.limit().as_millis();
        format!(
            "begin; {waiting}set local statement_timeout = {}; set local lock_timeout = {}; \
             set local idle_in_transaction_session_timeout = {limit}{tenant}",
            limit * 11 / 12,
            limit / 2
        )
    }

    async fn within(&self, batch: &Batch, cursor: &Cursor, how: How) -> Result<Applied, ReplicateError> {
        // First, so that of two processes one waits here, and then finds itself fenced.
        let stamp = self.fence.advance(self.session, cursor).await?;
        // A document that cannot be stored has no row: what stands there of it lives no more.
        let older: Vec<Delete> =
            batch.poisons.iter().filter_map(|poison| Delete::of_older(self.layout, &poison.id, poison.seq)).collect();
        let older: Vec<&Delete> = older.iter().collect();
        // Deletes come first: what they give back, as a value of a unique index, rows of the same batch may take.
        let Searched { written, deleted, found } = match how {
            How::Search => self.search_all(batch, &older).await?,
            How::Copy | How::Upsert => {
                let deletes: Vec<&Delete> = batch.deletes.iter().chain(older).collect();
                let deleted = self.delete(&deletes, batch.force).await?;
                let written = match how {
                    How::Copy => {
                        let rows = copy::encode(self.layout, &batch.rows);
                        self.session.copy_in("copy rows", &copy::statement(self.layout), vec![rows]).await?
                    }
                    _ => self.upsert(&batch.rows.iter().collect::<Vec<_>>(), batch.force).await?,
                };
                Searched { written, deleted, found: Vec::new() }
            }
        };
        if self.has_dead_letters {
            self.fence.exhume(self.session, &batch.ids()).await?;
        }
        self.fence.bury(self.session, &batch.poisons).await?;
        self.fence.bury(self.session, &found).await?;
        Ok(Applied { written, deleted, poisoned: (batch.poisons.len() + found.len()) as u64, stamp })
    }

    fn overwrites(&self, force: bool) -> Overwrites {
        if force { Overwrites::Every } else { Overwrites::Older(self.newest) }
    }

    pub(super) async fn upsert(&self, rows: &[&Row], force: bool) -> Result<u64, ReplicateError> {
        let sql = sql::upsert(self.layout, self.overwrites(force));
        let mut written = 0;
        for part in rows.chunks(STATEMENT_ROWS) {
            let cells = |index: usize| part.iter().map(move |row| &row.cells[index]);
            let columns = self.layout.columns.iter().enumerate();
            let arrays: Vec<sql::Array> =
                columns.map(|(index, column)| sql::array_of(self.layout, column, cells(index))).collect();
            written += self.session.execute("write rows", &sql, &params(&arrays)).await?;
        }
        Ok(written)
    }

    pub(super) async fn delete(&self, deletes: &[&Delete], force: bool) -> Result<u64, ReplicateError> {
        let (layout, overwrites) = (self.layout, self.overwrites(force));
        let sql = sql::delete(layout, overwrites);
        let mut deleted = 0;
        for part in deletes.chunks(STATEMENT_ROWS) {
            let cells = |n: usize| part.iter().map(move |delete| &delete.key[n]);
            let key = layout.key.iter().enumerate();
            let mut arrays: Vec<sql::Array> =
                key.map(|(n, &index)| sql::array_of(layout, &layout.columns[index], cells(n))).collect();
            if sql::is_guarded(layout, overwrites) {
                let seqs: Vec<i64> = part.iter().map(|delete| delete.seq.0 as i64).collect();
                arrays.push((Box::new(seqs), Type::INT8_ARRAY));
            }
            deleted += self.session.execute("delete rows", &sql, &params(&arrays)).await?;
        }
        Ok(deleted)
    }
}

/// What a transaction begins with so that row-level security knows the tenant.
pub(super) fn set_tenant(layout: &Layout) -> String {
    let set = |tenant: &String| format!("; select set_config('app.tenant_id', {}, true)", quote_literal(tenant));
    layout.tenant.as_ref().map(set).unwrap_or_default()
}

fn params(arrays: &[sql::Array]) -> Vec<Param<'_>> {
    arrays.iter().map(|(values, kind)| (values.as_ref() as _, kind.clone())).collect()
}
