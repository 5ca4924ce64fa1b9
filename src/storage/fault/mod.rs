//! What tests do with the changes that pass `disk.rs`: count them, make the Nth fail, or record them.

mod history;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use history::{Event, History};

/// A kind of change to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Write,
    Sync,
    Rename,
    Remove,
    Truncate,
}

/// A change other than a write, about to be made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// The file is empty afterwards.
    CreateFile {
        path: &'a Path,
    },
    /// The file is empty afterwards if it was not there.
    OpenOrCreate {
        path: &'a Path,
    },
    CreateDir {
        path: &'a Path,
    },
    Truncate {
        path: &'a Path,
        len: u64,
    },
    SyncFile {
        path: &'a Path,
    },
    SyncDir {
        path: &'a Path,
    },
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    Link {
        from: &'a Path,
        to: &'a Path,
    },
    RemoveFile {
        path: &'a Path,
    },
    RemoveDir {
        path: &'a Path,
    },
}

impl<'a> Step<'a> {
    fn operation(&self) -> Operation {
        match self {
            Step::CreateFile { .. } | Step::OpenOrCreate { .. } | Step::CreateDir { .. } | Step::Link { .. } => {
                Operation::Create
            }
            Step::Truncate { .. } => Operation::Truncate,
            Step::SyncFile { .. } | Step::SyncDir { .. } => Operation::Sync,
            Step::Rename { .. } => Operation::Rename,
            Step::RemoveFile { .. } | Step::RemoveDir { .. } => Operation::Remove,
        }
    }

    fn path(&self) -> &'a Path {
        match *self {
            Step::CreateFile { path }
            | Step::OpenOrCreate { path }
            | Step::CreateDir { path }
            | Step::Truncate { path, .. }
            | Step::SyncFile { path }
            | Step::SyncDir { path }
            | Step::RemoveFile { path }
            | Step::RemoveDir { path }
            | Step::Link { to: path, .. }
            | Step::Rename { to: path, .. } => path,
        }
    }
}

/// What follows the operation that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Later operations succeed: a passing error of the device.
    Recover,
    /// Every later operation fails too: the process is dead, only what it did before remains.
    Crash,
}

/// Which operations fail, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Only these kinds are counted; empty for all.
    pub(crate) only: &'static [Operation],
    /// The first that fails, counted from 0.
    pub(crate) fail_at: usize,
    pub(crate) then: Then,
    /// The operating system's answer.
    pub(crate) errno: i32,
}

/// Input/output error (EIO on every Unix that we know).
pub(crate) const EIO: i32 = 5;
/// No space left on device.
pub(crate) const ENOSPC: i32 = 28;

#[derive(Debug)]
struct State {
    below: PathBuf,
    plan: Plan,
    seen: Vec<Operation>,
}

static ARMED: Mutex<Vec<Arc<Mutex<State>>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Faults armed for one directory; disarmed when dropped.
#[derive(Debug)]
pub(crate) struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// Fails operation number `fail_at`, counted from 0, among those on paths below `below`.
    pub(crate) fn arm(below: &Path, fail_at: usize, then: Then) -> Self {
        Self::with(below, Plan { only: &[], fail_at, then, errno: EIO })
    }

    /// Fails nothing and lists what happens.
    pub(crate) fn watch(below: &Path) -> Self {
        Self::arm(below, usize::MAX, Then::Recover)
    }

    /// Fails what the plan says.
    pub(crate) fn with(below: &Path, plan: Plan) -> Self {
        let state = Arc::new(Mutex::new(State { below: below.to_owned(), plan, seen: Vec::new() }));
        lock(&ARMED).push(state.clone());
        Self(state)
    }

    /// As [`Faults::arm`], counting only operations of one kind.
    pub(crate) fn arm_only(below: &Path, only: Operation, fail_at: usize, then: Then) -> Self {
        let only: &'static [Operation] = match only {
            Operation::Create => &[Operation::Create],
            Operation::Write => &[Operation::Write],
            Operation::Sync => &[Operation::Sync],
            Operation::Rename => &[Operation::Rename],
            Operation::Remove => &[Operation::Remove],
            Operation::Truncate => &[Operation::Truncate],
        };
        Self::with(below, Plan { only, fail_at, then, errno: EIO })
    }

    /// Whether the operation to fail was reached.
    pub(crate) fn fired(&self) -> bool {
        let state = lock(&self.0);
        state.seen.len() > state.plan.fail_at
    }

    /// The operations that were counted, in order.
    pub(crate) fn seen(&self) -> Vec<Operation> {
        lock(&self.0).seen.clone()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        lock(&ARMED).retain(|state| !Arc::ptr_eq(state, &self.0));
    }
}

static DEAD_SECTORS: Mutex<Vec<(PathBuf, Range<u64>)>> = Mutex::new(Vec::new());

/// Bytes of a file that calls cannot read, as where a sector of the disk died; they can be read again once it is
/// dropped. Maps read them all the same.
#[derive(Debug)]
pub(crate) struct DeadSector(PathBuf);

impl DeadSector {
    pub(crate) fn new(path: &Path, bytes: Range<u64>) -> Self {
        lock(&DEAD_SECTORS).push((path.to_owned(), bytes));
        Self(path.to_owned())
    }
}

impl Drop for DeadSector {
    fn drop(&mut self) {
        lock(&DEAD_SECTORS).retain(|(path, _)| *path != self.0);
    }
}

/// Fails where a dead sector would be read.
pub(super) fn pass_read(path: &Path, offset: u64, len: usize) -> io::Result<()> {
    let end = offset + len as u64;
    match lock(&DEAD_SECTORS).iter().any(|(dead, at)| dead == path && at.start < end && offset < at.end) {
        true => Err(io::Error::from_raw_os_error(EIO)),
        false => Ok(()),
    }
}

/// Makes a change, unless a test wants it to fail: then it has no effect.
pub(super) fn pass<T>(step: Step<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    check(step.operation(), step.path())?;
    history::record(step.path(), act, || Event::of(step))
}

/// Writes, unless a test wants it to fail: then half of the bytes are written, as a full disk or a lost device does.
pub(super) fn pass_write(
    path: &Path,
    offset: u64,
    bytes: &[u8],
    write: impl Fn(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let checked = check(Operation::Write, path);
    let part = if checked.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
    let event = || Event::Write { path: path.to_owned(), offset, bytes: part.to_vec() };
    history::record(path, || write(part), event)?;
    checked
}

fn check(operation: Operation, path: &Path) -> io::Result<()> {
    let armed = lock(&ARMED);
    for state in armed.iter() {
        let mut state = lock(state);
        let plan = state.plan;
        if !path.starts_with(&state.below) || !(plan.only.is_empty() || plan.only.contains(&operation)) {
            continue;
        }
        let number = state.seen.len();
        state.seen.push(operation);
        if number == plan.fail_at || (number > plan.fail_at && plan.then == Then::Crash) {
            return Err(io::Error::from_raw_os_error(plan.errno));
        }
    }
    Ok(())
}
