//! What is pending, and doing it: under the directory's lock, journalled, one step after another.

use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;

use crate::manifest::{ManifestError, finish_replacement, refuse_snapshot};
use crate::storage::{
    DataPaths, DirectoryLock, create_dir_all, link_or_copy, list_files_below, remove_dir_all, remove_temporaries,
};

use super::MigrateError;
use super::journal::{Entry, Journal, Outcome};
use super::steps::{Down, STEPS, Step, Work};

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// It was applied, at this time in milliseconds since the Unix epoch; `None` where the store was made as it leaves
    /// it.
    Applied(Option<i64>),
    /// It was begun and not finished.
    HalfDone,
    /// It has work to do.
    Pending,
}

/// A step, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepStatus {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Where it stands.
    pub state: StepState,
    /// What it would do: "rewrites 4 segments, 61 MB" in numbers.
    pub change: Change,
}

/// How much a step writes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What one of them is called.
    pub noun: &'static str,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: &'static str,
    /// What it wrote again.
    pub change: Change,
    /// How long it took.
    pub took_ms: u64,
}

/// The migrations of a data directory that this process holds.
pub struct Migrations {
    paths: DataPaths,
    steps: &'static [Step],
    _lock: Option<DirectoryLock>,
}

/// What is done before anything changes: a snapshot is taken, and whoever asked is asked.
pub type Before<'a> = dyn FnMut() -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

impl Migrations {
    /// Takes the lock of a data directory, which must hold a store.
    ///
    /// # Errors
    /// [`MigrateError::Storage`] when another process has it; [`MigrateError::Manifest`] when there is no store, or a
    /// snapshot.
    pub fn open(data: &Path) -> Result<Self, MigrateError> {
        Self::with_steps(data, STEPS)
    }

    pub(super) fn with_steps(data: &Path, steps: &'static [Step]) -> Result<Self, MigrateError> {
        let paths = DataPaths::new(data);
        // Both before the lock, whose file would be made.
        if !paths.format().exists() && !paths.restore_marker().exists() {
            return Err(ManifestError::NotInitialised { root: data.to_owned() }.into());
        }
        refuse_snapshot(&paths)?;
        let lock = DirectoryLock::acquire_with_directory(paths.lock())?;
        finish_replacement(&paths)?;
        remove_temporaries(paths.root())?;
        remove_dir_all(&paths.dry_run_dir())?;
        Ok(Self { paths, steps, _lock: Some(lock) })
    }

    /// Reads the journal of a store that somebody else may hold.
    ///
    /// # Errors
    /// [`MigrateError::Journal`], [`MigrateError::Modified`], [`MigrateError::Missing`].
    pub fn check_journal(data: &Path) -> Result<(), MigrateError> {
        Self::beside(data).journal().map(drop)
    }

    /// Where every step stands in a store whose lock the caller has; nothing is changed.
    ///
    /// # Errors
    /// As [`Self::status`], and what reading the files' headers fails with.
    pub fn look(data: &Path) -> Result<Vec<StepStatus>, MigrateError> {
        Self::beside(data).status()
    }

    fn beside(data: &Path) -> Self {
        Self { paths: DataPaths::new(data), steps: STEPS, _lock: None }
    }

    /// Where every step stands, in order.
    ///
    /// # Errors
    /// [`MigrateError::Modified`] and [`MigrateError::Missing`] when the journal speaks of other steps than this
    /// program's.
    pub fn status(&self) -> Result<Vec<StepStatus>, MigrateError> {
        let journal = self.journal()?;
        self.steps.iter().map(|step| status_of(step, &journal, &self.paths)).collect()
    }

    /// Runs the pending steps on a copy that shares its files, and says what they did there. Nothing of the store
    /// changes.
    ///
    /// # Errors
    /// What running them would fail with.
    pub fn dry_run(&self) -> Result<Vec<Changed>, MigrateError> {
        self.on_a_copy(|trial| trial.up(&mut || Ok(())))
    }

    /// Undoes the step applied last on such a copy.
    ///
    /// # Errors
    /// What undoing it would fail with.
    pub fn dry_run_down(&self) -> Result<Changed, MigrateError> {
        self.on_a_copy(|trial| trial.down(&mut || Ok(())))
    }

    fn on_a_copy<T>(&self, run: impl FnOnce(&Self) -> Result<T, MigrateError>) -> Result<T, MigrateError> {
        // Below the data directory, so that links are possible.
        let copy = DataPaths::new(self.paths.dry_run_dir());
        remove_dir_all(copy.root())?;
        let trial = Self { paths: copy.clone(), steps: self.steps, _lock: None };
        let outcome = link_store(&self.paths, &copy).and_then(|()| run(&trial));
        remove_dir_all(copy.root())?;
        outcome
    }

    /// Runs the pending steps, in order. `before` is called once, after everything was checked and before anything
    /// changes, and only where something will: it takes the snapshot.
    ///
    /// # Errors
    /// As [`Migrations::status`]; [`MigrateError::Before`]; whatever stops a step. The steps before it stay applied,
    /// and calling this again goes on.
    pub fn up(&self, before: &mut Before<'_>) -> Result<Vec<Changed>, MigrateError> {
        let pending: Vec<&Step> = {
            let status = self.status()?;
            let is_due = |s: &StepStatus| !matches!(s.state, StepState::Applied(_));
            self.steps.iter().zip(&status).filter(|(_, status)| is_due(status)).map(|(step, _)| step).collect()
        };
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        before().map_err(MigrateError::Before)?;
        pending.into_iter().map(|step| self.apply(step)).collect()
    }

