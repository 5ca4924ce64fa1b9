//! `pannier migrate --target postgres` against real servers.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use pannier::postgres::{ConnectSettings, Session};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::postgres::{TestDatabase, Version, database, server};

/// The key of the lock under which migrations run.
const LOCK_KEY: i64 = 7_266_437_775;

/// A database and a directory of migrations.
pub(super) struct Place {
    pub(super) root: TempDir,
    pub(super) database: TestDatabase,
}

impl Place {
    pub(super) fn new(database: TestDatabase) -> Self {
        let place = Self { root: tempfile::tempdir().unwrap(), database };
        std::fs::create_dir_all(place.dir()).unwrap();
        place
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("schema/migrations")
    }

    pub(super) fn write(&self, name: &str, sql: &str) {
        std::fs::write(self.dir().join(name), sql).unwrap();
    }

    pub(super) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pannier"));
        command.current_dir(self.root.path()).env("DATABASE_URL", &self.database.url);
        command.args(["migrate", "--target", "postgres"]).args(arguments);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    pub(super) fn succeed(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}\n{stderr}");
        stdout + &stderr
    }

    #[track_caller]
    pub(super) fn refused(&self, arguments: &[&str], words: &[&str]) {
        let (code, _, stderr) = self.run(arguments);
        assert_ne!(code, 0, "{arguments:?}");
        for words in words {
            assert!(stderr.contains(words), "{words:?} is not in\n{stderr}");
        }
    }

    pub(super) fn exists(&self, table: &str) -> bool {
        self.database.value(&format!("select to_regclass('{table}') is not null")) == "t"
    }

    fn applied(&self) -> Vec<String> {
        self.database.column("select version::text from schema_migrations order by version")
    }

    /// Applies one more migration; returns the directory of the copies that it took.
    #[track_caller]
    pub(super) fn taken(&self, file: &str, sql: &str) -> String {
        self.write(file, sql);
        snapshot_of(&self.run(&["up", "--json"]))
    }

    /// Waits until so many statements wait for locks.
    #[track_caller]
    pub(super) fn wait_for_waiting(&self, statements: usize) {
        let sql = "select count(*) from pg_locks where not granted
                   and database = (select oid from pg_database where datname = current_database())";
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.database.value(sql) != statements.to_string() {
            assert!(Instant::now() < deadline, "nobody waits");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The directory of the copies of what `up --json` applied.
#[track_caller]
pub(super) fn snapshot_of((code, stdout, stderr): &(i32, String, String)) -> String {
    assert_eq!(*code, 0, "{stderr}");
    let applied: Value = serde_json::from_str(stdout).unwrap();
    let steps = applied["steps"].as_array().unwrap();
    steps.iter().find_map(|step| step["snapshot"][0]["dir"].as_str()).unwrap().to_owned()
}

/// A transaction that others have to wait for.
pub(super) struct Pending {
    runtime: tokio::runtime::Runtime,
    session: Session,
}

impl Pending {
    pub(super) fn begin(database: &TestDatabase, sql: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let settings = ConnectSettings::from_url(&database.url).unwrap();
        let session = runtime.block_on(Session::connect(&settings)).unwrap();
        runtime.block_on(session.batch("begin", &format!("begin; {sql}"))).unwrap();
        Self { runtime, session }
    }

    pub(super) fn commit(self) {
        self.runtime.block_on(self.session.batch("commit", "commit")).unwrap();
    }
}

#[test]
fn forth_and_back_with_a_dry_run_before() {
    for version in [Version::V16, Version::V18] {
        let place = Place::new(server(version).bare_database());
        place.succeed(&["new", "create products"]);
        place.refused(&["up"], &["001_create_products.sql", "holds no statement"]);
        place.write("001_create_products.sql", "create table products (id bigint primary key, name text);\n");
        place.write("001_create_products.down.sql", "drop table products;");
        place.write("002_fill.sql", "-- depends: 001\ninsert into products values (1, 'it''s; fine'), (2, $$b;$$);");
        let tried = place.succeed(&["up", "--dry-run"]);
        assert!(tried.contains("can be applied") && tried.contains("nothing was changed"), "{tried}");
        assert!(!place.exists("products") && !place.exists("schema_migrations"));
        place.succeed(&["up"]);
        assert_eq!(place.database.value("select count(*) from products"), "2");
        assert_eq!(place.applied(), ["001", "002"]);
        assert!(place.succeed(&["up"]).contains("nothing to do"));
        let status = place.succeed(&["status"]);
        assert!(status.contains("pending 0") && status.contains("001 create_products"), "{status}");
        place.refused(&["down"], &["002_fill.sql has no way back"]);
        place.write("002_fill.down.sql", "-- Takes it back.\n");
        place.refused(&["down"], &["002_fill.sql has no way back"]);
        place.write("002_fill.down.sql", "delete from products;");
        place.succeed(&["down", "--dry-run"]);
        assert_eq!(place.applied(), ["001", "002"]);
        place.succeed(&["down", "--to", "0"]);
        assert!(!place.exists("products") && place.applied().is_empty());
    }
}

#[test]
fn a_migration_that_fails_leaves_nothing() {
    let place = Place::new(database());
    place.write("001_good.sql", "create table a (id int);");
    place.write("002_bad.sql", "create table b (id int);\n\ninsert into nowhere values (1);");
    place.refused(&["up", "--dry-run"], &["002_bad.sql:3", "insert into nowhere", "nothing was changed"]);
    assert!(!place.exists("a"));
    place.refused(&["up"], &["002_bad.sql:3", "rolled back", "nowhere"]);
    assert!(place.exists("a") && !place.exists("b"));
    assert_eq!(place.applied(), ["001"]);
    place.write("001_good.sql", "create table a (id bigint);");
    place.refused(&["up"], &["001_good.sql was changed after it was applied"]);
    std::fs::remove_file(place.dir().join("001_good.sql")).unwrap();
    place.refused(&["up"], &["001 was applied and has no file"]);
    place.write("002_bad.sql", "create table b (id int);");
    place.succeed(&["up", "--allow-missing"]);
    assert_eq!(place.applied(), ["001", "002"]);
}

#[test]
fn a_table_of_another_program_is_taken_over_as_it_stands() {
    let place = Place::new(database());
    place.database.run("create table schema_migrations (version int primary key, name varchar(100) not null, t int)");
    place.database.run("insert into schema_migrations values (1, 'old', 5)");
    place.write("001_old.sql", "create table never (id int);");
    place.write("002_new.sql", "create table made (id int);");
    place.succeed(&["up"]);
    assert!(place.exists("made") && !place.exists("never"));
    assert_eq!(place.applied(), ["1", "2"]);
    place.database.run("create table wrong (name text)");
    place.refused(&["up", "--table", "wrong"], &["no column \"version\""]);
}

#[test]
fn statements_that_stand_alone_are_found_before_anything_runs() {
    let place = Place::new(database());
    place.write("001_a.sql", "create table a (id int);");
    place.write("002_index.sql", "create index concurrently i on a (id);");
    place.refused(&["up"], &["002_index.sql:1", "create index concurrently", "no-transaction"]);
    assert!(!place.exists("a"), "the files are looked at before the first is run");
    place.write("002_index.sql", "-- no-transaction\ncreate index concurrently i on a (id);\nvacuum a;");
    assert!(place.succeed(&["up", "--dry-run"]).contains("not tried"));
    place.succeed(&["up"]);
    assert!(place.exists("i"));
    assert_eq!(place.applied(), ["001", "002"]);
}

#[test]
fn two_processes_apply_each_migration_once() {
    let place = Place::new(database());
    place.write("001_a.sql", "create table a (id int); select pg_sleep(0.3); insert into a values (1);");
    place.write("002_b.sql", "insert into a values (2);");
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| place.run(&["up"]))).collect();
        for run in runs {
            let (code, _, stderr) = run.join().unwrap();
            assert_eq!(code, 0, "{stderr}");
        }
    });
    assert_eq!(place.database.column("select id from a order by id"), ["1", "2"]);
}

