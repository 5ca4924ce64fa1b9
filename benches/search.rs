//! Searches over 10,000 clustered vectors of 128 numbers: by the graph, exactly, and with filters of two tightnesses.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pannier::types::{CollectionName, DocumentId, Filter, Include, NewDocument, Query, SearchRequest, Value};
use pannier::{Collection, Database, DefinitionRequest};

#[path = "common/vectors.rs"]
mod vectors;

const ROWS: usize = 10_000;
const DIM: usize = 128;
const QUERIES: usize = 256;

/// A collection of one segment with a graph; every tenth document has `tenth`, every hundredth `hundredth`.
fn build(database: &Database) -> Collection {
    let name = CollectionName::new("bench").expect("a valid name");
    let definition = DefinitionRequest::vectors(DIM as u32);
    let collection = database.create_collection(&name, &definition).expect("a new database takes it").collection;
    let rows = vectors::clustered(ROWS, DIM, 1);
    let documents: Vec<NewDocument> = rows
        .into_iter()
        .enumerate()
        .map(|(row, vector)| NewDocument {
            id: DocumentId::new(&row.to_string()).expect("digits are a valid id"),
            text: None,
            metadata: BTreeMap::from([
                ("tenth".to_owned(), Value::Bool(row % 10 == 0)),
                ("hundredth".to_owned(), Value::Bool(row % 100 == 0)),
            ]),
            vector: Some(vector),
            chunks: Vec::new(),
        })
        .collect();
    for batch in documents.chunks(1_000) {
        collection.upsert(batch.to_vec()).expect("the documents are valid");
    }
    collection.optimise().expect("the disk takes the segment");
    assert_eq!(collection.stats().graph_segments, 1, "the benches want one segment with a graph");
    collection
}

fn request(query: &[f32]) -> SearchRequest {
    let include = Include { text: false, metadata: false, vector: false, chunk: false };
    SearchRequest { include, ..SearchRequest::new(Query::Vector(query.to_vec())) }
}

fn filtered(query: &[f32], field: &str) -> SearchRequest {
    SearchRequest { filter: Some(Filter::eq(field, Value::Bool(true))), ..request(query) }
}

fn search(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let database = Database::open(dir.path()).expect("an empty directory opens");
    let collection = build(&database);
    let queries = vectors::clustered(QUERIES, DIM, 2);
    let mut group = criterion.benchmark_group(format!("search/{ROWS}x{DIM}"));
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let mut bench = |name: &str, request: &dyn Fn(&[f32]) -> SearchRequest| {
        let mut next = (0..QUERIES).cycle();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || request(&queries[next.next().expect("a cycle never ends")]),
                |request| black_box(collection.search(&request).expect("the request is valid")),
                BatchSize::SmallInput,
            );
        });
    };
    for ef in [16, 64, 256] {
        bench(&format!("graph/ef={ef}"), &|query| SearchRequest { ef_search: Some(ef), ..request(query) });
    }
    bench("graph/default", &request);
    bench("exact", &|query| SearchRequest { exact: true, ..request(query) });
    bench("filtered/10%", &|query| filtered(query, "tenth"));
    bench("filtered/1%", &|query| filtered(query, "hundredth"));
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
