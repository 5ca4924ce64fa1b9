//! Applying migrations and taking them back: each in a transaction of its own, one process at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::affected::{affected, drops_attribute};
use super::files::Script;
use super::snapshot::{TakenTable, discard, locked, reached, take};
use super::split::Statement;
use super::table::{DEFAULT_TABLE, OWN_TABLE, Row, Table};
use super::uncopied::Uncopied;
use super::{MigrateError, Status, Step, Version, own, session};
use crate::postgres::{ConnectSettings, Session};

/// Longest time that a statement of a migration may run.
const STATEMENT_LIMIT: Duration = Duration::from_secs(6 * 3_600);

/// How to migrate.
#[derive(Clone, Debug)]
pub struct Options {
    /// The table of applied migrations.
    pub table: String,
    /// Whether our own steps are applied, before those of the files.
    pub with_own: bool,
    /// Where the affected tables are copied to before a migration; `None` for no copy. A dry run copies nothing, but
    /// says what no copy would hold.
    pub snapshots: Option<PathBuf>,
    /// Run everything in one transaction and take it back.
    pub dry_run: bool,
    /// Whether applied migrations may lack their file.
    pub allow_missing: bool,
    /// Longest time that a statement may wait for a lock on a table.
    pub lock_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            table: DEFAULT_TABLE.to_owned(),
            with_own: true,
            snapshots: None,
            dry_run: false,
            allow_missing: false,
            lock_timeout: Duration::from_secs(30),
        }
    }
}

/// A migration that was applied, or would be.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its number.
    pub version: Version,
    /// Its name.
    pub name: String,
    /// Statements run.
    pub statements: usize,
    /// Whether it was tried. In a dry run, what cannot run in a transaction is not.
    pub was_run: bool,
    /// Tables copied before.
    pub snapshot: Vec<TakenTable>,
}

/// A database to migrate, and the steps that there are.
pub struct Migrator {
    settings: ConnectSettings,
    session: Session,
    own: Track,
    files: Track,
    options: Options,
}

/// Steps and the table in which they are noted.
struct Track {
    steps: Vec<Step>,
    table: Table,
}

impl Migrator {
    /// Connects. `steps`: those of [`super::read_directory`].
    ///
    /// # Errors
    /// [`MigrateError::Postgres`].
    pub async fn connect(settings: ConnectSettings, steps: Vec<Step>, options: Options) -> Result<Self, MigrateError> {
        let settings = settings.with_statement_timeout(STATEMENT_LIMIT);
        let session = Session::connect(&settings).await?;
        let own_steps = if options.with_own { own::steps()? } else { Vec::new() };
        let own = Track { steps: own_steps, table: Table::find(&session, OWN_TABLE).await? };
        let files = Track { steps, table: Table::find(&session, &options.table).await? };
        Ok(Self { settings, session, own, files, options })
    }

    /// Where the database stands: our own steps, then those of the files.
    ///
    /// # Errors
    /// [`MigrateError::Table`], [`MigrateError::Postgres`].
    pub async fn status(&self) -> Result<(Status, Status), MigrateError> {
        Ok((self.status_of(&self.own).await?, self.status_of(&self.files).await?))
    }

    async fn status_of(&self, track: &Track) -> Result<Status, MigrateError> {
        Ok(Status::of(&track.steps, &track.table.rows(&self.session).await?))
    }

    /// Applies what waits, up to a version. `done` hears of each. Files without a statement, and those that depend on
    /// one beyond that version, are refused before anything is done.
    ///
    /// # Errors
    /// [`MigrateError`]; migrations before the one that failed stay applied.
    pub async fn up(&self, to: Option<Version>, done: &mut dyn FnMut(&Applied)) -> Result<(), MigrateError> {
        if let Some(version) = to
            && !self.files.steps.iter().any(|step| step.version == version)
        {
            return Err(MigrateError::Unknown { version, place: " among the files" });
        }
        let (own, files) = self.status().await?;
        own.check(&self.own.steps, true)?;
        files.check(&self.files.steps, self.options.allow_missing)?;
        let (wanted, later): (Vec<&Step>, Vec<&Step>) =
            files.pending.iter().partition(|step| to.is_none_or(|to| step.version <= to));
        for step in &wanted {
            let is_later = |version: &&Version| later.iter().any(|step| step.version == **version);
            if let Some(&version) = step.depends.iter().find(is_later) {
                let reason = "which is not applied and lies beyond --to";
                return Err(MigrateError::Dependency { path: step.path.clone(), version, reason });
            }
        }
        let pending: Vec<(&Track, &Step)> = (own.pending.iter().map(|step| (&self.own, step)))
            .chain(wanted.into_iter().map(|step| (&self.files, step)))
            .collect();
        if let Some((_, step)) = pending.iter().find(|(_, step)| step.up.is_empty()) {
            let reason = "it holds no statement; write what it does, or remove the file".to_owned();
            return Err(MigrateError::File { path: step.path.clone(), reason });
        }
        if self.options.dry_run {
            return self.try_all(&pending, done).await;
        }
        for (track, step) in pending {
            if let Some(applied) = self.apply(track, step).await? {
                done(&applied);
            }
        }
        Ok(())
    }

