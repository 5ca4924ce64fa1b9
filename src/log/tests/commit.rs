//! Group commit: order, bounds, closing, and a failure of every write and sync.

use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};

use super::*;
use crate::log::format::MAX_PAYLOAD_BYTES;
use crate::log::group_commit::Apply;
use crate::log::{GroupCommit, GroupOptions, Keep};
use crate::storage::fault::{ENOSPC, Faults, Operation, Plan, Then};

type Applied = Arc<Mutex<Vec<(Seq, Change)>>>;

fn recorder() -> (Applied, Apply) {
    let applied = Applied::default();
    let apply = {
        let applied = applied.clone();
        Box::new(move |seq, change| applied.lock().unwrap().push((seq, change)))
    };
    (applied, apply)
}

fn start(store: &Store, file_bytes: u64, apply: Apply) -> GroupCommit {
    let writer = store.writer(WriterOptions { file_bytes }).unwrap();
    GroupCommit::spawn(writer, apply, GroupOptions::default()).unwrap()
}

#[test]
fn many_threads_get_contiguous_seqs_and_apply_sees_them_in_order() {
    const THREADS: u32 = 8;
    const EACH: u32 = 40;
    let store = Store::new();
    let (applied, apply) = recorder();
    let log = start(&store, 1_000, apply);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, applied) = (&log, &applied);
            scope.spawn(move || {
                let mut last = Seq(0);
                for n in 0..EACH {
                    let change = change(thread * EACH + n);
                    let seq = log.submit(change.clone()).unwrap().wait().unwrap();
                    assert!(seq > last, "a thread's changes keep their order");
                    last = seq;
                    let applied = applied.lock().unwrap();
                    assert_eq!(applied[seq.0 as usize - 1], (seq, change), "visible before the answer");
                }
            });
        }
    });
    let position = log.close().unwrap();
    assert_eq!(position.last_seq, Seq(u64::from(THREADS * EACH)));
    let (recovery, seen) = store.read(EVERYTHING).unwrap();
    assert_eq!((recovery.files, recovery.len_bytes), (position.files, position.bytes));
    let applied = applied.lock().unwrap();
    assert!(applied.iter().map(|(seq, _)| seq.0).eq(1..=u64::from(THREADS * EACH)));
    assert!(applied.iter().map(|(_, change)| change).eq(&seen));
}

#[test]
fn what_queues_during_a_sync_shares_the_next_one() {
    let store = Store::new();
    let (entered, has_entered) = channel();
    let (release, released) = sync_channel::<()>(0);
    let apply = Box::new(move |seq, _| {
        if seq == Seq(1) {
            entered.send(()).unwrap();
            released.recv().unwrap();
        }
    });
    let log = start(&store, 1 << 20, apply);
    let first = log.submit(change(1)).unwrap();
    has_entered.recv().unwrap();
    let tickets: Vec<_> = (2..=20).map(|n| log.submit(change(n)).unwrap()).collect();
    let faults = Faults::watch(store.paths.root());
    release.send(()).unwrap();
    assert_eq!(first.wait().unwrap(), Seq(1));
    for (ticket, seq) in tickets.into_iter().zip(2..) {
        assert_eq!(ticket.wait().unwrap(), Seq(seq));
    }
    assert_eq!(faults.seen(), [Operation::Write, Operation::Sync]);
    log.close().unwrap();
    assert_eq!(store.read(EVERYTHING).unwrap().1, changes(20));
}

