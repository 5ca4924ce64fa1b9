//! What other servers do to a table that this one knows, and what a way to it makes of answers.

use std::time::{Duration, Instant};

use pannier::backend::AnyCollection;
use pannier::collection::BackendFault;
use pannier::postgres::{ConnectSettings, Session};
use pannier::types::{Filter, IfSeq, Metric, Value, VectorStorage};
use pannier::{CollectionError, DefinitionRequest};

use super::{Sidecar, fault, found, search};
use crate::support::postgres::{TestDatabase, Version, database, server};
use crate::support::{comes_true, document, id, name};

fn stored(collection: &AnyCollection) -> Option<Vec<f32>> {
    collection.get(&id("a")).unwrap().map(|document| document.vector)
}

/// One thing that is done to a collection.
type Call = fn(&AnyCollection) -> Result<(), CollectionError>;

fn a_table_made_anew_with_another_definition_is_noticed_on(version: Version) {
    let postgres = server(version).database();
    let l2 = DefinitionRequest { metric: Some(Metric::L2), ..DefinitionRequest::vectors(3) };
    let half = DefinitionRequest { storage: Some(VectorStorage::Float16), ..DefinitionRequest::vectors(3) };
    let wide = DefinitionRequest::vectors(4);
    let calls: [Call; 6] = [
        |a| a.upsert(vec![document("b", &[3.0, 0.0, 0.0], 1)]).map(drop),
        |a| a.search(&search(&[1.0, 0.0, 0.0])).map(drop),
        |a| a.get(&id("a")).map(drop),
        |a| a.delete(&[id("a")]).map(drop),
        |a| a.delete_matching(&Filter::eq("group", Value::Int(1))).map(drop),
        |a| a.stats().map(drop),
    ];
    for (request, words, vector) in [
        (l2, "metric: l2 != cosine", vec![3.0, 0.0, 0.0]),
        (half, "storage", vec![1.0, 0.0, 0.0]),
        (wide, "dim: 4 != 3", vec![1.0, 0.0, 0.0, 0.0]),
    ] {
        let two = Sidecar::new(&postgres.url);
        for (n, call) in calls.into_iter().enumerate() {
            let one = Sidecar::new(&postgres.url);
            let (a, _) = (one.create(), two.create());
            a.upsert(vec![document("a", &[3.0, 0.0, 0.0], 1)]).unwrap();
            assert_eq!(found(&a, &search(&[1.0, 0.0, 0.0])), ["a"]);
            two.collections.drop_collection(&name("c"), false).unwrap();
            let b = two.create_with(&request, "shared").unwrap().collection;
            b.upsert(vec![document("a", &vector, 1)]).unwrap();
            for attempt in 0..2 {
                let (kind, detail) = fault(call(&a));
                assert_eq!(kind, BackendFault::Conflict, "{n}, {attempt}: {detail}");
                assert!(detail.contains(words) && detail.contains("keep_table=true"), "{detail}");
            }
            // Nor is another's table dropped.
            let (kind, detail) = fault(one.collections.drop_collection(&name("c"), false));
            assert_eq!(kind, BackendFault::Conflict, "{detail}");
            assert!(detail.contains(words) && detail.contains("keep_table=true"), "{detail}");
            assert_eq!((stored(&b), b.stats().unwrap().documents), (Some(vector.clone()), 1));
            // What the message says to do helps.
            one.collections.drop_collection(&name("c"), true).unwrap();
            let a = one.create_with(&request, "shared").unwrap().collection;
            assert_eq!(stored(&a), Some(vector.clone()));
            two.collections.drop_collection(&name("c"), false).unwrap();
        }
    }
}

#[test]
fn a_table_made_anew_with_another_definition_is_noticed_on_16() {
    a_table_made_anew_with_another_definition_is_noticed_on(Version::V16);
}

