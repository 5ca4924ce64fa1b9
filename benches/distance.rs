//! Distance kernels: one comparison with rows in the first cache, and over rows that exceed every cache.
//!
//! dim 384, seeded data; each kernel beside its scalar reference. Read the results as ratios within one run.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pannier::distance::{CodeQuery, VectorQuery, prefetch, scalar};
use pannier::types::Metric;

const DIM: usize = 384;
/// Rows that stay in the first cache.
const HOT: usize = 16;
/// Rows that do not fit into any cache: 38 MB of codes, 154 MB of f32.
const COLD: usize = 100_000;

/// xorshift64.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn codes(rows: usize) -> Vec<i8> {
    let mut state = 1;
    (0..rows * DIM).map(|_| (next(&mut state) % 255) as u8 as i8).collect()
}

fn vectors(rows: usize) -> Vec<f32> {
    let mut state = 2;
    (0..rows * DIM).map(|_| (next(&mut state) >> 40) as f32 / (1u64 << 24) as f32 - 0.5).collect()
}

/// The rows in an order that no prefetcher foresees.
fn shuffled(rows: usize) -> Vec<usize> {
    let mut state = 3;
    let mut order: Vec<usize> = (0..rows).collect();
    for last in (1..rows).rev() {
        order.swap(last, (next(&mut state) % (last as u64 + 1)) as usize);
    }
    order
}

fn hot(c: &mut Criterion) {
    let mut group = c.benchmark_group("hot");
    group.throughput(Throughput::Elements(HOT as u64));
    let (codes, vectors) = (codes(HOT + 1), vectors(HOT + 1));
    let (code_rows, code_query) = codes.split_at(HOT * DIM);
    let (rows, query) = vectors.split_at(HOT * DIM);
    for metric in [Metric::Dot, Metric::L2] {
        let prepared = CodeQuery::new(metric, code_query.to_vec());
        group.bench_function(BenchmarkId::new("i8", format!("{metric:?}")), |b| {
            b.iter(|| code_rows.chunks_exact(DIM).map(|row| prepared.closeness(black_box(row))).max());
        });
        let prepared = VectorQuery::new(metric, query.to_vec());
        group.bench_function(BenchmarkId::new("f32", format!("{metric:?}")), |b| {
            b.iter(|| rows.chunks_exact(DIM).map(|row| prepared.closeness(black_box(row))).sum::<f32>());
        });
    }
    group.bench_function("scalar i8/Dot", |b| {
        b.iter(|| code_rows.chunks_exact(DIM).map(|row| scalar::dot_i8(black_box(row), code_query)).max());
    });
    group.bench_function("scalar f32/Dot", |b| {
        b.iter(|| rows.chunks_exact(DIM).map(|row| scalar::dot_f32(black_box(row), query)).sum::<f32>());
    });
    group.finish();
}

fn cold(c: &mut Criterion) {
    let mut group = c.benchmark_group("cold, random rows");
    group.sample_size(10).throughput(Throughput::Elements(COLD as u64));
    let order = shuffled(COLD);
    let codes = codes(COLD);
    let row = |row: usize| &codes[row * DIM..(row + 1) * DIM];
    let query = CodeQuery::new(Metric::Dot, row(0).to_vec());
    group.bench_function("i8/Dot", |b| b.iter(|| order.iter().map(|&r| query.closeness(row(r))).max()));
    group.bench_function("i8/Dot, prefetched", |b| {
        b.iter(|| {
            let batches = order.chunks(16).map(|batch| {
                batch.iter().for_each(|&r| prefetch(row(r)));
                batch.iter().map(|&r| query.closeness(row(r))).max()
            });
            batches.max()
        });
    });
    let vectors = vectors(COLD);
    let row = |row: usize| &vectors[row * DIM..(row + 1) * DIM];
    let query = VectorQuery::new(Metric::Dot, row(0).to_vec());
    group.bench_function("f32/Dot", |b| b.iter(|| order.iter().map(|&r| query.closeness(row(r))).sum::<f32>()));
    group.finish();
}

criterion_group!(benches, hot, cold);
criterion_main!(benches);
