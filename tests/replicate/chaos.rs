//! Cuts around COMMIT, a database that is killed, two processes on one sink, a store from an older copy.

use pannier::Options;
use pannier::replicate::Phase;

use super::proxy::Proxy;
use super::{Setup, Store, copy_directory, settings};
use crate::support::Random;
use crate::support::postgres::{Server, Version, database};

/// Cuts in one run; PANNIER_TEST_CUTS sets more.
fn cuts() -> u64 {
    std::env::var("PANNIER_TEST_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Writes, overwrites and deletes at random.
fn churn(store: &Store, random: &mut Random, round: i64) {
    let first = random.below(400);
    store.write(first..first + 1 + random.below(60), round);
    let first = random.below(400);
    store.delete(first..first + random.below(20));
}

/// No row twice, none older than its document: what a hash of the whole would not tell apart from luck.
fn assert_exact(store: &Store, postgres: &crate::support::postgres::TestDatabase) {
    store.assert_equal();
    let rows: u64 = postgres.value("select count(*) from pannier.c").parse().unwrap();
    assert_eq!(rows, store.collection.stats().documents);
    assert_eq!(postgres.value("select count(*) - count(distinct id) from pannier.c"), "0");
}

#[test]
fn cuts_before_during_and_after_commit_change_nothing() {
    let postgres = database();
    let proxy = Proxy::start(postgres.port, 7);
    let store = Store::new();
    store.write(0..300, 0);
    proxy.cut(3);
    store.add(settings(&format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable", proxy.port, postgres.name)));
    store.wait_until_copied();
    let mut random = Random(11);
    let mut round = 1;
    proxy.cut(cuts());
    while proxy.left() > 0 {
        churn(&store, &mut random, round);
        round += 1;
        if round % 4 == 0 {
            store.wait_until_copied();
        }
    }
    store.wait_until_copied();
    let made = proxy.made();
    assert!(made.iter().sum::<u64>() >= cuts(), "{made:?}");
    eprintln!("cuts before, during, after COMMIT: {made:?}; connections: {}", store.status().connections);
    assert_exact(&store, &postgres);
}

#[test]
fn a_database_that_is_killed_comes_back_to_the_same() {
    let server = Server::start(Version::V16);
    let postgres = server.database();
    let store = Store::new();
    store.write(0..300, 0);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    let mut random = Random(5);
    for round in 1..4 {
        churn(&store, &mut random, round);
        server.kill();
        for _ in 0..5 {
            churn(&store, &mut random, round);
        }
        store.wait_for("the failure", |status| status.phase == Phase::Waiting && status.lag_seqs > 0);
        server.restart();
        store.replicator.set_paused("s", false).unwrap();
        store.wait_until_copied();
        assert_exact(&store, &postgres);
    }
}

#[test]
fn of_two_processes_the_older_is_fenced() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..100, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    // The same store, opened twice: a copied directory under another process.
    let copied = copy_directory(store.directory.path());
    let _ = std::fs::remove_file(copied.path().join("LOCK"));
    let second = Store::open(copied, Options::default());
    second.wait_for("the second", |status| status.phase == Phase::Streaming);
    store.write(100..200, 2);
    let status = store.wait_for("the fence", |status| status.phase == Phase::Fenced);
    assert!(status.error.unwrap().1.contains("took over"));
    assert_eq!(postgres.value("select count(*) from pannier.c"), "100", "the fenced one wrote nothing");
    // Asked to, it takes its place back; its history went on, so nothing has to be compared.
    second.replicator.set_paused("s", true).unwrap();
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    assert_exact(&store, &postgres);
}

#[test]
fn a_store_that_went_on_from_an_older_copy_is_noticed_and_mended() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..100, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    let old = copy_directory(store.directory.path());
    store.write(50..150, 2);
    store.delete(0..10);
    store.wait_until_copied();
    drop(store.close());
    let _ = std::fs::remove_file(old.path().join("LOCK"));
    let store = Store::open(old, Options::default());
    store.wait_until_copied();
    assert_eq!(store.status().scans, 1);
    assert_exact(&store, &postgres);
    assert_eq!(postgres.value("select count(*) from pannier.c"), "100");
    // And it goes on from there: younger rows of the lost future block nothing.
    store.write(0..20, 3);
    store.delete(90..95);
    store.wait_until_copied();
    assert_exact(&store, &postgres);
}

#[test]
fn another_store_is_refused_until_it_takes_over() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..30, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    let other = Store::new();
    other.write(20..40, 2);
    other.add(settings(&postgres.url));
    let status = other.wait_for("the refusal", |status| status.error.is_some());
    assert_eq!(status.error.unwrap().0, "foreign");
    super::block_on(other.replicator.take_over("s")).unwrap();
    other.wait_until_copied();
    assert_exact(&other, &postgres);
    store.write(0..1, 5);
    store.wait_for("the fence", |status| status.phase == Phase::Fenced);
}
