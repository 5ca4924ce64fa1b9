//! Outliers among near-duplicates are found by walks of the default effort, whatever these read and wherever they
//! stand.

use super::*;

/// `count` rows of which those at `outliers` stand anywhere, and the others within a thousandth of one of `crowds`
/// points.
fn crowd(count: usize, dim: usize, crowds: usize, outliers: &[usize], seed: u64) -> Vec<Vec<f32>> {
    let mut random = Random(seed);
    let mut anywhere = || (0..dim).map(|_| random.uniform() - 0.5).collect::<Vec<f32>>();
    let centres: Vec<Vec<f32>> = (0..crowds).map(|_| anywhere()).collect();
    (0..count)
        .map(|row| match outliers.contains(&row) {
            true => anywhere(),
            false => centres[row % crowds].iter().zip(anywhere()).map(|(x, noise)| x + 1e-3 * noise).collect(),
        })
        .collect()
}

/// How many of `outliers` a search of the default effort for their own vectors does not find first; with `noise`, for
/// vectors near theirs.
fn missed(segment: &Segment, vectors: &[Vec<f32>], outliers: &[usize], noise: f32) -> usize {
    let mut random = Random(99);
    let mut out = Vec::new();
    let is_missed = |&&outlier: &&usize| {
        let mut vector: Vec<f32> = vectors[outlier].iter().map(|x| x + noise * (random.uniform() - 0.5)).collect();
        if segment.spec().metric == Metric::Cosine {
            let dim = vector.len();
            normalise(&mut vector, dim).unwrap();
        }
        let options = WalkOptions { top_k: 1, ef: ef_for(segment, 1, WANTED_RECALL) };
        segment.search(&VectorQuery::new(segment.spec().metric, vector), options, |_| true, &mut out).unwrap();
        out[0].ordinal != outlier as Ordinal
    };
    outliers.iter().filter(is_missed).count()
}

fn prepared(mut vectors: Vec<Vec<f32>>, metric: Metric) -> Vec<Vec<f32>> {
    if metric == Metric::Cosine {
        let dim = vectors[0].len();
        vectors.iter_mut().for_each(|vector| normalise(vector, dim).unwrap());
    }
    vectors
}

/// What is searched: the metric, the numbers in a vector, and what walks read of them.
const KINDS: [(Metric, usize, Quantization); 6] = [
    (Metric::Cosine, 32, Quantization::Int8),
    (Metric::Cosine, 96, Quantization::Int8),
    (Metric::Cosine, 32, Quantization::None),
    (Metric::L2, 8, Quantization::Int8),
    (Metric::L2, 32, Quantization::Int8),
    (Metric::L2, 32, Quantization::None),
];

