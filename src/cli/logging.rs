//! Log lines on stderr.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::CliError;

/// The variable that says which log lines are written.
const FILTER_VARIABLE: &str = "PANNIER_LOG";
/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line, for programs.
    Json,
}

/// Installs the subscriber of the process. A server says when it starts and stops; other commands only warn.
///
/// # Errors
/// [`CliError::Usage`] when the variable cannot be understood.
pub(super) fn start(format: LogFormat, is_server: bool) -> Result<(), CliError> {
    let default = if is_server { "warn,pannier=info" } else { "warn" };
    let directives = std::env::var(FILTER_VARIABLE).ok().filter(|value| !value.is_empty());
    let filter =
        EnvFilter::try_new(directives.unwrap_or_else(|| format!("{default}{}", quieted()))).map_err(|error| {
            CliError::Usage(format!("{FILTER_VARIABLE} is not valid: {error}; use for example `debug`"))
        })?;
    // A line that cannot be written, as on a full disk, is lost. The subscriber would complain of it on the same
    // stderr, and panic in the thread that logs.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    // A second subscriber is only there in a test that runs several commands in one process.
    let _ = match format {
        LogFormat::Text => lines.with_ansi(is_coloured()).with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Colours are for terminals, and for those who want them (no-color.org).
fn is_coloured() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}

/// What libraries say that nobody can do anything about.
fn quieted() -> String {
    #[cfg(feature = "text")]
    return format!(",{}", crate::text::QUIETED_LOG);
    #[cfg(not(feature = "text"))]
    String::new()
}
