//! `pannier import postgres` against real servers: types, cursors, ties, deletions, templates.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::comes_true;
use crate::support::model::{SMALL_MODEL, install_small_model};
use crate::support::postgres::{TestDatabase, Version, database, server};

/// A data directory beside a database.
struct Place {
    root: TempDir,
    database: TestDatabase,
}

impl Place {
    fn new(database: TestDatabase) -> Self {
        let root = tempfile::tempdir().unwrap();
        install_small_model(&root.path().join("models"));
        Self { root, database }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pannier"));
        for (name, _) in std::env::vars() {
            let is_ours = ["PANNIER_", "PGVECTOR_", "STAGING_DB_", "SUPABASE_", "EMBEDDING_", "DATABASE_URL"];
            if is_ours.iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .env("PANNIER_DATA", self.data())
            .env("PANNIER_MODELS", self.root.path().join("models"))
            .env("PANNIER_ADDR", "127.0.0.1:1")
            .env("DATABASE_URL", &self.database.url)
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}\n{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Runs the import of `rows` into `c` with more arguments; upserted, embedded, cached, deleted, unchanged.
    #[track_caller]
    fn import(&self, more: &[&str]) -> [u64; 5] {
        let base = ["import", "postgres", "c", "--table", "rows", "--key", "id"];
        let answer = self.json(&[&base, more].concat());
        assert_eq!(answer["failed"], 0, "{answer}");
        ["upserted", "embedded", "cached", "deleted", "unchanged"].map(|key| answer[key].as_u64().unwrap())
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], words: &str) {
        let (code, _, stderr) = self.run(arguments);
        assert!(code != 0 && stderr.contains(words), "{code}: {stderr}");
    }

    fn create(&self) {
        let (code, _, stderr) =
            self.run(&["collection", "create", "c", "--model", SMALL_MODEL, "--template-fields", "name"]);
        assert_eq!(code, 0, "{stderr}");
    }

    /// The ids of the collection, as the keys of a search that passes all.
    fn documents(&self) -> Value {
        self.json(&["search", "c", "a", "--top-k", "100"])["hits"].clone()
    }

    fn ids(&self) -> Vec<String> {
        let hits = self.documents();
        let mut ids: Vec<String> =
            hits.as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }
}

#[test]
fn only_what_changed_is_read_and_only_changed_texts_are_embedded() {
    for version in [Version::V16, Version::V18] {
        let place = Place::new(server(version).bare_database());
        let db = &place.database;
        db.run("create table rows (id bigint primary key, name text, stock int, at timestamptz not null)");
        db.run("insert into rows select i, 'a ' || i, 0, '2024-01-01' from generate_series(1, 25) i");
        place.create();
        let cursor = ["--cursor", "at", "--batch", "7"];
        assert_eq!(place.import(&cursor), [25, 25, 0, 0, 0]);
        // All rows are ties at the cursor: they are met again, and known.
        assert_eq!(place.import(&cursor), [0, 0, 0, 0, 25]);
        // A row that comes late with the same cursor is not missed.
        db.run("insert into rows values (0, 'b', 1, '2024-01-01')");
        assert_eq!(place.import(&cursor), [1, 1, 0, 0, 25]);
        // A change beside the text is written and not embedded; a change of the text is.
        db.run("update rows set stock = 5, at = '2024-01-02' where id = 3");
        db.run("update rows set name = 'c d', at = '2024-01-03' where id = 4");
        assert_eq!(place.import(&cursor), [2, 1, 1, 0, 24]);
        assert_eq!(place.import(&cursor), [0, 0, 0, 0, 1]);
        assert_eq!(place.import(&["--cursor", "at", "--restart"]), [26, 0, 26, 0, 0]);
    }
}

#[test]
fn a_restored_store_and_a_collection_made_anew_get_every_row() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id int primary key, name text, at int not null)");
    db.run("insert into rows select i, 'a', i from generate_series(1, 20) i");
    place.create();
    let cursor = ["--cursor", "at"];
    assert_eq!(place.import(&cursor)[0], 20);
    place.json(&["snapshot", "create", "s1"]);
    db.run("insert into rows select i, 'a', i from generate_series(21, 30) i");
    assert_eq!(place.import(&cursor)[0], 10);
    let base = ["import", "postgres", "c", "--table", "rows", "--key", "id", "--cursor", "at"];
    let says = |words: &str| {
        let (code, _, stderr) = place.run(&base);
        assert!(code == 0 && stderr.contains(words), "{stderr}");
        assert_eq!(place.ids().len(), 30);
    };

    let restored = place.run(&["snapshot", "restore", "s1", "--yes"]);
    assert_eq!(restored.0, 0, "{}", restored.2);
    assert_eq!(place.ids().len(), 20);
    says("reading all rows again");
    assert_eq!(place.import(&cursor)[0], 0);

    assert_eq!(place.run(&["collection", "delete", "c", "--yes"]).0, 0);
    place.create();
    says("the collection was deleted and made again");
    assert_eq!(place.import(&cursor)[0], 0);
}

