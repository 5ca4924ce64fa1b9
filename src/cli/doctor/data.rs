//! The data directory: whether it is a store, who holds it, how much room and how much time its disk has.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::output;
use super::{Finding, Status};
use crate::log::check_newest;
use crate::manifest::{Manifest, SegmentEntry, is_snapshot, refuse_snapshot};
use crate::migrate::{Migrations, StepState};
use crate::storage::{AppendFile, DataPaths, DirectoryLock, StorageError, disk_free, is_open_to_others, list_entries};

/// Less room than this, and the next merge may not fit.
const LITTLE_FREE_BYTES: u64 = 2 << 30;
/// Less room than this, and the log itself has no place.
const NO_FREE_BYTES: u64 = 128 << 20;
/// Every acknowledged write waits for a sync; one slower than this is felt.
const SLOW_SYNC: Duration = Duration::from_millis(20);
const SYNCS: usize = 21;
const SYNC_BYTES: usize = 4 << 10;

/// Checks the directory and its disk.
pub(super) fn check(data: &Path) -> Vec<Finding> {
    let paths = DataPaths::new(data);
    let is_store = paths.format().exists() && !is_snapshot(&paths);
    let mut findings = vec![directory(&paths, is_store)];
    if is_store {
        findings.push(readers(&paths));
        findings.push(lock(&paths));
        findings.extend(migrations(&paths));
        findings.extend(left(&paths));
    }
    match existing(data) {
        Some(dir) => findings.extend([free(&dir), sync(&dir)]),
        None => {
            let detail = format!("none of the directories above {} exists", data.display());
            findings.push(Finding::new(Status::Fail, "disk", detail));
        }
    }
    findings
}

/// The directory itself, or the nearest one above it that exists.
fn existing(data: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(data).ok()?;
    absolute.ancestors().find(|dir| dir.is_dir()).map(Path::to_path_buf)
}

fn directory(paths: &DataPaths, is_store: bool) -> Finding {
    const NAME: &str = "data directory";
    let root = paths.root().display();
    if paths.restore_marker().exists() {
        let detail = format!("a restore into {root} was begun and not finished; the next start finishes it");
        return Finding::new(Status::Warn, NAME, detail);
    }
    if let Err(error) = refuse_snapshot(paths) {
        return Finding::new(Status::Fail, NAME, error.to_string());
    }
    if !is_store {
        return match fs::read_dir(paths.root()).map(|mut entries| entries.next().is_none()) {
            Ok(false) => Finding::new(Status::Fail, NAME, format!("{root} holds something else than a store")),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Finding::new(Status::Fail, NAME, format!("{root} cannot be used: {error}"))
            }
            _ => Finding::new(Status::Warn, NAME, format!("{root} is not there yet; `pannier serve` makes it")),
        };
    }
    match Manifest::load(paths) {
        Ok(manifest) => match missing(paths, &manifest) {
            Some(missing) => Finding::new(Status::Fail, NAME, format!("{missing}; restore a snapshot")),
            None => {
                let detail =
                    format!("{root}, store {}; what its files hold is for `pannier verify`", manifest.store_id);
                Finding::new(Status::Ok, NAME, detail)
            }
        },
        Err(error) => Finding::new(Status::Fail, NAME, error.to_string()),
    }
}

/// Whether the machine's other users may read the store. What an earlier version or another program made may be open to
/// them; it does not matter in a directory that they cannot enter.
fn readers(paths: &DataPaths) -> Finding {
    const NAME: &str = "readers";
    let root = paths.root();
    let open = is_open_to_others(root).then(|| list_entries(root).unwrap_or_default());
    match open.and_then(|entries| entries.into_iter().find(|entry| is_open_to_others(entry))) {
        None => Finding::new(Status::Ok, NAME, "nobody but the owner may read the data directory"),
        Some(entry) => {
            let (entry, root) = (entry.display(), root.display());
            let detail = format!("other users of this machine may read {entry}; run `chmod -R go= {root}`");
            Finding::new(Status::Warn, NAME, detail)
        }
    }
}