#[test]
fn two_processes_take_a_migration_back_once() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table t (price int)");
    place.write("001_a.sql", "insert into t values (5);");
    place.write("001_a.down.sql", "delete from t;");
    place.write("002_cents.sql", "update t set price = price * 100;");
    for way in ["", "-- no-transaction\n"] {
        place.write("002_cents.down.sql", &format!("{way}update t set price = price / 100;"));
        place.succeed(&["up"]);
        let other = Pending::begin(db, &format!("select pg_advisory_xact_lock({LOCK_KEY})"));
        let outputs: Vec<_> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..2).map(|_| scope.spawn(|| place.run(&["down"]))).collect();
            place.wait_for_waiting(2);
            other.commit();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        assert!(outputs.iter().all(|(code, ..)| *code == 0), "{outputs:?}");
        assert_eq!(outputs.iter().filter(|(_, _, stderr)| stderr.contains("taken back")).count(), 1, "{outputs:?}");
        assert_eq!(db.value("select price from t"), "5");
        assert_eq!(place.applied(), ["001"]);
    }
}

#[test]
fn settings_of_a_migration_end_with_it() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create schema app; create role settled; grant all on schema app to settled");
    place.write("001_app.sql", "set search_path = app; set role settled; create table b (id int);");
    place
        .write("002_alone.sql", "-- no-transaction\nset search_path = app;\ncreate index concurrently b_id on b (id);");
    place.write("003_plain.sql", "create table c (id int);");
    // So begins what pg_dump writes.
    let dump = "select pg_catalog.set_config('search_path', '', false);";
    place.write("004_dump.sql", &format!("{dump} create table public.a (id int);"));
    place.write("004_dump.down.sql", &format!("{dump} drop table public.a;"));
    place.succeed(&["up", "--dry-run"]);
    place.succeed(&["up"]);
    assert_eq!(place.applied(), ["001", "002", "003", "004"]);
    assert_eq!(db.value("select schemaname || tableowner from pg_tables where tablename = 'c'"), "publicpostgres");
    assert!(place.exists("app.b_id"));
    place.succeed(&["down", "--dry-run"]);
    place.succeed(&["down"]);
    assert_eq!(place.applied(), ["001", "002", "003"]);
    db.run("drop owned by settled; drop role settled");
}

