//! `migrate`: steps that change a database, forth and back.

mod postgres;

use clap::{Args, Subcommand, ValueEnum};

use super::{CliError, Context};

/// Arguments of `migrate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Migrations of a Postgres are files NNN_name.sql in a directory, applied in the order of their numbers, each in a transaction.
NNN_name.down.sql is the way back. A line `-- depends: 001, 002` puts a migration after others; `-- no-transaction` lets it run
statements such as CREATE INDEX CONCURRENTLY. Tables that a migration changes are copied before.

Examples:
  pannier migrate --target postgres new 'add products'
  pannier migrate --target postgres up --dry-run
  pannier migrate --target postgres status")]
pub struct MigrateArgs {
    /// What is migrated
    #[arg(long, value_name = "TARGET", global = true)]
    target: Option<MigrateTarget>,
    #[command(flatten)]
    postgres: postgres::PostgresMigrateArgs,
    #[command(subcommand)]
    command: MigrateCommand,
}

/// What can be migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrateTarget {
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
        /// Run everything and take it back: errors show before anything changes
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
    /// Put tables back as they were before a migration
    Restore {
        /// The snapshot's directory, as `up` and `down` named it
        snapshot: std::path::PathBuf,
        /// Do it and take it back
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `migrate`.
///
/// # Errors
/// [`CliError`].
pub(super) fn run(args: &MigrateArgs, context: &Context) -> Result<(), CliError> {
    match args.target {
        Some(MigrateTarget::Postgres) => postgres::run(&args.command, &args.postgres, context),
        None => Err(CliError::Usage("say what to migrate: --target postgres".to_owned())),
    }
}
