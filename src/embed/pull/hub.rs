//! The model hub as a source, through hf-hub, with limits on its silence.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use super::directory::Directory;
use super::{Opened, Source, SourceError};
use crate::embed::files::{ModelFile, model_files};
use crate::embed::registry::KnownModel;
use crate::embed::settings::MODULES_FILE;
use crate::embed::{EmbedError, PullProgress};
use crate::storage::remove_dir_all;
use crate::types::{Chain, panic_message};

/// A host that cannot be reached should not hold up the next source for longer.
const FIRST_ANSWER: Duration = Duration::from_secs(6);
/// Signs of a part that is as long as the file or longer, as the client words them.
const CANNOT_CONTINUE: [&str; 2] = ["Invalid part file", "status code 416"];
/// How long a transfer may pause.
const STALL: Duration = Duration::from_secs(30);

/// The hub's repository of the model's name. `HF_ENDPOINT`, `HF_HOME` and the token in it are honoured.
pub(super) struct Hub {
    known: &'static KnownModel,
    /// Downloads so far; a transfer that broke off is continued here.
    staging: PathBuf,
    /// The hub's address, where it is not the client's default.
    endpoint: Option<String>,
    /// How long the hub may take to answer at all.
    first_answer: Duration,
    /// Whether the hub has answered before.
    answered: bool,
    /// The commit that all files are taken of, where the hub has told it.
    commit: Option<String>,
}

enum Event {
    Total(u64),
    Bytes(u64),
    Done(Result<PathBuf, String>),
}

/// The snapshot that another program of this user has fetched already, if it is complete.
pub(super) fn cached(known: &'static KnownModel) -> Option<Directory> {
    cached_in(Cache::from_env(), known)
}

/// As [`cached`], in a cache elsewhere.
pub(super) fn cached_in(cache: Cache, known: &'static KnownModel) -> Option<Directory> {
    let repository = cache.repo(repository(known, known.revision));
    // Where its files are known, none of them need be modules.json: a cross-encoder has none.
    let mut at_root = known.files.iter().filter(|file| file.required && !file.path.contains('/'));
    let found = repository.get(at_root.next().map_or(MODULES_FILE, |file| file.path))?;
    let snapshot = found.parent()?;
    let files = model_files(Some(known), &snapshot.join(MODULES_FILE)).ok()?;
    let is_whole = files.iter().filter(|file| file.required).all(|file| snapshot.join(&file.path).exists());
    is_whole.then(|| Directory::new("hub cache", snapshot))
}

fn repository(known: &KnownModel, revision: &str) -> Repo {
    Repo::with_revision(known.name.to_owned(), RepoType::Model, revision.to_owned())
}

impl Hub {
    pub(super) fn new(known: &'static KnownModel, staging: PathBuf) -> Self {
        let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
        Self { known, staging, endpoint, first_answer: FIRST_ANSWER, answered: false, commit: None }
    }

    /// A hub at another address and with another patience.
    #[cfg(test)]
    pub(super) fn at(known: &'static KnownModel, staging: PathBuf, endpoint: &str, first_answer: Duration) -> Self {
        Self { known, staging, endpoint: Some(endpoint.to_owned()), first_answer, answered: false, commit: None }
    }

