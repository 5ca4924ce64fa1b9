//! What the database itself bounds: how long statements run there, how much of a search is sent, and writes of which it
//! does a part.

use pannier::DefinitionRequest;
use pannier::backend::AnyCollection;
use pannier::collection::{BackendFault, ListRequest};
use pannier::postgres::{ConnectSettings, Session};
use pannier::types::{Facet, Filter, Fusion, Grouping, Hit, Include, Mode, Query, SearchRequest, Value};

use super::{Sidecar, fault, found, search};
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
