//! Tests of built graphs in written segments: recall against the exact scan, filters, metrics, degenerate data.

mod copies;
mod kinds;
mod outliers;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::IndexError;
use super::build::{BuildOptions, Start, build_graph};
use super::params::{WANTED_RECALL, ef_for};
use crate::distance::{VectorQuery, VectorRef};
use crate::segment::{
    Candidate, FilteredOptions, Graph, RowRef, Segment, SegmentSpec, WalkOptions, encode_document, fitting,
    write_segment,
};
use crate::types::{
    CollectionId, DocumentId, EmbeddingState, GraphBuilder, IndexDefinition, Metadata, Metric, Ordinal, Quantization,
    RowSet, SegmentId, Seq, StoredDocument, normalise,
};

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In 0..1.
    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Of mean 0 and variance 1, near enough to normal.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

/// Vectors as embedding models make them: clusters in a space of 24 dimensions that lies within all `dim`. The first
/// `rows` are to be stored, the others are queries.
fn clustered(count: usize, dim: usize, metric: Metric, seed: u64) -> Vec<Vec<f32>> {
    const INNER: usize = 24;
    let mut random = Random(seed);
    let basis: Vec<Vec<f32>> = (0..INNER).map(|_| (0..dim).map(|_| random.normal()).collect()).collect();
    let centers: Vec<Vec<f32>> = (0..100).map(|_| (0..INNER).map(|_| random.normal()).collect()).collect();
    (0..count)
        .map(|_| {
            let center = &centers[random.next() as usize % centers.len()];
            let size = if metric == Metric::Cosine { 1.0 } else { 0.5 + random.uniform() };
            let mut vector = vec![0.0; dim];
            for (&x, direction) in center.iter().zip(&basis) {
                let x = (x + 0.6 * random.normal()) * size;
                vector.iter_mut().zip(direction).for_each(|(sum, &component)| *sum += x * component);
            }
            if metric == Metric::Cosine {
                normalise(&mut vector, dim).unwrap();
            }
            vector
        })
        .collect()
}

/// Rows of a topic.
const TOPIC: usize = 40;

/// Vectors of 16 numbers in topics of `size` rows, one topic after the other.
fn topics(count: usize, size: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = Random(seed);
    let mut around = |point: &[f32], reach: f32| -> Vec<f32> {
        point.iter().map(|x| x + reach * (2.0 * random.uniform() - 1.0)).collect()
    };
    let mut center = Vec::new();
    let vector = |row: usize| {
        if row.is_multiple_of(size) {
            center = around(&[0.0; 16], 80.0);
        }
        around(&center, 30.0)
    };
    (0..count).map(vector).collect()
}

/// Queries between rows of each topic.
fn between(vectors: &[Vec<f32>], size: usize) -> Vec<Vec<f32>> {
    let query = |a: &[f32], b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| (2.0 * a + b) / 3.0).collect() };
    let pairs = |topic: &[Vec<f32>]| -> Vec<Vec<f32>> {
        let (ones, others) = topic.split_at(size / 2);
        ones.iter().zip(others).step_by(4).map(|(a, b)| query(a, b)).collect()
    };
    vectors.chunks_exact(size).flat_map(pairs).collect()
}

fn as_refs(vectors: &[Vec<f32>]) -> Vec<VectorRef<'_>> {
    vectors.iter().map(|vector| VectorRef::Float32(vector)).collect()
}

fn options(builder: GraphBuilder, threads: usize) -> BuildOptions<'static> {
    static NEVER: AtomicBool = AtomicBool::new(false);
    BuildOptions { builder, threads: NonZeroUsize::new(threads), progress: &|_| (), cancel: &NEVER }
}

fn build(vectors: &[Vec<f32>], metric: Metric, index: &IndexDefinition, threads: usize) -> Graph {
    build_with(vectors, metric, index, &options(GraphBuilder::Own, threads))
}

