//! Filters over metadata of every shape in Postgres, against a plain evaluation.

use std::collections::BTreeMap;

use pannier::CollectionError;
use pannier::collection::ListRequest;
use pannier::types::{Condition, Filter, GeoPoint, Metadata, NewDocument, Value};

use super::Sidecar;
use crate::support::postgres::{Version, server};
use crate::support::{Random, document, id};

fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize].clone()
}

fn scalar(random: &mut Random) -> Value {
    const BIG: i64 = (1 << 60) + 256;
    match random.below(5) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 0),
        2 => Value::Int(pick(random, &[-1, 0, 1, 2, (1 << 53) + 1, BIG, BIG + 1, i64::MIN])),
        3 => Value::Float(pick(random, &[-0.5, 0.0, 1.0, 2.5, 9_007_199_254_740_992.0, BIG as f64, 1e300, 5e-324])),
        _ => Value::String(pick(random, &["", "a", "ab", "Ab", "яб", "a'b\\", "1", "😀", "\u{ffff}"]).to_owned()),
    }
}

fn point(random: &mut Random) -> Value {
    let lat =
        pick(random, &[Value::Float(0.0), Value::Float(5e-324), Value::Int(60), Value::Float(59.9), Value::Int(91)]);
    let lon = pick(random, &[Value::Float(10.7), Value::Int(-180), Value::Int(180), Value::String("x".into())]);
    Value::Object([("lat".to_owned(), lat), ("lon".to_owned(), lon)].into())
}

fn tree(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 4 } else { 8 }) {
        4 => Value::Array((0..random.below(4)).map(|_| tree(random, depth - 1)).collect()),
        5 => Value::Object(object(random, depth - 1)),
        6 => point(random),
        _ => scalar(random),
    }
}

const NAMES: [&str; 8] = ["a", "b", "a.b", "b.a", "a.b.a", "", "lat", "0"];

fn object(random: &mut Random, depth: usize) -> Metadata {
    (0..random.below(4)).map(|_| (pick(random, &NAMES).to_owned(), tree(random, depth))).collect()
}

fn leaf(random: &mut Random) -> Filter {
    let paths = ["a", "b", "a.b", "a.b.a", "b.a.lat", "", ".", "a.0", "a.a.b.b"];
    let center = |random: &mut Random| {
        let lat = pick(random, &[0.0, 59.9, -90.0]);
        GeoPoint::new(lat, pick(random, &[10.7, 179.0])).unwrap()
    };
    let condition = match random.below(13) {
        0 => Condition::Eq(tree(random, 2)),
        1 => Condition::Ne(tree(random, 2)),
        2 => Condition::Gt(scalar(random)),
        3 => Condition::Gte(scalar(random)),
        4 => Condition::Lt(scalar(random)),
        5 => Condition::Lte(scalar(random)),
        6 => Condition::In((0..random.below(4)).map(|_| tree(random, 1)).collect()),
        7 => Condition::Nin((0..random.below(4)).map(|_| scalar(random)).collect()),
        8 => Condition::Exists(random.below(2) == 0),
        9 => Condition::Prefix(pick(random, &["", "a", "A", "я", "%", "a'b\\"]).to_owned()),
        10 => Condition::Contains(tree(random, 1)),
        11 => Condition::Contains(Value::String(pick(random, &["", "b", "😀"]).to_owned())),
        _ => Condition::GeoRadius { center: center(random), meters: pick(random, &[0.0, 20_000.0, 7e6, 2.1e7]) },
    };
    Filter::Field { path: pick(random, &paths).to_owned(), condition }
}

fn filter(random: &mut Random, depth: usize) -> Filter {
    let parts = |random: &mut Random| (0..random.below(4)).map(|_| filter(random, depth - 1)).collect();
    match random.below(if depth == 0 { 1 } else { 5 }) {
        2 => Filter::And(parts(random)),
        3 => Filter::Or(parts(random)),
        4 => Filter::Not(Box::new(filter(random, depth - 1))),
        _ => leaf(random),
    }
}

fn filters_mean_the_same_on(version: Version) {
    let one = Sidecar::new(&server(version).database().url);
    let collection = one.create();
    let mut random = Random(17);
    let mut model = BTreeMap::new();
    let mut checked = 0;
    for _ in 0..4 {
        let mut batch = BTreeMap::new();
        for _ in 0..150 {
            batch.insert(format!("d{:03}", random.below(400)), object(&mut random, 3));
        }
        let new = |(key, metadata): (&String, &Metadata)| NewDocument {
            metadata: metadata.clone(),
            ..document(key, &[1.0, 0.0, 0.0], 0)
        };
        collection.upsert(batch.iter().map(new).collect()).unwrap();
        model.extend(batch);
        for (key, metadata) in &model {
            assert_eq!(&collection.get(&id(key)).unwrap().unwrap().stored.metadata, metadata);
        }
        for _ in 0..250 {
            let filter = filter(&mut random, 2);
            let request = ListRequest { limit: 1_000, filter: Some(filter.clone()), ..ListRequest::default() };
            let listed = match collection.list(&request) {
                Err(CollectionError::Filter(_)) => continue,
                other => other.unwrap_or_else(|error| panic!("{filter:?}: {error}")).documents,
            };
            let listed: Vec<_> = listed.iter().map(|document| document.stored.id.as_str()).collect();
            let wanted: Vec<_> =
                model.iter().filter(|(_, metadata)| filter.matches(metadata)).map(|(key, _)| key.as_str()).collect();
            assert_eq!(listed, wanted, "{filter:?}");
            checked += usize::from(!wanted.is_empty() && wanted.len() < model.len());
        }
    }
    assert!(checked > 200, "only {checked} filters told documents apart");
}

#[test]
fn filters_mean_the_same_as_here_on_16() {
    filters_mean_the_same_on(Version::V16);
}

#[test]
fn filters_mean_the_same_as_here_on_18() {
    filters_mean_the_same_on(Version::V18);
}
