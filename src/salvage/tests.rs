//! Damaged stores, salvaged: what is readable is there, what is lost is named, nothing else comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;
use crate::storage::fault::{DeadSector, Faults, Operation, Then};
use crate::storage::list_files_below;
use crate::types::{CollectionName, Metric, NewDocument};
use crate::{Collection, DefinitionRequest, Options};

const DIM: usize = 64;

fn things(database: &Database) -> Collection {
    let name = CollectionName::new("things").unwrap();
    database.create_collection(&name, &DefinitionRequest::vectors(DIM as u32)).unwrap().collection
}

fn id(n: usize) -> DocumentId {
    DocumentId::new(&format!("d{n:04}")).unwrap()
}

fn write(things: &Collection, ids: std::ops::Range<usize>, text: &str) {
    for chunk in ids.collect::<Vec<_>>().chunks(200) {
        let document = |&n: &usize| {
            let vector = (0..DIM).map(|d| ((n * 7 + d * 3) % 11) as f32 - 5.0).collect();
            NewDocument {
                id: id(n),
                text: Some(text.into()),
                metadata: BTreeMap::new(),
                vector: Some(vector),
                chunks: Default::default(),
            }
        };
        things.upsert(chunk.iter().map(document).collect()).unwrap();
    }
}

/// 1,000 documents in one segment of several blocks, 10 of them deleted and 10 replaced in the log.
fn make(path: &Path) {
    let options = Options { memtable_documents: Some(2_000), ..Options::default() };
    let database = Database::open_with(path, options).unwrap();
    let things = things(&database);
    write(&things, 0..1_000, "first");
    things.optimise().unwrap();
    things.delete(&(0..10).map(id).collect::<Vec<_>>()).unwrap();
    write(&things, 10..20, "second");
}

fn texts(path: &Path) -> BTreeMap<usize, String> {
    let database = Database::open(path).unwrap();
    let Ok(things) = database.collection(&CollectionName::new("things").unwrap()) else { return BTreeMap::new() };
    let read = |n| things.get(&id(n)).unwrap().map(|found| (n, found.stored.text.unwrap()));
    (0..1_000).filter_map(read).collect()
}

fn file(data: &Path, extension: &str) -> PathBuf {
    let files = list_files_below(data).unwrap();
    files.into_iter().find(|file| file.extension().is_some_and(|e| e == extension)).unwrap()
}

fn edit(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Damages a store, salvages it, and returns what is there with the report.
fn salvaged(damage: impl FnOnce(&Path)) -> (BTreeMap<usize, String>, Report) {
    let dir = tempfile::tempdir().unwrap();
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    make(&data);
    damage(&data);
    let state = |data: &Path| -> Vec<_> {
        let files = list_files_below(data).unwrap().into_iter().filter(|file| !file.ends_with("LOCK"));
        files.map(|file| (fs::read(&file).unwrap(), file)).collect()
    };
    let before = state(&data);
    let report = salvage(&data, &new, &mut |_, _| {}).unwrap();
    assert_eq!(state(&data), before, "the damaged store is only read");
    (texts(&new), report)
}

#[test]
fn a_sound_store_is_salvaged_whole() {
    let (seen, report) = salvaged(|_| {});
    assert_eq!((report.documents(), report.losses, seen.len()), (990, Vec::new(), 990));
    assert!(!seen.contains_key(&9) && seen[&10] == "second" && seen[&20] == "first");
}

/// A record of the log holds 64 MiB.
#[test]
fn large_documents_are_written_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    let text = "x".repeat(300 << 10);
    {
        let database = Database::open(&data).unwrap();
        let things = things(&database);
        (0..256).step_by(128).for_each(|from| write(&things, from..from + 128, &text));
    }
    let report = salvage(&data, &new, &mut |_, _| {}).unwrap();
    assert_eq!((report.documents(), report.losses), (256, Vec::new()));
    assert!(texts(&new).values().all(|seen| *seen == text));
}

