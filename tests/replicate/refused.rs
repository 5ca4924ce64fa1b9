//! Rows and deletes that Postgres refuses: the one at fault is put aside, and everything else goes on.

use pannier::replicate::{Difference, Kind, Phase, SinkStatus};

use super::{Setup, block_on, numbered, settings};
use crate::support::{document, id};

/// Ids and codes of the dead letters.
fn dead(setup: &Setup) -> Vec<String> {
    setup.postgres.column("select document_id || ' ' || code from pannier.dead_letters order by 1")
}

fn rows(setup: &Setup) -> Vec<String> {
    setup.postgres.column("select id from pannier.c order by id::int")
}

/// A copy of the documents 0 to 9.
fn copied() -> Setup {
    let setup = Setup::new();
    setup.store.write(0..10, 1);
    setup.copy(setup.settings());
    setup
}

#[test]
fn a_delete_that_a_foreign_key_forbids_holds_up_nothing() {
    let setup = copied();
    let (store, postgres) = (&setup.store, &setup.postgres);
    postgres.run("create table orders (article text references pannier.c (id)); insert into orders values ('3')");
    store.delete(2..8);
    store.write(20..23, 2);
    store.wait_until_copied();
    assert_eq!(rows(&setup), ["0", "1", "3", "8", "9", "20", "21", "22"]);
    assert_eq!(dead(&setup), ["3 23503"]);
    let reason = postgres.value("select reason from pannier.dead_letters");
    assert!(reason.starts_with("the document is deleted, and its row cannot be: "), "{reason}");
    let extra = Difference { kind: Kind::Extra, key: "3".to_owned(), id: None };
    assert_eq!(store.verify().differences, std::slice::from_ref(&extra));
    // Nothing changes as long as the row is referred to.
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert_eq!((repaired.after.differences, repaired.deleted), (vec![extra], 0));
    assert_eq!(dead(&setup), ["3 23503"]);
    postgres.run("delete from orders");
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert!(repaired.after.is_equal(), "{repaired:?}");
    assert_eq!(dead(&setup), [""; 0]);
    assert_eq!(store.status().dead_letters, 0);
}

#[test]
fn a_constraint_that_waits_for_commit_is_broken_by_one_row_alone() {
    let setup = copied();
    let (store, postgres) = (&setup.store, &setup.postgres);
    postgres.run(
        "create table kinds (name text primary key); insert into kinds values ('1'), ('2');
         alter table pannier.c add column kind text generated always as (metadata ->> 'group') stored,
           add foreign key (kind) references kinds (name) deferrable initially deferred;
         create table orders (article text references pannier.c (id) deferrable initially deferred);
         insert into orders values ('3')",
    );
    store.replicator.set_paused("s", true).unwrap();
    store.write(20..30, 2);
    store.write(24..25, 666);
    store.delete(2..5);
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    assert_eq!(dead(&setup), ["24 23503", "3 23503"]);
    assert_eq!(postgres.value("select count(*) from pannier.c"), "17");
}

#[test]
fn what_a_trigger_raises_is_the_fault_of_its_row() {
    let setup = copied();
    setup.postgres.run(
        "create function no() returns trigger language plpgsql as $$ begin
           if new.id = '25' then raise exception 'no row of %', new.content; end if;
           return new; end $$;
         create trigger no before insert on pannier.c for each row execute function no()",
    );
    setup.store.write(20..30, 2);
    setup.store.wait_until_copied();
    assert_eq!(dead(&setup), ["25 P0001"]);
    let reason = setup.postgres.value("select reason from pannier.dead_letters");
    assert!(!reason.contains("text of 25"), "{reason}");
    assert_eq!(rows(&setup).len(), 19);
    setup.store.assert_equal();
}

#[test]
fn a_row_that_breaks_a_policy_is_no_missing_right() {
    let setup = copied();
    let (store, postgres) = (&setup.store, &setup.postgres);
    block_on(store.replicator.remove("s")).unwrap();
    let (role, port, name) = (format!("writer_{}", postgres.name), postgres.port, &postgres.name);
    postgres.run(&format!(
        "create role {role} login; grant usage on schema pannier to {role};
         grant select, insert, update, delete on all tables in schema pannier to {role};
         alter table pannier.c enable row level security;
         create policy rule on pannier.c to {role} using (true) with check ((metadata ->> 'group')::int <> 666)"
    ));
    setup.copy(settings(&format!("postgres://{role}@127.0.0.1:{port}/{name}?sslmode=disable")));
    let mut documents: Vec<_> = (20..30).map(|n| numbered(n, 2)).collect();
    documents.push(document("99", &[1.0; 4], 666));
    store.collection.upsert(documents).unwrap();
    store.wait_until_copied();
    assert_eq!(dead(&setup), ["99 42501"]);
    assert_eq!(rows(&setup).len(), 20);
    store.assert_equal();
    store.replicator.set_paused("s", true).unwrap();
    postgres.run(&format!("drop policy rule on pannier.c; drop owned by {role}; drop role {role}"));
}

