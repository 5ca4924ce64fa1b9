//! Collections whose documents stand in Postgres: what several processes see of one table, what breaks, and what the
//! index finds.

mod faults;
mod filters;
mod limits;
mod names;
mod patches;
mod shared;

use pannier::backend::{AnyCollection, Collections, CreatedAnywhere, Placement, UrlFrom};
use pannier::collection::{BackendFault, ChunkRequest};
use pannier::types::{
    Condition, Filter, Metric, Mode, NewDocument, Paging, Plan, Quantization, Query, SearchRequest, SearchResponse,
    Value, VectorStorage,
};
use pannier::{CollectionError, Database, DefinitionRequest};
use serde_json::json;

use crate::api::server::Server as ApiServer;
use crate::replicate::pooler::Pooler;
use crate::support::postgres::{Server, TestDatabase, Version, database, server};
use crate::support::{Random, document, id, name};

/// A process that shares a database with others: a store of its own and the file with the URL.
struct Sidecar {
    collections: Collections,
    database: Database,
    directory: tempfile::TempDir,
}

impl Sidecar {
    fn new(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("url"), url).unwrap();
        Self::over(directory)
    }

    fn over(directory: tempfile::TempDir) -> Self {
        let database = Database::open(directory.path().join("data")).unwrap();
        Self { collections: Collections::open(&database), database, directory }
    }

    /// The same directory, opened again.
    fn again(self) -> Self {
        let Self { collections, database, directory } = self;
        drop(collections);
        database.close();
        Self::over(directory)
    }

    fn url(&self) -> UrlFrom {
        UrlFrom::File(self.directory.path().join("url"))
    }

    fn placed(&self, table: &str) -> Placement {
        Placement::new(&name("c"), Some(self.url()), None, Some(table.to_owned()))
    }

    fn create_with(&self, request: &DefinitionRequest, table: &str) -> Result<CreatedAnywhere, CollectionError> {
        self.collections.create_remote(&name("c"), request, self.placed(table))
    }

    fn create(&self) -> AnyCollection {
        self.create_with(&DefinitionRequest::vectors(3), "shared").unwrap().collection
    }
}

fn search(vector: &[f32]) -> SearchRequest {
    SearchRequest::new(Query::Vector(vector.to_vec()))
}

fn found(collection: &AnyCollection, request: &SearchRequest) -> Vec<String> {
    collection.search(request).unwrap().hits.iter().map(|hit| hit.id.to_string()).collect()
}

#[track_caller]
fn fault(result: Result<impl Sized, CollectionError>) -> (BackendFault, String) {
    match result.map(drop) {
        Err(CollectionError::Backend { fault, detail, .. }) => (fault, detail),
        other => panic!("no failure of a backend: {other:?}"),
    }
}

#[track_caller]
fn not_on_backend(result: Result<impl Sized, CollectionError>) -> String {
    match result.map(drop) {
        Err(error @ CollectionError::NotOnBackend { .. }) => error.to_string(),
        other => panic!("it was not refused: {other:?}"),
    }
}

#[test]
fn two_processes_on_one_table_see_each_others_writes_at_once() {
    let postgres = database();
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    let (a, b) = (one.create(), two.create());
    assert_eq!(a.created_at_ms(), b.created_at_ms());
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let id_text = format!("d{n:02}");
        let written = writer.upsert(vec![document(&id_text, &[1.0, n as f32, 0.0], n)]).unwrap();
        let read = reader.get(&id(&id_text)).unwrap().unwrap();
        assert_eq!(read.seq, written.seq);
        assert_eq!(found(reader, &search(&[1.0, n as f32, 0.0]))[0], id_text);
        let words = SearchRequest { mode: Mode::Keyword, ..SearchRequest::new(Query::Text(id_text.clone())) };
        assert_eq!(found(reader, &words)[0], id_text);
    }
    let filter = Filter::Field { path: "group".into(), condition: Condition::Lt(Value::Int(5)) };
    assert_eq!(a.delete_matching(&filter).unwrap().deleted, 5);
    assert_eq!(b.stats().unwrap().documents, 15);
    let deleted = b.delete(&[id("d05"), id("d00")]).unwrap();
    assert_eq!(deleted.deleted, 1);
    for collection in [&a, &b] {
        assert_eq!(collection.stats().unwrap().last_seq, deleted.seq);
    }
    assert!(a.get(&id("d05")).unwrap().is_none());
    // Nothing of it is in the stores.
    assert!(one.database.collections().is_empty() && two.database.collections().is_empty());
}