#[test]
fn only_the_rows_of_a_damaged_block_are_lost() {
    let (seen, report) = salvaged(|data| edit(&file(data, "seg"), |bytes| bytes[100_000] ^= 1));
    assert_eq!(report.losses.len(), 1, "{:?}", report.losses);
    assert!(report.losses[0].contains("documents in segment") && report.losses[0].contains("offset 65536"));
    assert!(seen.len() > 600 && seen.len() < 990, "{}", seen.len());
    assert!(!seen.contains_key(&9) && seen[&10] == "second");
}

#[test]
fn only_the_rows_of_a_block_that_the_disk_does_not_give_back_are_lost() {
    let mut dead = None;
    let (seen, report) = salvaged(|data| dead = Some(DeadSector::new(&file(data, "seg"), 100_000..100_512)));
    assert_eq!(report.losses.len(), 1, "{:?}", report.losses);
    assert!(report.losses[0].contains("offset 65536: it cannot be read"), "{:?}", report.losses);
    assert!(seen.len() > 600 && seen.len() < 990, "{}", seen.len());
}

#[test]
fn a_verification_names_what_the_disk_does_not_give_back() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let database = Database::open(dir.path()).unwrap();
    let segment = file(dir.path(), "seg");
    let _dead = DeadSector::new(&segment, 100_000..100_512);
    let problems = database.verify(&mut |_, _| {}).unwrap().problems;
    let expected = format!("{} is damaged at offset 65536: it cannot be read", segment.display());
    assert!(problems.iter().any(|problem| problem.contains(&expected)), "{problems:?}");
}

#[test]
fn a_lost_segment_leaves_what_the_log_has() {
    let (seen, report) = salvaged(|data| edit(&file(data, "seg"), |bytes| bytes.truncate(3_000)));
    assert_eq!((seen.len(), report.losses.len()), (10, 1));
    assert!(report.losses[0].contains("a segment of things with"), "{:?}", report.losses);
}

