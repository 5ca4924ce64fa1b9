//! The house rules that a compiler does not hold: the ranks of the map, and who may name which crate.

use std::fs;
use std::path::PathBuf;

/// A module uses only modules of a lower rank (docs/ARCHITECTURE.md).
const RANKS: &[(&str, u32)] = &[
    ("main.rs", 9),
    ("lib.rs", 9),
    ("cli", 8),
    ("faults", 8),
    ("fuzzing.rs", 8),
    ("http", 7),
    ("salvage", 7),
    ("snapshot", 6),
    ("database.rs", 5),
    ("backend", 6),
    ("collection", 4),
    ("index", 3),
    ("migrate", 3),
    ("source", 6),
    ("sqlmigrate", 6),
    ("ingest", 3),
    ("text", 3),
    ("embed", 2),
    ("log", 2),
    ("manifest", 2),
    ("meta", 2),
    ("postgres", 2),
    ("replicate", 6),
    ("segment", 2),
    ("distance", 1),
    ("storage", 1),
    ("telemetry.rs", 0),
    ("types", 0),
];

/// What lib.rs names anew, and where it stands.
const REEXPORTED: &[(&[&str], &str)] = &[
    (&["Collection", "CollectionError", "DefinitionRequest"], "collection"),
    (&["Database", "Health", "MergeFigures", "OpenError", "Options"], "database.rs"),
];

/// Who may name what: (text that names it, where it may stand).
const NAMES: &[(&str, &[&str])] = &[
    ("sled::", &["meta/"]),
    ("tar::", &["snapshot/archive/"]),
    ("zstd::", &["snapshot/archive/"]),
    ("roaring::", &["meta/fields/"]),
    ("hnsw_rs::", &["index/build/reference.rs"]),
    ("simsimd::", &["distance/"]),
    ("tantivy::", &["text/"]),
    ("minijinja::", &["ingest/template/"]),
    ("candle_core::", &["embed/local/"]),
    ("candle_nn::", &["embed/local/"]),
    ("candle_transformers::", &["embed/local/"]),
    ("memmap2::", &["storage/mmap.rs", "storage/arena.rs"]),
    ("tokio_postgres::", &["postgres/"]),
    ("rustls::", &["postgres/tls.rs"]),
    ("axum::", &["http/", "cli/target/local.rs"]),
    ("hyper::", &["http/"]),
    ("clap::", &["cli/", "main.rs"]),
    (".sync_all()", &["storage/"]),
    (".sync_data()", &["storage/", "log/", "cli/doctor/"]),
    ("fs::rename(", &["storage/"]),
    ("OpenOptions", &["storage/disk.rs"]),
    ("fs::write(", &["storage/", "faults/", "cli/bench/"]),
    ("fs::remove", &["storage/disk.rs", "faults/", "cli/doctor/"]),
    ("StatusCode", &["http/"]),
    ("std::process::exit", &["main.rs", "cli/"]),
    // They panic where nobody reads, or the disk is full: `cli/output.rs` writes what commands say.
    ("print!(", &[]),
    ("println!(", &["faults/", "fuzzing.rs"]),
];

/// Longest file of non-test code, in lines.
const MAX_LINES: usize = 500;
/// `max_width` of rustfmt.toml, in characters.
const MAX_WIDTH: usize = 120;

fn source() -> PathBuf {
    PathBuf::from("src")
}

/// Every source file, as its path below src/ and its text without unit tests.
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![source()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(source()).unwrap().to_str().unwrap().to_owned();
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                if !name.ends_with("tests.rs") && !name.contains("/tests/") {
                    found.push((name, code));
                }
            }
        }
    }
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

fn rank(path: &str) -> Option<u32> {
    RANKS.iter().find(|(name, _)| path == *name || path.starts_with(&format!("{name}/"))).map(|(_, rank)| *rank)
}

/// The module of a name after `crate::`.
fn module_of(name: &str) -> &str {
    REEXPORTED
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map_or(name, |(_, module)| module.trim_end_matches(".rs"))
}

/// The parts of what stands within braces, at its beginning: `a, b::{c, d}} ..` has two.
fn listed(rest: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, letter) in rest.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&rest[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&rest[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

/// Modules named by `crate::a`, or by `crate::{a, b::{c, d}}`.
fn crate_uses(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c == '$' || c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => listed(list),
            None => vec![rest],
        };
        for name in names {
            let end = |c: char| !c.is_alphanumeric() && c != '_';
            used.push(module_of(name.trim().split(end).next().unwrap()).to_owned());
        }
    }
    used
}

