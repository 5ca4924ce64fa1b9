//! Power cuts while a snapshot is taken and while one is restored: it is there whole or not at all, and the store is
//! the old one or the new one.

use std::path::Path;

use super::check::{read, text};
use super::disk::{Contents, Disk};
use super::jobs::{check_all, fast_directory};
use super::random::Random;
use super::workload::{DIM, Model, Row, definition, options};
use crate::Database;
use crate::snapshot::{SnapshotName, Source, create, list, restore, verify};
use crate::storage::fault::{Event, History};
use crate::types::CollectionName;

/// States taken after each event, and of the end, where everything is to be durable.
const CUTS: usize = 4;
const CUTS_AT_THE_END: usize = 40;

/// What a cut left, and whether the call had returned.
struct Cut {
    contents: Contents,
    has_returned: bool,
    event: usize,
}

fn things() -> CollectionName {
    CollectionName::new("things").unwrap()
}

fn name() -> SnapshotName {
    SnapshotName::new("taken").unwrap()
}

/// Writes documents of these numbers, the last of which stand in the log alone.
fn write(database: &Database, numbers: std::ops::Range<usize>) {
    let things = database.create_collection(&things(), &definition()).unwrap().collection;
    let sealed = numbers.end - 6;
    for numbers in [numbers.start..sealed, sealed..numbers.end] {
        things.settle().unwrap();
        let row = |n| {
            Row::new(&format!("d{n:02}"), vec![n as f32 + 1.0; DIM], n + 100 * sealed, true)
                .document(&format!("d{n:02}"))
        };
        things.upsert(numbers.map(row).collect()).unwrap();
    }
}

fn state(database: &Database) -> Option<Model> {
    read(database, &things()).unwrap()
}

/// sled's files do not pass our own layer: the index counts as lost.
fn stored(data: &Path) -> Contents {
    Contents::read(data).without("meta.sled")
}

/// Cuts the power at every event of a history that began with `before`.
fn cut_everywhere(data: &Path, before: &Contents, events: &[Event], send: &dyn Fn(Cut) -> bool) {
    let mut disk = Disk::new(data, before);
    let mut random = Random(1);
    for (event, happened) in events.iter().enumerate() {
        disk.apply(happened);
        let has_returned = event + 1 == events.len();
        for _ in 0..if has_returned { CUTS_AT_THE_END } else { CUTS } {
            let contents = disk.cut(&mut random).without("meta.sled");
            if !send(Cut { contents, has_returned, event }) {
                return;
            }
        }
    }
}

#[test]
fn a_restore_that_loses_power_leaves_the_old_store_or_the_new_one() {
    let root = fast_directory();
    let data = root.path().join("data");
    let database = Database::open_with(&data, options()).unwrap();
    write(&database, 0..20);
    create(&database, Some(name())).unwrap();
    let new = state(&database);
    write(&database, 10..40);
    let old = state(&database);
    assert_ne!(old, new);
    database.close();
    let before = stored(&data);
    let history = History::record(&data);
    restore(&data, &Source::Snapshot(name()), &mut |_, _| {}).unwrap();
    let events = history.events();
    drop(history);
    assert!(events.len() > 40, "{} events", events.len());
    check_all(
        |send: &dyn Fn(Cut) -> bool| cut_everywhere(&data, &before, &events, send),
        |path: &Path, cut: Cut| {
            cut.contents.put(path);
            let database = Database::open_with(path, options());
            let told = |what: String| {
                let happened = &events[cut.event.saturating_sub(6)..=cut.event];
                format!("event {}: {what}\n{:?}\n{happened:?}", cut.event, cut.contents.files.keys())
            };
            let found = read(&database.map_err(|error| told(text(error)))?, &things()).map_err(told)?;
            match found == new || (found == old && !cut.has_returned) {
                true => Ok(()),
                false => Err(told(format!("it holds {found:?}"))),
            }
        },
    );
}

#[test]
fn a_snapshot_that_loses_power_is_there_whole_or_not_at_all() {
    let root = fast_directory();
    let data = root.path().join("data");
    let database = Database::open_with(&data, options()).unwrap();
    write(&database, 0..20);
    let truth = state(&database);
    let before = stored(&data);
    let history = History::record(&data);
    create(&database, Some(name())).unwrap();
    let events = history.events();
    drop(history);
    assert!(events.len() > 20, "{} events", events.len());
    check_all(
        |send: &dyn Fn(Cut) -> bool| cut_everywhere(&data, &before, &events, send),
        |path: &Path, cut: Cut| {
            cut.contents.put(path);
            let told = |what: String| {
                let happened = &events[cut.event.saturating_sub(6)..=cut.event];
                format!("event {}: {what}\n{:?}\n{happened:?}", cut.event, cut.contents.files.keys())
            };
            let found = list(path).map_err(|error| told(text(error)))?;
            if cut.has_returned && found.len() != 1 {
                return Err(told(format!("{} snapshots are listed", found.len())));
            }
            for found in found {
                let snapshot = found.snapshot.map_err(|error| told(text(error)))?;
                let report = verify(&snapshot, &mut |_, _| {}).map_err(|error| told(text(error)))?;
                if let Some(problem) = report.problems.first() {
                    return Err(told(problem.clone()));
                }
            }
            let database = Database::open_with(path, options()).map_err(|error| told(text(error)))?;
            match read(&database, &things()).map_err(told)? == truth {
                true => Ok(()),
                false => Err(told("the store is another".to_owned())),
            }
        },
    );
}