    fn api(&self) -> Result<Api, SourceError> {
        let builder = ApiBuilder::from_env().with_progress(false).with_cache_dir(self.staging.clone());
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.clone()),
            None => builder,
        };
        builder.build().map_err(|e| SourceError::Failed(said(&e)))
    }

    /// The commit at which the registry's revision stands now; `None` of a hub that tells no commits, or has no such
    /// model.
    fn newest_commit(&self) -> Result<Option<String>, SourceError> {
        let (sender, answer) = mpsc::channel();
        let (api, repository) = (self.api()?, repository(self.known, self.known.revision));
        // As a download: what is given up stays blocked on its socket.
        thread::spawn(move || {
            let ask = || api.repo(repository).info().map_err(|e| said(&e));
            let result = catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|p| Err(panic_message(p.as_ref())));
            let _ = sender.send(result);
        });
        match answer.recv_timeout(self.first_answer) {
            Ok(Ok(info)) if is_commit(&info.sha) => Ok(Some(info.sha)),
            Ok(Ok(info)) => Err(SourceError::Failed(format!("{:?} is not the name of a commit", info.sha))),
            Ok(Err(error)) if error.contains("status code 404") => Ok(None),
            Ok(Err(error)) => Err(SourceError::Failed(error)),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = self.first_answer.as_secs();
                Err(SourceError::Failed(format!("its newest commit did not come within {seconds} seconds")))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(SourceError::Failed("the question for its newest commit ended without a result".to_owned()))
            }
        }
    }

    /// Downloads in a thread of its own, since the client has no limit on silence. A thread that is given up stays
    /// blocked on its socket until that fails.
    fn download(
        &mut self,
        file: &ModelFile,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Option<PathBuf>, SourceError> {
        let (sender, events) = mpsc::channel();
        let revision = self.commit.as_deref().unwrap_or(self.known.revision);
        let (api, repository, path) = (self.api()?, repository(self.known, revision), file.path.clone());
        thread::spawn(move || {
            let report = Report(sender.clone());
            let fetch = || api.repo(repository).download_with_progress(&path, report).map_err(|e| said(&e));
            let result = catch_unwind(AssertUnwindSafe(fetch)).unwrap_or_else(|p| Err(panic_message(p.as_ref())));
            // Nobody listens any more where the download was given up.
            let _ = sender.send(Event::Done(result));
        });
        let (mut done_bytes, mut total_bytes) = (0, None);
        loop {
            let limit = if self.answered { STALL } else { self.first_answer };
            match events.recv_timeout(limit) {
                Ok(Event::Total(total)) => (done_bytes, total_bytes) = (0, Some(total)),
                Ok(Event::Bytes(count)) => {
                    done_bytes += count;
                    let (source, file) = (self.label(), file.path.clone());
                    progress(PullProgress { source, file, done_bytes, total_bytes });
                }
                Ok(Event::Done(Ok(path))) => return Ok(Some(path)),
                Ok(Event::Done(Err(error))) if error.contains("status code 404") => return Ok(None),
                Ok(Event::Done(Err(error))) => return Err(SourceError::Failed(error)),
                Err(RecvTimeoutError::Timeout) => {
                    let error = format!("{} did not come on within {} seconds", file.path, limit.as_secs());
                    return Err(SourceError::Failed(error));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(SourceError::Failed("its download ended without a result".to_owned()));
                }
            }
            self.answered = true;
        }
    }
}

impl Source for Hub {
    fn label(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("model hub {}, {}", without_users(endpoint), self.known.name),
            None => format!("model hub, {}", self.known.name),
        }
    }

    /// Its commit: a branch may be another model's tomorrow.
    fn version(&mut self) -> Result<Option<String>, SourceError> {
        self.commit = self.newest_commit()?;
        self.answered = true;
        Ok(self.commit.as_ref().map(|commit| format!("{}, commit {commit}", self.label())))
    }

    fn open(
        &mut self,
        file: &ModelFile,
        progress: &mut dyn FnMut(PullProgress),
    ) -> Result<Option<Opened<'_>>, SourceError> {
        let path = match self.download(file, progress) {
            Ok(Some(path)) => path,
            Ok(None) => return Ok(None),
            // What an earlier pull left is longer than the file, so it is of another one: once more from nothing.
            Err(SourceError::Failed(error)) if CANNOT_CONTINUE.iter().any(|sign| error.contains(sign)) => {
                remove_dir_all(&self.staging).map_err(EmbedError::from)?;
                let Some(path) = self.download(file, progress)? else { return Ok(None) };
                path
            }
            Err(error) => return Err(error),
        };
        let opened = open(&path)?;
        Ok(Some(opened))
    }
}

/// What the client says of an error. Its addresses may hold what only the hub is to know.
fn said(error: &dyn std::error::Error) -> String {
    without_users(&Chain(error).to_string())
}

/// A text without the users and passwords of the addresses in it.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let ends = |c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace();
        let authority = &part[..part.find(ends).unwrap_or(part.len())];
        let host = authority.rfind('@').map_or(0, |at| at + 1);
        shown.push_str("://");
        shown.push_str(&part[host..]);
    }
    shown
}

/// Whether it is one of git's hashes, and so no path to somewhere else.
fn is_commit(sha: &str) -> bool {
    (7..=64).contains(&sha.len()) && sha.bytes().all(|b| b.is_ascii_hexdigit())
}

fn open(path: &Path) -> Result<Opened<'static>, SourceError> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (size_bytes, file) = opened.map_err(|e| EmbedError::io(path, "open", e))?;
    Ok(Opened { reader: Box::new(file), size_bytes, downloaded: true })
}

/// Passes hf-hub's progress on.
struct Report(Sender<Event>);

impl Progress for Report {
    fn init(&mut self, size: usize, _filename: &str) {
        let _ = self.0.send(Event::Total(size as u64));
    }

    fn update(&mut self, size: usize) {
        let _ = self.0.send(Event::Bytes(size as u64));
    }

    fn finish(&mut self) {}
}