#[test]
fn what_a_migration_leaves_in_its_session_ends_with_it() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table users (id int, plan text); insert into users values (1, 'old')");
    let leaves = "create temp table users as table users; create temp table tmp (id int); prepare p as select 1;
         declare c cursor with hold for select * from tmp; listen c; select pg_advisory_lock(1);";
    place.write("001_leaves.sql", leaves);
    let finds = "update users set plan = 'free'; create temp table tmp (id int); prepare p as select 1;
         declare c cursor with hold for select * from tmp;
         select 1 / (count(*) = 0)::int from pg_locks where locktype = 'advisory' and objid = 1 and pid = pg_backend_pid();";
    place.write("002_finds.sql", finds);
    place.write("003_alone.sql", "-- no-transaction\ncreate temp table tmp (id int);");
    place.succeed(&["up", "--dry-run"]);
    place.succeed(&["up"]);
    assert_eq!(db.value("select plan from users"), "free");
}

#[test]
fn the_isolation_that_a_database_defaults_to_hides_no_rows_and_stops_no_index() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table kept (id int primary key); insert into kept values (1)");
    db.run(&format!("alter database {} set default_transaction_isolation = 'repeatable read'", db.name));
    place.write("001_drop.sql", "drop table kept;");
    let writer = Pending::begin(db, "insert into kept values (2)");
    let output = std::thread::scope(|scope| {
        let up = scope.spawn(|| place.run(&["up", "--json"]));
        place.wait_for_waiting(1);
        writer.commit();
        up.join().unwrap()
    });
    place.succeed(&["restore", &snapshot_of(&output)]);
    assert_eq!(db.column("select id from kept order by id"), ["1", "2"]);
    place.write("002_index.sql", "-- no-transaction\ncreate index concurrently i on kept (id);");
    place.succeed(&["up"]);
    assert_eq!(place.applied(), ["001", "002"]);
}

