//! What the database itself bounds: how long statements run there, how much of a search is sent, and writes of which it
//! does a part.

use pannier::backend::AnyCollection;
use pannier::collection::{BackendFault, ListRequest};
use pannier::postgres::{ConnectSettings, Session};
use pannier::types::{
    Facet, Filter, Fusion, Grouping, Hit, Include, Metric, Mode, Query, SearchRequest, Value, VectorStorage,
};
use pannier::{CollectionError, DefinitionRequest};
use serde_json::json;

use super::{Sidecar, fault, found, not_on_backend, search};
use crate::api::server::Server as ApiServer;
use crate::support::model::SMALL_MODEL;
use crate::support::postgres::{TestDatabase, database};
use crate::support::{document, id, name};

/// A role that may use the table of [`Sidecar::create`], `columns` of it where they are named, and a process that does.
fn other_role(postgres: &TestDatabase, columns: &str) -> (String, Sidecar) {
    let (role, port, database) = (format!("other_{}", postgres.name), postgres.port, &postgres.name);
    postgres.run(&format!(
        "create role {role} login; grant usage on schema pannier to {role};
         grant select on pannier.pannier_collections to {role};
         grant select{columns}, insert, update, delete on pannier.shared to {role};
         grant usage on all sequences in schema pannier to {role}"
    ));
    let sidecar = Sidecar::new(&format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable"));
    (role, sidecar)
}

#[test]
fn the_server_ends_a_statement_before_it_is_given_up() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    one.create();
    // Writes note their limit; reads without one see no row.
    postgres.run(
        "create function pannier.note() returns trigger language plpgsql as
           $$ begin new.content := current_setting('statement_timeout'); return new; end $$;
         create trigger note before insert or update on pannier.shared for each row execute function pannier.note();
         create function pannier.is_limited() returns boolean language sql as
           $$ select current_setting('statement_timeout') <> '0' $$;
         alter table pannier.shared enable row level security;
         create policy limited on pannier.shared using (pannier.is_limited()) with check (true)",
    );
    let (role, other) = other_role(&postgres, "");
    let collection = other.create();
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let limit = |id_text: &str| collection.get(&id(id_text)).unwrap().and_then(|document| document.stored.text);
    assert_eq!(limit("a").as_deref(), Some("22916ms"));
    assert_eq!(found(&collection, &search(&[1.0, 0.0, 0.0])), ["a"]);
    assert_eq!(collection.list(&ListRequest { limit: 10, ..ListRequest::default() }).unwrap().documents.len(), 1);
    assert_eq!(collection.stats().unwrap().documents, 1);
    assert_eq!(collection.delete(&[id("a")]).unwrap().deleted, 1);
    // What the role has of its own counts where it is less.
    for (own, wanted) in [("5s", "5s"), ("1min", "22916ms"), ("0", "22916ms")] {
        postgres.run(&format!("alter role {role} set statement_timeout = '{own}'"));
        let other = other_with_the_same_url(&other);
        other.create().upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
        assert_eq!(limit("a").as_deref(), Some(wanted), "{own}");
    }
    drop(other);
    postgres.run(&format!("drop owned by {role}; drop role {role}"));
}

#[test]
fn a_shorter_limit_of_the_url_counts() {
    let postgres = database();
    let one = Sidecar::new(&format!("{}&statement_timeout=6000", postgres.url));
    let collection = one.create();
    postgres.run(
        "create function pannier.note() returns trigger language plpgsql as
           $$ begin new.content := current_setting('statement_timeout'); return new; end $$;
         create trigger note before insert on pannier.shared for each row execute function pannier.note()",
    );
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    assert_eq!(collection.get(&id("a")).unwrap().unwrap().stored.text.as_deref(), Some("5500ms"));
}

fn other_with_the_same_url(other: &Sidecar) -> Sidecar {
    Sidecar::new(&std::fs::read_to_string(other.directory.path().join("url")).unwrap())
}

