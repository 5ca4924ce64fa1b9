//! Real stores of old formats, migrated: to the end, twice, dry, back, killed at every step, and with a strange
//! journal.

use std::fs;
use std::path::Path;

use super::journal::{Entry, Journal, Outcome};
use super::steps::{Down, STEPS, Step, Work};
use super::*;
use crate::manifest::Manifest;
use crate::segment::file_version;
use crate::storage::fault::{Faults, Then};
use crate::storage::{DataPaths, list_files_below};

/// A store that the first program wrote: manifest 1, segments 1, seven segments of 32 rows, two with dead rows.
fn unpack(format: u32, to: &Path) {
    let file = format!("tests/fixtures/store-{format}.tar.zst");
    assert!(fs::metadata(&file).unwrap().len() < 100_000);
    let stream = zstd::decode_all(fs::File::open(file).unwrap()).unwrap();
    tar::Archive::new(&stream[..]).unpack(to).unwrap();
}

fn up(data: &Path) -> Result<Vec<Changed>, MigrateError> {
    Migrations::open(data)?.up(&mut || Ok(()))
}

/// Every file but the lock, with its bytes.
fn state(data: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = list_files_below(data).unwrap().into_iter().filter(|file| !file.ends_with("LOCK"));
    files.map(|file| (file.strip_prefix(data).unwrap().to_owned(), fs::read(&file).unwrap())).collect()
}

fn without_journal(data: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    state(data).into_iter().filter(|(path, _)| !path.ends_with(JOURNAL_FILE)).collect()
}

fn states(data: &Path) -> Vec<StepState> {
    Migrations::open(data).unwrap().status().unwrap().iter().map(|status| status.state).collect()
}

#[test]
fn the_first_format_is_brought_to_the_present_one_and_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    unpack(1, dir.path());
    assert!(states(dir.path()).iter().all(|state| *state == StepState::Pending));
    let changed = up(dir.path()).unwrap();
    assert_eq!(changed.iter().map(|c| (c.id, c.change.files)).collect::<Vec<_>>(), [(1, 7), (2, 1), (3, 0)]);
    assert!(states(dir.path()).iter().all(|state| matches!(state, StepState::Applied(Some(_)))));
    let after = state(dir.path());
    assert_eq!(up(dir.path()).unwrap(), []);
    assert_eq!(state(dir.path()), after);
    let paths = DataPaths::new(dir.path());
    let manifest = Manifest::load(&paths).unwrap();
    let segment = manifest.collections[0].segments[0].id.0;
    assert_eq!(file_version(&paths.segment_file(1, 1, segment)).unwrap(), 2);
}

#[test]
fn a_store_of_the_present_format_has_nothing_pending_and_needs_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    unpack(2, dir.path());
    let paths = DataPaths::new(dir.path());
    Manifest::load(&paths).unwrap().publish(&paths).unwrap();
    let before = state(dir.path());
    let mut asked = 0;
    let mut ask = || {
        asked += 1;
        Ok(())
    };
    assert_eq!(Migrations::open(dir.path()).unwrap().up(&mut ask).unwrap(), []);
    assert_eq!((asked, state(dir.path())), (0, before));
    assert!(states(dir.path()).iter().all(|state| *state == StepState::Applied(None)));
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    unpack(1, dir.path());
    let before = state(dir.path());
    let dry = Migrations::open(dir.path()).unwrap().dry_run().unwrap();
    assert_eq!(state(dir.path()), before);
    let wet = up(dir.path()).unwrap();
    assert!(dry.iter().any(|c| c.change.files > 0));
    let what = |changed: &[Changed]| changed.iter().map(|c| (c.id, c.change)).collect::<Vec<_>>();
    assert_eq!(what(&dry), what(&wet));
}

#[test]
fn where_the_snapshot_is_refused_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    unpack(1, dir.path());
    let before = state(dir.path());
    let refused = Migrations::open(dir.path()).unwrap().up(&mut || Err("no".into()));
    assert!(matches!(refused, Err(MigrateError::Before(_))));
    assert_eq!(state(dir.path()), before);
}

#[test]
fn killed_at_every_step_it_goes_on_and_ends_the_same() {
    let dir = tempfile::tempdir().unwrap();
    unpack(1, dir.path());
    up(dir.path()).unwrap();
    let truth = without_journal(dir.path());
    let mut half_done = 0;
    for fail_at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        unpack(1, dir.path());
        let faults = Faults::arm(dir.path(), fail_at, Then::Crash);
        let result = up(dir.path());
        let fired = faults.fired();
        drop(faults);
        assert_eq!(result.is_err(), fired, "{fail_at}");
        half_done += usize::from(states(dir.path()).contains(&StepState::HalfDone));
        up(dir.path()).unwrap();
        assert_eq!(without_journal(dir.path()), truth, "{fail_at}");
        // A step whose work the one before it did as well has no entry where that one was the last to run.
        assert!(states(dir.path()).iter().all(|state| matches!(state, StepState::Applied(_))), "{fail_at}");
        if !fired {
            break;
        }
    }
    assert!(half_done > 10, "{half_done}");
}