#[test]
fn a_table_that_refuses_whatever_comes_buries_nothing() {
    let setup = copied();
    let (store, postgres) = (&setup.store, &setup.postgres);
    let closed = |close: &str, open: &str, group: i64, code: &str| {
        postgres.run(close);
        store.write(0..20, group);
        let drifted = |status: &SinkStatus| status.phase == Phase::Drifted && status.error.is_some();
        let (error, message) = store.wait_for("the end", drifted).error.unwrap();
        assert_eq!(error, "schema_drift");
        assert!(message.contains("it refuses each of 20 rows") && message.contains(code), "{message}");
        assert_eq!((dead(&setup), rows(&setup).len() >= 10), (Vec::new(), true));
        postgres.run(open);
        store.replicator.set_paused("s", false).unwrap();
        store.wait_until_copied();
        store.assert_equal();
    };
    closed(
        "create function no() returns trigger language plpgsql as $$ begin raise exception 'no % today', new.id; end $$;
         create trigger no before insert on pannier.c for each row execute function no()",
        "drop trigger no on pannier.c",
        2,
        "P0001",
    );
    block_on(store.replicator.remove("s")).unwrap();
    let (role, port, name) = (format!("closed_{}", postgres.name), postgres.port, &postgres.name);
    postgres.run(&format!(
        "create role {role} login; grant usage on schema pannier to {role};
         grant select, insert, update, delete on all tables in schema pannier to {role}"
    ));
    setup.copy(settings(&format!("postgres://{role}@127.0.0.1:{port}/{name}?sslmode=disable")));
    closed(
        "alter table pannier.c enable row level security",
        "alter table pannier.c disable row level security",
        3,
        "violates row-level security policy",
    );
    store.replicator.set_paused("s", true).unwrap();
    postgres.run(&format!("drop owned by {role}; drop role {role}"));
}

#[test]
fn a_unique_value_goes_from_one_document_to_another() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    let of = |n: u64, group: i64| document(&n.to_string(), &[1.0, 2.0, 3.0, n as f32], group);
    setup.store.collection.upsert(vec![of(1, 1), of(3, 3), of(4, 4)]).unwrap();
    setup.copy(setup.settings());
    postgres.run("create unique index on pannier.c ((metadata ->> 'group'))");
    // The whole of it comes as one transaction.
    store.replicator.set_paused("s", true).unwrap();
    store.collection.delete(&[id("1")]).unwrap();
    store.collection.upsert(vec![of(2, 1)]).unwrap();
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    assert_eq!((rows(&setup), dead(&setup)), (vec!["2".to_owned(), "3".to_owned(), "4".to_owned()], Vec::new()));
    // Two that change places.
    store.collection.upsert(vec![of(3, 4), of(4, 3)]).unwrap();
    store.wait_until_copied();
    assert_eq!(dead(&setup), [""; 0]);
    assert!(store.verify().is_equal());
}

#[test]
fn what_stood_there_of_a_document_that_cannot_be_stored_is_gone() {
    let setup = copied();
    let (store, postgres) = (&setup.store, &setup.postgres);
    postgres.run("alter table pannier.c add check ((metadata ->> 'group')::int <> 666)");
    let mut nul = numbered(4, 2);
    nul.text = Some("a\0b".to_owned());
    store.collection.upsert(vec![nul]).unwrap();
    store.write(3..4, 666);
    store.wait_until_copied();
    assert_eq!(dead(&setup), ["3 23514", "4 local"]);
    assert_eq!(rows(&setup), ["0", "1", "2", "5", "6", "7", "8", "9"]);
    let report = store.verify();
    assert_eq!((report.differences.len(), report.dead_letters), (0, 2));
    store.write(3..5, 3);
    store.wait_until_copied();
    assert_eq!(dead(&setup), [""; 0]);
    assert!(store.verify().is_equal());
}
