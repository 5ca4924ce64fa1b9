//! `migrate`: steps that bring a store of an older format to the present one, or change a database, forth and back.

mod postgres;
mod store;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{CliError, Context};

/// Arguments of `migrate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Without --target, the data directory is brought to the present format: a step changes one file after another, each in one
step, and goes on where it was interrupted. A snapshot is taken before; `pannier snapshot restore` brings it back.

Migrations of a Postgres are files NNN_name.sql in a directory, applied in the order of their numbers, each in a transaction.
NNN_name.down.sql is the way back. A line `-- depends: 001, 002` puts a migration after others; `-- no-transaction` lets it run
statements such as CREATE INDEX CONCURRENTLY. Tables that a migration changes are copied before.

Examples:
  pannier migrate status
  pannier migrate up --dry-run
  pannier migrate --target postgres new 'add products'
  pannier migrate --target postgres up --dry-run")]
pub struct MigrateArgs {
    /// What is migrated
    #[arg(long, value_name = "TARGET", default_value = "store", global = true)]
    target: MigrateTarget,
    /// Directory of migrations [default: schema/migrations; for the store's own, src/migrate/steps]
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    /// Take no snapshot before anything changes
    #[arg(long, global = true)]
    no_snapshot: bool,
    /// Do not ask
    #[arg(long, short, global = true)]
    yes: bool,
    /// Also what each step does, and when it was applied
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(flatten)]
    postgres: postgres::PostgresMigrateArgs,
    #[command(subcommand)]
    command: MigrateCommand,
}

impl MigrateArgs {
    /// Whether it writes the files of a new migration, and nothing else.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.command, MigrateCommand::New { .. })
    }
}

/// What can be migrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MigrateTarget {
    /// The data directory.
    #[default]
    Store,
    /// A Postgres database.
    Postgres,
}

/// The commands on migrations.
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Show what is applied and what waits
    Status,
    /// Apply what waits
    Up {
        /// Apply no migration beyond this number
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
        /// Run everything and take it back, or run it on a copy: errors show before anything changes
        #[arg(long)]
        dry_run: bool,
    },
    /// Take the last migration back
    Down {
        /// Take back every migration beyond this number; 0 for all
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
        /// Run everything and take that back
        #[arg(long)]
        dry_run: bool,
    },
    /// Write the files of a new migration
    New {
        /// What it does, in a few words
        name: String,
        /// Only say which files
        #[arg(long)]
        dry_run: bool,
    },
    /// Put tables of Postgres back as they were before a migration
    Restore {
        /// The snapshot's directory, as `up` and `down` named it
        snapshot: PathBuf,
        /// Do it and take it back
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `migrate`.
///
/// # Errors
/// [`CliError::Migrate`] and [`CliError::HalfDone`], whose kinds have exit codes of their own; [`CliError`].
pub(super) fn run(args: MigrateArgs, context: &Context) -> Result<(), CliError> {
    match args.target {
        MigrateTarget::Store => {
            refuse_postgres_options(&args)?;
            store::run(&args, context)
        }
        MigrateTarget::Postgres => {
            context.refuse_server_flag("migrate --target postgres")?;
            let postgres = args.postgres.completed(args.dir, args.no_snapshot);
            postgres::run(&args.command, &postgres, context)
        }
    }
}

/// Options that would do nothing: most likely the target was forgotten.
fn refuse_postgres_options(args: &MigrateArgs) -> Result<(), CliError> {
    let dir = (args.dir.is_some() && !args.is_new()).then_some("--dir");
    match dir.or_else(|| args.postgres.given()) {
        Some(option) => Err(CliError::Usage(format!("{option} needs --target postgres"))),
        None => Ok(()),
    }
}
