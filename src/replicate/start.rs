//! The beginning of a session: what is found behind a connection, and whether the cursor there can be believed.

use std::time::Instant;

use super::apply::Batch;
use super::fence::{Claimed, Cursor, Fence, Scan, ScanReason, Target};
use super::layout::{self, Layout};
use super::settings::ExtraRows;
use super::worker::{Ready, Worker};
use super::{Kind, ReplicateError, function, inspect, rights, state, verify};
use crate::postgres::Session;
use crate::types::Seq;

impl Worker {
    /// Connects, looks at the table, makes it where it is missing, and takes the sink over.
    pub(super) async fn prepare(&mut self) -> Result<Ready, ReplicateError> {
        let connection = self.settings.url.connection()?;
        let session = Session::connect(&connection).await?;
        self.status.edit(|status| status.connections += 1);
        let extension = inspect::extension(&session).await?;
        let collection = self.collection.name().as_str();
        let mut layout = layout::build(&self.settings, collection, self.collection.definition(), &extension)?;
        self.status.edit(|status| status.table = layout.table.plain());
        let schema = &self.settings.state_schema;
        if let Err(refused) = Fence::prepare(&session, schema).await {
            return Err(rights::of_schema(&session, schema, refused).await);
        }
        if !self.take_over {
            // First of all: nobody is told to change another sink's table. Taking the sink over looks again.
            let (table, scope) = (layout.table.plain(), layout.scope_condition());
            state::refuse_others(&session, schema, &self.name, &self.origin, &table, &scope).await?;
        }
        let is_fresh = !inspect::adopt(&session, &mut layout).await?;
        if is_fresh {
            if layout.create.is_empty() || !self.settings.create {
                let (table, differences) = (layout.table.plain(), vec!["it is not there".to_owned()]);
                return Err(ReplicateError::Drift { table, differences });
            }
            // The cursor in the database ends with the rows: this session may break off before it writes its own.
            let begin_anew = state::begin_anew(schema, &self.name, &self.origin, &layout.table);
            inspect::create(&session, &layout, &begin_anew).await?;
            inspect::adopt(&session, &mut layout).await?;
        }
        rights::of_table(&session, &layout).await?;
        if self.settings.create {
            function::ensure(&session, &layout).await?;
        }
        let shape = layout.shape(self.collection.number());
        let target = Target { table: layout.table.plain(), scope: layout.scope_condition(), shape };
        let (fence, claimed) =
            Fence::claim(&session, schema, &self.name, &self.origin, &target, self.take_over).await?;
        let mut cursor = claimed.cursor.clone();
        if let Some(why) = self.reason_to_scan(&session, &layout, &fence, &claimed, is_fresh).await? {
            self.begin_scan(&mut cursor, why)?;
        }
        let buried = fence.count_buried(&session).await?;
        self.status.edit(|status| status.dead_letters = buried);
        self.hold.advance(cursor.seq);
        self.moved(&cursor);
        let written_down = (cursor.seq, Instant::now());
        let mut ready = Ready { session, layout, fence, cursor, written_down, is_fresh };
        if self.take_over {
            // From here on the state names our store, also where this session breaks off before its first page.
            let cursor = ready.cursor.clone();
            self.apply(&mut ready, &Batch::default(), cursor).await?;
            self.take_over = false;
        }
        Ok(ready)
    }

    /// Why everything has to be written before changes can be followed; `None` where the cursor can be believed.
    async fn reason_to_scan(
        &self,
        session: &Session,
        layout: &Layout,
        fence: &Fence,
        claimed: &Claimed,
        is_fresh: bool,
    ) -> Result<Option<ScanReason>, ReplicateError> {
        if is_fresh {
            return Ok(Some(ScanReason::First));
        }
        if claimed.cursor.seq == Seq(0) || claimed.was_elsewhere {
            return self.adopt_rows(session, layout, fence).await.map(Some);
        }
        let is_scanning = claimed.cursor.scan.as_ref().is_some_and(|scan| scan.why == ScanReason::Fork);
        if claimed.forked || !self.has_history(&claimed.cursor)? || (self.distrusts && !is_scanning) {
            let cursor = claimed.cursor.seq.0;
            tracing::warn!(sink = self.name, cursor, "the cursor is of another history: comparing all");
            return Ok(Some(ScanReason::Fork));
        }
        if claimed.was_otherwise {
            let cursor = claimed.cursor.seq.0;
            tracing::warn!(sink = self.name, cursor, "the cursor is of another collection or mapping: comparing all");
            return Ok(Some(ScanReason::Fork));
        }
        Ok(None)
    }

    /// Whether the change at the cursor is one of ours, and not only one of the same number: a copied data directory
    /// and its original count on from the same seq.
    fn has_history(&self, cursor: &Cursor) -> Result<bool, ReplicateError> {
        if cursor.seq > self.collection.store_seq() {
            return Ok(false);
        }
        match cursor.digest {
            // Written down before digests were.
            None => Ok(true),
            Some(digest) => Ok(self.digest_at(cursor.seq)? == Some(digest)),
        }
    }

    fn digest_at(&self, seq: Seq) -> Result<Option<u32>, ReplicateError> {
        Ok(tokio::task::block_in_place(|| self.collection.changes_after(seq).digest())?)
    }

    /// How a table is filled that was there before the sink.
    ///
    /// # Errors
    /// [`ReplicateError::ExtraRows`] where it has rows that the collection lacks, and nobody said what to do with them.
    async fn adopt_rows(
        &self,
        session: &Session,
        layout: &Layout,
        fence: &Fence,
    ) -> Result<ScanReason, ReplicateError> {
        if !verify::has_rows(session, layout).await? {
            return Ok(ScanReason::First);
        }
        if self.settings.extra_rows == ExtraRows::Refuse {
            let buried = fence.buried(session).await?.into_iter().collect();
            // Whatever seq stands in rows that were there before.
            let newest = Seq(i64::MAX as u64);
            let report = verify::compare(session, layout, &self.collection, &buried, newest).await?;
            let count = report.differences.iter().filter(|difference| difference.kind == Kind::Extra).count() as u64;
            if count > 0 {
                return Err(ReplicateError::ExtraRows { table: layout.table.plain(), count });
            }
        }
        Ok(ScanReason::Adopted)
    }

    /// The log is followed from here on once all documents are written, whichever state each was read in.
    pub(super) fn begin_scan(&self, cursor: &mut Cursor, why: ScanReason) -> Result<(), ReplicateError> {
        let seq = self.collection.store_seq();
        *cursor = Cursor { seq, digest: self.digest_at(seq)?, scan: Some(Scan { after: None, why }) };
        self.status.edit(|status| status.scans += 1);
        Ok(())
    }
}
