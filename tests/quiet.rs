//! What nobody writes to any more is sealed before its memtable is full, where it holds enough to be slow to search.

use std::time::{Duration, Instant};

use pannier::types::{Query, SearchRequest};
use pannier::{Collection, Database, DefinitionRequest};

use crate::support::{Random, document, name};

const DIM: usize = 8;

fn fill(database: &Database, collection: &str, rows: u64) -> Collection {
    let request = DefinitionRequest::vectors(DIM as u32);
    let collection = database.create_collection(&name(collection), &request).unwrap().collection;
    let mut random = Random(rows);
    let documents = (0..rows).map(|row| document(&format!("{row}"), &random.whole_vector(DIM), 1));
    for batch in documents.collect::<Vec<_>>().chunks(1_000) {
        collection.upsert(batch.to_vec()).unwrap();
    }
    collection
}

#[test]
fn many_documents_are_sealed_once_nobody_writes() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(dir.path()).unwrap();
    let (few, many) = (fill(&database, "few", 500), fill(&database, "many", 3_000));
    assert_eq!((few.stats().memtable_documents, many.stats().memtable_documents), (500, 3_000));
    let before = many.search(&SearchRequest::new(Query::Vector(vec![1.0; DIM]))).unwrap().hits;
    let deadline = Instant::now() + Duration::from_secs(120);
    while many.stats().memtable_documents > 0 {
        assert!(Instant::now() < deadline, "nothing is sealed: {:?}", many.stats());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(many.stats().documents, 3_000);
    let after = many.search(&SearchRequest::new(Query::Vector(vec![1.0; DIM]))).unwrap().hits;
    assert_eq!(after[0].score, before[0].score);
    assert_eq!(few.stats().memtable_documents, 500, "few documents are searched fast where they are");
}
