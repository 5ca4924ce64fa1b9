//! Every kind of codes and of stored vectors through a collection's life: written, read, searched, deleted, reopened,
//! compacted, verified.

use std::collections::BTreeMap;
use std::path::Path;

use pannier::types::{Condition, Filter, Quantization, Query, SearchRequest, Value, VectorStorage};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::{Random, document, id, name};

/// The least that binary codes take.
const DIM: usize = 768;
const DOCUMENTS: usize = 700;
const GROUPS: u64 = 3;
const QUERIES: usize = 25;

/// What the collection must hold.
type Model = BTreeMap<String, (Vec<f32>, i64)>;

const KINDS: [(Quantization, VectorStorage); 6] = [
    (Quantization::Int8, VectorStorage::Float32),
    (Quantization::None, VectorStorage::Float32),
    (Quantization::Binary, VectorStorage::Float32),
    (Quantization::Int8, VectorStorage::Float16),
    (Quantization::None, VectorStorage::Float16),
    (Quantization::Binary, VectorStorage::Float16),
];

fn open(path: &Path, (quantization, storage): (Quantization, VectorStorage)) -> (Database, Collection) {
    let options = Options { memtable_documents: Some(200), ..Options::default() };
    let database = Database::open_with(path, options).unwrap();
    let request = DefinitionRequest {
        quantization: Some(quantization),
        storage: Some(storage),
        ..DefinitionRequest::vectors(DIM as u32)
    };
    let created = database.create_collection(&name("things"), &request).unwrap();
    (database, created.collection)
}

/// Of length 1, near one of twenty centers.
fn vector(random: &mut Random) -> Vec<f32> {
    let mut center = Random(random.below(20) + 1_000);
    let mut vector: Vec<f32> =
        (0..DIM).map(|_| center.below(2_001) as f32 - 1_000.0 + 0.8 * (random.below(2_001) as f32 - 1_000.0)).collect();
    let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

fn write(collection: &Collection, model: &mut Model, random: &mut Random, count: usize) {
    for _ in 0..count / 50 {
        let mut batch = BTreeMap::new();
        while batch.len() < 50 {
            batch.insert(format!("d{}", random.below(2 * DOCUMENTS as u64)), random.below(GROUPS) as i64);
        }
        let documents = batch.into_iter().map(|(id, group)| {
            let vector = vector(random);
            model.insert(id.clone(), (vector.clone(), group));
            document(&id, &vector, group)
        });
        collection.upsert(documents.collect()).unwrap();
    }
    for _ in 0..count / 10 {
        let doomed = format!("d{}", random.below(2 * DOCUMENTS as u64));
        collection.delete(&[id(&doomed)]).unwrap();
        model.remove(&doomed);
    }
}

/// Everything the model holds is read, and nothing else, as near to what was written as the storage is.
fn check_documents(collection: &Collection, model: &Model, storage: VectorStorage) {
    assert_eq!(collection.stats().documents, model.len() as u64);
    for (key, (vector, _)) in model {
        let got = collection.get(&id(key)).unwrap().unwrap().vector;
        for (got, &wanted) in got.iter().zip(vector) {
            // Half precision keeps 11 bits, or 24 below the point for small numbers; normalising again costs an ulp.
            let bound = match storage {
                VectorStorage::Float32 => 2e-7,
                VectorStorage::Float16 => wanted.abs() / 2_048.0 + 1e-7,
            };
            assert!((got - wanted).abs() <= bound, "{key}: {got} for {wanted}");
        }
    }
}

/// Recall@10 of searches that name no effort, against a plain scan of the model.
fn recall(collection: &Collection, model: &Model, group: Option<i64>) -> f64 {
    let (mut random, mut found) = (Random(5), 0);
    for _ in 0..QUERIES {
        let query = vector(&mut random);
        let dot = |other: &[f32]| query.iter().zip(other).map(|(x, y)| x * y).sum::<f32>();
        let passing = model.iter().filter(|(_, (_, of))| group.is_none_or(|group| group == *of));
        let mut exact: Vec<(f32, &str)> = passing.map(|(key, (vector, _))| (dot(vector), key.as_str())).collect();
        exact.sort_by(|a, b| b.0.total_cmp(&a.0));
        let filter =
            group.map(|group| Filter::Field { path: "group".to_owned(), condition: Condition::Eq(Value::Int(group)) });
        let request = SearchRequest { filter, ..SearchRequest::new(Query::Vector(query.clone())) };
        let hits = collection.search(&request).unwrap().hits;
        assert_eq!(hits.len(), 10);
        for hit in &hits {
            let (vector, of) = &model[hit.id.as_str()];
            assert!(group.is_none_or(|group| group == *of));
            assert!((hit.score - dot(vector)).abs() < 1e-3, "{} and {}", hit.score, dot(vector));
        }
        found += hits.iter().filter(|hit| exact[..10].iter().any(|(_, key)| *key == hit.id.as_str())).count();
    }
    found as f64 / (10 * QUERIES) as f64
}

fn check(collection: &Collection, model: &Model, kind: (Quantization, VectorStorage), when: &str) {
    check_documents(collection, model, kind.1);
    for group in [None, Some(1)] {
        let recall = recall(collection, model, group);
        assert!(recall >= 0.95, "{kind:?}, {when}, group {group:?}: recall@10 {recall}");
    }
}

#[test]
fn every_kind_lives_through_everything() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let (mut model, mut random) = (Model::new(), Random(31));
        let (database, things) = open(dir.path(), kind);
        write(&things, &mut model, &mut random, DOCUMENTS);
        check(&things, &model, kind, "in segments without a graph and in memory");
        drop((things, database));
        let (database, things) = open(dir.path(), kind);
        check(&things, &model, kind, "recovered");
        things.optimise().unwrap();
        check(&things, &model, kind, "with a graph");
        write(&things, &mut model, &mut random, DOCUMENTS / 2);
        things.optimise().unwrap();
        check(&things, &model, kind, "merged again");
        assert_eq!(things.stats().segments, 1);
        let report = database.verify(&mut |_, _| ()).unwrap();
        assert!(report.problems.is_empty(), "{kind:?}: {:?}", report.problems);
        drop((things, database));
        let (_database, things) = open(dir.path(), kind);
        check(&things, &model, kind, "reopened");
    }
}