#[test]
fn rows_that_are_gone_are_deleted() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id int primary key, name text, gone timestamptz)");
    db.run("insert into rows select i, 'a' from generate_series(1, 30) i");
    place.create();
    place.import(&[]);
    // Documents of another source are nobody's missing rows.
    let other = place.root.path().join("other.jsonl");
    let lines: String = (1..=40).map(|n| format!("{{\"id\":\"x-{n}\",\"name\":\"b\"}}\n")).collect();
    std::fs::write(&other, lines).unwrap();
    place.json(&["import", "c", other.to_str().unwrap()]);
    db.run("delete from rows where id in (2, 3)");
    assert_eq!(place.import(&["--deletes", "missing"])[3], 2);
    assert_eq!(place.ids().len(), 28 + 40);

    // More than half of this source's, and less than half of all.
    db.run("delete from rows where id > 5");
    let missing = ["import", "postgres", "c", "--table", "rows", "--key", "id", "--deletes", "missing"];
    place.refused(&missing, "25 of 28 documents have no row any more");
    assert_eq!(place.import(&["--deletes", "missing", "--delete-many"])[3], 25);

    db.run("update rows set gone = now() where id = 1");
    assert_eq!(place.import(&["--deleted-flag", "gone"])[3], 1);
    assert_eq!(place.ids().iter().filter(|id| !id.starts_with("x-")).collect::<Vec<_>>(), ["4", "5"]);
    assert_eq!(place.ids().len(), 2 + 40);
}

#[test]
fn types_become_fields() {
    let place = Place::new(database());
    let db = &place.database;
    db.run(
        "create table rows (id uuid primary key, name text, price numeric(10, 2), tags text[], at timestamptz, day date,
            flag boolean, data jsonb, big bigint, v vector(64), photo bytea, nothing int)",
    );
    db.run(
        "insert into rows values ('6d1f3f1e-0000-4000-8000-00000000000a', 'a', 12.50, '{x,y}', '2024-01-01 12:00+02',
            '2024-02-29', true, '{\"k\": [1, null]}', 9007199254740993, array_fill(1, array[64])::vector, '\\x00', null)",
    );
    place.create();
    let import = ["import", "postgres", "c", "--table", "rows", "--key", "id"];
    place.refused(&import, "--exclude-columns photo");
    let answer = place.json(&[&import[..], &["--exclude-columns", "photo", "--vector-column", "v"]].concat());
    assert_eq!((&answer["upserted"], &answer["embedded"]), (&json!(1), &json!(0)));
    let metadata = &place.documents()[0]["metadata"];
    let wanted = json!({"id": "6d1f3f1e-0000-4000-8000-00000000000a", "name": "a", "price": 12.5, "tags": ["x", "y"],
        "at": "2024-01-01T10:00:00+00:00", "day": "2024-02-29", "flag": true, "data": {"k": [1, null]},
        "big": 9_007_199_254_740_993i64, "nothing": null});
    assert_eq!(*metadata, wanted);
}