#[test]
fn a_table_is_taken_over_only_by_the_same_definition() {
    let postgres = database();
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    assert!(one.create_with(&DefinitionRequest::vectors(3), "t").unwrap().created);
    assert!(!one.create_with(&DefinitionRequest::vectors(3), "t").unwrap().created);
    let other = one.create_with(&DefinitionRequest::vectors(4), "t").err().unwrap();
    assert!(matches!(other, CollectionError::Exists { .. }), "{other}");
    let metric = DefinitionRequest { metric: Some(Metric::L2), ..DefinitionRequest::vectors(3) };
    let (kind, detail) = fault(two.create_with(&metric, "t"));
    assert_eq!(kind, BackendFault::Conflict);
    assert!(detail.contains("metric: cosine != l2"), "{detail}");
    postgres.run("create table pannier.theirs (id int)");
    let (kind, detail) = fault(two.create_with(&DefinitionRequest::vectors(3), "theirs"));
    assert_eq!(kind, BackendFault::Conflict);
    assert!(detail.contains("not made by Pannier"), "{detail}");
    // A local collection of the name stays what it is, and so does a remote one.
    two.database.create_collection(&name("c"), &DefinitionRequest::vectors(3)).unwrap();
    let taken = two.create_with(&DefinitionRequest::vectors(3), "t").err().unwrap();
    assert!(matches!(taken, CollectionError::Exists { .. }), "{taken}");
    let taken = one.collections.create_local(&name("c"), &DefinitionRequest::vectors(3)).err().unwrap();
    assert!(taken.to_string().contains("backend: pannier.t != none"), "{taken}");
    postgres.run("alter table pannier.t drop column content cascade");
    let three = Sidecar::new(&postgres.url);
    let (kind, detail) = fault(three.create_with(&DefinitionRequest::vectors(3), "t"));
    assert_eq!(kind, BackendFault::Drift);
    assert!(detail.contains("column content is missing"), "{detail}");
}

#[test]
fn a_collection_is_there_after_a_restart_and_goes_when_it_is_dropped() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    one.create().upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let one = one.again();
    let collection = one.collections.get(&name("c")).unwrap();
    assert_eq!(found(&collection, &search(&[1.0, 0.0, 0.0])), ["a"]);
    let kept = std::fs::read_to_string(one.directory.path().join("data/backends.json")).unwrap();
    assert!(kept.contains("\"shared\"") && !kept.contains("postgres://"), "{kept}");
    // Forgotten here, it stands for others, and comes back whole.
    one.collections.drop_collection(&name("c"), true).unwrap();
    assert!(matches!(one.collections.get(&name("c")), Err(CollectionError::NotFound { .. })));
    let collection = one.create();
    assert!(collection.get(&id("a")).unwrap().is_some());
    one.collections.drop_collection(&name("c"), false).unwrap();
    assert_eq!(postgres.value("select count(*)::text from pannier.pannier_collections"), "0");
    assert_eq!(postgres.value("select to_regclass('pannier.shared') is null"), "t");
    let (kind, _) = fault(collection.get(&id("a")));
    assert_eq!(kind, BackendFault::Drift);
    let one = one.again();
    assert!(matches!(one.collections.get(&name("c")), Err(CollectionError::NotFound { .. })));
    one.database.create_collection(&name("l"), &DefinitionRequest::vectors(3)).unwrap();
    let refused = one.collections.drop_collection(&name("l"), true).unwrap_err();
    assert!(matches!(refused, CollectionError::Query { .. }), "{refused}");
}