/// A log file holds what was sealed until the next one is begun.
#[test]
fn what_a_damaged_segment_held_is_taken_from_the_log() {
    /// Writes one more document, with which the memtable is full, and returns the segment of that.
    fn seal(data: &Path) -> PathBuf {
        let options = Options { memtable_documents: Some(20), ..Options::default() };
        let database = Database::open_with(data, options).unwrap();
        let things = database.collection(&CollectionName::new("things").unwrap()).unwrap();
        let before = things.stats().sealed_seq;
        write(&things, 20..21, "second");
        let deadline = Instant::now() + Duration::from_secs(60);
        while things.stats().sealed_seq == before {
            assert!(Instant::now() < deadline, "nothing is sealed: {:?}", things.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
        let files = list_files_below(&data.join("segments")).unwrap();
        files.into_iter().rfind(|file| file.extension().is_some_and(|e| e == "seg")).unwrap()
    }
    let (seen, report) = salvaged(|data| edit(&seal(data), |bytes| bytes.truncate(3_000)));
    assert_eq!((seen.len(), report.losses.len()), (990, 1), "{:?}", report.losses);
    assert!(!seen.contains_key(&9) && seen[&10] == "second" && seen[&20] == "second" && seen[&21] == "first");
}

#[test]
fn a_lost_manifest_leaves_the_segments() {
    let (seen, report) = salvaged(|data| fs::remove_file(data.join("MANIFEST")).unwrap());
    assert!(report.losses[0].contains("manifest"), "{:?}", report.losses);
    // The log no longer holds the creation, so the name is lost too.
    assert!(seen.is_empty());
    assert_eq!(report.collections, BTreeMap::from([("salvaged-1".to_owned(), 990)]));
}

#[test]
fn collections_that_end_with_one_name_are_both_there() {
    let dir = tempfile::tempdir().unwrap();
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    let database = Database::open(&data).unwrap();
    let name = CollectionName::new("things").unwrap();
    write(&things(&database), 0..3, "first");
    database.drop_collection(&name).unwrap();
    let other = database.create_collection(&name, &DefinitionRequest::vectors(2)).unwrap().collection;
    let document = NewDocument { vector: Some(vec![1.0, 2.0]), ..NewDocument::from_text(id(7), "second") };
    other.upsert(vec![document]).unwrap();
    drop((other, database));
    fs::remove_file(data.join("MANIFEST")).unwrap();
    let log = list_files_below(&data.join("log")).unwrap().into_iter().max_by_key(|f| f.metadata().unwrap().len());
    let log = log.unwrap();
    // The drop is the one record that is short.
    let bytes = fs::read(&log).unwrap();
    let mut reports = (64..bytes.len()).step_by(8).filter_map(|at| {
        edit(&log, |bytes| bytes[at] ^= 1);
        let report = salvage(&data, &new, &mut |_, _| {}).unwrap();
        let _ = fs::remove_dir_all(&new);
        fs::write(&log, &bytes).unwrap();
        (report.documents() == 4).then_some(report)
    });
    let report = reports.next().expect("a byte of the drop was changed");
    assert_eq!(report.collections, BTreeMap::from([("things".to_owned(), 3), ("salvaged-2".to_owned(), 1)]));
    assert!(report.losses.iter().any(|loss| loss.contains("second collection things")), "{:?}", report.losses);
}

#[test]
fn a_damaged_change_is_named_with_what_it_may_mean() {
    let (seen, report) = salvaged(|data| {
        let log = list_files_below(&data.join("log")).unwrap().into_iter().max_by_key(|f| f.metadata().unwrap().len());
        edit(&log.unwrap(), |bytes| bytes[64 + 40] ^= 1);
    });
    assert!(!report.losses.is_empty() && report.losses.iter().any(|loss| loss.contains("may be there")), "{report:?}");
    assert!(seen[&10] == "second" && seen.len() >= 990, "{}", seen.len());
}

#[test]
fn files_of_the_log_that_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    {
        let database = Database::open(&data).unwrap();
        let things = things(&database);
        for from in [0, 200, 400] {
            write(&things, from..from + 200, "in a file of its own");
            crate::snapshot::create(&database, None).unwrap();
        }
    }
    let logs = || {
        let mut logs = list_files_below(&data.join("log")).unwrap();
        logs.sort();
        logs
    };
    assert_eq!(logs().len(), 4);
    let salvaged = |to: &str| salvage(&data, &dir.path().join(to), &mut |_, _| {}).unwrap();
    // The one before the newest, which is empty.
    let bytes = fs::read(&logs()[2]).unwrap();
    let third = logs()[2].clone();
    fs::remove_file(&third).unwrap();
    let report = salvaged("without-third");
    assert_eq!((report.documents(), report.losses.len()), (400, 1), "{report:?}");
    assert!(report.losses[0].contains("the changes before this file are missing"), "{report:?}");
    fs::write(&third, bytes).unwrap();
    fs::remove_file(&logs()[0]).unwrap();
    let report = salvaged("first");
    assert_eq!(report.collections, BTreeMap::from([("salvaged-1".to_owned(), 400)]));
    let is_said = |report: &Report, words: &str| report.losses.iter().any(|loss| loss.contains(words));
    assert!(is_said(&report, "a file of the log is missing") && is_said(&report, "name and settings"), "{report:?}");
    assert!(!dir.path().join("first.unfinished").exists() && dir.path().join("first").join("FORMAT").exists());
    fs::remove_dir_all(data.join("log")).unwrap();
    let report = salvaged("second");
    assert!(report.collections.is_empty() && is_said(&report, "a file of the log is missing"), "{report:?}");
}

#[test]
fn what_is_in_the_way_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let database = Database::open(&data).unwrap();
    let salvaged = |to: &Path| salvage(&data, to, &mut |_, _| {});
    assert!(matches!(salvaged(&dir.path().join("new")), Err(SalvageError::Storage(_))), "it is in use");
    drop(database);
    assert!(matches!(salvaged(&data), Err(SalvageError::Inside { .. })));
    assert!(matches!(salvaged(&data.join("new")), Err(SalvageError::Inside { .. })));
    let taken = dir.path().join("taken");
    std::fs::create_dir_all(taken.join("by")).unwrap();
    assert!(matches!(salvaged(&taken), Err(SalvageError::NotEmpty { .. })));
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(matches!(salvaged(&file), Err(SalvageError::NotEmpty { .. })));
    let none = salvage(&taken, &dir.path().join("new"), &mut |_, _| {});
    assert!(matches!(none, Err(SalvageError::NotAStore { .. })));
    assert!(!dir.path().join("new").exists());
    let missing = salvage(&dir.path().join("absent"), &dir.path().join("new"), &mut |_, _| {});
    assert!(matches!(missing, Err(SalvageError::NoDirectory { .. })));
}

