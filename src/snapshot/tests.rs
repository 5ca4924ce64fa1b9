//! Snapshots of real stores: taken, verified, restored, killed at every step.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::manifest::Manifest;
use crate::storage::DataPaths;
use crate::storage::fault::{DeadSector, Faults, Operation, Then};
use crate::types::{CollectionName, DocumentId, NewDocument, Seq, Value};
use crate::{Collection, Database, DefinitionRequest, Options};

fn options() -> Options {
    Options { memtable_documents: Some(8), ..Options::default() }
}

fn open(path: &Path) -> Database {
    Database::open_with(path, options()).unwrap()
}

fn things(database: &Database) -> Collection {
    let name = CollectionName::new("things").unwrap();
    database.create_collection(&name, &DefinitionRequest::vectors(3)).unwrap().collection
}

fn id(n: u64) -> DocumentId {
    DocumentId::new(&format!("d{n:03}")).unwrap()
}

fn write(things: &Collection, ids: std::ops::Range<u64>, version: i64) {
    let documents = ids.map(|n| NewDocument {
        id: id(n),
        text: None,
        metadata: BTreeMap::from([("version".to_owned(), Value::Int(version))]),
        vector: Some(vec![1.0 + n as f32, version as f32 + 1.0, 1.0]),
        chunks: Default::default(),
    });
    things.upsert(documents.collect()).unwrap();
}

/// Every document of `things` with its vector and version.
fn read(database: &Database) -> Vec<String> {
    let Ok(things) = database.collection(&CollectionName::new("things").unwrap()) else { return Vec::new() };
    let found = (0..60).filter_map(|n| things.get(&id(n)).unwrap());
    let mut seen: Vec<String> =
        found.map(|d| format!("{} {:?} {:?}", d.stored.id.as_str(), d.vector, d.stored.metadata)).collect();
    seen.push(format!("{} documents", things.stats().documents));
    seen
}

/// A store with a merged segment, one with dead rows, and a log that holds more.
fn make(path: &Path) -> Database {
    let database = open(path);
    let things = things(&database);
    write(&things, 0..20, 0);
    things.optimise().unwrap();
    write(&things, 10..30, 1);
    // No merge is left to be made between two snapshots.
    things.settle().unwrap();
    things.delete(&[id(3), id(12)]).unwrap();
    write(&things, 28..33, 2);
    database
}

fn name(text: &str) -> SnapshotName {
    SnapshotName::new(text).unwrap()
}

fn copy(from: &Path, to: &Path) {
    for file in crate::storage::list_files_below(from).unwrap() {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

fn quiet(_: u64, _: u64) {}

fn restore_named(data: &Path, text: &str) -> Result<Restored, SnapshotError> {
    restore(data, &Source::Snapshot(name(text)), &mut quiet)
}

#[test]
fn a_snapshot_is_the_store_at_its_moment_whatever_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let database = make(data);
    let before = read(&database);
    let last_seq = database.health().last_seq;
    let created = create(&database, Some(name("first"))).unwrap();
    assert_eq!((created.snapshot.contents.seq, created.copied), (last_seq, 0));
    write(&things(&database), 0..40, 7);
    things(&database).optimise().unwrap();
    let after = read(&database);
    assert_ne!(before, after);
    let report = verify(&find(data, &name("first")).unwrap(), &mut quiet).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(matches!(restore_named(data, "first"), Err(SnapshotError::Storage(_))), "the directory is held");
    drop(database);
    let restored = restore_named(data, "first").unwrap();
    assert_eq!((restored.seq, restored.timeline), (last_seq, 2));
    let database = open(data);
    assert_eq!(read(&database), before);
    write(&things(&database), 50..52, 9);
    things(&database).optimise().unwrap();
    drop(database);
    // What was replaced is whole, and can be opened where it stands.
    assert_eq!(read(&open(restored.replaced.as_deref().unwrap())), after);
    discard_replaced(data).unwrap();
    assert!(!DataPaths::new(data).before_restore_dir().exists());
    let report = verify(&find(data, &name("first")).unwrap(), &mut quiet).unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "the restored store changed nothing in it");
    assert_eq!(restore_named(data, "first").unwrap().timeline, 3, "a timeline is never used twice");
    assert_eq!(read(&open(data)), before);
}

