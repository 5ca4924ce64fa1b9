//! Vectors that no search survives are refused at the door; outliers in a crowd are found.

use pannier::types::{Metric, Quantization, Query, SearchRequest};
use pannier::{CollectionError, Database, DefinitionRequest};
use proptest::prelude::*;

use crate::support::{Random, document, id, name, number_from};

const DIM: usize = 6;

/// A component that makes any vector unusable.
fn poison() -> impl Strategy<Value = f32> {
    prop_oneof![Just(f32::NAN), Just(-f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(1e25), Just(-1e25)]
}

/// Vectors of no use for a metric: one poisoned component among good ones, or all of them zero or near it, where the
/// metric needs a direction.
fn unusable(metric: Metric) -> BoxedStrategy<Vec<f32>> {
    let good = prop::collection::vec(-10.0f32..10.0, DIM);
    let poisoned = (good, 0..DIM, poison()).prop_map(|(mut vector, at, x)| {
        vector[at] = x;
        vector
    });
    let tiny = prop::collection::vec(prop_oneof![Just(0.0f32), Just(-0.0), Just(1e-24), Just(-1e-24)], DIM);
    if metric == Metric::L2 { poisoned.boxed() } else { prop_oneof![poisoned, tiny].boxed() }
}

#[test]
fn vectors_without_a_direction_are_refused_whole_and_in_every_metric() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    let good: Vec<f32> = (1..=DIM).map(|x| x as f32).collect();
    for (metric, text) in [(Metric::Cosine, "cosine"), (Metric::Dot, "dot"), (Metric::L2, "l2")] {
        let request = DefinitionRequest { metric: Some(metric), ..DefinitionRequest::vectors(DIM as u32) };
        let things = database.create_collection(&name(text), &request).unwrap().collection;
        things.upsert(vec![document("good", &good, 0)]).unwrap();
        proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(bad in unusable(metric))| {
            let both = vec![document("first", &good, 0), document("bad", &bad, 0)];
            let refused = things.upsert(both);
            prop_assert!(matches!(refused, Err(CollectionError::DocumentVector { .. })), "{:?} {:?}", bad, refused);
            prop_assert!(things.get(&id("first")).unwrap().is_none(), "a request is refused as a whole");
            for exact in [true, false] {
                let search = SearchRequest { exact, ..SearchRequest::new(Query::Vector(bad.clone())) };
                let answer = things.search(&search).map(|found| found.hits.len());
                prop_assert!(matches!(answer, Err(CollectionError::QueryVector(_))), "{:?} {:?}", bad, answer);
            }
        });
        assert_eq!(things.stats().documents, 1);
    }
}

#[test]
fn distances_are_told_of_the_zero_vector_too() {
    const WIDE: usize = 768;
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open(directory.path()).unwrap();
    for (quantization, text) in
        [(Quantization::Int8, "int8"), (Quantization::Binary, "binary"), (Quantization::None, "none")]
    {
        let request = DefinitionRequest {
            metric: Some(Metric::L2),
            quantization: Some(quantization),
            ..DefinitionRequest::vectors(WIDE as u32)
        };
        let things = database.create_collection(&name(text), &request).unwrap().collection;
        let mut random = Random(7);
        // First alone, where nothing tells a scale.
        things.upsert(vec![document("zero", &[0.0; WIDE], 0)]).unwrap();
        for count in [0, 300] {
            let others = (0..count).map(|n| document(&format!("{n}"), &random.whole_vector(WIDE), 0));
            if count > 0 {
                things.upsert(others.collect()).unwrap();
            }
            for sealed in [false, true] {
                if sealed {
                    things.optimise().unwrap();
                }
                let like = Query::Like { positive: vec![id("zero")], negative: Vec::new() };
                for exact in [true, false] {
                    let near = SearchRequest::new(Query::Vector(vec![0.0; WIDE]));
                    let request = SearchRequest { exact, top_k: 1, diversity: Some(0.5), ..near };
                    let hits = things.search(&request).unwrap().hits;
                    assert_eq!((hits[0].id.as_str(), hits[0].score), ("zero", 0.0), "{text}, {count}, {sealed}");
                }
                assert_eq!(things.search(&SearchRequest::new(like)).unwrap().hits.len(), count.min(10));
            }
        }
    }
}

/// 1,000 near-duplicates, 20 outliers, 500 near-duplicates: the near ones have all but one code, so that a walk among
/// them needs links that lead off them.
#[test]
fn every_search_finds_every_outlier_among_near_duplicates() {
    const WIDE: usize = 32;
    for seed in 3..=2 + number_from("PANNIER_TEST_OUTLIER_SEEDS", 4) {
        let mut random = Random(seed);
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path()).unwrap();
        let request = DefinitionRequest::vectors(WIDE as u32);
        let things = database.create_collection(&name("crowd"), &request).unwrap().collection;
        let mut noise = || (random.next() >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let centre: Vec<f32> = (0..WIDE).map(|_| noise()).collect();
        let mut outliers = Vec::new();
        let mut documents = Vec::new();
        for n in 0..1_520 {
            let is_outlier = (1_000..1_020).contains(&n);
            let vector: Vec<f32> =
                centre.iter().map(|x| if is_outlier { noise() } else { x + 1e-3 * noise() }).collect();
            documents.push(document(&format!("{n}"), &vector, 0));
            if is_outlier {
                outliers.push((format!("{n}"), vector));
            }
        }
        for part in documents.chunks(500) {
            things.upsert(part.to_vec()).unwrap();
        }
        things.optimise().unwrap();
        // Once more with a graph that was taken over: 500 more near-duplicates are inserted into it.
        for round in 0..2 {
            for (id, vector) in &outliers {
                for exact in [true, false] {
                    let search = SearchRequest { top_k: 1, exact, ..SearchRequest::new(Query::Vector(vector.clone())) };
                    let hits = things.search(&search).unwrap().hits;
                    assert_eq!(hits[0].id.as_str(), id, "seed {seed}, round {round}, exact {exact}");
                }
            }
            let more = (0..500).map(|n| {
                let vector: Vec<f32> = centre.iter().map(|x| x + 1e-3 * noise()).collect();
                document(&format!("more-{n}"), &vector, 0)
            });
            things.upsert(more.collect()).unwrap();
            things.optimise().unwrap();
        }
    }
}
