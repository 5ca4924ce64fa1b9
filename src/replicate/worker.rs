//! A sink at work: connects, looks at the table, writes everything once, then follows the changes; again after
//! failures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use super::apply::{Batch, Link};
use super::fence::{Cursor, Fence, Origin, Scan, ScanReason};
use super::layout::Layout;
use super::settings::SinkSettings;
use super::status::{Phase, SharedStatus, SinkStatus};
use super::verify::{Kind, RepairReport, VerifyReport};
use super::{ReplicateError, drift, index};
use crate::collection::{ChangeStep, Changes, Collection, CollectionError, ListRequest, LogHold, Page};
use crate::postgres::Session;
use crate::types::limits::MAX_ANSWER_BYTES;
use crate::types::{DocumentId, Seq, panic_message};

/// Bytes of documents in one transaction, about.
pub(super) const BATCH_BYTES: usize = 4 << 20;
/// Documents in one transaction of a scan.
const BATCH_ROWS: usize = 10_000;
/// Documents in one page of a scan.
pub(super) const PAGE: usize = 1_000;
/// Pages that are read before they are written.
const PAGES_AHEAD: usize = 2;
/// While nothing changes, the store is looked at this often.
const IDLE: Duration = Duration::from_millis(20);
/// Waits after failures that pass by themselves: the first, and the longest.
const SHORT_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// And after those that somebody has to mend.
const LONG_WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// While nothing is written, the state in the database is looked at this often.
const LOOK: Duration = Duration::from_secs(5);
/// A cursor that moved over others' changes alone is written down this often.
const KEEP_CURSOR: Duration = Duration::from_secs(5);

/// What a worker is asked to do.
pub(super) enum Command {
    /// Compare.
    Verify(Reply<VerifyReport>),
    /// Mend what differs, or only say what would be done.
    Repair {
        /// Change nothing.
        dry_run: bool,
        reply: Reply<RepairReport>,
    },
    /// Take the sink over from another store.
    TakeOver(Reply<()>),
    /// Try again now.
    Wake,
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, ReplicateError>>;

/// A sink for one collection.
pub(super) struct Worker {
    pub(super) settings: SinkSettings,
    /// The name of its state in the database.
    pub(super) name: String,
    pub(super) collection: Collection,
    pub(super) origin: Origin,
    pub(super) status: Arc<SharedStatus>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) hold: Arc<LogHold>,
    pub(super) take_over: bool,
    /// Another process held the sink since we did: what its cursor says is not taken on trust.
    pub(super) distrusts: bool,
    pub(super) index: index::Attempts,
}

/// A connection with what was found behind it.
pub(super) struct Ready {
    pub(super) session: Session,
    pub(super) layout: Layout,
    pub(super) fence: Fence,
    pub(super) cursor: Cursor,
    /// The cursor's seq as it stands in the database, and since when. The log is kept from there.
    pub(super) written_down: (Seq, Instant),
    /// The table was made over this connection, and nothing but its first scan has written to it.
    pub(super) is_fresh: bool,
}

impl Ready {
    /// Looks, after a statement was refused, at the table and the state.
    async fn drift(&self) -> Result<(), ReplicateError> {
        self.session.batch("roll back", "rollback").await?;
        drift::look(&self.session, &self.layout, &self.fence).await
    }
}

/// Why a session ended without a failure.
enum Ended {
    Stopped,
    Again,
}