#[test]
fn queries_composite_keys_and_late_transactions() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (a int, b text, name text, at timestamptz)");
    db.run("insert into rows values (1, 'x', 'a', '2024-01-01 00:10'), (1, 'y', 'b', '2024-01-01 00:20')");
    db.run("insert into rows values (2, 'n', 'c', null)");
    place.create();
    let query = ["import", "postgres", "c", "--query", "select * from rows -- all;", "--key", "a,b", "--cursor", "at"];
    let run = |more: &[&str]| place.json(&[&query, more].concat());
    assert_eq!(run(&[])["upserted"], 3, "a row without a cursor is read once");
    assert_eq!(place.ids(), ["1:x", "1:y", "2:n"]);
    // It began before the last one that was read, and ended after that was.
    db.run("insert into rows values (1, 'z', 'd', '2024-01-01 00:15')");
    assert_eq!(run(&[])["upserted"], 0);
    assert_eq!(run(&["--overlap", "10 minutes"])["upserted"], 2, "and what lies within the overlap is met once");
    assert_eq!(run(&["--overlap", "10 minutes"])["upserted"], 0);
    for wrong in ["--overlap=soon", "--overlap=-10 minutes"] {
        place.refused(&[&query[..], &[wrong]].concat(), "--overlap '10 minutes'");
    }

    let other = ["import", "postgres", "c", "--query", "select 1 as id", "--source-name", "other"];
    place.refused(&[&other[..], &["--key", "key"]].concat(), "there are id");
    place.refused(&["import", "postgres", "c", "--query", "select 1 as id", "--key", "id"], "--source-name");
    place.refused(&["import", "postgres", "none", "--table", "rows", "--key", "a"], "there is no collection none");
    place.refused(&["import", "postgres", "c", "--table", "nothing", "--key", "a"], "nothing");
    place.refused(&[&query[..], &["--every", "5 weeks"]].concat(), "5m");
}

#[test]
fn a_column_may_be_named_as_anything() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id int primary key, name text, f jsonb, x int, q text, s text, d text, n text, r text)");
    db.run("insert into rows values (1, 'a', '{\"k\": 1}', 7, 'q', 's', 'd', 'n', 'r')");
    place.create();
    assert_eq!(place.import(&[])[0], 1);
    let wanted = json!({"id": 1, "name": "a", "f": {"k": 1}, "x": 7, "q": "q", "s": "s", "d": "d", "n": "n", "r": "r"});
    assert_eq!(place.documents()[0]["metadata"], wanted);
}

#[test]
fn keys_of_a_fixed_length_and_of_several_parts_are_told_apart() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id char(5) primary key, name text)");
    db.run("insert into rows select 'k' || i, 'a' from generate_series(1, 9) i");
    place.create();
    assert_eq!(place.import(&["--batch", "2"])[0], 9);
    db.run("create table bits (id bit(4) primary key, name text)");
    db.run("insert into bits select i::bit(4), 'a' from generate_series(0, 15) i");
    let import = |table: &str, key: &str, more: &[&str]| {
        let base = ["import", "postgres", "c", "--table", table, "--key", key];
        place.json(&[&base, more].concat())["upserted"].clone()
    };
    assert_eq!(import("bits", "id", &["--batch", "3"]), 16);
    db.run("create table pairs (a text, b text, name text, primary key (a, b))");
    db.run("insert into pairs values ('p:q', 'r', 'a'), ('p', 'q:r', 'b'), ('p', 'q', 'c')");
    assert_eq!(import("pairs", "a,b", &[]), 3);
    let pairs: Vec<String> = place.ids().into_iter().filter(|id| id.starts_with('p')).collect();
    assert_eq!(pairs, ["p:q", r"p:q\:r", r"p\:q:r"]);
}