#[test]
fn what_half_precision_returns_is_the_same_in_memory_and_in_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (_database, things) = open(dir.path(), (Quantization::Int8, VectorStorage::Float16));
    let wanted = vector(&mut Random(3));
    things.upsert(vec![document("a", &wanted, 0)]).unwrap();
    let read = || things.get(&id("a")).unwrap().unwrap().vector;
    let in_memory = read();
    things.flush().unwrap();
    assert_eq!(read(), in_memory);
    things.optimise().unwrap();
    assert_eq!(read(), in_memory);
    assert_ne!(in_memory, wanted);
}

#[test]
fn what_does_not_fit_a_kind_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(dir.path()).unwrap();
    let binary =
        |dim| DefinitionRequest { quantization: Some(Quantization::Binary), ..DefinitionRequest::vectors(dim) };
    let error = database.create_collection(&name("small"), &binary(767)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("dim is 767") && error.contains("from dim 768 on") && error.contains("int8"), "{error}");
    database.create_collection(&name("large"), &binary(768)).unwrap();
    let half = DefinitionRequest {
        storage: Some(VectorStorage::Float16),
        metric: Some(pannier::types::Metric::L2),
        ..DefinitionRequest::vectors(2)
    };
    let half = database.create_collection(&name("half"), &half).unwrap().collection;
    half.upsert(vec![document("a", &[65_504.0, 1.0], 0)]).unwrap();
    let error = half.upsert(vec![document("b", &[1.0, -70_000.0], 0)]).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(format!("{error} {source}").contains("component 1 is -70000"), "{error}: {source}");
    assert!(half.get(&id("b")).unwrap().is_none());
}
