//! Documents of several vectors: random histories against a plain model in which a document is as near as its nearest
//! chunk, reopened at random points.

use std::collections::BTreeMap;
use std::path::Path;

use pannier::collection::{ChunkRequest, ListRequest};
use pannier::types::{Chunk, Filter, Grouping, Hit, Metric, NewDocument, Query, SearchRequest, SearchResponse, Value};
use pannier::{Collection, Database, DefinitionRequest, Options};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Random, document, id, name};

const DIM: usize = 5;
const IDS: u64 = 30;
const GROUPS: u64 = 3;
const MAX_CHUNKS: u64 = 7;

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
        8 => (1..12u8).prop_map(Step::Upsert),
        4 => (1..6u8).prop_map(Step::Delete),
        1 => Just(Step::DeleteGroup),
        2 => Just(Step::Flush),
        2 => Just(Step::Optimise),
        2 => Just(Step::Reopen),
        4 => Just(Step::Check),
    ]
}

/// What the store must hold: id to chunks and group.
type Model = BTreeMap<String, (Vec<Vec<f32>>, i64)>;

struct World {
    path: std::path::PathBuf,
    open: Option<(Database, Collection)>,
    model: Model,
    random: Random,
}

fn open(path: &Path) -> (Database, Collection) {
    let options = Options { memtable_documents: Some(15), ..Options::default() };
    let database = Database::open_with(path, options).unwrap();
    let request = DefinitionRequest {
        metric: Some(Metric::Dot),
        chunks: Some(ChunkRequest::default()),
        ..DefinitionRequest::vectors(DIM as u32)
    };
    let collection = database.create_collection(&name("things"), &request).unwrap().collection;
    (database, collection)
}

fn of_chunks(key: &str, vectors: &[Vec<f32>], group: i64) -> NewDocument {
    let chunks = vectors.iter().map(|vector| Chunk { span: None, vector: vector.clone() }).collect();
    NewDocument { vector: None, chunks, ..document(key, &[], group) }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The nearest chunk, the first of equals.
fn nearest(query: &[f32], chunks: &[Vec<f32>]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (at, chunk) in chunks.iter().enumerate() {
        if dot(query, chunk) > best.1 {
            best = (at, dot(query, chunk));
        }
    }
    best
}

/// Score, id and chunk.
type Found = (f32, String, usize);

fn found(hits: &[Hit]) -> Vec<Found> {
    hits.iter().map(|hit| (hit.score, hit.id.as_str().to_owned(), hit.chunk.as_ref().unwrap().index)).collect()
}

impl World {
    fn new(path: &Path, seed: u64) -> Self {
        Self { path: path.to_owned(), open: Some(open(path)), model: Model::new(), random: Random(seed) }
    }

    fn collection(&self) -> &Collection {
        &self.open.as_ref().unwrap().1
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Upsert(count) => self.upsert(*count),
            Step::Delete(count) => {
                let keys: Vec<_> = (0..*count).map(|_| format!("doc-{:02}", self.random.below(IDS))).collect();
                let before = self.model.len();
                keys.iter().for_each(|key| _ = self.model.remove(key));
                let ids: Vec<_> = keys.iter().map(|key| id(key)).collect();
                assert_eq!(self.collection().delete(&ids).unwrap().deleted, before - self.model.len());
            }
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
                self.open = Some(open(&self.path));
            }
            Step::Check => self.check(),
        }
    }

    fn upsert(&mut self, count: u8) {
        let mut batch = BTreeMap::new();
        for _ in 0..count {
            let key = format!("doc-{:02}", self.random.below(IDS));
            let chunks = 1 + self.random.below(MAX_CHUNKS);
            let vectors = (0..chunks).map(|_| self.random.whole_vector(DIM)).collect::<Vec<_>>();
            batch.insert(key, (vectors, self.random.below(GROUPS) as i64));
        }
        let documents = batch.iter().map(|(key, (vectors, group))| of_chunks(key, vectors, *group)).collect();
        assert_eq!(self.collection().upsert(documents).unwrap().upserted, batch.len());
        self.model.extend(batch);
    }

    fn check(&mut self) {
        self.check_documents();
        for filter in [None, Some(self.random.below(GROUPS) as i64)] {
            for exact in [true, false] {
                self.check_search(filter, exact);
            }
        }
        self.check_groups();
        self.check_query_by_id();
    }

    fn check_documents(&self) {
        let collection = self.collection();
        assert_eq!(collection.stats().documents, self.model.len() as u64);
        let page = collection.list(&ListRequest { after: None, limit: 100, filter: None }).unwrap();
        let listed: Vec<(&str, Vec<Vec<f32>>)> = page
            .documents
            .iter()
            .map(|d| (d.stored.id.as_str(), d.chunks.iter().map(|chunk| chunk.vector.clone()).collect()))
            .collect();
        let wanted: Vec<_> = self.model.iter().map(|(key, (vectors, _))| (key.as_str(), vectors.clone())).collect();
        assert_eq!(listed, wanted);
    }

    /// Every document that passes, nearest first, ties by id.
    fn ranking(&self, query: &[f32], group: Option<i64>) -> Vec<Found> {
        let passing = self.model.iter().filter(|(_, (_, g))| group.is_none_or(|group| *g == group));
        let mut ranking: Vec<Found> = passing
            .map(|(key, (vectors, _))| {
                let (chunk, score) = nearest(query, vectors);
                (score, key.clone(), chunk)
            })
            .collect();
        ranking.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        ranking
    }

    fn search(&self, request: &SearchRequest) -> SearchResponse {
        self.collection().search(request).unwrap()
    }

    fn check_search(&mut self, group: Option<i64>, exact: bool) {
        let query = self.random.whole_vector(DIM);
        let top_k = 1 + self.random.below(12) as usize;
        let mut wanted = self.ranking(&query, group);
        let request = SearchRequest {
            top_k,
            exact,
            filter: group.map(|group| Filter::eq("group", Value::Int(group))),
            facets: vec!["group".to_owned()],
            ..SearchRequest::new(Query::Vector(query))
        };
        let answer = self.search(&request);
        let counted: u64 = answer.facets[0].values.iter().map(|(_, count)| count).sum();
        assert_eq!((counted, answer.facets[0].documents), (wanted.len() as u64, wanted.len() as u64));
        let found = found(&answer.hits);
        if exact {
            wanted.truncate(top_k);
            assert_eq!(found, wanted, "{group:?}");
        } else {
            // The graph may miss one, but never returns a wrong one, a dead one, one twice or too few.
            assert_eq!(found.len(), top_k.min(wanted.len()));
            assert!(found.iter().all(|hit| wanted.contains(hit)), "{found:?} not in {wanted:?}");
            let ids: std::collections::BTreeSet<_> = found.iter().map(|(_, id, _)| id).collect();
            assert_eq!(ids.len(), found.len(), "{found:?}");
        }
    }

    fn check_groups(&mut self) {
        let query = self.random.whole_vector(DIM);
        let grouping = Some(Grouping { field: "group".into(), size: 3 });
        let request = SearchRequest { exact: true, grouping, ..SearchRequest::new(Query::Vector(query.clone())) };
        for group in self.search(&request).groups.unwrap() {
            let Value::Int(number) = group.value else { panic!("{:?}", group.value) };
            let mut wanted = self.ranking(&query, Some(number));
            wanted.truncate(3);
            assert_eq!(found(&group.hits), wanted);
        }
    }

    /// A document stands for the mean of its chunks, and is no hit of its own.
    fn check_query_by_id(&self) {
        let Some((key, (chunks, _))) = self.model.iter().next() else { return };
        let sum: Vec<f32> = (0..DIM).map(|at| chunks.iter().map(|chunk| chunk[at]).sum()).collect();
        if chunks.len() != 4 || sum.iter().all(|x| *x == 0.0) {
            return;
        }
        // A mean of four whole numbers is exact.
        let mean: Vec<f32> = sum.iter().map(|x| x / 4.0).collect();
        let mut wanted = self.ranking(&mean, None);
        wanted.retain(|(_, id, _)| id != key);
        wanted.truncate(10);
        let request = SearchRequest { exact: true, ..SearchRequest::new(Query::Document(id(key))) };
        assert_eq!(found(&self.search(&request).hits), wanted);
    }
}

