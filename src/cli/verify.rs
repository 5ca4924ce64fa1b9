//! `verify`: reads every stored byte again.

use clap::Args;
use serde_json::json;

use super::{CliError, Context, output};
use crate::http::check_sources;
use crate::migrate::Migrations;
use crate::snapshot;
use crate::storage::DataPaths;

/// Arguments of `verify`.
#[derive(Args, Debug)]
#[command(after_help = "\
The directory is opened as a server opens it: a write that was never answered is cut off the end of the log, and what is
derived and missing (document index, keyword index) is made again. It needs write access. A store that does not open is not
read further: the error names the damage that was met.")]
pub struct VerifyArgs {
    /// Read every snapshot too
    #[arg(long)]
    snapshots: bool,
}

/// Runs `verify`. The directory is opened as a server would open it, so no server may hold it.
///
/// # Errors
/// [`CliError::Damaged`], or [`CliError::SnapshotDamaged`] where the store itself is sound, after every problem was
/// printed.
pub(super) fn run(args: &VerifyArgs, context: &Context) -> Result<(), CliError> {
    let holds_something = std::fs::read_dir(&context.data).is_ok_and(|mut entries| entries.next().is_some());
    if !holds_something {
        return Err(CliError::Refused(format!("there is no data directory at {}", context.data.display())));
    }
    context.refuse_server("verify reads the data directory itself: stop the server")?;
    let database = context.open()?;
    let bar = output::byte_progress(context, Some(0));
    let report = database.verify(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let mut report = report?;
    report.problems.extend(Migrations::check_journal(&context.data).err().map(|error| error.to_string()));
    report.problems.extend(check_sources(&context.data));
    let (mut snapshots, mut in_snapshots) = (0, Vec::new());
    if args.snapshots {
        for found in snapshot::list(&context.data)? {
            snapshots += 1;
            bar.set_message(format!("snapshot {}", found.name));
            in_snapshots.extend(snapshot_problems(found, &bar));
        }
    }
    bar.finish_and_clear();
    let in_store = report.problems.len();
    report.problems.extend(in_snapshots);
    let recovered = database.recovered();
    if context.json {
        output::json(json!({
            "segments": report.segments, "bytes": report.bytes, "rows": report.rows, "dead_rows": report.dead_rows,
            "field_indexes": report.field_indexes, "snapshots": snapshots, "problems": report.problems,
            "replayed": recovered.replayed, "torn_bytes": recovered.torn_bytes, "last_seq": recovered.last_seq.0,
        }))?;
    } else {
        report.problems.iter().for_each(|problem| output::complain(format!("damaged: {problem}")));
        output::line(format!(
            "{} with {} and {} read; {} replayed from the log",
            output::counted(report.segments, "segment"),
            output::counted(report.rows, "document"),
            output::bytes(report.bytes),
            output::counted(recovered.replayed, "change"),
        ))?;
        if recovered.torn_bytes > 0 {
            let torn = output::bytes(recovered.torn_bytes);
            output::line(format!("{torn} of a write that was never answered were cut off the end of the log"))?;
        }
        if args.snapshots {
            output::line(format!("{} read", output::counted(snapshots, "snapshot")))?;
        }
    }
    match (in_store, report.problems.len()) {
        (0, 0) => Ok(()),
        (0, count) => Err(CliError::SnapshotDamaged { path: DataPaths::new(&context.data).snapshots_dir(), count }),
        (count, _) => Err(CliError::Damaged { path: context.data.clone(), count }),
    }
}

/// What is wrong with a snapshot.
fn snapshot_problems(found: snapshot::Found, bar: &indicatif::ProgressBar) -> Vec<String> {
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    match found.snapshot.and_then(|snapshot| snapshot::verify(&snapshot, &mut progress)) {
        Ok(report) => report.problems,
        Err(error) => vec![error.to_string()],
    }
}
