//! Comparing a copy with its collection while both change, and mending what differs.

use std::collections::BTreeSet;
use std::time::Instant;

use super::ReplicateError;
use super::apply::Batch;
use super::layout::Layout;
use super::row::{key_of, key_text_of};
use super::verify::{self, Difference, Kind, RepairReport, VerifyReport, key_cells};
use super::worker::{BATCH_BYTES, PAGE, Ready, Stepped, Worker};
use crate::collection::{ChangeStep, Changes, DocumentChange};
use crate::types::{DocumentId, Seq};

/// Comparisons at most, where what differs changes all the while.
const COMPARISONS: usize = 5;

impl Worker {
    pub(super) async fn verify(
        &self,
        ready: &mut Ready,
        changes: &mut Changes,
    ) -> Result<VerifyReport, ReplicateError> {
        let settled = self.settled(ready, changes).await?;
        let reason = "it has to write everything again".to_owned();
        settled.ok_or(ReplicateError::Busy { phase: "behind".to_owned(), reason })
    }

    /// Compares, after the changes up to now were written, until nothing differs that changed meanwhile. Of what
    /// changes all the while nothing is known in the end, so it is no difference; its next change writes it again.
    /// `None` where the log no longer has the changes.
    pub(super) async fn settled(
        &self,
        ready: &mut Ready,
        changes: &mut Changes,
    ) -> Result<Option<VerifyReport>, ReplicateError> {
        let began = Instant::now();
        let mut comparison = 0;
        loop {
            comparison += 1;
            let until = self.collection.store_seq();
            while ready.cursor.seq < until {
                if matches!(self.step(ready, changes).await?, Stepped::Gone | Stepped::Dropped) {
                    return Ok(None);
                }
            }
            let buried: BTreeSet<String> = ready.fence.buried(&ready.session).await?.into_iter().collect();
            let Ready { session, layout, cursor, .. } = &*ready;
            let mut report = verify::compare(session, layout, &self.collection, &buried, cursor.seq).await?;
            report.took_ms = began.elapsed().as_millis() as u64;
            if report.has_equal_rows() {
                return Ok(Some(report));
            }
            let Some(changed) = self.keys_changed_after(layout, cursor.seq)? else { return Ok(None) };
            let found = report.differences.len();
            report.differences.retain(|it| it.kind == Kind::NoRow || !changed.contains(&it.key));
            if report.differences.len() == found || comparison == COMPARISONS {
                return Ok(Some(report));
            }
        }
    }

    /// The keys of rows whose documents changed after `seq`. `None` where the log no longer has the changes.
    fn keys_changed_after(&self, layout: &Layout, seq: Seq) -> Result<Option<BTreeSet<String>>, ReplicateError> {
        let (mut keys, mut seen, until) = (BTreeSet::new(), seq, self.collection.store_seq());
        let mut changes = self.collection.changes_after(seq);
        while seen < until {
            let ChangeStep::Changes { changes, up_to } = tokio::task::block_in_place(|| changes.next(BATCH_BYTES))?
            else {
                return Ok(None);
            };
            let key = |change: &DocumentChange| key_of(layout, &change.id).ok().map(|cells| key_text_of(cells.iter()));
            keys.extend(changes.iter().filter_map(key));
            seen = up_to;
        }
        Ok(Some(keys))
    }

    pub(super) async fn repair(
        &self,
        ready: &mut Ready,
        changes: &mut Changes,
        dry_run: bool,
    ) -> Result<RepairReport, ReplicateError> {
        let before = self.verify(ready, changes).await?;
        if dry_run || before.is_equal() {
            return Ok(RepairReport { after: before.clone(), before, ..RepairReport::default() });
        }
        let count = |status: &super::SinkStatus| (status.rows_written, status.rows_deleted);
        let (written, deleted) = count(&self.status.read());
        self.try_dead_letters(ready).await?;
        self.mend(ready, &before, &|kind| kind != Kind::NoRow).await?;
        let (written_after, deleted_after) = count(&self.status.read());
        let after = self.verify(ready, changes).await?;
        Ok(RepairReport { before, written: written_after - written, deleted: deleted_after - deleted, after })
    }

    /// Writes the documents again that no row could hold, and deletes the rows again that could not be deleted. Where
    /// that is done now, they are dead no more.
    async fn try_dead_letters(&self, ready: &mut Ready) -> Result<(), ReplicateError> {
        let buried = ready.fence.buried(&ready.session).await?;
        self.status.edit(|status| status.dead_letters = buried.len() as u64);
        for part in buried.chunks(PAGE) {
            let mut batch = Batch::new(true);
            batch.tries_again = true;
            for id in part.iter().filter_map(|id| DocumentId::new(id).ok()) {
                match tokio::task::block_in_place(|| self.collection.get(&id))? {
                    Some(document) => batch.write(&ready.layout, &document),
                    None => batch.delete(&ready.layout, id, ready.cursor.seq),
                }
                self.apply_full(ready, &mut batch).await?;
            }
            self.apply_here(ready, &batch).await?;
        }
        Ok(())
    }

    /// Writes what has gathered where that is as much as a transaction takes.
    async fn apply_full(&self, ready: &mut Ready, batch: &mut Batch) -> Result<(), ReplicateError> {
        match batch.bytes() >= BATCH_BYTES {
            true => self.apply_here(ready, &batch.take()).await,
            false => Ok(()),
        }
    }

    /// Writes without moving the cursor.
    async fn apply_here(&self, ready: &mut Ready, batch: &Batch) -> Result<(), ReplicateError> {
        let cursor = ready.cursor.clone();
        self.apply(ready, batch, cursor).await
    }

    /// Mends the differences of the kinds that are wanted, a page of rows or 4 MiB of them a transaction: documents as
    /// they are now, over whatever stands there. Rows without a document go first: what they hold, as a value of a
    /// unique index, others may need.
    pub(super) async fn mend(
        &self,
        ready: &mut Ready,
        report: &VerifyReport,
        wanted: &(dyn Fn(Kind) -> bool + Sync),
    ) -> Result<(), ReplicateError> {
        let all = report.differences.iter().filter(|difference| wanted(difference.kind));
        let (extra, others): (Vec<&Difference>, Vec<_>) = all.partition(|difference| difference.kind == Kind::Extra);
        for part in extra.chunks(PAGE).chain(others.chunks(PAGE)) {
            let mut batch = Batch::new(true);
            for difference in part {
                match &difference.id {
                    Some(id) => {
                        // Gone since: its delete is on the way.
                        if let Some(document) = tokio::task::block_in_place(|| self.collection.get(id))? {
                            batch.write(&ready.layout, &document);
                        }
                    }
                    None => batch.delete_row(key_cells(&ready.layout, &difference.key)),
                }
                self.apply_full(ready, &mut batch).await?;
            }
            self.apply_here(ready, &batch).await?;
        }
        Ok(())
    }
}