fn build_with(vectors: &[Vec<f32>], metric: Metric, index: &IndexDefinition, options: &BuildOptions<'_>) -> Graph {
    let rows = as_refs(vectors);
    build_graph(&rows, metric, index, None, options).unwrap()
}

/// A segment of `vectors` with a graph, in a directory that lasts as long as it.
fn segment(vectors: &[Vec<f32>], metric: Metric, quantization: Quantization) -> (Segment, tempfile::TempDir) {
    let index = IndexDefinition { quantization, ..IndexDefinition::default() };
    segment_of(vectors, metric, index, &build(vectors, metric, &index, 2))
}

fn segment_of(
    vectors: &[Vec<f32>],
    metric: Metric,
    index: IndexDefinition,
    graph: &Graph,
) -> (Segment, tempfile::TempDir) {
    let dim = vectors[0].len() as u32;
    let spec = SegmentSpec { id: SegmentId(1), collection: CollectionId(1), generation: 1, metric, dim, index };
    let document = encode_document(&StoredDocument {
        id: DocumentId::new("a").unwrap(),
        text: None,
        metadata: Metadata::new(),
        created_at_ms: 0,
        updated_at_ms: 0,
        embedding: EmbeddingState::Ready,
    });
    let row = |vector| RowRef { seq: Seq(1), document: &document, vector, chunks: &[] };
    let rows: Vec<RowRef<'_>> = as_refs(vectors).into_iter().map(row).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1.seg");
    write_segment(&path, &spec, &rows, &[], Some(graph), None).unwrap();
    (Segment::open(&path, &spec).unwrap(), dir)
}

/// Share of the exact `top_k` that walks find, each having to return `top_k` live rows.
fn recall(segment: &Segment, queries: &[Vec<f32>], options: WalkOptions, live: impl Fn(Ordinal) -> bool + Copy) -> f64 {
    let (mut found, mut exact) = (Vec::new(), Vec::new());
    let mut hits = 0;
    for query in queries {
        let query = VectorQuery::new(segment.spec().metric, query.clone());
        segment.search(&query, options, live, &mut found).unwrap();
        segment.scan_exact(&query, options.top_k, live, &mut exact).unwrap();
        assert_eq!(found.len(), options.top_k);
        assert!(found.iter().all(|candidate| live(candidate.ordinal)));
        assert!(found.is_sorted_by(|a, b| a.closeness >= b.closeness));
        let exact: HashSet<Ordinal> = exact.iter().map(|candidate: &Candidate| candidate.ordinal).collect();
        hits += found.iter().filter(|candidate| exact.contains(&candidate.ordinal)).count();
    }
    hits as f64 / (queries.len() * options.top_k) as f64
}

const ROWS: usize = 4_000;
const QUERIES: usize = 100;
const TOP_10: WalkOptions = WalkOptions { top_k: 10, ef: 64 };

#[test]
fn walks_find_the_nearest_on_every_metric() {
    for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
        for quantization in [Quantization::Int8, Quantization::None] {
            let vectors = clustered(ROWS + QUERIES, 96, metric, 1);
            let (segment, _dir) = segment(&vectors[..ROWS], metric, quantization);
            segment.verify(|_| ()).unwrap();
            let recall = recall(&segment, &vectors[ROWS..], TOP_10, |_| true);
            assert!(recall >= 0.95, "{metric:?} {quantization:?}: recall@10 {recall} at ef 64");
        }
    }
}

#[test]
fn the_effort_that_was_measured_reaches_the_wanted_recall() {
    let vectors = clustered(ROWS + QUERIES, 384, Metric::Cosine, 2);
    let (segment, _dir) = segment(&vectors[..ROWS], Metric::Cosine, Quantization::Int8);
    for top_k in [1, 10, 100] {
        let options = WalkOptions { top_k, ef: ef_for(&segment, top_k, WANTED_RECALL) };
        let recall = recall(&segment, &vectors[ROWS..], options, |_| true);
        assert!(recall >= WANTED_RECALL, "recall@{top_k} {recall} at ef {}", options.ef);
    }
    assert!(ef_for(&segment, 10, 0.999) > ef_for(&segment, 10, 0.9));
}

