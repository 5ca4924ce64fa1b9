//! Tables in the shapes that people have: made, adopted, and refused with what is wrong with them.

use std::collections::BTreeMap;

use pannier::Options;
use pannier::replicate::{IndexKind, Kind, LayoutKind, VerifyReport};
use pannier::types::{Metadata, NewDocument, Value};

use super::{Setup, Store};
use crate::support::id;
use crate::support::postgres::database;

fn example(name: &str, vector: [f32; 4], dim: usize) -> NewDocument {
    let mut vector = vector.to_vec();
    vector.resize(dim, 0.0);
    let fields = [
        ("source", Value::String("crm".into())),
        ("industry_key", Value::String("hvac".into())),
        ("pii_scrubbed", Value::Bool(true)),
        ("rank", Value::Int(7)),
    ];
    let metadata: Metadata = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let text = Some(format!("text of {name}"));
    NewDocument { id: id(name), text, metadata, vector: Some(vector), chunks: Vec::new() }
}

fn with(kind: LayoutKind, names: &[&str]) -> (Setup, pannier::replicate::SinkSettings) {
    let dim = if kind == LayoutKind::LearningVectors { 384 } else { super::DIM };
    let store = Store::open_with_dim(tempfile::tempdir().unwrap(), Options::default(), dim);
    let setup = Setup { postgres: database(), store };
    let documents = names.iter().enumerate().map(|(n, name)| example(name, [1.0, n as f32, 0.5, -1.0], dim));
    setup.store.collection.upsert(documents.collect()).unwrap();
    let mut settings = setup.settings();
    settings.layout = kind;
    (setup, settings)
}

#[test]
fn learning_vectors() {
    let (setup, settings) = with(LayoutKind::LearningVectors, &["a", "b", "c"]);
    setup.copy(settings);
    let row = setup.postgres.value(
        "select concat_ws(' ', example_id, schema_version, source, industry_key, pii_scrubbed) \
         from learning_vectors_384_v1 where example_id = 'a'",
    );
    assert_eq!(row, "a signals_v1 crm hvac t");
    let indexes = setup.postgres.column("select indexdef from pg_indexes where tablename = 'learning_vectors_384_v1'");
    for part in ["(example_id)", "(source)", "(industry_key)", "vector_cosine_ops"] {
        assert!(indexes.iter().any(|index| index.contains(part)), "{part}: {indexes:?}");
    }
    setup.store.delete([]);
    setup.store.collection.delete(&[id("b")]).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(setup.postgres.value("select count(*) from learning_vectors_384_v1"), "2");
    setup.store.assert_equal();
}

#[test]
fn embeddings_of_tenants_behind_row_level_security() {
    let tenant = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    let (setup, mut settings) = with(LayoutKind::Embeddings, &["a", "b"]);
    settings.tenant = Some(tenant.to_owned());
    settings.entity_type = Some("note".to_owned());
    setup.copy(settings);
    let postgres = &setup.postgres;
    postgres.run(
        "insert into embeddings (tenant_id, entity_type, entity_id) values (gen_random_uuid(), 'note', 'a');
         create role reader; grant select on embeddings to reader",
    );
    let seen = |tenant: &str| {
        postgres.column(&format!(
            "begin; set local role reader; set local app.tenant_id = '{tenant}'; \
             select entity_id from embeddings order by 1; commit"
        ))
    };
    assert_eq!(seen(tenant), ["a", "b"]);
    assert!(seen("nobody").is_empty());
    assert_eq!(
        postgres.value("select relrowsecurity and relforcerowsecurity from pg_class where relname = 'embeddings'"),
        "t"
    );
    // Another tenant's row is neither extra nor touched.
    setup.store.assert_equal();
    setup.store.collection.delete(&[id("a")]).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(postgres.column("select entity_id from embeddings order by 1"), ["a", "b"]);
    setup.store.assert_equal();
    postgres.run("drop owned by reader; drop role reader");
}

#[test]
fn a_tenant_that_is_a_text_fits_a_table_that_has_texts() {
    let (setup, mut settings) = with(LayoutKind::Embeddings, &["a"]);
    settings.tenant = Some("acme".to_owned());
    settings.create = false;
    let table = |kind: &str| {
        setup.postgres.run(&format!(
            "create table embeddings (tenant_id {kind} not null, entity_type text not null, entity_id text not null,
                content text, embedding vector(4), metadata jsonb not null, model text, created_at timestamptz,
                updated_at timestamptz, unique (tenant_id, entity_type, entity_id))"
        ));
    };
    table("uuid");
    setup.store.add(settings);
    let message = super::failure(&setup.store, "schema_drift");
    assert!(message.contains("column tenant_id is uuid, which \"acme\" is not"), "{message}");
    setup.postgres.run("drop table embeddings");
    table("text");
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(setup.postgres.value("select tenant_id from embeddings"), "acme");
    setup.store.assert_equal();
}