#[test]
fn a_table_made_anew_with_another_definition_is_noticed_on_18() {
    a_table_made_anew_with_another_definition_is_noticed_on(Version::V18);
}

#[test]
fn a_table_made_anew_with_the_same_definition_goes_on() {
    let postgres = database();
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    let (a, _) = (one.create(), two.create());
    a.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    for _ in 0..2 {
        two.collections.drop_collection(&name("c"), false).unwrap();
        let b = two.create();
        assert_eq!(stored(&a), None);
        a.upsert(vec![document("a", &[0.0, 1.0, 0.0], 1)]).unwrap();
        assert_eq!(stored(&b), Some(vec![0.0, 1.0, 0.0]));
        assert_eq!(found(&a, &search(&[0.0, 1.0, 0.0])), ["a"]);
    }
    // Nor does a copy of the table in its place stop anything.
    postgres.run(
        "alter table pannier.shared rename to old; \
         create table pannier.shared (like pannier.old including all); \
         insert into pannier.shared (id, content, metadata, embedding, embedded, created_at, updated_at, version) \
         select id, content, metadata, embedding, embedded, created_at, updated_at, version from pannier.old",
    );
    assert_eq!(stored(&a), Some(vec![0.0, 1.0, 0.0]));
    a.upsert(vec![document("b", &[0.0, 1.0, 0.0], 1)]).unwrap();
    assert_eq!(a.stats().unwrap().documents, 2);
}