#[test]
fn a_cursor_without_an_end_freezes_nothing() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create domain moment as timestamptz; create domain late_moment as moment");
    db.run("create table rows (id int primary key, name text, at timestamptz, x float8, late late_moment)");
    db.run(
        "insert into rows values (1, 'a', '2024-01-01', 1, '2024-01-01'), (2, 'b', 'infinity', 'NaN', 'infinity'),
            (3, 'c', 'infinity', 'inf', 'infinity')",
    );
    place.create();
    for cursor in ["at", "x", "late"] {
        let base = ["import", "postgres", "c", "--table", "rows", "--key", "id", "--cursor", cursor, "--batch", "1"];
        let base = [&base[..], &["--source-name", cursor]].concat();
        let (code, _, stderr) = place.run(&base);
        assert!(code == 0 && stderr.contains("2 rows have no cursor, or one after all others"), "{stderr}");
        assert_eq!(place.ids(), ["1", "2", "3"]);
        db.run("update rows set name = name || 'd', at = '2024-01-02', x = 2, late = '2024-01-02' where id = 1");
        assert_eq!(place.json(&base)["upserted"], 1);
        db.run("update rows set at = '2024-01-01', x = 1, late = '2024-01-01' where id = 1");
    }
}

#[test]
fn rows_that_are_no_documents_are_counted_and_named() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id int, name text, n numeric, data jsonb)");
    db.run("insert into rows select i, 'a', 1, null from generate_series(1, 5) i");
    db.run("insert into rows values (5, 'b', 1, null), (null, 'c', 1, null), (6, 'd', 1e400, null)");
    db.run("insert into rows values (7, 'e', 1, (repeat('[', 200) || repeat(']', 200))::jsonb), (8, 'f', 1, null)");
    place.create();
    let base = ["import", "postgres", "c", "--table", "rows", "--key", "id", "--batch", "2"];
    let (code, stdout, stderr) = place.run(&[&base[..], &["--json"]].concat());
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &answer["failed"]), (1, &json!(4)), "{stderr}");
    assert!(stderr.contains("1 row left out: id is null"), "{stderr}");
    assert!(stderr.contains("1 row left out: another row has the same id"), "{stderr}");
    assert!(
        stderr.contains("6: its column \"n\" cannot be read") && stderr.contains("7: its column \"data\""),
        "{stderr}"
    );
    assert_eq!(place.ids(), ["1", "2", "3", "4", "5", "8"]);
}

#[test]
fn json_that_jsonb_cannot_hold_stops_no_other_row() {
    let place = Place::new(database());
    place.database.run(
        "create table rows (id int primary key, name text, data json);
         insert into rows values (1, 'a', '{\"b\": 1, \"a\": 2, \"a\": 3}'), (2, 'b', '{\"k\": \"x\\u0000y\"}'),
           (3, 'c', '{\"k\": \"\\ud800\"}')",
    );
    place.create();
    let (code, stdout, stderr) = place.run(&["import", "postgres", "c", "--table", "rows", "--key", "id", "--json"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &answer["upserted"], &answer["failed"]), (1, &json!(2), &json!(1)), "{stderr}");
    assert!(stderr.contains("3: its column \"data\" cannot be read"), "{stderr}");
    assert_eq!(place.ids(), ["1", "2"]);
    let documents = place.documents();
    let data = |wanted: i64| {
        let hit = documents.as_array().unwrap().iter().find(|hit| hit["metadata"]["id"] == wanted);
        hit.unwrap()["metadata"]["data"].clone()
    };
    assert_eq!((data(1), data(2)), (json!({"a": 3, "b": 1}), json!({"k": "x\0y"})));
}