#[test]
fn product_embeddings_by_number_and_what_is_no_number() {
    let (setup, mut settings) = with(LayoutKind::ProductEmbeddings, &["17", "42", "x", "017"]);
    settings.table = Some("shop.product_vectors".to_owned());
    setup.copy(settings);
    assert_eq!(setup.postgres.column("select product_id from shop.product_vectors order by 1"), ["17", "42"]);
    let dead = setup.postgres.column("select document_id || ': ' || reason from pannier.dead_letters order by 1");
    assert!(dead[0].starts_with("017: ") && dead[0].contains("another spelling of 17"), "{dead:?}");
    assert!(dead[1].starts_with("x: ") && dead[1].contains("product_id is a number"), "{dead:?}");
    assert_eq!(setup.store.status().dead_letters, 2);
    setup.store.assert_equal();
    setup.store.collection.delete(&[id("017")]).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(setup.postgres.column("select product_id from shop.product_vectors order by 1"), ["17", "42"]);
    setup.store.assert_equal();
}

#[test]
fn vectors_within_jobs_that_are_there() {
    let (setup, settings) = with(LayoutKind::Jobs, &["1", "2", "3"]);
    setup.postgres.run(
        "create table jobs (id bigint unique, raw jsonb);
         insert into jobs values (1, '{\"a\": 1}'), (2, null), (9, '{}'), (null, '{\"embedding\": [1]}')",
    );
    setup.copy(settings);
    assert_eq!(setup.postgres.value("select jsonb_array_length(raw -> 'embedding')::text from jobs where id = 1"), "4");
    assert_eq!(setup.postgres.value("select raw ->> 'a' from jobs where id = 1"), "1");
    assert_eq!(setup.postgres.value("select raw ? 'embedding' from jobs where id = 9"), "f");
    // Job 3 is not there: nothing is written, nothing can be mended, and nothing else differs.
    assert_eq!(setup.store.status().rows_written, 2);
    let found = |report: &VerifyReport| -> Vec<(Kind, String)> {
        report.differences.iter().map(|difference| (difference.kind, difference.key.clone())).collect()
    };
    let report = setup.store.verify();
    assert_eq!(found(&report), [(Kind::NoRow, "3".to_owned())]);
    assert!(report.is_equal());
    // Once it is, it is a row that lacks its vector.
    setup.postgres.run("insert into jobs values (3, '{\"b\": 2}')");
    let report = setup.store.verify();
    assert_eq!(found(&report), [(Kind::Missing, "3".to_owned())]);
    assert!(!report.is_equal());
    let repaired = super::block_on(setup.store.replicator.repair("s", false)).unwrap().remove(0).1;
    assert_eq!((repaired.written, repaired.after.differences.len()), (1, 0));
    assert_eq!(setup.postgres.value("select jsonb_array_length(raw -> 'embedding')::text from jobs where id = 3"), "4");
    setup.store.collection.delete(&[id("1")]).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(setup.postgres.value("select raw::text from jobs where id = 1"), "{\"a\": 1}");
}

#[test]
fn jobs_that_hold_no_object_stay_as_they_are() {
    let (setup, settings) = with(LayoutKind::Jobs, &["1", "2", "3", "4", "5", "6", "7"]);
    let (store, postgres) = (&setup.store, &setup.postgres);
    postgres.run(
        "create table jobs (id bigint primary key, raw jsonb);
         insert into jobs values (1, '[\"embedding\", 1]'), (2, '\"embedding\"'), (3, '7'), (4, 'null'), (5, '{}'),
           (6, '[]'), (8, '[\"embedding\"]'), (9, '\"embedding\"')",
    );
    let others = || postgres.column("select id || ' ' || raw::text from jobs where id <> 5 order by id");
    let before = others();
    setup.copy(settings);
    assert_eq!(postgres.value("select jsonb_array_length(raw -> 'embedding') from jobs where id = 5"), "4");
    assert_eq!(store.status().dead_letters, 5);
    assert_eq!(others(), before);
    store.collection.delete(&[id("1"), id("2"), id("3")]).unwrap();
    store.wait_until_copied();
    super::block_on(store.replicator.repair("s", false)).unwrap();
    assert_eq!(others(), before);
    store.collection.delete(&[id("4"), id("5"), id("6")]).unwrap();
    store.wait_until_copied();
    assert_eq!((others(), postgres.value("select raw from jobs where id = 5")), (before, "{}".to_owned()));
    assert!(store.verify().is_equal());
}

