//! Every document written ten times: what is left after compaction is as small and as well found as if written once.

use std::collections::HashSet;
use std::path::Path;

use pannier::types::{Query, SearchRequest};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::{Random, document, name};

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
