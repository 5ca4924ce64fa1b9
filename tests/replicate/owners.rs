//! Whose rows are whose: two sinks on one table, rows that were there before, tables that another role owns.

use pannier::Options;
use pannier::replicate::{ExtraRows, IndexKind, LayoutKind, Phase, SinkName, SinkSettings, SinkStatus};

use super::{Holding, Setup, Store, block_on, failure, settings};
use crate::support::name;

fn named(name: &str, settings: &SinkSettings) -> SinkSettings {
    SinkSettings { name: SinkName::new(name).unwrap(), ..settings.clone() }
}

#[test]
fn a_second_sink_of_a_store_on_the_same_table_is_refused() {
    let store = Store::new();
    let first = settings("postgres://me@127.0.0.1:1/x?sslmode=disable");
    store.add(first.clone());
    let second = named("t", &first);
    let refused = |settings: SinkSettings| store.replicator.add(settings).unwrap_err();
    let error = refused(second.clone());
    assert_eq!(error.code(), "table_taken");
    assert!(error.to_string().contains("pannier.c is written by the sink \"s\" of this store"), "{error}");
    // Whoever connects, and by whatever way the table is named.
    let other_user = settings("postgres://you@127.0.0.1:1/x?sslmode=disable");
    assert_eq!(refused(named("t", &other_user)).code(), "table_taken");
    assert_eq!(refused(SinkSettings { collection: "*".to_owned(), ..second.clone() }).code(), "table_taken");
    let vecs = SinkSettings { layout: LayoutKind::Vecs, table: Some("pannier.c".to_owned()), ..second.clone() };
    assert_eq!(refused(vecs).code(), "table_taken");
    // Another table or database is nobody's yet.
    store.add(SinkSettings { table: Some("pannier.d".to_owned()), ..second.clone() });
    store.add(named("u", &settings("postgres://me@127.0.0.1:1/y?sslmode=disable")));
    // Tenants and kinds tell rows of one table apart.
    let shared = |name: &str, kind: &str| SinkSettings {
        layout: LayoutKind::Embeddings,
        tenant: Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff".to_owned()),
        entity_type: Some(kind.to_owned()),
        ..named(name, &first)
    };
    store.add(shared("notes", "note"));
    store.add(shared("tasks", "task"));
    assert_eq!(refused(shared("again", "note")).code(), "table_taken");
    // A tenant is the same one in any spelling of its UUID.
    let tenant = shared("again", "note").tenant.unwrap();
    for spelled in [tenant.to_uppercase(), format!("{{{tenant}}}"), tenant.replace('-', "")] {
        let again = SinkSettings { tenant: Some(spelled), ..shared("again", "note") };
        assert_eq!(refused(again).code(), "table_taken");
    }
}

#[test]
fn nobody_is_told_to_change_the_table_of_another_sink() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..20, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    // By another name of the server, so that only the database knows; and with a column that the table has not.
    let elsewhere = postgres.url.replace("127.0.0.1", "localhost");
    assert_ne!(elsewhere, postgres.url);
    let columns = [("id", "id"), ("note", "metadata.note")];
    let second = SinkSettings {
        layout: LayoutKind::Custom,
        table: Some("pannier.c".to_owned()),
        columns: columns.map(|(column, field)| (column.to_owned(), field.to_owned())).into(),
        ..named("t", &settings(&elsewhere))
    };
    store.add(second);
    let deadline = std::time::Instant::now() + super::LIMIT;
    let (code, message) = loop {
        let status = store.replicator.status("t").unwrap().1.into_iter().next().map(|(_, status)| status);
        if let Some(error) = status.and_then(|status| status.error) {
            break error;
        }
        assert!(std::time::Instant::now() < deadline, "the second sink has no error");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(code, "table_taken", "{message}");
    assert!(message.contains("written by the sink \"s\" of this store already"), "{message}");
    assert!(!message.contains("alter table") && !message.contains("take-over"), "{message}");
}