#[test]
fn whatever_part_of_a_store_there_was_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let database = make(data);
    create(&database, Some(name("first"))).unwrap();
    drop(database);
    fs::remove_file(data.join("MANIFEST")).unwrap();
    fs::remove_file(data.join("FORMAT")).unwrap();
    fs::create_dir(data.join("sources")).unwrap();
    let restored = restore_named(data, "first").unwrap();
    let kept = restored.replaced.expect("there was a log");
    assert!(kept.join("log").read_dir().unwrap().next().is_some());
    discard_replaced(data).unwrap();
    drop(open(data));
}

#[test]
fn a_timeline_is_never_used_twice_where_the_manifest_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let database = make(data);
    create(&database, Some(name("first"))).unwrap();
    drop(database);
    assert_eq!(restore_named(data, "first").unwrap().timeline, 2);
    discard_replaced(data).unwrap();
    drop(open(data));
    fs::create_dir(data.join("sources")).unwrap();
    let source = data.join("sources/x.json");
    fs::write(&source, "timeline 2").unwrap();
    // The log tells.
    fs::write(data.join("MANIFEST"), "damaged").unwrap();
    assert_eq!(restore_named(data, "first").unwrap().timeline, 3);
    assert!(source.exists());
    discard_replaced(data).unwrap();
    // Where nothing tells, what was read into the lost timeline is no longer taken for read.
    fs::write(data.join("MANIFEST"), "damaged").unwrap();
    for log in fs::read_dir(data.join("log")).unwrap() {
        fs::write(log.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(restore_named(data, "first").unwrap().timeline, 2);
    assert!(!source.exists());
}

#[test]
fn a_restore_that_does_not_come_about_forgets_no_source() {
    let dir = tempfile::tempdir().unwrap();
    let database = make(dir.path());
    create(&database, Some(name("s"))).unwrap();
    drop(database);
    // Nothing tells which timeline the sources were read into.
    let mut damaged = crate::storage::list_files(&DataPaths::new(dir.path()).log_dir()).unwrap();
    damaged.push(dir.path().join("MANIFEST"));
    for file in damaged {
        // The snapshot has a link to it.
        fs::remove_file(&file).unwrap();
        fs::write(file, "damaged").unwrap();
    }
    fs::create_dir(dir.path().join("sources")).unwrap();
    fs::write(dir.path().join("sources/x.json"), "timeline 1").unwrap();
    let act = |data: &Path| restore_named(data, "s").is_ok();
    let check = |data: &Path, fail_at: usize, succeeded: bool| {
        let (paths, source) = (DataPaths::new(data), data.join("sources/x.json"));
        if !paths.restore_marker().exists() && Manifest::load(&paths).is_err() {
            assert!(source.exists() && !succeeded, "{fail_at}");
            restore_named(data, "s").unwrap();
        }
        drop(open(data));
        assert!(!source.exists(), "{fail_at}");
    };
    let steps = killed_everywhere(dir.path(), &act, &check);
    assert!(steps > 40, "{steps}");
}

#[test]
fn a_replaced_store_that_is_half_removed_is_not_taken_for_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    create(&make(data), Some(name("s"))).unwrap();
    restore_named(data, "s").unwrap();
    let paths = DataPaths::new(data);
    // The first removal is of what an earlier one left.
    let faults = Faults::arm_only(data, Operation::Remove, 1, Then::Crash);
    assert!(discard_replaced(data).is_err() && faults.fired());
    drop(faults);
    assert!(!paths.before_restore_dir().exists() && paths.discarded_dir().exists());
    drop(open(data));
    assert!(!paths.discarded_dir().exists());
    restore_named(data, "s").unwrap();
}

