//! `snapshot restore`: verified, swapped in one step, opened once, and only then is the old store given up.

use std::fs;
use std::path::Path;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::super::confirm::confirm;
use super::super::{CliError, Context, output};
use super::SourceArgs;
use crate::snapshot::{self, SnapshotName, Source};
use crate::storage::DataPaths;

/// Arguments of `snapshot restore`.
#[derive(Args, Debug)]
#[command(after_help = "\
Everything is verified before anything changes. The restored store begins a new timeline. What stood in the data
directory is kept in before-restore/ until the restored store was opened once.")]
pub struct RestoreArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Keep what is replaced in before-restore/ also after success
    #[arg(long)]
    keep_replaced: bool,
}

/// Runs `snapshot restore`.
///
/// # Errors
/// [`CliError::Snapshot`], and then nothing has changed; [`CliError::Open`] when the restored store cannot be opened,
/// and then `before-restore/` has the one before.
pub(super) fn run(args: &RestoreArgs, context: &Context) -> Result<(), CliError> {
    context.refuse_server("a running server is not restored: stop it")?;
    let source = match (&args.source.name, &args.source.archive) {
        (Some(name), _) => Source::Snapshot(SnapshotName::new(name)?),
        (None, Some(file)) => Source::Archive(file.clone()),
        (None, None) => return Err(CliError::Usage("name a snapshot, or a file with --archive".to_owned())),
    };
    if !args.yes && holds_store(&context.data) {
        confirm(&format!("Replace the store in {}?", context.data.display()), context)?;
    }
    let started = Instant::now();
    let bar = output::byte_progress(context, Some(0));
    let restored = snapshot::restore(&context.data, &source, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let restored = restored?;
    let swapped_ms = started.elapsed().as_secs_f64() * 1e3;
    let opening = Instant::now();
    // Opening makes the document index again; it proves that the store can be served.
    if let Err(error) = context.open() {
        let before = DataPaths::new(&context.data).before_restore_dir();
        output::hint(context, format!("what stood there before, if anything, is in {}", before.display()));
        return Err(error);
    }
    let opened_ms = opening.elapsed().as_secs_f64() * 1e3;
    let kept = restored.replaced.as_ref().filter(|_| args.keep_replaced);
    if !args.keep_replaced {
        snapshot::discard_replaced(&context.data)?;
    }
    if context.json {
        return output::json(json!({
            "seq": restored.seq.0, "timeline": restored.timeline, "bytes": restored.bytes,
            "restore_ms": swapped_ms, "open_ms": opened_ms, "kept": kept.map(|kept| output::path(kept)),
        }));
    }
    output::line(format!(
        "restored to change {} as timeline {}: {} in {swapped_ms:.0} ms, opened in {opened_ms:.0} ms",
        restored.seq,
        restored.timeline,
        output::bytes(restored.bytes),
    ))?;
    if let Some(kept) = kept {
        output::hint(context, format!("what stood there before is in {}", kept.display()));
    }
    Ok(())
}

/// Whether something stands in the data directory that a restore takes away: a store, or what is left of one.
fn holds_store(data: &Path) -> bool {
    let paths = DataPaths::new(data);
    let stays = [paths.lock(), paths.snapshots_dir(), data.join("lost+found")];
    // What cannot be listed is refused by the restore.
    let mut entries = fs::read_dir(data).into_iter().flatten().flatten();
    entries.any(|entry| !stays.contains(&entry.path()))
}
