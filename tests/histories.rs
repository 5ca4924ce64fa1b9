//! Random histories against a plain model: a BTreeMap and an exact scan, reopened at random points.

use std::collections::BTreeMap;
use std::path::Path;

use pannier::collection::ListRequest;
use pannier::types::{Filter, Metric, Query, SearchRequest, Value};
use pannier::{Collection, Database, DefinitionRequest, Options};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Random, document, id, name, number_from};

const DIM: usize = 5;
const IDS: u64 = 40;
const GROUPS: u64 = 3;

#[derive(Clone, Debug)]
enum Step {
    Upsert(u8),
    Delete(u8),
    DeleteGroup,
    Flush,
    Optimise,
    Reopen,
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..20u8).prop_map(Step::Upsert),
        4 => (1..6u8).prop_map(Step::Delete),
        1 => Just(Step::DeleteGroup),
        2 => Just(Step::Flush),
        1 => Just(Step::Optimise),
        2 => Just(Step::Reopen),
        4 => Just(Step::Check),
    ]
}

/// What the store must hold: id to vector and group.
type Model = BTreeMap<String, (Vec<f32>, i64)>;

fn closeness(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    // A sum of nothing but negative zeros is one, and would stand below the others that are zero.
    0.0 + match metric {
        Metric::L2 => -a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f32>().sqrt(),
        Metric::Dot | Metric::Cosine => a.iter().zip(b).map(|(x, y)| x * y).sum(),
    }
}

struct World {
    path: std::path::PathBuf,
    metric: Metric,
    open: Option<(Database, Collection)>,
    model: Model,
    random: Random,
}

fn open(path: &Path, metric: Metric) -> (Database, Collection) {
    let options = Options { memtable_documents: Some(25), ..Options::default() };
    let database = Database::open_with(path, options).unwrap();
    let request = DefinitionRequest { metric: Some(metric), ..DefinitionRequest::vectors(DIM as u32) };
    let collection = database.create_collection(&name("things"), &request).unwrap().collection;
    (database, collection)
}

impl World {
    fn new(path: &Path, metric: Metric, seed: u64) -> Self {
        let open = Some(open(path, metric));
        Self { path: path.to_owned(), metric, open, model: Model::new(), random: Random(seed) }
    }

    fn collection(&self) -> &Collection {
        &self.open.as_ref().unwrap().1
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Upsert(count) => self.upsert(*count),
            Step::Delete(count) => self.delete(*count),
            Step::DeleteGroup => {
                let group = self.random.below(GROUPS) as i64;
                let before = self.model.len();
                self.model.retain(|_, (_, g)| *g != group);
                let deleted = self.collection().delete_matching(&Filter::eq("group", Value::Int(group))).unwrap();
                assert_eq!(deleted.deleted, before - self.model.len());
            }
            Step::Flush => self.collection().flush().unwrap(),
            Step::Optimise => self.collection().optimise().unwrap(),
            Step::Reopen => {
                self.open = None;
                self.open = Some(open(&self.path, self.metric));
            }
            Step::Check => self.check(),
        }
    }

    fn upsert(&mut self, count: u8) {
        let mut batch = BTreeMap::new();
        for _ in 0..count {
            let key = format!("doc-{:02}", self.random.below(IDS));
            let value = (self.random.whole_vector(DIM), self.random.below(GROUPS) as i64);
            batch.insert(key, value);
        }
        let documents = batch.iter().map(|(key, (vector, group))| document(key, vector, *group)).collect();
        let written = self.collection().upsert(documents).unwrap();
        assert_eq!(written.upserted, batch.len());
        self.model.extend(batch);
    }

    fn delete(&mut self, count: u8) {
        let keys: Vec<_> = (0..count).map(|_| format!("doc-{:02}", self.random.below(IDS))).collect();
        let before = self.model.len();
        for key in &keys {
            self.model.remove(key);
        }
        let ids: Vec<_> = keys.iter().map(|key| id(key)).collect();
        assert_eq!(self.collection().delete(&ids).unwrap().deleted, before - self.model.len());
    }

    fn check(&mut self) {
        self.check_documents();
        for filter in [None, Some(self.random.below(GROUPS) as i64)] {
            for exact in [true, false] {
                self.check_search(filter, exact);
            }
        }
    }

    fn check_documents(&self) {
        let collection = self.collection();
        assert_eq!(collection.stats().documents, self.model.len() as u64);
        let mut listed = Vec::new();
        let mut request = ListRequest { after: None, limit: 7, filter: None };
        loop {
            let page = collection.list(&request).unwrap();
            listed.extend(page.documents);
            match page.next {
                Some(next) => request.after = Some(next),
                None => break,
            }
        }
        let found: Vec<_> = listed.iter().map(|d| (d.stored.id.as_str(), d.vector.as_slice())).collect();
        let wanted: Vec<_> = self.model.iter().map(|(key, (vector, _))| (key.as_str(), vector.as_slice())).collect();
        assert_eq!(found, wanted);
        for n in 0..IDS {
            let key = format!("doc-{n:02}");
            let got = collection.get(&id(&key)).unwrap();
            assert_eq!(got.map(|d| d.vector), self.model.get(&key).map(|(vector, _)| vector.clone()), "{key}");
        }
    }

    fn check_search(&mut self, group: Option<i64>, exact: bool) {
        let query = self.random.whole_vector(DIM);
        let top_k = 1 + self.random.below(12) as usize;
        let mut wanted: Vec<_> = self
            .model
            .iter()
            .filter(|(_, (_, g))| group.is_none_or(|group| *g == group))
            .map(|(key, (vector, _))| (closeness(self.metric, &query, vector), key.clone()))
            .collect();
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let request = SearchRequest {
            top_k,
            exact,
            explain: true,
            filter: group.map(|group| Filter::eq("group", Value::Int(group))),
            ..SearchRequest::new(Query::Vector(query))
        };
        let answer = self.collection().search(&request).unwrap();
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
}

/// Half of `PANNIER_TEST_HISTORIES` histories, in threads that each have seeds of their own.
fn run_histories(metric: Metric) {
    const THREADS: u64 = 6;
    let cases = number_from("PANNIER_TEST_HISTORIES", 72) / 2 / THREADS;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(move || run_some(metric, cases as u32));
        }
    });
}

fn run_some(metric: Metric, cases: u32) {
    let steps = prop::collection::vec(step(), 1..25);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(any::<u64>(), steps), |(seed, steps)| {
            let directory = tempfile::tempdir().unwrap();
            let mut world = World::new(directory.path(), metric, seed);
            for step in &steps {
                world.run(step);
            }
            world.run(&Step::Check);
            world.run(&Step::Reopen);
            world.run(&Step::Check);
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_histories_by_dot_product_match_the_model() {
    run_histories(Metric::Dot);
}

#[test]
fn random_histories_by_euclidean_distance_match_the_model() {
    run_histories(Metric::L2);
}
