//! Cursors that say nothing about the rows: of a collection that was dropped, of other columns, of another table. Rows
//! that no document can have.

use std::collections::BTreeMap;

use pannier::replicate::{ExtraRows, Kind, LayoutKind, SinkSettings};
use pannier::{DefinitionRequest, Options};

use super::{DIM, Setup, Store, block_on, failure, settings};
use crate::support::name;
use crate::support::postgres::TestDatabase;

/// The collection dropped and made again, empty.
fn made_anew(store: Store) -> Store {
    store.database.drop_collection(&name("c")).unwrap();
    let request = DefinitionRequest::vectors(DIM as u32);
    let collection = store.database.create_collection(&name("c"), &request).unwrap().collection;
    Store { collection, ..store }
}

/// Removes the sink as one whose database cannot be reached then: its state stays.
fn leave_behind(store: &Store, postgres: &TestDatabase) {
    postgres.run("drop table if exists public.kept; create table public.kept as select * from pannier.sinks");
    block_on(store.replicator.remove("s")).unwrap();
    postgres.run("insert into pannier.sinks select * from public.kept");
}

#[test]
fn rows_of_a_collection_that_was_dropped_go_when_one_of_its_name_is_made() {
    let Setup { postgres, mut store } = Setup::new();
    store.add(settings(&postgres.url));
    for group in 1..4 {
        let paused = group == 2;
        store.write(0..20, group);
        store.wait_until_copied();
        store.replicator.set_paused("s", paused).unwrap();
        store = made_anew(store);
        store.write(15..30, group + 10);
        store.replicator.set_paused("s", false).unwrap();
        store.wait_until_copied();
        assert_eq!(postgres.value("select count(*) from pannier.c"), "15");
        store.assert_equal();
        store.delete(15..30);
    }
}

#[test]
fn columns_that_are_mapped_anew_are_filled() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    postgres.run("create schema app; create table app.notes (key text primary key, body text, kind text)");
    let columns = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(column, field)| ((*column).to_owned(), (*field).to_owned())).collect()
    };
    let narrow = SinkSettings {
        layout: LayoutKind::Custom,
        table: Some("app.notes".to_owned()),
        columns: columns(&[("key", "id"), ("body", "text")]),
        ..setup.settings()
    };
    store.write(0..20, 7);
    setup.copy(narrow.clone());
    leave_behind(store, postgres);
    // As it was, it goes on where it stood.
    setup.copy(narrow.clone());
    assert_eq!(store.status().scans, 0);
    leave_behind(store, postgres);
    let wide = columns(&[("key", "id"), ("body", "text"), ("kind", "metadata.group")]);
    setup.copy(SinkSettings { columns: wide, ..narrow });
    assert_eq!(postgres.value("select count(*) from app.notes where kind = '7'"), "20");
    assert_eq!(store.status().scans, 1);
    store.assert_equal();
}

#[test]
fn a_table_that_was_refused_is_refused_again() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..20, 1);
    setup.copy(setup.settings());
    postgres
        .run("create table pannier.d (like pannier.c including all); insert into pannier.d select * from pannier.c");
    postgres.run("update pannier.d set id = 'mine' where id = '3'");
    leave_behind(store, postgres);
    let elsewhere = SinkSettings { table: Some("pannier.d".to_owned()), ..setup.settings() };
    store.add(elsewhere.clone());
    failure(store, "extra_rows");
    leave_behind(store, postgres);
    store.add(elsewhere.clone());
    failure(store, "extra_rows");
    leave_behind(store, postgres);
    setup.copy(SinkSettings { extra_rows: ExtraRows::Delete, ..elsewhere });
    store.assert_equal();
}

#[test]
fn a_state_of_an_earlier_version_is_believed() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..20, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    let forget = || postgres.run("alter table pannier.sinks drop column target_shape");
    let has_shape =
        || postgres.value("select count(*) from pannier.sinks as s where to_jsonb(s) ->> 'target_shape' > ''");
    assert_eq!(has_shape(), "1");
    let directory = store.close();
    forget();
    let store = Store::open(directory, Options::default());
    store.wait_until_copied();
    assert_eq!((store.status().scans, has_shape().as_str()), (0, "1"));
    store.replicator.set_paused("s", true).unwrap();
    leave_behind(&store, &postgres);
    // A role that may not change the state goes on as before.
    let (role, port, database) = (format!("plain_{}", postgres.name), postgres.port, &postgres.name);
    postgres.run(&format!(
        "create role {role} login; grant usage on schema pannier to {role};
         grant select, insert, update, delete on all tables in schema pannier to {role}"
    ));
    forget();
    store.add(settings(&format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable")));
    store.write(10..40, 2);
    store.wait_until_copied();
    store.assert_equal();
    assert_eq!((store.status().scans, has_shape().as_str()), (0, "0"));
    store.replicator.set_paused("s", true).unwrap();
    postgres.run(&format!("drop owned by {role} cascade; drop role {role}"));
}

#[test]
fn a_row_at_infinity_differs_and_hinders_nothing() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..20, 1);
    setup.copy(setup.settings());
    let spoil = || {
        postgres.run(
            "update pannier.c set updated_at = 'infinity' where id = '3';
             update pannier.c set created_at = '-infinity' where id = '4'",
        );
    };
    spoil();
    let differing: Vec<(Kind, String)> =
        store.verify().differences.into_iter().map(|difference| (difference.kind, difference.key)).collect();
    assert_eq!(differing, [(Kind::Different, "3".to_owned()), (Kind::Different, "4".to_owned())]);
    block_on(store.replicator.repair("s", false)).unwrap();
    store.assert_equal();
    // Nor does it keep a table from being adopted.
    block_on(store.replicator.remove("s")).unwrap();
    spoil();
    setup.copy(setup.settings());
    store.assert_equal();
}