#[test]
fn the_limits_of_the_server_end_no_migration_and_free_no_lock() {
    let guard = "from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid() \
                 and database = (select oid from pg_database where datname = current_database())";
    for (version, limits) in [
        (Version::V16, &["idle_in_transaction_session_timeout", "statement_timeout"][..]),
        (Version::V18, &["idle_in_transaction_session_timeout", "statement_timeout", "transaction_timeout"]),
    ] {
        let place = Place::new(server(version).database());
        let db = &place.database;
        limits.iter().for_each(|limit| db.run(&format!("alter database {} set {limit} = '1s'", db.name)));
        place.write("001_within.sql", "select pg_sleep(1.5);");
        place.write("002_alone.sql", &format!("-- no-transaction\nselect pg_sleep(1.5); select 1 / count(*) {guard};"));
        place.succeed(&["up"]);
        assert_eq!(place.applied(), ["001", "002"]);
        place.write("003_ends.sql", &format!("-- no-transaction\nselect pg_terminate_backend(pid) {guard};"));
        place.refused(&["up"], &["003_ends.sql: its statements ran", "holds the lock"]);
        assert_eq!(place.applied(), ["001", "002"]);
        place.write("002_alone.down.sql", &format!("-- no-transaction\nselect pg_terminate_backend(pid) {guard};"));
        place.refused(&["down"], &["002_alone.down.sql: its statements ran", "holds the lock"]);
        assert_eq!(place.applied(), ["001", "002"]);
    }
}

#[test]
fn a_migration_may_depend_on_an_applied_one_whose_file_is_gone() {
    let place = Place::new(database());
    place.write("001_a.sql", "create table a (id int);");
    place.succeed(&["up"]);
    std::fs::remove_file(place.dir().join("001_a.sql")).unwrap();
    place.write("002_b.sql", "-- depends: 001\ninsert into a values (1);");
    place.write("002_b.down.sql", "delete from a;");
    assert!(place.succeed(&["status"]).contains("its file is missing"), "the status is always told");
    place.succeed(&["new", "next", "--dry-run"]);
    place.refused(&["up"], &["001 was applied and has no file"]);
    place.succeed(&["up", "--allow-missing"]);
    assert_eq!(place.applied(), ["001", "002"]);
    place.succeed(&["down", "--allow-missing"]);
    place.write("003_c.sql", "-- depends: 009\nselect 1;");
    place.refused(&["up", "--allow-missing"], &["003_c.sql: it depends on 009, which has no file and was not applied"]);
    assert_eq!(place.applied(), ["001"]);
}

#[test]
fn a_directory_that_was_named_must_be_there() {
    let place = Place::new(server(Version::V16).bare_database());
    for command in ["up", "down", "status"] {
        place.refused(&[command, "--dir", "schema/migration"], &["there is no directory schema/migration"]);
    }
    assert!(!place.exists("pannier_migrations"), "it is said before anything is done");
    std::fs::remove_dir(place.dir()).unwrap();
    place.succeed(&["status"]);
}

#[test]
fn a_migration_waits_for_what_it_depends_on() {
    let place = Place::new(database());
    place.write("001_a.sql", "create table a (id int);");
    place.write("002_b.sql", "-- depends: 010\ninsert into c values (1);");
    place.write("010_c.sql", "create table c (id int);");
    for arguments in [&["up", "--to", "2"][..], &["up", "--to", "2", "--dry-run"]] {
        place.refused(arguments, &["002_b.sql: it depends on 010", "beyond --to"]);
        assert!(!place.exists("a"), "it is said before anything is done");
    }
    place.succeed(&["up", "--to", "1"]);
    place.succeed(&["up", "--to", "10"]);
    assert_eq!(place.database.value("select count(*) from c"), "1");
    place.write("003_d.sql", "-- depends: 010\nselect 1;");
    place.succeed(&["up", "--to", "3"]);
}

