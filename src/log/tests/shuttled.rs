//! Group commit under a scheduler that tries orders of its threads' steps, and finds what waits for ever.

use std::sync::Arc;

use super::{ReadFrom, Store, WriterOptions, change};
use crate::log::tests::EVERYTHING;
use crate::log::{Change, EncodedRecord, Keep, LogError, LogPosition, LogWriter, Trimmed, closed_files, trim_keeping};
use crate::storage::DataPaths;
use crate::storage::fault::{Faults, Operation, Then};
use crate::types::Seq;

use group_commit::{Apply, GroupCommit, GroupOptions};

mod sync {
    pub(super) use shuttle::sync::mpsc::{Receiver, SyncSender, sync_channel};
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use shuttle::thread;
}

#[path = "../group_commit.rs"]
#[expect(dead_code, clippy::duplicate_mod, reason = "the module once more, under the scheduler; not all of it is used")]
mod group_commit;
#[path = "../queue.rs"]
#[expect(clippy::duplicate_mod, reason = "the module once more, under the scheduler")]
mod queue;

const WRITERS: u32 = 3;
const EACH: u32 = 2;

/// Schedules tried; `PANNIER_TEST_SCHEDULES` for more.
fn schedules() -> usize {
    std::env::var("PANNIER_TEST_SCHEDULES").map_or(150, |n| n.parse().unwrap())
}

type Applied = Arc<std::sync::Mutex<Vec<(Seq, Change)>>>;

fn start(store: &Store) -> (Arc<GroupCommit>, Applied) {
    let applied = Applied::default();
    let apply: Apply = {
        let applied = applied.clone();
        Box::new(move |seq, change| applied.lock().unwrap().push((seq, change)))
    };
    let writer = store.writer(WriterOptions { file_bytes: 400 }).unwrap();
    let options = GroupOptions { max_group_records: 3, max_queued_records: 4, ..GroupOptions::default() };
    (Arc::new(GroupCommit::spawn(writer, apply, options).unwrap()), applied)
}

/// What each writer was told, in its order.
fn write_from_all(log: &Arc<GroupCommit>, applied: &Applied) -> Vec<Vec<(Change, Result<Seq, LogError>)>> {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (log, applied) = (log.clone(), applied.clone());
            sync::thread::spawn(move || {
                let one = |n: u32| {
                    let change = change(1 + writer * EACH + n);
                    let told = log.submit(change.clone()).and_then(|ticket| ticket.wait());
                    if let Ok(seq) = told {
                        let applied = applied.lock().unwrap();
                        assert_eq!(applied[seq.0 as usize - 1], (seq, change.clone()), "visible before the answer");
                    }
                    (change, told)
                };
                (0..EACH).map(one).collect::<Vec<_>>()
            })
        })
        .collect();
    writers.into_iter().map(|writer| writer.join().unwrap()).collect()
}

/// In memory, where there is such a place: each schedule has a store of its own.
fn store() -> Store {
    let memory = std::path::Path::new("/dev/shm");
    Store::at(if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() })
}

#[test]
fn in_every_order_what_is_accepted_is_durable_applied_and_answered() {
    let run = || {
        let store = store();
        let (log, applied) = start(&store);
        let closing = {
            let log = log.clone();
            sync::thread::spawn(move || {
                log.rotate().or_else(|error| matches!(error, LogError::Closed).then_some(()).ok_or(error)).unwrap();
                _ = log.close().unwrap();
            })
        };
        let told = write_from_all(&log, &applied);
        closing.join().unwrap();
        let applied = applied.lock().unwrap();
        let answered = told.iter().flatten().filter(|(_, told)| told.is_ok()).count();
        assert_eq!(applied.len(), answered, "whoever was turned away changed nothing");
        for (_, refused) in told.iter().flatten().filter(|(_, told)| told.is_err()) {
            assert!(matches!(refused, Err(LogError::Closed | LogError::QueueFull { .. })), "{refused:?}");
        }
        for told in &told {
            let seqs: Vec<_> = told.iter().filter_map(|(_, told)| told.as_ref().ok()).collect();
            assert!(seqs.is_sorted(), "a thread's changes keep their order");
        }
        let (_, seen) = store.read(EVERYTHING).unwrap();
        assert!(applied.iter().map(|(_, change)| change).eq(&seen));
    };
    shuttle::check_random(run, schedules());
    shuttle::check_pct(run, schedules(), 3);
}

