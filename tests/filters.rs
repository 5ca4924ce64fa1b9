//! Filters: the field index against a plain evaluation on the documents, over updates, deletes, merges, reopenings and
//! restorations.

use std::path::Path;

use pannier::collection::ListRequest;
use pannier::types::{
    Condition, FieldType, Filter, GeoPoint, Metadata, Method, Metric, NewDocument, Query, SearchRequest, Value,
};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::histories::{self, Doomed, Suite};
use crate::support::{Random, id, name};

const DIM: usize = 4;

#[derive(Clone, Copy)]
struct Fields;

type World = histories::World<Fields>;

impl Suite for Fields {
    /// Vector and metadata.
    type Entry = (Vec<f32>, Metadata);
    const IDS: u64 = 60;

    fn open(&self, path: &Path) -> (Database, Collection) {
        let options = Options { memtable_documents: Some(30), ..Options::default() };
        let database = Database::open_with(path, options).unwrap();
        let fields = [("word".to_owned(), FieldType::Keyword), ("price".to_owned(), FieldType::Number)].into();
        let request = DefinitionRequest { metric: Some(Metric::Dot), fields, ..DefinitionRequest::vectors(DIM as u32) };
        let collection = database.create_collection(&name("things"), &request).unwrap().collection;
        (database, collection)
    }

    fn entry(&self, random: &mut Random) -> Self::Entry {
        (random.whole_vector(DIM), metadata(random))
    }

    fn document(&self, key: &str, (vector, metadata): &Self::Entry) -> NewDocument {
        NewDocument {
            id: id(key),
            text: Some("text".repeat(3)),
            metadata: metadata.clone(),
            vector: Some(vector.clone()),
            chunks: Vec::new(),
        }
    }

    fn doomed(world: &mut World) -> Doomed<Self::Entry> {
        let declared = world.collection().definition().fields.clone();
        let filter = loop {
            let filter = leaf(&mut world.random);
            if filter.check_fields(&declared).is_ok() && !filter.passes_everything(&declared) {
                break filter;
            }
            assert!(world.collection().delete_matching(&filter).is_err(), "{filter:?} is refused");
        };
        (filter.clone(), Box::new(move |(_, metadata)| filter.matches(metadata)))
    }

    fn check(world: &mut World) {
        (0..6).for_each(|_| check_once(world));
    }
}

fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize].clone()
}

fn scalar(random: &mut Random) -> Value {
    match random.below(5) {
        0 => Value::Null,
        1 => Value::Bool(random.below(2) == 0),
        2 => Value::Int(pick(random, &[-1, 0, 1, 2, (1 << 53) + 1])),
        3 => Value::Float(pick(random, &[-0.5, 1.0, 1.5, 9_007_199_254_740_992.0])),
        _ => Value::String(pick(random, &["", "a", "ab", "abc", "яб"]).to_owned()),
    }
}

fn point(random: &mut Random) -> Value {
    let lat = pick(random, &[0.0, 0.004, 59.91]);
    Value::Object([("lat".to_owned(), Value::Float(lat)), ("lon".to_owned(), Value::Float(10.0))].into())
}

fn any_value(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Array((0..random.below(3)).map(|_| scalar(random)).collect()),
        1 => point(random),
        2 => Value::String("long ".repeat(20 + random.below(2) as usize)),
        _ => scalar(random),
    }
}

/// `word` and `price` are declared, `any` and what is nested are not.
fn metadata(random: &mut Random) -> Metadata {
    let mut metadata = Metadata::new();
    let mut put = |name: &str, value| _ = metadata.insert(name.to_owned(), value);
    if random.below(4) > 0 {
        put("word", Value::String(pick(random, &["red", "green", "blue", "reddish"]).to_owned()));
    } else if random.below(2) == 0 {
        put("word", Value::Array(vec![Value::String("red".into()), Value::String("blue".into())]));
    }
    if random.below(5) > 0 {
        put("price", pick(random, &[Value::Int(1), Value::Float(1.0), Value::Float(2.5), Value::Int(9)]));
    }
    if random.below(3) > 0 {
        put("any", any_value(random));
    }
    if random.below(3) == 0 {
        put("shop", Value::Object([("city".to_owned(), scalar(random)), ("at".to_owned(), point(random))].into()));
    }
    metadata
}

