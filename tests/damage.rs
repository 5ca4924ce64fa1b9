//! Damaged files: named and refused, or made again; never a panic, never a silent difference.

use std::fs;
use std::path::{Path, PathBuf};

use pannier::types::{Query, SearchRequest};
use pannier::{Database, DefinitionRequest, Options};

use crate::support::{Random, document, id, name};

const DOCUMENTS: u64 = 60;

/// What a change is called, and what it does to a file's bytes.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>));

fn options() -> Options {
    Options { memtable_documents: Some(20), ..Options::default() }
}

/// A store of two segments, one with a graph, and a log.
fn make(path: &Path) {
    let database = Database::open_with(path, options()).unwrap();
    let things = database.create_collection(&name("things"), &DefinitionRequest::vectors(4)).unwrap().collection;
    let mut random = Random(7);
    for n in 0..DOCUMENTS {
        things.upsert(vec![document(&format!("d{n:02}"), &random.whole_vector(4), 0)]).unwrap();
        if n == 30 {
            things.optimise().unwrap();
        }
        if n == 50 {
            things.delete(&[id("d07"), id("d45")]).unwrap();
            things.flush().unwrap();
        }
    }
}

/// Everything the store answers: each document's vector, and an exact search.
fn read(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let database = Database::open_with(path, options())?;
    let things = database.collection(&name("things"))?;
    let mut seen = vec![format!("{} documents", things.stats().documents)];
    for n in 0..DOCUMENTS {
        let found = things.get(&id(&format!("d{n:02}")))?;
        seen.push(format!("{:?}", found.map(|d| (d.vector, d.stored.text, d.stored.metadata, d.seq))));
    }
    let query = Query::Vector(vec![1.0, -2.0, 3.0, 1.0]);
    for exact in [true, false] {
        let hits = things.search(&SearchRequest { exact, top_k: 100, ..SearchRequest::new(query.clone()) })?.hits;
        seen.push(format!("{:?}", hits.iter().map(|h| (h.id.as_str(), h.score)).collect::<Vec<_>>()));
    }
    Ok(seen)
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
    found.sort();
}

fn copy(from: &Path, to: &Path) {
    let mut all = Vec::new();
    files(from, &mut all);
    let _ = fs::remove_dir_all(to);
    for file in all {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

/// Applies each change to each file of a copy, and holds what is read then against the truth. The last record of the
/// log may be lost: a flipped bit there cannot be told from a torn write.
fn mutate(changes: &[Change<'_>]) {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good"), directory.path().join("bad"));
    make(&good);
    let truth = read(&good).unwrap();
    let mut all = Vec::new();
    files(&good, &mut all);
    let (mut refused, mut mended) = (0, 0);
    for file in all {
        let relative = file.strip_prefix(&good).unwrap().to_owned();
        for (what, change) in changes {
            copy(&good, &bad);
            let mut bytes = fs::read(&file).unwrap();
            change(&mut bytes);
            fs::write(bad.join(&relative), bytes).unwrap();
            match read(&bad) {
                Ok(seen) if seen == truth => mended += 1,
                Ok(seen) => {
                    let in_log = relative.starts_with("log");
                    assert!(in_log && is_prefix(&seen, &truth), "{what} of {} went unnoticed", relative.display());
                }
                Err(error) => {
                    let text = format!("{error} {:?}", error.source());
                    assert!(!text.is_empty());
                    refused += 1;
                }
            }
        }
    }
    println!("{refused} refused, {mended} without a difference");
    assert!(refused > 0 && mended > 0);
}

/// Whether all documents that are there are as they were, and only the last ones are missing.
fn is_prefix(seen: &[String], truth: &[String]) -> bool {
    let documents = 1..=DOCUMENTS as usize;
    let missing_from = documents.clone().find(|&n| seen[n] != truth[n]).unwrap_or(DOCUMENTS as usize);
    documents.skip(missing_from - 1).all(|n| seen[n] == "None")
}

#[test]
fn flipped_bits_and_cut_files_are_never_served() {
    let flip = |place: fn(usize) -> usize| {
        move |bytes: &mut Vec<u8>| {
            if !bytes.is_empty() {
                let at = place(bytes.len());
                bytes[at] ^= 0x10;
            }
        }
    };
    mutate(&[
        ("a flipped first byte", &flip(|_| 0)),
        ("a flipped byte at a quarter", &flip(|len| len / 4)),
        ("a flipped byte in the middle", &flip(|len| len / 2)),
        ("a flipped last byte", &flip(|len| len - 1)),
        ("a cut in the middle", &|bytes| bytes.truncate(bytes.len() / 2)),
        ("a missing last byte", &|bytes| _ = bytes.pop()),
        ("emptiness", &|bytes| bytes.clear()),
    ]);
}

#[test]
fn the_document_index_is_made_again_when_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let truth = read(directory.path()).unwrap();
    fs::remove_dir_all(directory.path().join("meta.sled")).unwrap();
    assert_eq!(read(directory.path()).unwrap(), truth);
}

#[test]
fn a_missing_segment_is_named() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    let mut all = Vec::new();
    files(&directory.path().join("segments"), &mut all);
    let segment = all.iter().find(|file| file.extension().is_some_and(|e| e == "seg")).unwrap();
    fs::remove_file(segment).unwrap();
    let error = Database::open(directory.path()).err().expect("a store without its segment is refused");
    let mut text = error.to_string();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    assert!(text.contains(segment.file_name().unwrap().to_str().unwrap()), "{text}");
}

#[test]
fn a_second_opening_is_refused_with_the_holder() {
    let directory = tempfile::tempdir().unwrap();
    let first = Database::open(directory.path()).unwrap();
    let error = Database::open(directory.path()).err().expect("one process holds a directory");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(first);
    Database::open(directory.path()).unwrap();
}