#[test]
fn what_the_disk_does_not_give_back_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let database = make(data);
    let truth = read(&database);
    let snapshot = create(&database, Some(name("s"))).unwrap().snapshot;
    drop(database);
    for end in [".seg", ".log"] {
        let member = snapshot.contents.members.iter().find(|member| member.path.ends_with(end)).unwrap();
        let middle = member.len_bytes / 2;
        let dead = DeadSector::new(&snapshot.home.join(&member.path), middle..middle + 1);
        let refused = restore_named(data, "s").unwrap_err();
        let refused = crate::types::Chain(&refused).to_string();
        assert!(refused.contains(&member.path), "{refused}");
        assert!(refused.contains("cannot be read") || refused.contains("does not give it back"), "{refused}");
        let problems = verify(&snapshot, &mut quiet).unwrap().problems;
        assert!(problems.len() == 1 && problems[0].contains(&member.path), "{problems:?}");
        drop(dead);
    }
    assert_eq!(read(&open(data)), truth);
}

#[test]
fn a_log_that_is_damaged_on_disk_is_in_no_sound_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let database = make(data);
    create(&database, Some(name("first"))).unwrap();
    // A closed file, which the store shares with the snapshot.
    let member = find(data, &name("first")).unwrap().contents.members.into_iter().find(|m| m.path.starts_with("log/"));
    let member = member.expect("a log is in it").path;
    let mut bytes = fs::read(data.join(&member)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(data.join(&member)).unwrap();
    fs::write(data.join(&member), &bytes).unwrap();
    let refused = create(&database, Some(name("second"))).unwrap_err();
    assert!(matches!(refused, SnapshotError::Log(_)), "{refused}");
    assert_eq!(list(data).unwrap().len(), 1);
    drop(database);
    let refused = create_closed(data, Some(name("second"))).unwrap_err();
    assert!(matches!(refused, SnapshotError::Log(_)), "{refused}");
    // One that was taken of it by an earlier program: its digests are those of the damage.
    let mut snapshot = find(data, &name("first")).unwrap();
    fs::remove_file(snapshot.home.join(&member)).unwrap();
    fs::write(snapshot.home.join(&member), &bytes).unwrap();
    let (_, digest) = Digest::of_file(&snapshot.home.join(&member)).unwrap();
    snapshot.contents.members.iter_mut().find(|m| m.path == member).unwrap().digest = digest;
    fs::write(snapshot.home.join("SNAPSHOT"), snapshot.contents.encode()).unwrap();
    let problems = verify(&find(data, &name("first")).unwrap(), &mut quiet).unwrap().problems;
    assert!(problems.len() == 1 && problems[0].contains("damaged"), "{problems:?}");
    assert!(restore_named(data, "first").is_err());
}

/// Puts a damaged copy in the place of a file; whoever has the file open keeps what it was.
fn spoil(path: &Path, at_from_end: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - at_from_end;
    bytes[at] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_segment_that_is_damaged_on_disk_is_in_no_sound_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let data = &dir.path().join("data");
    let database = make(data);
    let truth = read(&database);
    let mut snapshot = create(&database, Some(name("first"))).unwrap().snapshot;
    let member = snapshot.contents.members.iter().position(|m| m.path.ends_with(".seg")).unwrap();
    let path = snapshot.contents.members[member].path.clone();
    let kept = fs::read(data.join(&path)).unwrap();
    // The checksum of its checksums.
    spoil(&data.join(&path), 1);
    for _ in 0..2 {
        let refused = create(&database, Some(name("second"))).unwrap_err();
        assert!(matches!(refused, SnapshotError::Segment(_)), "{refused}");
        assert!(refused.to_string().contains(".seg is damaged"), "{refused}");
        assert_eq!(fs::read_dir(DataPaths::new(data).snapshots_dir()).unwrap().count(), 1);
    }
    drop(database);
    let refused = create_closed(data, Some(name("second"))).unwrap_err();
    assert!(matches!(refused, SnapshotError::Segment(_)), "{refused}");
    fs::write(data.join(&path), kept).unwrap();
    // One that was taken of it by an earlier program: its digests are those of the damage.
    spoil(&snapshot.home.join(&path), 1);
    let (_, digest) = Sha256::of_file(&snapshot.home.join(&path)).unwrap();
    snapshot.contents.members[member].digest = Digest::Bytes(digest);
    fs::write(snapshot.home.join("SNAPSHOT"), snapshot.contents.encode()).unwrap();
    let problems = verify(&find(data, &name("first")).unwrap(), &mut quiet).unwrap().problems;
    assert!(problems.len() == 1 && problems[0].contains(".seg is damaged"), "{problems:?}");
    let file = dir.path().join("a.tar.zst");
    archive::pack(&find(data, &name("first")).unwrap(), &file, &mut quiet).unwrap();
    let refused = restore_named(data, "first").unwrap_err();
    assert!(matches!(&refused, SnapshotError::Damaged { reason, .. } if reason.contains(".seg")), "{refused}");
    let other = dir.path().join("other");
    let refused = restore(&other, &Source::Archive(file), &mut quiet).unwrap_err();
    assert!(matches!(&refused, SnapshotError::Damaged { reason, .. } if reason.contains(".seg")), "{refused}");
    assert!(!other.exists() && !DataPaths::new(data).before_restore_dir().exists());
    assert_eq!(read(&open(data)), truth, "a refused restore leaves the store as it was");
}