#[test]
fn in_every_order_a_failed_sync_ends_it_and_nobody_waits_for_ever() {
    let run = || {
        let store = store();
        let (log, applied) = start(&store);
        let faults = Faults::arm_only(store.paths.root(), Operation::Sync, 2, Then::Recover);
        let told = write_from_all(&log, &applied);
        let fired = faults.fired();
        drop(faults);
        assert_eq!(log.failed().is_some(), fired);
        assert_eq!(log.close().is_err(), fired);
        for told in &told {
            let after = told.iter().skip_while(|(_, told)| !matches!(told, Err(LogError::Failed { .. })));
            assert!(after.into_iter().all(|(_, told)| told.is_err()), "nothing is acknowledged after a failure");
        }
        let (_, seen) = store.read(EVERYTHING).unwrap();
        for (change, told) in told.iter().flatten() {
            if let Ok(seq) = told {
                assert_eq!(seen.get(seq.0 as usize - 1), Some(change));
            }
        }
    };
    shuttle::check_random(run, schedules());
    shuttle::check_pct(run, schedules(), 3);
}

/// What a snapshot took: copies of the closed files, how far the manifest's segments went, and the last change.
struct Taken {
    copies: Store,
    log_start: Seq,
    last_seq: Seq,
    answered: usize,
}

/// As a snapshot of an open store does, under the lock that whoever installs a segment and trims the log takes too.
fn take(log: &GroupCommit, paths: &DataPaths, manifest: &sync::Mutex<Seq>, applied: &Applied) -> Option<Taken> {
    let answered = applied.lock().unwrap().len();
    let log_start = manifest.lock().unwrap();
    if let Err(error) = log.rotate() {
        assert!(matches!(error, LogError::QueueFull { .. }), "{error}");
        return None;
    }
    let (files, last_seq) = closed_files(paths, *log_start).unwrap();
    let copies = store();
    std::fs::create_dir_all(copies.paths.log_dir()).unwrap();
    for file in files {
        sync::thread::yield_now();
        std::fs::copy(&file, copies.paths.log_dir().join(file.file_name().unwrap())).unwrap();
    }
    Some(Taken { copies, log_start: *log_start, last_seq, answered })
}

#[test]
fn in_every_order_a_snapshot_has_every_change_that_was_answered_and_no_segment_has() {
    let run = || {
        let store = store();
        let (log, applied) = start(&store);
        // The `log_start` of a manifest.
        let manifest = Arc::new(sync::Mutex::new(Seq(0)));
        let installing = {
            let (paths, manifest, applied) = (store.paths.clone(), manifest.clone(), applied.clone());
            sync::thread::spawn(move || {
                for _ in 0..2 {
                    let mut log_start = manifest.lock().unwrap();
                    // Everything that was applied is in segments that the manifest now names.
                    *log_start = Seq(applied.lock().unwrap().len() as u64);
                    sync::thread::yield_now();
                    trim_keeping(&paths, *log_start, Keep { after: *log_start, max_bytes: 0 }).unwrap();
                }
            })
        };
        let taking = {
            let (log, paths, manifest, applied) = (log.clone(), store.paths.clone(), manifest.clone(), applied.clone());
            sync::thread::spawn(move || {
                (0..2).filter_map(|_| take(&log, &paths, &manifest, &applied)).collect::<Vec<_>>()
            })
        };
        let told = write_from_all(&log, &applied);
        installing.join().unwrap();
        let taken = taking.join().unwrap();
        _ = log.close().unwrap();
        assert!(told.iter().flatten().all(|(_, told)| !matches!(told, Err(LogError::Failed { .. }))));
        let applied = applied.lock().unwrap();
        for Taken { copies, log_start, last_seq, answered } in taken {
            assert!(last_seq.0 >= answered as u64, "{answered} were answered before, the last one in it is {last_seq}");
            let wanted = &applied[log_start.0 as usize..last_seq.0 as usize];
            if wanted.is_empty() {
                continue;
            }
            let (_, seen) = copies.read(ReadFrom { after: log_start, at_least: last_seq }).unwrap();
            assert!(wanted.iter().map(|(_, change)| change).eq(&seen), "changes after {log_start} up to {last_seq}");
        }
    };
    shuttle::check_random(run, schedules());
    shuttle::check_pct(run, schedules(), 3);
}
