//! A table that changes under a sink: named with what mends it, never taken for rows that cannot be stored; and the
//! dead letters, which count as differences and are tried again.

use pannier::replicate::{Kind, Phase, SinkStatus};

use super::{Setup, Store, block_on, settings};
use crate::support::document;

/// Waits until the sink names what is wrong with its table, and returns the message.
#[track_caller]
fn drifted(store: &Store, code: &str, words: &str) -> String {
    let is_named = |status: &SinkStatus| status.error.as_ref().is_some_and(|(got, _)| got == code);
    let status = store.wait_for(code, |status| is_named(status) && status.phase == Phase::Drifted);
    let (_, message) = status.error.unwrap();
    assert!(message.contains(words), "{words:?} is not in {message:?}");
    assert_eq!(status.dead_letters, 0, "{message}");
    message
}

/// The statement that a message says to run.
#[track_caller]
fn mending(message: &str) -> &str {
    let (_, after) = message.split_once("(to mend: ").unwrap_or_else(|| panic!("nothing mends {message:?}"));
    after[..after.rfind(')').unwrap()].split(", or set").next().unwrap().split(", then repair").next().unwrap()
}

#[track_caller]
fn resume(store: &Store) {
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
}

#[test]
fn a_new_column_that_must_have_a_value_stops_the_sink_and_buries_nothing() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..20, 1);
    setup.copy(setup.settings());
    postgres.run(
        "alter table pannier.c add column owner text not null default 'x';
         alter table pannier.c alter column owner drop default",
    );
    store.write(10..40, 2);
    let message = drifted(store, "schema_drift", "column owner must be given a value");
    assert_eq!(postgres.value("select count(*) from pannier.dead_letters"), "0");
    let busy = block_on(store.replicator.verify("s")).unwrap_err();
    assert_eq!(busy.code(), "sink_busy");
    postgres.run(mending(&message));
    // It looks again by itself.
    store.wait_until_copied();
    assert_eq!(postgres.value("select count(*) from pannier.c where metadata @> '{\"group\": 2}'"), "30");
    store.assert_equal();
}

#[test]
fn a_single_document_meets_the_drift_as_well() {
    let setup = Setup::new();
    setup.store.write(0..5, 1);
    setup.copy(setup.settings());
    // The catalogue shows a default, which gives no value.
    setup.postgres.run(
        "alter table pannier.c add column owner text default nullif('x', 'x');
         update pannier.c set owner = 'x';
         alter table pannier.c alter column owner set not null",
    );
    setup.store.write(9..10, 2);
    let message = drifted(&setup.store, "schema_drift", "column owner must be given a value");
    setup.postgres.run(mending(&message));
    resume(&setup.store);
    setup.store.assert_equal();
}

#[test]
fn another_dimension_or_type_of_a_column_is_named_with_what_mends_it() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..20, 1);
    setup.copy(setup.settings());
    for (n, change, code, words) in [
        (100, "column embedding type vector(3) using null::vector(3)", "dim_mismatch", "embedding of pannier.c has 3"),
        (200, "column content type int using null::int", "schema_drift", "column content is integer, needed is text"),
    ] {
        postgres.run(&format!("alter table pannier.c alter {change}"));
        store.write(n..n + 10, 2);
        let message = drifted(store, code, words);
        postgres.run(mending(&message));
        resume(store);
        block_on(store.replicator.repair("s", false)).unwrap();
        store.assert_equal();
    }
    assert_eq!(postgres.value("select count(*) from pannier.dead_letters"), "0");
}

#[test]
fn a_right_that_is_taken_away_is_named() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..5, 1);
    setup.copy(setup.settings());
    block_on(store.replicator.remove("s")).unwrap();
    let (role, port, name) = (format!("writer_{}", postgres.name), postgres.port, &postgres.name);
    postgres.run(&format!(
        "create role {role} login; grant usage on schema pannier to {role};
         grant select, insert, update, delete on all tables in schema pannier to {role}"
    ));
    store.add(settings(&format!("postgres://{role}@127.0.0.1:{port}/{name}?sslmode=disable")));
    store.wait_until_copied();
    postgres.run(&format!("revoke insert, delete on pannier.c from {role}"));
    store.write(3..9, 2);
    let message = drifted(store, "missing_rights", "lacks INSERT, DELETE on table pannier.c");
    postgres.run(mending(&message));
    resume(store);
    store.assert_equal();
    store.replicator.set_paused("s", true).unwrap();
    postgres.run(&format!("drop owned by {role}; drop role {role}"));
}