#[test]
fn modules_are_found_in_every_way_to_name_them() {
    let code =
        "use crate::{a::{b, c}, d, Database};\nfn e() { crate::f::g(); crate::Options::default(); $crate::h(); }";
    assert_eq!(crate_uses(code), ["a", "d", "database", "f", "database"]);
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn without_comments(code: &str) -> String {
    code.lines().filter(|line| !is_comment(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let mut wrong = Vec::new();
    for (path, code) in files() {
        let own = rank(&path).unwrap_or_else(|| panic!("{path} has no rank: add it to the map and to this test"));
        let top = path.split('/').next().unwrap().trim_end_matches(".rs");
        for used in crate_uses(&without_comments(&code)) {
            match rank(&used).or_else(|| rank(&format!("{used}.rs"))) {
                None => wrong.push(format!("{path} uses {used}, which has no rank: add it to this test")),
                Some(other) if used != top && other >= own && own < 9 => {
                    wrong.push(format!("{path} (rank {own}) uses {used} (rank {other})"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_are_named_only_where_the_map_says() {
    let mut wrong = Vec::new();
    for (path, code) in files() {
        for (line_number, line) in code.lines().enumerate().filter(|(_, line)| !is_comment(line)) {
            for (text, places) in NAMES {
                if line.contains(text) && !places.iter().any(|place| path.starts_with(place)) {
                    wrong.push(format!("{path}:{} names {text}", line_number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    let mut wrong = Vec::new();
    for (path, code) in files() {
        if !code.starts_with("//! ") {
            wrong.push(format!("{path} does not begin with its one sentence"));
        }
        let lines = code.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{path} has {lines} lines"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// rustfmt holds code to its width and leaves comments as they are.
#[test]
fn comments_are_no_wider_than_code() {
    let mut wrong = Vec::new();
    for (path, code) in files() {
        let wide = |line: &&str| is_comment(line) && line.chars().count() > MAX_WIDTH;
        wrong.extend(code.lines().filter(wide).map(|line| format!("{path}: {}", line.trim())));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_stands_only_where_it_is_allowed_and_explained() {
    let mut wrong = Vec::new();
    // A file of many one-line kernels may explain them once.
    const FOR_THE_REST: &str = "// SAFETY of every function below";
    for (path, code) in files() {
        let allowed = [
            "storage/mmap.rs",
            "storage/arena.rs",
            "storage/background.rs",
            "storage/heap.rs",
            "storage/owner.rs",
            "distance/",
            "embed/local/",
        ]
        .iter()
        .any(|place| path.starts_with(place));
        let lines: Vec<_> = code.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if is_comment(line) || !line.contains("unsafe {") && !line.contains("unsafe impl") {
                continue;
            }
            // In the comment above it, or before that in the same statement.
            let mut above =
                lines[..number].iter().rev().take(8).take_while(|l| is_comment(l) || !l.contains("unsafe {"));
            let explained = line.contains("SAFETY")
                || above.any(|l| l.contains("SAFETY"))
                || lines[..number].iter().any(|l| l.contains(FOR_THE_REST));
            if !allowed || !explained {
                wrong.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The API's description knows a schema by its name alone: of two of one name it shows one, and the other's requests
/// and answers do not fit it.
#[test]
fn schemas_of_the_api_have_names_of_their_own() {
    let mut seen: Vec<String> = Vec::new();
    for (path, code) in files() {
        let lines: Vec<_> = code.lines().collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.contains("ToSchema)]")) {
            let after = &lines[number + 1..lines.len().min(number + 6)];
            let renamed = after
                .iter()
                .take_while(|line| line.trim_start().starts_with('#'))
                .find_map(|line| Some(line.split("schema(as = ").nth(1)?.split([',', ')']).next()?.to_owned()));
            let declared = || {
                let line = after.iter().find(|line| line.contains("struct ") || line.contains("enum "))?;
                let rest = line.split("struct ").nth(1).or(line.split("enum ").nth(1))?;
                Some(rest.split(|c: char| !c.is_alphanumeric()).next()?.to_owned())
            };
            let name = renamed.or_else(declared).unwrap_or_else(|| panic!("{path}:{}", number + 1));
            assert!(!seen.contains(&name), "{path}:{}: the schema {name} stands somewhere else too", number + 1);
            seen.push(name);
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}
