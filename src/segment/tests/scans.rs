//! Scans by what stands for the vectors, where that hardly tells them apart.

use super::*;

/// The share of the `top_k` nearest of the rows from `first` on that a scan of them finds, over some queries near the
/// last row.
fn recall(sample: &Sample, segment: &Segment, first: Ordinal, top_k: usize) -> f64 {
    const QUERIES: usize = 20;
    let (rows, dim) = (sample.vectors.len() as Ordinal, sample.spec.dim as usize);
    let mut found = 0;
    for noise in vectors(QUERIES, dim, Metric::Dot, 99) {
        let near = sample.vectors.last().unwrap().iter().zip(noise).map(|(x, noise)| x + 0.01 * noise);
        let query = VectorQuery::new(sample.spec.metric, near.collect());
        let (mut by_codes, mut exact) = (Vec::new(), Vec::new());
        segment.scan_rows(&query, top_k, first..rows, |_| true, &mut by_codes).unwrap();
        segment.scan_rows_exact(&query, top_k, first..rows, |_| true, &mut exact).unwrap();
        let last = exact.last().unwrap().closeness;
        found += by_codes.iter().filter(|candidate| candidate.closeness >= last).count();
    }
    found as f64 / (QUERIES * top_k) as f64
}

#[test]
fn rows_that_lie_close_together_are_found_by_nibbles() {
    const FIRST: usize = 500;
    for spread in [0.2, 0.05, 0.02] {
        let mut sample = Sample::new(FIRST + 800, CLUSTERED_DIM, Metric::Cosine, Quantization::Int8);
        let centre = sample.vectors[0].clone();
        for vector in &mut sample.vectors[FIRST..] {
            vector.iter_mut().zip(&centre).for_each(|(x, centre)| *x = spread * *x + centre);
            normalise(vector, CLUSTERED_DIM).unwrap();
        }
        let sample = sample.with_graph();
        let segment = sample.open();
        assert!(segment.nibble_quantizer().unwrap().is_some());
        let recall = recall(&sample, &segment, FIRST as Ordinal, 10);
        assert!(recall >= 0.99, "{spread}: {recall}");
    }
}

#[test]
fn rows_of_one_code_are_found_beside_long_ones() {
    for dim in [3, 70] {
        let mut sample = Sample::new(2_000, dim, Metric::L2, Quantization::Int8);
        for vector in sample.vectors.iter_mut().step_by(20) {
            vector.iter_mut().for_each(|x| *x *= 100.0);
        }
        let segment = sample.open();
        for top_k in [1, 10] {
            let recall = recall(&sample, &segment, 0, top_k);
            assert!(recall >= 0.99, "dim {dim}, top_k {top_k}: {recall}");
        }
    }
}

#[test]
fn what_fewer_find_is_the_beginning_of_what_more_find() {
    for storage in STORAGES {
        for metric in METRICS {
            // So near to each other that many have one score, whose closeness differs.
            let mut sample = Sample::new(400, 2, metric, Quantization::None);
            for (row, vector) in sample.vectors.iter_mut().enumerate() {
                let angle = row as f32 * 1e-8;
                *vector = vec![10.0 * angle.cos(), 10.0 * angle.sin()];
                if metric == Metric::Cosine {
                    normalise(vector, 2).unwrap();
                }
            }
            let sample = sample.stored_as(storage);
            let segment = sample.open();
            let query = VectorQuery::new(metric, vec![0.8, 0.6]);
            let scan = |top_k: usize| {
                let mut found = Vec::new();
                segment.scan_rows_exact(&query, top_k, 0..400, |_| true, &mut found).unwrap();
                found.into_iter().map(|candidate| (candidate.closeness, candidate.ordinal)).collect::<Vec<_>>()
            };
            let whole = scan(400);
            assert!(whole.is_sorted_by(|a, b| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1)), "{metric:?}");
            assert!(whole.windows(2).any(|pair| pair[0].0 == pair[1].0), "{metric:?} {storage:?}");
            for top_k in 1..400 {
                assert_eq!(scan(top_k), whole[..top_k], "{metric:?} {storage:?} {top_k}");
            }
        }
    }
}

#[test]
fn queries_beyond_the_components_of_all_rows_are_answered_as_well() {
    let mut sample = Sample::clustered(Metric::L2);
    for graph in [false, true] {
        if graph {
            sample = sample.with_graph();
        }
        let segment = sample.open();
        let packed = has_blocks().then(|| segment.pack(&(0..CLUSTERED_ROWS as Ordinal).collect::<Vec<_>>()).unwrap());
        let mut out = Vec::new();
        for times in [1.0, 3.0, 10.0, 1e6] {
            for (row, all) in [(3, true), (500, false), (1_200, true)] {
                let far = |(at, x): (usize, &f32)| if all || at == 7 { x * times } else { *x };
                let vector = sample.vectors[row].iter().enumerate().map(far).collect();
                let query = VectorQuery::new(Metric::L2, vector);
                let nearest = nearest(&sample.vectors, query.vector(), Metric::L2);
                let last = closeness(Metric::L2, &sample.vectors[nearest[9] as usize], query.vector());
                let check = |what: &str, out: &[Candidate]| {
                    let near = out.iter().filter(|candidate| candidate.closeness >= last * (1.0 + 1e-6)).count();
                    assert!(near >= 9, "{what}, graph {graph}, {times} times, {all}: {near} of 10");
                };
                segment.scan(&query, 10, |_| true, &mut out).unwrap();
                check("scan", &out);
                segment.scan_rows(&query, 10, 0..CLUSTERED_ROWS as Ordinal, |_| true, &mut out).unwrap();
                check("scan of rows", &out);
                if let Some(packed) = packed.iter().flatten().next() {
                    segment.scan_packed(packed, &query, 10, |_| true, &mut out).unwrap();
                    check("packed", &out);
                }
            }
        }
    }
}

#[test]
fn a_row_with_one_large_component_is_found_by_its_dot_product() {
    for dim in [32, 64] {
        let mut sample = Sample::new(3_000, dim, Metric::Dot, Quantization::Int8);
        sample.vectors[1_234][0] = 50.0;
        let segment = sample.open();
        let mut out = Vec::new();
        for seed in 1..20 {
            let mut vector = sample.query(seed).vector().to_vec();
            vector[0] = 1.0;
            segment.scan(&VectorQuery::new(Metric::Dot, vector), 1, |_| true, &mut out).unwrap();
            assert_eq!(out[0].ordinal, 1_234, "dim {dim}, seed {seed}");
        }
    }
}
