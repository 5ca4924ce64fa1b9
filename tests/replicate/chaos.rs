//! Cuts and delays around COMMIT, connections that speak twice, a database that is killed, two processes on one sink, a
//! store from an older copy or snapshot.

use std::time::Duration;

use pannier::Options;
use pannier::replicate::{LayoutKind, Phase};
use pannier::snapshot::{self, SnapshotName};

use super::proxy::{CUTS, Harm, Proxy};
use super::{Holding, Setup, Store, copy_directory, settings};
use crate::support::Random;
use crate::support::postgres::{Server, TestDatabase, Version, database};

/// So long a statement may take where a proxy is slow.
const LIMIT: Duration = Duration::from_millis(1_500);

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
fn assert_exact(store: &Store, postgres: &TestDatabase) {
    assert_exact_in(store, postgres, "pannier.c");
}

fn assert_exact_in(store: &Store, postgres: &TestDatabase, table: &str) {
    store.assert_equal();
    let rows: u64 = postgres.value(&format!("select count(*) from {table}")).parse().unwrap();
    assert_eq!(rows, store.collection.stats().documents);
    assert_eq!(postgres.value(&format!("select count(*) - count(distinct id) from {table}")), "0");
}

/// The database as a proxy leads to it.
fn through(proxy: &Proxy, postgres: &TestDatabase) -> String {
    let (port, name, limit) = (proxy.port, &postgres.name, LIMIT.as_millis());
    format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable&statement_timeout={limit}")
}

/// Writes until the proxy has done what it was told to.
fn churn_until_done(store: &Store, proxy: &Proxy, seed: u64) {
    let mut random = Random(seed);
    for round in 1.. {
        churn(store, &mut random, round);
        if round % 4 == 0 {
            store.wait_until_copied();
        }
        if proxy.left() == 0 {
            break;
        }
    }
    store.wait_until_copied();
}

#[test]
fn cuts_before_during_and_after_commit_change_nothing() {
    let postgres = database();
    let proxy = Proxy::start(postgres.port, 7);
    let store = Store::new();
    store.write(0..300, 0);
    proxy.harm(&CUTS, 3);
    store.add(settings(&through(&proxy, &postgres)));
    store.wait_until_copied();
    proxy.harm(&CUTS, cuts());
    churn_until_done(&store, &proxy, 11);
    let made = CUTS.map(|kind| proxy.made().into_iter().filter(|made| *made == kind).count());
    assert!(made.iter().sum::<usize>() as u64 >= cuts(), "{made:?}");
    eprintln!("cuts before, during, after COMMIT: {made:?}; connections: {}", store.status().connections);
    assert_exact(&store, &postgres);
}

#[test]
fn commits_and_answers_that_come_late_or_too_late_change_nothing() {
    let postgres = database();
    let proxy = Proxy::start(postgres.port, 3);
    let store = Store::new();
    store.write(0..300, 0);
    store.add(settings(&through(&proxy, &postgres)));
    store.wait_until_copied();
    let (in_time, too_late) = (LIMIT / 8, LIMIT + LIMIT / 2);
    let kinds = [Harm::Late(in_time), Harm::AnswerLate(in_time), Harm::Late(too_late), Harm::AnswerLate(too_late)];
    proxy.harm(&kinds, cuts());
    churn_until_done(&store, &proxy, 13);
    let made = kinds.map(|kind| proxy.made().into_iter().filter(|made| *made == kind).count());
    assert!(made.iter().all(|times| *times > 0), "{made:?}");
    // Only those that came too late cost a connection.
    assert!(store.status().connections > 1);
    eprintln!("COMMIT late, answer late, both too late: {made:?}; connections: {}", store.status().connections);
    assert_exact(&store, &postgres);
}

/// Layouts whose rows are guarded by their seq, and by the fence alone.
const GUARDED_AND_NOT: [(LayoutKind, &str); 2] = [(LayoutKind::Pannier, "pannier.c"), (LayoutKind::Vecs, "vecs.c")];

#[test]
fn a_connection_whose_bytes_arrive_twice_changes_nothing() {
    for (layout, table) in GUARDED_AND_NOT {
        let postgres = database();
        let proxy = Proxy::start(postgres.port, 5);
        let store = Store::new();
        store.write(0..300, 0);
        // The second of them is ever further behind.
        proxy.echo(Duration::from_millis(3));
        let mut settings = settings(&through(&proxy, &postgres));
        settings.layout = layout;
        store.add(settings);
        store.wait_until_copied();
        proxy.harm(&CUTS, cuts() / 2);
        churn_until_done(&store, &proxy, 17);
        assert_exact_in(&store, &postgres, table);
        store.replicator.set_paused("s", true).unwrap();
        proxy.settle();
        assert!(proxy.refused() > 0, "no second connection tried to write");
        eprintln!("{layout:?}: transactions of second connections that were refused: {}", proxy.refused());
        store.replicator.set_paused("s", false).unwrap();
        store.wait_until_copied();
        assert_exact_in(&store, &postgres, table);
    }
}

