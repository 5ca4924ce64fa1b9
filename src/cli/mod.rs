//! The command line: what every command shares, and one file a command.

mod advice;
mod bench;
mod collection;
mod confirm;
mod connect;
mod doctor;
mod embed;
mod error;
mod export;
mod import;
mod logging;
mod migrate;
mod model;
mod output;
mod read;
mod replicate;
mod salvage;
mod search;
mod serve;
mod signals;
mod snapshot;
mod target;
mod template;
mod verify;

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, Resettable, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args, CommandFactory, Parser, Subcommand};

use crate::database::{Database, Options};
use crate::embed::{Compute, Device, Models, Precision, default_models_dir};
use crate::storage::keep_new_files_to_owner;

pub use advice::{DoneBy, advice};
pub use error::{CliError, Failure};
pub use logging::LogFormat;
pub use output::{printable, say};

/// As it stands on the command line.
const SERVER_FLAG: &str = "--server";
/// Most compute threads: more than any machine has cores for.
const MAX_THREADS: usize = 1_024;
/// Most bytes of a file that holds a secret.
const MAX_SECRET_BYTES: usize = 64 << 10;

/// A vector database beside your application: embeds text on this machine, keeps documents, finds the nearest.
#[derive(Debug, Parser)]
#[command(name = "pannier", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What every command shares.
    #[command(flatten)]
    pub context: Context,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line. Variables that are set and empty count as unset.
pub fn command() -> clap::Command {
    without_empty_variables(Cli::command())
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |argument: &Arg| argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let command =
        command.mut_args(|argument| if is_empty(&argument) { argument.env(Resettable::Reset) } else { argument });
    command.mut_subcommands(without_empty_variables)
}

/// The environment variable that a refused value came from; `None` where it was an argument.
pub fn variable_at_fault(error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    // As clap writes it: `--threads <N>`.
    let flag = text(ContextKind::InvalidArg)?.split(' ').next()?;
    let value = text(ContextKind::InvalidValue)?;
    if is_given(flag) {
        return None;
    }
    let variable = variable_of(&command(), flag.strip_prefix("--")?)?;
    std::env::var(&variable).is_ok_and(|set| set == value).then_some(variable)
}

/// Whether a flag stands on the command line, as `--flag VALUE` or `--flag=VALUE`.
fn is_given(flag: &str) -> bool {
    let is_argument =
        |given: String| given == flag || given.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='));
    std::env::args_os().any(|given| is_argument(given.to_string_lossy().into_owned()))
}

/// The variable that stands for a flag, in a command or those below it.
fn variable_of(command: &clap::Command, flag: &str) -> Option<String> {
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
    let variable = argument.and_then(Arg::get_env).map(|name| name.to_string_lossy().into_owned());
    variable.or_else(|| command.get_subcommands().find_map(|below| variable_of(below, flag)))
}

/// What every command shares.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Context {
    /// Data directory
    #[arg(long, global = true, value_name = "DIR", env = "PANNIER_DATA", default_value = "./pannier-data")]
    pub data: PathBuf,
    /// Server to send the command to, such as http://127.0.0.1:7117, instead of opening the data directory
    #[arg(long, global = true, value_name = "URL", env = "PANNIER_SERVER")]
    pub server: Option<String>,
    /// File that holds the server's API key
    #[arg(long, global = true, value_name = "FILE", env = "PANNIER_API_KEY_FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Directory of the embedding models [default: the user's cache directory]
    #[arg(long, global = true, value_name = "DIR", env = "PANNIER_MODELS")]
    pub models: Option<PathBuf>,
    /// Compute threads [default: all cores]
    #[arg(long, global = true, value_name = "N", env = "PANNIER_THREADS", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,
    /// How embedding models compute; vectors of two precisions differ, so a collection keeps to one
    #[arg(long, global = true, value_name = "KIND", env = "PANNIER_PRECISION", default_value = "float32",
          value_parser = precision_parser())]
    pub precision: Precision,
    /// Where embedding models run: `auto`, `cpu`, or `cuda:0` or `metal:0` and so on in a build for them
    #[arg(long, global = true, value_name = "DEVICE", env = "PANNIER_DEVICE", default_value = "auto",
          value_parser = device)]
    pub device: Device,
    /// Most MiB of vectors kept on disk, so that a text that was embedded before is not embedded again; 0 keeps none
    /// [default: as many as the file of vectors has, 256 where there is none]
    #[arg(long, global = true, value_name = "N", env = "PANNIER_VECTOR_CACHE_MIB",
          value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    pub vector_cache_mib: Option<u32>,
    /// Write results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Never ask: fail where an answer would be needed
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Write neither progress nor hints
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// How log lines are written on stderr; PANNIER_LOG says which, such as `debug` or `pannier=trace`
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(serve::ServeArgs),
    /// Get, list and check embedding models
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Turn texts into vectors
    Embed(embed::EmbedArgs),
    /// Write the documents of a file into a collection
    Import(import::ImportArgs),
    /// Write the documents of a collection as JSON lines, which `import` takes
    Export(export::ExportArgs),
    /// Find the documents nearest to a text, a vector or another document
    Search(search::SearchArgs),
    /// Create, list, show and delete collections
    #[command(subcommand)]
    Collection(collection::CollectionCommand),
    /// Take, list, verify, restore and delete snapshots
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Bring a store of an older format to the present one
    Migrate(migrate::MigrateArgs),
    /// Rescue what can be read of a damaged data directory into a new one
    Salvage(salvage::SalvageArgs),
    /// Try how fields become texts
    #[command(subcommand)]
    Template(template::TemplateCommand),
    /// Keep copies of collections in Postgres
    #[command(subcommand)]
    Replicate(replicate::ReplicateCommand),
    /// Check this machine, the data directory and the model
    Doctor(doctor::DoctorArgs),
    /// Read every stored byte again and compare checksums
    Verify(verify::VerifyArgs),
    /// Measure speed and quality
    Bench(bench::BenchArgs),
}