#[test]
fn vecs_as_its_client_finds_it() {
    let (setup, settings) = with(LayoutKind::Vecs, &["a", "b"]);
    setup.copy(settings);
    let discovery = "select relname || ' ' || atttypmod from pg_class pc join pg_attribute pa on pc.oid = pa.attrelid \
                     where pc.relnamespace = 'vecs'::regnamespace and pc.relkind = 'r' and pa.attname = 'vec' \
                     and not pc.relname ^@ '_'";
    assert_eq!(setup.postgres.value(discovery), "c 4");
    let index =
        setup.postgres.value("select indexname from pg_indexes where schemaname = 'vecs' and indexname like 'ix_%'");
    assert!(index.starts_with("ix_vector_cosine_ops_hnsw_m16_efc64_"), "{index}");
    setup.store.assert_equal();
}

#[test]
fn custom_columns_made_and_adopted() {
    let (setup, mut settings) = with(LayoutKind::Custom, &["a", "b"]);
    let map = [
        ("key", "id"),
        ("body", "text"),
        ("vec", "vector"),
        ("kind", "'note'"),
        ("rank", "metadata.rank"),
        ("at", "updated_at"),
        ("version", "seq"),
    ];
    settings.columns = BTreeMap::from(map.map(|(column, field)| (column.to_owned(), field.to_owned())));
    settings.table = Some("app.notes".to_owned());
    settings.index = IndexKind::Ivfflat;
    setup.postgres.run(
        "create schema app;
         create table app.notes (key varchar(50) unique not null, body text, vec vector(4), kind text, rank int,
                                 at timestamptz, version bigint, more text default 'x')",
    );
    setup.copy(settings);
    assert_eq!(
        setup.postgres.value("select concat_ws(' ', key, body, kind, rank, more) from app.notes where key = 'a'"),
        "a text of a note 7 x"
    );
    assert_eq!(setup.postgres.value("select count(*) from pg_indexes where indexdef like '%ivfflat%'"), "1");
    setup.store.assert_equal();
}

#[test]
fn a_table_that_does_not_fit_is_refused_with_every_difference() {
    let (setup, settings) = with(LayoutKind::LearningVectors, &["a"]);
    setup.postgres.run(
        "create table learning_vectors_384_v1 (id uuid, example_id text, created_at date, embedding vector(384),
            schema_version text, source text, pii_scrubbed boolean, metadata json, owner text not null)",
    );
    setup.store.add(settings);
    let message = super::failure(&setup.store, "schema_drift");
    for part in [
        "column created_at is date, needed is timestamptz",
        "column industry_key is missing",
        "column metadata is json, needed is jsonb",
        "column owner must be given a value",
        "no primary key or unique index on (id)",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    // Writes go on, and the sink heals by itself once the table does.
    setup.store.collection.upsert(vec![example("b", [1.0, 0.0, 0.0, 1.0], 384)]).unwrap();
    setup.postgres.run("drop table learning_vectors_384_v1");
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(setup.postgres.value("select count(*) from learning_vectors_384_v1"), "2");
}