#[test]
fn an_old_connection_that_wakes_later_changes_nothing() {
    for (layout, table) in GUARDED_AND_NOT {
        let postgres = database();
        let proxy = Proxy::start(postgres.port, 9);
        let store = Store::new();
        store.write(0..300, 0);
        let mut settings = settings(&through(&proxy, &postgres));
        settings.layout = layout;
        store.add(settings);
        store.wait_until_copied();
        proxy.harm(&[Harm::CutAfter], 5);
        churn_until_done(&store, &proxy, 19);
        // What they wrote is gone since, or other.
        store.delete(0..200);
        store.write(200..400, 99);
        store.wait_until_copied();
        let before = store.status();
        let woken = proxy.replay();
        assert!(woken >= 5, "{woken}");
        assert!(proxy.refused() >= 5, "{} of {woken} tried to write", proxy.refused());
        assert_exact_in(&store, &postgres, table);
        // The connection that holds the sink goes on as if nothing had been.
        store.write(0..10, 100);
        store.wait_until_copied();
        let after = store.status();
        assert_eq!((after.connections, after.scans, after.error), (before.connections, before.scans, None));
        assert_exact_in(&store, &postgres, table);
    }
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
fn a_database_that_goes_away_while_nothing_is_written_is_noticed() {
    let server = Server::start(Version::V16);
    let postgres = server.database();
    let store = Store::new();
    store.write(0..10, 0);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    server.kill();
    let status = store.wait_for("the failure", |status| status.phase == Phase::Waiting);
    assert_eq!(status.error.unwrap().0, "unreachable");
    server.restart();
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    assert_exact(&store, &postgres);
}

#[test]
fn a_backup_that_is_restored_under_an_idle_sink_is_noticed_and_caught_up_with() {
    // Of the same connection, and of one before.
    for is_of_an_older_epoch in [false, true] {
        let Setup { postgres, store } = Setup::new();
        store.write(0..50, 1);
        store.add(settings(&postgres.url));
        store.wait_until_copied();
        postgres
            .run("create table backup_of_c as table pannier.c; create table backup_of_sinks as table pannier.sinks");
        if is_of_an_older_epoch {
            store.replicator.set_paused("s", true).unwrap();
            store.replicator.set_paused("s", false).unwrap();
        }
        store.write(40..80, 2);
        store.delete(0..10);
        store.wait_until_copied();
        let before = store.status().connections;
        postgres.run(
            "begin;
             delete from pannier.c; insert into pannier.c table backup_of_c;
             delete from pannier.sinks; insert into pannier.sinks table backup_of_sinks;
             commit",
        );
        store.wait_for("another connection", |status| {
            status.connections > before && status.phase == Phase::Streaming && status.lag_seqs == 0
        });
        store.wait_until_copied();
        assert_exact(&store, &postgres);
        // A write that comes before anybody has looked.
        postgres.run(
            "begin;
             delete from pannier.c; insert into pannier.c table backup_of_c;
             delete from pannier.sinks; insert into pannier.sinks table backup_of_sinks;
             commit",
        );
        store.write(80..90, 3);
        store.wait_until_copied();
        store.wait_for("the rows", |_| postgres.value("select count(*) from pannier.c") == "80");
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
    second.write(500..520, 3);
    second.delete(0..5);
    second.wait_until_copied();
    // Asked to, it takes its place back; what the other wrote meanwhile is compared and gone.
    second.replicator.set_paused("s", true).unwrap();
    let scans = store.status().scans;
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    assert_eq!(store.status().scans, scans + 1);
    assert_exact(&store, &postgres);
    assert_eq!(postgres.value("select count(*) from pannier.c"), "200");
}

#[test]
fn a_fenced_process_compares_also_where_the_other_wrote_nothing() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..50, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    let copied = copy_directory(store.directory.path());
    let _ = std::fs::remove_file(copied.path().join("LOCK"));
    let second = Store::open(copied, Options::default());
    second.wait_for("the second", |status| status.phase == Phase::Streaming);
    second.replicator.set_paused("s", true).unwrap();
    store.write(50..60, 2);
    store.wait_for("the fence", |status| status.phase == Phase::Fenced);
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    assert_eq!(store.status().scans, 2);
    assert_exact(&store, &postgres);
}

#[test]
fn a_copied_store_whose_seqs_have_caught_up_is_noticed_and_mended() {
    for (layout, table) in GUARDED_AND_NOT {
        let Setup { postgres, store } = Setup::new();
        store.write(0..100, 1);
        let mut settings = settings(&postgres.url);
        settings.layout = layout;
        store.add(settings);
        store.wait_until_copied();
        let copied = copy_directory(store.directory.path());
        let _ = std::fs::remove_file(copied.path().join("LOCK"));
        // The original goes on, and its copy in the database with it.
        store.write(100..150, 2);
        store.delete(0..10);
        store.wait_until_copied();
        let cursor = store.status().cursor;
        drop(store.close());
        // The copied directory goes on as well, beyond the same seqs, before its sink works again.
        let database = pannier::Database::open(copied.path()).unwrap();
        let collection = database.collection(&crate::support::name("c")).unwrap();
        for n in 200..220 {
            collection.upsert(vec![super::numbered(n, 3)]).unwrap();
        }
        assert!(collection.store_seq() > cursor);
        drop(collection);
        database.close();
        let store = Store::open(copied, Options::default());
        store.wait_until_copied();
        assert_eq!(store.status().scans, 1);
        assert_exact_in(&store, &postgres, table);
        assert_eq!(postgres.value(&format!("select count(*) from {table}")), "120");
        // Once mended it is of this history.
        let store = Store::open(store.close(), Options::default());
        store.write(0..5, 4);
        store.wait_until_copied();
        assert_eq!(store.status().scans, 0);
        assert_exact_in(&store, &postgres, table);
    }
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
fn a_store_restored_from_an_older_snapshot_is_noticed_and_mended() {
    for (layout, table) in GUARDED_AND_NOT {
        let Setup { postgres, store } = Setup::new();
        store.write(0..100, 1);
        let mut settings = settings(&postgres.url);
        settings.layout = layout;
        store.add(settings);
        store.wait_until_copied();
        let name = SnapshotName::new("older").unwrap();
        snapshot::create(&store.database, Some(name.clone())).unwrap();
        // A future that is taken back: rows that are other, rows that are new, rows that are gone.
        store.write(50..150, 2);
        store.delete(0..10);
        store.wait_until_copied();
        assert_eq!(postgres.value(&format!("select count(*) from {table}")), "140");
        let directory = store.close();
        let restored = snapshot::restore(directory.path(), &snapshot::Source::Snapshot(name), &mut |_, _| {}).unwrap();
        assert_eq!(restored.timeline, 2);
        let store = Store::open(directory, Options::default());
        store.wait_until_copied();
        assert_eq!(store.status().scans, 1);
        assert_exact_in(&store, &postgres, table);
        assert_eq!(postgres.value(&format!("select count(*) from {table}")), "100");
        assert_eq!(postgres.value("select timeline from pannier.sinks"), "2");
        // It goes on from there, and needs no more scans.
        store.write(0..20, 3);
        store.delete(90..95);
        store.wait_until_copied();
        assert_exact_in(&store, &postgres, table);
        let store = Store::open(store.close(), Options::default());
        store.write(20..30, 4);
        store.wait_until_copied();
        assert_eq!(store.status().scans, 0);
        assert_exact_in(&store, &postgres, table);
    }
}

#[test]
fn what_is_written_during_the_scan_after_a_restore_takes_rows_of_a_lost_future() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..100, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    let name = SnapshotName::new("older").unwrap();
    snapshot::create(&store.database, Some(name.clone())).unwrap();
    for round in 0..20 {
        store.write(100..150, round);
    }
    store.wait_until_copied();
    let directory = store.close();
    snapshot::restore(directory.path(), &snapshot::Source::Snapshot(name), &mut |_, _| {}).unwrap();
    let holding = Holding::new(&postgres.url, "lock table pannier.c in share mode");
    let store = Store::open(directory, Options::default());
    // The scan has read its documents when it comes to the table.
    let waits = "select count(*) > 0 from pg_locks where relation = 'pannier.c'::regclass and not granted";
    store.wait_for("a scan that waits", |_| postgres.value(waits) == "t");
    store.write(110..120, 50);
    store.write(130..131, 50);
    store.delete(115..117);
    holding.release();
    store.wait_until_copied();
    assert_eq!(postgres.value("select count(*) from pannier.c where metadata @> '{\"group\": 50}'"), "9");
    assert_exact(&store, &postgres);
    assert_eq!(store.status().scans, 1);
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

#[test]
fn a_take_over_whose_session_breaks_off_is_none_to_ask_for_again() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..30, 1);
    store.add(settings(&postgres.url));
    store.wait_until_copied();
    store.close();
    let other = Store::new();
    other.write(20..40, 2);
    // Nobody gets at the rows, and statements give up soon.
    let holding = Holding::new(&postgres.url, "lock table pannier.c in access exclusive mode");
    let query = if postgres.url.contains('?') { "&" } else { "?" };
    other.add(settings(&format!("{}{query}statement_timeout=2000", postgres.url)));
    let status = other.wait_for("the refusal", |status| status.error.is_some());
    assert_eq!(status.error.unwrap().0, "foreign");
    super::block_on(other.replicator.take_over("s")).unwrap();
    other.wait_for("a session that breaks off", |status| {
        status.error.as_ref().is_some_and(|(code, _)| code != "foreign") && status.phase == Phase::Waiting
    });
    holding.release();
    other.wait_until_copied();
    assert_exact(&other, &postgres);
}
