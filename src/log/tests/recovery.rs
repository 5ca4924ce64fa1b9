//! Reading back: round trips, every truncation, every flipped bit, missing and foreign files, trimming.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::*;
use crate::log::format::{FILE_HEADER_BYTES, FileHeader, RECORD_HEADER_BYTES, RecordHeader};
use crate::log::{LogPosition, trim};
use crate::storage::crc32c;
use crate::storage::fault::{Event, Faults, History, Then};

/// Offsets at which the records of a file end, the header's end first.
fn record_ends(bytes: &[u8]) -> Vec<usize> {
    let (_, tag) = FileHeader::decode(Path::new("x"), bytes).unwrap();
    let mut ends = vec![FILE_HEADER_BYTES];
    while let Some(header) = RecordHeader::decode(&bytes[ends[ends.len() - 1]..], tag) {
        ends.push(ends[ends.len() - 1] + header.record_bytes());
    }
    assert_eq!(ends.last(), Some(&bytes.len()));
    ends
}

#[test]
fn what_is_written_is_read_in_order_over_many_files() {
    let store = Store::with_groups(&[1, 3, 2, 5, 1, 1, 7], 250);
    assert!(store.files().len() > 3, "{:?}", store.files());
    let (recovery, seen) = store.read(EVERYTHING).unwrap();
    assert_eq!((recovery.last_seq, recovery.torn_bytes, seen), (Seq(20), 0, changes(20)));
    let bytes: usize = store.contents().iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((recovery.files, recovery.len_bytes), (store.files().len(), bytes as u64));
    let writer = store.writer(WriterOptions::default()).unwrap();
    let newest_bytes = store.contents().last().unwrap().1.len() as u64;
    let position = LogPosition { last_seq: Seq(20), bytes: bytes as u64, newest_bytes, files: store.files().len() };
    assert_eq!(writer.position(), position);
}

#[test]
fn only_changes_after_the_asked_one_are_visited() {
    let store = Store::with_groups(&[1; 12], 250);
    for after in 0..=12 {
        let (recovery, seen) = store.read(ReadFrom { after: Seq(after), at_least: Seq(12) }).unwrap();
        assert_eq!((recovery.last_seq, seen), (Seq(12), changes(12).split_off(after as usize)));
    }
}

#[test]
fn an_empty_log_begins_with_change_one() {
    let store = Store::new();
    assert_eq!(store.read(EVERYTHING).unwrap(), (Recovery::default(), Vec::new()));
    let writer = store.writer(WriterOptions::default()).unwrap();
    assert_eq!(writer.position(), LogPosition { last_seq: Seq(0), bytes: 64, newest_bytes: 64, files: 1 });
    assert_eq!(store.files(), [store.paths.log_file(1)]);
}

#[test]
fn every_truncation_keeps_every_whole_record_and_the_log_goes_on() {
    let good = Store::with_groups(&[1, 2, 1, 3], 1 << 20).contents().remove(0).1;
    let ends = record_ends(&good);
    for len in 0..good.len() {
        let store = Store::new();
        fs::create_dir(store.paths.log_dir()).unwrap();
        fs::write(store.paths.log_file(1), &good[..len]).unwrap();
        if len < FILE_HEADER_BYTES {
            let error = store.read(EVERYTHING).unwrap_err();
            assert!(matches!(error, LogError::BadHeader { .. }), "{len}: {error}");
            continue;
        }
        let whole = ends.iter().filter(|&&end| end <= len).count() - 1;
        let (recovery, seen) = store.read(EVERYTHING).unwrap();
        assert_eq!(seen, changes(whole as u32), "{len}");
        assert_eq!(recovery.torn_bytes, (len - ends[whole]) as u64, "{len}");
        assert_eq!(fs::read(store.paths.log_file(1)).unwrap(), &good[..ends[whole]], "{len}");

        // Each of these syncs thrice, so only the cuts around the records' ends go on.
        if !ends.iter().any(|end| end.abs_diff(len) <= 1) {
            continue;
        }
        let mut writer = store.writer(WriterOptions::default()).unwrap();
        writer.append_group(&mut [EncodedRecord::new(&change(whole as u32 + 1)).unwrap()]).unwrap();
        let (recovery, seen) = store.read(EVERYTHING).unwrap();
        assert_eq!((recovery.torn_bytes, seen), (0, changes(whole as u32 + 1)), "{len}");
    }
}

