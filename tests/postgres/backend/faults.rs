//! What can be wrong with the database of a collection: each has its own code and status, and none stops another.

use serde_json::json;

use crate::api::client::{Answer, Request};
use crate::api::server::Server as ApiServer;
use crate::support::comes_true;
use crate::support::postgres::{TestDatabase, Version, database, server};

/// A server and the directory of its URL files.
struct Place {
    server: ApiServer,
    directory: tempfile::TempDir,
    postgres: TestDatabase,
}

impl Place {
    fn new(postgres: TestDatabase) -> Self {
        Self { server: ApiServer::start(), directory: tempfile::tempdir().unwrap(), postgres }
    }

    /// The URL of the database for another user.
    fn url(&self, user: &str) -> String {
        self.postgres.url.replace("postgres@", &format!("{user}@"))
    }

    fn create(&self, collection: &str, url: &str) -> Answer {
        self.create_at(collection, url, collection)
    }

    fn create_at(&self, collection: &str, url: &str, table: &str) -> Answer {
        let file = self.directory.path().join(format!("{collection}.url"));
        std::fs::write(&file, url).unwrap();
        let backend = json!({"type": "postgres", "url_file": file, "schema": "mine", "table": table});
        self.server.put(&format!("/v1/collections/{collection}"), &json!({"dim": 3, "backend": backend}))
    }

    fn write(&self, collection: &str) -> Answer {
        let documents = json!({"documents": [{"id": "a", "text": "one tent", "vector": [1, 0, 0]}]});
        self.server.post(&format!("/v1/collections/{collection}/documents"), &documents)
    }

    fn import(&self, collection: &str, lines: &str) -> Answer {
        let import = Request::new("POST", &format!("/v1/collections/{collection}/import"));
        import.body("application/x-ndjson", lines).send(self.server.address)
    }

    fn search(&self, collection: &str) -> Answer {
        self.server.post(&format!("/v1/collections/{collection}/search"), &json!({"vector": [1, 0, 0]}))
    }
}

#[test]
fn what_keeps_a_collection_from_being_made_is_told_apart() {
    let place = Place::new(server(Version::V16).bare_database());
    let postgres = &place.postgres;
    let detail = place.create("c", &place.url("scram_nobody:s3cret")).refused(502, "backend_authentication");
    assert!(detail.contains("scram_nobody") && !detail.contains("s3cret"), "{detail}");
    place.create("c", &postgres.url.replace("sslmode=disable", "sslmode=require")).refused(502, "backend_tls");
    place.create("c", "postgres://me@127.0.0.1:1/x?sslmode=disable").refused(503, "backend_unreachable");
    let elsewhere = postgres.url.replace(&postgres.name, "no_such_database");
    let detail = place.create("c", &elsewhere).refused(502, "backend_settings");
    assert!(detail.contains("no_such_database"), "{detail}");
    place.create("c", "nonsense").refused(502, "backend_settings");
    let role = format!("weak_{}", postgres.name);
    postgres.run(&format!("create role {role} login"));
    let detail = place.create("c", &place.url(&role)).refused(502, "backend_rights");
    assert!(detail.contains("permission denied for database"), "{detail}");
    postgres.run(&format!("create schema mine authorization {role}"));
    let detail = place.create("c", &place.url(&role)).refused(502, "backend_extension");
    assert!(detail.contains("CREATE EXTENSION vector"), "{detail}");
    postgres.run("create extension vector; update pg_extension set extversion = '0.8.3' where extname = 'vector'");
    let detail = place.create("c", &place.url(&role)).refused(502, "backend_extension");
    assert!(detail.contains("pgvector is 0.8.3") && detail.contains("ALTER EXTENSION"), "{detail}");
    postgres.run("update pg_extension set extversion = '0.8.5' where extname = 'vector'");
    place.create("c", &place.url(&role)).ok();
    place.write("c").ok();
    postgres.run(&format!("drop owned by {role} cascade; drop role {role}"));
}

#[test]
fn what_becomes_of_a_table_is_told_apart() {
    let place = Place::new(database());
    let postgres = &place.postgres;
    for collection in ["rights", "gone", "column", "dim", "slow"] {
        place.create(collection, &postgres.url).ok();
        place.write(collection).ok();
    }
    let lines = r#"{"id":"b","vector":[1,0,0]}
        {"id":"c","text":"a\u0000","vector":[1,0,0]}
        {"id":"d","vector":[1,0,0]}"#;
    let report = place.import("gone", lines).ok();
    assert_eq!((&report["upserted"], &report["errors"][0]["code"]), (&json!(2), &json!("not_on_backend")));
    postgres.run("drop table mine.gone; alter table mine.column drop column content cascade");
    for answer in [place.search("gone"), place.write("gone")] {
        let detail = answer.refused(409, "backend_drift");
        assert!(detail.contains("mine.gone") && detail.contains("PUT the collection again"), "{detail}");
    }
    // No line is at fault, so none is refused.
    let answer = place.import("gone", lines);
    answer.refused(409, "backend_drift");
    let progress = &answer.json()["progress"];
    assert_eq!((&progress["failed"], &progress["done_through"]), (&json!(0), &json!(0)));
    let detail = place.search("column").refused(409, "backend_drift");
    assert!(detail.contains("column content is missing, needed is text"), "{detail}");
    assert!(detail.contains("; put that back, or DELETE the collection"), "{detail}");
    postgres.run("delete from mine.dim; alter table mine.dim alter embedding type vector(4)");
    let detail = place.write("dim").refused(409, "backend_dim_mismatch");
    assert!(detail.contains("expected 4 dimensions, not 3"), "{detail}");
    postgres.run("insert into mine.dim (id, embedding) values ('b', '[1,2,3,4]')");
    let detail = place.search("dim").refused(409, "backend_dim_mismatch");
    assert!(detail.contains("mine.dim") && detail.contains("or DELETE the collection"), "{detail}");
    // Other servers' roles, on the same tables: one with a limit as hosted databases have it, one without a right.
    let (brief, weak) = (format!("brief_{}", postgres.name), format!("weak_{}", postgres.name));
    for role in [&brief, &weak] {
        postgres.run(&format!(
            "create role {role} login; grant all on schema mine to {role};
             grant all on all tables in schema mine to {role}; grant all on all sequences in schema mine to {role}"
        ));
    }
    place.create_at("weak", &place.url(&weak), "rights").ok();
    postgres.run(&format!(
        "create function mine.sleep() returns trigger language plpgsql as
           $$ begin perform pg_sleep(600); return new; end $$;
         create trigger sleep before insert on mine.slow for each row execute function mine.sleep();
         alter role {brief} set statement_timeout = 300; revoke insert on mine.rights from {weak}"
    ));
    let detail = place.write("weak").refused(502, "backend_rights");
    assert!(detail.contains("permission denied for table rights") && detail.contains("; grant"), "{detail}");
    place.search("weak").ok();
    place.write("rights").ok();
    // The limit holds for connections that are made from now on.
    let mut answer = place.create_at("brief", &place.url(&brief), "slow");
    comes_true(|| {
        if answer.status == 504 {
            answer = place.create_at("brief", &place.url(&brief), "slow");
        }
        answer.status != 504
    });
    answer.ok();
    let answer = place.write("brief");
    let detail = answer.refused(504, "backend_timeout");
    assert!(detail.contains("statement timeout") && answer.header("retry-after").is_none(), "{detail}");
    for role in [&brief, &weak] {
        postgres.run(&format!("drop owned by {role} cascade; drop role {role}"));
    }
}
