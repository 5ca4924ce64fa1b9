//! The function `match_documents`: as its clients call it, by the index, made for tables that stand, never over
//! another's.

use pannier::DefinitionRequest;
use pannier::replicate::{LayoutKind, SinkSettings};
use pannier::types::Metric;

use super::{DIM, Setup};
use crate::support::name;
use crate::support::postgres::TestDatabase;

const TABLE: &str = "create table documents (id bigint primary key, content text, metadata jsonb, embedding vector(4))";

fn with(documents: u64) -> (Setup, SinkSettings) {
    let setup = Setup::new();
    setup.store.write(0..documents, 1);
    let settings = SinkSettings { layout: LayoutKind::MatchDocuments, ..setup.settings() };
    (setup, settings)
}

/// How often a call read the table through, and how often by an index.
fn scans(postgres: &TestDatabase, call: &str) -> String {
    let rows = postgres.column(&format!(
        "begin; select count(*) from {call}; \
         select seq_scan || ' ' || idx_scan from pg_stat_xact_user_tables where relname = 'documents'; commit"
    ));
    rows[1].clone()
}

/// The plan of the first query in the function's body, for a call without a count.
fn plan(postgres: &TestDatabase, vector: &str) -> String {
    let body = postgres.value("select prosrc from pg_proc where proname = 'match_documents'");
    let query = body.split_once("return query").unwrap().1.split_once(';').unwrap().0;
    let query = query
        .replace("\"match_documents\".query_embedding", &format!("'{vector}'::vector"))
        .replace("\"match_documents\".match_count", "null::int");
    let settings = postgres.column("select unnest(proconfig) from pg_proc where proname = 'match_documents'");
    let settings: Vec<String> = settings
        .iter()
        .filter(|setting| !setting.starts_with("search_path"))
        .map(|s| format!("set local {s};"))
        .collect();
    postgres.column(&format!("begin; load 'vector'; {} explain {query}; commit", settings.join(" "))).join("\n")
}

#[test]
fn match_documents_as_its_clients_call_it_and_by_the_index() {
    let (setup, settings) = with(3_000);
    setup.copy(settings);
    let postgres = &setup.postgres;
    postgres.run("analyze documents");
    let vector = postgres.value("select embedding::text from documents where id = '5'");
    // JavaScript sends all three, Python only the vector, with a limit outside.
    let js = postgres.column(&format!(
        "select id from match_documents(query_embedding => '{vector}', filter => '{{\"group\": 1}}', match_count => 3)"
    ));
    assert_eq!(js.len(), 3);
    let python =
        postgres.column(&format!("select round(similarity::numeric, 3) from match_documents('{vector}') limit 4"));
    assert_eq!((python.len(), python[0].as_str()), (4, "1.000"));
    assert_eq!(postgres.value("select count(*) from pg_proc where proname = 'match_documents'"), "1");

    // The index orders the rows, whatever is left out, and the table is never read through.
    let plan = plan(postgres, &vector);
    assert!(plan.contains("Index Scan using ix_vector_cosine_ops_hnsw") && !plan.contains("Sort"), "{plan}");
    for arguments in ["", ", 3", ", null", ", filter => '{}'", ", match_count => 2000"] {
        let call = format!("match_documents('{vector}'{arguments})");
        assert_eq!(scans(postgres, &call), "0 1", "{call}");
    }
    let count =
        |arguments: &str| postgres.value(&format!("select count(*) from match_documents('{vector}'{arguments})"));
    assert_eq!((count("").as_str(), count(", 2000").as_str()), ("1000", "2000"));
    // A filter that few rows pass is answered by them, and all of them are found.
    setup.store.write(3_000..3_005, 77);
    setup.store.wait_until_copied();
    assert_eq!(count(", filter => '{\"group\": 77}'"), "5");
    assert_eq!(postgres.value("show enable_seqscan"), "on");
    setup.store.assert_equal();
}