#[test]
fn a_dry_run_finds_what_the_commit_would_refuse() {
    let place = Place::new(database());
    place.database.run("create table a (id int primary key, b int unique deferrable initially deferred)");
    place.write("001_fill.sql", "insert into a values (1, 1), (2, 2);");
    place.write("001_fill.down.sql", "update a set b = 1;");
    // Every step begins with constraints that wait.
    place.write("002_swap.sql", "update a set b = 2 where id = 1; update a set b = 1 where id = 2;");
    place.succeed(&["up", "--dry-run"]);
    place.write("003_twice.sql", "insert into a values (3, 1);");
    place.refused(&["up", "--dry-run"], &["003_twice.sql: its COMMIT is refused", "duplicate key"]);
    place.succeed(&["up", "--to", "1"]);
    place.refused(&["down", "--dry-run"], &["001_fill.down.sql: its COMMIT is refused", "duplicate key"]);
    assert_eq!(place.database.column("select b from a order by id"), ["1", "2"]);
}

#[test]
fn tables_are_copied_before_and_put_back() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table kept (id bigint generated by default as identity primary key, name text not null default 'x', n numeric check (n > 0))");
    db.run("create index kept_name on kept (name)");
    db.run(r"insert into kept (name, n) select E'tab\t\\ line\n' || i, i from generate_series(1, 100) i");
    let sum = "select md5(string_agg(k::text, '|' order by id)) from kept k";
    let before = db.value(sum);
    place.write("001_lose.sql", "update kept set name = 'lost';\ndelete from kept where id > 50;");
    place.write("002_drop.sql", "drop table kept cascade;");
    let applied: Value = serde_json::from_str(&{
        let (code, stdout, stderr) = place.run(&["up", "--json"]);
        assert_eq!(code, 0, "{stderr}");
        stdout
    })
    .unwrap();
    assert!(!place.exists("kept"));
    let steps = applied["steps"].as_array().unwrap();
    let snapshot = |version: u64| {
        let step =
            steps.iter().find(|step| step["version"] == version && !step["snapshot"].as_array().unwrap().is_empty());
        step.unwrap()["snapshot"][0]["dir"].as_str().unwrap().to_owned()
    };
    // As it was before it was dropped: made again, with its rows, constraints, index and numbers.
    place.succeed(&["restore", &snapshot(2)]);
    assert_eq!(db.value("select count(*) from kept where name = 'lost'"), "50");
    assert!(place.exists("kept_name"));
    // As it was before it lost rows: rows are replaced.
    place.succeed(&["restore", &snapshot(1), "--dry-run"]);
    assert_eq!(db.value("select count(*) from kept"), "50");
    place.succeed(&["restore", &snapshot(1)]);
    assert_eq!(db.value(sum), before);
    db.run("insert into kept (n) values (1)");
    assert_eq!(db.value("select max(id) from kept"), "101");
    let file = place.root.path().join(snapshot(1)).join("000.copy");
    std::fs::write(&file, "damaged").unwrap();
    place.refused(&["restore", &snapshot(1)], &["000.copy is damaged"]);
    let file = place.root.path().join(snapshot(1)).join("manifest.json");
    let manifest = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, manifest.replacen("\"type\":\"bigint\"", "\"type\":\"bigins\"", 1)).unwrap();
    place.refused(&["restore", &snapshot(1)], &["manifest.json is damaged"]);
}

#[test]
fn rows_are_not_put_back_into_other_columns() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table kept (id int primary key, name text, n int not null); insert into kept values (1, 'a', 2)");
    db.run("create table gone (id int); insert into gone values (7)");
    place.write("001_change.sql", "update kept set n = 0; drop table gone;");
    let (_, stdout, _) = place.run(&["up", "--json"]);
    let applied: Value = serde_json::from_str(&stdout).unwrap();
    let steps = applied["steps"].as_array().unwrap();
    let taken = steps.iter().find_map(|step| step["snapshot"][0]["dir"].as_str()).unwrap();
    db.run("alter table kept add column later text default 'x', drop column name, alter n type bigint, alter n drop not null");
    for arguments in [&["restore", taken][..], &["restore", taken, "--dry-run"]] {
        let words = [
            "table public.kept",
            "column name (text) is not there now",
            "column n is bigint now, and was integer not null",
            "column later (text) was not there",
        ];
        place.refused(arguments, &words);
    }
    assert!(!place.exists("gone"), "all tables or none");
    assert_eq!(db.value("select n || later from kept"), "0x");
    db.run("alter table kept drop column later, alter n type int, alter n set not null");
    place.refused(&["restore", taken], &["column name (text) is not there now"]);
    db.run("alter table kept add column name text");
    place.succeed(&["restore", taken]);
    assert_eq!(db.value("select name || n from kept"), "a2");
    assert_eq!(db.value("select id from gone"), "7");
}

