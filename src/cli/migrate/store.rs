//! Migrations of the data directory.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::confirm::confirm;
use super::super::{CliError, Context, output};
use super::{MigrateArgs, MigrateCommand};
use crate::migrate::{Change, Changed, Migrations, StepState, StepStatus};
use crate::snapshot::{self, SnapshotName};
use crate::storage::publish;

pub(super) fn run(args: &MigrateArgs, context: &Context) -> Result<(), CliError> {
    context.refuse_server("migrations change the data directory itself: stop the server")?;
    match &args.command {
        MigrateCommand::Status => status(args.verbose, context),
        MigrateCommand::Up { to: None, dry_run } => up(args, *dry_run, context),
        MigrateCommand::Down { to: None, dry_run } => down(args, *dry_run, context),
        MigrateCommand::Up { .. } | MigrateCommand::Down { .. } => Err(CliError::Usage(
            "--to is for --target postgres: a store is of the present format, or it is not".to_owned(),
        )),
        MigrateCommand::New { name, dry_run } => {
            let dir = args.dir.as_deref().unwrap_or(Path::new("src/migrate/steps"));
            new_step(name, dir, *dry_run, context)
        }
        MigrateCommand::Restore { .. } => Err(CliError::Usage(
            "`pannier snapshot restore` brings a store back; this is for --target postgres".to_owned(),
        )),
    }
}

fn status(verbose: bool, context: &Context) -> Result<(), CliError> {
    let steps = Migrations::open(&context.data)?.status()?;
    print_status(&steps, verbose, context)?;
    match steps.iter().find(|step| step.state == StepState::HalfDone) {
        Some(half) => Err(CliError::HalfDone { id: half.id, name: half.name }),
        None => Ok(()),
    }
}

fn print_status(steps: &[StepStatus], verbose: bool, context: &Context) -> Result<(), CliError> {
    let is_applied = |step: &&StepStatus| matches!(step.state, StepState::Applied(_));
    let applied = steps.iter().filter(is_applied).count();
    if context.json {
        return output::json(json!({
            "applied": applied, "pending": steps.len() - applied,
            "steps": steps.iter().map(as_json).collect::<Vec<_>>(),
        }));
    }
    output::line(format!("Applied {applied}, pending {}", steps.len() - applied))?;
    for step in steps {
        let StepStatus { id, name, about, state, .. } = step;
        match state {
            StepState::Applied(_) if !verbose => continue,
            StepState::Applied(Some(at_ms)) => {
                output::line(format!("     {id:03} {name}   (applied {})", time(*at_ms)))?
            }
            StepState::Applied(None) => output::line(format!("     {id:03} {name}   (the store was made so)"))?,
            StepState::Pending => {
                output::line(format!("  -> {id:03} {name}   ({})", sentence("rewrites", step.change)))?
            }
            StepState::HalfDone => {
                output::line(format!("  !! {id:03} {name}   (half done; {})", sentence("left:", step.change)))?;
            }
        }
        if verbose {
            output::line(format!("         {about}"))?;
        }
    }
    Ok(())
}

fn as_json(step: &StepStatus) -> Value {
    let (state, at) = match step.state {
        StepState::Applied(at_ms) => ("applied", at_ms.map(time)),
        StepState::HalfDone => ("half_done", None),
        StepState::Pending => ("pending", None),
    };
    json!({"id": step.id, "name": step.name, "about": step.about, "state": state, "applied_at": at,
        "files": step.change.files, "bytes": step.change.bytes})
}

fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |time| format!("{time:.0}"))
}

/// `rewrites 4 segments, 61 MB`.
fn sentence(verb: &str, change: Change) -> String {
    match change.files {
        0 => "nothing is left to rewrite".to_owned(),
        files => format!("{verb} {}, {}", output::counted(files, change.noun), output::bytes(change.bytes)),
    }
}

fn up(args: &MigrateArgs, dry_run: bool, context: &Context) -> Result<(), CliError> {
    let migrations = Migrations::open(&context.data)?;
    let steps = migrations.status()?;
    if !context.json {
        print_status(&steps, args.verbose, context)?;
    }
    if dry_run {
        let changed = migrations.dry_run()?;
        return print_changed(&changed, "would rewrite", Some("Dry run: nothing was changed"), context);
    }
    let pending = steps.iter().filter(|step| !matches!(step.state, StepState::Applied(_))).count() as u64;
    if pending > 0 && !args.yes {
        confirm(&format!("Run {} on {}?", output::counted(pending, "step"), context.data.display()), context)?;
    }
    let changed = migrations.up(&mut || take_snapshot(args, context))?;
    print_changed(&changed, "rewrote", None, context)
}