#[test]
fn a_database_that_is_away_is_said_so_and_nothing_else_stops() {
    let postgres = Server::start(Version::V16);
    let shared = postgres.database();
    // The server forgets nothing that it committed, although it is killed.
    shared.run(&format!("alter database {} set synchronous_commit = on", shared.name));
    let one = Sidecar::new(&shared.url);
    let collection = one.create();
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let local = one.collections.create_local(&name("l"), &DefinitionRequest::vectors(3)).unwrap().collection;
    postgres.kill();
    for _ in 0..2 {
        let (kind, detail) = fault(collection.get(&id("a")));
        assert_eq!(kind, BackendFault::Unreachable);
        assert!(detail.contains("Try again"), "{detail}");
        let (kind, _) = fault(collection.upsert(vec![document("b", &[1.0, 0.0, 0.0], 1)]));
        // The first write may go out on a session that does not know yet.
        assert!(matches!(kind, BackendFault::Unreachable | BackendFault::Unknown), "{kind:?}");
        local.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    }
    drop(local);
    let one = one.again();
    let collection = one.collections.get(&name("c")).unwrap();
    fault(collection.stats());
    postgres.restart();
    assert_eq!(found(&collection, &search(&[1.0, 0.0, 0.0])), ["a"]);
    collection.upsert(vec![document("b", &[0.0, 1.0, 0.0], 1)]).unwrap();
    assert_eq!(collection.stats().unwrap().documents, 2);
}

#[test]
fn sessions_that_the_server_ends_are_replaced() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    for n in 0..5 {
        collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], n)]).unwrap();
        postgres.run(
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid()",
        );
        assert_eq!(found(&collection, &search(&[1.0, 0.0, 0.0])), ["a"]);
    }
}

#[test]
fn what_the_backend_has_not_is_refused_by_name() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let vectors = DefinitionRequest::vectors;
    let chunks = Some(ChunkRequest { max_tokens: Some(9), overlap_tokens: None });
    for (request, wanted) in [
        (DefinitionRequest { chunks, ..vectors(3) }, "\"chunks\""),
        (vectors(2_001), "4000 with \"index.storage\": \"float16\""),
        (DefinitionRequest { storage: Some(VectorStorage::Float16), ..vectors(4_001) }, "4000"),
        (DefinitionRequest { quantization: Some(Quantization::Int8), ..vectors(3) }, "quantization"),
        (DefinitionRequest { ef_construction: Some(1_001), ..vectors(3) }, "1000"),
    ] {
        let refused = not_on_backend(one.create_with(&request, "t"));
        assert!(refused.contains(wanted), "{refused}");
    }
    assert!(not_on_backend(one.create_with(&vectors(3), &"t".repeat(64))).contains("backend.table"));
    let collection = one.create();
    let nul = NewDocument { text: Some("a\0b".into()), ..document("n", &[1.0, 0.0, 0.0], 1) };
    assert!(not_on_backend(collection.upsert(vec![nul])).contains("\"n\""));
    let many = SearchRequest { ef_search: Some(1_001), ..search(&[1.0, 0.0, 0.0]) };
    assert!(not_on_backend(collection.search(&many)).contains("1000"));
    // It has no effect there, as on a collection of the store.
    collection.search(&SearchRequest { exact: true, ..many }).unwrap();
    let deep = Filter::eq("a.b.c.d.e.f.g.h", Value::Null);
    assert!(not_on_backend(collection.delete_matching(&deep)).contains("dots"));
    let missing = Placement::new(&name("d"), Some(UrlFrom::Variable("PANNIER_NO_SUCH".into())), None, None);
    let (kind, detail) = fault(one.collections.create_remote(&name("d"), &vectors(3), missing));
    assert_eq!(kind, BackendFault::Settings);
    assert!(detail.contains("PANNIER_NO_SUCH"), "{detail}");
    let bare = Sidecar::new(&server(Version::V16).bare_database().url);
    assert!(!bare.create_with(&vectors(3), "t").unwrap().collection.name().as_str().is_empty());
}

