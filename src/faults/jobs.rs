//! States to be checked, made by one thread and checked by several, each in a directory of its own.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;

/// Checking waits for disks and threads more than it computes.
const WORKERS: usize = 12;

/// Hands every job that `make` sends to `check`, with a directory that is the job's until the check ends. Ends early,
/// with a failure, where a check fails; sending a job then answers `false`.
pub(super) fn check_all<J: Send>(
    make: impl FnOnce(&dyn Fn(J) -> bool),
    check: impl Fn(&Path, J) -> Result<(), String> + Sync,
) {
    let (sender, jobs) = sync_channel(2 * WORKERS);
    let (jobs, failure) = (Mutex::new(jobs), Mutex::new(None));
    let has_failed = || failure.lock().unwrap().is_some();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let root = fast_directory();
                let path = root.path().join("data");
                loop {
                    let Ok(job) = jobs.lock().unwrap().recv() else { return };
                    if !has_failed()
                        && let Err(reason) = check(&path, job)
                    {
                        failure.lock().unwrap().get_or_insert(reason);
                    }
                }
            });
        }
        make(&|job| !has_failed() && sender.send(job).is_ok());
        drop(sender);
    });
    let failure: Option<String> = failure.into_inner().unwrap();
    assert!(failure.is_none(), "{}", failure.unwrap());
}

/// In memory, where there is such a place.
pub(super) fn fast_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