#[test]
fn what_stands_where_the_new_store_is_put_together_is_not_removed_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let (data, new, staged) = (dir.path().join("data"), dir.path().join("new"), dir.path().join("new.unfinished"));
    make(&data);
    let salvaged = |from: &Path| salvage(from, &new, &mut |_, _| {});
    // Nobody's but the user's.
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("notes"), "mine").unwrap();
    let refused = salvaged(&data).unwrap_err();
    assert!(matches!(&refused, SalvageError::NotEmpty { path } if *path == staged), "{refused}");
    assert_eq!(fs::read_to_string(staged.join("notes")).unwrap(), "mine");
    fs::remove_dir_all(&staged).unwrap();
    // Another salvage is at it.
    let open = Database::open(&staged).unwrap();
    let refused = salvaged(&data).unwrap_err();
    assert!(matches!(refused, SalvageError::Storage(StorageError::Locked { .. })), "{refused}");
    assert!(staged.join("FORMAT").exists());
    drop(open);
    // An ended one left it.
    assert_eq!(salvaged(&data).unwrap().documents(), 990);
    assert!(!staged.exists());
    // All that is left of a store.
    fs::rename(&data, &staged).unwrap();
    fs::remove_dir_all(&new).unwrap();
    let refused = salvaged(&staged).unwrap_err();
    assert!(matches!(&refused, SalvageError::Replaced { path } if *path == staged), "{refused}");
    assert_eq!(texts(&staged).len(), 990);
}

#[test]
fn vectors_of_a_collection_whose_settings_are_lost_are_compared_as_they_can_be() {
    for (metric, guessed) in [(Metric::L2, Metric::L2), (Metric::Dot, Metric::L2), (Metric::Cosine, Metric::Cosine)] {
        let dir = tempfile::tempdir().unwrap();
        let (data, new) = (dir.path().join("data"), dir.path().join("new"));
        let name = CollectionName::new("things").unwrap();
        {
            let database = Database::open(&data).unwrap();
            let request = DefinitionRequest { metric: Some(metric), ..DefinitionRequest::vectors(DIM as u32) };
            let things = database.create_collection(&name, &request).unwrap().collection;
            write(&things, 0..20, "first");
        }
        let log = list_files_below(&data.join("log")).unwrap().into_iter().max_by_key(|f| f.metadata().unwrap().len());
        // The first record is the creation.
        edit(&log.unwrap(), |bytes| bytes[64 + 40] ^= 1);
        let report = salvage(&data, &new, &mut |_, _| {}).unwrap();
        assert_eq!(report.collections, BTreeMap::from([("salvaged-1".to_owned(), 20)]));
        let said = |loss: &String| loss.contains("settings") && loss.contains(&format!("{guessed:?}").to_lowercase());
        assert!(report.losses.iter().any(said), "{:?}", report.losses);
        let database = Database::open(&new).unwrap();
        assert_eq!(database.collections()[0].definition().metric, guessed);
    }
}