#[test]
fn no_password_is_shown() {
    let postgres = database();
    let url = postgres.url.replace("postgres@", "scram_nobody:s3cret@");
    let (kind, detail) = fault(Sidecar::new(&url).create_with(&DefinitionRequest::vectors(3), "t"));
    assert_eq!(kind, BackendFault::Authentication);
    assert!(detail.contains("scram_nobody") && !detail.contains("s3cret"), "{detail}");
}

/// More documents than are compared one by one, in a table that Postgres has figures of.
fn large(
    postgres: &TestDatabase,
    metric: Metric,
    storage: Option<VectorStorage>,
) -> (Sidecar, AnyCollection, Vec<Vec<f32>>) {
    let one = Sidecar::new(&postgres.url);
    let request = DefinitionRequest { metric: Some(metric), storage, ..DefinitionRequest::vectors(8) };
    let collection = one.create_with(&request, "large").unwrap().collection;
    let mut random = Random(5);
    let mut number = || random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0;
    let vectors: Vec<Vec<f32>> = (0..6_000).map(|_| (0..8).map(|_| number()).collect()).collect();
    for (n, part) in vectors.chunks(1_000).enumerate() {
        let new = |(m, vector): (usize, &Vec<f32>)| document(&format!("d{}", n * 1_000 + m), vector, (m % 500) as i64);
        collection.upsert(part.iter().enumerate().map(new).collect()).unwrap();
    }
    postgres.run("analyze pannier.large");
    (one, collection, vectors)
}

fn many_documents_are_searched_by_the_index_on(version: Version) {
    let half = Some(VectorStorage::Float16);
    for (metric, storage) in [(Metric::Cosine, None), (Metric::Dot, None), (Metric::L2, None), (Metric::Cosine, half)] {
        let postgres = server(version).database();
        let (_one, collection, vectors) = large(&postgres, metric, storage);
        let mut hits = 0;
        for vector in vectors.iter().step_by(200) {
            let exact = SearchRequest { exact: true, ..search(vector) };
            let (exact, near) = (collection.search(&exact).unwrap(), collection.search(&search(vector)).unwrap());
            assert_eq!((exact.plan, near.plan), (Plan::Exact, Plan::Graph));
            assert!(near.hits.is_sorted_by(|a, b| (b.score, a.id.as_str()) <= (a.score, b.id.as_str())));
            // A hit as near as the last wanted is as good.
            let least = exact.hits.last().unwrap().score;
            hits += near.hits.iter().filter(|hit| hit.score >= least - 1e-5).count();
        }
        assert!(hits >= 285, "{hits} of 300 by {metric:?}, {storage:?}");
        let explained = collection.search(&SearchRequest { explain: true, ..search(&vectors[0]) }).unwrap();
        let lines = explained.explain.unwrap().database.join("\n");
        assert!(lines.contains("Index Scan using large_embedding_idx"), "{lines}");
        let rare = Filter::eq("group", Value::Int(7));
        let request = SearchRequest { filter: Some(rare), explain: true, top_k: 20, ..search(&vectors[0]) };
        let answer = collection.search(&request).unwrap();
        assert_eq!(answer.hits.len(), 12, "{:?}", answer.explain);
    }
}

#[test]
fn many_documents_are_searched_by_the_index_and_filters_still_fill_the_page_on_16() {
    many_documents_are_searched_by_the_index_on(Version::V16);
}

#[test]
fn many_documents_are_searched_by_the_index_and_filters_still_fill_the_page_on_18() {
    many_documents_are_searched_by_the_index_on(Version::V18);
}

/// The ids of so many pages, cursor by cursor.
fn paged(search: impl Fn(&SearchRequest) -> SearchResponse, request: &SearchRequest, pages: usize) -> Vec<String> {
    let (mut ids, mut paging) = (Vec::new(), Paging::FirstPage);
    for _ in 0..pages {
        let answer = search(&SearchRequest { paging: paging.clone(), ..request.clone() });
        ids.extend(answer.hits.iter().map(|hit| hit.id.to_string()));
        paging = Paging::After(answer.next.unwrap());
    }
    ids
}