#[test]
fn a_segment_of_another_moment_is_found_in_a_snapshot_and_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let histories = ["one", "two"].map(|history| {
        let data = dir.path().join(history);
        let database = open(&data);
        (0..if history == "one" { 1 } else { 2 }).for_each(|_| write(&things(&database), 0..5, 0));
        things(&database).flush().unwrap();
        create(&database, Some(name("s"))).unwrap();
        data
    });
    let [one, two] = &histories;
    let mut snapshot = find(one, &name("s")).unwrap();
    let member = snapshot.contents.members.iter_mut().find(|m| m.path.ends_with(".seg")).unwrap();
    let foreign = fs::read(two.join(&member.path)).unwrap();
    fs::remove_file(snapshot.home.join(&member.path)).unwrap();
    fs::write(snapshot.home.join(&member.path), foreign).unwrap();
    (member.len_bytes, member.digest) = Digest::of_file(&snapshot.home.join(&member.path)).unwrap();
    fs::write(snapshot.home.join("SNAPSHOT"), snapshot.contents.encode()).unwrap();
    let problems = verify(&find(one, &name("s")).unwrap(), &mut quiet).unwrap().problems;
    assert!(problems.len() == 1 && problems[0].contains("has first change 3, expected 2"), "{problems:?}");
    let refused = restore_named(one, "s").unwrap_err().to_string();
    assert!(refused.contains("has first change 3, expected 2"), "{refused}");
    assert_eq!(read(&open(one)).len(), 6);
}

#[test]
fn a_snapshot_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(make(dir.path()));
    for fail_at in 0.. {
        let of_run = tempfile::tempdir().unwrap();
        let data = of_run.path();
        copy(dir.path(), data);
        // Under the lock, as nobody has it open.
        let faults = Faults::arm(data, fail_at, Then::Recover);
        let created = create_closed(data, Some(name("s")));
        let fired = faults.fired();
        drop(faults);
        assert_eq!(created.is_err(), fired, "{fail_at}");
        let left = fs::read_dir(data.join("snapshots")).into_iter().flatten();
        let hidden = left.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0, "{fail_at}");
        if !fired {
            assert!(fail_at > 10, "{fail_at}");
            break;
        }
    }
}

#[test]
fn the_same_state_gives_the_same_bytes_and_known_digests_are_not_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let database = make(data);
    let first = create(&database, Some(name("a"))).unwrap();
    let second = create(&database, Some(name("b"))).unwrap();
    assert_eq!(first.snapshot.contents, second.snapshot.contents);
    assert!(first.hashed_bytes > 0 && second.hashed_bytes == 0);
    let archives = [dir.path().join("a.tar.zst"), dir.path().join("b.tar.zst")];
    for (snapshot, file) in [&first, &second].iter().zip(&archives) {
        archive::pack(&snapshot.snapshot, file, &mut quiet).unwrap();
    }
    assert_eq!(fs::read(&archives[0]).unwrap(), fs::read(&archives[1]).unwrap());
    assert!(matches!(create(&database, Some(name("a"))), Err(SnapshotError::Exists { .. })));
    let names = |data: &Path| list(data).unwrap().into_iter().map(|f| f.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(data), ["a", "b"]);
    delete(data, &name("a")).unwrap();
    assert!(matches!(delete(data, &name("a")), Err(SnapshotError::NotFound { .. })));
    assert_eq!(names(data), ["b"]);
    assert_eq!(verify(&second.snapshot, &mut quiet).unwrap().problems, Vec::<String>::new());
}