    /// Runs everything in one transaction, which is rolled back.
    async fn try_all(&self, pending: &[(&Track, &Step)], done: &mut dyn FnMut(&Applied)) -> Result<(), MigrateError> {
        self.begin(&self.session).await?;
        let tried = async {
            for (track, step) in pending {
                if !step.is_alone {
                    track.table.ensure(&self.session).await?;
                    self.try_run(&step.path, &step.up).await?;
                    track.table.insert(&self.session, step).await?;
                    self.check_constraints(&step.path).await?;
                    session::forget(&self.session).await?;
                }
                done(&applied(step, step.up.len(), !step.is_alone, Vec::new()));
            }
            Ok(())
        };
        let tried = tried.await;
        self.roll_back().await;
        tried
    }

    /// Applies a step, unless another process has done so meanwhile.
    async fn apply(&self, track: &Track, step: &Step) -> Result<Option<Applied>, MigrateError> {
        if step.is_alone {
            return self.apply_alone(track, step).await;
        }
        self.begin(&self.session).await?;
        let mut snapshot = Vec::new();
        let run = async {
            track.table.ensure(&self.session).await?;
            if is_noted(&track.table.rows(&self.session).await?, step.version) {
                return Ok(None);
            }
            let uncopied;
            (snapshot, uncopied) = self.snapshot(step, &step.path, &step.up).await?;
            self.run(&step.path, &step.up, "; the migration was rolled back").await?;
            self.reset().await?;
            uncopied.check(&self.session, &step.path).await?;
            track.table.insert(&self.session, step).await?;
            Ok(Some(applied(step, step.up.len(), true, snapshot.clone())))
        };
        let result = discarding(self.end(&step.path, run.await).await, &snapshot)?;
        if result.is_some() && !is_noted(&track.table.rows(&self.session).await?, step.version) {
            return Err(MigrateError::CommitLost { version: step.version });
        }
        Ok(result)
    }

    /// Applies a step that runs without a transaction. A second connection holds the lock meanwhile; it reads nothing,
    /// so no index build waits for it.
    async fn apply_alone(&self, track: &Track, step: &Step) -> Result<Option<Applied>, MigrateError> {
        let guard = Session::connect(&self.settings).await?;
        self.begin(&guard).await?;
        track.table.ensure(&self.session).await?;
        if is_noted(&track.table.rows(&self.session).await?, step.version) {
            return Ok(None);
        }
        let after = "; statements before it stay done: mend what it left, such as an invalid index, and run again";
        self.run_alone(&guard, &step.path, &step.up, after).await?;
        track.table.insert(&self.session, step).await?;
        Ok(Some(applied(step, step.up.len(), true, Vec::new())))
    }

    /// Takes applied migrations of the files back, the youngest first: one, or all that are younger than `to`.
    ///
    /// # Errors
    /// [`MigrateError`]; migrations before the one that failed stay taken back.
    pub async fn down(&self, to: Option<Version>, done: &mut dyn FnMut(&Applied)) -> Result<(), MigrateError> {
        let status = self.status_of(&self.files).await?;
        status.check(&self.files.steps, self.options.allow_missing)?;
        let mut applied: Vec<Version> = status.applied.iter().map(|applied| applied.version).collect();
        if let Some(version) = to
            && version != Version(0)
            && !applied.contains(&version)
        {
            return Err(MigrateError::Unknown { version, place: " among the applied ones" });
        }
        // What depends on others was applied after them, whatever its number.
        let place = |version: &Version| self.files.steps.iter().position(|step| step.version == *version);
        applied.sort_by_key(|version| (place(version), *version));
        let chosen: Vec<Version> = match to {
            Some(to) => applied.iter().rev().copied().filter(|version| *version > to).collect(),
            None => applied.iter().rev().copied().take(1).collect(),
        };
        self.take_back(&chosen, &applied, done).await
    }

