//! Options that say where a Postgres is, for the commands that go there.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, read_secret};
use crate::postgres::ConnectSettings;
use crate::source::{Found, connection};

/// Where the database is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Database")]
pub struct ConnectArgs {
    /// URL of the database, best without a password [default: DATABASE_URL, or PGVECTOR_*, STAGING_DB_*, SUPABASE_*]
    #[arg(long, global = true, value_name = "URL", conflicts_with_all = ["url_file", "env_prefix"])]
    url: Option<String>,
    /// File that holds the URL
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "env_prefix")]
    url_file: Option<PathBuf>,
    /// Read only the variables that begin so, such as STAGING_DB
    #[arg(long, global = true, value_name = "PREFIX")]
    env_prefix: Option<String>,
}

impl ConnectArgs {
    /// The first of these options that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [("--url", self.url.is_some()), ("--url-file", self.url_file.is_some())];
        let given = given.into_iter().chain([("--env-prefix", self.env_prefix.is_some())]);
        given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }

    /// The connection that was asked for, or that variables describe.
    ///
    /// # Errors
    /// [`CliError::Refused`] when there is none, [`CliError::Io`] when the file cannot be read.
    pub(super) fn found(&self) -> Result<Found, CliError> {
        let of_url = |url: &str, from: String| match ConnectSettings::from_url(url) {
            Ok(settings) => Ok(Found { settings, from }),
            Err(error) => Err(CliError::Usage(error.to_string())),
        };
        if let Some(url) = &self.url {
            return of_url(url, "--url".to_owned());
        }
        if let Some(path) = &self.url_file {
            let shown = path.display().to_string();
            let text = read_secret(path).map_err(|e| CliError::io(format!("read {shown}"), e))?;
            return of_url(&text, shown);
        }
        let lookup = |name: &str| std::env::var(name).ok();
        connection(&lookup, self.env_prefix.as_deref()).map_err(|error| CliError::Refused(error.to_string()))
    }
}

/// A runtime for one command's conversation with a database.
///
/// # Errors
/// [`CliError::Io`] when it cannot be made.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|e| CliError::io("start a thread", e))
}
