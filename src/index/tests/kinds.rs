//! Tests of every kind of codes and of stored vectors, on as many components as binary codes ask for.

use super::*;
use crate::types::VectorStorage;

const DIM: usize = 768;
const ROWS: usize = 1_500;
const QUERIES: usize = 60;

/// A segment as [`super::segment`] makes it, and as a collection hands it vectors: those of half precision rounded.
fn segment(vectors: &[Vec<f32>], metric: Metric, index: IndexDefinition) -> (Segment, tempfile::TempDir) {
    let mut vectors = vectors.to_vec();
    if index.storage == VectorStorage::Float16 {
        vectors.iter_mut().for_each(|vector| crate::types::round_to_half(vector).unwrap());
    }
    segment_of(&vectors, metric, index, &build(&vectors, metric, &index, 2))
}

fn kinds() -> impl Iterator<Item = IndexDefinition> {
    let of = |quantization, storage| IndexDefinition { quantization, storage, ..IndexDefinition::default() };
    [
        of(Quantization::Binary, VectorStorage::Float32),
        of(Quantization::Binary, VectorStorage::Float16),
        of(Quantization::Int8, VectorStorage::Float16),
        of(Quantization::None, VectorStorage::Float16),
    ]
    .into_iter()
}

/// Share of `exact` that `found` has.
fn share(found: &[Candidate], exact: &[Ordinal]) -> f64 {
    found.iter().filter(|candidate| exact.contains(&candidate.ordinal)).count() as f64 / exact.len() as f64
}

/// The ten nearest of the vectors as they came.
fn exact(rows: &[Vec<f32>], query: &VectorQuery, passes: impl Fn(Ordinal) -> bool) -> Vec<Ordinal> {
    let mut all: Vec<Ordinal> = (0..rows.len() as Ordinal).filter(|&row| passes(row)).collect();
    let closeness = |row: Ordinal| query.closeness(&rows[row as usize]);
    all.sort_by(|&a, &b| closeness(b).total_cmp(&closeness(a)));
    all.truncate(10);
    all
}

#[test]
fn every_kind_finds_the_nearest_by_walks_and_scans() {
    for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
        let vectors = clustered(ROWS + QUERIES, DIM, metric, 21);
        let (rows, queries) = vectors.split_at(ROWS);
        for index in kinds() {
            let (segment, _dir) = segment(rows, metric, index);
            segment.verify(|_| ()).unwrap();
            let options = WalkOptions { top_k: 10, ef: ef_for(&segment, 10, WANTED_RECALL) };
            let (mut walked, mut scanned, mut few) = (0.0, 0.0, 0.0);
            let mut out = Vec::new();
            for query in queries {
                let query = VectorQuery::new(metric, query.clone());
                let all = exact(rows, &query, |_| true);
                segment.search(&query, options, |_| true, &mut out).unwrap();
                assert_eq!(out.len(), 10);
                walked += share(&out, &all);
                segment.scan(&query, 10, |_| true, &mut out).unwrap();
                scanned += share(&out, &all);
                segment.search(&query, options, |row| row % 20 == 3, &mut out).unwrap();
                assert!(out.len() == 10 && out.iter().all(|candidate| candidate.ordinal % 20 == 3));
                few += share(&out, &exact(rows, &query, |row| row % 20 == 3));
            }
            let count = queries.len() as f64;
            let figures = (walked / count, scanned / count, few / count);
            let least = figures.0.min(figures.1).min(figures.2);
            assert!(least >= 0.95, "{metric:?} {index:?}: walk, scan, filtered {figures:?} at ef {}", options.ef);
        }
    }
}

#[test]
fn walks_among_passing_rows_find_the_nearest_of_every_kind() {
    let vectors = clustered(ROWS + QUERIES, DIM, Metric::Cosine, 22);
    for index in kinds() {
        let (segment, _dir) = segment(&vectors[..ROWS], Metric::Cosine, index);
        for every in [1, 5] {
            let recall = filtered_recall(&segment, &vectors[ROWS..], |row| row % every == 0);
            assert!(recall >= 0.95, "{index:?}, 1 in {every}: recall@10 {recall}");
        }
    }
}

#[test]
fn more_effort_is_measured_where_bits_see_less() {
    let vectors = clustered(ROWS, DIM, Metric::Cosine, 23);
    let effort = |quantization| {
        let index = IndexDefinition { quantization, ..IndexDefinition::default() };
        ef_for(&segment(&vectors, Metric::Cosine, index).0, 10, 0.98)
    };
    let (bits, bytes) = (effort(Quantization::Binary), effort(Quantization::Int8));
    assert!(bits > bytes, "ef {bits} by bits, {bytes} by bytes");
}

#[test]
fn kinds_take_the_bytes_that_they_promise() {
    let vectors = clustered(ROWS, DIM, Metric::Cosine, 24);
    let bytes = |quantization, storage| {
        let index = IndexDefinition { quantization, storage, ..IndexDefinition::default() };
        let (segment, _dir) = segment(&vectors, Metric::Cosine, index);
        segment.len_bytes() as f64 / ROWS as f64
    };
    let full = bytes(Quantization::None, VectorStorage::Float32);
    let saved = full - bytes(Quantization::None, VectorStorage::Float16);
    assert!((saved - 2.0 * DIM as f64).abs() < 8.0, "half precision saves {saved} bytes a row");
    let added = bytes(Quantization::Binary, VectorStorage::Float32) - full;
    assert!((added - 128.0).abs() < 8.0, "bits take {added} bytes a row");
}
