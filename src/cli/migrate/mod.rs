//! `migrate`: what of a store is of an older format, and bringing it to the present one.

mod store;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{CliError, Context};

/// What is migrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MigrateTarget {
    /// The data directory.
    #[default]
    Store,
}

/// Arguments of `migrate`.
#[derive(Args, Debug)]
#[command(after_help = "\
A step changes one file after another, each in one step, and goes on where it was interrupted. A snapshot is taken before
anything changes; `pannier snapshot restore` brings it back.")]
pub struct MigrateArgs {
    /// What is migrated
    #[arg(long, value_name = "TARGET", default_value = "store", global = true)]
    target: MigrateTarget,
    #[command(subcommand)]
    command: MigrateCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Show which steps are applied and which are pending
    Status {
        /// Also what each step does, and when it was applied
        #[arg(long, short)]
        verbose: bool,
    },
    /// Run the pending steps
    Up(RunArgs),
    /// Undo the step applied last
    Down(RunArgs),
    /// Write the beginning of a new step, for developers of this program
    New {
        /// Its name: a-z, 0-9 and _
        name: String,
        /// Where the steps are
        #[arg(long, value_name = "DIR", default_value = "src/migrate/steps")]
        dir: PathBuf,
    },
}

/// How steps are run.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Run them on a copy that shares the store's files, and say what changed there
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Also what each step does
    #[arg(long, short)]
    verbose: bool,
    /// Take no snapshot before
    #[arg(long)]
    no_snapshot: bool,
}

/// Runs a command on migrations.
///
/// # Errors
/// [`CliError::Migrate`]; its kinds have exit codes of their own.
pub(super) fn run(args: &MigrateArgs, context: &Context) -> Result<(), CliError> {
    match args.target {
        MigrateTarget::Store => store::run(&args.command, context),
    }
}