#[test]
fn a_table_that_is_dropped_is_made_again_or_named() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..20, 1);
    setup.copy(setup.settings());
    postgres.run("drop table pannier.c");
    store.write(10..30, 2);
    store.wait_until_copied();
    store.assert_equal();
    assert_eq!(postgres.value("select count(*) from pannier.c"), "30");
    block_on(store.replicator.remove("s")).unwrap();
    let mut adopting = setup.settings();
    adopting.create = false;
    setup.copy(adopting);
    postgres.run("alter table pannier.c rename to elsewhere");
    store.write(40..50, 3);
    drifted(store, "schema_drift", "table pannier.c is not as the sink needs it: it is not there");
    postgres.run("alter table pannier.elsewhere rename to c");
    resume(store);
    store.assert_equal();
}

#[test]
fn a_table_that_was_made_again_is_filled_although_the_session_broke_off() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..20, 1);
    setup.copy(setup.settings());
    // The session that makes the table anew is refused before its first row.
    let own = postgres.value("select store_id from pannier.sinks where name = 's'");
    postgres.run("drop table pannier.c; update pannier.sinks set store_id = 'another' where name = 's'");
    store.write(10..30, 2);
    super::failure(store, "foreign");
    assert_eq!(postgres.value("select count(*) from pannier.c"), "0");
    postgres.run(&format!("update pannier.sinks set store_id = '{own}' where name = 's'"));
    resume(store);
    assert_eq!(postgres.value("select count(*) from pannier.c"), "30");
    store.assert_equal();
}

/// A copy with a rule that `poison 1` and `poison 2` break.
fn poisoned() -> Setup {
    let setup = Setup::new();
    setup.store.write(0..20, 1);
    setup.copy(setup.settings());
    setup.postgres.run("alter table pannier.c add constraint rule check ((metadata ->> 'group')::int <> 666)");
    let poison = |n: u64| document(&format!("poison {n}"), &[1.0, 2.0, 3.0, n as f32], 666);
    setup.store.collection.upsert(vec![poison(1), poison(2), super::numbered(50, 2)]).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(setup.store.status().dead_letters, 2);
    setup
}

#[test]
fn dead_letters_are_a_difference_and_repair_tries_them_again() {
    let setup = poisoned();
    let (store, postgres) = (&setup.store, &setup.postgres);
    let report = store.verify();
    assert_eq!((report.dead_letters, report.differences.len(), report.is_equal()), (2, 0, false));
    let reasons = postgres.column("select reason from pannier.dead_letters");
    for reason in reasons {
        assert_eq!(reason, "new row for relation \"c\" violates check constraint \"rule\"", "nothing of the row");
    }
    // What still cannot be stored stays where it is.
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert_eq!((repaired.written, repaired.after.dead_letters, repaired.after.is_equal()), (0, 2, false));
    assert_eq!(postgres.value("select count(*) from pannier.dead_letters"), "2");
    postgres.run("alter table pannier.c drop constraint rule");
    let dry = block_on(store.replicator.repair("s", true)).unwrap().remove(0).1;
    assert_eq!((dry.written, dry.after.dead_letters), (0, 2));
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert_eq!((repaired.written, repaired.after.dead_letters, repaired.after.is_equal()), (2, 0, true));
    assert_eq!(postgres.value("select count(*) from pannier.dead_letters"), "0");
    assert_eq!(store.status().dead_letters, 0);
    assert!(store.verify().is_equal());
}