#[test]
fn an_archive_restores_into_an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    let database = make(&dir.path().join("data"));
    let before = read(&database);
    let snapshot = create(&database, None).unwrap().snapshot;
    let file = dir.path().join("a.tar.zst");
    let packed = archive::pack(&snapshot, &file, &mut quiet).unwrap();
    assert_eq!(packed.archive_bytes, file.metadata().unwrap().len());
    let other = dir.path().join("other");
    let restored = restore(&other, &Source::Archive(file.clone()), &mut quiet).unwrap();
    assert_eq!((restored.timeline, restored.replaced), (2, None));
    assert_eq!(read(&open(&other)), before);
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "x").unwrap();
    assert!(matches!(restore(&foreign, &Source::Archive(file), &mut quiet), Err(SnapshotError::Manifest(_))));
    assert!(foreign.join("thesis.txt").exists());
}

#[test]
fn a_first_restore_that_was_killed_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let database = make(&dir.path().join("data"));
    let truth = read(&database);
    let file = dir.path().join("a.tar.zst");
    archive::pack(&create(&database, None).unwrap().snapshot, &file, &mut quiet).unwrap();
    for fail_at in 0.. {
        let of_run = tempfile::tempdir().unwrap();
        let paths = DataPaths::new(of_run.path().join("new"));
        let faults = Faults::arm(of_run.path(), fail_at, Then::Crash);
        let restored = restore(paths.root(), &Source::Archive(file.clone()), &mut quiet);
        let fired = faults.fired();
        drop(faults);
        assert!(restored.is_ok() || fired, "{fail_at}");
        if !paths.restore_marker().exists() && !paths.format().exists() {
            restore(paths.root(), &Source::Archive(file.clone()), &mut quiet).unwrap();
        }
        assert_eq!(read(&open(paths.root())), truth, "{fail_at}");
        if !fired {
            assert!(fail_at > 40, "{fail_at}");
            break;
        }
    }
}

#[test]
fn a_snapshot_of_any_name_stays_where_its_directory_is_taken_for_a_store() {
    let dir = tempfile::tempdir().unwrap();
    create(&make(dir.path()), Some(name("restore"))).unwrap();
    let snapshots = DataPaths::new(dir.path()).snapshots_dir();
    let files = crate::storage::list_files_below(&snapshots).unwrap();
    let refused = Database::open(&snapshots).err().unwrap().to_string();
    assert!(refused.contains("not a data directory"), "{refused}");
    let refused = restore(&snapshots, &Source::Archive(dir.path().join("none")), &mut quiet).unwrap_err();
    assert!(refused.to_string().contains("not a data directory"), "{refused}");
    assert_eq!(crate::storage::list_files_below(&snapshots).unwrap(), files);
}

#[test]
fn an_empty_store_can_be_taken_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path());
    let created = create(&database, Some(name("empty"))).unwrap();
    assert_eq!(created.snapshot.contents.seq, Seq(0));
    things(&database);
    drop(database);
    restore_named(dir.path(), "empty").unwrap();
    assert!(open(dir.path()).collections().is_empty());
}

#[test]
fn a_sealed_store_keeps_its_seq_through_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path());
    write(&things(&database), 0..20, 0);
    things(&database).optimise().unwrap();
    let last_seq = database.health().last_seq;
    create(&database, Some(name("sealed"))).unwrap();
    drop(database);
    restore_named(dir.path(), "sealed").unwrap();
    let database = open(dir.path());
    assert_eq!(database.health().last_seq, last_seq);
    write(&things(&database), 0..1, 3);
    assert_eq!(database.health().last_seq, last_seq.next());
}