#[test]
fn what_the_new_store_does_not_take_over_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    make(&data);
    fs::write(data.join("replication.json"), "{}").unwrap();
    fs::create_dir(data.join("sources")).unwrap();
    let report = salvage(&data, &new, &mut |_, _| {}).unwrap();
    assert_eq!((report.losses, report.left_behind.len()), (Vec::new(), 2));
    assert!(report.left_behind[0].contains("replicate add") && report.left_behind[1].contains("sources"));
}

#[test]
fn a_directory_that_cannot_be_replaced_is_told_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (data, new) = (dir.path().join("data"), dir.path().join("new"));
    make(&data);
    fs::create_dir(&new).unwrap();
    let faults = Faults::arm_only(&new.canonicalize().unwrap(), Operation::Remove, 0, Then::Recover);
    let refused = salvage(&data, &new, &mut |_, _| {}).unwrap_err();
    assert!(matches!(&refused, SalvageError::InTheWay { .. }) && faults.fired(), "{refused}");
    drop(faults);
    assert!(new.exists() && !dir.path().join("new.unfinished").exists());
    assert_eq!(salvage(&data, &new, &mut |_, _| {}).unwrap().documents(), 990);
    assert_eq!(texts(&new).len(), 990);
}

/// Two stores with segments and lists of the same names: 100 documents, 5 of them deleted and 20 replaced, and others,
/// as a restore leaves them.
fn histories(root: &Path) -> [PathBuf; 2] {
    ["present", "past"].map(|history| {
        let data = root.join(history);
        let database = Database::open(&data).unwrap();
        let things = things(&database);
        write(&things, 0..if history == "past" { 120 } else { 100 }, history);
        things.flush().unwrap();
        if history == "present" {
            things.delete(&(0..5).map(id).collect::<Vec<_>>()).unwrap();
            write(&things, 80..100, "replaced");
        } else {
            things.delete(&[id(99)]).unwrap();
        }
        things.flush().unwrap();
        // A log that begins anew holds nothing of what is sealed.
        crate::snapshot::create(&database, None).unwrap();
        data
    })
}

#[test]
fn a_segment_of_another_moment_is_a_loss_and_none_of_its_rows_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let [data, past] = histories(dir.path());
    let segments = data.join("segments");
    let oldest = file(&segments, "seg");
    fs::copy(past.join(oldest.strip_prefix(&data).unwrap()), &oldest).unwrap();
    let report = salvage(&data, &dir.path().join("new"), &mut |_, _| {}).unwrap();
    assert_eq!(report.losses.len(), 1, "{:?}", report.losses);
    let expected = format!("{} has rows 120, expected 100", oldest.display());
    assert!(report.losses[0].contains(&expected) && report.losses[0].contains("75 documents"), "{:?}", report.losses);
    let seen = texts(&dir.path().join("new"));
    assert!(seen.values().all(|text| text != "past") && (80..100).all(|n| seen[&n] == "replaced"), "{seen:?}");
}

#[test]
fn a_list_of_dead_rows_of_another_moment_is_a_lost_one() {
    let dir = tempfile::tempdir().unwrap();
    let [data, past] = histories(dir.path());
    let list = file(&data.join("segments"), "dead");
    assert!(past.join(list.strip_prefix(&data).unwrap()).exists(), "lists have the same names");
    let segment = list.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().parse().unwrap();
    crate::segment::DeadRows::new(100).write(&list, crate::types::SegmentId(segment)).unwrap();
    let report = salvage(&data, &dir.path().join("new"), &mut |_, _| {}).unwrap();
    assert_eq!((report.documents(), report.losses.len()), (95, 1), "{:?}", report.losses);
    let expected = format!("{} has dead rows 0, expected 25", list.display());
    assert!(report.losses[0].contains(&expected), "{:?}", report.losses);
}