    async fn take_back(
        &self,
        chosen: &[Version],
        applied: &[Version],
        done: &mut dyn FnMut(&Applied),
    ) -> Result<(), MigrateError> {
        // Everything is looked at before anything is done.
        let mut backward = Vec::new();
        for &version in chosen {
            let step = self.files.steps.iter().find(|step| step.version == version);
            let step = step.ok_or(MigrateError::Missing { version })?;
            let script = step.down.as_ref().filter(|script| !script.statements.is_empty());
            let script = script.ok_or_else(|| MigrateError::NoWayBack { path: step.path.clone() })?;
            let needs = |other: &&Step| other.depends.contains(&version) && applied.contains(&other.version);
            let stays = |other: &&Step| !chosen.contains(&other.version);
            if let Some(other) = self.files.steps.iter().filter(stays).find(needs) {
                return Err(MigrateError::DependedOn { version, by: other.version });
            }
            backward.push((step, script));
        }
        if self.options.dry_run {
            return self.try_back(&backward, done).await;
        }
        for (step, script) in backward {
            if let Some(applied) = self.back(step, script).await? {
                done(&applied);
            }
        }
        Ok(())
    }

    async fn try_back(
        &self,
        backward: &[(&Step, &Script)],
        done: &mut dyn FnMut(&Applied),
    ) -> Result<(), MigrateError> {
        self.begin(&self.session).await?;
        let tried = async {
            let rows = self.files.table.rows(&self.session).await?;
            for (step, script) in backward.iter().filter(|(step, _)| is_noted(&rows, step.version)) {
                if !script.is_alone {
                    self.try_run(&script.path, &script.statements).await?;
                    self.check_constraints(&script.path).await?;
                    session::forget(&self.session).await?;
                }
                done(&self::applied(step, script.statements.len(), !script.is_alone, Vec::new()));
            }
            Ok(())
        };
        let tried = tried.await;
        self.roll_back().await;
        tried
    }

    /// Takes a step back, unless another process has done so meanwhile.
    async fn back(&self, step: &Step, script: &Script) -> Result<Option<Applied>, MigrateError> {
        if script.is_alone {
            let guard = Session::connect(&self.settings).await?;
            self.begin(&guard).await?;
            if !is_noted(&self.files.table.rows(&self.session).await?, step.version) {
                return Ok(None);
            }
            self.run_alone(&guard, &script.path, &script.statements, "; statements before it stay done").await?;
            self.files.table.remove(&self.session, step.version).await?;
            return Ok(Some(applied(step, script.statements.len(), true, Vec::new())));
        }
        self.begin(&self.session).await?;
        let mut snapshot = Vec::new();
        let run = async {
            if !is_noted(&self.files.table.rows(&self.session).await?, step.version) {
                return Ok(None);
            }
            let uncopied;
            (snapshot, uncopied) = self.snapshot(step, &script.path, &script.statements).await?;
            self.run(&script.path, &script.statements, "; the migration stays applied").await?;
            self.reset().await?;
            uncopied.check(&self.session, &script.path).await?;
            self.files.table.remove(&self.session, step.version).await?;
            Ok(Some(applied(step, script.statements.len(), true, snapshot.clone())))
        };
        discarding(self.end(&script.path, run.await).await, &snapshot)
    }

    /// Copies what statements of the file `path` change, as far as their text says; and what they must not take from
    /// other tables.
    async fn snapshot(
        &self,
        step: &Step,
        path: &Path,
        statements: &[Statement],
    ) -> Result<(Vec<TakenTable>, Uncopied), MigrateError> {
        let Some(dir) = &self.options.snapshots else { return Ok(Default::default()) };
        if drops_attribute(statements) {
            let (version, name) = (step.version, &step.name);
            tracing::warn!(%version, name, "ALTER TYPE .. DROP ATTRIBUTE: of the tables with columns of that type only those \
                are copied that the file names, be it with LOCK TABLE");
        }
        let names = locked(&self.session, path, &affected(statements)).await?;
        let uncopied = Uncopied::before(&self.session, &names).await?;
        Ok((take(&self.session, &names, dir, step).await?, uncopied))
    }

