//! `migrate --target postgres`: a directory of SQL files against a database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::super::connect::{ConnectArgs, runtime};
use super::super::{CliError, Context, output};
use super::MigrateCommand;
use crate::postgres::Session;
use crate::sqlmigrate::{
    Applied, DEFAULT_TABLE, MigrateError, Migrator, Options, Status, Step, Version, read_directory, restore, scaffold,
};

/// Longest that a step of a restore may take.
const RESTORE_LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// Where migrations are looked for.
const DEFAULT_DIR: &str = "schema/migrations";
/// Where tables are copied to.
const DEFAULT_SNAPSHOTS: &str = "schema/snapshots";
/// Seconds that a statement may wait for a lock.
const DEFAULT_LOCK_TIMEOUT: u64 = 30;

/// Options of migrations of a Postgres.
#[derive(Args, Debug)]
#[command(next_help_heading = "Migrations of Postgres")]
pub struct PostgresMigrateArgs {
    /// Directory of migrations, where one was named.
    #[arg(skip)]
    dir: Option<PathBuf>,
    /// Table that says what was applied
    #[arg(long, value_name = "TABLE", default_value = DEFAULT_TABLE, global = true)]
    table: String,
    /// Leave out our own steps: the schema `pannier` and the extension `vector`
    #[arg(long, global = true)]
    skip_own: bool,
    /// Where tables are copied before they are changed
    #[arg(long, value_name = "DIR", default_value = DEFAULT_SNAPSHOTS, global = true)]
    snapshots: PathBuf,
    /// Whether tables are not copied before they are changed.
    #[arg(skip)]
    no_snapshot: bool,
    /// Go on where an applied migration has no file
    #[arg(long, global = true)]
    allow_missing: bool,
    /// Seconds that a statement may wait for a lock on a table
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LOCK_TIMEOUT, global = true)]
    lock_timeout: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs a command on migrations of a Postgres.
///
/// # Errors
/// [`CliError::Refused`] with the file and line at fault.
pub(super) fn run(command: &MigrateCommand, args: &PostgresMigrateArgs, context: &Context) -> Result<(), CliError> {
    match command {
        MigrateCommand::New { name, dry_run } => new(args, name, *dry_run, context),
        MigrateCommand::Status => status(args, context),
        MigrateCommand::Up { to, dry_run } => migrate(args, Way::Up, to.map(Version), *dry_run, context),
        MigrateCommand::Down { to, dry_run } => migrate(args, Way::Down, to.map(Version), *dry_run, context),
        MigrateCommand::Restore { snapshot, dry_run } => put_back(args, snapshot, *dry_run, context),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

fn new(args: &PostgresMigrateArgs, name: &str, dry_run: bool, context: &Context) -> Result<(), CliError> {
    for path in scaffold(args.dir(), name, dry_run).map_err(refused)? {
        output::line(path.display())?;
    }
    if dry_run {
        output::hint(context, "Dry run: nothing was written");
    }
    Ok(())
}

impl PostgresMigrateArgs {
    /// The first of these options that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            ("--table", self.table != DEFAULT_TABLE),
            ("--skip-own", self.skip_own),
            ("--snapshots", self.snapshots != Path::new(DEFAULT_SNAPSHOTS)),
            ("--allow-missing", self.allow_missing),
            ("--lock-timeout", self.lock_timeout != DEFAULT_LOCK_TIMEOUT),
        ];
        let given = given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name);
        given.or_else(|| self.connect.given())
    }

    /// With what every target takes.
    pub(super) fn completed(self, dir: Option<PathBuf>, no_snapshot: bool) -> Self {
        Self { dir, no_snapshot, ..self }
    }

    fn options(&self, dry_run: bool) -> Options {
        Options {
            table: self.table.clone(),
            with_own: !self.skip_own,
            snapshots: (!self.no_snapshot).then(|| self.snapshots.clone()),
            dry_run,
            allow_missing: self.allow_missing,
            lock_timeout: Duration::from_secs(self.lock_timeout),
        }
    }

    fn dir(&self) -> &Path {
        self.dir.as_deref().unwrap_or(Path::new(DEFAULT_DIR))
    }

    /// The steps of the directory; none where none was named and the usual one is missing.
    fn steps(&self, context: &Context) -> Result<Vec<Step>, CliError> {
        let dir = self.dir();
        if dir.exists() {
            return read_directory(dir).map_err(refused);
        }
        let missing = format!("there is no directory {}", dir.display());
        if self.dir.is_some() {
            return Err(CliError::Refused(missing));
        }
        output::hint(context, format!("{missing}; name it with --dir, or begin with `migrate new`"));
        Ok(Vec::new())
    }
}