#[test]
fn pages_fit_together_where_many_scores_are_equal() {
    const TOP_K: usize = 40;
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let request = DefinitionRequest { metric: Some(Metric::L2), ..DefinitionRequest::vectors(3) };
    let remote = one.create_with(&request, "equals").unwrap().collection;
    let local = one.collections.create_local(&name("l"), &request).unwrap().collection;
    // Whole distances are the same numbers on both sides: 300 documents are 20 away, the others further each.
    let far = |n: usize| if n < 300 { 20.0 } else { n as f32 };
    let documents: Vec<_> =
        (0..5_000).map(|n| document(&format!("{:04}", n * 7_919 % 5_000), &[far(n) + 1.0, 0.0, 0.0], 1)).collect();
    for part in documents.chunks(1_000) {
        remote.upsert(part.to_vec()).unwrap();
        local.upsert(part.to_vec()).unwrap();
    }
    postgres.run("analyze pannier.equals");
    let request = SearchRequest { top_k: TOP_K, ..search(&[1.0, 0.0, 0.0]) };
    let wanted = paged(|request| local.search(request).unwrap(), &request, 10);
    assert_eq!(paged(|request| remote.search(request).unwrap(), &request, 10), wanted);
    let page = |n: usize| SearchRequest { paging: Paging::Offset(n * TOP_K), ..request.clone() };
    let by_offset: Vec<String> = (0..10).flat_map(|n| found(&remote, &page(n))).collect();
    assert_eq!(by_offset, wanted);
    assert_eq!(found(&remote, &SearchRequest { top_k: 5, ..request.clone() }), wanted[..5]);
    // Where nothing is equal, the index answers.
    let apart = search(&[4_000.0, 0.0, 0.25]);
    let answer = remote.search(&SearchRequest { top_k: 4, ..apart }).unwrap();
    assert_eq!(answer.plan, Plan::Exact, "n and n + 1 are as far on both sides");
    let answer = remote.search(&search(&[4_000.25, 0.0, 0.0])).unwrap();
    assert_eq!(answer.plan, Plan::Graph);
}

#[test]
fn vectors_of_half_precision_stand_as_they_are_and_may_be_twice_as_long() {
    const DIM: usize = 4_000;
    for version in [Version::V16, Version::V18] {
        let postgres = server(version).database();
        let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
        let storage = Some(VectorStorage::Float16);
        let request = DefinitionRequest { storage, metric: Some(Metric::L2), ..DefinitionRequest::vectors(DIM as u32) };
        let collection = one.create_with(&request, "half").unwrap().collection;
        let mut random = Random(23);
        let vectors: Vec<Vec<f32>> =
            (0..20).map(|_| (0..DIM).map(|_| random.below(1 << 24) as f32 / 16_777_216.0).collect()).collect();
        let new = |(n, vector): (usize, &Vec<f32>)| document(&format!("d{n:02}"), vector, n as i64);
        collection.upsert(vectors.iter().enumerate().map(new).collect()).unwrap();
        // Another server takes it over, and reads what the first rounded.
        let again = two.create_with(&request, "half").unwrap().collection;
        for (n, vector) in vectors.iter().enumerate() {
            let mut rounded = vector.clone();
            pannier::types::round_to_half(&mut rounded).unwrap();
            assert_ne!(&rounded, vector);
            assert_eq!(again.get(&id(&format!("d{n:02}"))).unwrap().unwrap().vector, rounded);
            assert_eq!(found(&again, &search(vector))[0], format!("d{n:02}"));
        }
        assert_eq!(
            postgres.value(
                "select format_type(atttypid, atttypmod) from pg_attribute \
                 where attrelid = 'pannier.half'::regclass and attname = 'embedding'"
            ),
            "halfvec(4000)"
        );
        let query = format!("[{}]", vec!["0.5"; DIM].join(","));
        let plan = postgres.column(&format!(
            "set enable_seqscan = off; explain select id from pannier.half order by embedding <-> '{query}' limit 3"
        ));
        assert!(plan.iter().any(|line| line.contains("Index Scan using half_embedding_idx")), "{plan:?}");
        // In f32 it is another table.
        let three = Sidecar::new(&postgres.url);
        let (kind, detail) =
            fault(three.create_with(&DefinitionRequest { storage: None, dim: Some(2_000), ..request }, "half"));
        assert_eq!(kind, BackendFault::Conflict, "{detail}");
    }
}