#[test]
fn a_table_that_somebody_holds_is_neither_dropped_nor_dropped_later() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holder = runtime.block_on(async {
        let holder = Session::connect(&ConnectSettings::from_url(&postgres.url).unwrap()).await.unwrap();
        holder.batch("hold the table", "begin; lock table pannier.shared in access share mode").await.unwrap();
        holder
    });
    let (kind, detail) = fault(one.collections.drop_collection(&name("c"), false));
    assert_eq!(kind, BackendFault::Busy, "{detail}");
    assert!(detail.contains("nothing was changed"), "{detail}");
    runtime.block_on(holder.batch("give it up", "rollback")).unwrap();
    // Nobody is left there who waits for it.
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    assert_eq!(postgres.value(waiting), "0");
    assert_eq!(collection.stats().unwrap().documents, 1);
    one.collections.drop_collection(&name("c"), false).unwrap();
    assert_eq!(postgres.value("select to_regclass('pannier.shared') is null"), "t");
}

#[test]
fn a_write_that_breaks_off_before_its_commit_is_done_again() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    postgres.run(
        "create sequence pannier.tries;
         create function pannier.break_off() returns trigger language plpgsql as $$ begin
           if nextval('pannier.tries') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;
           return new; end $$;
         create trigger break_off before insert on pannier.shared for each row execute function pannier.break_off()",
    );
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    assert_eq!(postgres.value("select last_value from pannier.tries"), "2");
    assert_eq!(collection.stats().unwrap().documents, 1);
}

#[test]
fn what_a_trigger_passes_over_is_no_write() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    let of = |ids: &[&str]| ids.iter().map(|id| document(id, &[1.0, 0.0, 0.0], 1)).collect::<Vec<_>>();
    collection.upsert(of(&["a", "b"])).unwrap();
    postgres.run(
        "create function pannier.pass_over() returns trigger language plpgsql as $$ begin
           if coalesce(new.id, old.id) like 'b%' then return null; end if;
           return coalesce(new, old); end $$;
         create trigger pass_over before insert or update or delete on pannier.shared
           for each row execute function pannier.pass_over()",
    );
    for (ids, wanted) in [(&["b1"][..], "1 of 1"), (&["c", "b1", "d"], "1 of 3"), (&["a", "b", "b1"], "2 of 3")] {
        let (kind, detail) = fault(collection.upsert(of(ids)));
        assert_eq!(kind, BackendFault::Refused, "{detail}");
        assert!(detail.contains(wanted) && detail.contains("nothing was written"), "{detail}");
    }
    let filter = Filter::eq("group", Value::Int(1));
    for refused in [collection.delete(&[id("b"), id("none")]), collection.delete_matching(&filter)].map(fault) {
        let (kind, detail) = refused;
        assert_eq!(kind, BackendFault::Refused, "{detail}");
        assert!(detail.contains("nothing was deleted"), "{detail}");
    }
    assert_eq!(postgres.value("select string_agg(id, ' ' order by id) from pannier.shared"), "a b");
    collection.upsert(of(&["a", "c"])).unwrap();
    assert_eq!(collection.delete(&[id("a"), id("none")]).unwrap().deleted, 1);
}

/// The hits of a search, with the place of their group, and its facets.
fn answer(collection: &AnyCollection, request: &SearchRequest) -> (Vec<(usize, Hit)>, Vec<Facet>) {
    let answer = collection.search(request).unwrap();
    let grouped = answer.groups.into_iter().flatten().enumerate();
    let grouped = grouped.flat_map(|(n, group)| group.hits.into_iter().map(move |hit| (n, hit)));
    (answer.hits.into_iter().map(|hit| (0, hit)).chain(grouped).collect(), answer.facets)
}