#[test]
fn a_seq_beyond_the_cursor_and_a_key_that_stands_twice_are_differences() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..10, 1);
    setup.copy(setup.settings());
    let different = || -> Vec<String> {
        let report = store.verify();
        assert!(!report.is_equal());
        assert!(report.differences.iter().all(|difference| difference.kind == Kind::Different), "{report:?}");
        report.differences.into_iter().map(|difference| difference.key).collect()
    };
    postgres.run("update pannier.c set seq = 1000000 where id in ('3', '5')");
    assert_eq!(different(), ["3", "5"]);
    // No change of the store is so young: the row is of another history, and the next change takes it.
    store.write(3..4, 2);
    store.wait_until_copied();
    assert_eq!(postgres.value("select metadata ->> 'group' from pannier.c where id = '3'"), "2");
    assert_eq!(different(), ["5"]);
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert!(repaired.after.is_equal() && repaired.written == 1, "{repaired:?}");
    postgres.run(
        "alter table pannier.c drop constraint c_pkey;
         insert into pannier.c select * from pannier.c where id = '7'",
    );
    assert_eq!(different(), ["7"]);
    // Rows that are not alike.
    postgres.run(
        "insert into pannier.c select * from pannier.c where id = '8';
         update pannier.c set content = 'x' where ctid = (select max(ctid) from pannier.c where id = '8')",
    );
    assert_eq!(different(), ["7", "8"]);
}

#[test]
fn a_row_of_a_document_that_is_a_dead_letter_is_a_difference() {
    let setup = poisoned();
    let (store, postgres) = (&setup.store, &setup.postgres);
    postgres.run(
        "insert into pannier.c select 'poison 1', content, metadata, embedding, model, created_at, updated_at, 1
         from pannier.c where id = '0'",
    );
    let report = store.verify();
    assert_eq!((report.dead_letters, report.differences.len()), (2, 1), "{report:?}");
    assert_eq!((report.differences[0].kind, report.differences[0].key.as_str()), (Kind::Different, "poison 1"));
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert_eq!((repaired.after.differences.len(), repaired.after.dead_letters), (0, 2));
    assert_eq!(postgres.value("select count(*) from pannier.c where id like 'poison%'"), "0");
}

#[test]
fn a_dropped_table_of_dead_letters_is_made_again() {
    let setup = poisoned();
    let (store, postgres) = (&setup.store, &setup.postgres);
    postgres.run("drop table pannier.dead_letters");
    // Nobody knows any more that these two were given up: they are missing.
    let report = store.verify();
    assert_eq!((report.dead_letters, report.differences.len()), (0, 2));
    postgres.run("drop table pannier.dead_letters");
    store.write(100..110, 2);
    store.collection.upsert(vec![document("poison 3", &[1.0; 4], 666)]).unwrap();
    store.wait_until_copied();
    assert_eq!(postgres.column("select document_id from pannier.dead_letters"), ["poison 3"]);
    block_on(store.replicator.repair("s", false)).unwrap();
    assert_eq!(postgres.value("select count(*) from pannier.dead_letters"), "3");
    assert_eq!(store.verify().dead_letters, 3);
}

#[test]
fn a_dead_letter_of_a_document_that_is_gone_is_tried_again() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..10, 1);
    setup.copy(setup.settings());
    // As a document leaves it that was deleted while the sink was out of the log's reach.
    postgres.run(
        "insert into pannier.dead_letters (sink, document_id, seq, code, reason) values ('s', 'gone', 1, '23514', 'x')",
    );
    let report = store.verify();
    assert_eq!((report.dead_letters, report.differences.len(), report.is_equal()), (1, 0, false));
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert!(repaired.after.is_equal(), "{repaired:?}");
    assert_eq!(postgres.value("select count(*) from pannier.dead_letters"), "0");
    assert_eq!(store.status().dead_letters, 0);
}

#[test]
fn a_delete_that_was_refused_is_tried_again_where_extra_rows_are_kept() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..10, 1);
    setup
        .copy(pannier::replicate::SinkSettings { extra_rows: pannier::replicate::ExtraRows::Keep, ..setup.settings() });
    postgres.run("create table orders (article text references pannier.c (id)); insert into orders values ('3')");
    store.delete(2..5);
    store.wait_until_copied();
    let report = store.verify();
    assert_eq!((report.dead_letters, report.kept_rows, report.is_equal()), (1, 1, false), "{report:?}");
    postgres.run("delete from orders");
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert!(repaired.after.is_equal() && repaired.after.kept_rows == 0, "{repaired:?}");
    assert_eq!(postgres.value("select count(*) from pannier.c"), "7");
}