/// `PANNIER_TEST_SNAPSHOT_STORE`: a store to take snapshots of, for a figure; without it a small one is made.
#[test]
fn taking_a_snapshot_reads_no_segment() {
    let dir = tempfile::tempdir().unwrap();
    let given = std::env::var_os("PANNIER_TEST_SNAPSHOT_STORE").map(PathBuf::from);
    let data = given.clone().unwrap_or_else(|| dir.path().to_owned());
    let database = if given.is_some() { open(&data) } else { make(&data) };
    for round in ["timed-1", "timed-2"] {
        let started = std::time::Instant::now();
        let created = create(&database, Some(name(round))).unwrap();
        println!(
            "{} bytes, {} read, in {:?}",
            created.snapshot.contents.bytes(),
            created.hashed_bytes,
            started.elapsed()
        );
        let of_segments = |m: &&Member| m.path.ends_with(".seg");
        let segments: u64 = created.snapshot.contents.members.iter().filter(of_segments).map(|m| m.len_bytes).sum();
        assert!(segments > 0 && created.hashed_bytes <= created.snapshot.contents.bytes() - segments);
    }
    ["timed-1", "timed-2"].iter().for_each(|round| delete(&data, &name(round)).unwrap());
}

#[test]
fn a_snapshot_is_never_opened_as_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let database = make(dir.path());
    let home = create(&database, Some(name("a"))).unwrap().snapshot.home;
    let error = Database::open(&home).err().unwrap().to_string();
    assert!(error.contains("is a snapshot"), "{error}");
    let archive = Source::Archive(dir.path().join("none"));
    let refused = restore(&home, &archive, &mut |_, _| {}).unwrap_err();
    assert!(refused.to_string().contains("is a snapshot"), "{refused}");
    let refused = crate::migrate::Migrations::open(&home).err().unwrap();
    assert!(refused.to_string().contains("is a snapshot"), "{refused}");
    assert!(!home.join("LOCK").exists());
    // As earlier versions left it.
    fs::write(home.join("LOCK"), "1\n").unwrap();
    let report = verify(&find(dir.path(), &name("a")).unwrap(), &mut |_, _| {}).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

/// Kills `act` at every step, on a copy of `origin` each time, and hands the copy to `check`. Returns how many steps
/// there were.
fn killed_everywhere(origin: &Path, act: &dyn Fn(&Path) -> bool, check: &dyn Fn(&Path, usize, bool)) -> usize {
    for fail_at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        copy(origin, dir.path());
        let faults = Faults::arm(dir.path(), fail_at, Then::Crash);
        let succeeded = act(dir.path());
        let fired = faults.fired();
        drop(faults);
        check(dir.path(), fail_at, succeeded);
        if !fired {
            assert!(succeeded);
            return fail_at;
        }
    }
    unreachable!("some run is not killed")
}

#[test]
fn killed_at_every_step_of_a_creation_the_store_is_whole_and_the_snapshot_is_there_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let database = make(dir.path());
    let truth = read(&database);
    drop(database);
    let origin: PathBuf = dir.path().to_owned();
    let act = |data: &Path| {
        // Opening writes too, and is killed like everything else.
        Database::open_with(data, options()).is_ok_and(|database| create(&database, Some(name("s"))).is_ok())
    };
    let check = |data: &Path, fail_at: usize, succeeded: bool| {
        let found = list(data).unwrap();
        assert!(found.len() == 1 || !succeeded, "{fail_at}");
        for found in found {
            let report = verify(&found.snapshot.unwrap(), &mut quiet).unwrap();
            assert_eq!(report.problems, Vec::<String>::new(), "{fail_at}");
        }
        let database = open(data);
        assert_eq!(read(&database), truth, "{fail_at}");
        create(&database, Some(name("again"))).unwrap();
        let left = fs::read_dir(DataPaths::new(data).snapshots_dir()).unwrap();
        let hidden = left.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0, "{fail_at}: leftovers are removed");
    };
    let steps = killed_everywhere(&origin, &act, &check);
    assert!(steps > 20, "{steps}");
}