#[test]
fn match_documents_by_the_collections_own_metric() {
    for (metric, wanted) in [(Metric::Dot, "2 8"), (Metric::L2, "1 0")] {
        let (setup, settings) = with(0);
        setup.store.database.drop_collection(&name("c")).unwrap();
        let request = DefinitionRequest { metric: Some(metric), ..DefinitionRequest::vectors(DIM as u32) };
        let collection = setup.store.database.create_collection(&name("c"), &request).unwrap().collection;
        let document = |id: &str, x: f32| crate::support::document(id, &[x, 0.0, 0.0, 0.0], 1);
        collection.upsert(vec![document("1", 2.0), document("2", 4.0)]).unwrap();
        setup.copy(settings);
        let nearest = "select id || ' ' || similarity from match_documents('[2,0,0,0]', 1)";
        assert_eq!(setup.postgres.value(nearest), wanted, "{metric:?}");
    }
}

#[test]
fn a_table_that_stands_gets_its_function_once() {
    let (setup, mut settings) = with(3);
    let postgres = &setup.postgres;
    postgres.run(&TABLE.replace("documents", "articles"));
    settings.table = Some("articles".to_owned());
    setup.copy(settings);
    let call = "select id || ' ' || pg_typeof(id) from match_articles('[1,2,3,4]', 1)";
    assert!(postgres.value(call).ends_with(" bigint"));
    // Another connection finds it as it should be, with the rights that were given meanwhile.
    let is = "select oid || ' ' || xmin from pg_proc where proname = 'match_articles'";
    let before = postgres.value(is);
    let connections = setup.store.status().connections;
    postgres.run("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()");
    setup.store.write(3..6, 1);
    setup.store.wait_until_copied();
    assert!(setup.store.status().connections > connections);
    assert_eq!(postgres.value(is), before);
}