#[test]
fn every_flipped_bit_is_refused_or_cuts_the_last_record_alone() {
    let store = Store::with_groups(&[1; 9], 250);
    let good = store.contents();
    assert!(good.len() >= 3);
    let (newest, newest_bytes) = good.last().unwrap();
    let last_record = record_ends(newest_bytes).iter().rev().nth(1).copied().unwrap();
    for (path, bytes) in &good {
        for bit in 0..bytes.len() * 8 {
            // In place: to replace a file over and over is slow on some file systems.
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.seek(SeekFrom::Start(bit as u64 / 8)).unwrap();
            file.write_all(&flipped[bit / 8..=bit / 8]).unwrap();
            match store.read(EVERYTHING) {
                Ok((_, seen)) => {
                    assert!(path == newest && bit / 8 >= last_record, "{path:?} bit {bit}");
                    assert_eq!(seen, changes(8), "{path:?} bit {bit}");
                    fs::write(path, bytes).unwrap();
                }
                Err(error) => {
                    assert!(!(path == newest && bit / 8 >= last_record), "{path:?} bit {bit}: {error}");
                    assert_eq!(fs::read(path).unwrap(), flipped, "a refused file is not changed");
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{path:?} bit {bit}: {error}");
                    file.seek(SeekFrom::Start(bit as u64 / 8)).unwrap();
                    file.write_all(&bytes[bit / 8..=bit / 8]).unwrap();
                }
            }
        }
    }
}

#[test]
fn every_truncation_of_an_older_file_is_refused() {
    let store = Store::with_groups(&[1; 9], 250);
    let (path, bytes) = store.contents().remove(1);
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        let error = store.read(EVERYTHING).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{len}: {error}");
        assert_eq!(fs::read(&path).unwrap().len(), len, "a refused file is not changed");
    }
}

