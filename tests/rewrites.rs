//! Every document written ten times: what is left after compaction is as small and as well found as if written once;
//! and compaction that is held back, closed or killed loses nothing.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pannier::types::{NewDocument, Query, SearchRequest};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::{Random, comes_true, document, id, name};

const DIM: usize = 24;
const DOCUMENTS: usize = 3_000;
const REWRITES: usize = 10;
const QUERIES: usize = 60;

fn open(path: &Path) -> (Database, Collection) {
    let options = Options { memtable_documents: Some(700), ..Options::default() };
    let database = Database::open_with(path, options).unwrap();
    let collection = database.create_collection(&name("things"), &DefinitionRequest::vectors(DIM as u32)).unwrap();
    (database, collection.collection)
}

fn vector(random: &mut Random) -> Vec<f32> {
    (0..DIM).map(|_| random.below(2_001) as f32 - 1_000.5).collect()
}

fn write_all(collection: &Collection, random: &mut Random) {
    let documents: Vec<_> = (0..DOCUMENTS).map(|row| document(&format!("{row}"), &vector(random), 0)).collect();
    for part in documents.chunks(500) {
        collection.upsert(part.to_vec()).unwrap();
    }
}

/// Recall@10 of searches that name no effort.
fn recall(collection: &Collection) -> f64 {
    let mut random = Random(77);
    let mut found = 0;
    for _ in 0..QUERIES {
        let request = SearchRequest::new(Query::Vector(vector(&mut random)));
        let hits = |exact| -> HashSet<String> {
            let response = collection.search(&SearchRequest { exact, ..request.clone() }).unwrap();
            response.hits.iter().map(|hit| hit.id.as_str().to_owned()).collect()
        };
        found += hits(false).intersection(&hits(true)).count();
    }
    found as f64 / (10 * QUERIES) as f64
}

/// There is always another memtable to seal, and merges are not to wait for the last.
#[test]
fn merges_keep_up_with_writes_that_never_pause() {
    const BATCH: usize = 20;
    const BATCHES: usize = 150;
    let directory = tempfile::tempdir().unwrap();
    let options = Options { memtable_documents: Some(BATCH as u32), ..Options::default() };
    let database = Database::open_with(directory.path(), options).unwrap();
    let definition = DefinitionRequest::vectors(DIM as u32);
    let collection = database.create_collection(&name("things"), &definition).unwrap().collection;
    let mut random = Random(1);
    for _ in 0..BATCHES {
        let batch = (0..BATCH).map(|row| document(&format!("{row}"), &vector(&mut random), 0));
        collection.upsert(batch.collect()).unwrap();
    }
    let segments = collection.stats().segments;
    assert!(segments < BATCHES as u64 / 2, "{segments} segments after {BATCHES} memtables");
}

#[test]
fn rewriting_everything_costs_neither_disk_nor_recall() {
    let (fresh_dir, rewritten_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_fresh_database, fresh) = open(fresh_dir.path());
    write_all(&fresh, &mut Random(REWRITES as u64));
    fresh.optimise().unwrap();
    let (_rewritten_database, rewritten) = open(rewritten_dir.path());
    for round in 1..=REWRITES {
        write_all(&rewritten, &mut Random(round as u64));
        if round == REWRITES / 2 {
            rewritten.optimise().unwrap();
        }
    }
    rewritten.optimise().unwrap();
    let (fresh_stats, stats) = (fresh.stats(), rewritten.stats());
    assert_eq!((stats.documents, stats.segments), (DOCUMENTS as u64, 1));
    let (once, often) = (fresh_stats.disk_bytes as f64, stats.disk_bytes as f64);
    assert!(often <= 1.5 * once, "{often} bytes after {REWRITES} rewrites, {once} after one");
    let (once, often) = (recall(&fresh), recall(&rewritten));
    assert!(often >= 0.95 * once, "recall@10 {often} after {REWRITES} rewrites, {once} after one");
}