#[test]
fn an_older_function_of_ours_is_replaced_and_anothers_is_refused() {
    let (setup, settings) = with(3);
    let postgres = &setup.postgres;
    postgres.run(TABLE);
    postgres.run(
        "create function match_documents(query_embedding vector(4), match_count int) \
         returns table (id bigint, content text) language sql as 'select 1::bigint, null::text'",
    );
    setup.store.add(settings);
    let message = super::failure(&setup.store, "schema_drift");
    for part in [
        "function public.match_documents is somebody else's",
        "it takes (query_embedding vector, match_count integer), needed is (query_embedding vector, match_count integer \
         DEFAULT NULL::integer, filter jsonb DEFAULT '{}'::jsonb)",
        "it returns (TABLE(id bigint, content text)), needed is (TABLE(id bigint, content text, metadata jsonb, ",
        "drop it or rename it",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert_eq!(postgres.value("select pronargs from pg_proc where proname = 'match_documents'"), "2");
    postgres.run("drop function match_documents");
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    let good = postgres.value("select prosrc from pg_proc where proname = 'match_documents'");

    // One of ours with another body, and one with other types.
    for old in [
        "create or replace function match_documents(query_embedding vector, match_count int default null, \
         filter jsonb default '{}') returns table (id bigint, content text, metadata jsonb, embedding vector, \
         similarity float) language plpgsql as $$ MARK begin return; end $$",
        "drop function match_documents; create function match_documents(halfvec) returns int language plpgsql as $$ \
         MARK begin return 1; end $$",
    ] {
        let mark = good.lines().find(|line| line.contains("Made by Pannier")).unwrap();
        setup.store.replicator.set_paused("s", true).unwrap();
        postgres.run(&old.replace("MARK", &format!("\n{mark}\n")));
        setup.store.replicator.set_paused("s", false).unwrap();
        setup.store.wait_until_copied();
        assert_eq!(postgres.column("select prosrc from pg_proc where proname = 'match_documents'"), [good.as_str()]);
    }
}

#[test]
fn a_plain_role_adopts_an_empty_table() {
    let (setup, _) = with(0);
    let postgres = &setup.postgres;
    let (role, port, name) = (format!("plain_{}", postgres.name), postgres.port, &postgres.name);
    postgres.run(&format!(
        "create role {role} login; grant create on database {name} to {role}; grant all on schema public to {role};
         {TABLE}; alter table documents owner to {role}"
    ));
    let url = format!("postgres://{role}@127.0.0.1:{port}/{name}?sslmode=disable");
    setup.copy(SinkSettings { layout: LayoutKind::MatchDocuments, ..super::settings(&url) });
    setup.store.write(0..3, 1);
    setup.store.wait_until_copied();
    assert_eq!(postgres.value("select count(*) from match_documents('[1,2,3,4]')"), "3");
    setup.store.replicator.set_paused("s", true).unwrap();
    postgres.run(&format!("drop owned by {role} cascade; drop role {role}"));
}

#[test]
fn nothing_is_made_where_nothing_may_be() {
    let (setup, settings) = with(3);
    setup.postgres.run(TABLE);
    setup.copy(SinkSettings { create: false, ..settings });
    assert_eq!(setup.postgres.value("select count(*) from pg_proc where proname = 'match_documents'"), "0");
    setup.store.assert_equal();
}

#[test]
fn a_schema_of_the_extensions_own() {
    let setup = Setup::new();
    setup.postgres.run("create schema extensions; alter extension vector set schema extensions");
    setup.store.write(0..3, 1);
    setup.copy(SinkSettings { layout: LayoutKind::MatchDocuments, ..setup.settings() });
    assert_eq!(setup.postgres.value("select count(*) from match_documents('[1,2,3,4]')"), "3");
    let is = || setup.postgres.value("select oid || ' ' || xmin from pg_proc where proname = 'match_documents'");
    let before = is();
    setup.store.replicator.set_paused("s", true).unwrap();
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(is(), before);
}

#[test]
fn an_index_that_the_metric_cannot_use_is_none() {
    let (setup, settings) = with(300);
    let postgres = &setup.postgres;
    // The default class of older guides, and an index of a few rows.
    postgres.run(&format!(
        "{TABLE}; create index theirs on documents using hnsw (embedding vector_l2_ops);
         create index a_few on documents using hnsw (embedding vector_cosine_ops) where id < 10"
    ));
    setup.copy(settings.clone());
    assert_eq!(setup.store.status().note, None);
    postgres.run("analyze documents");
    let vector = postgres.value("select embedding::text from documents where id = 5");
    assert_eq!(scans(postgres, &format!("match_documents('{vector}', 3)")), "0 1");
    let indexes = "select count(*) from pg_indexes where tablename = 'documents' and indexdef like '%hnsw%'";
    assert_eq!(postgres.value(indexes), "3");
    // Another session finds its own, and makes no more.
    setup.store.replicator.set_paused("s", true).unwrap();
    setup.store.replicator.set_paused("s", false).unwrap();
    setup.store.wait_until_copied();
    assert_eq!(postgres.value(indexes), "3");
    // Nor is one made beside an index of theirs that will do.
    super::block_on(setup.store.replicator.remove("s")).unwrap();
    postgres.run(
        "drop table documents cascade; drop function if exists match_documents; create table documents (id bigint primary key,
           content text, metadata jsonb, embedding vector(4));
         create index theirs on documents using ivfflat (embedding vector_cosine_ops) with (lists = 1)",
    );
    setup.copy(settings);
    assert_eq!(postgres.value(indexes), "0");
}

#[test]
fn a_table_that_is_made_anew_after_a_rename_has_its_indexes() {
    let (setup, settings) = with(300);
    let postgres = &setup.postgres;
    setup.copy(settings);
    let indexes = || {
        let sql = "select split_part(indexdef, ' USING ', 2) from pg_indexes where tablename = 'documents' order by 1";
        postgres.column(sql)
    };
    let before = indexes();
    assert!(before.len() == 3 && before[2].starts_with("hnsw"), "{before:?}");
    postgres.run("alter table documents rename to documents_old");
    setup.store.write(300..301, 1);
    setup.store.wait_until_copied();
    assert_eq!(postgres.value("select count(*) from documents"), "301");
    assert_eq!(indexes(), before);
    assert_eq!(setup.store.status().note, None);
}
