//! Durable upserts of documents that bring a vector of 128 numbers: single ones and batches.

use std::collections::BTreeMap;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pannier::types::{CollectionName, DocumentId, NewDocument, Value};
use pannier::{Database, DefinitionRequest};

#[path = "common/vectors.rs"]
mod vectors;

const DIM: usize = 128;
/// Rows to draw documents from; ids never repeat, so that every upsert inserts.
const ROWS: usize = 2_000;

fn ingest(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let database = Database::open(dir.path()).expect("an empty directory opens");
    let name = CollectionName::new("bench").expect("a valid name");
    let definition = DefinitionRequest::vectors(DIM as u32);
    let collection = database.create_collection(&name, &definition).expect("a new database takes it").collection;
    let rows = vectors::clustered(ROWS, DIM, 1);
    let mut next_id = 0;
    let mut document = || {
        next_id += 1;
        NewDocument {
            id: DocumentId::new(&next_id.to_string()).expect("digits are a valid id"),
            text: Some("a short text that is stored beside its vector".to_owned()),
            metadata: BTreeMap::from([("number".to_owned(), Value::Int(next_id as i64))]),
            vector: Some(rows[next_id % ROWS].clone()),
            chunks: Vec::new(),
        }
    };
    let mut group = criterion.benchmark_group("upsert");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for batch in [1, 100, 1_000] {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter_batched(
                || (0..batch).map(|_| document()).collect::<Vec<_>>(),
                |documents| collection.upsert(documents).expect("the documents are valid"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, ingest);
criterion_main!(benches);
