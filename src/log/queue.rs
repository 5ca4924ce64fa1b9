//! The bounded queue between those who write changes and the thread that writes the log.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::sync::{Condvar, Mutex, MutexGuard, SyncSender};
use super::{Change, EncodedRecord, GroupOptions, LogError, LogPosition, Trimmed};
use crate::types::Seq;

pub(super) type Answer = SyncSender<Result<Seq, LogError>>;

/// A change on its way into the log.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) record: EncodedRecord,
    pub(super) change: Change,
    pub(super) answer: Answer,
}

#[derive(Debug)]
enum Item {
    Change(Box<Waiting>),
    Rotate(Answer),
}

/// What the writer thread does next.
#[derive(Debug)]
pub(super) enum Work {
    /// Append these as one group.
    Group(Vec<Waiting>),
    /// Go on in a new file.
    Rotate(Answer),
    /// Everything accepted is done and no more will come.
    Finish,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    records: usize,
    bytes: usize,
    closing: bool,
    failed: Option<String>,
    position: LogPosition,
    trimmed: Trimmed,
}

/// One mutex guards everything, and it is never held during IO, encoding or `apply`.
#[derive(Debug)]
pub(super) struct Queue {
    options: GroupOptions,
    state: Mutex<State>,
    arrived: Condvar,
}

impl Queue {
    pub(super) fn new(options: GroupOptions, position: LogPosition) -> Self {
        let state = Mutex::new(State { position, ..State::default() });
        Self { options, state, arrived: Condvar::new() }
    }

    /// A panic while the mutex is held cannot leave the state half changed, so poisoning says nothing here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change in, unless too much is waiting. A change larger than the whole bound is let in when it is alone.
    pub(super) fn push(&self, waiting: Waiting) -> Result<(), LogError> {
        let len = waiting.record.len_bytes();
        let mut state = self.open_state()?;
        let (records, bytes) = (state.records, state.bytes);
        if records >= self.options.max_queued_records || (records > 0 && bytes + len > self.options.max_queued_bytes) {
            return Err(LogError::QueueFull { records, bytes });
        }
        state.records += 1;
        state.bytes += len;
        state.items.push_back(Item::Change(Box::new(waiting)));
        self.arrived.notify_one();
        Ok(())
    }

    pub(super) fn push_rotation(&self, answer: Answer) -> Result<(), LogError> {
        self.open_state()?.items.push_back(Item::Rotate(answer));
        self.arrived.notify_one();
        Ok(())
    }

    fn open_state(&self) -> Result<MutexGuard<'_, State>, LogError> {
        let state = self.lock();
        match &state.failed {
            Some(reason) => Err(LogError::Failed { reason: reason.clone() }),
            None if state.closing => Err(LogError::Closed),
            None => Ok(state),
        }
    }

    /// Waits for work. A group is whatever has come, up to the bounds and to the next rotation: while one group is
    /// synced the next one gathers, so no time is spent waiting for company.
    pub(super) fn next_work(&self) -> Work {
        let idle = |state: &mut State| state.items.is_empty() && !state.closing;
        let mut state = self.arrived.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let (mut group, mut group_bytes) = (Vec::new(), 0);
        while let Some(item) = state.items.pop_front() {
            match item {
                Item::Rotate(answer) if group.is_empty() => return Work::Rotate(answer),
                Item::Change(waiting) if group.is_empty() || self.has_room(&group, group_bytes, &waiting) => {
                    let len = waiting.record.len_bytes();
                    state.records -= 1;
                    state.bytes -= len;
                    group_bytes += len;
                    group.push(*waiting);
                }
                item => {
                    state.items.push_front(item);
                    break;
                }
            }
        }
        if group.is_empty() { Work::Finish } else { Work::Group(group) }
    }

    fn has_room(&self, group: &[Waiting], group_bytes: usize, next: &Waiting) -> bool {
        group.len() < self.options.max_group_records
            && group_bytes + next.record.len_bytes() <= self.options.max_group_bytes
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.arrived.notify_one();
    }

    /// Stops for good: what waits is answered with the reason, and so is whatever comes later.
    pub(super) fn fail(&self, reason: &str) {
        let items = {
            let mut state = self.lock();
            state.failed.get_or_insert_with(|| reason.to_owned());
            (state.records, state.bytes) = (0, 0);
            std::mem::take(&mut state.items)
        };
        for item in items {
            let answer = match item {
                Item::Change(waiting) => waiting.answer,
                Item::Rotate(answer) => answer,
            };
            send(&answer, Err(LogError::Failed { reason: reason.to_owned() }));
        }
    }

    pub(super) fn failed(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    pub(super) fn set_position(&self, position: LogPosition) {
        self.lock().position = position;
    }

    pub(super) fn add_trimmed(&self, trimmed: Trimmed) {
        let mut state = self.lock();
        state.trimmed.files += trimmed.files;
        state.trimmed.bytes += trimmed.bytes;
    }

    pub(super) fn position(&self) -> LogPosition {
        let state = self.lock();
        LogPosition {
            last_seq: state.position.last_seq,
            // A trim beside the writer may be counted before the rotation that made its file trimmable.
            bytes: state.position.bytes.saturating_sub(state.trimmed.bytes),
            newest_bytes: state.position.newest_bytes,
            files: state.position.files.saturating_sub(state.trimmed.files),
        }
    }
}

/// Answers a ticket; one that nobody waits on any more is no error.
pub(super) fn send(answer: &Answer, result: Result<Seq, LogError>) {
    let _ = answer.try_send(result);
}