/// Second stores below this one, of commands that were ended before they removed them.
fn left(paths: &DataPaths) -> impl Iterator<Item = Finding> {
    let left = [
        (
            "replaced store",
            paths.before_restore_dir(),
            "is what a restore replaced; remove it once you are sure of the store",
        ),
        ("replaced store", paths.discarded_dir(), "is left of what a restore replaced; the next start removes it"),
        (
            "dry run",
            paths.dry_run_dir(),
            "is a copy on which migrations are tried; if none is, the next start removes it",
        ),
    ];
    let found = left.into_iter().filter(|(_, dir, _)| dir.exists());
    found.map(|(name, dir, what)| Finding::new(Status::Warn, name, format!("{} {what}", dir.display())))
}

/// A file that the store cannot be without and is. What stands in the files is for `verify` to read.
fn missing(paths: &DataPaths, manifest: &Manifest) -> Option<String> {
    let mut files = manifest.collections.iter().flat_map(|collection| {
        let file = |segment: &SegmentEntry| paths.segment_file(collection.id.0, collection.generation, segment.id.0);
        collection.segments.iter().map(file)
    });
    let segment = files.find(|file| !file.exists()).map(|file| format!("{} is missing", file.display()));
    segment.or_else(|| check_newest(paths).err().map(|error| error.to_string()))
}

fn lock(paths: &DataPaths) -> Finding {
    const NAME: &str = "lock";
    match DirectoryLock::acquire(paths.lock()) {
        Ok(_) => Finding::new(Status::Ok, NAME, "nobody holds the data directory"),
        Err(StorageError::Locked { holder: Some(pid), .. }) => {
            Finding::new(Status::Ok, NAME, format!("process {pid} holds the data directory"))
        }
        Err(StorageError::Locked { holder: None, .. }) => {
            Finding::new(Status::Ok, NAME, "another process holds the data directory")
        }
        Err(error) => Finding::new(Status::Fail, NAME, error.to_string()),
    }
}

/// Whether the store is of this program's formats. A process that holds it has opened it: then there is nothing to say.
fn migrations(paths: &DataPaths) -> Option<Finding> {
    const NAME: &str = "migrations";
    let _lock = DirectoryLock::acquire(paths.lock()).ok()?;
    let steps = match Migrations::look(paths.root()) {
        Ok(steps) => steps,
        Err(error) => return Some(Finding::new(Status::Fail, NAME, error.to_string())),
    };
    let count = |is: fn(&StepState) -> bool| steps.iter().filter(|step| is(&step.state)).count() as u64;
    let half_done = count(|state| *state == StepState::HalfDone);
    let pending = count(|state| *state == StepState::Pending);
    Some(if half_done > 0 {
        Finding::new(Status::Fail, NAME, "a step is half done; run `pannier migrate up`, which goes on with it")
    } else if pending > 0 {
        let pending = output::counted(pending, "pending step");
        Finding::new(
            Status::Warn,
            NAME,
            format!("{pending}; run `pannier migrate up`, or the server may refuse to start"),
        )
    } else {
        Finding::new(Status::Ok, NAME, "none is pending")
    })
}

fn free(dir: &Path) -> Finding {
    const NAME: &str = "free disk";
    match disk_free(dir) {
        Ok(bytes) if bytes < NO_FREE_BYTES => Finding::new(Status::Fail, NAME, output::bytes(bytes)),
        Ok(bytes) if bytes < LITTLE_FREE_BYTES => {
            Finding::new(Status::Warn, NAME, format!("{}; merging may need more", output::bytes(bytes)))
        }
        Ok(bytes) => Finding::new(Status::Ok, NAME, output::bytes(bytes)),
        Err(error) => Finding::new(Status::Fail, NAME, error.to_string()),
    }
}

fn sync(dir: &Path) -> Finding {
    const NAME: &str = "fsync";
    match measure_sync(dir) {
        Ok(median) => {
            let ms = median.as_secs_f64() * 1e3;
            let detail = format!("{ms:.2} ms, median of {SYNCS} writes of 4 KiB");
            match median > SLOW_SYNC {
                true => Finding::new(Status::Warn, NAME, format!("{detail}: slow, and every write waits for one")),
                false => Finding::new(Status::Ok, NAME, detail),
            }
        }
        Err(error) => Finding::new(Status::Fail, NAME, error.to_string()),
    }
}

