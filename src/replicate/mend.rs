//! Comparing a copy with its collection while both change, and mending what differs.

use std::collections::BTreeSet;
use std::time::Instant;

use super::ReplicateError;
use super::apply::Batch;
use super::verify::{self, Kind, RepairReport, VerifyReport, key_cells};
use super::worker::{PAGE, Ready, Stepped, Worker};
use crate::collection::{Changes, Collection};
use crate::types::DocumentId;

/// Comparisons until what still differs is taken for a difference.
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

    /// Compares until what differs differs for good: a difference counts that every comparison has seen, each after the
    /// changes up to then were written. `None` where the log no longer has the changes.
    pub(super) async fn settled(
        &self,
        ready: &mut Ready,
        changes: &mut Changes,
    ) -> Result<Option<VerifyReport>, ReplicateError> {
        let began = Instant::now();
        let mut settled: Option<VerifyReport> = None;
        for _ in 0..COMPARISONS {
            let until = self.collection.store_seq();
            while ready.cursor.seq < until {
                if matches!(self.step(ready, changes).await?, Stepped::Gone | Stepped::Dropped) {
                    return Ok(None);
                }
            }
            let buried: BTreeSet<String> = ready.fence.buried(&ready.session).await?.into_iter().collect();
            let Ready { session, layout, cursor, .. } = &*ready;
            let mut report = verify::compare(session, layout, &self.collection, &buried, cursor.seq).await?;
            let is_still = self.collection.store_seq() == until;
            if let Some(before) = &settled {
                report.differences.retain(|difference| before.differences.contains(difference));
            }
            report.took_ms = began.elapsed().as_millis() as u64;
            let is_done = is_still || report.has_equal_rows();
            settled = Some(report);
            if is_done {
                break;
            }
        }
        Ok(settled)
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
        for part in before.differences.chunks(PAGE) {
            let report = VerifyReport { differences: part.to_vec(), ..VerifyReport::default() };
            let batch = Self::mending(ready, &self.collection, &report, &|kind| kind != Kind::NoRow)?;
            let cursor = ready.cursor.clone();
            self.apply(ready, &batch, cursor).await?;
        }
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
            for id in part.iter().filter_map(|id| DocumentId::new(id).ok()) {
                match tokio::task::block_in_place(|| self.collection.get(&id))? {
                    Some(document) => batch.write(&ready.layout, &document),
                    None => batch.delete(&ready.layout, id, ready.cursor.seq),
                }
            }
            let cursor = ready.cursor.clone();
            self.apply(ready, &batch, cursor).await?;
        }
        Ok(())
    }

    /// What mends differences: documents as they are now, over whatever stands there.
    pub(super) fn mending(
        ready: &Ready,
        collection: &Collection,
        report: &VerifyReport,
        wanted: &dyn Fn(Kind) -> bool,
    ) -> Result<Batch, ReplicateError> {
        let mut batch = Batch::new(true);
        for difference in report.differences.iter().filter(|difference| wanted(difference.kind)) {
            match &difference.id {
                Some(id) => {
                    // Gone since: its delete is on the way.
                    if let Some(document) = tokio::task::block_in_place(|| collection.get(id))? {
                        batch.write(&ready.layout, &document);
                    }
                }
                None => batch.delete_row(key_cells(&ready.layout, &difference.key)),
            }
        }
        Ok(batch)
    }
}