#[test]
fn a_ranking_reads_no_texts_and_hits_read_theirs() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let remote = one.create();
    let local = one.collections.create_local(&name("l"), &DefinitionRequest::vectors(3)).unwrap().collection;
    // More than are fetched at once.
    let documents: Vec<_> = (0..150).map(|n| document(&format!("{n:03}"), &[1.0, n as f32, 0.0], n % 3)).collect();
    for collection in [&remote, &local] {
        collection.upsert(documents.clone()).unwrap();
    }
    let (role, other) =
        other_role(&postgres, " (id, metadata, embedding, embedded, created_at, updated_at, version, words)");
    let without_texts = other.create();
    let plain = SearchRequest { top_k: 150, facets: vec!["group".to_owned()], ..search(&[1.0, 0.0, 0.0]) };
    let grouping = Some(Grouping { field: "group".to_owned(), size: 40 });
    let grouped = SearchRequest { top_k: 3, grouping, ..plain.clone() };
    let diverse = SearchRequest { top_k: 40, diversity: Some(0.5), ..plain.clone() };
    let vectors = SearchRequest { include: Include { vector: true, ..Include::default() }, ..plain.clone() };
    let passing = SearchRequest { filter: Some(Filter::eq("group", Value::Int(1))), ..plain.clone() };
    let query = Query::TextAndVector { text: "text of 007".to_owned(), vector: vec![1.0, 0.0, 0.0] };
    let hybrid = SearchRequest { query, mode: Mode::Hybrid(Fusion::default()), ..plain.clone() };
    for (request, count) in
        [(&plain, 150), (&grouped, 120), (&diverse, 40), (&vectors, 150), (&passing, 50), (&hybrid, 150)]
    {
        let (hits, facets) = answer(&remote, request);
        assert_eq!(hits.len(), count, "{request:?}");
        // Words have another score there.
        if request.mode == Mode::Vector {
            assert_eq!((hits.clone(), facets), answer(&local, request), "{request:?}");
        }
        assert!(hits.iter().all(|(_, hit)| hit.text == Some(format!("text of {}", hit.id))), "{request:?}");
        // The role may not read texts.
        let (kind, detail) = fault(without_texts.search(request));
        assert_eq!(kind, BackendFault::Rights, "{detail}");
        let include = Include { text: false, ..request.include };
        let (seen, _) = answer(&without_texts, &SearchRequest { include, ..request.clone() });
        let wanted = hits.into_iter().map(|(n, hit)| (n, Hit { text: None, ..hit }));
        assert_eq!(seen, wanted.collect::<Vec<_>>(), "{request:?}");
    }
    drop((without_texts, other));
    postgres.run(&format!("drop owned by {role}; drop role {role}"));
}

#[test]
fn a_ranking_reads_of_metadata_what_facets_and_groups_are_made_of() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let remote = one.create();
    let local = one.collections.create_local(&name("l"), &DefinitionRequest::vectors(3)).unwrap().collection;
    let (text, long) = (|text: &str| Value::String(text.to_owned()), Value::String("x".repeat(513)));
    let object = |name: &str, value: Value| Value::Object([(name.to_owned(), value)].into());
    let kinds = [
        text("p"),
        Value::Array(vec![text("q"), Value::Null, text("p"), Value::Int(1), Value::Float(1.0), long.clone()]),
        Value::Array(vec![object("z", Value::Int(1)), Value::Array(vec![text("p")]), Value::Float(1.5)]),
        object("z", Value::Int(1)),
        long,
        Value::Bool(true),
        Value::Null,
    ];
    let new = |(n, kind): (usize, Value)| {
        let mut new = document(&n.to_string(), &[1.0, n as f32, 0.0], 1);
        new.metadata.insert("doc".to_owned(), object("kind", kind));
        new
    };
    let mut documents: Vec<_> = kinds.into_iter().enumerate().map(new).collect();
    // A name with a dot goes before a name below another.
    documents[5].metadata.insert("doc.kind".to_owned(), text("r"));
    documents.push(document("none", &[1.0, 8.0, 0.0], 1));
    for collection in [&remote, &local] {
        collection.upsert(documents.clone()).unwrap();
    }
    let fields = ["doc.kind", "doc", "group", "doc.kind.z"].map(str::to_owned).to_vec();
    let plain = SearchRequest { facets: fields, ..search(&[1.0, 0.0, 0.0]) };
    let grouping = Some(Grouping { field: "doc.kind".to_owned(), size: 3 });
    let grouped = SearchRequest { grouping, ..plain.clone() };
    for request in [&plain, &grouped] {
        assert_eq!(answer(&remote, request), answer(&local, request), "{request:?}");
    }
    // What stands beside them may be more than is read at all.
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    postgres.run(&format!("update pannier.shared set metadata = jsonb_set(metadata, '{{doc,deep}}', '{deep}')"));
    let include = Include { metadata: false, ..Include::default() };
    for request in [plain, grouped].map(|request| SearchRequest { include, ..request }) {
        assert_eq!(answer(&remote, &request), answer(&local, &request), "{request:?}");
    }
    let dots = SearchRequest { facets: vec!["a.b.c.d.e.f.g.h".to_owned()], ..search(&[1.0, 0.0, 0.0]) };
    assert!(not_on_backend(remote.search(&dots)).contains("dots"), "paths mean too many places");
}

