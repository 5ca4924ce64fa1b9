//! Backfill, following, resuming, catching up by comparing, comparing and mending.

use std::sync::atomic::{AtomicBool, Ordering};

use pannier::Options;
use pannier::replicate::{Difference, Kind, VectorType};
use pannier::types::{DocumentPatch, Edit, NewDocument, Value};

use super::{Setup, Store, block_on};
use crate::support::id;
use crate::support::postgres::{Version, database, server};

#[test]
fn what_was_there_and_what_comes_stand_in_the_table() {
    let setup = Setup::new();
    let store = &setup.store;
    store.write(0..2_500, 1);
    store.delete(0..10);
    setup.copy(setup.settings());
    let count = |condition: &str| setup.postgres.value(&format!("select count(*) from pannier.c where {condition}"));
    assert_eq!(count("true"), "2490");
    store.write(100..200, 2);
    store.write(150..160, 3);
    store.delete(190..195);
    store.wait_until_copied();
    assert_eq!(count("metadata @> '{\"group\": 2}'"), "85");
    assert_eq!(count("metadata @> '{\"group\": 3}'"), "10");
    assert_eq!(count("id = '190'"), "0");
    assert_eq!(setup.postgres.value("select content from pannier.c where id = '150'"), "text of 150");
    let index = "select indexdef from pg_indexes where schemaname = 'pannier' and indexdef like '%hnsw%'";
    assert!(setup.postgres.value(index).contains("vector_cosine_ops"));
    store.assert_equal();
    assert_eq!(store.status().scans, 1);
}

#[test]
fn patches_are_copied_as_whole_documents() {
    let setup = Setup::new();
    let store = &setup.store;
    store.write(0..10, 1);
    setup.copy(setup.settings());
    let patch = |n: u64| DocumentPatch {
        metadata: [("patched".to_owned(), Value::Bool(true)), ("group".to_owned(), Value::Null)].into(),
        text: if n == 3 { Edit::Set("another text".into()) } else { Edit::Keep },
        ..DocumentPatch::new(id(&n.to_string()))
    };
    store.collection.patch(&[patch(2), patch(3)]).unwrap();
    store.wait_until_copied();
    let value = |sql: &str| setup.postgres.value(sql);
    assert_eq!(value("select count(*) from pannier.c where metadata = '{\"patched\": true}'"), "2");
    assert_eq!(value("select content from pannier.c where id = '2'"), "text of 2");
    assert_eq!(value("select content from pannier.c where id = '3'"), "another text");
    store.assert_equal();
}

#[test]
fn it_goes_on_where_it_was_after_a_restart() {
    let Setup { postgres, store } = Setup::new();
    store.write(0..500, 1);
    store.add(super::settings(&postgres.url));
    store.wait_until_copied();
    let directory = store.close();
    let store = Store::open(directory, Options::default());
    store.write(400..600, 2);
    store.wait_until_copied();
    let status = store.status();
    assert_eq!((status.scans, status.rows_written), (0, 200));
    store.assert_equal();
}

#[test]
fn a_copy_that_the_log_left_behind_is_compared_as_a_whole() {
    let postgres = database();
    let options = Options { memtable_documents: Some(200), ..Options::default() };
    let store = Store::open(tempfile::tempdir().unwrap(), options);
    store.database.keep_log_for_copies(0);
    store.write(0..1_000, 1);
    store.add(super::settings(&postgres.url));
    store.wait_until_copied();
    store.replicator.set_paused("s", true).unwrap();
    store.write(500..1_500, 2);
    store.delete(0..250);
    // The log is cut behind what is in segments.
    store.collection.flush().unwrap();
    store.write(1_500..1_510, 3);
    store.collection.flush().unwrap();
    // Each call is one change.
    let lag = store.wait_for("a lag", |status| status.phase == super::Phase::Paused && status.lag_seqs >= 4).lag_seqs;
    let summary = store.replicator.summary().unwrap();
    assert_eq!((summary.copies, summary.streaming, summary.lag_seqs), (1, 0, lag), "a copy that rests is counted");
    store.replicator.set_paused("s", false).unwrap();
    store.wait_until_copied();
    assert_eq!(store.status().scans, 1, "{:?}", store.status());
    assert_eq!(postgres.value("select count(*) from pannier.c"), "1260");
    store.assert_equal();
}