#[test]
fn a_failed_migration_leaves_no_snapshot_behind() {
    let place = Place::new(database());
    let snapshots = || {
        let dir = place.root.path().join("schema/snapshots");
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    };
    place.database.run("create table a (id int primary key, b int unique deferrable initially deferred)");
    place.database.run("insert into a values (1, 1)");
    place.write("001_fails.sql", "update a set id = 2; insert into nowhere values (1);");
    place.refused(&["up"], &["nowhere"]);
    assert_eq!(snapshots(), 0);
    // At the COMMIT, which the server refuses.
    place.write("001_fails.sql", "insert into a values (2, 1);");
    place.refused(&["up"], &["001_fails.sql: its COMMIT is refused", "duplicate key"]);
    assert_eq!(snapshots(), 0);
    place.write("001_fails.sql", "update a set id = 3;");
    place.succeed(&["up"]);
    assert_eq!(snapshots(), 1);
    place.write("001_fails.down.sql", "update a set id = 1; select 1 / 0;");
    place.refused(&["down"], &["division by zero"]);
    assert_eq!(snapshots(), 1);
    // What a table's rows cannot be read for is not copied in part.
    place
        .database
        .run("create role blind login; grant all on schema public to blind; grant all on schema_migrations to blind");
    place.database.run("create table secret (id int); create table open (id int); grant all on open to blind");
    place.write("002_blind.sql", "delete from open; delete from secret;");
    let url = place.database.url.replace("postgres@", "blind@");
    std::fs::write(place.root.path().join("url"), url).unwrap();
    place.refused(&["up", "--skip-own", "--url-file", "url"], &["permission denied"]);
    assert_eq!(snapshots(), 1);
    place.database.run("drop owned by blind; drop role blind");
}

#[test]
fn tables_that_foreign_keys_refer_to_are_put_back() {
    let place = Place::new(database());
    let db = &place.database;
    db.run(
        "create table customers (id int primary key, name text); insert into customers values (1, 'a'), (2, 'b');
         create table orders (id int primary key, customer int not null references customers);
         insert into orders values (10, 1)",
    );
    let snapshot = place.taken("001_lose.sql", "update customers set name = 'lost';");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.column("select name from customers order by id"), ["a", "b"]);
    assert_eq!(db.value("select customer from orders"), "1");
    // A row that would refer to nothing.
    db.run("insert into customers values (3, 'c'); insert into orders values (11, 3)");
    place.refused(&["restore", &snapshot], &["orders_customer_fkey"]);
    assert_eq!(db.value("select count(*) from customers"), "3");
    db.run("delete from orders where id = 11");
    // A key that waits for nothing is named before.
    db.run("create table held (customer int references customers on delete restrict); insert into held values (1)");
    place.refused(&["restore", &snapshot], &["rows of held", "ON DELETE RESTRICT"]);
    db.run("delete from held");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.value("select count(*) from customers"), "2");
    assert_eq!(db.value("select count(*) from pg_constraint where contype = 'f' and condeferrable"), "0");
    // Keys among what is put back, of which one cascades from a table that comes later.
    db.run(
        "create table a_child (id int primary key, parent int);
         create table b_parent (id int primary key); insert into b_parent values (1), (2);
         alter table a_child add foreign key (parent) references b_parent on delete cascade;
         insert into a_child values (1, 1), (2, 2)",
    );
    let snapshot = place.taken("002_lose.sql", "delete from a_child; delete from b_parent where id = 2;");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.column("select id from a_child order by id"), ["1", "2"]);
    assert_eq!(db.column("select id from b_parent order by id"), ["1", "2"]);
}