#[test]
fn random_histories_of_chunks_match_the_model() {
    let steps = prop::collection::vec(step(), 1..25);
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(any::<u64>(), steps), |(seed, steps)| {
            let directory = tempfile::tempdir().unwrap();
            let mut world = World::new(directory.path(), seed);
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

/// One document has more near chunks than a walk keeps candidates, and the others must be found behind it.
#[test]
fn a_document_of_many_near_chunks_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (_database, collection) = open(directory.path());
    let mut random = Random(3);
    let many: Vec<Vec<f32>> = (0..900).map(|n| vec![100.0, n as f32 / 1_000.0, 0.0, 0.0, 0.0]).collect();
    collection.upsert(vec![of_chunks("many", &many, 0)]).unwrap();
    for n in 0..200u64 {
        let vectors: Vec<_> = (0..1 + n % 3).map(|_| random.whole_vector(DIM)).collect();
        collection.upsert(vec![of_chunks(&format!("few-{n:03}"), &vectors, (n % 2) as i64)]).unwrap();
    }
    let query = || Query::Vector(vec![1.0, 0.0, 0.0, 0.0, 0.0]);
    for optimised in [false, true] {
        if optimised {
            collection.optimise().unwrap();
        }
        for filter in [None, Some(Filter::eq("group", Value::Int(0)))] {
            let request = SearchRequest { top_k: 20, filter, ..SearchRequest::new(query()) };
            let found = found(&collection.search(&request).unwrap().hits);
            assert_eq!((found.len(), found[0].1.as_str()), (20, "many"), "{found:?}");
            let exact = SearchRequest { exact: true, ..request };
            let wanted = collection.search(&exact).unwrap().hits;
            assert_eq!(found[1].0, wanted[1].score);
        }
    }
    collection.delete(&[id("many")]).unwrap();
    let after = collection.search(&SearchRequest { top_k: 200, ..SearchRequest::new(query()) }).unwrap();
    assert!(after.hits.len() == 200 && after.hits.iter().all(|hit| hit.id != id("many")));
}
