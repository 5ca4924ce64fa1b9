//! The routes and the command: add, show, compare, mend, rest, remove.

use std::time::Instant;

use serde_json::json;

use super::LIMIT;
use crate::api::server::Server;
use crate::support::postgres::database;

#[test]
fn a_sink_through_the_api() {
    let postgres = database();
    let server = Server::with_documents(&[("a", [1.0, 0.0, 0.0]), ("b", [0.0, 1.0, 0.0])]);
    let body = json!({"name": "main", "collection": "c", "url": postgres.url, "layout": "vecs"});
    let added = server.post("/admin/replication", &body).ok();
    assert_eq!(
        (&added["name"], &added["layout"], &added["url"]),
        (&json!("main"), &json!("vecs"), &json!("stored in clear"))
    );
    assert!(!added.to_string().contains("postgres://"), "{added}");
    server.post("/admin/replication", &body).refused(409, "sink_conflict");
    let verified = server.post("/admin/replication/main/verify", &json!({})).ok();
    assert_eq!((&verified["equal"], &verified["copies"][0]["rows"]), (&json!(true), &json!(2)), "{verified}");
    postgres.run("delete from vecs.c where id = 'a'; update vecs.c set metadata = '{}' where id = 'b'");
    let verified = server.post("/admin/replication/main/verify", &json!({})).ok();
    let copy = &verified["copies"][0];
    assert_eq!((&copy["missing"], &copy["different"], &copy["extra"]), (&json!(["a"]), &json!(["b"]), &json!([])));
    let repaired = server.post("/admin/replication/main/repair", &json!({"dry_run": true})).ok();
    assert_eq!(repaired["copies"][0]["written"], 0);
    let repaired = server.post("/admin/replication/main/repair", &json!({})).ok();
    assert_eq!(
        (&repaired["copies"][0]["written"], &repaired["copies"][0]["after"]["missing_count"]),
        (&json!(2), &json!(0))
    );
    let ready = server.get("/readyz").ok();
    assert_eq!((&ready["status"], &ready["replication"]["copies"]), (&json!("ok"), &json!(1)), "{ready}");
    assert_eq!(server.post("/admin/replication/main/pause", &json!({})).ok()["paused"], true);
    server.post("/admin/replication/main/verify", &json!({})).refused(409, "sink_busy");
    assert_eq!(server.post("/admin/replication/main/resume", &json!({})).ok()["paused"], false);
    assert_eq!(server.get("/admin/replication").ok()["sinks"].as_array().unwrap().len(), 1);
    assert_eq!(server.delete("/admin/replication/main").ok()["removed"], "main");
    server.get("/admin/replication/main").refused(404, "sink_not_found");
    assert_eq!(postgres.value("select count(*) from pannier.sinks"), "0");
    assert_eq!(postgres.value("select count(*) from vecs.c"), "2", "the table stays");
}

#[test]
fn failures_of_the_database_are_not_the_callers() {
    let postgres = database();
    let server = Server::with_documents(&[("a", [1.0, 0.0, 0.0])]);
    let body = json!({"name": "main", "collection": "c", "url": postgres.url, "layout": "vecs"});
    server.post("/admin/replication", &body).ok();
    let post = |what: &str| server.post(&format!("/admin/replication/main/{what}"), &json!({}));
    let works_again = || {
        post("resume").ok();
        let deadline = Instant::now() + LIMIT;
        while post("verify").status != 200 {
            assert!(Instant::now() < deadline, "{}", server.get("/admin/replication/main").text());
            post("resume").ok();
        }
    };
    for (message, code) in [("no room", "53200"), ("lost connection to parallel worker", "55000")] {
        works_again();
        postgres.run(&format!(
            "create or replace function fails() returns boolean language plpgsql as
               $$ begin raise exception '{message}' using errcode = '{code}'; end $$;
             alter table vecs.c rename to d; create view vecs.c as select * from vecs.d where fails()"
        ));
        let answer = post("verify");
        assert!(answer.header("retry-after").is_some(), "{}", answer.text());
        assert!(answer.refused(503, "sink_failed").contains(message));
        postgres.run("drop view vecs.c; alter table vecs.d rename to c");
    }
    works_again();
    postgres.run("alter table vecs.c drop column metadata");
    let detail = post("repair").refused(409, "sink_busy");
    assert!(detail.contains("column metadata is missing"), "{detail}");
}