#[test]
fn exactly_the_rows_that_differ_are_listed_and_mended() {
    let setup = Setup::new();
    let store = &setup.store;
    store.write(0..1_200, 1);
    setup.copy(setup.settings());
    setup.postgres.run(
        "delete from pannier.c where id in ('7', '8');
         update pannier.c set embedding = '[1,2,3,9]' where id = '9';
         update pannier.c set metadata = '{\"group\": 1, \"x\": 1}', content = 'other' where id = '10';
         insert into pannier.c select 'extra', content, metadata, embedding, model, created_at, updated_at, seq
         from pannier.c where id = '11'",
    );
    let listed = |report: &pannier::replicate::VerifyReport| {
        let mut all: Vec<(Kind, String)> =
            report.differences.iter().map(|difference| (difference.kind, difference.key.clone())).collect();
        all.sort();
        all
    };
    let expected = [
        (Kind::Missing, "7"),
        (Kind::Missing, "8"),
        (Kind::Extra, "extra"),
        (Kind::Different, "10"),
        (Kind::Different, "9"),
    ]
    .map(|(kind, key)| (kind, key.to_owned()));
    assert_eq!(listed(&store.verify()), expected);
    let dry = block_on(store.replicator.repair("s", true)).unwrap().remove(0).1;
    assert_eq!((dry.written, dry.deleted, listed(&dry.after)), (0, 0, expected.to_vec()));
    assert_eq!(setup.postgres.value("select count(*) from pannier.c where id = 'extra'"), "1");
    let done = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert_eq!((done.written, done.deleted, done.after.differences.len()), (4, 1, 0));
    store.assert_equal();
    assert_eq!(setup.postgres.value("select content from pannier.c where id = '10'"), "text of 10");
}

#[test]
fn the_other_version_and_half_precision_do_as_well() {
    let setup = Setup { postgres: server(Version::V18).database(), store: Store::new() };
    let mut settings = setup.settings();
    settings.vector_type = VectorType::Halfvec;
    setup.store.write(0..300, 1);
    setup.copy(settings);
    assert!(
        setup
            .postgres
            .value("select indexdef from pg_indexes where indexdef like '%hnsw%'")
            .contains("halfvec_cosine_ops")
    );
    setup.store.assert_equal();
}

#[test]
fn metadata_of_every_kind_hash_the_same_on_both_sides() {
    use pannier::types::{Metadata, NewDocument, Value};
    let setup = Setup::new();
    let numbers = [0.0, -0.0, 1.5, 1e21, 1e-7, 1.0 / 3.0, -2.5e300, f64::MIN_POSITIVE, 100.0];
    let odd = "a\"b\\c\n\t\u{1}\u{7f}é😀\u{2028}/";
    let mut metadata = Metadata::new();
    metadata.insert("numbers".into(), Value::Array(numbers.map(Value::Float).to_vec()));
    metadata.insert("ints".into(), Value::Array([i64::MIN, -1, 0, i64::MAX].map(Value::Int).to_vec()));
    metadata.insert(odd.into(), Value::String(odd.into()));
    metadata.insert("bb".into(), Value::Null);
    metadata.insert(
        "a".into(),
        Value::Object(Metadata::from([("zz".into(), Value::Bool(false)), ("y".into(), Value::Array(vec![]))])),
    );
    let vector = Some(vec![0.1, -0.7, 1e-20, 3.0]);
    let documents = (0..50).map(|n| NewDocument {
        id: id(&format!("é {n}")),
        text: (n % 2 == 0).then(|| odd.to_owned()),
        metadata: metadata.clone(),
        vector: vector.clone(),
        chunks: Vec::new(),
    });
    setup.store.collection.upsert(documents.collect()).unwrap();
    setup.copy(setup.settings());
    setup.store.assert_equal();
}