#[test]
fn a_table_that_others_made_since_is_not_dropped_and_one_that_is_gone_is_made_again() {
    let postgres = database();
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    let (a, _) = (one.create(), two.create());
    a.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    two.collections.drop_collection(&name("c"), false).unwrap();
    let (kind, detail) = fault(a.get(&id("a")));
    assert_eq!(kind, BackendFault::Drift, "{detail}");
    assert!(detail.contains("PUT the collection again"), "{detail}");
    let b = two.create();
    b.upsert(vec![document("b", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let (kind, detail) = fault(one.collections.drop_collection(&name("c"), false));
    assert_eq!(kind, BackendFault::Conflict, "{detail}");
    assert!(detail.contains("made anew") && detail.contains("keep_table=true"), "{detail}");
    assert_eq!(b.stats().unwrap().documents, 1);
    // Nor after a restart.
    drop(a);
    let one = one.again();
    let (kind, detail) = fault(one.collections.drop_collection(&name("c"), false));
    assert_eq!((kind, b.stats().unwrap().documents), (BackendFault::Conflict, 1), "{detail}");
    // Who has read from it may drop it.
    assert_eq!(one.create().stats().unwrap().documents, 1);
    one.collections.drop_collection(&name("c"), false).unwrap();
    for is_new in [true, false] {
        let created = two.create_with(&DefinitionRequest::vectors(3), "shared").unwrap();
        assert_eq!(created.created, is_new);
        assert_eq!(created.collection.stats().unwrap().documents, 0);
    }
}

#[test]
fn who_made_a_table_and_did_nothing_else_drops_none_that_others_made_since() {
    let postgres = database();
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    one.create();
    two.create();
    two.collections.drop_collection(&name("c"), false).unwrap();
    let b = two.create();
    b.upsert(vec![document("b", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let (kind, detail) = fault(one.collections.drop_collection(&name("c"), false));
    assert_eq!((kind, b.stats().unwrap().documents), (BackendFault::Conflict, 1), "{detail}");
    // Its own it drops, also after a restart.
    let two = two.again();
    two.collections.drop_collection(&name("c"), false).unwrap();
    assert_eq!(postgres.value("select to_regclass('pannier.shared') is null"), "t");
}

#[test]
fn an_edited_url_holds_from_the_next_call_on() {
    let (old, new) = (database(), database());
    let one = Sidecar::new(&old.url);
    let collection = one.create();
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    Sidecar::new(&new.url).create();
    let file = one.directory.path().join("url");
    std::fs::write(&file, &new.url).unwrap();
    assert_eq!(stored(&collection), None);
    collection.upsert(vec![document("b", &[0.0, 1.0, 0.0], 1)]).unwrap();
    for (postgres, wanted) in [(&old, "a"), (&new, "b")] {
        assert_eq!(postgres.value("select string_agg(id, ' ' order by id) from pannier.shared"), wanted);
    }
    // While it cannot be read, the session that stands goes on.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(found(&collection, &search(&[1.0, 0.0, 0.0])), ["b"]);
}

#[test]
fn a_server_that_takes_no_writes_answers_only_where_the_url_says_so() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    // What a standby says of itself.
    postgres.run(&format!("alter database {} set default_transaction_read_only = on", postgres.name));
    let file = one.directory.path().join("url");
    std::fs::write(&file, format!("{}&application_name=again", postgres.url)).unwrap();
    let (kind, detail) = fault(collection.get(&id("a")));
    assert_eq!(kind, BackendFault::Unreachable, "{detail}");
    assert!(detail.contains("does not allow writes"), "{detail}");
    std::fs::write(&file, format!("{}&target_session_attrs=any", postgres.url)).unwrap();
    assert_eq!(stored(&collection), Some(vec![1.0, 0.0, 0.0]));
}

#[test]
fn sessions_that_all_ended_are_replaced_within_a_call() {
    const CALLS: usize = 5;
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holder = runtime.block_on(async {
        let holder = Session::connect(&ConnectSettings::from_url(&postgres.url).unwrap()).await.unwrap();
        holder.batch("hold the table", "begin; lock table pannier.shared").await.unwrap();
        holder
    });
    std::thread::scope(|scope| {
        for _ in 0..CALLS {
            scope.spawn(|| assert!(stored(&collection).is_some(), "it was there"));
        }
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        assert!(comes_true(|| postgres.value(waiting) == CALLS.to_string()), "not all wait for the table");
        runtime.block_on(holder.batch("give it up", "rollback")).unwrap();
    });
    drop(holder);
    assert_eq!(one.collections.pools()[0].1.resting, CALLS);
    postgres.run(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()",
    );
    assert_eq!(stored(&collection), Some(vec![1.0, 0.0, 0.0]));
}

#[test]
fn a_write_whose_server_went_away_is_neither_refused_nor_sent_again() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    // The answers of a pooler that lost its server, to the COMMIT.
    postgres.run(
        "create sequence pannier.tries;
         create function pannier.lose() returns trigger language plpgsql as $$ begin
           perform nextval('pannier.tries');
           raise exception 'server conn crashed?' using errcode = new.content; end $$;
         create constraint trigger lose after insert on pannier.shared deferrable initially deferred
           for each row execute function pannier.lose()",
    );
    for (n, (code, expected)) in [
        ("08P01", BackendFault::Unknown),
        ("57P01", BackendFault::Unknown),
        ("58000", BackendFault::Unknown),
        ("23514", BackendFault::Refused),
    ]
    .into_iter()
    .enumerate()
    {
        let mut new = document("a", &[1.0, 0.0, 0.0], 1);
        new.text = Some(code.to_owned());
        let (kind, detail) = fault(collection.upsert(vec![new]));
        assert_eq!(kind, expected, "{code}: {detail}");
        assert!(!detail.contains("nothing was changed"), "{detail}");
        assert_eq!(postgres.value("select last_value from pannier.tries"), (n + 1).to_string(), "{code}");
    }
    // A server without room has done nothing, and is asked again.
    let mut new = document("a", &[1.0, 0.0, 0.0], 1);
    new.text = Some("53100".to_owned());
    let (kind, detail) = fault(collection.upsert(vec![new]));
    assert_eq!(kind, BackendFault::Unreachable);
    assert!(detail.contains("nothing was changed"), "{detail}");
    postgres.run("drop trigger lose on pannier.shared");
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    assert_eq!(collection.stats().unwrap().documents, 1);
}

/// How many there were in a database that nobody uses any more: sessions that end leave their figures.
fn deadlocks(postgres: &TestDatabase) -> String {
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    let deadline = Instant::now() + Duration::from_secs(60);
    while postgres.value(others) != "0" {
        assert!(Instant::now() < deadline, "sessions outlive their store");
    }
    postgres.value("select deadlocks from pg_stat_database where datname = current_database()")
}

#[test]
fn writes_and_deletes_of_the_same_documents_meet_without_a_deadlock() {
    const DOCUMENTS: usize = 60;
    let postgres = database();
    postgres.run(&format!("alter database {} set deadlock_timeout = '10ms'", postgres.name));
    let sidecars = [Sidecar::new(&postgres.url), Sidecar::new(&postgres.url)];
    let collections = sidecars.each_ref().map(Sidecar::create);
    let ids: Vec<String> = (0..DOCUMENTS).map(|n| n.to_string()).collect();
    std::thread::scope(|scope| {
        for n in 0..8_usize {
            let (collection, ids) = (&collections[n % 2], &ids);
            scope.spawn(move || {
                for round in 0..15 {
                    let mine = ids.iter().cycle().skip(n * 7 + round).step_by(7).take(DOCUMENTS);
                    let new: Vec<_> = mine.map(|id| document(id, &[1.0, n as f32, 0.0], 1)).collect();
                    match n % 4 {
                        0 => collection.delete_matching(&Filter::eq("group", Value::Int(1))).map(drop),
                        1 => collection.delete(&new.iter().map(|new| new.id.clone()).collect::<Vec<_>>()).map(drop),
                        _ => collection.upsert(new).map(drop),
                    }
                    .unwrap();
                }
            });
        }
    });
    drop((collections, sidecars));
    assert_eq!(deadlocks(&postgres), "0");
}

#[test]
fn a_write_that_expects_a_seq_meets_others_without_a_deadlock() {
    let postgres = database();
    postgres.run(&format!("alter database {} set deadlock_timeout = '10ms'", postgres.name));
    let (one, two) = (Sidecar::new(&postgres.url), Sidecar::new(&postgres.url));
    let (a, b) = (one.create(), two.create());
    let all = || ["a", "m", "z"].map(|key| document(key, &[1.0, 0.0, 0.0], 1)).to_vec();
    let seq = a.upsert(all()).unwrap().seq;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holder = runtime.block_on(async {
        let holder = Session::connect(&ConnectSettings::from_url(&postgres.url).unwrap()).await.unwrap();
        let hold = "begin; select from pannier.shared where id = 'm' for update";
        holder.batch("hold the row in the middle", hold).await.unwrap();
        holder
    });
    let waits = |count: &str| {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        assert!(comes_true(|| postgres.value(waiting) == count), "not {count} wait for a row");
    };
    std::thread::scope(|scope| {
        let plain = scope.spawn(|| b.upsert(all()));
        waits("1");
        let expecting = scope.spawn(|| a.upsert_if(all(), &IfSeq::from([(id("z"), seq)])));
        waits("2");
        runtime.block_on(holder.batch("give it up", "rollback")).unwrap();
        plain.join().unwrap().unwrap();
        let refused = expecting.join().unwrap().unwrap_err();
        assert!(matches!(refused, CollectionError::SeqConflict { .. }), "{refused}");
    });
    drop((holder, runtime, a, b, one, two));
    assert_eq!(deadlocks(&postgres), "0");
}

#[test]
fn a_statement_that_fails_leaves_no_transaction() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    // In a search, a read and a write.
    postgres.run("alter table pannier.shared rename to away");
    for _ in 0..2 {
        assert_eq!(fault(collection.search(&search(&[1.0, 0.0, 0.0]))).0, BackendFault::Drift);
        assert_eq!(fault(collection.get(&id("a"))).0, BackendFault::Drift);
        assert_eq!(fault(collection.upsert(vec![document("b", &[1.0, 0.0, 0.0], 1)])).0, BackendFault::Drift);
    }
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'";
    assert_eq!(postgres.value(open), "0");
    postgres.run("alter table pannier.away rename to shared");
    assert_eq!(found(&collection, &search(&[1.0, 0.0, 0.0])), ["a"]);
}

#[test]
fn a_row_at_infinity_stops_no_search() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    let collection = one.create();
    let documents = ["a", "b"].map(|id| document(id, &[1.0, 0.0, 0.0], 1));
    collection.upsert(documents.to_vec()).unwrap();
    postgres.run("update pannier.shared set created_at = '-infinity', updated_at = 'infinity' where id = 'a'");
    assert_eq!(found(&collection, &search(&[1.0, 0.0, 0.0])), ["a", "b"]);
    let stored = collection.get(&id("a")).unwrap().unwrap().stored;
    assert_eq!((stored.created_at_ms, stored.updated_at_ms), (-377_705_023_201_000, 253_402_207_200_999));
    let other = collection.get(&id("b")).unwrap().unwrap().stored;
    assert_eq!(other.created_at_ms, other.updated_at_ms);
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 2)]).unwrap();
    let mended = collection.get(&id("a")).unwrap().unwrap().stored;
    assert!(mended.updated_at_ms < 253_402_207_200_999);
}