#[test]
fn columns_that_change_what_is_written_are_refused_all_at_once() {
    let (setup, mut settings) = with(LayoutKind::Custom, &["a", "b"]);
    let map = [
        ("key", "id"),
        ("body", "text"),
        ("brief", "metadata.rank"),
        ("exact", "metadata.rank"),
        ("rounded", "metadata.rank"),
        ("number", "metadata.rank"),
        ("at", "updated_at"),
        ("millis", "created_at"),
    ];
    settings.columns = BTreeMap::from(map.map(|(column, field)| (column.to_owned(), field.to_owned())));
    settings.table = Some("app.notes".to_owned());
    setup.postgres.run(
        "create schema app;
         create table app.notes (key char(10) primary key, body text generated always as ('x') stored, brief real,
                                 exact numeric, rounded numeric(10,1), number int generated always as identity,
                                 at timestamptz(0), millis timestamptz(3))",
    );
    setup.store.add(settings);
    let message = super::failure(&setup.store, "schema_drift");
    for part in [
        "column key is character(10), which cannot hold every text, needed is text",
        "column body is generated always, and the sink writes to it",
        "column brief is real, which cannot hold every double precision, needed is double precision",
        "column rounded is numeric(10,1), which cannot hold every numeric, needed is numeric",
        "column number is generated always, and the sink writes to it",
        "column at is timestamp(0) with time zone, which cannot hold every timestamptz, needed is timestamptz",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let mending: Vec<&str> = message.split("(to mend: ").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert_eq!(mending.len(), 6, "{message}");
    mending.iter().for_each(|statement| setup.postgres.run(statement));
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(
        setup.postgres.value("select concat_ws(' ', key, brief, rounded, number) from app.notes where key = 'a'"),
        "a 7 7 7"
    );
    setup.store.assert_equal();
}

#[test]
fn numbers_and_times_keep_every_digit_or_are_named() {
    let (setup, mut settings) = with(LayoutKind::Custom, &[]);
    let map = [("key", "id"), ("exact", "metadata.n"), ("at", "metadata.at"), ("near", "metadata.near")];
    settings.columns = BTreeMap::from(map.map(|(column, field)| (column.to_owned(), field.to_owned())));
    settings.table = Some("public.numbers".to_owned());
    let postgres = &setup.postgres;
    postgres.run(
        "create table numbers (key text primary key, exact numeric, at timestamptz, near double precision);
         insert into numbers values ('kept', 1e400, '294276-12-31 23:59:59.999999', null)",
    );
    settings.extra_rows = pannier::replicate::ExtraRows::Keep;
    let large = 9_007_199_254_740_993;
    let text = |text: &str| Value::String(text.to_owned());
    let values = [
        ("a", "n", Value::Float(0.300_000_000_000_000_04)),
        ("b", "n", Value::Int(large)),
        ("c", "n", Value::Float(f64::MAX)),
        ("d", "n", Value::Float(5e-324)),
        ("e", "n", text("-012.345678901234567890")),
        ("f", "at", text("2024-01-01T00:00:00.123456Z")),
        ("g", "at", text("9998-12-31T23:59:59.999999Z")),
        ("h", "at", text("-000044-03-15T12:00:00.000001Z")),
        ("i", "near", Value::Int(1 << 60)),
        ("j", "near", Value::Int(large)),
    ];
    let document = |(name, field, value): &(&str, &str, Value)| {
        let metadata = Metadata::from([((*field).to_owned(), value.clone())]);
        NewDocument { metadata, ..example(name, [1.0; 4], super::DIM) }
    };
    setup.store.collection.upsert(values.iter().map(document).collect()).unwrap();
    setup.copy(settings);
    let report = setup.store.verify();
    assert_eq!((report.differences.len(), report.kept_rows, report.dead_letters), (0, 1, 1), "{report:?}");
    assert_eq!(
        postgres.column("select exact::text from numbers where key in ('a', 'b', 'e') order by key"),
        ["0.30000000000000004", "9007199254740993", "-12.34567890123456789"]
    );
    assert_eq!(postgres.value("select exact = '1.7976931348623157e308' from numbers where key = 'c'"), "t");
    assert_eq!(postgres.value("select at = '2024-01-01 00:00:00.123456Z' from numbers where key = 'f'"), "t");
    let reason = postgres.value("select reason from pannier.dead_letters");
    assert!(reason.contains("near is double precision, which has no 9007199254740993"), "{reason}");
}

#[test]
fn a_key_that_is_only_compared_may_be_generated() {
    let (setup, settings) = with(LayoutKind::Jobs, &["1", "2"]);
    setup.postgres.run(
        "create table jobs (id bigint generated always as identity primary key, raw jsonb);
         insert into jobs (raw) values ('{}'), ('{}')",
    );
    setup.copy(settings);
    setup.store.assert_equal();
}

#[test]
fn another_dimension_is_refused() {
    let (setup, settings) = with(LayoutKind::Vecs, &["a"]);
    setup.postgres.run("create schema vecs; create table vecs.c (id varchar primary key, vec vector(3) not null, metadata jsonb not null)");
    setup.store.add(settings);
    let message = super::failure(&setup.store, "dim_mismatch");
    assert!(message.contains("vec of vecs.c has 3 dimensions, the collection has 4"), "{message}");
}

#[test]
fn another_dimension_hides_no_other_difference() {
    let (setup, settings) = with(LayoutKind::Vecs, &["a"]);
    setup.postgres.run("create schema vecs; create table vecs.c (id varchar, vec vector(3) not null, metadata json)");
    setup.store.add(settings);
    let message = super::failure(&setup.store, "schema_drift");
    for part in [
        "column vec has 3 dimensions, the collection has 4",
        "column metadata is json, needed is jsonb",
        "no primary key or unique index on (id)",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}