#[test]
fn a_sink_of_all_collections_follows_new_ones() {
    let setup = Setup::new();
    let store = &setup.store;
    store.write(0..20, 1);
    let mut settings = setup.settings();
    settings.collection = "*".to_owned();
    store.add(settings);
    let other = crate::support::name("other");
    let request = pannier::DefinitionRequest::vectors(3);
    let other = store.database.create_collection(&other, &request).unwrap().collection;
    other.upsert(vec![crate::support::document("a", &[1.0, 2.0, 3.0], 1)]).unwrap();
    let seq = other.store_seq();
    let deadline = std::time::Instant::now() + super::LIMIT;
    loop {
        let copies = store.replicator.status("s").unwrap().1;
        if copies.len() == 2 && copies.iter().all(|(_, status)| status.cursor >= seq) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{copies:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(setup.postgres.value("select count(*) from pannier.other"), "1");
    assert_eq!(setup.postgres.value("select count(*) from pannier.c"), "20");
}

#[test]
fn what_is_written_all_the_time_is_no_difference_and_what_was_falsified_is() {
    let setup = Setup::new();
    let (store, is_done) = (&setup.store, AtomicBool::new(false));
    store.write(0..200, 1);
    setup.copy(setup.settings());
    let verify = || store.verify().differences;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for group in 2.. {
                if is_done.load(Ordering::Relaxed) {
                    return;
                }
                store.write(0..5, group);
                store.delete(5..8);
                store.write(5..8, group);
            }
        });
        let calm: Vec<_> = (0..4).map(|_| verify()).collect();
        setup.postgres.run("update pannier.c set content = 'x' where id = '100'");
        let falsified: Vec<_> = (0..2).map(|_| verify()).collect();
        // Before anything can fail: the writer ends.
        is_done.store(true, Ordering::Relaxed);
        assert_eq!(calm, vec![Vec::<Difference>::new(); 4]);
        let wanted = Difference { kind: Kind::Different, key: "100".to_owned(), id: Some(id("100")) };
        assert_eq!(falsified, vec![vec![wanted]; 2]);
    });
}

#[test]
fn a_statement_writes_or_deletes_a_few_hundred_rows() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    store.write(0..3_000, 1);
    setup.copy(setup.settings());
    block_on(store.replicator.remove("s")).unwrap();
    postgres.run(
        "create table pannier.statements (kind text, rows int8, of xid8 default pg_current_xact_id());
         create function pannier.note() returns trigger language plpgsql as $$ begin
           insert into pannier.statements (kind, rows) select tg_op, count(*) from changed;
           return null; end $$;
         create trigger written after insert on pannier.c referencing new table as changed
           for each statement execute function pannier.note();
         create trigger gone after delete on pannier.c referencing old table as changed
           for each statement execute function pannier.note()",
    );
    let other = Store::new();
    other.write(2_900..4_000, 2);
    let extra_rows = pannier::replicate::ExtraRows::Delete;
    other.add(pannier::replicate::SinkSettings { extra_rows, ..setup.settings() });
    other.wait_until_copied();
    other.assert_equal();
    assert_eq!(postgres.value("select count(*) from pannier.c"), "1100");
    assert_eq!(postgres.value("select sum(rows) from pannier.statements where kind = 'DELETE'"), "2900");
    assert_eq!(postgres.value("select max(rows) <= 250 from pannier.statements"), "t");
    // Nor is everything one transaction.
    let transactions = "select count(distinct of) from pannier.statements where kind = 'DELETE' and rows > 0";
    assert_eq!(postgres.value(transactions), "3");
}

#[test]
fn large_documents_are_mended_a_few_megabytes_at_a_time() {
    let setup = Setup::new();
    let (store, postgres) = (&setup.store, &setup.postgres);
    let large = |n: u64| NewDocument { text: Some("a b c ".repeat(150_000)), ..super::numbered(n, 1) };
    for n in 0..12 {
        store.collection.upsert(vec![large(n)]).unwrap();
    }
    setup.copy(setup.settings());
    let transactions = || store.status().transactions;
    postgres.run("truncate pannier.c");
    let before = transactions();
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert!(repaired.after.is_equal() && repaired.written == 12, "{repaired:?}");
    // Five rows of 0.9 MB are more than 4 MiB.
    assert!(transactions() - before >= 3, "{}", transactions() - before);
    // The same of those that no row could hold.
    postgres.run("truncate pannier.c; alter table pannier.c add constraint none check (false)");
    block_on(store.replicator.repair("s", false)).unwrap();
    assert_eq!(store.status().dead_letters, 12);
    postgres.run("alter table pannier.c drop constraint none");
    let before = transactions();
    let repaired = block_on(store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert!(repaired.after.is_equal() && repaired.after.dead_letters == 0, "{repaired:?}");
    assert!(transactions() - before >= 3, "{}", transactions() - before);
}