#[test]
fn disk_stays_near_what_lives_without_anybody_asking() {
    let (fresh_dir, rewritten_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_fresh_database, fresh) = open(fresh_dir.path());
    write_all(&fresh, &mut Random(1));
    fresh.optimise().unwrap();
    let live = fresh.stats().disk_bytes as f64;
    let (_rewritten_database, rewritten) = open(rewritten_dir.path());
    let mut random = Random(2);
    write_all(&rewritten, &mut random);
    for round in 0..REWRITES {
        // In random order, so that no segment dies as a whole.
        for _ in 0..DOCUMENTS / 500 {
            let ids: HashSet<u64> = (0..500).map(|_| random.below(DOCUMENTS as u64)).collect();
            let rewrite = |id: u64| document(&format!("{id}"), &vector(&mut random), 0);
            rewritten.upsert(ids.into_iter().map(rewrite).collect()).unwrap();
        }
        rewritten.settle().unwrap();
        let stats = rewritten.stats();
        assert_eq!(stats.documents, DOCUMENTS as u64);
        let disk = stats.disk_bytes as f64;
        assert!(disk <= 1.5 * live, "round {round}: {disk} bytes where {live} live, {stats:?}");
    }
}

/// Of a size that a merge of them cannot end at the rates of these tests.
fn large_document(row: usize) -> NewDocument {
    let vector: Vec<f32> = (0..256).map(|at| ((row * 31 + at * 17) % 101) as f32 - 50.5).collect();
    document(&format!("{row:04}"), &vector, 0)
}

const LARGE: usize = 1_500;

fn options(merge_bytes_per_s: Option<u64>) -> Options {
    let merge_bytes_per_s = merge_bytes_per_s.and_then(NonZeroU64::new);
    Options { memtable_documents: Some(150), merge_bytes_per_s, ..Options::default() }
}

/// Everything is there, sound, and merged when asked; nothing else lies in the directory.
fn check_large(path: &Path) {
    let database = Database::open_with(path, options(None)).unwrap();
    let collection = database.collection(&name("things")).unwrap();
    collection.settle().unwrap();
    assert!(collection.stats().segments <= 9, "{:?}", collection.stats());
    collection.optimise().unwrap();
    let stats = collection.stats();
    assert_eq!((stats.documents, stats.segments), (LARGE as u64, 1));
    for row in 0..LARGE {
        let got = collection.get(&id(&format!("{row:04}"))).unwrap();
        assert!(got.is_some(), "document {row} is lost");
    }
    assert!(database.verify(&mut |_, _| ()).unwrap().problems.is_empty());
    drop((collection, database));
    let mut files = Vec::new();
    files_below(&path.join("segments"), &mut files);
    assert_eq!(files.len(), 1, "{files:?}");
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_merge_that_is_held_back_is_given_up_when_the_store_closes() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open_with(dir.path(), options(Some(1))).unwrap();
    let collection = database.create_collection(&name("things"), &DefinitionRequest::vectors(256)).unwrap().collection;
    for start in (0..LARGE).step_by(150) {
        collection.upsert((start..start + 150).map(large_document).collect()).unwrap();
    }
    collection.flush().unwrap();
    // Ten small segments are due to be merged, of 2 MB at a byte a second: nobody who waited for it would see the end.
    assert!(comes_true(|| database.merges().written_bytes > 0), "nothing is merged");
    drop((collection, database));
    check_large(dir.path());
}

#[test]
fn a_merge_that_is_killed_begins_again_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    {
        let database = Database::open_with(dir.path(), options(Some(1))).unwrap();
        let request = DefinitionRequest::vectors(256);
        let collection = database.create_collection(&name("things"), &request).unwrap().collection;
        for start in (0..LARGE).step_by(150) {
            collection.upsert((start..start + 150).map(large_document).collect()).unwrap();
        }
        collection.flush().unwrap();
    }
    let unfinished = || {
        let mut files = Vec::new();
        files_below(&dir.path().join("segments"), &mut files);
        files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "tmp"))
    };
    for round in 0..3 {
        // What the last round left would look like a merge that is under way.
        unfinished().for_each(|path| std::fs::remove_file(path).unwrap());
        let mut server = Command::new(env!("CARGO_BIN_EXE_pannier"))
            .args(["serve", "--addr", "127.0.0.1:0", "--merge-mib-per-s", "1", "--data"])
            .arg(dir.path())
            .env("PANNIER_LOG", "error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Ten small segments are due to be merged; the merge is under way once its file is there.
        let has_begun = comes_true(|| unfinished().next().is_some());
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(has_begun, "no merge began in round {round}");
    }
    check_large(dir.path());
}