#[test]
fn tables_that_cannot_be_a_copys_are_refused_by_name() {
    let store = Store::new();
    let named_table = |collection: &str, table: Option<&str>| SinkSettings {
        collection: collection.to_owned(),
        table: table.map(str::to_owned),
        ..settings("postgres://me@127.0.0.1:1/x?sslmode=disable")
    };
    let refused = |settings: SinkSettings| {
        let error = store.replicator.add(settings).unwrap_err();
        assert_eq!(error.code(), "settings", "{error}");
        error.to_string()
    };
    let make = |name_text: &str| {
        _ = store.database.create_collection(&name(name_text), &pannier::DefinitionRequest::vectors(4)).unwrap();
    };
    // Postgres would cut both names to one.
    for end in ["a", "b"] {
        let long = format!("{}{end}", "x".repeat(63));
        make(&long);
        assert!(refused(named_table(&long, None)).contains("has 64 bytes and names in Postgres 63 at most"));
    }
    assert!(refused(named_table("*", None)).contains("63 at most"));
    let long = "é".repeat(32);
    assert!(refused(named_table("c", Some(&long))).contains("has 64 bytes"));
    assert!(refused(named_table("c", Some(&format!("{long}.c")))).contains("has 64 bytes"));
    let state = SinkSettings { state_schema: "s".repeat(64), ..named_table("c", None) };
    assert!(refused(state).contains("more than 63 bytes"));
    for own in ["sinks", "dead_letters", "pannier_collections"] {
        make(own);
        assert!(refused(named_table(own, None)).contains("Pannier keeps its own state"), "{own}");
    }
    assert!(refused(named_table("c", Some("app.pannier_collections"))).contains("its own state"));
    let elsewhere = SinkSettings { state_schema: "app".to_owned(), ..named_table("c", Some("app.sinks")) };
    assert!(refused(elsewhere).contains("its own state"));
    store.add(named_table("sinks", Some("app.sinks")));
    assert_eq!(store.replicator.list().len(), 1);
}

