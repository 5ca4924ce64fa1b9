//! Snapshots, restores and salvage as a person runs them.

use std::fs;

use super::server::Server;
use super::{Place, THREE, damage};

const MORE: &str = "{\"id\":\"grey\",\"vector\":[1,1,1]}\n";

fn with_three() -> Place {
    let place = Place::with_colours();
    let file = place.write("three.jsonl", THREE);
    place.succeed(&["import", "colours", &file]);
    place
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_snapshot_brings_back_what_was_there() {
    let place = with_three();
    let created = json(&place.succeed(&["snapshot", "create", "before", "--json"]).stdout);
    assert_eq!((created["name"].as_str(), created["seq"].as_u64()), (Some("before"), Some(2)));
    let more = place.write("more.jsonl", MORE);
    place.succeed(&["import", "colours", &more]);
    assert_eq!(place.hits(&["--vector", "[1,1,1]", "-k", "1"]), ["grey"]);
    let list = place.succeed(&["snapshot", "list"]).stdout;
    assert!(list.lines().nth(1).unwrap().starts_with("before "), "{list}");
    assert!(place.succeed(&["snapshot", "verify", "before"]).stdout.contains("read"));
    place.run(&["snapshot", "restore", "before"]).failed_with(2, &["--yes"]);
    let restored = place.succeed(&["snapshot", "restore", "before", "--yes"]).stdout;
    assert!(restored.contains("restored to change 2 as timeline 2"), "{restored}");
    assert_eq!(place.hits(&["--vector", "[1,1,1]"]).len(), 3);
    assert!(!place.data().join("before-restore").exists());
    place.succeed(&["snapshot", "restore", "before", "--yes", "--keep-replaced"]);
    assert!(place.data().join("before-restore/MANIFEST").exists());
    place.run(&["snapshot", "restore", "before", "--yes"]).failed_with(1, &["before-restore", "move it"]);
    fs::remove_dir_all(place.data().join("before-restore")).unwrap();
    place.run(&["snapshot", "create", "auto-mine"]).failed_with(2, &["the schedule's"]);
    place.run(&["snapshot", "delete", "before", "--no-input"]).failed_with(2, &["--yes"]);
    place.succeed(&["snapshot", "delete", "before", "--yes"]);
    place.run(&["snapshot", "restore", "before", "--yes"]).failed_with(1, &["there is no snapshot before"]);
    place.run(&["snapshot", "create", "No"]).failed_with(2, &["is not allowed"]);
}

#[test]
fn what_is_left_of_a_store_is_replaced_only_when_asked() {
    let place = with_three();
    place.succeed(&["snapshot", "create", "a"]);
    fs::remove_file(place.data().join("FORMAT")).unwrap();
    place.run(&["snapshot", "restore", "a"]).failed_with(2, &["--yes"]);
    assert!(place.data().join("MANIFEST").exists() && !place.data().join("before-restore").exists());
    // Nothing is lost where only snapshots are there.
    for entry in fs::read_dir(place.data()).unwrap().map(|entry| entry.unwrap()) {
        match entry.file_name().to_str().unwrap() {
            "snapshots" | "LOCK" => {}
            _ if entry.file_type().unwrap().is_dir() => fs::remove_dir_all(entry.path()).unwrap(),
            _ => fs::remove_file(entry.path()).unwrap(),
        }
    }
    place.succeed(&["snapshot", "restore", "a"]);
    assert_eq!(place.hits(&["--vector", "[1,0,0]"]).len(), 3);
}

#[test]
fn an_archive_is_carried_to_another_directory() {
    let place = with_three();
    let archive = place.path("a.tar.zst");
    let archive = archive.to_str().unwrap();
    place.succeed(&["snapshot", "create", "a", "--archive", archive]);
    place.succeed(&["snapshot", "verify", "--archive", archive]);
    let unwritable = place.path(&"n".repeat(300));
    let unpacked = place.run(&["snapshot", "create", "kept", "--archive", unwritable.to_str().unwrap()]);
    unpacked.failed_with(1, &["snapshot kept was taken and is kept", "pannier snapshot pack kept FILE"]);
    place.succeed(&["snapshot", "delete", "kept", "--yes"]);
    let again = place.path("again.tar.zst");
    place.succeed(&["snapshot", "pack", "a", again.to_str().unwrap()]);
    assert_eq!(fs::read(archive).unwrap(), fs::read(&again).unwrap());
    let other = place.path("other");
    place.run(&["snapshot", "list", "--data", other.to_str().unwrap()]).failed_with(1, &["there is no data directory"]);
    let none = place.run(&["snapshot", "restore", "none", "--data", other.to_str().unwrap()]);
    none.failed_with(1, &["there is no snapshot none"]);
    assert!(!other.exists(), "a refused restore leaves nothing");
    let other = other.to_str().unwrap();
    place.succeed(&["snapshot", "restore", "--archive", archive, "--data", other]);
    let found = json(&place.succeed(&["search", "colours", "--id", "red", "--json", "--data", other]).stdout);
    assert_eq!(found["hits"][0]["id"], "lime");
    damage(&again);
    let again = again.to_str().unwrap();
    place.run(&["snapshot", "verify", "--archive", again]).failed_with(6, &["is refused"]);
    place.run(&["snapshot", "restore", "--archive", again, "--yes"]).failed_with(6, &["is refused"]);
    assert_eq!(place.hits(&["--vector", "[1,1,1]"]).len(), 3, "the store is as it was");
}

#[test]
fn an_archive_without_a_name_leaves_no_snapshot() {
    let place = with_three();
    let archived = |night: &str, at: &[&str]| {
        let file = place.path(night);
        let file = file.to_str().unwrap();
        let made = json(&place.succeed(&[at, &["snapshot", "create", "--json", "--archive", file]].concat()).stdout);
        assert!(made["archive_bytes"].as_u64() > Some(0), "{made}");
        place.succeed(&["snapshot", "verify", "--archive", file]);
        let list = json(&place.succeed(&["snapshot", "list", "--json"]).stdout);
        assert_eq!(list["snapshots"], serde_json::json!([]), "{night}");
    };
    archived("one.tar.zst", &[]);
    archived("two.tar.zst", &[]);
    let server = Server::start(&place, &[]);
    archived("three.tar.zst", &["--server", server.address()]);
    let unwritable = place.path(&"n".repeat(300));
    place
        .run(&["--server", server.address(), "snapshot", "create", "--archive", unwritable.to_str().unwrap()])
        .failed_with(1, &[]);
    assert!(!place.succeed(&["snapshot", "list"]).stdout.contains("seq"), "a night that failed leaves none either");
}

#[test]
fn a_damaged_snapshot_is_named_and_not_restored() {
    let place = with_three();
    place.succeed(&["snapshot", "create", "a"]);
    let home = place.data().join("snapshots/a");
    let log = fs::read_dir(home.join("log")).unwrap().next().unwrap().unwrap().path();
    // Of its own now: the store must not be damaged with it.
    let bytes = fs::read(&log).unwrap();
    fs::remove_file(&log).unwrap();
    fs::write(&log, bytes).unwrap();
    damage(&log);
    place.run(&["snapshot", "verify", "a"]).failed_with(6, &["has SHA-256", ".log"]);
    place.run(&["snapshot", "restore", "a", "--yes"]).failed_with(6, &["is damaged"]);
    damage(&home.join("SNAPSHOT"));
    let list = place.succeed(&["snapshot", "list"]);
    assert!(list.stderr.contains("damaged: ") && list.stderr.contains("SNAPSHOT"), "{}", list.stderr);
    assert_eq!(place.hits(&["--vector", "[1,1,1]"]).len(), 3);
    place.run(&["verify", "--snapshots"]).failed_with(6, &["SNAPSHOT", "use another snapshot"]);
    let error = place.run(&["collection", "list", "--data", home.to_str().unwrap()]);
    error.failed_with(1, &["is a snapshot"]);
}

#[test]
fn a_snapshot_that_is_named_as_a_data_directory_stays_as_it_is() {
    let place = with_three();
    place.succeed(&["snapshot", "create", "a"]);
    let home = place.data().join("snapshots/a");
    let data = home.to_str().unwrap();
    let refused: [&[&str]; 5] = [
        &["collection", "list"],
        &["verify"],
        &["migrate", "up", "--yes"],
        &["snapshot", "restore", "a", "--yes"],
        &["doctor"],
    ];
    for command in refused {
        let ran = place.run(&[command, &["--data", data]].concat());
        assert!(
            ran.code != 0 && (ran.stderr.clone() + &ran.stdout).contains("is a snapshot"),
            "{command:?}: {}",
            ran.stderr
        );
        assert!(!home.join("LOCK").exists() && !home.join("snapshots").exists(), "{command:?}");
    }
    let to = place.path("rescued");
    place.succeed(&["salvage", "--data", data, "--to", to.to_str().unwrap()]);
    place.succeed(&["snapshot", "verify", "a"]);
    // As earlier versions left it.
    fs::write(home.join("LOCK"), "1\n").unwrap();
    place.succeed(&["snapshot", "verify", "a"]);
    place.succeed(&["snapshot", "restore", "a", "--yes"]);
    assert_eq!(place.hits(&["--vector", "[1,1,1]"]).len(), 3);
}

#[test]
fn salvage_rescues_what_can_be_read_and_names_the_rest() {
    let place = with_three();
    let to = place.path("rescued");
    let to = to.to_str().unwrap();
    let mut files = fs::read_dir(place.data().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let log = files.find(|path| path.extension().is_some()).unwrap();
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, [&bytes[..], &[0xff; 100]].concat()).unwrap();
    let inside = place.data().join("rescued");
    place.run(&["salvage", "--to", inside.to_str().unwrap()]).failed_with(1, &["is in the damaged directory"]);
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    place.run(&["salvage", "--data", empty, "--to", to]).failed_with(1, &["holds no part of a store"]);
    assert!(!inside.exists() && !place.path("rescued").exists());
    let ran = place.run(&["salvage", "--to", to]);
    ran.failed_with(1, &["lost: ", "1 part of"]);
    assert!(ran.stdout.contains("3 documents of 1 collection rescued"), "{}", ran.stdout);
    place.succeed(&["collection", "show", "colours", "--data", to]);
    place.run(&["salvage", "--to", to]).failed_with(1, &["is not empty"]);
    fs::write(&log, &bytes).unwrap();
    let again = place.path("again");
    place.succeed(&["salvage", "--to", again.to_str().unwrap()]);
}
