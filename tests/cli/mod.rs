//! The program as a person or a script runs it: arguments, stdout, stderr, exit codes.

mod export;
mod files;
mod server;
mod snapshots;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::model::{SMALL_MODEL, install_small_model};

const THREE: &str = concat!(
    "{\"id\":\"red\",\"text\":\"a red thing\",\"vector\":[1,0,0],\"price\":3}\n",
    "{\"id\":\"lime\",\"vector\":[0.7,1,0],\"price\":12.5}\n",
    "{\"id\":\"blue\",\"vector\":[0,0,1],\"metadata\":{\"price\":7}}\n",
);

/// A directory with a data directory in it, and what runs there.
struct Place {
    dir: TempDir,
}

/// What a run left.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With a collection `colours` of dim 3 that declares `price`.
    fn with_colours() -> Self {
        let place = Self::new();
        place.succeed(&["collection", "create", "colours", "--dim", "3", "--field", "price:number"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The program over this place's data, with nothing of the caller's settings. The address is one where nobody can
    /// listen, so that no server of the machine is found.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pannier"));
        for variable in
            ["SERVER", "LOG", "THREADS", "PRECISION", "DEVICE", "API_KEY_FILE"].map(|name| format!("PANNIER_{name}"))
        {
            command.env_remove(variable);
        }
        command
            .env("PANNIER_DATA", self.data())
            .env("PANNIER_MODELS", self.path("no-models"))
            .env("PANNIER_ADDR", "127.0.0.1:1")
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    fn succeed(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}\n{}", ran.stderr);
        ran
    }

    /// The ids of the hits of a search, in order.
    fn hits(&self, arguments: &[&str]) -> Vec<String> {
        let ran = self.succeed(&[&["search", "colours", "--json"], arguments].concat());
        let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let hits = answer["hits"].as_array().unwrap();
        hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails unless the run ended with this code and said these words on stderr.
    #[track_caller]
    fn failed_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        for words in words {
            assert!(self.stderr.contains(words), "{words:?} is not in\n{}", self.stderr);
        }
    }
}

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn help_names_commands_variables_and_exit_codes() {
    let place = Place::new();
    let help = place.succeed(&["--help"]).stdout;
    for word in
        ["serve", "import", "search", "doctor", "verify", "PANNIER_DATA", "PANNIER_SERVER", "Exit codes:", "3  "]
    {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    let documented = std::fs::read_to_string("docs/operations/exit-codes.md").unwrap();
    for line in help.split("Exit codes:").nth(1).unwrap().lines().filter(|line| line.starts_with("  ")) {
        let code = line.split_whitespace().next().unwrap();
        assert!(documented.contains(&format!("\n| {code} | ")), "{line}");
    }
    for row in documented.lines().filter(|row| row.starts_with("| ") && !row.starts_with("| code")) {
        let code = row.split('|').nth(1).unwrap().trim();
        assert!(help.contains(&format!("\n  {code}  ")), "{code} is not in the help");
    }
    assert!(place.succeed(&["--version"]).stdout.starts_with("pannier "));
    place.run(&["import"]).failed_with(2, &["COLLECTION"]);
    place.run(&["serch"]).failed_with(2, &["search"]);
    place.run(&["bench", "search", "--n", "1", "--peers", "faiss"]).failed_with(2, &["--peer-python"]);
    place.run(&["--device", "gpu", "model", "list"]).failed_with(2, &["'gpu'", "auto, cpu, cuda:0 or metal:0"]);
    place.run(&["migrate", "up", "--url", "postgres://u@h/d"]).failed_with(2, &["--url needs --target postgres"]);
    let mut unset = place.command(&["doctor", "--help"]);
    assert!(
        unset
            .env("PANNIER_THREADS", "")
            .env("PANNIER_PRECISION", "")
            .env("PANNIER_DEVICE", "")
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(!place.data().exists());
}

#[test]
fn a_refused_value_of_a_variable_is_told_with_its_name() {
    let place = Place::new();
    let run = |arguments: &[&str], variable: &str| {
        let output = place.command(arguments).env(variable, "many").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (command, variable) in [("doctor", "PANNIER_THREADS"), ("serve", "PANNIER_SNAPSHOT_EVERY")] {
        let told = run(&[command], variable);
        assert!(told.contains("'many'") && told.contains(&format!("variable {variable}.")), "{told}");
    }
    let told = run(&["doctor", "--threads", "none"], "PANNIER_THREADS");
    assert!(told.contains("'none'") && !told.contains("environment variable"), "{told}");
}

#[test]
fn a_server_is_refused_where_it_means_nothing_and_the_refusal_says_where_it_was_named() {
    let place = Place::with_colours();
    let at = ["--server", "http://127.0.0.1:1"];
    for arguments in [&["embed", "a"][..], &["model", "list"], &["bench", "search"], &["serve"]] {
        place.run(&[&at[..], arguments].concat()).failed_with(2, &["runs in this process", "leave --server out"]);
    }
    let salvage = ["salvage", "--to", "x"];
    let directory_only = [&["verify"][..], &["migrate", "status"], &["snapshot", "restore", "s"], &salvage];
    for arguments in directory_only {
        place.run(&[&at[..], arguments].concat()).failed_with(2, &["leave --server out"]);
        let ran = Ran::of(place.command(arguments).env("PANNIER_SERVER", at[1]).output().unwrap());
        ran.failed_with(2, &["unset PANNIER_SERVER"]);
    }
    // The variable is a setting of other commands.
    let listed = place.command(&["model", "list"]).env("PANNIER_SERVER", at[1]).output().unwrap();
    assert!(listed.status.success());
}

#[test]
fn a_data_directory_that_is_made_is_named_and_texts_do_not_command_the_terminal() {
    let place = Place::new();
    let create = |name: &str| place.succeed(&["collection", "create", name, "--dim", "1"]).stderr;
    let made = format!("made a new data directory at {}", place.data().display());
    let (first, second) = (create("a"), create("b"));
    assert!(first.contains(&made) && !second.contains("made a new"), "{first}{second}");
    let line = r#"{"id":"x","vector":[1],"text":"\u001b[2J \u009b2J","\u0007":1}"#;
    let file = place.write("one.jsonl", line);
    let ran = place.succeed(&["import", "a", &file]);
    assert!(ran.stderr.contains(&format!("written into a at {}", place.data().display())), "{}", ran.stderr);
    let shown = place.succeed(&["search", "a", "--vector", "[1]"]).stdout;
    assert!(shown.contains("\u{fffd}[2J \u{fffd}2J"), "{shown:?}");
    let answer = place.succeed(&["search", "a", "--vector", "[1]", "--json"]).stdout;
    assert!(answer.contains("\u{9b}2J"), "{answer:?}");
}

#[test]
fn an_error_is_a_log_line_where_those_are_json() {
    let place = Place::new();
    let ran = place.run(&["--log-format", "json", "collection", "show", "nothing"]);
    let last: serde_json::Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((ran.code, &last["level"]), (1, &"ERROR".into()), "{last}");
    assert!(last["message"].is_string() && last["causes"].is_array(), "{last}");
}

#[test]
fn commands_that_only_read_make_no_directory() {
    let place = Place::new();
    for arguments in [&["search", "c", "a"][..], &["collection", "list"], &["verify"]] {
        place.run(arguments).failed_with(1, &["there is no data directory at"]);
    }
    assert!(!place.data().exists());
}

#[test]
fn collections_are_created_listed_shown_and_deleted() {
    let place = Place::with_colours();
    let list = place.succeed(&["collection", "list"]).stdout;
    assert!(list.lines().nth(1).unwrap().starts_with("colours"), "{list}");
    let shown = place.succeed(&["collection", "show", "colours", "--json"]).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((shown["dim"].as_u64(), shown["fields"]["price"].as_str()), (Some(3), Some("number")));
    assert_eq!(shown["stats"]["documents"], 0);
    place.run(&["collection", "create", "colours", "--dim", "4"]).failed_with(1, &["another definition", "dim"]);
    place.run(&["collection", "create", "Colours"]).failed_with(2, &["1 to 64 of the characters"]);
    place.run(&["collection", "show", "shapes"]).failed_with(1, &["there is no collection"]);
    place.run(&["collection", "delete", "colours", "--no-input"]).failed_with(2, &["--yes"]);
    place.run(&["collection", "delete", "colours"]).failed_with(2, &["--yes"]);
    place.succeed(&["collection", "delete", "colours", "--yes"]);
    place.run(&["collection", "show", "colours"]).failed_with(1, &["there is no collection"]);
}

#[test]
fn searches_by_vector_and_id_filter_and_cut_off() {
    let place = Place::with_colours();
    let file = place.write("three.jsonl", THREE);
    place.succeed(&["import", "colours", &file]);
    assert_eq!(place.hits(&["--vector", "[1,0.1,0]"]), ["red", "lime", "blue"]);
    assert_eq!(place.hits(&["--vector", "[1,0.1,0]", "--top-k", "1", "--exact"]), ["red"]);
    assert_eq!(place.hits(&["--vector", "[1,0.1,0]", "--threshold", "0.9"]), ["red"]);
    assert_eq!(place.hits(&["--vector", "[1,0,0]", "--filter", r#"{"price":{"$gt":5}}"#]), ["lime", "blue"]);
    assert_eq!(place.hits(&["--id", "red"])[0], "lime");
    let table = place.succeed(&["search", "colours", "--id", "lime", "-k", "1"]);
    assert!(table.stdout.contains("a red thing") && table.stderr.contains("1 hit in"), "{}", table.stdout);
    place.run(&["search", "colours", "--vector", "[1,0]"]).failed_with(1, &["the collection's dim is 3"]);
    place.run(&["search", "colours", "--vector", "[0,0,0]"]).failed_with(1, &["error: "]);
    place.run(&["search", "colours", "--vector", "[1"]).failed_with(2, &["--vector is not valid JSON"]);
    place.run(&["search", "colours", "--id", "x"]).failed_with(1, &["no document"]);
    place.run(&["search", "colours", "a text"]).failed_with(1, &["no embedding model"]);
    place.run(&["search", "colours", "--id", "red", "--filter", r#"{"a":{"$x":1}}"#]).failed_with(1, &["$x"]);
}

#[test]
fn a_missing_model_is_an_error_that_names_the_ways_to_get_it() {
    let place = Place::new();
    for arguments in [&["embed", "a"][..], &["collection", "create", "articles"]] {
        place.run(arguments).failed_with(1, &["is not installed", "pannier model pull", "--from"]);
    }
    let list = place.succeed(&["model", "list"]).stdout;
    assert!(list.contains("all-MiniLM-L6-v2") && list.contains("not installed"), "{list}");
    place.run(&["model", "verify"]).failed_with(1, &["no model is installed"]);
    place.run(&["embed", "a", "--model", "who/knows"]).failed_with(1, &["unknown model"]);
}

#[test]
fn doctor_looks_at_everything_and_leaves_nothing() {
    let place = Place::with_colours();
    let before = std::fs::read_dir(place.data()).unwrap().count();
    let ran = place.run(&["doctor", "--addr", "127.0.0.1:0", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let status = |name: &str| {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("{name} is not in {report}"))["status"].as_str().unwrap().to_owned()
    };
    assert_eq!((status("data directory"), status("lock"), status("address")), ("ok".into(), "ok".into(), "ok".into()));
    assert_eq!((status("model"), status("readers")), ("warn".into(), "ok".into()));
    assert!(["ok", "warn"].contains(&status("fsync").as_str()));
    assert_eq!(std::fs::read_dir(place.data()).unwrap().count(), before);
    damage(&place.data().join("MANIFEST"));
    place.run(&["doctor", "--addr", "127.0.0.1:0"]).failed_with(1, &["failed"]);
}

#[test]
fn doctor_looks_at_the_models_of_collections() {
    let place = Place::new();
    let models = place.path("no-models");
    install_small_model(&models);
    place.succeed(&["collection", "create", "words", "--model", SMALL_MODEL]);
    let of_model = || {
        let ran = place.run(&["doctor", "--addr", "127.0.0.1:0", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        let of = |check: &&serde_json::Value| check["detail"].as_str().is_some_and(|d| d.contains(SMALL_MODEL));
        let found = checks.iter().find(of).expect("the model of the collection is not looked at");
        (ran.code, found["status"].as_str().unwrap().to_owned(), found["detail"].as_str().unwrap().to_owned())
    };
    assert_eq!(of_model().1, "ok");
    std::fs::remove_dir_all(&models).unwrap();
    let (code, status, detail) = of_model();
    assert_eq!((code, status.as_str()), (1, "fail"), "{detail}");
    assert!(detail.contains("it embeds for words"), "{detail}");
}

#[test]
fn a_device_that_this_build_lacks_is_refused_at_once() {
    if cfg!(feature = "metal") {
        return;
    }
    let place = Place::new();
    let lacks = "models cannot run on metal:0: this program was built without the feature `metal`";
    // Without the check the address would be refused.
    place.run(&["serve", "--addr", "nonsense", "--device", "metal"]).failed_with(2, &[lacks, "`--device auto`"]);
    let ran = place.run(&["doctor", "--addr", "127.0.0.1:0", "--device", "metal"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stdout.contains(lacks), "{}", ran.stdout);
    let on_cpu = place.run(&["doctor", "--addr", "127.0.0.1:0", "--device", "cpu"]).stdout;
    assert!(on_cpu.contains("models can run on cpu"), "{on_cpu}");
}

#[test]
fn a_login_in_a_server_s_address_is_not_shown() {
    let place = Place::new();
    for server in ["http://me:hush@127.0.0.1:1", "http://me:hush/hush@127.0.0.1:1"] {
        for arguments in [&["doctor"][..], &["collection", "list"]] {
            let ran = Ran::of(place.command(arguments).env("PANNIER_SERVER", server).output().unwrap());
            assert_ne!(ran.code, 0, "{arguments:?}");
            let told = ran.stdout + &ran.stderr;
            assert!(!told.contains("hush"), "{told}");
        }
    }
}

#[test]
fn exit_codes_hold_where_nobody_reads() {
    let place = Place::with_colours();
    let file = place.write("bad.jsonl", format!("nonsense\n{THREE}"));
    let code = |arguments: &[&str], stdout: Stdio, stderr: Stdio| {
        place.command(arguments).stdout(stdout).stderr(stderr).status().unwrap().code()
    };
    let of_both =
        |arguments: &[&str]| (code(arguments, unread(), Stdio::null()), code(arguments, Stdio::null(), unread()));
    assert_eq!(of_both(&["import", "colours", &file, "--json"]), (Some(1), Some(1)));
    assert_eq!(place.hits(&["--vector", "[1,0,0]"]).len(), 3, "the lines after the refused one got in");
    assert_eq!(of_both(&["collection", "list"]), (Some(0), Some(0)));
    std::fs::create_dir_all(place.data().join("sources")).unwrap();
    place.write("data/sources/s.json", r#"{"pannier_source":2,"crc32c":"00000001","kept":"{}"}"#);
    assert_eq!(of_both(&["verify"]), (Some(4), Some(4)));
    assert_eq!(of_both(&["verify", "--json"]), (Some(4), Some(4)));
    assert_eq!(of_both(&["serch"]), (Some(2), Some(2)));
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_not_utf_8_is_shown_or_refused() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::with_colours();
    let odd = place.dir.path().join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    let listed = place.command(&["model", "list", "--json"]).env("PANNIER_MODELS", &odd).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(listed["directory"].as_str().unwrap().ends_with("odd\u{fffd}"), "{listed}");
    place.succeed(&["snapshot", "create", "a"]);
    std::fs::rename(place.data(), &odd).unwrap();
    let restore = ["snapshot", "restore", "a", "--yes", "--keep-replaced", "--json"];
    let restored = Ran::of(place.command(&restore).env("PANNIER_DATA", &odd).output().unwrap());
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert!(restored.stdout.contains("odd\u{fffd}/before-restore"), "{}", restored.stdout);
    let add = ["replicate", "add", "s", "--collection", "colours", "--url-file"];
    let create = ["collection", "create", "c", "--dim", "1", "--backend", "postgres", "--url-file"];
    for arguments in [&add[..], &create] {
        let ran = place.command(arguments).arg(&odd).env("PANNIER_DATA", &odd).output().unwrap();
        Ran::of(ran).failed_with(2, &["odd\u{fffd} is not UTF-8"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_url_is_not_waited_for_at_a_terminal() {
    let place = Place::with_colours();
    let terminal = std::fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    let mut command = place.command(&["replicate", "add", "s", "--collection", "colours", "--store-url"]);
    Ran::of(command.stdin(terminal).output().unwrap()).failed_with(2, &["nothing is piped into stdin", "--url-file"]);
}

#[cfg(unix)]
#[test]
fn documents_are_for_nobody_but_their_owner_to_read() {
    use std::os::unix::fs::PermissionsExt;
    fn walk(path: &Path, wrong: &mut Vec<String>) {
        let found = std::fs::symlink_metadata(path).unwrap();
        if found.permissions().mode() & 0o077 != 0 {
            wrong.push(format!("{} {:o}", path.display(), found.permissions().mode()));
        }
        if found.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), wrong));
        }
    }
    let place = Place::with_colours();
    let file = place.write("three.jsonl", THREE);
    place.succeed(&["import", "colours", &file]);
    let archive = place.path("a.tar.zst");
    place.succeed(&["snapshot", "create", "a", "--archive", archive.to_str().unwrap()]);
    place.succeed(&["snapshot", "restore", "a", "--yes"]);
    assert_eq!(place.hits(&["--vector", "[1,0,0]", "-k", "1"]), ["red"]);
    let mut wrong = Vec::new();
    [place.data(), archive].iter().for_each(|made| walk(made, &mut wrong));
    assert_eq!(wrong, Vec::<String>::new());
    // What people work on together stays theirs.
    let steps = place.path("steps");
    place.succeed(&["migrate", "--target", "postgres", "--dir", steps.to_str().unwrap(), "new", "add things"]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    let ours = std::fs::read_dir(&steps).unwrap().next().unwrap().unwrap().path();
    assert_eq!(mode(&ours), mode(Path::new(&file)));
}

#[test]
fn verify_passes_a_sound_store_and_names_what_is_damaged() {
    let place = Place::with_colours();
    let file = place.write("three.jsonl", THREE);
    place.succeed(&["import", "colours", &file]);
    assert!(place.succeed(&["verify"]).stdout.contains("segment"));
    std::fs::create_dir_all(place.data().join("sources")).unwrap();
    place.write("data/sources/s.json", r#"{"pannier_source":2,"crc32c":"00000001","kept":"{}"}"#);
    place.run(&["verify"]).failed_with(4, &["s.json: its checksum is", "remove the file"]);
    damage(&place.data().join("MANIFEST"));
    place.run(&["verify"]).failed_with(4, &["MANIFEST", "damaged", "`pannier salvage`"]);
    place.run(&["search", "colours", "--id", "red"]).failed_with(4, &["MANIFEST"]);
}
