//! Many copies of one vector do not keep walks from the others, nor take the places of their links.

use super::*;

/// Topics, and then `copies` of a vector that stands anywhere.
fn with_copies(rows: usize, copies: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut vectors = topics(rows, TOPIC, seed);
    let copied = topics(1, 1, seed + 1_000).remove(0);
    vectors.extend(std::iter::repeat_n(copied, copies));
    vectors
}

#[test]
fn default_searches_take_little_effort_beside_many_copies() {
    let vectors = with_copies(8_000, 600, 11);
    let queries = between(&vectors[..8_000], TOPIC);
    for quantization in [Quantization::Int8, Quantization::None] {
        let (segment, _dir) = segment(&vectors, Metric::L2, quantization);
        segment.verify(|_| ()).unwrap();
        let ef = ef_for(&segment, 10, WANTED_RECALL);
        assert!(ef <= 192, "{quantization:?}: ef {ef}");
        let recall = recall(&segment, &queries, WalkOptions { top_k: 10, ef: 24 }, |_| true);
        assert!(recall >= 0.98, "{quantization:?}: recall@10 {recall}");
    }
}

#[test]
fn thousands_of_copies_take_no_places_of_other_rows() {
    const OTHERS: u32 = 400;
    let vectors = with_copies(OTHERS as usize, 3_000, 13);
    let graph = build(&vectors, Metric::L2, &IndexDefinition::default(), 2);
    let view = graph.view();
    for row in 0..OTHERS {
        let to_copies = view.neighbours(row).iter().filter(|&&to| to >= OTHERS).count();
        assert!(to_copies <= 20, "row {row} leads to {to_copies} copies: {:?}", view.neighbours(row));
    }
}