#[test]
fn a_transaction_pooler_stands_between() {
    let postgres = database();
    let Some(pooler) = Pooler::start(&postgres) else { return };
    let sidecars = [Sidecar::new(&pooler.url(&postgres)), Sidecar::new(&pooler.url(&postgres))];
    let collections: Vec<_> = sidecars.iter().map(Sidecar::create).collect();
    std::thread::scope(|scope| {
        for (n, collection) in collections.iter().enumerate() {
            for part in 0..3 {
                scope.spawn(move || {
                    for m in 0..20 {
                        let id_text = format!("{n}-{part}-{m}");
                        let new = document(&id_text, &[1.0, m as f32, part as f32], m);
                        collection.upsert(vec![new, document("same", &[1.0, 1.0, 1.0], m)]).unwrap();
                        let filter = Some(Filter::eq("group", Value::Int(m)));
                        let request = SearchRequest { filter, top_k: 100, ..search(&[1.0, m as f32, part as f32]) };
                        assert!(found(collection, &request).contains(&id_text));
                    }
                });
            }
        }
    });
    assert_eq!(collections[0].stats().unwrap().documents, 121);
}

#[test]
fn the_api_shows_the_backend_and_says_what_it_has_not() {
    let postgres = database();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("url");
    std::fs::write(&file, &postgres.url).unwrap();
    let server = ApiServer::start();
    let backend = json!({"type": "postgres", "url_file": file, "schema": "mine"});
    let made = server.put("/v1/collections/c", &json!({"dim": 3, "backend": backend})).ok();
    let shown = json!({"type": "postgres", "url_file": file, "schema": "mine", "table": "c"});
    assert_eq!(made["backend"], shown);
    assert_eq!(server.get("/v1/collections").ok()["collections"][0]["backend"], shown);
    server.put("/v1/collections/c", &json!({"dim": 3})).refused(409, "definition_conflict");
    let chunks = json!({"dim": 3, "chunks": {}, "backend": backend});
    server.put("/v1/collections/d", &chunks).refused(422, "not_on_backend");
    server.put("/v1/collections/d", &json!({"dim": 3, "backend": "mysql"})).refused(422, "invalid_value");
    let sink = json!({"name": "s", "collection": "c", "url_file": file});
    server.post("/admin/replication", &sink).refused(422, "not_on_backend");
    let documents = json!({"documents": [{"id": "a", "text": "one tent", "vector": [1, 0, 0]}]});
    server.post("/v1/collections/c/documents", &documents).ok();
    let body = json!({"vector": [1, 0, 0], "explain": true});
    let answer = server.post("/v1/collections/c/search", &body).ok();
    let explain = &answer["explain"];
    assert!(explain["database"].as_array().is_some_and(|lines| !lines.is_empty()), "{answer}");
    let metrics = server.get("/metrics").text();
    for (name, value) in [("connections_in_use", 0), ("connections_resting", 1), ("calls_waiting", 0)] {
        let line = format!("pannier_backend_{name}{{url=\"{}\"}} {value}", file.display());
        assert!(metrics.lines().any(|other| other == line), "{line} in\n{metrics}");
    }
    let stats = server.get("/v1/collections/c/stats").ok();
    assert_eq!((&stats["documents"], &stats["text"]["lag"]), (&json!(1), &json!(0)), "{stats}");
    server.delete("/v1/collections/c?keep_table=true").ok();
    assert_eq!(postgres.value("select content from mine.c"), "one tent");
    server.get("/v1/collections/c").refused(404, "collection_not_found");
    let file = directory.path().join("away");
    std::fs::write(&file, "postgres://nobody@127.0.0.1:1/none?sslmode=disable").unwrap();
    let backend = json!({"type": "postgres", "url_file": file});
    let answer = server.put("/v1/collections/c", &json!({"dim": 3, "backend": backend}));
    answer.refused(503, "backend_unreachable");
    assert!(answer.header("retry-after").is_some());
}