#[test]
fn blocks_lost_from_the_last_group_are_torn_and_from_an_earlier_one_damage() {
    for (groups, torn) in [(&[1, 4][..], true), (&[1, 4, 1][..], false)] {
        let store = Store::with_groups(groups, 1 << 20);
        let (path, mut bytes) = store.contents().remove(0);
        let ends = record_ends(&bytes);
        // The third record: second of the group of four, with whole records after it in the same write.
        bytes[ends[2]..ends[3]].fill(0);
        fs::write(&path, &bytes).unwrap();
        let result = store.read(EVERYTHING);
        if torn {
            let (recovery, seen) = result.unwrap();
            assert_eq!(seen, changes(2));
            assert_eq!(recovery.torn_bytes, (bytes.len() - ends[2]) as u64);
            continue;
        }
        let error = result.unwrap_err();
        let range = ends[2] as u64..ends[3] as u64;
        assert!(
            matches!(&error, LogError::Damaged { offset, ranges, .. } if *offset == range.start && *ranges == [range]),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn zeros_and_rubbish_from_any_byte_of_the_last_group_cost_that_group_alone() {
    let good = Store::with_groups(&[1, 2, 3], 1 << 20).contents().remove(0).1;
    let ends = record_ends(&good);
    for at in ends[3]..good.len() {
        for fill in [0, 0xa5, 0xff] {
            let mut bytes = good.clone();
            bytes[at..].fill(fill);
            let store = Store::new();
            fs::create_dir(store.paths.log_dir()).unwrap();
            fs::write(store.paths.log_file(1), &bytes).unwrap();
            let same = ends.iter().skip(4).take_while(|&&end| bytes[..end] == good[..end]).count();
            let (recovery, seen) = store.read(EVERYTHING).unwrap();
            assert_eq!(seen, changes(3 + same as u32), "{at} {fill}");
            assert_eq!(recovery.torn_bytes, (good.len() - ends[3 + same]) as u64, "{at} {fill}");
        }
    }
}

#[test]
fn every_damaged_range_is_listed() {
    let store = Store::with_groups(&[1; 8], 1 << 20);
    let (path, mut bytes) = store.contents().remove(0);
    let ends = record_ends(&bytes);
    for record in [1, 4, 5, 7] {
        bytes[ends[record] + RECORD_HEADER_BYTES] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    let error = store.read(EVERYTHING).unwrap_err();
    let range = |from: usize, to: usize| ends[from] as u64..ends[to] as u64;
    let expected = [range(1, 2), range(4, 6), range(7, 8)];
    assert!(matches!(&error, LogError::Damaged { ranges, .. } if *ranges == expected), "{error} {expected:?}");
}

#[test]
fn missing_files_are_noticed() {
    let whole = Store::with_groups(&[1; 12], 250).contents();
    assert!(whole.len() >= 4);
    let without = |missing: &[usize], from: ReadFrom| {
        let store = Store::new();
        fs::create_dir(store.paths.log_dir()).unwrap();
        for (index, (path, bytes)) in whole.iter().enumerate() {
            if !missing.contains(&index) {
                fs::write(store.paths.log_dir().join(path.file_name().unwrap()), bytes).unwrap();
            }
        }
        store.read(from)
    };
    let newest = whole.len() - 1;
    let last = ReadFrom { after: Seq(0), at_least: Seq(12) };
    assert!(without(&[], last).is_ok());
    assert!(matches!(without(&[0], EVERYTHING), Err(LogError::Missing { seq: Seq(1), .. })));
    assert!(matches!(without(&[1], EVERYTHING), Err(LogError::BrokenChain { .. })));
    assert!(matches!(without(&[newest], last), Err(LogError::CutShort { seen: Seq(12), .. })));
    let all: Vec<usize> = (0..whole.len()).collect();
    assert!(matches!(without(&all, last), Err(LogError::Missing { seq: Seq(1), .. })));
    assert!(matches!(without(&all, ReadFrom { after: Seq(5), at_least: Seq(5) }), Err(LogError::Missing { .. })));
}

#[test]
fn files_of_another_store_or_timeline_are_refused() {
    let store = Store::with_groups(&[1], 1 << 20);
    for (identity, what) in [
        (LogIdentity { store_id: [7; 16], ..IDENTITY }, "store"),
        (LogIdentity { timeline: 2, ..IDENTITY }, "timeline"),
    ] {
        let error = read_from::<LogError>(&store.paths, identity, EVERYTHING, &mut |_, _| Ok(())).unwrap_err();
        assert!(matches!(&error, LogError::Foreign { what: found, .. } if *found == what), "{error}");
    }
    fs::rename(store.paths.log_file(1), store.paths.log_file(2)).unwrap();
    let error = store.read(ReadFrom { after: Seq(1), at_least: Seq(1) }).unwrap_err();
    assert!(matches!(error, LogError::BadHeader { .. }), "{error}");
}

/// Appends a record with these fields and right checksums to the only file.
fn append_crafted(store: &Store, craft: impl FnOnce(&mut RecordHeader), payload: &[u8]) {
    let (path, mut bytes) = store.contents().remove(0);
    let (_, tag) = FileHeader::decode(&path, &bytes).unwrap();
    let seq = Seq(record_ends(&bytes).len() as u64);
    let payload_len = payload.len() as u32;
    let mut header = RecordHeader {
        payload_len,
        payload_crc: crc32c(payload),
        seq,
        file_tag: tag,
        group_index: 0,
        kind: 2,
        payload_version: 1,
    };
    craft(&mut header);
    bytes.extend(header.encode());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn records_of_a_newer_program_are_refused_and_not_cut() {
    let refused = |craft: fn(&mut RecordHeader), payload: &[u8]| {
        let store = Store::with_groups(&[1, 1], 1 << 20);
        append_crafted(&store, craft, payload);
        let before = store.contents();
        let error = store.read(EVERYTHING).unwrap_err();
        assert_eq!(store.contents(), before);
        error
    };
    let error = refused(|header| header.payload_version = 4, &[0; 4]);
    assert!(matches!(error, LogError::Unsupported { found: 4, supported: 3, .. }), "{error}");
    let error = refused(|header| header.kind = 9, &[0; 4]);
    assert!(matches!(error, LogError::Malformed { seq: Seq(3), .. }), "{error}");
    let error = refused(|_| (), &[0; 5]);
    assert!(matches!(error, LogError::Malformed { seq: Seq(3), .. }), "{error}");
    let error = refused(|header| header.seq = Seq(4), &[0; 4]);
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    let error = refused(|header| header.payload_len = u32::MAX, &[0; 4]);
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("longer than any record"), "{error}");
}

#[test]
fn a_record_of_another_file_is_not_taken_for_one_of_this() {
    let store = Store::with_groups(&[1, 1], 1 << 20);
    append_crafted(&store, |header| header.file_tag ^= 1, &[0; 4]);
    let (recovery, seen) = store.read(EVERYTHING).unwrap();
    assert_eq!((recovery.torn_bytes, seen), (40, changes(2)));
}

#[test]
fn nothing_is_cut_when_a_visitor_fails_or_the_end_is_too_early() {
    let store = Store::with_groups(&[1, 1, 1], 1 << 20);
    let (path, bytes) = store.contents().remove(0);
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let stop = |seq: Seq, _| if seq == Seq(2) { Err(LogError::Closed) } else { Ok(()) };
    let error = read_from(&store.paths, IDENTITY, EVERYTHING, &mut { stop }).unwrap_err();
    assert!(matches!(error, LogError::Closed), "{error}");
    let error = store.read(ReadFrom { after: Seq(0), at_least: Seq(3) }).unwrap_err();
    assert!(matches!(error, LogError::CutShort { last_seq: Seq(2), .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap().len(), bytes.len() - 1);
}

#[test]
fn trimming_deletes_whole_files_from_the_oldest_and_never_the_newest() {
    for up_to in 0..=14 {
        let store = Store::with_groups(&[1; 12], 250);
        let before = files::list(&store.paths).unwrap();
        let trimmed = trim(&store.paths, Seq(up_to)).unwrap();
        let after = files::list(&store.paths).unwrap();
        assert_eq!(before[before.len() - after.len()..], after);
        assert_eq!(trimmed.files, before.len() - after.len());
        let needed = before.iter().filter(|file| file.first_seq.0 <= up_to + 1).count() - 1;
        assert_eq!(trimmed.files, needed, "{up_to}: {before:?}");
        let (recovery, seen) = store.read(ReadFrom { after: Seq(up_to.min(12)), at_least: Seq(12) }).unwrap();
        assert_eq!((recovery.last_seq, seen), (Seq(12), changes(12).split_off(up_to.min(12) as usize)));
        if trimmed.files > 0 {
            assert!(matches!(store.read(EVERYTHING), Err(LogError::Missing { .. })));
        }
    }
}

#[test]
fn a_crash_while_trimming_leaves_a_log_without_holes() {
    for fail_at in 0.. {
        let store = Store::with_groups(&[1; 12], 250);
        let faults = Faults::arm(store.paths.root(), fail_at, Then::Crash);
        let result = trim(&store.paths, Seq(10));
        let fired = faults.fired();
        drop(faults);
        assert_eq!(result.is_err(), fired);
        assert_eq!(store.read(ReadFrom { after: Seq(10), at_least: Seq(12) }).unwrap().1, changes(12).split_off(10));
        if !fired {
            assert!(fail_at >= 4, "{fail_at}");
            break;
        }
    }
}

/// After a sync that failed in an earlier process its bytes may stand in the page cache alone.
#[test]
fn opening_writes_the_last_group_again() {
    let store = Store::with_groups(&[2, 3], 1 << 20);
    let (path, bytes) = store.contents().remove(0);
    let group = record_ends(&bytes)[2];
    let history = History::record(store.paths.root());
    store.writer(WriterOptions::default()).unwrap();
    let is_of_the_file = |event: &Event| match event {
        Event::Write { path: changed, .. } | Event::SyncFile { path: changed } => *changed == path,
        _ => false,
    };
    let events: Vec<_> = history.events().into_iter().filter(is_of_the_file).collect();
    let written = Event::Write { path: path.clone(), offset: group as u64, bytes: bytes[group..].to_vec() };
    assert_eq!(events, [written, Event::SyncFile { path }]);
}

#[test]
fn recovery_that_crashes_at_any_step_can_be_repeated() {
    for fail_at in 0.. {
        let store = Store::with_groups(&[1, 1, 2], 1 << 20);
        let (path, bytes) = store.contents().remove(0);
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let faults = Faults::arm(store.paths.root(), fail_at, Then::Crash);
        let result = store.writer(WriterOptions::default());
        let fired = faults.fired();
        drop(faults);
        // Truncate and its sync, then the last group once more and its sync; a log whose length cannot be noted is
        // opened.
        assert!(if fail_at < 4 { result.is_err() && fired } else { fired || result.is_ok() }, "{fail_at}");
        assert_eq!(store.read(EVERYTHING).unwrap().1, changes(3), "{fail_at}");
        if !fired {
            assert!(fail_at > 4);
            break;
        }
    }
}
