//! What can be wrong with a database or a document: each has its own state, and local writes never stop.

use pannier::replicate::{Phase, SecretFrom, SinkStatus};

use super::{Setup, Store, settings};
use crate::support::postgres::{Version, server};
use crate::support::{document, id};

/// Waits for a failure of this code; writes are taken all the while.
#[track_caller]
fn fails_with(store: &Store, code: &str, words: &str) -> SinkStatus {
    let status = store.wait_for(code, |status| status.error.as_ref().is_some_and(|(got, _)| got == code));
    let (_, message) = status.error.as_ref().unwrap();
    assert!(message.contains(words), "{words:?} is not in {message:?}");
    assert!(!message.contains("s3cret"), "{message}");
    store.write(0..3, 9);
    status
}

#[test]
fn a_database_without_the_extension() {
    let postgres = server(Version::V16).bare_database();
    let store = Store::new();
    store.write(0..3, 1);
    store.add(settings(&postgres.url));
    fails_with(&store, "no_extension", "CREATE EXTENSION vector");
    postgres.run("create extension vector");
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    store.assert_equal();
}

#[test]
fn an_old_extension() {
    let setup = Setup::new();
    setup.postgres.run("update pg_extension set extversion = '0.8.2' where extname = 'vector'");
    setup.store.add(setup.settings());
    fails_with(&setup.store, "old_extension", "pgvector is 0.8.2, at least 0.8.4");
}

#[test]
fn a_wrong_password_and_a_server_that_is_not_there() {
    let setup = Setup::new();
    let (port, name) = (setup.postgres.port, &setup.postgres.name);
    setup.store.add(settings(&format!("postgres://scram_nobody:s3cret@127.0.0.1:{port}/{name}?sslmode=disable")));
    fails_with(&setup.store, "authentication", "cannot connect to scram_nobody@127.0.0.1");
    block_remove(&setup.store);
    setup.store.add(settings("postgres://me:s3cret@127.0.0.1:1/x?sslmode=disable"));
    fails_with(&setup.store, "unreachable", "cannot connect to me@127.0.0.1:1/x");
    block_remove(&setup.store);
    setup.store.add(settings(&format!("postgres://postgres:s3cret@127.0.0.1:{port}/{name}?sslmode=verify-full")));
    fails_with(&setup.store, "tls", "TLS");
}

fn block_remove(store: &Store) {
    // Its database may be out of reach: that is said, and no failure.
    super::block_on(store.replicator.remove("s")).unwrap();
}

#[test]
fn missing_rights() {
    let setup = Setup::new();
    let (port, name) = (setup.postgres.port, &setup.postgres.name);
    setup.postgres.run("create role weak login");
    setup.store.add(settings(&format!("postgres://weak@127.0.0.1:{port}/{name}?sslmode=disable")));
    let mend = format!("lacks CREATE on database {name} (to mend: grant create on database \"{name}\" to \"weak\")");
    fails_with(&setup.store, "missing_rights", &mend);
    setup.postgres.run("create schema pannier");
    setup.store.replicator.set_paused("s", false).unwrap();
    let mend = "grant usage, create on schema \"pannier\" to \"weak\"";
    let wanted = format!("the role weak lacks USAGE, CREATE on schema pannier (to mend: {mend})");
    setup.store.wait_for("the schema", |status| status.error.as_ref().is_some_and(|(_, said)| *said == wanted));
    setup.postgres.run(mend);
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    setup.postgres.run("drop owned by weak cascade; drop role weak");
}

#[test]
fn an_extension_that_is_made_again_is_looked_at_again() {
    let setup = Setup::new();
    setup.store.write(0..10, 1);
    setup.copy(setup.settings());
    setup.postgres.run(
        "drop extension vector cascade; create extension vector;
         alter table pannier.c add column embedding vector(4)",
    );
    // Its types have other numbers than the sink knows.
    let error = super::block_on(setup.store.replicator.repair("s", false)).unwrap_err();
    assert_eq!(error.code(), "table_changed", "{error}");
    setup.store.wait_for("the next session", |status| status.phase == Phase::Streaming);
    super::block_on(setup.store.replicator.repair("s", false)).unwrap();
    setup.store.assert_equal();
}