impl Worker {
    /// Works until it is told to stop, or the collection is dropped.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let before = self.status.read().transactions;
            self.status.phase(Phase::Starting);
            let error = match caught(self.session()).await {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Again) => continue,
                Err(error) => error,
            };
            // After a success the failure is a new one.
            failures = if self.status.read().transactions > before { 1 } else { failures + 1 };
            tracing::warn!(
                sink = self.name,
                code = error.code(),
                error = error.without_values(),
                "a sink stopped for now"
            );
            let fenced = matches!(error, ReplicateError::Fenced { .. });
            let phase = match error.is_of_the_table() {
                true => Phase::Drifted,
                false if fenced => Phase::Fenced,
                false => Phase::Waiting,
            };
            self.status.failed(&error, phase);
            self.distrusts |= fenced;
            // Neither another process nor rows of others go away by waiting.
            let waits_for_somebody = fenced || matches!(error, ReplicateError::ExtraRows { .. });
            let wait = (!waits_for_somebody).then(|| backoff(failures, error.passes_by_itself()));
            if !self.wait(wait).await {
                break;
            }
        }
        self.status.phase(Phase::Stopped);
    }

    /// Waits until it is time, or until it is woken. `false` when it is to stop.
    async fn wait(&mut self, limit: Option<Duration>) -> bool {
        let deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
        loop {
            let command = match deadline {
                Some(deadline) => match tokio::time::timeout_at(deadline, self.commands.recv()).await {
                    Err(_) => return true,
                    Ok(command) => command,
                },
                None => self.commands.recv().await,
            };
            let busy = || {
                let SinkStatus { phase, error, .. } = self.status.read();
                let first = match phase {
                    Phase::Drifted => "its table has to be mended before",
                    _ => "it has to reach the database before",
                };
                let reason = error.map_or(first.to_owned(), |(_, error)| format!("{first}; {error}"));
                ReplicateError::Busy { phase: phase.name().to_owned(), reason }
            };
            match command {
                None => return false,
                Some(Command::Wake) => return true,
                Some(Command::TakeOver(reply)) => {
                    self.take_over = true;
                    _ = reply.send(Ok(()));
                    return true;
                }
                Some(Command::Verify(reply)) => _ = reply.send(Err(busy())),
                Some(Command::Repair { reply, .. }) => _ = reply.send(Err(busy())),
            }
        }
    }

    /// One connection, from its start to its end.
    async fn session(&mut self) -> Result<Ended, ReplicateError> {
        let mut ready = self.prepare().await?;
        let mut changes = None;
        loop {
            while ready.cursor.scan.is_some() {
                self.scan(&mut ready).await?;
                changes = None;
            }
            self.distrusts = false;
            self.status.phase(Phase::Indexing);
            let note = index::ensure(&ready.session, &ready.layout, &mut self.index).await?;
            self.status.edit(|status| {
                status.note = note;
                status.error = None;
            });
            self.status.phase(Phase::Streaming);
            let following = changes.get_or_insert_with(|| self.collection.changes_after(ready.cursor.seq));
            match self.follow(&mut ready, following).await? {
                Followed::Behind => self.begin_scan(&mut ready.cursor, ScanReason::Behind)?,
                Followed::Dropped | Followed::Stopped => return Ok(Ended::Stopped),
                Followed::Again => return Ok(Ended::Again),
                Followed::Index => {}
            }
        }
    }

    pub(super) fn moved(&self, cursor: &Cursor) {
        let shown = if cursor.scan.is_some() { Seq(0) } else { cursor.seq };
        self.status.edit(|status| status.cursor = shown);
        self.status.observe(self.collection.store_seq());
    }

    pub(super) async fn apply(&self, ready: &mut Ready, batch: &Batch, cursor: Cursor) -> Result<(), ReplicateError> {
        let has_dead_letters = self.status.read().dead_letters > 0;
        let Ready { session, layout, fence, .. } = &*ready;
        let is_fresh = ready.is_fresh && cursor_scans(&ready.cursor);
        let newest = self.collection.store_seq();
        let link = Link { session, layout, fence, has_dead_letters, is_fresh, newest };
        let applied = link.apply(batch, &cursor).await?;
        ready.fence.advanced(applied.stamp);
        let Ready { session, fence, .. } = &*ready;
        let buried = match has_dead_letters || applied.poisoned > 0 {
            true => Some(fence.count_buried(session).await?),
            false => None,
        };
        self.status.edit(|status| {
            status.rows_written += applied.written;
            status.rows_deleted += applied.deleted;
            status.transactions += 1;
            status.dead_letters = buried.unwrap_or(status.dead_letters);
            status.error = None;
        });
        self.moved(&cursor);
        self.hold.advance(cursor.seq);
        ready.written_down = (cursor.seq, Instant::now());
        ready.cursor = cursor;
        Ok(())
    }

    /// Writes every document, a page a transaction; then follows the changes since, and deletes what has no document.
    async fn scan(&mut self, ready: &mut Ready) -> Result<(), ReplicateError> {
        self.status.phase(Phase::Scanning);
        let total = self.collection.stats().documents;
        self.status.edit(|status| status.scanned = (0, total));
        let Some(Scan { after, why }) = ready.cursor.scan.clone() else { return Ok(()) };
        let mut pages = self.read_pages(after);
        let mut batch = Batch::new(why.overwrites());
        // Where rows of another history may stand, changes since the scan may have passed them over, too.
        let compares = match ready.layout.keeps_extra {
            true => why.overwrites() && ready.layout.seq.is_some(),
            false => why != ScanReason::First,
        };
        let (mut written, mut is_done) = (0, false);
        while let Some(page) = pages.recv().await {
            let Page { documents, next } = page?;
            let last = documents.len().saturating_sub(1);
            for (n, document) in documents.iter().enumerate() {
                batch.write(&ready.layout, document);
                let is_full = batch.bytes() >= BATCH_BYTES || batch.len() >= BATCH_ROWS;
                if is_full && (n < last || next.is_some()) {
                    let scan = Some(Scan { after: Some(document.stored.id.clone()), why });
                    let full = std::mem::replace(&mut batch, Batch::new(why.overwrites()));
                    let cursor = Cursor { scan, ..ready.cursor.clone() };
                    self.apply(ready, &full, cursor).await?;
                    written += full.len() as u64;
                    self.status.edit(|status| status.scanned.0 = written);
                }
            }
            if next.is_none() {
                // Rows that should not be there can only be told once all that should are.
                let after = documents.last().map(|document| document.stored.id.clone());
                let after = after.or_else(|| ready.cursor.scan.as_ref().and_then(|scan| scan.after.clone()));
                let cursor = Cursor { scan: compares.then_some(Scan { after, why }), ..ready.cursor.clone() };
                self.apply(ready, &batch, cursor).await?;
                self.status.edit(|status| status.scanned.0 = written + batch.len() as u64);
                is_done = true;
            }
        }
        if !is_done {
            // The reader broke off: from the cursor again.
            return Ok(());
        }
        if compares { self.end_scan(ready, why).await } else { Ok(()) }
    }

    /// Reads the documents after `after` by ascending id, a few pages ahead of who writes them.
    fn read_pages(&self, mut after: Option<DocumentId>) -> mpsc::Receiver<Result<Page, CollectionError>> {
        let collection = self.collection.clone();
        let (pages, read) = mpsc::channel(PAGES_AHEAD);
        tokio::task::spawn_blocking(move || {
            loop {
                let max_bytes = Some(MAX_ANSWER_BYTES);
                let page = collection.list(&ListRequest { after, limit: PAGE, max_bytes, ..ListRequest::default() });
                let next = page.as_ref().ok().and_then(|page| page.next.clone());
                if pages.blocking_send(page).is_err() || next.is_none() {
                    break;
                }
                after = next;
            }
        });
        read
    }

    /// Follows the changes since the scan began and compares: rows without a document are deleted. Rows of another
    /// history may say something else, too.
    async fn end_scan(&mut self, ready: &mut Ready, why: ScanReason) -> Result<(), ReplicateError> {
        let mut changes = self.collection.changes_after(ready.cursor.seq);
        let report = match self.settled(ready, &mut changes).await? {
            Some(report) => report,
            None => {
                // The log ran away from a slow scan: it starts over.
                self.begin_scan(&mut ready.cursor, why)?;
                return Ok(());
            }
        };
        self.mend(ready, &report, &|kind| kind == Kind::Extra || (why.overwrites() && kind != Kind::NoRow)).await?;
        let cursor = Cursor { scan: None, ..ready.cursor.clone() };
        self.apply(ready, &Batch::default(), cursor).await
    }

    /// Follows the changes until the connection, the collection or the process ends.
    async fn follow(&mut self, ready: &mut Ready, changes: &mut Changes) -> Result<Followed, ReplicateError> {
        let mut looked = Instant::now();
        loop {
            if self.index.is_due() {
                return Ok(Followed::Index);
            }
            match self.step(ready, changes).await? {
                Stepped::On => match self.commands.try_recv() {
                    Ok(command) => {
                        if let Some(ended) = self.obey(command, ready, changes).await? {
                            return Ok(ended);
                        }
                    }
                    Err(mpsc::error::TryRecvError::Empty) => {}
                    Err(mpsc::error::TryRecvError::Disconnected) => return Ok(Followed::Stopped),
                },
                Stepped::Idle => match tokio::time::timeout(IDLE, self.commands.recv()).await {
                    Err(_) => Self::look(ready, &mut looked).await?,
                    Ok(None) => return Ok(Followed::Stopped),
                    Ok(Some(command)) => {
                        if let Some(ended) = self.obey(command, ready, changes).await? {
                            return Ok(ended);
                        }
                    }
                },
                Stepped::Gone => return Ok(Followed::Behind),
                Stepped::Dropped => {
                    tracing::info!(sink = self.name, "the collection was dropped; its rows stay as they are");
                    return Ok(Followed::Dropped);
                }
            }
        }
    }

    /// Looks, while nothing is written, whether the connection is there and the state behind it as it was left: a
    /// database that went away, or that was restored from an older backup, is to be noticed before a write is.
    async fn look(ready: &Ready, looked: &mut Instant) -> Result<(), ReplicateError> {
        if looked.elapsed() < LOOK && !ready.session.is_closed() {
            return Ok(());
        }
        let cursor = Cursor { seq: ready.written_down.0, ..Cursor::default() };
        ready.fence.confirm(&ready.session, &cursor).await?;
        *looked = Instant::now();
        Ok(())
    }

    /// One look at the changes, and one transaction where there are any.
    pub(super) async fn step(&self, ready: &mut Ready, changes: &mut Changes) -> Result<Stepped, ReplicateError> {
        let (found, up_to) = match tokio::task::block_in_place(|| changes.next(BATCH_BYTES))? {
            ChangeStep::Gone => return Ok(Stepped::Gone),
            ChangeStep::Dropped => return Ok(Stepped::Dropped),
            ChangeStep::Changes { changes, up_to } => (changes, up_to),
        };
        let digest = tokio::task::block_in_place(|| changes.digest())?;
        let cursor = Cursor { seq: up_to, digest, scan: ready.cursor.scan.clone() };
        if found.is_empty() {
            let (written_down, since) = ready.written_down;
            if up_to > written_down && since.elapsed() > KEEP_CURSOR {
                self.apply(ready, &Batch::default(), cursor).await?;
                return Ok(Stepped::On);
            }
            // Others' changes are passed over without a transaction each.
            let was_idle = up_to == ready.cursor.seq;
            ready.cursor = cursor;
            self.moved(&ready.cursor);
            return Ok(if was_idle { Stepped::Idle } else { Stepped::On });
        }
        let batch = Batch::of_changes(&ready.layout, found);
        self.apply(ready, &batch, cursor).await?;
        Ok(Stepped::On)
    }

    async fn obey(
        &mut self,
        command: Command,
        ready: &mut Ready,
        changes: &mut Changes,
    ) -> Result<Option<Followed>, ReplicateError> {
        match command {
            Command::Wake => self.index.hurry(),
            Command::TakeOver(reply) => {
                self.take_over = true;
                _ = reply.send(Ok(()));
                return Ok(Some(Followed::Again));
            }
            Command::Verify(reply) => {
                self.status.phase(Phase::Verifying);
                let done = self.verify(ready, changes).await;
                answer(ready, reply, done).await?;
            }
            Command::Repair { dry_run, reply } => {
                self.status.phase(Phase::Verifying);
                let done = self.repair(ready, changes, dry_run).await;
                answer(ready, reply, done).await?;
            }
        }
        self.status.phase(Phase::Streaming);
        Ok(None)
    }
}

