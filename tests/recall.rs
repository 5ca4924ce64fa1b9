//! Recall sampled while searches run: counted by collection, told by the figures, and switched off where nobody wants
//! it.

use pannier::types::{Query, SearchRequest};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::{Random, comes_true, document, name};

const DIM: usize = 8;

/// A collection with a graph, in which one search in `sampled_one_in` is sampled.
fn open(path: &std::path::Path, sampled_one_in: Option<u32>) -> (Database, Collection) {
    let database = Database::open_with(path, Options { sampled_one_in, ..Options::default() }).unwrap();
    let collection = database.create_collection(&name("things"), &DefinitionRequest::vectors(DIM as u32)).unwrap();
    let (collection, mut random) = (collection.collection, Random(1));
    let documents = (0..1_000).map(|row| document(&format!("{row}"), &random.whole_vector(DIM), row % 2));
    collection.upsert(documents.collect()).unwrap();
    collection.optimise().unwrap();
    (database, collection)
}

fn search(collection: &Collection, random: &mut Random, change: impl FnOnce(&mut SearchRequest)) {
    let mut request = SearchRequest::new(Query::Vector(random.whole_vector(DIM)));
    change(&mut request);
    assert_eq!(collection.search(&request).unwrap().hits.len(), 10);
}

#[test]
fn searches_are_answered_again_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (_database, collection) = open(dir.path(), Some(1));
    assert_eq!(collection.stats().recall.recall(), None);
    let mut random = Random(2);
    // The thread takes one at a time, so searches go on until it has judged some.
    let has_judged_some = || {
        search(&collection, &mut random, |_| ());
        collection.stats().recall.sampled_hits >= 50
    };
    assert!(comes_true(has_judged_some), "{:?}", collection.stats().recall);
    let recall = collection.stats().recall;
    assert!(recall.sampled_hits.is_multiple_of(10) && recall.found_hits <= recall.sampled_hits, "{recall:?}");
    assert!(recall.recall().is_some_and(|share| share >= 0.9), "{recall:?}");
}

#[test]
fn searches_that_say_how_are_not_sampled_and_none_are_where_nobody_wants_it() {
    for (sampled_one_in, ef_search, exact) in
        [(Some(1), Some(10), false), (Some(1), None, true), (Some(0), None, false)]
    {
        let dir = tempfile::tempdir().unwrap();
        let (database, collection) = open(dir.path(), sampled_one_in);
        let mut random = Random(3);
        for _ in 0..300 {
            search(&collection, &mut random, |request| {
                request.ef_search = ef_search;
                request.exact = exact;
            });
        }
        let counted = collection.stats().recall;
        drop((collection, database));
        assert_eq!(counted.sampled_hits, 0, "{sampled_one_in:?} {ef_search:?} {exact}");
    }
}