#[test]
fn a_column_that_is_dropped_is_named_and_its_return_heals() {
    let setup = Setup::new();
    setup.store.write(0..10, 1);
    setup.copy(setup.settings());
    setup.postgres.run("alter table pannier.c drop column content");
    setup.store.write(5..15, 2);
    fails_with(&setup.store, "schema_drift", "column content is missing");
    setup.postgres.run("alter table pannier.c add column content text");
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    // What the dropped column held is found and mended.
    assert!(!setup.store.verify().differences.is_empty());
    super::block_on(setup.store.replicator.repair("s", false)).unwrap();
    setup.store.assert_equal();
}

#[test]
fn what_no_row_can_hold_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let setup = Setup::new();
    setup.store.write(0..50, 1);
    setup.copy(setup.settings());
    setup.postgres.run("alter table pannier.c add check ((metadata ->> 'group')::int <> 666)");
    let mut nul = document("nul", &[1.0, 2.0, 3.0, 4.0], 1);
    nul.text = Some("a\0b".to_owned());
    let poison = |n: u64| document(&format!("poison {n}"), &[1.0, 2.0, 3.0, n as f32], 666);
    let mut documents: Vec<_> = (100..400).map(|n| super::numbered(n, 2)).collect();
    documents.insert(30, poison(1));
    documents.insert(200, poison(2));
    documents.push(nul);
    setup.store.collection.upsert(documents).unwrap();
    setup.store.write(400..410, 3);
    setup.store.wait_until_copied();
    assert_eq!(setup.postgres.value("select count(*) from pannier.c"), "360");
    let dead = setup.postgres.column("select document_id || ' ' || code from pannier.dead_letters order by 1");
    assert_eq!(dead, ["nul local", "poison 1 23514", "poison 2 23514"]);
    assert_eq!(setup.store.status().dead_letters, 3);
    setup.store.assert_equal();
    // Written again in a form that can be stored, or deleted, a document is dead no more.
    setup.store.collection.upsert(vec![document("poison 1", &[1.0, 1.0, 1.0, 1.0], 1)]).unwrap();
    setup.store.collection.delete(&[id("nul")]).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(setup.postgres.column("select document_id from pannier.dead_letters"), ["poison 2"]);
    setup.store.assert_equal();
}

#[test]
fn one_sink_in_trouble_holds_up_no_other() {
    let setup = Setup::new();
    let mut broken = settings("postgres://me@127.0.0.1:1/x?sslmode=disable");
    broken.name = pannier::replicate::SinkName::new("broken").unwrap();
    setup.store.add(broken);
    setup.store.write(0..100, 1);
    setup.copy(setup.settings());
    setup.store.assert_equal();
    let (_, copies) = setup.store.replicator.status("broken").unwrap();
    assert_eq!(copies[0].1.error.as_ref().unwrap().0, "unreachable");
    assert!(copies[0].1.lag_seqs > 0);
}

#[test]
fn settings_that_cannot_work_are_refused_at_once() {
    let store = Store::new();
    let refused = |settings| store.replicator.add(settings).unwrap_err().code();
    let good = || settings("postgres://me@127.0.0.1:1/x");
    let mut other = good();
    other.collection = "nowhere".to_owned();
    assert_eq!(refused(other), "no_collection");
    let mut unset = good();
    unset.url = SecretFrom::Variable("PANNIER_TEST_NOT_SET".to_owned());
    assert_eq!(refused(unset), "settings");
    let mut tenantless = good();
    tenantless.layout = pannier::replicate::LayoutKind::Embeddings;
    assert_eq!(refused(tenantless), "settings");
    store.add(good());
    assert_eq!(refused(good()), "sink_exists");
    store.wait_for("a first attempt", |status| status.phase == Phase::Waiting);
}
