//! How a sink is doing, as others see it while it works.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::ReplicateError;
use crate::types::Seq;

/// Most moments that are remembered to tell how old a lag is.
const MAX_MOMENTS: usize = 4_096;

/// What a sink is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, or looking at the table.
    #[default]
    Starting,
    /// Writing the whole collection.
    Scanning,
    /// Making the index.
    Indexing,
    /// Following the changes.
    Streaming,
    /// Comparing or mending, as asked.
    Verifying,
    /// Waiting for the next attempt after a failure.
    Waiting,
    /// Waiting until the table is as the sink needs it; it is looked at again from time to time.
    Drifted,
    /// Resting, as asked.
    Paused,
    /// Another process took the sink over.
    Fenced,
    /// Ended.
    Stopped,
}

impl Phase {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Scanning => "scanning",
            Self::Indexing => "indexing",
            Self::Streaming => "streaming",
            Self::Verifying => "verifying",
            Self::Waiting => "waiting",
            Self::Drifted => "drifted",
            Self::Paused => "paused",
            Self::Fenced => "fenced",
            Self::Stopped => "stopped",
        }
    }
}

/// A sink's state and figures, of one collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SinkStatus {
    /// What it is doing.
    pub phase: Phase,
    /// The table, once it is known.
    pub table: String,
    /// Changes up to here are in the copy.
    pub cursor: Seq,
    /// Changes of the store that are not in the copy.
    pub lag_seqs: u64,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: f64,
    /// Rows written since the process began: those that the database changed.
    pub rows_written: u64,
    /// Rows deleted since the process began.
    pub rows_deleted: u64,
    /// Transactions committed since the process began.
    pub transactions: u64,
    /// Connections made since the process began.
    pub connections: u64,
    /// Times that the whole collection was written since the process began.
    pub scans: u64,
    /// Documents that no row could hold.
    pub dead_letters: u64,
    /// Of a scan: documents written, and documents there are.
    pub scanned: (u64, u64),
    /// Code and message of the last failure, until something succeeds.
    pub error: Option<(String, String)>,
    /// What is good to know: why there is no index.
    pub note: Option<String>,
}

/// A status that one task writes and others read.
#[derive(Debug, Default)]
pub(super) struct SharedStatus {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    status: SinkStatus,
    store_seq: Seq,
    /// Since when the store has been beyond a seq; ascending.
    moments: VecDeque<(Seq, Instant)>,
}

impl SharedStatus {
    pub(super) fn edit<T>(&self, edit: impl FnOnce(&mut SinkStatus) -> T) -> T {
        edit(&mut self.lock().status)
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.edit(|status| status.phase = phase);
    }

    pub(super) fn failed(&self, error: &ReplicateError, phase: Phase) {
        self.edit(|status| {
            status.phase = phase;
            status.error = Some((error.code().to_owned(), error.chain()));
        });
    }

    /// The store is at `seq` now.
    pub(super) fn observe(&self, seq: Seq) {
        let mut inner = self.lock();
        if seq > inner.store_seq || inner.moments.is_empty() {
            inner.moments.push_back((seq, Instant::now()));
            if inner.moments.len() > MAX_MOMENTS {
                // The oldest stays, since it tells the age of a long lag.
                let mut keep = false;
                inner.moments.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
        }
        inner.store_seq = seq;
        let cursor = inner.status.cursor;
        while inner.moments.front().is_some_and(|(seq, _)| *seq <= cursor) {
            inner.moments.pop_front();
        }
        inner.status.lag_seqs = seq.0.saturating_sub(cursor.0);
        let oldest = inner.moments.front().map_or(0.0, |(_, since)| since.elapsed().as_secs_f64());
        inner.status.lag_seconds = if inner.status.lag_seqs == 0 { 0.0 } else { oldest };
    }

    pub(super) fn read(&self) -> SinkStatus {
        self.lock().status.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_counted_from_when_the_store_went_ahead() {
        let shared = SharedStatus::default();
        shared.observe(Seq(5));
        assert_eq!(shared.read().lag_seqs, 5);
        for seq in 6..20_000 {
            shared.observe(Seq(seq));
        }
        assert!(shared.lock().moments.len() <= MAX_MOMENTS);
        assert_eq!(shared.lock().moments.front().unwrap().0, Seq(5));
        shared.edit(|status| status.cursor = Seq(19_999));
        shared.observe(Seq(19_999));
        let status = shared.read();
        assert_eq!((status.lag_seqs, status.lag_seconds), (0, 0.0));
        assert!(shared.lock().moments.is_empty());
    }
}