#[test]
fn a_full_queue_refuses_and_loses_nothing() {
    let store = Store::new();
    let (entered, has_entered) = channel();
    let (release, released) = sync_channel::<()>(0);
    let apply = Box::new(move |seq, _| {
        if seq == Seq(1) {
            entered.send(()).unwrap();
            released.recv().unwrap();
        }
    });
    let options = GroupOptions { max_queued_records: 3, max_group_records: 1, ..GroupOptions::default() };
    let log = GroupCommit::spawn(store.writer(WriterOptions::default()).unwrap(), apply, options).unwrap();
    let mut tickets = vec![log.submit(change(1)).unwrap()];
    has_entered.recv().unwrap();
    tickets.extend((2..=4).map(|n| log.submit(change(n)).unwrap()));
    let error = log.submit(change(5)).unwrap_err();
    assert!(matches!(error, LogError::QueueFull { records: 3, .. }), "{error}");
    release.send(()).unwrap();
    for (ticket, seq) in tickets.into_iter().zip(1..) {
        assert_eq!(ticket.wait().unwrap(), Seq(seq));
    }
    log.submit(change(5)).unwrap().wait().unwrap();
    drop(log);
    assert_eq!(store.read(EVERYTHING).unwrap().1, changes(5));
}

#[test]
fn a_queue_full_of_bytes_refuses_and_a_large_change_alone_is_let_in() {
    let store = Store::new();
    let (entered, has_entered) = channel();
    let (release, released) = sync_channel::<()>(0);
    let apply = Box::new(move |seq, _| {
        if seq == Seq(1) {
            entered.send(()).unwrap();
            released.recv().unwrap();
        }
    });
    let options = GroupOptions { max_queued_bytes: 10, ..GroupOptions::default() };
    let log = GroupCommit::spawn(store.writer(WriterOptions::default()).unwrap(), apply, options).unwrap();
    let first = log.submit(change(1)).unwrap();
    has_entered.recv().unwrap();
    let second = log.submit(change(2)).unwrap();
    assert!(matches!(log.submit(change(3)), Err(LogError::QueueFull { records: 1, .. })));
    release.send(()).unwrap();
    assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (Seq(1), Seq(2)));
}

#[test]
fn closing_finishes_what_was_accepted() {
    let store = Store::new();
    let (applied, apply) = recorder();
    let log = start(&store, 1 << 20, apply);
    let tickets: Vec<_> = (1..=100).map(|n| log.submit(change(n)).unwrap()).collect();
    assert_eq!(log.close().unwrap().last_seq, Seq(100));
    assert_eq!(applied.lock().unwrap().len(), 100);
    assert!(matches!(log.submit(change(1)), Err(LogError::Closed)));
    assert!(matches!(log.rotate(), Err(LogError::Closed)));
    for (ticket, seq) in tickets.into_iter().zip(1..) {
        assert_eq!(ticket.wait().unwrap(), Seq(seq));
    }
    log.close().unwrap();
}

#[test]
fn a_change_too_large_for_a_record_is_refused_at_once() {
    let store = Store::new();
    let log = start(&store, 1 << 20, recorder().1);
    let mut large = document("a", &[]);
    large.document.text = Some("x".repeat(MAX_PAYLOAD_BYTES));
    let change = Change::Upsert { collection: CollectionId(1), documents: vec![large] };
    assert!(matches!(log.submit(change), Err(LogError::TooLarge { max: MAX_PAYLOAD_BYTES, .. })));
    assert_eq!(log.submit(super::change(1)).unwrap().wait().unwrap(), Seq(1));
}

#[test]
fn rotation_and_trimming_show_in_the_position() {
    let store = Store::new();
    let log = start(&store, 1 << 20, recorder().1);
    log.rotate().unwrap();
    assert_eq!(log.position().files, 1, "an empty file is not followed by another");
    for n in 1..=3 {
        log.submit(change(n)).unwrap().wait().unwrap();
        log.rotate().unwrap();
        log.rotate().unwrap();
    }
    assert_eq!((log.position().files, log.position().last_seq), (4, Seq(3)));
    assert_eq!(log.trim(Seq(2), Keep { after: Seq(2), max_bytes: 0 }).unwrap().files, 2);
    assert_eq!(log.trim(Seq(2), Keep { after: Seq(2), max_bytes: 0 }).unwrap().files, 0);
    let on_disk: usize = store.contents().iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((log.position().files, log.position().bytes), (2, on_disk as u64));
    assert_eq!(log.trim(Seq(3), Keep { after: Seq(3), max_bytes: 0 }).unwrap().files, 1);
    let position = log.close().unwrap();
    let (recovery, seen) = store.read(ReadFrom { after: Seq(3), at_least: Seq(3) }).unwrap();
    assert_eq!((recovery.last_seq, seen), (Seq(3), Vec::new()), "an empty newest file keeps the seq");
    assert_eq!((recovery.files, recovery.len_bytes), (position.files, position.bytes));
}