    /// Undoes the step applied last.
    ///
    /// # Errors
    /// [`MigrateError::NothingToUndo`], [`MigrateError::NotReversible`], [`MigrateError::HalfDone`].
    pub fn down(&self, before: &mut Before<'_>) -> Result<Changed, MigrateError> {
        let mut journal = self.journal()?;
        if let Some(half) = journal.entries.iter().find(|entry| entry.outcome == Outcome::Begun) {
            return Err(MigrateError::HalfDone { id: half.id, name: half.name.clone() });
        }
        let last = journal.entries.last().and_then(|entry| self.steps.iter().find(|step| step.id == entry.id));
        let Some(step) = last else { return Err(MigrateError::NothingToUndo) };
        let Down::By(down) = step.down else {
            let Down::Impossible(reason) = step.down else { unreachable!("there are two ways") };
            return Err(MigrateError::NotReversible { id: step.id, name: step.name, reason });
        };
        before().map_err(MigrateError::Before)?;
        let started = Instant::now();
        // Killed from here on, the step counts as half done, and `up` brings the store back to a whole state.
        journal.set(entry(step, Outcome::Begun, 0));
        journal.write(&self.paths)?;
        down(&self.paths)?;
        let change = change_of(step, (step.plan)(&self.paths)?);
        journal.remove(step.id);
        journal.write(&self.paths)?;
        Ok(Changed { id: step.id, name: step.name, change, took_ms: millis(started) })
    }

    /// The journal, of which every step is one of ours.
    fn journal(&self) -> Result<Journal, MigrateError> {
        let journal = Journal::read(&self.paths)?;
        for entry in &journal.entries {
            let Some(step) = self.steps.iter().find(|step| step.id == entry.id) else {
                return Err(MigrateError::Missing { id: entry.id, name: entry.name.clone() });
            };
            if step.checksum() != entry.checksum || step.name != entry.name {
                let (applied, known) = (entry.checksum.clone(), step.checksum());
                return Err(MigrateError::Modified { id: entry.id, name: entry.name.clone(), applied, known });
            }
        }
        Ok(journal)
    }

    fn apply(&self, step: &Step) -> Result<Changed, MigrateError> {
        let mut journal = self.journal()?;
        for &needs in step.needs {
            let needed = self.steps.iter().find(|other| other.id == needs);
            let done = needed.map(|other| status_of(other, &journal, &self.paths)).transpose()?;
            if !done.is_some_and(|status| matches!(status.state, StepState::Applied(_))) {
                return Err(MigrateError::Dependency { id: step.id, needs });
            }
        }
        let started = Instant::now();
        let change = change_of(step, (step.plan)(&self.paths)?);
        let begun = entry(step, Outcome::Begun, 0);
        journal.set(begun.clone());
        journal.write(&self.paths)?;
        remove_leftovers(&self.paths)?;
        (step.up)(&self.paths)?;
        let left = (step.plan)(&self.paths)?;
        if left != Work::default() {
            let reason = format!("{} {}s", left.files, step.noun);
            return Err(MigrateError::Unfinished { id: step.id, name: step.name, reason });
        }
        (step.verify)(&self.paths)?;
        let took_ms = millis(started);
        journal.set(Entry { outcome: Outcome::Applied, took_ms, ..begun });
        journal.write(&self.paths)?;
        Ok(Changed { id: step.id, name: step.name, change, took_ms })
    }
}

fn status_of(step: &Step, journal: &Journal, paths: &DataPaths) -> Result<StepStatus, MigrateError> {
    let work = (step.plan)(paths)?;
    let state = match journal.entry(step.id) {
        Some(entry) if entry.outcome == Outcome::Begun => StepState::HalfDone,
        // Whatever the journal says: an older program may have written since.
        _ if work != Work::default() => StepState::Pending,
        entry => StepState::Applied(entry.map(|entry| entry.at_ms)),
    };
    Ok(StepStatus { id: step.id, name: step.name, about: step.about, state, change: change_of(step, work) })
}

fn change_of(step: &Step, work: Work) -> Change {
    Change { files: work.files, bytes: work.bytes, noun: step.noun }
}

fn entry(step: &Step, outcome: Outcome, took_ms: u64) -> Entry {
    let at_ms = Timestamp::now().as_millisecond();
    Entry { id: step.id, name: step.name.to_owned(), checksum: step.checksum(), outcome, at_ms, took_ms }
}

fn millis(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Temporaries of a step that was killed.
fn remove_leftovers(paths: &DataPaths) -> Result<(), MigrateError> {
    remove_temporaries(paths.root())?;
    let files = list_files_below(&paths.segments_dir())?;
    let directories: std::collections::BTreeSet<_> = files.iter().filter_map(|file| file.parent()).collect();
    directories.into_iter().try_for_each(|directory| Ok(remove_temporaries(directory).map(drop)?))
}

/// Everything that steps look at or change, under second names: they never change a file in place.
fn link_store(from: &DataPaths, to: &DataPaths) -> Result<(), MigrateError> {
    create_dir_all(to.root())?;
    let mut files = list_files_below(&from.segments_dir())?;
    let journal = from.root().join(super::JOURNAL_FILE);
    files.extend([from.format(), from.manifest()]);
    files.extend(journal.exists().then_some(journal));
    for file in files {
        let below = file.strip_prefix(from.root()).expect("it was listed below the root");
        let target = to.root().join(below);
        create_dir_all(target.parent().unwrap_or(to.root()))?;
        link_or_copy(&file, &target)?;
    }
    Ok(())
}