#[test]
fn a_table_that_somebody_else_made_is_not_dropped() {
    let postgres = database();
    let one = Sidecar::new(&postgres.url);
    one.create();
    postgres.run(
        "drop table pannier.shared; delete from pannier.pannier_collections;
         create table pannier.shared (x int); insert into pannier.shared values (1)",
    );
    let (kind, detail) = fault(one.collections.drop_collection(&name("c"), false));
    assert_eq!(kind, BackendFault::Conflict, "{detail}");
    assert!(detail.contains("none that Pannier made") && detail.contains("keep_table=true"), "{detail}");
    one.collections.drop_collection(&name("c"), true).unwrap();
    assert_eq!(postgres.value("select x from pannier.shared"), "1");
}

#[test]
fn a_table_that_lost_its_sequence_a_column_or_all_is_dropped() {
    let postgres = database();
    for change in [
        "alter table pannier.shared alter version drop identity",
        "alter table pannier.shared drop column version",
        "drop table pannier.shared",
        "drop table pannier.shared; drop table pannier.pannier_collections",
    ] {
        let one = Sidecar::new(&postgres.url);
        let collection = one.create();
        postgres.run(change);
        if change.ends_with("identity") {
            assert_eq!(collection.delete(&[id("a")]).unwrap().deleted, 0, "it numbers nothing");
        }
        assert_eq!(one.collections.drop_collection(&name("c"), false).unwrap().0, 0, "{change}");
        assert_eq!(postgres.value("select to_regclass('pannier.shared') is null"), "t", "{change}");
    }
}

#[test]
fn a_role_that_may_make_nothing_takes_a_table_over() {
    let postgres = database();
    Sidecar::new(&postgres.url).create();
    let (role, port, database) = (format!("user_{}", postgres.name), postgres.port, &postgres.name);
    postgres.run(&format!(
        "create role {role} login; grant usage on schema pannier to {role};
         grant select on pannier.pannier_collections to {role};
         grant select, insert, update, delete on pannier.shared to {role};
         grant usage on all sequences in schema pannier to {role}"
    ));
    let other = Sidecar::new(&format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable"));
    let collection = other.create();
    collection.upsert(vec![document("a", &[1.0, 0.0, 0.0], 1)]).unwrap();
    assert_eq!(found(&collection, &search(&[1.0, 0.0, 0.0])), ["a"]);
    collection.delete(&[id("a")]).unwrap();
    drop(other);
    postgres.run(&format!("drop owned by {role}; drop role {role}"));
}