#[test]
fn down_brings_the_bytes_back_that_were_there_before() {
    static FIRST_ALONE: &[Step] = &[STEPS[0]];
    let dir = tempfile::tempdir().unwrap();
    unpack(1, dir.path());
    let before = state(dir.path());
    let migrations = Migrations::with_steps(dir.path(), FIRST_ALONE).unwrap();
    assert!(matches!(migrations.down(&mut || Ok(())), Err(MigrateError::NothingToUndo)));
    migrations.up(&mut || Ok(())).unwrap();
    assert_ne!(without_journal(dir.path()), before);
    let migrated = state(dir.path());
    let tried = migrations.dry_run_down().unwrap();
    assert_eq!((tried.id, tried.change.files), (1, 7));
    assert_eq!(state(dir.path()), migrated, "trying it changed nothing");
    let undone = migrations.down(&mut || Ok(())).unwrap();
    assert_eq!((undone.id, undone.change.files), (1, 7));
    assert_eq!(without_journal(dir.path()), before);
    migrations.up(&mut || Ok(())).unwrap();
    drop(migrations);
    up(dir.path()).unwrap();
    let undone = Migrations::open(dir.path()).unwrap().down(&mut || Ok(()));
    assert!(matches!(undone, Err(MigrateError::NotReversible { id: 3, .. })));
}

#[test]
fn a_strange_journal_is_refused_each_in_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    unpack(2, dir.path());
    let paths = DataPaths::new(dir.path());
    let entry = |id: u32, name: &str, checksum: String, outcome| Entry {
        id,
        name: name.into(),
        checksum,
        outcome,
        at_ms: 1,
        took_ms: 1,
    };
    let with = |entry: Entry| {
        Journal { entries: vec![entry] }.write(&paths).unwrap();
        Migrations::open(dir.path()).unwrap()
    };
    let (name, checksum) = (STEPS[0].name, STEPS[0].checksum());
    let modified = with(entry(1, name, "0123456789abcdef".into(), Outcome::Applied));
    assert!(matches!(modified.status(), Err(MigrateError::Modified { id: 1, .. })));
    assert!(matches!(modified.up(&mut || Ok(())), Err(MigrateError::Modified { id: 1, .. })));
    drop(modified);
    let missing = with(entry(999, "of_tomorrow", checksum.clone(), Outcome::Applied));
    assert!(matches!(missing.up(&mut || Ok(())), Err(MigrateError::Missing { id: 999, .. })));
    drop(missing);
    let half = with(entry(1, name, checksum, Outcome::Begun));
    assert_eq!(half.status().unwrap()[0].state, StepState::HalfDone);
    assert!(matches!(half.down(&mut || Ok(())), Err(MigrateError::HalfDone { id: 1, .. })));
    half.up(&mut || Ok(())).unwrap();
    assert!(matches!(half.status().unwrap()[0].state, StepState::Applied(Some(_))));
}

#[test]
fn a_step_waits_for_what_it_needs_and_must_leave_nothing_behind() {
    const fn idle(id: u32, needs: &'static [u32]) -> Step {
        Step {
            id,
            name: "idle",
            about: "",
            noun: "file",
            revision: 1,
            needs,
            plan: |_| Ok(Work { files: 1, bytes: 1 }),
            up: |_| Ok(()),
            down: Down::Impossible("there is nothing to undo"),
            verify: |_| Ok(()),
        }
    }
    static WANTING: &[Step] = &[idle(2, &[1])];
    static IDLE: &[Step] = &[idle(1, &[])];
    let dir = tempfile::tempdir().unwrap();
    unpack(2, dir.path());
    let run = |steps| Migrations::with_steps(dir.path(), steps).unwrap().up(&mut || Ok(()));
    assert!(matches!(run(WANTING), Err(MigrateError::Dependency { id: 2, needs: 1 })));
    assert!(matches!(run(IDLE), Err(MigrateError::Unfinished { id: 1, .. })));
}

#[test]
fn the_steps_of_this_program_are_in_order_and_what_was_released() {
    let ids: Vec<u32> = STEPS.iter().map(|step| step.id).collect();
    assert_eq!(ids, (1..=STEPS.len() as u32).collect::<Vec<_>>());
    for step in STEPS {
        assert!(step.needs.iter().all(|needs| *needs < step.id), "{}", step.name);
        assert!(step.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{}", step.name);
    }
}

#[test]
fn what_is_no_store_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Migrations::open(&dir.path().join("absent")), Err(MigrateError::Manifest(_))));
    assert!(!dir.path().join("absent").exists());
    assert!(matches!(Migrations::open(dir.path()), Err(MigrateError::Manifest(_))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