#[test]
fn an_upsert_reads_no_texts_and_no_metadata_of_what_it_replaces() {
    let postgres = database();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("url");
    std::fs::write(&file, &postgres.url).unwrap();
    let server = ApiServer::with_model();
    let backend = json!({"type": "postgres", "url_file": file});
    server.put("/v1/collections/c", &json!({"embedding": {"model": SMALL_MODEL}, "backend": backend})).ok();
    let upsert = |documents: serde_json::Value| {
        let done = server.post("/v1/collections/c/documents", &json!({"documents": documents})).ok();
        [done["embedded"].clone(), done["cached"].clone()]
    };
    let first = upsert(json!([{"id": "a", "text": "a b"}, {"id": "b", "text": "c"}, {"id": "c", "text": "d"}]));
    assert_eq!(first, [3, 0]);
    // Whoever reads these is told that they are no document's.
    postgres.run("update pannier.c set metadata = '[1]'");
    let again = json!([{"id": "a", "text": "a b"}, {"id": "b", "text": "d a"}, {"id": "e", "text": "b c"}]);
    assert_eq!(upsert(again), [2, 1]);
    let texts = "select string_agg(id || ': ' || content, ', ' order by id) from pannier.c where metadata = '{}'";
    assert_eq!(postgres.value(texts), "a: a b, b: d a, e: b c");
}

#[cfg(feature = "text")]
#[test]
fn the_first_256_words_of_a_query_are_looked_for() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    let mut documents = ["early", "late"].map(|id| document(id, &[1.0, 0.0, 0.0], 1));
    for (new, text) in documents.iter_mut().zip(["w255", "w256"]) {
        new.text = Some(text.to_owned());
    }
    collection.upsert(documents.to_vec()).unwrap();
    // More words than Postgres takes into one query.
    let text: String = (0..100_000).map(|n| format!("w{n} ")).collect();
    let request = SearchRequest { mode: Mode::Keyword, ..SearchRequest::new(Query::Text(text)) };
    let answer = collection.search(&request).unwrap();
    assert_eq!(answer.hits.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), ["early"]);
    assert!(answer.truncated, "the others are not");
}

#[test]
fn queries_keep_their_scores_in_half_precision_and_are_refused_beyond_it() {
    let postgres = database();
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    let half = |metric| DefinitionRequest {
        storage: Some(VectorStorage::Float16),
        metric: Some(metric),
        ..DefinitionRequest::vectors(3)
    };
    let remote = one.create_with(&half(Metric::Dot), "dot").unwrap().collection;
    let local = one.collections.create_local(&name("l"), &half(Metric::Dot)).unwrap().collection;
    let vectors = [("a", [1.0, 0.0, 0.0]), ("b", [0.0, 1.0, 0.0]), ("c", [0.5, 0.5, 0.25])];
    for collection in [&remote, &local] {
        collection.upsert(vectors.map(|(id, vector)| document(id, &vector, 1)).to_vec()).unwrap();
    }
    for query in [[3e-8, 1e-8, 2e-9], [70_000.0, 1.0, 0.0], [3.0, 4.0, 0.0]] {
        let hits = [&remote, &local].map(|collection| collection.search(&search(&query)).unwrap().hits);
        assert_eq!(hits.each_ref().map(Vec::len), [3, 3]);
        for (there, here) in hits[0].iter().zip(&hits[1]) {
            assert_eq!(there.id, here.id, "{query:?}");
            assert!((there.score - here.score).abs() <= 1e-3 * here.score, "{query:?}: {there:?}, {here:?}");
        }
    }
    let by_distance = two.create_with(&half(Metric::L2), "l2").unwrap().collection;
    match by_distance.search(&search(&[70_000.0, 0.0, 0.0])).map(drop) {
        Err(CollectionError::QueryVector(_)) => {}
        other => panic!("it was not refused: {other:?}"),
    }
}
