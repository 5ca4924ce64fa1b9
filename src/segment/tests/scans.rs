//! Scans by what stands for the vectors, where that hardly tells them apart.

use super::*;

/// The share of the `top_k` nearest of the rows from `first` on that a scan of them finds, over some queries near the last row.
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