#[test]
fn the_reference_builder_finds_no_more_at_equal_parameters() {
    let index = IndexDefinition::default();
    let vectors = clustered(ROWS + QUERIES, 96, Metric::Cosine, 7);
    let (rows, queries) = vectors.split_at(ROWS);
    let recall_of = |builder| {
        let graph = build_with(rows, Metric::Cosine, &index, &options(builder, 1));
        let (segment, _dir) = segment_of(rows, Metric::Cosine, index, &graph);
        segment.verify(|_| ()).unwrap();
        recall(&segment, queries, WalkOptions { top_k: 10, ef: 24 }, |_| true)
    };
    let (own, reference) = (recall_of(GraphBuilder::Own), recall_of(GraphBuilder::HnswRs));
    assert!(own >= reference - 0.005, "recall@10 {own}, of the reference {reference}");
}

#[test]
fn rows_inserted_into_a_graph_are_found_as_in_a_new_one() {
    let index = IndexDefinition::default();
    let vectors = clustered(ROWS + QUERIES, 96, Metric::Cosine, 8);
    let (rows, queries) = vectors.split_at(ROWS);
    let old = build(&rows[..ROWS * 2 / 3], Metric::Cosine, &index, 2);
    // Every tenth row of the old graph is dead; the others are the first rows of the new one, in reverse.
    let kept: Vec<usize> = (0..ROWS * 2 / 3).filter(|row| row % 10 != 3).collect();
    let mut merged: Vec<Vec<f32>> = kept.iter().rev().map(|&row| rows[row].clone()).collect();
    merged.extend_from_slice(&rows[ROWS * 2 / 3..]);
    let mut places = vec![None; ROWS * 2 / 3];
    kept.iter().rev().enumerate().for_each(|(place, &row)| places[row] = Some(place as Ordinal));
    let merged_rows = as_refs(&merged);
    let started = |threads| {
        let start = Start { graph: old.view(), rows: places.clone() };
        build_graph(&merged_rows, Metric::Cosine, &index, Some(start), &options(GraphBuilder::Own, threads)).unwrap()
    };
    let graph = started(2);
    assert_eq!(graph, started(1));
    let (segment, _dir) = segment_of(&merged, Metric::Cosine, index, &graph);
    segment.verify(|_| ()).unwrap();
    let options = WalkOptions { top_k: 10, ef: 32 };
    let (resumed, fresh) = (
        recall(&segment, queries, options, |_| true),
        recall(&self::segment(&merged, Metric::Cosine, Quantization::Int8).0, queries, options, |_| true),
    );
    assert!(resumed >= fresh - 0.01, "recall@10 {resumed}, of a new graph {fresh}");
}

#[test]
fn new_topics_inserted_into_a_large_graph_are_found() {
    const OLD: usize = 8_000;
    let index = IndexDefinition::default();
    let mut vectors = topics(OLD, TOPIC, 31);
    let old = build(&vectors, Metric::L2, &index, 2);
    // As many as one batch of a build from nothing has.
    for size in [TOPIC, 4 * TOPIC] {
        vectors.truncate(OLD);
        vectors.extend(topics(4 * TOPIC, size, 32));
        let rows = as_refs(&vectors);
        let start = Start { graph: old.view(), rows: (0..OLD as Ordinal).map(Some).collect() };
        let graph = build_graph(&rows, Metric::L2, &index, Some(start), &options(GraphBuilder::Own, 2)).unwrap();
        let (segment, _dir) = segment_of(&vectors, Metric::L2, index, &graph);
        let queries = between(&vectors[OLD..], TOPIC);
        let recall = recall(&segment, &queries, WalkOptions { top_k: 10, ef: 24 }, |_| true);
        assert!(recall >= 0.97, "topics of {size}: recall@10 {recall}");
    }
}