#[test]
fn documents_without_a_row_to_write_into_are_counted_apart() {
    let postgres = database();
    postgres.run("create table jobs (id text primary key, raw jsonb); insert into jobs values ('a', '{}')");
    let server = Server::with_documents(&[("a", [1.0, 0.0, 0.0]), ("b", [0.0, 1.0, 0.0])]);
    let body = json!({"name": "main", "collection": "c", "url": postgres.url, "layout": "jobs"});
    server.post("/admin/replication", &body).ok();
    let verified = server.post("/admin/replication/main/verify", &json!({})).ok();
    let copy = &verified["copies"][0];
    assert_eq!((&verified["equal"], &copy["no_row_count"], &copy["no_row"]), (&json!(true), &json!(1), &json!(["b"])));
    assert_eq!((&copy["missing_count"], &copy["rows"]), (&json!(0), &json!(1)));
    assert_eq!(server.get("/admin/replication/main").ok()["copies"][0]["rows_written"], 1);
}

#[test]
fn a_sink_is_measured_until_it_is_removed() {
    let server = Server::with_documents(&[("a", [1.0, 0.0, 0.0])]);
    let body = json!({"name": "measured", "collection": "c", "url": "postgres://me@127.0.0.1:1/x?sslmode=disable"});
    server.post("/admin/replication", &body).ok();
    let lines = || {
        let text = server.get("/metrics").text();
        text.lines().filter(|line| line.contains("sink=\"measured\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(lines().contains(&"pannier_replication_streaming{sink=\"measured\"} 0".to_owned()), "{:?}", lines());
    assert_eq!(lines().len(), 5, "{:?}", lines());
    server.delete("/admin/replication/measured").ok();
    assert_eq!(lines(), Vec::<String>::new());
}

#[test]
fn what_has_no_end_is_no_url_of_a_sink() {
    let server = Server::with_documents(&[]);
    let body = json!({"name": "x", "collection": "c", "url_file": "/dev/zero"});
    let detail = server.post("/admin/replication", &body).refused(422, "invalid_sink");
    assert!(detail.contains("/dev/zero: it is no regular file"), "{detail}");
    let backend = json!({"type": "postgres", "url_file": "/dev/zero"});
    let answer = server.put("/v1/collections/d", &json!({"dim": 3, "backend": backend}));
    let detail = answer.refused(502, "backend_settings");
    assert!(detail.contains("/dev/zero: it is no regular file"), "{detail}");
}

#[test]
fn settings_that_are_wrong_are_refused_with_a_code() {
    let server = Server::with_documents(&[]);
    let cases = [
        (json!({"name": "X", "collection": "c", "url": "postgres://u@h/d"}), 422, "invalid_sink"),
        (json!({"name": "x", "collection": "c"}), 422, "invalid_sink"),
        (json!({"name": "x", "collection": "c", "url": "nonsense"}), 422, "invalid_sink"),
        (json!({"name": "x", "collection": "c", "url_variable": "PANNIER_TEST_NOT_SET"}), 422, "invalid_sink"),
        (json!({"name": "x", "collection": "nowhere", "url": "postgres://u@h/d"}), 404, "collection_not_found"),
        (json!({"name": "x", "collection": "c", "url": "postgres://u@h/d", "layout": "other"}), 422, "invalid_sink"),
        (json!({"name": "x", "collection": "*", "url": "postgres://u@h/d", "layout": "jobs"}), 422, "invalid_sink"),
        (json!({"name": "x", "collection": "c", "url": "postgres://u@h/d", "index": "flat"}), 422, "invalid_sink"),
    ];
    for (body, status, code) in cases {
        server.post("/admin/replication", &body).refused(status, code);
    }
    let custom = |columns: serde_json::Value| json!({"name": "x", "collection": "c", "url": "postgres://u@h/d", "layout": "custom", "columns": columns});
    let with = |mut body: serde_json::Value, key: &str, value: &str| {
        body[key] = json!(value);
        body
    };
    let embeddings = json!({"name": "x", "collection": "c", "url": "postgres://u@h/d", "layout": "embeddings"});
    for (body, said) in [
        (with(embeddings.clone(), "tenant", "acme"), "\"acme\" is no UUID"),
        (embeddings, "needs a tenant"),
        (custom(json!({"a": "id", "b": "titel"})), "\"b\" is mapped to \"titel\""),
        (custom(json!({"a": "id", "b": "metadata."})), "metadata.PATH"),
        (custom(json!({"a": "id", "b": "metadata.a..b"})), "metadata.PATH"),
        (custom(json!({"a": "id", "b": "'open"})), "single quotes"),
        (custom(json!({"a": "text"})), "a column that is mapped to id"),
        (with(custom(json!({"a": "id"})), "key", "b"), "\"b\" is not among the columns"),
        (with(custom(json!({"a": "id", "b": "text"})), "key", "b"), "must be mapped to id"),
    ] {
        let detail = server.post("/admin/replication", &body).refused(422, "invalid_sink");
        assert!(detail.contains(said), "{said} is not in {detail}");
    }
    assert_eq!(server.get("/admin/replication").ok()["sinks"], json!([]));
}
