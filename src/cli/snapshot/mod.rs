//! `snapshot`: create, list, verify, pack, restore, delete.

mod restore;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::confirm::confirm;
use super::target::{Access, Target, shown, store_id};
use super::{CliError, Context, output};
use crate::http::SnapshotsView;
use crate::snapshot::{self, Report, SnapshotError, SnapshotName, archive};
use crate::storage::{DataPaths, DirectoryLock, StorageError};

/// The commands on snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot; a server that runs goes on
    Create {
        /// Its name [default: the time]
        name: Option<String>,
        /// Write it into one file too, which can be carried to another machine; without a name, only that file stays
        #[arg(long, value_name = "FILE")]
        archive: Option<PathBuf>,
    },
    /// List all snapshots
    List,
    /// Read every byte of a snapshot, or of an archive, against its digest
    Verify(SourceArgs),
    /// Write a snapshot into one file, which can be carried to another machine
    Pack {
        /// The snapshot
        name: String,
        /// The file to write
        file: PathBuf,
    },
    /// Put a snapshot, or an archive, in the place of the data directory's store; no server may hold it
    Restore(restore::RestoreArgs),
    /// Delete a snapshot
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// A snapshot of the data directory, or an archive.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct SourceArgs {
    /// The snapshot
    name: Option<String>,
    /// An archive instead
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
}

/// Runs a command on snapshots.
///
/// # Errors
/// [`CliError::Snapshot`]; [`CliError::Damaged`] after every problem was printed.
pub(super) fn run(command: &SnapshotCommand, context: &Context) -> Result<(), CliError> {
    match command {
        SnapshotCommand::Create { name, archive } => create(name.as_deref(), archive.as_deref(), context),
        SnapshotCommand::List => list(context),
        SnapshotCommand::Verify(source) => verify(source, context),
        SnapshotCommand::Pack { name, file } => {
            let name = SnapshotName::new(name)?;
            check_same_store(&name, context)?;
            let packed = pack(&name, file, context)?;
            print_packed(file, packed, context)
        }
        SnapshotCommand::Restore(args) => restore::run(args, context),
        SnapshotCommand::Delete { name, yes } => delete(&SnapshotName::new(name)?, *yes, context),
    }
}

fn create(name: Option<&str>, archive: Option<&Path>, context: &Context) -> Result<(), CliError> {
    let name = name.map(SnapshotName::chosen).transpose()?;
    if let Some(directory) = archive.map(|file| file.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new(".")))
        && !directory.is_dir()
    {
        return Err(CliError::Refused(format!("there is no directory {} for the archive", directory.display())));
    }
    if let Some(file) = archive.filter(|file| file.symlink_metadata().is_ok()) {
        return Err(SnapshotError::FileExists { path: file.to_owned() }.into());
    }
    let target = Target::of(context, Access::Existing)?;
    if archive.is_some() && context.server.is_some() && store_id(context).is_none() {
        let data = context.data.display();
        return Err(CliError::Usage(format!(
            "an archive is written from the server's data directory, and there is no store at {data}: name it with --data"
        )));
    }
    let only_archive = archive.is_some() && name.is_none();
    let body = name.map_or_else(|| json!({}), |name| json!({"name": name.as_str()}));
    let mut answer = target.value("POST", "/admin/snapshots", Some(&body))?;
    let name = SnapshotName::new(answer["name"].as_str().unwrap_or_default())?;
    if let Some(file) = archive {
        if store_id(context).as_deref() != answer["store_id"].as_str() {
            return Err(CliError::Usage(format!(
                "snapshot {name} was taken, and its server's data directory is not {}; run \
                 `pannier snapshot pack {name} FILE` where it is",
                context.data.display()
            )));
        }
        let packed = pack(&name, file, context);
        if only_archive {
            // A snapshot holds the files that the store no longer needs: one a night would fill the disk.
            let deleted = target.call("DELETE", &format!("/admin/snapshots/{name}"), None);
            deleted.inspect_err(|_| {
                output::complain(format!("snapshot {name}, of which the archive was made, could not be deleted"));
            })?;
        } else if packed.is_err() {
            output::complain(format!(
                "snapshot {name} was taken and is kept; `pannier snapshot pack {name} FILE` packs it"
            ));
        }
        answer["archive_bytes"] = packed?.archive_bytes.into();
    }
    if context.json {
        return output::json(answer);
    }
    let number = |key: &str| answer[key].as_u64().unwrap_or(0);
    output::line(format!(
        "{name}  seq {}, {} in {}, {} linked, {} copied",
        number("seq"),
        output::bytes(number("bytes")),
        output::counted(number("files"), "file"),
        number("linked"),
        number("copied"),
    ))?;
    if let Some(file) = archive {
        output::line(format!("{}  {}", file.display(), output::bytes(number("archive_bytes"))))?;
    }
    Ok(())
}