#[test]
fn a_graph_of_which_nothing_is_left_is_built_anew() {
    let index = IndexDefinition { m: 5, ..IndexDefinition::default() };
    let vectors = clustered(300, 16, Metric::L2, 9);
    let old = build(&vectors[..100], Metric::L2, &index, 1);
    let rows = as_refs(&vectors[100..]);
    let start = Start { graph: old.view(), rows: vec![None; 100] };
    let graph = build_graph(&rows, Metric::L2, &index, Some(start), &options(GraphBuilder::Own, 1)).unwrap();
    assert_eq!(graph, build(&vectors[100..], Metric::L2, &index, 1));
}

#[test]
fn filtered_walks_return_as_many_as_exist() {
    let vectors = clustered(ROWS + QUERIES, 96, Metric::Cosine, 3);
    let (segment, _dir) = segment(&vectors[..ROWS], Metric::Cosine, Quantization::Int8);
    for every in [2, 10, 100] {
        let recall = recall(&segment, &vectors[ROWS..], TOP_10, |row| row % every == 1);
        assert!(recall >= 0.95, "1 in {every}: recall@10 {recall} at ef 64");
    }
    let query = VectorQuery::new(Metric::Cosine, vectors[ROWS].clone());
    let mut out = Vec::new();
    segment.search(&query, TOP_10, |row| row % 1_500 == 7, &mut out).unwrap();
    let mut rows: Vec<Ordinal> = out.iter().map(|candidate| candidate.ordinal).collect();
    rows.sort_unstable();
    assert_eq!(rows, [7, 1_507, 3_007]);
}

/// Share of the exact ten that walks among passing rows find; every `passes` row may be a seed.
fn filtered_recall(segment: &Segment, queries: &[Vec<f32>], passes: impl Fn(Ordinal) -> bool) -> f64 {
    let passing = RowSet::of(segment.rows(), &passes);
    let seeds: Vec<Ordinal> = passing.spread(32).collect();
    let options = FilteredOptions { top_k: 10, ef: 64, max_compared: u64::MAX };
    let (mut found, mut exact, mut hits) = (Vec::new(), Vec::new(), 0);
    for query in queries {
        let query = VectorQuery::new(segment.spec().metric, query.clone());
        let walked = segment.search_filtered(&query, options, &seeds, &passing, &mut found);
        assert!(walked.unwrap().unwrap().finished);
        segment.scan_exact(&query, 10, &passes, &mut exact).unwrap();
        assert!(found.iter().all(|candidate| passes(candidate.ordinal)) && found.len() <= 10);
        hits += found.iter().filter(|candidate| exact.contains(candidate)).count();
    }
    hits as f64 / (10 * queries.len()) as f64
}

#[test]
fn walks_among_passing_rows_find_the_nearest_of_them() {
    let vectors = clustered(ROWS + QUERIES, 96, Metric::Cosine, 7);
    for quantization in [Quantization::Int8, Quantization::None] {
        let (segment, _dir) = segment(&vectors[..ROWS], Metric::Cosine, quantization);
        for every in [1, 2, 5, 10] {
            let recall = filtered_recall(&segment, &vectors[ROWS..], |row| row % every == 0);
            assert!(recall >= 0.95, "{quantization:?}, 1 in {every}: recall@10 {recall}");
        }
        // What passes lies on one side, where some queries are and most are not.
        for above in [0.05, 0.1] {
            let recall = filtered_recall(&segment, &vectors[ROWS..], |row| vectors[row as usize][0] > above);
            assert!(recall >= 0.95, "{quantization:?}, above {above}: recall@10 {recall}");
        }
    }
}

