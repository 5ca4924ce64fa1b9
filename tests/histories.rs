//! Random histories against a plain model: a BTreeMap and an exact scan, reopened and restored at random points.

use std::path::Path;

use pannier::collection::ListRequest;
use pannier::types::{Filter, Metric, NewDocument, Query, SearchRequest, Value};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::histories::{self, Doomed, Suite};
use crate::support::{Random, document, id, name};

const DIM: usize = 5;
const GROUPS: u64 = 3;

/// Vectors of whole numbers, whose scores are exact.
#[derive(Clone, Copy)]
struct Vectors {
    metric: Metric,
}

type World = histories::World<Vectors>;

impl Suite for Vectors {
    /// Vector and group.
    type Entry = (Vec<f32>, i64);
    const IDS: u64 = 40;

    fn open(&self, path: &Path) -> (Database, Collection) {
        let options = Options { memtable_documents: Some(25), ..Options::default() };
        let database = Database::open_with(path, options).unwrap();
        let request = DefinitionRequest { metric: Some(self.metric), ..DefinitionRequest::vectors(DIM as u32) };
        let collection = database.create_collection(&name("things"), &request).unwrap().collection;
        (database, collection)
    }

    fn entry(&self, random: &mut Random) -> Self::Entry {
        (random.whole_vector(DIM), random.below(GROUPS) as i64)
    }

    fn document(&self, key: &str, (vector, group): &Self::Entry) -> NewDocument {
        document(key, vector, *group)
    }

    fn doomed(world: &mut World) -> Doomed<Self::Entry> {
        histories::of_one_group(&mut world.random, GROUPS)
    }

    fn check(world: &mut World) {
        check_documents(world);
        for filter in [None, Some(world.random.below(GROUPS) as i64)] {
            for exact in [true, false] {
                check_search(world, filter, exact);
            }
        }
    }
}

fn closeness(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    // A sum of nothing but negative zeros is one, and would stand below the others that are zero.
    0.0 + match metric {
        Metric::L2 => -a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f32>().sqrt(),
        Metric::Dot | Metric::Cosine => a.iter().zip(b).map(|(x, y)| x * y).sum(),
    }
}

fn check_documents(world: &World) {
    let collection = world.collection();
    assert_eq!(collection.stats().documents, world.model.len() as u64);
    let mut listed = Vec::new();
    let mut request = ListRequest { limit: 7, ..ListRequest::default() };
    loop {
        let page = collection.list(&request).unwrap();
        listed.extend(page.documents);
        match page.next {
            Some(next) => request.after = Some(next),
            None => break,
        }
    }
    let found: Vec<_> = listed.iter().map(|d| (d.stored.id.as_str(), d.vector.as_slice())).collect();
    let wanted: Vec<_> = world.model.iter().map(|(key, (vector, _))| (key.as_str(), vector.as_slice())).collect();
    assert_eq!(found, wanted);
    for n in 0..Vectors::IDS {
        let key = format!("doc-{n:02}");
        let got = collection.get(&id(&key)).unwrap();
        assert_eq!(got.map(|d| d.vector), world.model.get(&key).map(|(vector, _)| vector.clone()), "{key}");
    }
}

fn check_search(world: &mut World, group: Option<i64>, exact: bool) {
    let query = world.random.whole_vector(DIM);
    let top_k = 1 + world.random.below(12) as usize;
    let mut wanted: Vec<_> = world
        .model
        .iter()
        .filter(|(_, (_, g))| group.is_none_or(|group| *g == group))
        .map(|(key, (vector, _))| (closeness(world.suite.metric, &query, vector), key.clone()))
        .collect();
    wanted.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let request = SearchRequest {
        top_k,
        exact,
        explain: true,
        filter: group.map(|group| Filter::eq("group", Value::Int(group))),
        ..SearchRequest::new(Query::Vector(query))
    };
    let answer = world.collection().search(&request).unwrap();
    let found: Vec<_> = answer.hits.iter().map(|hit| (hit.score, hit.id.as_str().to_owned())).collect();
    if exact {
        wanted.truncate(top_k);
        assert_eq!(found, wanted, "{group:?} {:?}", answer.explain);
    } else {
        // The graph may miss one, but never returns a wrong one, a dead one or too few.
        assert_eq!(found.len(), top_k.min(wanted.len()));
        assert!(found.iter().all(|hit| wanted.contains(hit)), "{found:?} not in {wanted:?}");
    }
}

/// Half of them by each metric.
fn run_histories(metric: Metric) {
    histories::run(&Vectors { metric }, 36, 6);
}

#[test]
fn random_histories_by_dot_product_match_the_model() {
    run_histories(Metric::Dot);
}

#[test]
fn random_histories_by_euclidean_distance_match_the_model() {
    run_histories(Metric::L2);
}