#[test]
fn a_tenant_in_upper_case_is_the_one_in_lower_case() {
    let tenant = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    let Setup { postgres, store } = Setup::new();
    let shared = |sink: &str, tenant: String| SinkSettings {
        layout: LayoutKind::Embeddings,
        tenant: Some(tenant),
        entity_type: Some("note".to_owned()),
        ..named(sink, &settings(&postgres.url))
    };
    store.write(0..20, 1);
    store.add(shared("s", tenant.to_uppercase()));
    store.wait_until_copied();
    store.assert_equal();
    let scope = || postgres.value("select target_scope from pannier.sinks");
    assert!(scope().contains(tenant), "{}", scope());
    // Another store's sink on the same rows is refused by the database.
    let other = Store::new();
    other.add(shared("t", tenant.to_owned()));
    let deadline = std::time::Instant::now() + super::LIMIT;
    let status = || other.replicator.status("t").unwrap().1.into_iter().next().map(|(_, status)| status);
    while status().is_none_or(|status| status.error.is_none()) {
        assert!(std::time::Instant::now() < deadline, "{:?}", status());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(status().unwrap().error.unwrap().0, "table_taken");
    drop(other.close());
    // What an earlier version wrote down is the same place.
    let directory = store.close();
    postgres.run(&format!(
        "update pannier.sinks set target_scope = replace(target_scope, '{tenant}', upper('{tenant}')), target_shape = null"
    ));
    let store = Store::open(directory, Options::default());
    store.wait_until_copied();
    assert_eq!(store.status().scans, 0);
    assert!(scope().contains(tenant), "{}", scope());
    store.assert_equal();
}

#[test]
fn a_table_that_another_store_writes_is_refused_by_the_database() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..20, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    let other = Store::new();
    other.write(10..40, 2);
    let second = SinkSettings { name: SinkName::new("s2").unwrap(), ..settings(&postgres.url) };
    other.add(second);
    let status = || other.replicator.status("s2").unwrap().1.remove(0).1;
    let wait = |wanted: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + super::LIMIT;
        while !wanted() {
            assert!(std::time::Instant::now() < deadline, "{:?}", status());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    wait(&|| status().error.is_some());
    let (code, message) = status().error.unwrap();
    assert_eq!(code, "table_taken", "{message}");
    let owner = postgres.value("select store_id from pannier.sinks where name = 's'");
    assert!(message.contains(&format!("written by the sink \"s\" of store {owner}")), "{message}");
    assert_eq!(postgres.value("select count(*) from pannier.c"), "20");
    store.write(20..25, 1);
    store.wait_until_copied();
    store.assert_equal();
    // Asked to, it takes the table; the other is fenced and changes nothing more. What stands there is still asked
    // about.
    block_on(other.replicator.take_over("s2")).unwrap();
    wait(&|| status().error.is_some_and(|(code, _)| code == "extra_rows"));
    store.write(0..1, 5);
    store.wait_for("the fence", |status| status.phase == Phase::Fenced);
    assert_eq!(postgres.value("select count(*) from pannier.c"), "25");
}

/// A table with rows `1`, `2` and `mine`, of which the collection has `1` and `2`.
fn inhabited() -> Setup {
    let setup = Setup::new();
    setup.store.write(1..20, 1);
    setup.postgres.run(
        "create schema pannier;
         create table pannier.c (id text primary key, content text, metadata jsonb, embedding vector(4), model text,
                                 created_at timestamptz, updated_at timestamptz, seq bigint);
         insert into pannier.c (id, content, seq) values ('1', 'old', 999999), ('2', 'old', null), ('mine', 'x', null)",
    );
    setup
}

#[test]
fn rows_that_a_collection_lacks_keep_their_table_from_being_adopted() {
    let setup = inhabited();
    setup.store.add(setup.settings());
    let message = failure(&setup.store, "extra_rows");
    assert!(message.contains("table pannier.c has 1 rows that the collection lacks"), "{message}");
    assert_eq!(setup.store.status().phase, Phase::Drifted);
    assert_eq!(setup.postgres.column("select content from pannier.c order by id"), ["old", "old", "x"]);
    setup.postgres.run("delete from pannier.c where id = 'mine'");
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    // Rows of documents are overwritten, whatever seq stands in them.
    setup.store.assert_equal();
}

#[test]
fn extra_rows_are_kept_where_that_is_asked_for() {
    let setup = inhabited();
    let (store, postgres) = (&setup.store, &setup.postgres);
    setup.copy(SinkSettings { extra_rows: ExtraRows::Keep, ..setup.settings() });
    let mine = || postgres.value("select content from pannier.c where id = 'mine'");
    let report = store.verify();
    assert!(report.is_equal() && report.kept_rows == 1, "{report:?}");
    postgres.run("delete from pannier.c where id = '3'");
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert_eq!((repaired.written, repaired.deleted, repaired.after.kept_rows), (1, 0, 1));
    assert_eq!(mine(), "x");
    // Also when everything is written again, and documents are still deleted one by one.
    store.delete(4..6);
    store.wait_until_copied();
    postgres.run("update pannier.sinks set cursor_digest = 1");
    let Setup { postgres, store } = setup;
    let store = Store::open(store.close(), Options::default());
    store.wait_until_copied();
    assert_eq!(store.status().scans, 1);
    assert!(store.verify().is_equal());
    assert_eq!(postgres.value("select content from pannier.c where id = 'mine'"), "x");
    assert_eq!(postgres.value("select count(*) from pannier.c"), "18");
}

#[test]
fn extra_rows_are_deleted_where_that_is_asked_for() {
    let setup = inhabited();
    setup.copy(SinkSettings { extra_rows: ExtraRows::Delete, ..setup.settings() });
    assert_eq!(setup.postgres.value("select count(*) from pannier.c where id = 'mine'"), "0");
    setup.store.assert_equal();
    assert!(setup.store.verify().is_equal());
}

#[test]
fn a_role_that_does_not_own_the_table_goes_on_without_the_index() {
    let setup = inhabited();
    let (store, postgres) = (&setup.store, &setup.postgres);
    let (role, port, name) = (format!("guest_{}", postgres.name), postgres.port, &postgres.name);
    postgres.run(&format!(
        "delete from pannier.c; create role {role} login; grant usage, create on schema pannier to {role};
         grant select, insert, update, delete on pannier.c to {role}"
    ));
    setup.copy(settings(&format!("postgres://{role}@127.0.0.1:{port}/{name}?sslmode=disable")));
    let note = store.status().note.unwrap();
    assert!(note.contains("there is no index: must be owner of table c"), "{note}");
    let (_, statement) = note.split_once("let the table's owner make it (").unwrap();
    postgres.run(statement.split_once("), or add").unwrap().0);
    store.write(5..30, 2);
    store.wait_until_copied();
    store.assert_equal();
    store.replicator.set_paused("s", true).unwrap();
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    assert_eq!(store.status().note, None);
    store.replicator.set_paused("s", true).unwrap();
    postgres.run(&format!("drop owned by {role} cascade; drop role {role}"));
}

#[test]
fn an_index_that_cannot_be_made_holds_up_no_row() {
    // Beyond a limit, without room, and anything else.
    for code in ["54000", "53100", "P0001"] {
        let setup = Setup::new();
        let (store, postgres) = (&setup.store, &setup.postgres);
        postgres.run(&format!(
            "create function no_index() returns event_trigger language plpgsql as $$ begin
               raise exception 'not today' using errcode = '{code}'; end $$;
             create event trigger no_index on ddl_command_start when tag in ('CREATE INDEX')
               execute function no_index()"
        ));
        store.write(0..10, 1);
        setup.copy(setup.settings());
        let note = store.status().note.unwrap();
        assert!(note.starts_with("there is no index: "), "{note}");
        assert!(note.contains("(create index concurrently on \"pannier\".\"c\" using hnsw"), "{note}");
        store.write(5..15, 2);
        store.wait_until_copied();
        store.assert_equal();
        let status = store.status();
        assert_eq!((status.connections, status.error), (1, None));
        postgres.run("drop event trigger no_index");
        // It would come by itself, much later.
        store.replicator.set_paused("s", false).unwrap();
        store.wait_for("the index", |status| status.note.is_none() && status.phase == Phase::Streaming);
        let index = "select count(*) from pg_indexes where schemaname = 'pannier' and indexdef like '%hnsw%'";
        assert_eq!(postgres.value(index), "1");
        assert_eq!(store.status().connections, 1);
    }
}

#[test]
fn rows_without_a_key_are_nobodys() {
    for keep in [ExtraRows::Keep, ExtraRows::Delete] {
        let setup = Setup::new();
        let (store, postgres) = (&setup.store, &setup.postgres);
        postgres.run(
            "create table notes (id text unique, body text, v vector(4));
             insert into notes values (null, 'mine'), (null, 'mine too')",
        );
        store.write(0..5, 1);
        let columns = [("id", "id"), ("body", "text"), ("v", "vector")];
        setup.copy(SinkSettings {
            layout: LayoutKind::Custom,
            table: Some("public.notes".to_owned()),
            columns: columns.map(|(column, field)| (column.to_owned(), field.to_owned())).into(),
            extra_rows: keep,
            ..setup.settings()
        });
        let report = store.verify();
        assert!(report.is_equal() && (report.rows, report.kept_rows) == (5, 0), "{report:?}");
        store.write(3..8, 2);
        store.delete(0..1);
        store.wait_until_copied();
        store.assert_equal();
        block_on(store.replicator.repair("s", false)).unwrap();
        assert_eq!(postgres.column("select body from notes where id is null order by 1"), ["mine", "mine too"]);
        assert_eq!(postgres.value("select count(*) from notes"), "9");
    }
}

#[test]
fn a_layout_for_one_dimension_takes_no_other() {
    let store = Store::new();
    let learning =
        SinkSettings { layout: LayoutKind::LearningVectors, ..settings("postgres://me@127.0.0.1:1/x?sslmode=disable") };
    let error = store.replicator.add(learning).unwrap_err();
    assert_eq!(error.code(), "settings");
    assert!(error.to_string().contains("vectors of 384 numbers, the collection has 4"), "{error}");
    assert!(store.replicator.list().is_empty());
}

/// Waits until a look at the sink `t` of a store is as wanted.
#[track_caller]
fn wait_for_t(store: &Store, wanted: impl Fn(&SinkStatus) -> bool) {
    let deadline = std::time::Instant::now() + super::LIMIT;
    let status = || store.replicator.status("t").unwrap().1.into_iter().next().map(|(_, status)| status);
    while !status().is_some_and(|status| wanted(&status)) {
        assert!(std::time::Instant::now() < deadline, "{:?}", status());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_table_that_one_tenant_made_again_is_filled_by_the_other_too() {
    let Setup { postgres, store } = Setup::new();
    let shared = |sink: &str, tenant: &str| SinkSettings {
        layout: LayoutKind::Embeddings,
        tenant: Some(tenant.to_owned()),
        entity_type: Some("note".to_owned()),
        ..named(sink, &settings(&postgres.url))
    };
    store.write(0..20, 1);
    store.add(shared("s", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"));
    store.wait_until_copied();
    let other = Store::new();
    other.write(0..30, 2);
    other.add(shared("t", "7f9619ff-8b86-4d01-b42d-00cf4fc964ff"));
    wait_for_t(&other, |status| status.phase == Phase::Streaming);
    postgres.run("drop table public.embeddings");
    store.write(20..21, 1);
    store.wait_until_copied();
    // It looks at its state, or meets it with its next change.
    other.write(30..31, 2);
    wait_for_t(&other, |status| status.phase == Phase::Streaming && status.scans == 2);
    let rows = "select count(*) from public.embeddings group by tenant_id order by 1";
    assert_eq!(postgres.column(rows), ["21", "31"]);
    let reports = block_on(other.replicator.verify("t")).unwrap();
    assert!(reports[0].1.is_equal(), "{reports:?}");
    store.assert_equal();
}

#[test]
fn removing_a_sink_forgets_nothing_of_another_stores() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..20, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    postgres.run(
        "insert into pannier.dead_letters (sink, document_id, seq, code, reason) values ('s', 'x', 1, 'local', 'x')",
    );
    let left = || {
        let tables = ["sinks", "dead_letters"];
        tables.map(|table| postgres.value(&format!("select count(*) from pannier.{table}")))
    };
    let other = Store::new();
    other.add(settings(&postgres.url));
    failure(&other, "foreign");
    block_on(other.replicator.remove("s")).unwrap();
    assert_eq!(left(), ["1", "1"]);
    store.write(20..30, 1);
    store.wait_until_copied();
    assert_eq!(store.status().scans, 1);
    block_on(store.replicator.remove("s")).unwrap();
    assert_eq!(left(), ["0", "0"]);
}

#[test]
fn a_document_takes_a_kept_row_whatever_seq_stands_in_it() {
    let Setup { postgres, store } = Setup::new();
    for round in 0..30 {
        store.write(0..60, round);
    }
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    block_on(store.replicator.remove("s")).unwrap();
    let other = Store::new();
    other.write(0..10, 100);
    other.add(SinkSettings { extra_rows: ExtraRows::Keep, ..settings(&postgres.url) });
    other.wait_until_copied();
    other.write(20..30, 100);
    other.wait_until_copied();
    other.delete(25..30);
    other.wait_until_copied();
    assert!(other.collection.store_seq().0 < 30, "every row of the first store is ahead");
    let groups = "select metadata ->> 'group' from pannier.c where id in ('5', '22', '27', '40') order by id::int";
    assert_eq!(postgres.column(groups), ["100", "100", "29"]);
    let report = other.verify();
    assert!(report.is_equal() && report.kept_rows == 40, "{report:?}");
}

#[test]
fn an_index_that_is_being_made_is_waited_for_and_blocks_nobody() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..50, 1);
    store.add(SinkSettings { index: IndexKind::None, ..settings(&postgres.url) });
    store.wait_until_copied();
    block_on(store.replicator.remove("s")).unwrap();
    // What an attempt leaves behind whose connection is gone: it waits for who writes to the table.
    let writer = Holding::new(&postgres.url, "lock table pannier.c in row exclusive mode");
    let url = postgres.url.clone();
    let making = std::thread::spawn(move || {
        let sql = "create index concurrently by_another on pannier.c using hnsw (embedding vector_cosine_ops)";
        crate::support::postgres::run(&url, sql)
    });
    let under_way =
        "select count(*) from pg_stat_progress_create_index where datname = current_database() and index_relid <> 0";
    let deadline = std::time::Instant::now() + super::LIMIT;
    while postgres.value(under_way) != "1" {
        assert!(std::time::Instant::now() < deadline, "no index is being made");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    store.add(settings(&postgres.url));
    let note = |words: &str| {
        let has = |status: &SinkStatus| status.note.as_ref().is_some_and(|note| note.contains(words));
        store.wait_for(words, |status| status.phase == Phase::Streaming && has(status));
    };
    note("is making one for another connection");
    store.write(50..60, 1);
    store.wait_until_copied();
    assert_eq!(postgres.value("select count(*) from pannier.c"), "60");
    writer.release();
    making.join().unwrap().unwrap();
    let made = || {
        store.replicator.set_paused("s", false).unwrap();
        store.wait_for("the index", |status| status.note.is_none() && status.phase == Phase::Streaming);
        postgres.column(
            "select c.relname || i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
             join pg_am a on a.oid = c.relam where i.indrelid = 'pannier.c'::regclass and a.amname = 'hnsw'",
        )
    };
    assert_eq!(made(), ["by_anothertrue"]);
    // What is left of one is dropped, but not while somebody reads.
    postgres.run("update pg_index set indisvalid = false where indexrelid = 'pannier.by_another'::regclass");
    let reader = Holding::new(&postgres.url, "select from pannier.c limit 1");
    store.replicator.set_paused("s", true).unwrap();
    store.replicator.set_paused("s", false).unwrap();
    note("lock timeout");
    assert_eq!(postgres.value("select count(*) from pannier.c"), "60");
    reader.release();
    let made = made();
    assert!(made.len() == 1 && made[0].starts_with("ix_vector_cosine_ops") && made[0].ends_with("true"), "{made:?}");
}