#[test]
fn walks_among_passing_rows_give_up_when_they_compare_too_much() {
    let vectors = clustered(2_000, 16, Metric::L2, 8);
    let (segment, _dir) = segment(&vectors, Metric::L2, Quantization::Int8);
    let options = FilteredOptions { top_k: 10, ef: 500, max_compared: 100 };
    let query = VectorQuery::new(Metric::L2, vectors[0].clone());
    let all = RowSet::full(segment.rows());
    let walked = segment.search_filtered(&query, options, &[3], &all, &mut Vec::new()).unwrap().unwrap();
    assert!(!walked.finished && walked.stats.compared < 300, "{walked:?}");
    let third = RowSet::of(segment.rows(), |row| row == 3);
    let alone = segment.search_filtered(&query, options, &[3], &third, &mut Vec::new()).unwrap().unwrap();
    assert!(alone.finished);
    assert!(segment.search_filtered(&query, options, &[9_999], &all, &mut Vec::new()).is_err());
}

#[test]
fn degenerate_data_makes_sound_graphs() {
    let same = vec![vec![0.6f32, 0.8]; 700];
    let line: Vec<Vec<f32>> = (0..700).map(|x| vec![x as f32]).collect();
    let zeros = vec![vec![0.0f32; 3]; 300];
    let huge: Vec<Vec<f32>> = (0..300).map(|x| vec![1e12 / (1.0 + x as f32), 1e11]).collect();
    let one = vec![vec![1.0f32, 2.0]];
    let two = vec![vec![1.0f32, 2.0], vec![-1.0, 2.0]];
    for vectors in [same, line, zeros, huge, one, two] {
        for metric in [Metric::L2, Metric::Dot] {
            for quantization in [Quantization::Int8, Quantization::None] {
                let (segment, _dir) = segment(&vectors, metric, quantization);
                segment.verify(|_| ()).unwrap();
                let query = VectorQuery::new(metric, vectors[0].clone());
                let mut out = Vec::new();
                segment.search(&query, TOP_10, |_| true, &mut out).unwrap();
                assert_eq!(out.len(), vectors.len().min(10));
            }
        }
    }
}

#[test]
fn any_number_of_threads_makes_the_same_graph() {
    let vectors = clustered(3_000, 24, Metric::Cosine, 5);
    for quantization in [Quantization::Int8, Quantization::None] {
        let index = IndexDefinition { m: 8, ef_construction: 40, quantization, ..IndexDefinition::default() };
        let one = build(&vectors, Metric::Cosine, &index, 1);
        assert_eq!(one, build(&vectors, Metric::Cosine, &index, 2));
        assert_eq!(one, build(&vectors, Metric::Cosine, &index, 5));
    }
}

#[test]
fn progress_is_told_and_building_can_be_called_off() {
    let vectors = clustered(5_000, 8, Metric::L2, 6);
    let rows = as_refs(&vectors);
    let (cancel, last) = (AtomicBool::new(false), AtomicUsize::new(0));
    let index =
        IndexDefinition { m: 8, ef_construction: 20, quantization: Quantization::None, ..IndexDefinition::default() };
    let progress = |rows| {
        assert!(last.swap(rows, Ordering::Relaxed) <= rows);
    };
    let options = BuildOptions { builder: GraphBuilder::Own, threads: None, progress: &progress, cancel: &cancel };
    build_graph(&rows, Metric::L2, &index, None, &options).unwrap();
    assert_eq!(last.load(Ordering::Relaxed), 5_000);
    let progress = |rows| {
        last.store(rows, Ordering::Relaxed);
        cancel.store(rows >= 2_000, Ordering::Relaxed);
    };
    let options = BuildOptions { progress: &progress, ..options };
    let result = build_graph(&rows, Metric::L2, &index, None, &options);
    assert!(matches!(result, Err(IndexError::Cancelled)));
    assert!(last.load(Ordering::Relaxed) < 4_000);
    // What follows the insertion takes as long.
    let progress = |rows| cancel.store(rows == 5_000, Ordering::Relaxed);
    let options = BuildOptions { progress: &progress, ..options };
    assert!(matches!(build_graph(&rows, Metric::L2, &index, None, &options), Err(IndexError::Cancelled)));
}
