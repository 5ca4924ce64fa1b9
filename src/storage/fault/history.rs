//! What happened to the files below a directory, in order, with the bytes: enough to compute every state that a power
//! cut may leave.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Step, lock};

/// Something that happened. Paths are as the program named them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The file is empty now.
    CreateFile {
        path: PathBuf,
    },
    /// The file is there now; it was empty if it was not there before.
    OpenOrCreate {
        path: PathBuf,
    },
    CreateDir {
        path: PathBuf,
    },
    Write {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        path: PathBuf,
        len: u64,
    },
    SyncFile {
        path: PathBuf,
    },
    SyncDir {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    RemoveFile {
        path: PathBuf,
    },
    RemoveDir {
        path: PathBuf,
    },
    /// A test's own mark, such as the number of an answer that a client has seen.
    Mark {
        number: u64,
    },
}

impl Event {
    pub(super) fn of(step: Step<'_>) -> Self {
        let own = Path::to_owned;
        match step {
            Step::CreateFile { path } => Self::CreateFile { path: own(path) },
            Step::OpenOrCreate { path } => Self::OpenOrCreate { path: own(path) },
            Step::CreateDir { path } => Self::CreateDir { path: own(path) },
            Step::Truncate { path, len } => Self::Truncate { path: own(path), len },
            Step::SyncFile { path } => Self::SyncFile { path: own(path) },
            Step::SyncDir { path } => Self::SyncDir { path: own(path) },
            Step::Rename { from, to } => Self::Rename { from: own(from), to: own(to) },
            Step::Link { from, to } => Self::Link { from: own(from), to: own(to) },
            Step::RemoveFile { path } => Self::RemoveFile { path: own(path) },
            Step::RemoveDir { path } => Self::RemoveDir { path: own(path) },
        }
    }
}

#[derive(Debug)]
struct Recording {
    below: PathBuf,
    events: Mutex<Vec<Event>>,
}

static RECORDING: Mutex<Vec<Arc<Recording>>> = Mutex::new(Vec::new());

/// Records one directory until dropped.
#[derive(Debug)]
pub(crate) struct History(Arc<Recording>);

impl History {
    /// Records what happens on paths below `below` from now on.
    pub(crate) fn record(below: &Path) -> Self {
        let recording = Arc::new(Recording { below: below.to_owned(), events: Mutex::default() });
        lock(&RECORDING).push(recording.clone());
        Self(recording)
    }

    /// Puts a mark behind everything that has happened.
    pub(crate) fn mark(&self, number: u64) {
        lock(&self.0.events).push(Event::Mark { number });
    }

    /// What has happened, in order.
    pub(crate) fn events(&self) -> Vec<Event> {
        lock(&self.0.events).clone()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        lock(&RECORDING).retain(|recording| !Arc::ptr_eq(recording, &self.0));
    }
}

/// Makes a change and records it. The change is made under the recording's lock, so that the history has the order in
/// which changes really happened.
pub(super) fn record<T>(
    path: &Path,
    act: impl FnOnce() -> io::Result<T>,
    event: impl FnOnce() -> Event,
) -> io::Result<T> {
    let recording = lock(&RECORDING).iter().find(|recording| path.starts_with(&recording.below)).cloned();
    let Some(recording) = recording else { return act() };
    let mut events = lock(&recording.events);
    let done = act()?;
    events.push(event());
    Ok(done)
}