/// Why changes are followed no more.
enum Followed {
    Stopped,
    Dropped,
    Behind,
    Again,
    /// It is time to try again to make the index.
    Index,
}

/// What a step along the changes led to.
pub(super) enum Stepped {
    On,
    Idle,
    Gone,
    Dropped,
}

/// Whether a first scan is under way.
fn cursor_scans(cursor: &Cursor) -> bool {
    cursor.scan.as_ref().is_some_and(|scan| scan.why == ScanReason::First)
}

/// Answers whoever asked. A failure also ends the session, since it may have broken it; where the table may be at
/// fault, it is looked at first.
async fn answer<T>(ready: &Ready, reply: Reply<T>, done: Result<T, ReplicateError>) -> Result<(), ReplicateError> {
    let error = match done {
        Ok(report) => {
            _ = reply.send(Ok(report));
            return Ok(());
        }
        Err(error) if error.may_be_of_a_table() => ready.drift().await.err().unwrap_or(error),
        Err(error) => error,
    };
    _ = reply.send(Err(error.told()));
    Err(error)
}

/// What a session came to; a panic in it is a failure like others, after which the sink tries again.
async fn caught<T>(session: impl Future<Output = Result<T, ReplicateError>>) -> Result<T, ReplicateError> {
    // What the session left is a connection, which is closed; and the worker, which holds nothing half done.
    std::panic::AssertUnwindSafe(session)
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(ReplicateError::Panicked { reason: panic_message(panic.as_ref()) }))
}

/// Doubles with each failure in a row up to the longest, and takes a random half off, so that many do not come at once.
fn backoff(failures: u32, is_short: bool) -> Duration {
    let (first, longest) = if is_short { SHORT_WAIT } else { LONG_WAIT };
    let whole = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    let random = getrandom::u32().unwrap_or(u32::MAX);
    whole.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn a_panic_in_a_session_is_a_failure_like_others() {
        let session = async {
            let row: Vec<i32> = Vec::new();
            Ok(row[std::hint::black_box(7)])
        };
        let error = caught(session).await.unwrap_err();
        assert_eq!(error.code(), "internal");
        assert!(error.to_string().contains("index is 7"), "{error}");
        assert_eq!(caught(async { Ok(1) }).await.unwrap(), 1);
    }

    #[test]
    fn waits_grow_to_their_bound_and_vary() {
        for failures in 1..40 {
            let wait = backoff(failures, true);
            assert!(wait >= SHORT_WAIT.0 / 2 && wait <= SHORT_WAIT.1, "{failures}: {wait:?}");
        }
        assert!(backoff(20, false) >= LONG_WAIT.1 / 2);
        assert!((0..20).map(|_| backoff(5, true)).collect::<BTreeSet<_>>().len() > 1);
    }
}