/// One shape in every kind, with `PANNIER_TEST_OUTLIER_SEEDS` seeds.
fn assert_found(count: usize, crowds: usize, outliers: &[usize]) {
    let seeds = std::env::var("PANNIER_TEST_OUTLIER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2);
    for (metric, dim, quantization) in KINDS {
        for seed in 1..=seeds {
            let vectors = prepared(crowd(count, dim, crowds, outliers, seed), metric);
            let (segment, _dir) = segment(&vectors, metric, quantization);
            segment.verify(|_| ()).unwrap();
            let missed = missed(&segment, &vectors, outliers, 0.0);
            assert_eq!(missed, 0, "{metric:?} {dim} {quantization:?} seed {seed}: of {}", outliers.len());
        }
    }
}

#[test]
fn outliers_before_a_crowd_are_found() {
    assert_found(1_520, 1, &(0..20).collect::<Vec<_>>());
}

#[test]
fn outliers_in_the_middle_of_a_crowd_are_found() {
    assert_found(1_520, 1, &(1_000..1_020).collect::<Vec<_>>());
}

#[test]
fn outliers_after_a_crowd_are_found() {
    assert_found(1_520, 1, &(1_500..1_520).collect::<Vec<_>>());
}

#[test]
fn few_outliers_all_over_a_large_crowd_are_found() {
    assert_found(5_020, 1, &(0..5_020).step_by(251).collect::<Vec<_>>());
}

#[test]
fn outliers_of_several_crowds_are_found() {
    assert_found(1_820, 7, &(900..920).collect::<Vec<_>>());
}

#[test]
fn many_outliers_of_a_crowd_are_found() {
    assert_found(1_600, 1, &(0..1_600).step_by(8).collect::<Vec<_>>());
}

#[test]
fn outliers_in_a_graph_that_was_taken_over_are_found() {
    for (metric, dim, quantization) in KINDS {
        let outliers: Vec<usize> = (0..1_500).step_by(75).collect();
        let vectors = prepared(crowd(1_500, dim, 1, &outliers, 6), metric);
        let index = IndexDefinition { quantization, ..IndexDefinition::default() };
        let old = build(&vectors[..1_000], metric, &index, 2);
        let rows: Vec<VectorRef<'_>> = vectors.iter().map(|vector| VectorRef::Float32(vector)).collect();
        let started = |threads| {
            let start = Start { graph: old.view(), rows: (0..1_000).map(Some).collect() };
            build_graph(&rows, metric, &index, Some(start), &options(GraphBuilder::Own, threads)).unwrap()
        };
        let graph = started(2);
        assert_eq!(graph, started(1));
        let (segment, _dir) = segment_of(&vectors, metric, index, &graph);
        segment.verify(|_| ()).unwrap();
        assert_eq!(missed(&segment, &vectors, &outliers, 0.0), 0, "{metric:?} {dim} {quantization:?}");
    }
}

#[test]
fn searches_for_vectors_near_outliers_find_most_of_these() {
    let outliers: Vec<usize> = (1_000..1_020).collect();
    for (metric, dim, quantization) in KINDS {
        let vectors = prepared(crowd(1_520, dim, 1, &outliers, 7), metric);
        let (segment, _dir) = segment(&vectors, metric, quantization);
        let missed = missed(&segment, &vectors, &outliers, 0.01);
        assert!(missed <= 1, "{metric:?} {dim} {quantization:?}: {missed} of 20");
    }
}

/// A segment over the vectors as one would be written, with a graph.
fn segment_as_fits(vectors: &[Vec<f32>], metric: Metric) -> (Segment, tempfile::TempDir) {
    let (id, collection, index) = (SegmentId(1), CollectionId(1), IndexDefinition::default());
    let spec = SegmentSpec { id, collection, generation: 1, metric, dim: vectors[0].len() as u32, index };
    let rows: Vec<VectorRef<'_>> = vectors.iter().map(|vector| VectorRef::Float32(vector)).collect();
    segment(vectors, metric, fitting(&spec, &rows).index.quantization)
}

/// What a walk and a scan of all rows find, and what there is.
fn found(segment: &Segment, query: &VectorQuery, top_k: usize) -> ([Vec<Candidate>; 2], Vec<Candidate>) {
    let (mut walked, mut scanned, mut exact) = (Vec::new(), Vec::new(), Vec::new());
    segment.search(query, WalkOptions { top_k, ef: 64 }, |_| true, &mut walked).unwrap();
    segment.scan_rows(query, top_k, 0..segment.rows(), |_| true, &mut scanned).unwrap();
    segment.scan_exact(query, top_k, |_| true, &mut exact).unwrap();
    ([walked, scanned], exact)
}

/// Clipped to what codes of the others reach, they would lie right beside the query.
#[test]
fn rows_with_one_large_component_do_not_stand_in_for_the_nearest() {
    for (dim, large) in [(32, 999.0), (32, 5.0), (200, 30.0)] {
        let mut random = Random(3);
        let mut vectors: Vec<Vec<f32>> = (0..5_000).map(|_| (0..dim).map(|_| random.uniform()).collect()).collect();
        let mut near = vectors[0].clone();
        near[0] = 0.98;
        for row in (100..800).step_by(100) {
            vectors[row] = near.clone();
            vectors[row][0] = large;
        }
        let (segment, _dir) = segment_as_fits(&vectors, Metric::L2);
        let query = VectorQuery::new(Metric::L2, near);
        for top_k in [1, 10] {
            let (found, exact) = found(&segment, &query, top_k);
            let last = exact.last().unwrap().closeness;
            for found in found {
                let right = found.iter().filter(|found| found.closeness >= last).count();
                assert!(right >= top_k - top_k / 10, "dim {dim}, {large}: {found:?} for {exact:?}");
            }
        }
    }
}

/// Clipped to what codes and nibbles of the others reach, it would lie far from what it is near.
#[test]
fn a_row_of_few_components_is_found_among_rows_of_many() {
    const DIM: usize = 256;
    for rows in [700, 3_000] {
        let mut random = Random(5);
        let mut vectors: Vec<Vec<f32>> =
            (0..rows).map(|_| (0..DIM).map(|_| random.uniform() - 0.5).collect()).collect();
        let topic = vectors[0].clone();
        for vector in &mut vectors[1..36] {
            vector.iter_mut().zip(&topic).for_each(|(x, topic)| *x = 0.3 * *x + topic);
        }
        vectors[500] = (0..DIM).map(|at| if at < 2 { 1.0 } else { 0.0 }).collect();
        let vectors = prepared(vectors, Metric::Cosine);
        let (segment, _dir) = segment_as_fits(&vectors, Metric::Cosine);
        for share in [0.0, 0.5, 0.7] {
            let mut near: Vec<f32> = vectors[500].iter().zip(&vectors[0]).map(|(x, topic)| x + share * topic).collect();
            normalise(&mut near, DIM).unwrap();
            for top_k in [1, 10] {
                let (found, exact) = found(&segment, &VectorQuery::new(Metric::Cosine, near.clone()), top_k);
                assert_eq!(exact[0].ordinal, 500, "{rows}, {share}");
                for found in found {
                    assert_eq!(found[0].ordinal, 500, "{rows}, {share}: {found:?} for {exact:?}");
                }
            }
        }
    }
}