#[test]
fn deletions_that_went_with_a_segment_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let [data, _] = histories(dir.path());
    let mut segments = list_files_below(&data.join("segments")).unwrap();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    edit(segments.last().unwrap(), |bytes| bytes.truncate(3_000));
    let report = salvage(&data, &dir.path().join("new"), &mut |_, _| {}).unwrap();
    let is_said = |loss: &String| loss.contains("20 documents") && loss.contains("5 deletions went with it");
    assert!(report.losses.iter().any(is_said), "{:?}", report.losses);
}

#[test]
fn what_a_snapshot_lacks_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let home = {
        let database = Database::open(dir.path().join("data")).unwrap();
        let things = things(&database);
        let [_, second] = [("first", 0..200), ("second", 200..400)].map(|(name, ids)| {
            write(&things, ids, "in the log");
            let name = crate::snapshot::SnapshotName::new(name).unwrap();
            crate::snapshot::create(&database, Some(name)).unwrap().snapshot.home
        });
        second
    };
    let salvaged = |to: &str| {
        let report = salvage(&home, &dir.path().join(to), &mut |_, _| {}).unwrap();
        (report.documents(), report.losses)
    };
    assert_eq!(salvaged("whole"), (400, vec![]));
    let log = list_files_below(&home.join("log")).unwrap();
    let [first, last] = &log[..] else { panic!("{log:?}") };
    let bytes = fs::read(last).unwrap();
    fs::remove_file(last).unwrap();
    let end = |(documents, losses): (u64, Vec<String>)| {
        assert_eq!((documents, losses.len()), (200, 1), "{losses:?}");
        assert!(losses[0].contains("the changes 3 to 3 are lost"), "{losses:?}");
    };
    end(salvaged("without-the-last-file"));
    // Cut between two records.
    fs::write(last, &bytes[..64]).unwrap();
    end(salvaged("cut"));
    fs::write(last, &bytes).unwrap();
    assert_eq!(salvaged("whole-again"), (400, vec![]));
    fs::remove_file(first).unwrap();
    fs::remove_file(home.join("MANIFEST")).unwrap();
    let (documents, losses) = salvaged("without-the-beginning");
    assert!(documents == 200 && losses.iter().any(|loss| loss.contains("the changes 1 to 2 are lost")), "{losses:?}");
    edit(&home.join("SNAPSHOT"), |bytes| bytes[30] ^= 1);
    let (_, losses) = salvaged("without-its-contents");
    assert!(losses.iter().any(|loss| loss.contains("SNAPSHOT is damaged")), "{losses:?}");
}

#[test]
fn segments_that_a_snapshot_lacks_are_named_without_its_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let [data, _] = histories(dir.path());
    let home = crate::snapshot::list(&data).unwrap().remove(0).snapshot.unwrap().home;
    let report = salvage(&home, &dir.path().join("whole"), &mut |_, _| {}).unwrap();
    assert_eq!((report.documents(), report.losses), (95, vec![]));
    fs::remove_file(home.join("MANIFEST")).unwrap();
    let gone = ["seg", "dead"].map(|extension| {
        let path = file(&home.join("segments"), extension);
        fs::remove_file(&path).unwrap();
        path
    });
    let report = salvage(&home, &dir.path().join("new"), &mut |_, _| {}).unwrap();
    for path in gone {
        let expected = format!("{} is missing", path.display());
        assert!(report.losses.iter().any(|loss| loss.contains(&expected)), "{:?}", report.losses);
    }
}

/// A process may hold fewer files open than a store has segments.
#[cfg(target_os = "linux")]
#[test]
fn no_segment_is_held_open_while_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().canonicalize().unwrap().join("data");
    make(&data);
    let wreck = collect::collect(&DataPaths::new(&data)).unwrap();
    let files = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let held: Vec<PathBuf> = files.filter(|path| path.starts_with(&data)).collect();
    assert_eq!((wreck.segments.len(), wreck.documents(), held), (1, 990, vec![]));
}