#[test]
fn a_key_that_is_personal_data_is_not_printed() {
    let place = Place::new(database());
    place.database.run("create table rows (id text primary key, name text)");
    place.database.run("insert into rows values ('a', 'a'), ('bob@example.com', 'b')");
    let create =
        ["collection", "create", "c", "--model", SMALL_MODEL, "--template-fields", "name", "--guard", "refuse"];
    assert_eq!(place.run(&create).0, 0);
    let (code, _, stderr) = place.run(&["import", "postgres", "c", "--table", "rows", "--key", "id"]);
    assert!(code == 1 && stderr.contains("row 2 of this run") && !stderr.contains("bob"), "{stderr}");
}

#[test]
fn change_events_are_applied_in_their_order() {
    let place = Place::new(database());
    place.create();
    let file = place.root.path().join("events.jsonl");
    let lines = [
        r#"{"payload":{"op":"r","before":null,"after":{"id":1,"name":"a"}}}"#,
        r#"{"payload":{"op":"c","before":null,"after":{"id":2,"name":"b"}}}"#,
        r#"{"payload":{"op":"u","before":null,"after":{"id":1,"name":"c"}}}"#,
        r#"{"payload":{"op":"d","before":{"id":2},"after":null}}"#,
        "null",
        r#"{"payload":{"op":"c","before":null,"after":{"id":3,"name":"d"}}}"#,
        // The row has another key now: its document moves.
        r#"{"payload":{"op":"c","before":null,"after":{"id":4,"name":"a"}}}"#,
        r#"{"payload":{"op":"u","before":{"id":4,"name":"a"},"after":{"id":5,"name":"a"}}}"#,
        r#"{"payload":{"op":"c","before":null,"after":{"id":4,"name":"another"}}}"#,
        r#"{"payload":{"op":"u","before":{"id":5,"name":"a"},"after":{"id":6,"name":"a"}}}"#,
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let answer = place.json(&["import", "debezium", "c", file.to_str().unwrap()]);
    assert_eq!(answer["upserted"], 4);
    assert_eq!(place.ids(), ["1", "3", "4", "6"]);
    // In a file of its own, it deletes what an earlier one wrote.
    std::fs::write(&file, r#"{"op":"u","before":{"id":6,"name":"a"},"after":{"id":4,"name":"a"}}"#).unwrap();
    assert_eq!(place.json(&["import", "debezium", "c", file.to_str().unwrap()])["deleted"], 1);
    assert_eq!(place.ids(), ["1", "3", "4"]);
    // Flattened events of deletes are nothing but tombstones, which say which row they mean by their key alone.
    let flat = [r#"{"id":7,"name":"a"}"#, r#"{"id":8,"name":"b"}"#, r#"{"key":{"id":7},"value":null}"#, "null", "null"];
    std::fs::write(&file, flat.join("\n")).unwrap();
    let (code, _, stderr) = place.run(&["import", "debezium", "c", file.to_str().unwrap()]);
    assert!(code == 0 && stderr.contains("2 tombstones without a key"), "{stderr}");
    assert_eq!(place.ids(), ["1", "3", "4", "8"]);
    std::fs::write(&file, r#"{"key":{"id":8},"value":null}"#).unwrap();
    assert_eq!(place.json(&["import", "debezium", "c", file.to_str().unwrap()])["deleted"], 1);
    std::fs::write(&file, "{\"op\":\"t\"}\n{\"op\":\"d\",\"before\":{\"id\":3}}\n").unwrap();
    let (code, _, stderr) = place.run(&["import", "debezium", "c", file.to_str().unwrap()]);
    assert!(code == 1 && stderr.contains("line 1") && stderr.contains("emptied"), "{stderr}");
    assert_eq!(place.ids(), ["1", "4"]);
}

#[test]
fn texts_that_are_cut_are_counted() {
    let place = Place::new(database());
    place.database.run("create table rows (id int primary key, name text)");
    place.database.run("insert into rows values (1, 'a'), (2, repeat('a b ', 40))");
    place.create();
    let rows = ["import", "postgres", "c", "--table", "rows", "--key", "id"];
    let cut = "1 text longer than the model reads";
    assert_eq!(place.json(&rows)["truncated_count"], 1);
    place.database.run("update rows set name = 'c ' || name");
    let (code, _, told) = place.run(&rows);
    assert!(code == 0 && told.contains(cut), "{told}");
    let file = place.root.path().join("events.jsonl");
    let event = |words: usize| json!({"op": "c", "after": {"id": words, "name": "b a ".repeat(words)}});
    std::fs::write(&file, format!("{}\n{}\n", event(1), event(40))).unwrap();
    let (code, stdout, told) = place.run(&["import", "debezium", "c", file.to_str().unwrap(), "--json"]);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &answer["upserted"], &answer["truncated_count"]), (0, &json!(2), &json!(1)), "{told}");
    assert!(told.contains(cut), "{told}");
}

#[test]
fn an_event_that_is_no_text_is_named_and_the_next_is_applied() {
    let place = Place::new(database());
    place.create();
    let file = place.root.path().join("events.jsonl");
    let events: [&[u8]; 3] = [
        b"{\"op\":\"c\",\"after\":{\"id\":1,\"name\":\"a\"}}\n",
        b"{\"op\":\"c\",\"after\":{\"id\":2,\"name\":\"\xff\"}}\n",
        b"{\"op\":\"c\",\"after\":{\"id\":3,\"name\":\"c\"}}",
    ];
    std::fs::write(&file, events.concat()).unwrap();
    let (code, _, told) = place.run(&["import", "debezium", "c", file.to_str().unwrap()]);
    assert!(code == 1 && told.contains("line 2: the line is not UTF-8"), "{told}");
    assert_eq!(place.ids(), ["1", "3"]);
}

#[cfg(unix)]
#[test]
fn events_of_a_stream_that_rests_are_applied_and_a_signal_ends_it() {
    use crate::support::process::ServerProcess;
    let place = Place::new(database());
    let server = ServerProcess::start(&place.data());
    place.json(&["--server", &server.url, "collection", "create", "c", "--dim", "2"]);
    let arguments = ["--server", server.url.as_str(), "import", "debezium", "c", "-", "--vector-column", "v"];
    let mut command = place.command(&arguments);
    let mut import = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut events = import.stdin.take().unwrap();
    let mut send = |id: u64| writeln!(events, "{}", json!({"op": "c", "after": {"id": id, "v": [1, id]}})).unwrap();
    let documents = || {
        let shown = place.json(&["--server", &server.url, "collection", "show", "c"]);
        shown["stats"]["documents"].as_u64().unwrap()
    };
    for id in 1..=2 {
        send(id);
        assert!(comes_true(|| documents() == id), "event {id} is not applied while nothing comes after it");
    }
    send(3);
    assert!(Command::new("kill").args(["-TERM", &import.id().to_string()]).status().unwrap().success());
    let ended = import.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    // The signal may have come before the last event was read.
    let read = documents();
    assert!(read >= 2 && told.contains(&format!("a signal ended the import after {read} lines of -")), "{told}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_scheduled_import_ends_with_the_disk_of_its_store() {
    use crate::support::process::DiskFaults;
    const EIO: i32 = 5;
    let place = Place::new(database());
    place.database.run("create table rows (id int primary key, name text); insert into rows values (1, 'a')");
    place.create();
    let faults = DiskFaults::new(place.root.path());
    let mut command = place.command(&["import", "postgres", "c", "--table", "rows", "--key", "id", "--every", "1s"]);
    faults.attach(&mut command);
    let mut import = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(import.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("1 document written")), "no run is done");
    faults.arm("sync", EIO, "/log/");
    let rest = std::thread::spawn(move || told.collect::<Vec<_>>().join("\n"));
    let mut status = None;
    let has_ended = comes_true(|| {
        status = import.try_wait().unwrap();
        status.is_some()
    });
    // It may have ended already.
    _ = import.kill();
    _ = import.wait();
    let told = rest.join().unwrap();
    assert!(has_ended, "the import goes on: {told}");
    assert_eq!(status.unwrap().code(), Some(5), "{told}");
}

#[test]
fn a_collection_whose_database_is_away_is_listed_with_the_others() {
    let place = Place::new(database());
    let url = place.root.path().join("url");
    std::fs::write(&url, &place.database.url).unwrap();
    let create = |arguments: &[&str]| place.json(&[&["collection", "create"], arguments].concat());
    create(&["here", "--dim", "2"]);
    create(&["there", "--dim", "2", "--backend", "postgres", "--url-file", url.to_str().unwrap()]);
    std::fs::write(&url, "postgres://me@127.0.0.1:1/x?sslmode=disable").unwrap();
    let (code, listed, told) = place.run(&["collection", "list"]);
    assert_eq!(code, 0, "{told}");
    let row = |name: &str| listed.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("here").contains(" 0 "), "{listed}");
    assert!(row("there").contains("- (backend_unreachable)") && told.contains("there: "), "{listed}{told}");
}

#[test]
fn a_source_that_cannot_be_read_leaves_no_collection_behind() {
    let place = Place::new(database());
    place.database.run("create table rows (id int primary key, name text); insert into rows values (1, 'a')");
    let import = |more: &[&'static str]| {
        let base = ["import", "postgres", "fresh", "--create", "--model", SMALL_MODEL, "--key", "id"];
        [&base, more].concat()
    };
    let template = ["--template-fields", "name"];
    let is_there = || place.run(&["search", "fresh", "a"]).0 == 0;
    place.refused(&[&import(&["--table", "nothing"])[..], &template].concat(), "nothing");
    place.refused(&[&import(&["--table", "rows", "--cursor", "at"])[..], &template].concat(), "at");
    place.refused(&import(&["--table", "rows"]), "nothing says what the text of a row is");
    let url = place.root.path().join("url");
    std::fs::write(&url, "postgres://me@127.0.0.1:1/x?sslmode=disable").unwrap();
    let away = [&import(&["--table", "rows", "--url-file"])[..], &[url.to_str().unwrap()], &template].concat();
    place.refused(&away, "127.0.0.1");
    assert!(!is_there());
    let answer = place.json(&[&import(&["--table", "rows"])[..], &template].concat());
    assert_eq!(answer["upserted"], 1);
    assert!(is_there());
}

#[test]
fn a_key_by_which_nothing_can_be_missed_changes_nothing() {
    let place = Place::new(database());
    place.database.run("create table rows (a int, b int, name text); insert into rows values (1, 1, 'a')");
    let import = ["import", "postgres", "fresh", "--create", "--model", SMALL_MODEL, "--template-fields", "name"];
    let missing = ["--table", "rows", "--key", "a,b", "--deletes", "missing"];
    place.refused(&[&import[..], &missing].concat(), "a key of one column");
    assert_ne!(place.run(&["search", "fresh", "a"]).0, 0, "the collection was made");
}

#[test]
fn a_statement_that_takes_too_long_is_named_and_ends_on_the_server() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id int, name text); insert into rows values (1, 'a')");
    // Slow for whoever counts or compares rows, but not for who reads columns of none.
    db.run(
        "create function slow(int) returns int language plpgsql volatile as $$ begin
           perform pg_sleep(600); return $1; end $$",
    );
    place.create();
    let url = place.root.path().join("url");
    let query = if db.url.contains('?') { "&" } else { "?" };
    std::fs::write(&url, format!("{}{query}statement_timeout=4000", db.url)).unwrap();
    let import = ["import", "postgres", "c", "--query", "select slow(id) as id, name from rows", "--key", "id"];
    let (code, _, stderr) = place.run(&[&import[..], &["--url-file", url.to_str().unwrap()]].concat());
    // What is only counted stops nothing.
    assert!(stderr.contains("rows without a key of their own were not counted"), "{stderr}");
    assert!(code != 0 && stderr.contains("read a page of rows") && stderr.contains("57014"), "{stderr}");
    let running = "select count(*) from pg_stat_activity where datname = current_database() and query like '%slow(id)%' \
                   and state = 'active' and pid <> pg_backend_pid()";
    assert_eq!(db.value(running), "0");
}