#[test]
fn killed_at_every_step_of_a_restore_it_is_the_old_store_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let database = make(dir.path());
    let new = read(&database);
    create(&database, Some(name("s"))).unwrap();
    write(&things(&database), 5..45, 8);
    things(&database).flush().unwrap();
    let old = read(&database);
    drop(database);
    let act = |data: &Path| restore_named(data, "s").is_ok();
    let check = |data: &Path, fail_at: usize, succeeded: bool| {
        let database = open(data);
        let seen = read(&database);
        assert!(seen == new || (seen == old && !succeeded), "{fail_at}: neither old nor new");
        write(&things(&database), 0..3, 4);
        drop(database);
        discard_replaced(data).unwrap();
        restore_named(data, "s").unwrap();
        assert_eq!(read(&open(data)), new, "{fail_at}");
        let kept = restore_named(data, "s").unwrap_err();
        assert!(matches!(kept, SnapshotError::Kept { .. }), "{kept}");
        assert_eq!(read(&open(data)), new, "{fail_at}");
    };
    let steps = killed_everywhere(dir.path(), &act, &check);
    assert!(steps > 40, "{steps}");
}

#[test]
fn killed_at_every_step_of_a_deletion_no_half_snapshot_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let database = make(dir.path());
    create(&database, Some(name("s"))).unwrap();
    drop(database);
    let act = |data: &Path| delete(data, &name("s")).is_ok();
    let check = |data: &Path, fail_at: usize, succeeded: bool| {
        let found = list(data).unwrap();
        assert!(found.is_empty() || !succeeded, "{fail_at}");
        for found in found {
            assert!(verify(&found.snapshot.unwrap(), &mut quiet).unwrap().problems.is_empty(), "{fail_at}");
        }
    };
    assert!(killed_everywhere(dir.path(), &act, &check) >= 3);
}

#[test]
fn damage_anywhere_in_a_snapshot_is_found_and_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let database = make(dir.path());
    let snapshot = create(&database, Some(name("s"))).unwrap().snapshot;
    let truth = read(&database);
    drop(database);
    let data = dir.path().join("copy");
    for file in crate::storage::list_files_below(&snapshot.home).unwrap() {
        let below = file.strip_prefix(dir.path()).unwrap();
        if below.ends_with("CREATED") {
            continue;
        }
        for what in ["flip", "cut", "grow", "remove"] {
            let _ = fs::remove_dir_all(&data);
            copy(dir.path(), &data);
            let mut bytes = fs::read(data.join(below)).unwrap();
            match what {
                "flip" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                }
                "cut" => _ = bytes.pop(),
                _ => bytes.push(0),
            }
            match what {
                "remove" => fs::remove_file(data.join(below)).unwrap(),
                _ => fs::write(data.join(below), bytes).unwrap(),
            }
            let sound = find(&data, &name("s"))
                .is_ok_and(|found| verify(&found, &mut quiet).is_ok_and(|report| report.problems.is_empty()));
            assert!(!sound, "{what} of {}", below.display());
            assert!(restore_named(&data, "s").is_err(), "{what} of {}", below.display());
        }
    }
    assert_eq!(read(&open(&data)), truth, "a refused restore leaves the store as it was");
}

#[test]
fn writes_go_on_while_snapshots_are_taken_and_each_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let database = open(&data);
    things(&database);
    let names: Vec<SnapshotName> = (0..6).map(|n| name(&format!("s{n}"))).collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let things = things(&database);
            // Each change rewrites the same ten documents: a snapshot between two holds ten of one version.
            (0..150).for_each(|version| write(&things, 0..10, version));
        });
        for name in &names {
            create(&database, Some(name.clone())).unwrap();
        }
        writer.join().unwrap();
    });
    drop(database);
    for name in names {
        let other = dir.path().join(name.as_str());
        let file = dir.path().join(format!("{name}.tar.zst"));
        archive::pack(&find(&data, &name).unwrap(), &file, &mut quiet).unwrap();
        restore(&other, &Source::Archive(file), &mut quiet).unwrap();
        let seen = read(&open(&other));
        let versions: std::collections::BTreeSet<&str> =
            seen.iter().filter_map(|line| line.split_once("version").map(|(_, version)| version)).collect();
        assert!(seen.len() == 1 || (seen.len() == 11 && versions.len() == 1), "{name}: {seen:?}");
    }
}