fn leaf(random: &mut Random) -> Filter {
    let text = |random: &mut Random| pick(random, &["red", "blue", "re", "none"]).to_owned();
    let (path, condition) = match random.below(12) {
        0 => ("word", Condition::Eq(Value::String(text(random)))),
        1 => ("word", Condition::Prefix(text(random))),
        2 => ("word", Condition::Contains(Value::String(text(random)))),
        3 => ("word", Condition::Nin(vec![Value::String(text(random)), Value::Null])),
        4 => ("price", Condition::Gt(scalar_number(random))),
        5 => ("price", Condition::Lte(scalar_number(random))),
        6 => (pick(random, &["price", "any", "shop", "nowhere"]), Condition::Exists(random.below(2) == 0)),
        7 => ("any", Condition::Ne(any_value(random))),
        8 => ("any", Condition::In(vec![any_value(random), scalar(random)])),
        9 => ("any", Condition::Gte(scalar(random))),
        10 => ("shop.city", Condition::Eq(scalar(random))),
        _ => {
            let center = GeoPoint::of(&point(random)).unwrap();
            ("shop.at", Condition::GeoRadius { center, meters: pick(random, &[0.0, 500.0, 7e6]) })
        }
    };
    Filter::Field { path: path.to_owned(), condition }
}

fn scalar_number(random: &mut Random) -> Value {
    pick(random, &[Value::Int(1), Value::Float(1.5), Value::Int(9), Value::Int(-3)])
}

fn filter(random: &mut Random, depth: usize) -> Filter {
    let parts = |random: &mut Random| (0..1 + random.below(3)).map(|_| filter(random, depth - 1)).collect();
    match random.below(if depth == 0 { 1 } else { 5 }) {
        2 => Filter::And(parts(random)),
        3 => Filter::Or(parts(random)),
        4 => Filter::Not(Box::new(filter(random, depth - 1))),
        _ => leaf(random),
    }
}

fn check_once(world: &mut World) {
    let filter = filter(&mut world.random, 2);
    if filter.check_fields(&world.collection().definition().fields).is_err() {
        return;
    }
    let wanted: Vec<_> = world.model.iter().filter(|(_, (_, metadata))| filter.matches(metadata)).collect();
    let keys: Vec<_> = wanted.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(listed(world, &filter), keys, "{filter:?}");

    let query = world.random.whole_vector(DIM);
    let top_k = 1 + world.random.below(70) as usize;
    // A sum of nothing but -0.0 is -0.0, which is another score to `total_cmp`.
    let dot = |vector: &[f32]| vector.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>() + 0.0;
    let mut best: Vec<_> = wanted.iter().map(|(key, (vector, _))| (dot(vector), key.as_str())).collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    for exact in [true, false] {
        let request = SearchRequest {
            top_k,
            exact,
            explain: true,
            filter: Some(filter.clone()),
            ..SearchRequest::new(Query::Vector(query.clone()))
        };
        let answer = world.collection().search(&request).unwrap();
        let found: Vec<_> = answer.hits.iter().map(|hit| (hit.score, hit.id.as_str())).collect();
        assert_eq!(found.len(), top_k.min(best.len()), "{filter:?} {:?}", answer.explain);
        if exact {
            assert_eq!(found, best[..found.len()], "{filter:?}");
        } else {
            assert!(found.iter().all(|hit| best.contains(hit)), "{filter:?} {found:?}");
        }
    }
}

fn listed(world: &World, filter: &Filter) -> Vec<String> {
    let mut listed = Vec::new();
    let mut request = ListRequest { limit: 7, filter: Some(filter.clone()), ..ListRequest::default() };
    loop {
        let page = world.collection().list(&request).unwrap();
        assert!(page.documents.len() <= 7);
        listed.extend(page.documents.into_iter().map(|document| document.stored.id.as_str().to_owned()));
        match page.next {
            Some(next) => request.after = Some(next),
            None => return listed,
        }
    }
}

#[test]
fn filters_mean_the_same_whatever_holds_the_documents() {
    histories::run(&Fields, 60, 2);
}