fn measure_sync(dir: &Path) -> Result<Duration, StorageError> {
    let trial = Trial::new(dir)?;
    let mut file = AppendFile::open(&trial.path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.append(&[0; SYNC_BYTES])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

/// A file that goes when this does.
struct Trial {
    path: PathBuf,
}

impl Trial {
    fn new(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(format!(".pannier-doctor.{}", std::process::id()));
        fs::File::create_new(&path).map_err(|e| StorageError::io(&path, "create", e))?;
        Ok(Self { path })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a trial file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::DefinitionRequest;
    use crate::database::Database;
    use crate::types::{CollectionName, DocumentId, NewDocument};

    #[test]
    fn an_absent_directory_is_a_warning_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let findings = check(&dir.path().join("a/b"));
        assert_eq!((findings[0].status, findings[0].name), (Status::Warn, "data directory"));
        assert!(findings.iter().all(|finding| finding.status != Status::Fail), "{findings:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_of_something_else_fails() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "x").unwrap();
        let findings = check(dir.path());
        assert_eq!((findings[0].status, findings[0].name), (Status::Fail, "data directory"));
        assert_eq!(check(&dir.path().join("notes.txt"))[0].status, Status::Fail, "a file is no directory");
    }

    #[test]
    fn a_store_without_one_of_its_files_fails() {
        let dir = tempfile::tempdir().unwrap();
        let things = CollectionName::new("things").unwrap();
        {
            let database = Database::open(dir.path()).unwrap();
            let created = database.create_collection(&things, &DefinitionRequest::vectors(1)).unwrap();
            let document = NewDocument {
                text: None,
                vector: Some(vec![1.0]),
                ..NewDocument::from_text(DocumentId::new("a").unwrap(), "")
            };
            created.collection.upsert(vec![document]).unwrap();
            created.collection.flush().unwrap();
        }
        assert_eq!(check(dir.path())[0].status, Status::Ok);
        for (below, end) in [("segments", ".seg"), ("log", ".log")] {
            let files = crate::storage::list_files_below(&dir.path().join(below)).unwrap();
            let file = files.into_iter().rev().find(|file| file.to_str().unwrap().ends_with(end)).unwrap();
            let bytes = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            let found = check(dir.path());
            assert_eq!(found[0].status, Status::Fail);
            assert!(found[0].detail.contains(file.file_name().unwrap().to_str().unwrap()), "{found:?}");
            fs::write(&file, bytes).unwrap();
        }
        assert_eq!(check(dir.path())[0].status, Status::Ok);
    }

    #[cfg(unix)]
    #[test]
    fn a_store_that_others_may_read_is_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        Manifest::create(&paths).unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let found = || check(dir.path()).into_iter().find(|finding| finding.name == "readers").unwrap();
        for (of_root, of_manifest, status) in
            [(0o755, 0o600, Status::Ok), (0o755, 0o640, Status::Warn), (0o700, 0o644, Status::Ok)]
        {
            set(&paths.format(), 0o600);
            set(&paths.manifest(), of_manifest);
            if paths.lock().exists() {
                set(&paths.lock(), 0o600);
            }
            set(dir.path(), of_root);
            let found = found();
            assert_eq!(found.status, status, "{of_root:o} {of_manifest:o}: {found:?}");
            assert!(status == Status::Ok || found.detail.contains("MANIFEST"), "{found:?}");
        }
    }

    #[test]
    fn second_stores_that_were_left_are_warnings() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        Manifest::create(&paths).unwrap();
        for left in [paths.before_restore_dir(), paths.discarded_dir(), paths.dry_run_dir()] {
            let of_left = || {
                let findings = check(dir.path());
                findings.into_iter().find(|finding| finding.detail.starts_with(left.to_str().unwrap()))
            };
            assert!(of_left().is_none(), "{}", left.display());
            fs::create_dir(&left).unwrap();
            assert_eq!(of_left().map(|finding| finding.status), Some(Status::Warn), "{}", left.display());
        }
    }

    #[test]
    fn a_store_and_its_holder_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(dir.path());
        Manifest::create(&paths).unwrap();
        let of_lock = |findings: Vec<Finding>| findings.into_iter().find(|finding| finding.name == "lock").unwrap();
        assert!(of_lock(check(dir.path())).detail.starts_with("nobody"));
        let _lock = DirectoryLock::acquire(paths.lock()).unwrap();
        let held = of_lock(check(dir.path()));
        assert_eq!((held.status, held.detail.contains(&std::process::id().to_string())), (Status::Ok, true));
        fs::write(paths.manifest(), "x").unwrap();
        assert_eq!(check(dir.path())[0].status, Status::Fail);
    }
}