#[test]
fn rows_that_are_read_otherwise_are_read_from_the_start() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id int primary key, name text, stock int, at int not null)");
    db.run("insert into rows select i, 'a', i, i from generate_series(1, 5) i");
    place.create();
    let cursor = ["--cursor", "at"];
    assert_eq!(place.import(&[&cursor[..], &["--columns", "name"]].concat())[0], 5);
    let with_stock = [&cursor[..], &["--columns", "name,stock"]].concat();
    let base = ["import", "postgres", "c", "--table", "rows", "--key", "id"];
    let (code, _, stderr) = place.run(&[&base[..], &with_stock].concat());
    assert!(code == 0 && stderr.contains("reading all rows again") && stderr.contains("--source-name"), "{stderr}");
    assert!(place.documents().as_array().unwrap().iter().all(|hit| hit["metadata"]["stock"].is_i64()));
    assert_eq!(place.import(&with_stock)[0], 0);
    assert_eq!(place.import(&[&cursor[..], &["--id-prefix", "b:"]].concat())[0], 5);
    assert_eq!(place.ids(), ["1", "2", "3", "4", "5", "b:1", "b:2", "b:3", "b:4", "b:5"]);
}

#[test]
fn a_name_in_quotes_is_the_one_without() {
    let place = Place::new(database());
    place.database.run("create table rows (id int primary key, name text, at int not null)");
    place.database.run("insert into rows select i, 'a', i from generate_series(1, 5) i");
    place.create();
    assert_eq!(place.import(&["--cursor", "at", "--columns", "name"])[0], 5);
    let quoted = ["--table", "\"rows\"", "--key", "\"id\"", "--cursor", "\"at\"", "--columns", "\"name\""];
    let answer = place.json(&[&["import", "postgres", "c"][..], &quoted].concat());
    assert_eq!((&answer["upserted"], &answer["unchanged"]), (&json!(0), &json!(1)), "{answer}");
}