    /// Runs a file whose transaction is rolled back.
    async fn try_run(&self, path: &Path, statements: &[Statement]) -> Result<(), MigrateError> {
        let mut uncopied = Uncopied::default();
        if self.options.snapshots.is_some() {
            let names = reached(&self.session, &affected(statements)).await?;
            uncopied = Uncopied::before(&self.session, &names).await?;
        }
        self.run(path, statements, "; nothing was changed").await?;
        self.reset().await?;
        uncopied.check(&self.session, path).await
    }

    /// Runs a file without a transaction, while another session holds the lock.
    async fn run_alone(
        &self,
        guard: &Session,
        path: &Path,
        statements: &[Statement],
        after: &'static str,
    ) -> Result<(), MigrateError> {
        session::forget(&self.session).await?;
        session::lift_limits(&self.session).await?;
        self.run(path, statements, after).await?;
        self.reset().await?;
        // It was idle all the while.
        let held = guard.batch("go on holding the lock of migrations", "select 1").await;
        held.map_err(|source| MigrateError::LockLost { path: path.to_owned(), source })
    }

    /// Begins a transaction under the lock.
    async fn begin(&self, session: &Session) -> Result<(), MigrateError> {
        Ok(session::begin(session, self.options.lock_timeout).await?)
    }

    /// Takes back what a migration's statements set for the session, before the migration is noted.
    async fn reset(&self) -> Result<(), MigrateError> {
        Ok(session::reset(&self.session, self.options.lock_timeout).await?)
    }

    /// Looks at deferred constraints as a COMMIT would. They wait as before then: the next step of a dry run finds them
    /// as its own transaction would.
    async fn check_constraints(&self, path: &Path) -> Result<(), MigrateError> {
        let sql = "savepoint pannier_constraints; set constraints all immediate; \
                   rollback to savepoint pannier_constraints; release savepoint pannier_constraints";
        let checked = self.session.batch("look at the deferred constraints", sql).await;
        checked.map_err(|source| MigrateError::CommitRefused { path: path.to_owned(), source })
    }

    /// Commits what a file did well and rolls back what it did not.
    async fn end<T>(&self, path: &Path, result: Result<T, MigrateError>) -> Result<T, MigrateError> {
        match result {
            Ok(value) => match self.session.batch("commit a migration", "commit").await {
                Ok(()) => Ok(value),
                Err(source) if !source.ends_session() => {
                    Err(MigrateError::CommitRefused { path: path.to_owned(), source })
                }
                Err(error) => Err(error.into()),
            },
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    async fn roll_back(&self) {
        // A connection that broke has rolled back by itself.
        if let Err(error) = self.session.batch("roll back a migration", "rollback").await {
            tracing::debug!(%error, "a migration could not be rolled back; the server does when the connection ends");
        }
    }

    async fn run(&self, path: &Path, statements: &[Statement], after: &'static str) -> Result<(), MigrateError> {
        for statement in statements {
            let run = self.session.batch("run a migration's statement", &statement.text).await;
            run.map_err(|source| MigrateError::Failed {
                path: path.to_owned(),
                line: statement.line,
                statement: statement.head(),
                after,
                source,
            })?;
        }
        Ok(())
    }
}

fn applied(step: &Step, statements: usize, was_run: bool, snapshot: Vec<TakenTable>) -> Applied {
    Applied { version: step.version, name: step.name.clone(), statements, was_run, snapshot }
}

/// Removes the snapshot of what failed. It stays where a connection broke, which may have been after a COMMIT.
fn discarding<T>(done: Result<T, MigrateError>, snapshot: &[TakenTable]) -> Result<T, MigrateError> {
    let is_unsure = |error: &MigrateError| matches!(error, MigrateError::Postgres(error) if error.ends_session());
    if let (Err(error), Some(taken)) = (&done, snapshot.first())
        && !is_unsure(error)
    {
        discard(&taken.dir);
    }
    done
}

fn is_noted(rows: &[Row], version: Version) -> bool {
    rows.iter().any(|row| row.version == version)
}
