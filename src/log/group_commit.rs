//! Group commit: many writers, one thread that appends, syncs, applies and answers.

use std::sync::{Arc, PoisonError};

use super::queue::{Queue, Waiting, Work, send};
use super::sync::thread::{self, JoinHandle};
use super::sync::{Mutex, Receiver, sync_channel};
use super::{Change, EncodedRecord, Keep, LogError, LogPosition, LogWriter, Trimmed, trim_keeping};
use crate::storage::{DataPaths, StorageError};
use crate::types::Seq;

/// Bounds of the queue and of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// Most changes in one group; at most 65,536.
    pub max_group_records: usize,
    /// Most bytes in one group of several changes; a larger change makes a group of its own.
    pub max_group_bytes: usize,
    /// Most changes that wait; one more is refused with [`LogError::QueueFull`].
    pub max_queued_records: usize,
    /// Most bytes that wait.
    pub max_queued_bytes: usize,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            max_group_records: 1_024,
            max_group_bytes: 1 << 20,
            max_queued_records: 4_096,
            max_queued_bytes: 128 << 20,
        }
    }
}

/// What is done with each change once it is durable, in order of seq.
pub type Apply = Box<dyn FnMut(Seq, Change) + Send>;

/// The log as its writers see it. Any number of threads may submit at once.
#[derive(Debug)]
pub struct GroupCommit {
    queue: Arc<Queue>,
    paths: DataPaths,
    /// Held while files are deleted, so that two trims do not count one file twice.
    trimming: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl GroupCommit {
    /// Starts the writer thread. `apply` gets each change after it is durable and before its ticket is answered, so
    /// what was acknowledged is visible. It must not wait for a ticket of this log.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the system starts no thread.
    pub fn spawn(writer: LogWriter, apply: Apply, options: GroupOptions) -> Result<Self, LogError> {
        let options = GroupOptions {
            max_group_records: options.max_group_records.clamp(1, 1 + usize::from(u16::MAX)),
            ..options
        };
        let queue = Arc::new(Queue::new(options, writer.position()));
        let paths = writer.paths().clone();
        let thread = thread::Builder::new()
            .name("log-writer".into())
            .spawn({
                let queue = queue.clone();
                move || run(writer, apply, &queue)
            })
            .map_err(|e| StorageError::io(&paths.log_dir(), "start the writer of", e))?;
        Ok(Self { queue, paths, trimming: Mutex::new(()), thread: Mutex::new(Some(thread)) })
    }

    /// Encodes a change, here in the caller's thread, and hands it to the writer. Changes of one thread keep their
    /// order.
    ///
    /// # Errors
    /// [`LogError::TooLarge`], [`LogError::QueueFull`], [`LogError::Closed`], [`LogError::Failed`]: nothing was queued.
    pub fn submit(&self, change: Change) -> Result<Ticket, LogError> {
        let record = EncodedRecord::new(&change)?;
        let (answer, ticket) = sync_channel(1);
        self.queue.push(Waiting { record, change, answer })?;
        Ok(Ticket { answer: ticket })
    }

    /// Goes on in a new file after everything submitted before, and waits until that is done.
    ///
    /// # Errors
    /// [`LogError::Closed`], [`LogError::Failed`], [`LogError::NotWritten`].
    pub fn rotate(&self) -> Result<(), LogError> {
        let (answer, ticket) = sync_channel(1);
        self.queue.push_rotation(answer)?;
        Ticket { answer: ticket }.wait().map(drop)
    }

    /// Deletes the files that [`trim_keeping`] may delete.
    ///
    /// # Errors
    /// As [`trim_keeping`].
    pub fn trim(&self, up_to: Seq, keep: Keep) -> Result<Trimmed, LogError> {
        let _guard = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let trimmed = trim_keeping(&self.paths, up_to, keep)?;
        self.queue.add_trimmed(trimmed);
        Ok(trimmed)
    }

    /// How far the log reaches: every change up to `last_seq` is durable and applied.
    pub fn position(&self) -> LogPosition {
        self.queue.position()
    }

    /// Accepts nothing more, as after a failed sync of its own: another file of the store could not be made durable.
    pub fn stop(&self, reason: &str) {
        self.queue.fail(reason);
    }

    /// Why the log stopped, if a sync failed. The process should exit then.
    pub fn failed(&self) -> Option<String> {
        self.queue.failed()
    }

    /// Finishes every change that was accepted, and accepts no more. A second call only waits.
    ///
    /// # Errors
    /// [`LogError::Failed`] when the log had stopped.
    pub fn close(&self) -> Result<LogPosition, LogError> {
        self.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // `apply` may own the last handle, which is then dropped by the writer thread itself.
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // A panic of the thread has become the reason in `failed`.
            let _ = thread.join();
        }
        match self.failed() {
            Some(reason) => Err(LogError::Failed { reason }),
            None => Ok(self.position()),
        }
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the log was closed after it had stopped");
        }
    }
}