impl Command {
    /// Whether documents may stand in the files that it makes. Models are for every user of a machine, and the files
    /// of a new migration for whoever works on the program.
    fn writes_documents(&self) -> bool {
        match self {
            Self::Model(_) => false,
            Self::Migrate(args) => !args.is_new(),
            _ => true,
        }
    }
}

impl Context {
    /// How to open a store with these settings.
    pub fn options(&self) -> Options {
        let (models_dir, compute) = (self.models.clone(), self.compute(self.precision));
        let vector_cache_bytes = self.vector_cache_mib.map(|mib| u64::from(mib) << 20);
        Options { models_dir, compute, vector_cache_bytes, ..Options::default() }
    }

    /// Opens the data directory, which no other process may hold.
    ///
    /// # Errors
    /// [`CliError::Open`].
    pub fn open(&self) -> Result<Database, CliError> {
        Ok(Database::open_with(&self.data, self.options())?)
    }

    /// Refuses a server for a command on the data directory itself. `why` begins the sentence.
    ///
    /// # Errors
    /// [`CliError::Usage`] that says how the server was named.
    fn refuse_server(&self, why: &str) -> Result<(), CliError> {
        match &self.server {
            None => Ok(()),
            Some(_) if is_given(SERVER_FLAG) => Err(CliError::Usage(format!("{why} and leave {SERVER_FLAG} out"))),
            Some(_) => Err(CliError::Usage(format!("{why} and unset PANNIER_SERVER"))),
        }
    }

    /// Refuses the flag of a server for a command that runs in this process. The variable is a setting of others.
    ///
    /// # Errors
    /// [`CliError::Usage`].
    fn refuse_server_flag(&self, command: &str) -> Result<(), CliError> {
        if self.server.is_some() && is_given(SERVER_FLAG) {
            return Err(CliError::Usage(format!("{command} runs in this process: leave {SERVER_FLAG} out")));
        }
        Ok(())
    }

    /// The models, without a database.
    pub fn model_store(&self) -> Models {
        self.model_store_of(self.precision)
    }

    /// The models, computing in another precision than is set.
    pub(crate) fn model_store_of(&self, precision: Precision) -> Models {
        Models::computing(self.models.clone().unwrap_or_else(default_models_dir), self.compute(precision))
    }

    fn compute(&self, precision: Precision) -> Compute {
        Compute { threads: self.threads, precision, device: self.device }
    }
}

/// Reads a secret, such as a key, from its file, which may be a pipe; the space around it does not count.
///
/// # Errors
/// The system's; also where there is more than any secret has.
fn read_secret(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_SECRET_BYTES as u64 + 1).read_to_string(&mut text)?;
    match text.len() > MAX_SECRET_BYTES {
        true => Err(io::Error::other(format!("it has more than {MAX_SECRET_BYTES} bytes"))),
        false => Ok(text.trim().to_owned()),
    }
}

/// Reads a number of threads.
fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads = text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= MAX_THREADS);
    threads.ok_or_else(|| format!("write a whole number from 1 to {MAX_THREADS}"))
}

/// Reads a device by its name.
fn device(text: &str) -> Result<Device, String> {
    Device::from_name(text).ok_or_else(|| "write auto, cpu, cuda:0 or metal:0; 0 is the first of its kind".to_owned())
}

/// Reads a precision by its name.
fn precision_parser() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name))
        .map(|name| Precision::from_name(&name).expect("the names are those of the precisions"))
}

/// Runs a parsed command line.
///
/// # Errors
/// [`CliError`], to be printed with its causes; [`CliError::failure`] says which exit code fits.
pub fn run(cli: Cli) -> Result<(), CliError> {
    let Cli { context, command } = cli;
    logging::start(context.log_format, matches!(command, Command::Serve(_)))?;
    if let Some(name) = own_process(&command) {
        context.refuse_server_flag(name)?;
    }
    if command.writes_documents() {
        keep_new_files_to_owner();
    }
    match command {
        Command::Serve(args) => serve::run(&args, &context),
        Command::Model(command) => model::run(&command, &context),
        Command::Embed(args) => embed::run(&args, &context),
        Command::Import(args) => import::run(&args, &context),
        Command::Export(args) => export::run(&args, &context),
        Command::Search(args) => search::run(&args, &context),
        Command::Collection(command) => collection::run(&command, &context),
        Command::Snapshot(command) => snapshot::run(&command, &context),
        Command::Migrate(args) => migrate::run(args, &context),
        Command::Salvage(args) => salvage::run(&args, &context),
        Command::Template(command) => template::run(&command, &context),
        Command::Replicate(command) => replicate::run(&command, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Verify(args) => verify::run(&args, &context),
        Command::Bench(args) => bench::run(args, &context),
    }
}

/// The name of a command that no server carries out.
fn own_process(command: &Command) -> Option<&'static str> {
    match command {
        Command::Serve(_) => Some("serve"),
        Command::Model(_) => Some("model"),
        Command::Embed(_) => Some("embed"),
        Command::Bench(_) => Some("bench"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn what_is_no_secret_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, " s3cret\n").unwrap();
        assert_eq!(read_secret(&file).unwrap(), "s3cret");
        std::fs::write(&file, "x".repeat(MAX_SECRET_BYTES + 1)).unwrap();
        assert!(read_secret(&file).unwrap_err().to_string().contains("more than"));
        assert!(read_secret(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn the_arguments_contradict_nowhere() {
        Cli::command().debug_assert();
    }
}