/// 6,000 documents in one segment with a graph; `rank` is their order by closeness to the first axis.
fn large() -> (tempfile::TempDir, Database, Collection) {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::open_with(directory.path(), Options::default()).unwrap();
    let fields = [("kind".to_owned(), FieldType::Keyword), ("rank".to_owned(), FieldType::Number)].into();
    let request = DefinitionRequest { fields, ef_construction: Some(64), ..DefinitionRequest::vectors(16) };
    let collection = database.create_collection(&name("large"), &request).unwrap().collection;
    let mut random = Random(11);
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for _ in 0..6_000 {
        // Sums of uniform numbers: close enough to normal ones.
        rows.push((0..16).map(|_| (0..6).map(|_| random.below(1_000) as f32 / 1e3 - 0.5).sum()).collect());
    }
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    rows.sort_by(|a, b| (b[0] / norm(b)).total_cmp(&(a[0] / norm(a))));
    for (chunk, rows) in rows.chunks(1_000).enumerate() {
        let document = |(at, vector): (usize, &Vec<f32>)| {
            let rank = chunk * 1_000 + at;
            let kind = format!("k{}", random.below(10));
            pannier::types::NewDocument {
                id: id(&format!("{rank:05}")),
                text: None,
                metadata: [
                    ("kind".to_owned(), Value::String(kind)),
                    ("rank".to_owned(), Value::Int(rank as i64)),
                    ("long".to_owned(), Value::String(format!("{rank:0100}"))),
                ]
                .into(),
                vector: Some(vector.clone()),
                chunks: Vec::new(),
            }
        };
        let documents = rows.iter().enumerate().map(document).collect();
        collection.upsert(documents).unwrap();
    }
    collection.optimise().unwrap();
    (directory, database, collection)
}

#[test]
fn filtered_searches_find_what_exact_searches_find() {
    let (_directory, _database, collection) = large();
    let field = |path: &str, condition| Filter::Field { path: path.into(), condition };
    let filters = [
        field("kind", Condition::In((0..5).map(|n| Value::String(format!("k{n}"))).collect())),
        Filter::eq("kind", Value::String("k3".into())),
        field("rank", Condition::Lt(Value::Int(3_000))),
        field("rank", Condition::Gte(Value::Int(5_400))),
        field("rank", Condition::Lt(Value::Int(6))),
        Filter::eq("long", Value::String(format!("{:0100}", 77))),
    ];
    let mut random = Random(5);
    for filter in &filters {
        let (mut right, mut wanted) = (0, 0);
        for _ in 0..40 {
            let request = SearchRequest {
                filter: Some(filter.clone()),
                ..SearchRequest::new(Query::Vector(random.whole_vector(16)))
            };
            let exact = collection.search(&SearchRequest { exact: true, ..request.clone() }).unwrap().hits;
            let answer = collection.search(&request).unwrap();
            assert_eq!(answer.hits.len(), exact.len());
            let floor = exact.last().map_or(0.0, |hit| hit.score - 1e-6);
            right += answer.hits.iter().filter(|hit| hit.score >= floor).count();
            wanted += exact.len();
        }
        assert!(f64::from(right as u32) >= 0.95 * f64::from(wanted as u32), "{filter:?}: {right} of {wanted}");
    }
}

#[test]
fn what_the_index_lacks_is_decoded_and_explained() {
    let (_directory, _database, collection) = large();
    let explain = |filter: Filter| {
        let query = Query::Vector(vec![1.0; 16]);
        let request = SearchRequest { filter: Some(filter), explain: true, ..SearchRequest::new(query) };
        collection.search(&request).unwrap().explain.unwrap().segments.remove(0)
    };
    let indexed = explain(Filter::eq("kind", Value::String("k1".into())));
    assert_eq!(indexed.decoded, 0);
    assert!(indexed.filter.unwrap().undecided_fields.is_empty());
    let long = Filter::Field { path: "long".into(), condition: Condition::Prefix("0".repeat(70)) };
    let decoded = explain(long.clone());
    let known = decoded.filter.unwrap();
    assert_eq!((known.certain, known.undecided, known.undecided_fields), (0, 6_000, vec!["long".to_owned()]));
    assert!(decoded.decoded > 0 && decoded.decoded < 3_000, "only rows near enough: {}", decoded.decoded);
    let both = explain(Filter::And(vec![long, Filter::eq("rank", Value::Int(77))]));
    assert_eq!((both.decoded, both.planned, both.estimated_matches), (1, Method::Scan, 1));
}
