//! Stores of every released format: opened, or brought to the present format by `pannier migrate`, with all they held.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use pannier::Database;
use pannier::types::{Query, SearchRequest};

use crate::support::{id, name};

/// Documents of every fixture: d000 to d299, of which three were deleted and one was replaced.
const DELETED: [&str; 3] = ["d003", "d104", "d299"];

fn fixture(format: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = format!("tests/fixtures/store-{format}.tar.zst");
    let stream = zstd::decode_all(fs::File::open(file).unwrap()).unwrap();
    tar::Archive::new(&stream[..]).unpack(dir.path()).unwrap();
    dir
}

fn pannier(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pannier"));
    for variable in ["PANNIER_SERVER", "PANNIER_LOG", "PANNIER_API_KEY_FILE"] {
        command.env_remove(variable);
    }
    command.env("PANNIER_DATA", data).env("PANNIER_ADDR", "127.0.0.1:1").args(arguments).output().unwrap()
}

#[track_caller]
fn ran(data: &Path, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let output = pannier(data, arguments);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}");
    for words in words {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    text
}

fn check_documents(data: &Path) {
    let database = Database::open(data).unwrap();
    let things = database.collection(&name("things")).unwrap();
    assert_eq!(things.stats().documents, 297);
    for n in 0..300 {
        let wanted = format!("d{n:03}");
        let found = things.get(&id(&wanted)).unwrap();
        assert_eq!(found.is_none(), DELETED.contains(&wanted.as_str()), "{wanted}");
        let text = found.and_then(|found| found.stored.text);
        let expected = if n == 5 { "second".to_owned() } else { format!("text of {n}") };
        assert!(text.is_none_or(|text| text == expected), "{wanted}");
    }
    let query = Query::Vector(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!(things.search(&SearchRequest::new(query)).unwrap().hits[0].id.as_str(), "d005");
    assert_eq!(database.collection(&name("empty")).unwrap().definition().dim, 3);
    let report = database.verify(&mut |_, _| {}).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

#[test]
fn the_second_format_opens_as_it_is() {
    let dir = fixture(2);
    ran(dir.path(), &["migrate", "status"], 0, &["  -> 003 manifest_template   (rewrites 1 manifest, "]);
    check_documents(dir.path());
    ran(dir.path(), &["migrate", "up", "-y"], 0, &["pending"]);
    ran(dir.path(), &["migrate", "status"], 0, &["pending 0"]);
    check_documents(dir.path());
}

#[test]
fn the_first_format_says_what_to_run_and_is_then_brought_over() {
    let dir = fixture(1);
    let data = dir.path();
    ran(data, &["collection", "list"], 7, &["format version 1", "pannier migrate up"]);
    ran(
        data,
        &["doctor", "--addr", "127.0.0.1:0"],
        0,
        &["warn  migrations", "pending steps; run `pannier migrate up`"],
    );
    ran(
        data,
        &["migrate", "status"],
        0,
        &["Applied 0, pending", "  -> 001 segment_calibration   (rewrites 7 segments, "],
    );
    let before: Vec<u8> = fs::read(data.join("MANIFEST")).unwrap();
    ran(data, &["migrate", "up", "--dry-run"], 0, &["would rewrite 7 segments", "Dry run: nothing was changed"]);
    assert_eq!(fs::read(data.join("MANIFEST")).unwrap(), before);
    ran(data, &["migrate", "up", "--no-input"], 2, &["--yes"]);
    ran(
        data,
        &["migrate", "up", "-y"],
        0,
        &["snapshot before-migrate-", "ok 001 segment_calibration   (rewrote 7 segments"],
    );
    ran(data, &["migrate", "up", "-y"], 0, &["Nothing to do"]);
    ran(data, &["migrate", "status", "--verbose"], 0, &["pending 0", "applied 2", "segment format 1 to 2"]);
    ran(data, &["doctor", "--addr", "127.0.0.1:0"], 0, &["none is pending"]);
    check_documents(data);
    let list = ran(data, &["snapshot", "list"], 0, &["before-migrate-"]);
    let name = list.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    ran(data, &["snapshot", "verify", &name], 0, &[]);
    // Back to before, which is of the first format again, and forth once more.
    ran(data, &["snapshot", "restore", &name, "--yes"], 7, &["pannier migrate up", "before-restore"]);
    ran(data, &["migrate", "up", "-y", "--no-snapshot"], 0, &["rewrote 7 segments"]);
    check_documents(data);
}

#[test]
fn each_kind_of_strange_journal_has_its_exit_code() {
    let dir = fixture(2);
    let write = |lines: &str| {
        let body = format!("pannier migrations 1\n{lines}\n");
        fs::write(dir.path().join("MIGRATIONS"), format!("{body}end {:08x}\n", crc32c::crc32c(body.as_bytes())))
            .unwrap();
    };
    write("001 segment_calibration 0123456789abcdef applied 1 1");
    ran(dir.path(), &["migrate", "status"], 8, &["was applied as 0123456789abcdef"]);
    write("999 of_tomorrow 0123456789abcdef applied 1 1");
    ran(dir.path(), &["migrate", "up", "-y"], 8, &["does not have it"]);
    fs::write(dir.path().join("MIGRATIONS"), "nonsense").unwrap();
    ran(dir.path(), &["migrate", "status"], 4, &["MIGRATIONS", "is damaged"]);
}

#[test]
fn a_new_step_begins_with_the_next_number() {
    let dir = tempfile::tempdir().unwrap();
    let steps = dir.path().join("steps");
    let arguments = ["migrate", "new", "footer_hash", "--dir", steps.to_str().unwrap()];
    ran(dir.path(), &arguments, 1, &["has no steps"]);
    fs::create_dir(&steps).unwrap();
    fs::write(steps.join("mod.rs"), "").unwrap();
    fs::write(steps.join("s002_manifest_text.rs"), "").unwrap();
    ran(dir.path(), &arguments, 0, &["s003_footer_hash.rs"]);
    assert!(fs::read_to_string(steps.join("s003_footer_hash.rs")).unwrap().contains("id: 3"));
    ran(dir.path(), &["migrate", "new", "../x", "--dir", steps.to_str().unwrap()], 2, &["is no name"]);
}