/// Only a named server is asked: what the directory holds can be read beside whoever has it open.
fn list(context: &Context) -> Result<(), CliError> {
    let answer: Value = match &context.server {
        Some(_) => Target::of(context, Access::Existing)?.value("GET", "/admin/snapshots", None)?,
        None if !context.data.is_dir() => {
            return Err(CliError::Refused(format!("there is no data directory at {}", context.data.display())));
        }
        None => serde_json::to_value(SnapshotsView::of(&context.data)?).map_err(|e| CliError::Other(Box::new(e)))?,
    };
    if context.json {
        return output::json(answer);
    }
    let entries = |key: &str| answer[key].as_array().cloned().unwrap_or_default();
    let (snapshots, damaged) = (entries("snapshots"), entries("damaged"));
    if snapshots.is_empty() && damaged.is_empty() {
        output::hint(context, "there are no snapshots; take one with `pannier snapshot create`");
        return Ok(());
    }
    let mut rows = vec![["name", "created", "seq", "timeline", "files", "bytes", "digest"].map(str::to_owned).to_vec()];
    for snapshot in &snapshots {
        let text = |key: &str| snapshot[key].as_str().unwrap_or_default().to_owned();
        rows.push(vec![
            text("name"),
            text("created_at"),
            snapshot["seq"].to_string(),
            snapshot["timeline"].to_string(),
            snapshot["files"].to_string(),
            output::bytes(snapshot["bytes"].as_u64().unwrap_or(0)),
            text("digest").chars().take(12).collect(),
        ]);
    }
    output::table(&rows, &[2, 3, 4, 5])?;
    for entry in &damaged {
        output::complain(format!("damaged: {}", entry["problem"].as_str().unwrap_or_default()));
    }
    Ok(())
}

fn verify(source: &SourceArgs, context: &Context) -> Result<(), CliError> {
    let bar = output::byte_progress(context, Some(0));
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let (path, report) = match (&source.name, &source.archive) {
        (Some(name), _) if context.server.is_some() => {
            let name = SnapshotName::new(name)?;
            let target = Target::of(context, Access::Existing)?;
            let answer = target.value("POST", &format!("/admin/snapshots/{name}/verify"), None)?;
            let number = |key: &str| answer[key].as_u64().unwrap_or(0);
            let problems = answer["problems"].as_array().into_iter().flatten();
            let problems = problems.filter_map(|problem| problem.as_str().map(str::to_owned)).collect();
            let report = Report { members: number("files") as usize, bytes: number("bytes"), problems };
            (name.to_string().into(), report)
        }
        (Some(name), _) => {
            let snapshot = snapshot::find(&context.data, &SnapshotName::new(name)?)?;
            let report = snapshot::verify(&snapshot, &mut progress)?;
            (snapshot.home, report)
        }
        (None, Some(file)) => {
            let contents = archive::check(file, &mut progress)?;
            let (members, bytes) = (contents.members.len(), contents.bytes());
            (file.clone(), Report { members, bytes, problems: Vec::new() })
        }
        (None, None) => return Err(CliError::Usage("name a snapshot, or a file with --archive".to_owned())),
    };
    bar.finish_and_clear();
    if context.json {
        output::json(json!({"files": report.members, "bytes": report.bytes, "problems": report.problems}))?;
    } else {
        report.problems.iter().for_each(|problem| output::complain(format!("damaged: {problem}")));
        output::line(format!(
            "{} with {} read",
            output::counted(report.members as u64, "file"),
            output::bytes(report.bytes)
        ))?;
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(CliError::SnapshotDamaged { path, count }),
    }
}

/// An archive is written from the data directory: where a server is named, it must be that server's.
fn check_same_store(name: &SnapshotName, context: &Context) -> Result<(), CliError> {
    let Some(server) = &context.server else { return Ok(()) };
    let version = Target::of(context, Access::Existing)?.value("GET", "/version", None)?;
    match store_id(context) {
        Some(id) if version["store_id"] == id.as_str() => Ok(()),
        _ => Err(CliError::Usage(format!(
            "an archive is written from the data directory, and {} is not that of {}; run `pannier snapshot pack \
             {name} FILE` where it is, or name it with --data",
            context.data.display(),
            shown(server)
        ))),
    }
}

fn pack(name: &SnapshotName, file: &Path, context: &Context) -> Result<archive::Packed, CliError> {
    let snapshot = snapshot::find(&context.data, name)?;
    let bar = output::byte_progress(context, Some(snapshot.contents.bytes()));
    let packed = archive::pack(&snapshot, file, &mut |done, _| bar.set_position(done));
    bar.finish_and_clear();
    Ok(packed?)
}

fn print_packed(file: &Path, packed: archive::Packed, context: &Context) -> Result<(), CliError> {
    if context.json {
        return output::json(json!({"bytes": packed.bytes, "archive_bytes": packed.archive_bytes}));
    }
    let (bytes, all) = (output::bytes(packed.archive_bytes), output::bytes(packed.bytes));
    output::line(format!("{}  {bytes}, of {all}", file.display()))
}

fn delete(name: &SnapshotName, yes: bool, context: &Context) -> Result<(), CliError> {
    if !yes {
        confirm(&format!("Delete snapshot {name}?"), context)?;
    }
    let paths = DataPaths::new(&context.data);
    let by_server = context.server.is_some()
        || (paths.lock().exists() && matches!(DirectoryLock::acquire(paths.lock()), Err(StorageError::Locked { .. })));
    if by_server {
        let target = Target::of(context, Access::Existing)?;
        target.call("DELETE", &format!("/admin/snapshots/{name}"), None)?;
    } else {
        snapshot::delete(&context.data, name)?;
    }
    output::hint(context, format!("snapshot {name} is deleted"));
    Ok(())
}