/// Writes up to `count` changes one after another and returns how many were acknowledged.
fn acknowledged(log: &GroupCommit, count: u32) -> u32 {
    (1..=count).take_while(|&n| log.submit(change(n)).and_then(|ticket| ticket.wait()).is_ok()).count() as u32
}

#[test]
fn a_failure_of_any_write_or_sync_loses_nothing_acknowledged() {
    const COUNT: u32 = 7;
    for then in [Then::Crash, Then::Recover] {
        for fail_at in 0.. {
            let store = Store::new();
            let (applied, apply) = recorder();
            let log = start(&store, 250, apply);
            let faults = Faults::arm(store.paths.root(), fail_at, then);
            let done = acknowledged(&log, COUNT);
            let fired = faults.fired();
            assert_eq!(done < COUNT, fired, "{fail_at}");
            // What is not written can be taken back, unless the disk is gone; what is not synced cannot.
            let stops = log.failed().is_some();
            let failed_sync = fired && faults.seen()[fail_at] == Operation::Sync;
            assert!(stops || !failed_sync, "{fail_at}: {:?}", faults.seen());
            assert!(!stops || failed_sync || then == Then::Crash, "{fail_at}: {:?}", faults.seen());
            if stops {
                let seen = faults.seen().len();
                let error = log.submit(change(1)).unwrap_err();
                assert!(matches!(&error, LogError::Failed { reason } if reason.contains("os error 5")), "{error}");
                assert!(matches!(log.close(), Err(LogError::Failed { .. })));
                // A publish that fails removes its temporary; no write and no sync is tried again.
                assert_eq!(faults.seen().len(), seen, "{fail_at}: {:?}", faults.seen());
            } else if fired {
                let later = log.submit(change(77)).unwrap().wait();
                match then {
                    Then::Recover => assert_eq!(later.unwrap(), Seq(u64::from(done) + 1)),
                    Then::Crash => assert!(matches!(later, Err(LogError::NotWritten { .. })), "{later:?}"),
                }
            }
            drop(log);
            drop(faults);
            let (_, seen) = store.read(EVERYTHING).unwrap();
            if fired && !stops {
                let later = if then == Then::Recover { vec![change(77)] } else { vec![] };
                let wanted = [changes(done), later].concat();
                assert_eq!(seen, wanted, "{fail_at}: what was refused is not there, and what came later is");
            } else {
                assert!(seen == changes(done) || seen == changes(done + 1), "{fail_at}: {done} of {}", seen.len());
            }
            let applied = applied.lock().unwrap().len();
            assert!(applied == seen.len() || stops && applied == done as usize, "only what is durable is applied");
            let log = start(&store, 250, recorder().1);
            assert_eq!(log.submit(change(99)).unwrap().wait().unwrap(), Seq(seen.len() as u64 + 1), "it goes on");
            drop(log);
            assert!(store.files().iter().all(|path| path.extension().unwrap() == "log"));
            if !fired {
                assert!(fail_at > 2 * COUNT as usize, "{fail_at}");
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_changes_until_there_is_room() {
    const WRITES: &[Operation] = &[Operation::Create, Operation::Write];
    let store = Store::new();
    let log = start(&store, 250, recorder().1);
    assert_eq!(acknowledged(&log, 4), 4);
    let full = Plan { only: WRITES, fail_at: 0, then: Then::Crash, errno: ENOSPC };
    let faults = Faults::with(store.paths.root(), full);
    for _ in 0..5 {
        let error = log.submit(change(50)).unwrap().wait().unwrap_err();
        assert!(matches!(error, LogError::NotWritten { disk_full: true, .. }), "{error}");
        assert!(matches!(log.rotate(), Ok(()) | Err(LogError::NotWritten { disk_full: true, .. })));
    }
    drop(faults);
    for n in 5..=9 {
        assert_eq!(log.submit(change(n)).unwrap().wait().unwrap(), Seq(u64::from(n)));
    }
    drop(log);
    assert_eq!(store.read(EVERYTHING).unwrap().1, changes(9));
}

#[test]
fn a_write_that_cannot_be_taken_back_stops_the_log() {
    let store = Store::new();
    let log = start(&store, 1 << 20, recorder().1);
    assert_eq!(acknowledged(&log, 2), 2);
    let write = Faults::arm_only(store.paths.root(), Operation::Write, 0, Then::Recover);
    let cut = Faults::arm_only(store.paths.root(), Operation::Truncate, 0, Then::Recover);
    assert!(matches!(log.submit(change(3)).unwrap().wait(), Err(LogError::Failed { .. })));
    assert!(write.fired() && cut.fired() && log.failed().is_some());
    drop(log);
    assert_eq!(store.read(EVERYTHING).unwrap().1, changes(2));
}

#[test]
fn a_failure_under_many_threads_loses_nothing_acknowledged() {
    const THREADS: u32 = 6;
    const EACH: u32 = 8;
    let mut kept = 0;
    for fail_at in (0..60).step_by(3) {
        let store = Store::new();
        let log = start(&store, 500, recorder().1);
        let faults = Faults::arm(store.paths.root(), fail_at, Then::Crash);
        let acknowledged: Mutex<Vec<(Seq, Change)>> = Mutex::default();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (log, acknowledged) = (&log, &acknowledged);
                scope.spawn(move || {
                    for n in 0..EACH {
                        let change = change(thread * EACH + n);
                        let Ok(seq) = log.submit(change.clone()).and_then(|ticket| ticket.wait()) else { return };
                        acknowledged.lock().unwrap().push((seq, change));
                    }
                });
            }
        });
        drop(log);
        assert!(faults.fired(), "{fail_at}");
        drop(faults);
        let (_, seen) = store.read(EVERYTHING).unwrap();
        for (seq, change) in acknowledged.into_inner().unwrap() {
            assert_eq!(seen.get(seq.0 as usize - 1), Some(&change), "{fail_at}: change {seq}");
            kept += 1;
        }
    }
    assert!(kept > 0, "every failure came before the first answer");
}

#[test]
fn a_panic_in_apply_stops_the_log_and_answers_everyone() {
    let store = Store::new();
    let log = start(&store, 1 << 20, Box::new(|seq, _| assert!(seq < Seq(2), "a bug of a view")));
    assert_eq!(log.submit(change(1)).unwrap().wait().unwrap(), Seq(1));
    assert!(matches!(log.submit(change(2)).unwrap().wait(), Err(LogError::Failed { .. })));
    assert!(matches!(log.close(), Err(LogError::Failed { .. })));
    assert!(log.failed().is_some());
    assert_eq!(store.read(EVERYTHING).unwrap().1, changes(2), "it was durable, and the next open applies it");
}

#[test]
fn the_last_handle_may_be_dropped_by_the_writer_thread() {
    let store = Store::new();
    let (hand_over, handed) = channel::<GroupCommit>();
    let (done, is_done) = channel();
    let apply = Box::new(move |_, _| {
        drop(handed.recv().unwrap());
        done.send(()).unwrap();
    });
    let log = start(&store, 1 << 20, apply);
    let ticket = log.submit(change(1)).unwrap();
    hand_over.send(log).unwrap();
    is_done.recv().unwrap();
    assert_eq!(ticket.wait().unwrap(), Seq(1));
}
