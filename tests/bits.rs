//! Searches that go by one bit a component: of what has no graph yet, and of what filters that are asked often let
//! through.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use pannier::types::{Condition, FieldType, Filter, Method, NewDocument, Query, SearchRequest, Value};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::{Random, id, name};

/// Clustered vectors of 128 numbers, as those of texts are, in segments that have no graph.
fn unoptimised() -> (tempfile::TempDir, Database, Collection) {
    const DIM: usize = 128;
    let directory = tempfile::tempdir().unwrap();
    // So slow that no graph comes while the test runs.
    let merge_bytes_per_s = NonZeroU64::new(1);
    let options = Options { memtable_documents: Some(2_000), merge_bytes_per_s, ..Options::default() };
    let database = Database::open_with(directory.path(), options).unwrap();
    let fields = [("kind".to_owned(), FieldType::Keyword)].into();
    let request = DefinitionRequest { fields, ..DefinitionRequest::vectors(DIM as u32) };
    let collection = database.create_collection(&name("fresh"), &request).unwrap().collection;
    let mut random = Random(3);
    let mut vector =
        |size: f32| -> Vec<f32> { (0..DIM).map(|_| size * (random.below(2_001) as f32 / 1e3 - 1.0)).collect() };
    let centres: Vec<Vec<f32>> = (0..20).map(|_| vector(1.0)).collect();
    for batch in 0..6 {
        let document = |at: usize| {
            let own = vector(0.6).into_iter().zip(&centres[at % centres.len()]).map(|(x, centre)| x + centre).collect();
            let kind = format!("k{}", (at * 7 + at / 9) % 10);
            NewDocument {
                id: id(&format!("{batch}-{at:03}")),
                text: None,
                metadata: [("kind".to_owned(), Value::String(kind))].into(),
                vector: Some(own),
                chunks: Vec::new(),
            }
        };
        collection.upsert((0..700).map(document).collect()).unwrap();
    }
    (directory, database, collection)
}

