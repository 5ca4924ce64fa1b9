//! The `pannier` program: parses, runs, prints what went wrong with its causes, and picks the exit code.

use std::error::Error;
use std::process::ExitCode;

use clap::FromArgMatches;
use pannier::cli::{self, Cli, CliError, Failure, LogFormat};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const LOCKED: u8 = 3;
const DAMAGED: u8 = 4;
const DISK_FAILED: u8 = 5;
const SNAPSHOT_DAMAGED: u8 = 6;
const MIGRATION_PENDING: u8 = 7;
const MIGRATION_UNKNOWN: u8 = 8;
const MIGRATION_HALF_DONE: u8 = 9;

/// Beneath every `--help`; the test below holds it to the constants.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or a part of the input was refused
  2  the arguments are wrong
  3  another process holds the data directory
  4  the data directory is damaged
  5  the disk failed while writing
  6  a snapshot or an archive is damaged, or is none
  7  the store is of an older format: run `pannier migrate up`
  8  the migrations that were applied are not this program's
  9  a migration was begun and not finished: run `pannier migrate up`
  130  a second SIGINT or SIGTERM ended the program at once";

fn main() -> ExitCode {
    let parsed = cli::command().after_help(EXIT_CODES).try_get_matches();
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to do where stderr cannot be written.
            _ = error.print();
            if let Some(variable) = cli::variable_at_fault(&error) {
                cli::say(format!("\nThe value is that of the environment variable {variable}."));
            }
            return ExitCode::from(if error.exit_code() == 0 { 0 } else { USAGE });
        }
    };
    let (format, done_by) = (cli.context.log_format, cli.command.done_by());
    match cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = cli::advice(&error, done_by);
            match format {
                LogFormat::Text => print_error(&error, advice.as_deref()),
                LogFormat::Json => cli::say(json_line(&error, advice.as_deref())),
            }
            ExitCode::from(exit_code(error.failure()))
        }
    }
}

fn exit_code(failure: Failure) -> u8 {
    match failure {
        Failure::General => FAILED,
        Failure::Usage => USAGE,
        Failure::Locked => LOCKED,
        Failure::Damaged => DAMAGED,
        Failure::DiskFailed => DISK_FAILED,
        Failure::SnapshotDamaged => SNAPSHOT_DAMAGED,
        Failure::MigrationPending => MIGRATION_PENDING,
        Failure::MigrationUnknown => MIGRATION_UNKNOWN,
        Failure::MigrationHalfDone => MIGRATION_HALF_DONE,
    }
}

fn print_error(error: &CliError, advice: Option<&str>) {
    cli::say(format!("error: {}", cli::printable(&error.to_string())));
    let mut printed = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some errors quote their cause in their own sentence.
        if !printed.contains(&text) {
            cli::say(format!("  because: {}", cli::printable(&text)));
        }
        printed = text;
        next = cause.source();
    }
    if let Some(advice) = advice {
        cli::say(format!("  {}", cli::printable(advice)));
    }
}

/// The error with its causes as a log line, whichever lines PANNIER_LOG lets through.
fn json_line(error: &CliError, advice: Option<&str>) -> serde_json::Value {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string);
    serde_json::json!({
        "timestamp": jiff::Timestamp::now().to_string(),
        "level": "ERROR",
        "message": error.to_string(),
        "causes": causes.collect::<Vec<_>>(),
        "advice": advice,
        "target": "pannier",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_exit_code() {
        let migrations = [MIGRATION_PENDING, MIGRATION_UNKNOWN, MIGRATION_HALF_DONE];
        for code in [FAILED, USAGE, LOCKED, DAMAGED, DISK_FAILED, SNAPSHOT_DAMAGED].into_iter().chain(migrations) {
            assert!(EXIT_CODES.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