fn down(args: &MigrateArgs, dry_run: bool, context: &Context) -> Result<(), CliError> {
    let migrations = Migrations::open(&context.data)?;
    if dry_run {
        let undone = migrations.dry_run_down()?;
        return print_changed(&[undone], "would undo:", Some("Dry run: nothing was changed"), context);
    }
    if !args.yes {
        confirm(&format!("Undo the last step on {}?", context.data.display()), context)?;
    }
    let undone = migrations.down(&mut || take_snapshot(args, context))?;
    print_changed(&[undone], "undone:", None, context)
}

/// The snapshot that comes before every change; the lock is held by whoever migrates.
fn take_snapshot(args: &MigrateArgs, context: &Context) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if args.no_snapshot {
        return Ok(());
    }
    let time = SnapshotName::of_time(Timestamp::now());
    let name = SnapshotName::new(&format!("before-migrate-{time}"))?;
    let created = snapshot::create_closed(&context.data, Some(name))?;
    output::hint(context, format!("snapshot {} is taken", created.snapshot.name));
    Ok(())
}

fn print_changed(changed: &[Changed], verb: &str, end: Option<&str>, context: &Context) -> Result<(), CliError> {
    if context.json {
        let steps = changed.iter().map(|c| {
            json!({"id": c.id, "name": c.name, "files": c.change.files, "bytes": c.change.bytes, "took_ms": c.took_ms})
        });
        return output::json(json!({"changed": steps.collect::<Vec<_>>(), "dry_run": end.is_some()}));
    }
    for Changed { id, name, change, took_ms } in changed {
        output::line(format!("  ok {id:03} {name}   ({}; {took_ms} ms)", sentence(verb, *change)))?;
    }
    match end {
        Some(end) => output::line(end),
        None if changed.is_empty() => output::line("Nothing to do"),
        None => Ok(()),
    }
}

/// Writes the beginning of a step's source.
fn new_step(name: &str, dir: &Path, dry_run: bool, context: &Context) -> Result<(), CliError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 48 || !name.bytes().all(allowed) {
        return Err(CliError::Usage(format!(
            "{name:?} is no name of a step: use 1 to 48 of the characters a-z, 0-9 and _"
        )));
    }
    if !dir.join("mod.rs").exists() {
        return Err(CliError::Refused(format!(
            "{} has no steps: this writes the source of a new one, in a checkout of this program",
            dir.display()
        )));
    }
    let numbers = std::fs::read_dir(dir)
        .map_err(|e| CliError::io(format!("list {}", dir.display()), e))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix('s')?.get(..3)?.parse::<u32>().ok());
    let id = numbers.max().unwrap_or(0) + 1;
    let path = dir.join(format!("s{id:03}_{name}.rs"));
    if !dry_run {
        publish(&path, skeleton(id, name).as_bytes())?;
    }
    output::line(path.display())?;
    output::hint(
        context,
        format!("name it in {}, with a fixture of the format before it", dir.join("mod.rs").display()),
    );
    Ok(())
}

fn skeleton(id: u32, name: &str) -> String {
    format!(
        "//! SAY in one sentence what is brought from which version to which.\n\n\
         use crate::storage::DataPaths;\n\n\
         use super::super::MigrateError;\n\
         use super::{{Down, Step, Work}};\n\n\
         pub(super) const STEP: Step = Step {{\n    id: {id},\n    name: {name:?},\n    about: \"SAY what changes\",\n    \
         noun: \"file\",\n    revision: 1,\n    needs: &[],\n    plan,\n    up,\n    \
         down: Down::Impossible(\"SAY why\"),\n    verify,\n}};\n\n\
         /// Finds what there is to do by looking at the files, so that a step that was interrupted goes on.\n\
         fn plan(_paths: &DataPaths) -> Result<Work, MigrateError> {{\n    Ok(Work::default())\n}}\n\n\
         /// Publishes each file anew; files are shared with snapshots and never change in place.\n\
         fn up(_paths: &DataPaths) -> Result<(), MigrateError> {{\n    Ok(())\n}}\n\n\
         fn verify(_paths: &DataPaths) -> Result<(), MigrateError> {{\n    Ok(())\n}}\n"
    )
}
