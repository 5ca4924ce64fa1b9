//! Documents of several vectors: random histories against a plain model in which a document is as near as its nearest
//! chunk, reopened and restored at random points.

use std::path::Path;

use pannier::collection::{ChunkRequest, ListRequest};
use pannier::types::{Chunk, Filter, Grouping, Hit, Metric, NewDocument, Query, SearchRequest, SearchResponse, Value};
use pannier::{Collection, Database, DefinitionRequest, Options};

use crate::support::histories::{self, Doomed, Suite};
use crate::support::{Random, document, id, name};

const DIM: usize = 5;
const GROUPS: u64 = 3;
const MAX_CHUNKS: u64 = 7;

#[derive(Clone, Copy)]
struct Chunked;

type World = histories::World<Chunked>;

impl Suite for Chunked {
    /// Chunks and group.
    type Entry = (Vec<Vec<f32>>, i64);
    const IDS: u64 = 30;

    fn open(&self, path: &Path) -> (Database, Collection) {
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

    fn entry(&self, random: &mut Random) -> Self::Entry {
        let chunks = 1 + random.below(MAX_CHUNKS);
        ((0..chunks).map(|_| random.whole_vector(DIM)).collect(), random.below(GROUPS) as i64)
    }

    fn document(&self, key: &str, (vectors, group): &Self::Entry) -> NewDocument {
        of_chunks(key, vectors, *group)
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
        check_groups(world);
        check_query_by_id(world);
    }
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

fn check_documents(world: &World) {
    let collection = world.collection();
    assert_eq!(collection.stats().documents, world.model.len() as u64);
    let page = collection.list(&ListRequest { limit: 100, ..ListRequest::default() }).unwrap();
    let listed: Vec<(&str, Vec<Vec<f32>>)> = page
        .documents
        .iter()
        .map(|d| (d.stored.id.as_str(), d.chunks.iter().map(|chunk| chunk.vector.clone()).collect()))
        .collect();
    let wanted: Vec<_> = world.model.iter().map(|(key, (vectors, _))| (key.as_str(), vectors.clone())).collect();
    assert_eq!(listed, wanted);
}

/// Every document that passes, nearest first, ties by id.
fn ranking(world: &World, query: &[f32], group: Option<i64>) -> Vec<Found> {
    let passing = world.model.iter().filter(|(_, (_, g))| group.is_none_or(|group| *g == group));
    let mut ranking: Vec<Found> = passing
        .map(|(key, (vectors, _))| {
            let (chunk, score) = nearest(query, vectors);
            (score, key.clone(), chunk)
        })
        .collect();
    ranking.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    ranking
}

fn search(world: &World, request: &SearchRequest) -> SearchResponse {
    world.collection().search(request).unwrap()
}

fn check_search(world: &mut World, group: Option<i64>, exact: bool) {
    let query = world.random.whole_vector(DIM);
    let top_k = 1 + world.random.below(12) as usize;
    let mut wanted = ranking(world, &query, group);
    let request = SearchRequest {
        top_k,
        exact,
        filter: group.map(|group| Filter::eq("group", Value::Int(group))),
        facets: vec!["group".to_owned()],
        ..SearchRequest::new(Query::Vector(query))
    };
    let answer = search(world, &request);
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

fn check_groups(world: &mut World) {
    let query = world.random.whole_vector(DIM);
    let grouping = Some(Grouping { field: "group".into(), size: 3 });
    let request = SearchRequest { exact: true, grouping, ..SearchRequest::new(Query::Vector(query.clone())) };
    for group in search(world, &request).groups.unwrap() {
        let Value::Int(number) = group.value else { panic!("{:?}", group.value) };
        let mut wanted = ranking(world, &query, Some(number));
        wanted.truncate(3);
        assert_eq!(found(&group.hits), wanted);
    }
}

/// A document stands for the mean of its chunks, and is no hit of its own.
fn check_query_by_id(world: &World) {
    let Some((key, (chunks, _))) = world.model.iter().next() else { return };
    let sum: Vec<f32> = (0..DIM).map(|at| chunks.iter().map(|chunk| chunk[at]).sum()).collect();
    if chunks.len() != 4 || sum.iter().all(|x| *x == 0.0) {
        return;
    }
    // A mean of four whole numbers is exact.
    let mean: Vec<f32> = sum.iter().map(|x| x / 4.0).collect();
    let mut wanted = ranking(world, &mean, None);
    wanted.retain(|(_, id, _)| id != key);
    wanted.truncate(10);
    let request = SearchRequest { exact: true, ..SearchRequest::new(Query::Document(id(key))) };
    assert_eq!(found(&search(world, &request).hits), wanted);
}

#[test]
fn random_histories_of_chunks_match_the_model() {
    histories::run(&Chunked, 60, 2);
}

/// One document has more near chunks than a walk keeps candidates, and the others must be found behind it.
#[test]
fn a_document_of_many_near_chunks_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (_database, collection) = Chunked.open(directory.path());
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