/// A change that is on its way into the log.
#[derive(Debug)]
#[must_use = "a change is acknowledged only once its ticket was waited for"]
pub struct Ticket {
    answer: Receiver<Result<Seq, LogError>>,
}

impl Ticket {
    /// Waits until the change is durable and applied. Returns its seq.
    ///
    /// # Errors
    /// [`LogError::NotWritten`]: the change is not in the log. [`LogError::Failed`]: whether the change is in the log
    /// shows only when the log is read again.
    pub fn wait(self) -> Result<Seq, LogError> {
        self.answer.recv().unwrap_or_else(|_| Err(LogError::Failed { reason: ENDED.into() }))
    }
}

const ENDED: &str = "the thread that writes the log ended before its work was done";

/// Marks the log as stopped when the writer thread ends by a panic.
struct Ending<'a> {
    queue: &'a Queue,
    finished: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.queue.fail(ENDED);
        }
    }
}

fn run(mut writer: LogWriter, mut apply: Apply, queue: &Queue) {
    let mut ending = Ending { queue, finished: false };
    loop {
        let outcome = match queue.next_work() {
            Work::Finish => {
                if let Outcome::NotWritten { reason, .. } = settle(writer.close(), &writer, queue) {
                    tracing::warn!(reason, "the length of the log was not noted");
                }
                break;
            }
            Work::Rotate(answer) => {
                let outcome = settle(writer.rotate(), &writer, queue);
                send(&answer, outcome.answer(writer.position().last_seq));
                outcome
            }
            Work::Group(group) => commit(&mut writer, &mut apply, queue, group),
        };
        match outcome {
            Outcome::Done => {}
            Outcome::NotWritten { reason, .. } => tracing::warn!(reason, "the disk refused a group of changes"),
            Outcome::Failed { reason } => {
                tracing::error!(reason, "the log stops: the disk failed");
                break;
            }
        }
    }
    ending.finished = true;
}

/// Appends and syncs a group, then applies it, then answers it.
fn commit(writer: &mut LogWriter, apply: &mut Apply, queue: &Queue, group: Vec<Waiting>) -> Outcome {
    let first = writer.position().last_seq.next();
    let (mut records, mut changes, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for waiting in group {
        records.push(waiting.record);
        changes.push(waiting.change);
        answers.push(waiting.answer);
    }
    let appended = writer.append_group(&mut records).map(drop);
    // The bytes are on disk, or never will be: what follows needs the changes alone.
    drop(records);
    let seqs = (first.0..).map(Seq);
    if appended.is_ok() {
        seqs.clone().zip(changes).for_each(|(seq, change)| apply(seq, change));
    }
    let outcome = settle(appended, writer, queue);
    for (seq, answer) in seqs.zip(answers) {
        send(&answer, outcome.answer(seq));
    }
    outcome
}

/// What became of a group, in a form that many can be told.
enum Outcome {
    Done,
    NotWritten { reason: String, disk_full: bool },
    Failed { reason: String },
}

impl Outcome {
    fn answer(&self, seq: Seq) -> Result<Seq, LogError> {
        match self {
            Self::Done => Ok(seq),
            Self::NotWritten { reason, disk_full } => {
                Err(LogError::NotWritten { reason: reason.clone(), disk_full: *disk_full })
            }
            Self::Failed { reason } => Err(LogError::Failed { reason: reason.clone() }),
        }
    }
}

/// Makes an outcome known to the queue before any ticket learns of it, so that nobody who was told of a failure can
/// submit once more.
fn settle(done: Result<(), LogError>, writer: &LogWriter, queue: &Queue) -> Outcome {
    match done {
        Ok(()) => {
            queue.set_position(writer.position());
            Outcome::Done
        }
        Err(LogError::NotWritten { reason, disk_full }) => Outcome::NotWritten { reason, disk_full },
        Err(error) => {
            let reason = match error {
                LogError::Failed { reason } => reason,
                other => other.to_string(),
            };
            queue.fail(&reason);
            Outcome::Failed { reason }
        }
    }
}