fn status(args: &PostgresMigrateArgs, context: &Context) -> Result<(), CliError> {
    let steps = args.steps(context)?;
    let settings = args.connect.found()?.settings;
    let (own, files) = runtime()?.block_on(async {
        let migrator = Migrator::connect(settings, steps, args.options(false)).await.map_err(refused)?;
        migrator.status().await.map_err(refused)
    })?;
    if context.json {
        return output::json(json!({"own": json_of(&own), "files": json_of(&files)}));
    }
    let (applied, pending) = (own.applied.len() + files.applied.len(), own.pending.len() + files.pending.len());
    output::line(format!("Applied {applied}, pending {pending}"))?;
    if !own.applied.is_empty() {
        output::line(format!("     {} of them our own", own.applied.len()))?;
    }
    for applied in &files.applied {
        let name = applied.name.as_deref().unwrap_or("(no name)");
        let note = match (applied.has_file, applied.is_changed) {
            (false, _) => "  (its file is missing)",
            (true, true) => "  (its file was changed since)",
            (true, false) => "",
        };
        let at = applied.applied_at.as_deref().unwrap_or("-");
        output::line(format!("     {} {name}  {at}{note}", applied.version))?;
    }
    for step in &own.pending {
        output::line(format!("  -> {} (our own)", step.name))?;
    }
    for step in &files.pending {
        output::line(format!("  -> {} {}{}", step.version, step.name, describe(step)))?;
    }
    Ok(())
}

fn describe(step: &Step) -> String {
    let mut notes = Vec::new();
    if step.is_alone {
        notes.push("without a transaction".to_owned());
    }
    if !step.has_down {
        notes.push("no way back".to_owned());
    }
    if !step.depends.is_empty() {
        let versions: Vec<String> = step.depends.iter().map(Version::to_string).collect();
        notes.push(format!("after {}", versions.join(", ")));
    }
    if notes.is_empty() { String::new() } else { format!("  ({})", notes.join("; ")) }
}

fn json_of(status: &Status) -> Value {
    let applied: Vec<Value> = status
        .applied
        .iter()
        .map(|step| {
            json!({"version": step.version.0, "name": step.name, "applied_at": step.applied_at,
                "file": step.has_file, "changed": step.is_changed})
        })
        .collect();
    let pending = status.pending.iter().map(|step| {
        json!({"version": step.version.0, "name": step.name, "transaction": !step.is_alone, "down": step.has_down})
    });
    json!({"applied": applied, "pending": pending.collect::<Vec<_>>()})
}

fn migrate(
    args: &PostgresMigrateArgs,
    way: Way,
    to: Option<Version>,
    dry_run: bool,
    context: &Context,
) -> Result<(), CliError> {
    let steps = args.steps(context)?;
    let settings = args.connect.found()?.settings;
    let mut all: Vec<Applied> = Vec::new();
    let done = runtime()?.block_on(async {
        let migrator = Migrator::connect(settings, steps, args.options(dry_run)).await?;
        let mut done = |applied: &Applied| {
            if !context.json {
                print(applied, way, dry_run, context);
            }
            all.push(applied.clone());
        };
        match way {
            Way::Up => migrator.up(to, &mut done).await,
            Way::Down => migrator.down(to, &mut done).await,
        }
    });
    let mut told = Ok(());
    if context.json {
        let steps: Vec<Value> = all.iter().map(json_of_applied).collect();
        told = output::json(json!({"steps": steps, "dry_run": dry_run}));
    }
    // What the database refused says more than a stdout that cannot be written.
    done.map_err(refused).and(told)?;
    if all.is_empty() {
        output::hint(context, "There is nothing to do");
    }
    if dry_run {
        output::hint(context, "Dry run: nothing was changed");
    }
    Ok(())
}

fn print(applied: &Applied, way: Way, dry_run: bool, context: &Context) {
    let Applied { version, name, statements, was_run, snapshot } = applied;
    let what = match (way, dry_run) {
        _ if !was_run => "not tried, for it cannot run in a transaction",
        (Way::Up, false) => "applied",
        (Way::Up, true) => "can be applied",
        (Way::Down, false) => "taken back",
        (Way::Down, true) => "can be taken back",
    };
    output::hint(context, format!("  {version} {name}: {what} ({})", output::counted(*statements as u64, "statement")));
    for table in snapshot {
        let (bytes, dir) = (output::bytes(table.bytes), table.dir.display());
        output::hint(context, format!("      {} copied before, {bytes}: {dir}", table.table));
    }
}

fn json_of_applied(applied: &Applied) -> Value {
    let snapshot: Vec<Value> = applied
        .snapshot
        .iter()
        .map(|table| json!({"table": table.table, "bytes": table.bytes, "dir": output::path(&table.dir)}))
        .collect();
    json!({"version": applied.version.0, "name": applied.name, "statements": applied.statements,
        "run": applied.was_run, "snapshot": snapshot})
}

fn put_back(
    args: &PostgresMigrateArgs,
    snapshot: &std::path::Path,
    dry_run: bool,
    context: &Context,
) -> Result<(), CliError> {
    let settings = args.connect.found()?.settings.with_statement_timeout(RESTORE_LIMIT);
    let restored = runtime()?.block_on(async {
        let session = Session::connect(&settings).await.map_err(MigrateError::from)?;
        restore(&session, snapshot, Duration::from_secs(args.lock_timeout), dry_run).await
    });
    let restored = restored.map_err(refused)?;
    if context.json {
        let tables: Vec<Value> = restored
            .iter()
            .map(|table| json!({"table": table.table, "rows": table.rows, "made": table.was_made}))
            .collect();
        return output::json(json!({"tables": tables, "dry_run": dry_run}));
    }
    for table in &restored {
        let made = if table.was_made { ", made again" } else { "" };
        output::line(format!("{}: {}{made}", table.table, output::counted(table.rows, "row")))?;
    }
    if dry_run {
        output::hint(context, "Dry run: nothing was changed");
    }
    Ok(())
}

fn refused(error: MigrateError) -> CliError {
    CliError::Other(Box::new(error))
}