#[test]
fn a_run_that_fails_says_what_it_wrote() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id int primary key, name text)");
    db.run("insert into rows select i, 'a' || i from generate_series(1, 30) i");
    place.create();
    let base = ["import", "postgres", "c", "--table", "rows", "--key", "id"];
    assert_eq!(place.json(&base)["upserted"], 30);
    db.run("delete from rows where id > 5");
    let (code, _, stderr) = place.run(&[&base[..], &["--deletes", "missing"]].concat());
    assert!(code != 0 && stderr.contains("25 of 30 documents have no row any more"), "{stderr}");
    assert!(stderr.contains("5 documents written into c"), "{stderr}");
    assert!(stderr.contains("The next run reads all rows again"), "{stderr}");
    // What fails before anything is written has nothing to tell.
    let (_, _, stderr) = place.run(&["import", "postgres", "c", "--table", "nowhere", "--key", "id"]);
    assert!(!stderr.contains("written into") && !stderr.contains("The next run"), "{stderr}");
}

#[test]
fn a_restart_whose_run_fails_is_not_forgotten() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table rows (id int primary key, name text, at int not null)");
    db.run("insert into rows select i, 'a', i from generate_series(1, 5) i");
    place.create();
    assert_eq!(place.import(&["--cursor", "at"])[0], 5);
    db.run("alter table rows rename to away");
    let restart = ["import", "postgres", "c", "--table", "rows", "--key", "id", "--cursor", "at", "--restart"];
    place.refused(&restart, "rows");
    db.run("alter table away rename to rows");
    assert_eq!(place.import(&["--cursor", "at"])[0], 5);
}