/// Whether this machine has a kernel for blocks.
fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[test]
fn what_has_no_graph_yet_is_found_by_its_bits() {
    let (_directory, _database, collection) = unoptimised();
    let doomed: Vec<_> = (0..700).step_by(3).map(|at| id(&format!("1-{at:03}"))).collect();
    collection.delete(&doomed).unwrap();
    let first = |count: usize| Some(kinds(&["k0", "k1", "k2", "k3", "k4", "k5", "k6"][..count]));
    let explained = || {
        let request = SearchRequest { explain: true, ..SearchRequest::new(Query::Vector(vec![1.0; 128])) };
        collection.search(&request).unwrap().explain.unwrap().segments
    };
    // What fills a memtable is sealed in the background.
    let deadline = Instant::now() + Duration::from_secs(60);
    while explained().is_empty() {
        assert!(Instant::now() < deadline, "nothing is sealed");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Where more than an eighth may pass, all are compared, in blocks.
    for (filter, in_blocks) in [(None, true), (first(7), true), (first(2), true), (first(1), false)] {
        let (mut right, mut wanted) = (0, 0);
        for key in ["0-005", "1-004", "2-300", "3-017", "5-699"] {
            let query = collection.get(&id(key)).unwrap().unwrap().vector;
            let request = SearchRequest { filter: filter.clone(), ..SearchRequest::new(Query::Vector(query)) };
            let exact = collection.search(&SearchRequest { exact: true, ..request.clone() }).unwrap().hits;
            let answer = collection.search(&SearchRequest { explain: true, ..request }).unwrap();
            assert_eq!(answer.hits.len(), exact.len());
            assert!(answer.hits.iter().all(|hit| !doomed.contains(&hit.id)), "a deleted document");
            let floor = exact.last().map_or(0.0, |hit| hit.score - 1e-6);
            right += answer.hits.iter().filter(|hit| hit.score >= floor).count();
            wanted += exact.len();
            for segment in answer.explain.unwrap().segments {
                assert_eq!(segment.used, Method::Scan, "there is no graph");
                let compared_all = segment.compared == u64::from(segment.rows);
                assert_eq!(compared_all, filter.is_none() || in_blocks && has_avx2(), "{filter:?}: {segment:?}");
            }
        }
        assert!(f64::from(right as u32) >= 0.99 * f64::from(wanted as u32), "{filter:?}: {right} of {wanted}");
    }
}

/// The segments of an answer that were searched by packed rows, and whether all hits are right.
fn ask(collection: &Collection, filter: &Filter, query: &[f32]) -> (usize, usize, usize) {
    let request = SearchRequest {
        filter: Some(filter.clone()),
        explain: true,
        ..SearchRequest::new(Query::Vector(query.to_vec()))
    };
    let exact = collection.search(&SearchRequest { exact: true, ..request.clone() }).unwrap().hits;
    let answer = collection.search(&request).unwrap();
    assert_eq!(answer.hits.len(), exact.len());
    let floor = exact.last().map_or(0.0, |hit| hit.score - 1e-6);
    let right = answer.hits.iter().filter(|hit| hit.score >= floor).count();
    let segments = answer.explain.unwrap().segments;
    (segments.iter().filter(|segment| segment.used == Method::PackedScan).count(), right, exact.len())
}

/// Asks until the rows that pass are packed, where this machine packs any.
fn ask_until_packed(collection: &Collection, filter: &Filter) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while has_avx2() && ask(collection, filter, &[1.0; 128]).0 == 0 {
        assert!(Instant::now() < deadline, "nothing is packed for {filter:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Opens what [`unoptimised`] left, with so much memory for packed rows, and builds its graph.
fn optimised(directory: &tempfile::TempDir, packed_bytes: Option<usize>) -> (Database, Collection) {
    let database = Database::open_with(directory.path(), Options { packed_bytes, ..Options::default() }).unwrap();
    let collection = database.collection(&name("fresh")).unwrap();
    collection.flush().unwrap();
    collection.optimise().unwrap();
    (database, collection)
}

fn kinds(kinds: &[&str]) -> Filter {
    let kinds = kinds.iter().map(|kind| Value::String((*kind).to_owned())).collect();
    Filter::Field { path: "kind".into(), condition: Condition::In(kinds) }
}

#[test]
fn what_is_asked_often_is_packed_and_stays_right() {
    let (directory, database, collection) = unoptimised();
    drop((collection, database));
    let (database, collection) = optimised(&directory, None);
    let not = Filter::Not(Box::new(Filter::eq("kind", Value::String("k9".into()))));
    // 1,260 rows, the same of two conditions, and 420.
    let filters =
        [kinds(&["k1", "k2", "k3"]), Filter::And(vec![kinds(&["k1", "k2", "k3", "k9"]), not]), kinds(&["k7"])];
    let check = |filters: &[Filter], packed: bool, when: &str| {
        let (mut right, mut wanted) = (0, 0);
        for filter in filters {
            for row in 0..30 {
                let key = format!("{}-{:03}", row % 6, 23 * row + 1);
                let Some(document) = collection.get(&id(&key)).unwrap() else { continue };
                let (by_packed, found, there) = ask(&collection, filter, &document.vector);
                assert_eq!(by_packed > 0, packed && has_avx2(), "{when}: {filter:?}");
                (right, wanted) = (right + found, wanted + there);
            }
        }
        assert!(f64::from(right as u32) >= 0.98 * f64::from(wanted as u32), "{when}: {right} of {wanted}");
    };
    filters[..2].iter().for_each(|filter| ask_until_packed(&collection, filter));
    check(&filters[..2], true, "packed");
    // 420 rows are compared by codes as fast.
    (0..40).for_each(|_| _ = ask(&collection, &filters[2], &[1.0; 128]));
    check(&filters[2..], false, "few");
    assert_eq!(database.packed_bytes() > 40_000, has_avx2());
    // What is deleted or written again since is told by the segment's dead rows and the memtable.
    let doomed: Vec<_> = (0..700).step_by(2).map(|at| id(&format!("2-{at:03}"))).collect();
    collection.delete(&doomed).unwrap();
    let moved = collection.get(&id("3-004")).unwrap().unwrap();
    let moved = NewDocument {
        id: id("3-004"),
        text: None,
        metadata: [("kind".to_owned(), Value::String("k1".into()))].into(),
        vector: Some(moved.vector),
        chunks: Vec::new(),
    };
    collection.upsert(vec![moved]).unwrap();
    check(&filters[..2], true, "after deletes");
    // Another segment has other rows.
    collection.flush().unwrap();
    collection.optimise().unwrap();
    assert_eq!(ask(&collection, &filters[0], &[1.0; 128]).0, 0, "asked once");
    assert_eq!(database.packed_bytes(), 0, "the segment that they were packed of is gone");
    filters[..2].iter().for_each(|filter| ask_until_packed(&collection, filter));
    check(&filters[..2], true, "packed again");
    // An effort that is asked for is spent on a walk or a scan.
    let request = SearchRequest {
        filter: Some(filters[0].clone()),
        explain: true,
        ef_search: Some(100),
        ..SearchRequest::new(Query::Vector(vec![1.0; 128]))
    };
    let segments = collection.search(&request).unwrap().explain.unwrap().segments;
    assert!(segments.iter().all(|segment| segment.used != Method::PackedScan));
    drop((collection, database));
    let (database, collection) = optimised(&directory, Some(0));
    for _ in 0..50 {
        assert_eq!(ask(&collection, &filters[0], &[1.0; 128]).0, 0, "none are packed where nobody wants it");
    }
    assert_eq!(database.packed_bytes(), 0);
}

#[test]
fn packed_rows_keep_to_their_memory() {
    let (directory, database, collection) = unoptimised();
    drop((collection, database));
    // 1,260 rows take 35 KB and more: four of them fit.
    const BYTES: usize = 160_000;
    let (database, collection) = optimised(&directory, Some(BYTES));
    let filters: Vec<Filter> = (0..6).map(|at| kinds(&[&format!("k{at}"), &format!("k{}", at + 2), "k9"])).collect();
    for filter in &filters {
        ask_until_packed(&collection, filter);
        assert!(database.packed_bytes() <= BYTES);
    }
    assert_eq!(database.packed_bytes() > BYTES / 4, has_avx2());
    assert_eq!(ask(&collection, &filters[0], &[1.0; 128]).0, 0, "it was not asked for the longest");
    assert_eq!(ask(&collection, &filters[5], &[1.0; 128]).0 > 0, has_avx2());
    drop((collection, database));
    // No filter may take more than a quarter.
    let (_database, collection) = optimised(&directory, Some(100_000));
    assert!((0..50).all(|_| ask(&collection, &filters[0], &[1.0; 128]).0 == 0));
}
