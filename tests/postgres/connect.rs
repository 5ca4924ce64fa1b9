//! Sessions: versions, unnamed statements, copying, and what goes wrong.

use std::time::Duration;

use pannier::postgres::{ConnectSettings, PostgresError, Session, Trouble, Type};

use crate::support::postgres::{Version, database, server};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

async fn connect(url: &str) -> Result<Session, PostgresError> {
    Session::connect(&ConnectSettings::from_url(url).unwrap()).await
}

#[test]
fn both_versions_answer_and_have_pgvector() {
    for (version, number) in [(Version::V16, "16"), (Version::V18, "18")] {
        let database = server(version).database();
        let got = database.value("select current_setting('server_version')");
        assert!(got.starts_with(number) || std::env::var("PANNIER_TEST_POSTGRES").is_ok(), "{got}");
        assert_eq!(database.value("select '[1,2,3]'::vector <-> '[1,2,5]'::vector"), "2");
    }
}

#[test]
fn statements_have_no_name_and_their_errors_are_told_apart() {
    let database = database();
    block_on(async {
        let session = connect(&database.url).await.unwrap();
        let rows = session.query("add", "select $1::int8 + 1", &[(&41i64, Type::INT8)]).await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 42);
        let named = session.texts("look", "select count(*)::text from pg_prepared_statements").await.unwrap();
        assert_eq!(named, [Some("0".to_owned())]);
        for (sql, trouble) in [
            ("select * from nowhere", Trouble::Schema),
            ("select '\\x00'::bytea::text::int", Trouble::Row),
            ("select 1/0", Trouble::Row),
            ("selec", Trouble::Other),
        ] {
            let error = session.batch("fail", sql).await.unwrap_err();
            assert_eq!(error.trouble(), trouble, "{error}");
            assert!(!error.ends_session());
        }
    });
}

#[test]
fn a_slow_statement_ends_its_session() {
    let database = database();
    block_on(async {
        let settings = ConnectSettings::from_url(&database.url).unwrap();
        let session = Session::connect(&settings.with_statement_timeout(Duration::from_millis(100))).await.unwrap();
        let error = session.batch("sleep", "select pg_sleep(30)").await.unwrap_err();
        assert!(matches!(error, PostgresError::Timeout { .. }) && error.ends_session(), "{error}");
    });
}

#[test]
fn wrong_passwords_ports_and_roots_are_named_without_secrets() {
    let database = database();
    database.run("create role scram_wrong login password 'right'");
    let url =
        |user: &str, port: u16, query: &str| format!("postgres://{user}@127.0.0.1:{port}/{}?{query}", database.name);
    block_on(async {
        let right = url("scram_wrong:right", database.port, "sslmode=disable");
        assert!(connect(&right).await.is_ok());
        let cases = [
            (url("scram_wrong:s3cret", database.port, "sslmode=disable"), Trouble::Authentication),
            (url("postgres:s3cret", 1, "sslmode=disable"), Trouble::Unreachable),
            // The test's server has no TLS.
            (url("postgres:s3cret", database.port, "sslmode=require"), Trouble::Tls),
            (url("postgres:?s3cret", database.port, "sslmode=require"), Trouble::Tls),
            (
                format!("host=127.0.0.1 port={} user=postgres password=s3cret sslmode = require", database.port),
                Trouble::Tls,
            ),
            (url("postgres:s3cret", database.port, "sslmode=verify-full&sslrootcert=/nowhere"), Trouble::Settings),
        ];
        for (url, trouble) in cases {
            let error = connect(&url).await.err().unwrap();
            let mut text = error.to_string();
            let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
            while let Some(error) = cause {
                text += &error.to_string();
                cause = error.source();
            }
            assert_eq!(error.trouble(), trouble, "{text}");
            assert!(!text.contains("s3cret") && !text.contains("db error"), "{text}");
        }
    });
    database.run("drop role scram_wrong");
}

#[test]
fn an_address_that_never_answers_is_passed_over() {
    // A listener that takes nobody any more: whoever comes now waits, as for a machine that is switched off.
    let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the listener takes everybody");
    }
    let database = database();
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{}?sslmode=disable&connect_timeout=4",
        address.port(),
        database.port,
        database.name
    );
    block_on(async {
        let session = connect(&url).await.unwrap();
        session.batch("answer", "select 1").await.unwrap();
    });
}

#[test]
fn copying_works_within_a_transaction() {
    let database = database();
    database.run("create table t (a int, b text)");
    block_on(async {
        let session = connect(&database.url).await.unwrap();
        session.batch("begin", "begin").await.unwrap();
        let chunks = vec![b"1\tone\n".to_vec(), b"2\ttwo\n".to_vec()];
        assert_eq!(session.copy_in("copy", "copy t from stdin", chunks).await.unwrap(), 2);
        session.batch("commit", "commit").await.unwrap();
    });
    assert_eq!(database.column("select b from t order by a"), ["one", "two"]);
}
