//! Copies of tables before migrations, and what comes back of them: all rows, where they were, and nothing else.

use serde_json::Value;

use super::migrations::{Pending, Place, snapshot_of};
use crate::support::postgres::database;

impl Place {
    /// Names a file with the URL of another role, which may do everything with the tables but does not own them.
    fn url_of(&self, role: &str) {
        let url = self.database.url.replace("postgres@", &format!("{role}@"));
        std::fs::write(self.root.path().join("url"), url).unwrap();
        self.database.run(&format!(
            "create role {role} login; grant all on schema public to {role};
             grant all on all tables in schema public to {role}"
        ));
    }

    /// Rows by the table in which they stand.
    fn rows(&self, table: &str) -> Vec<String> {
        self.database.column(&format!("select tableoid::regclass || ' ' || t::text from {table} t order by 1"))
    }
}

#[test]
fn rows_written_meanwhile_are_copied_and_replaced() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table kept (id int primary key); insert into kept values (1)");
    place.write("001_drop.sql", "drop table kept;");
    let writer = Pending::begin(db, "insert into kept values (2)");
    let output = std::thread::scope(|scope| {
        let up = scope.spawn(|| place.run(&["up", "--json"]));
        place.wait_for_waiting(1);
        writer.commit();
        up.join().unwrap()
    });
    let snapshot = snapshot_of(&output);
    assert!(!place.exists("kept"));
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.column("select id from kept order by id"), ["1", "2"]);
    let writer = Pending::begin(db, "insert into kept values (3)");
    std::thread::scope(|scope| {
        let restore = scope.spawn(|| place.succeed(&["restore", &snapshot]));
        place.wait_for_waiting(1);
        writer.commit();
        restore.join().unwrap();
    });
    assert_eq!(db.column("select id from kept order by id"), ["1", "2"]);
    let writer = Pending::begin(db, "insert into kept values (3)");
    let words = ["no lock on public.kept came", "pg_stat_activity", "lock the affected tables", "lock timeout"];
    place.refused(&["restore", &snapshot, "--lock-timeout", "1"], &words);
    writer.commit();
}

#[test]
fn a_migration_that_waits_in_vain_names_its_file_and_the_tables() {
    let place = Place::new(database());
    place.database.run("create table products (id int)");
    place.write("001_good.sql", "create table good (id int);");
    place.write("002_z.sql", "alter table products add z int;");
    let holder = Pending::begin(&place.database, "lock table products");
    let words = ["002_z.sql: no lock on public.products came; nothing of it was done", "--lock-timeout more seconds"];
    place.refused(&["up", "--lock-timeout", "1"], &words);
    let words = ["002_z.sql:1: alter table products add .. failed", "rolled back", "--lock-timeout more seconds"];
    place.refused(&["up", "--lock-timeout", "1", "--no-snapshot"], &words);
    holder.commit();
    place.succeed(&["up"]);
    assert_eq!(place.database.value("select count(*) from information_schema.columns where column_name = 'z'"), "1");
}

#[test]
fn rows_longer_than_a_message_come_back() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table kept (id int primary key, t text)");
    db.run(r"insert into kept select i, repeat(i || E'\tä\n', 400000) from generate_series(1, 3) i");
    let sum = "select md5(string_agg(k::text, '|' order by id)) from kept k";
    let before = db.value(sum);
    let snapshot = place.taken("001_drop.sql", "drop table kept;");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.value(sum), before);
}

#[test]
fn what_inherits_keeps_its_rows() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table p (x int); create table c (y int) inherits (p); insert into p values (1)");
    db.run("insert into c values (2, 3)");
    let before = [place.rows("p"), place.rows("c")];
    let snapshot = place.taken("001_lose.sql", "update p set x = 0;");
    assert_ne!(place.rows("c"), before[1]);
    place.succeed(&["restore", &snapshot]);
    assert_eq!([place.rows("p"), place.rows("c")], before);
    let snapshot = place.taken("002_drop.sql", "drop table p cascade;");
    place.refused(&["restore", &snapshot], &["table public.c", "inherited from p", "by hand"]);
    assert!(!place.exists("p"), "all tables or none");
    db.run("create table p (x int); create table c (y int) inherits (p)");
    place.succeed(&["restore", &snapshot]);
    assert_eq!([place.rows("p"), place.rows("c")], before);
}

#[test]
fn partitions_are_copied_once_and_not_made_as_plain_tables() {
    let place = Place::new(database());
    let db = &place.database;
    let make = "create schema s;
         create table s.events (id int primary key) partition by range (id);
         create table s.few partition of s.events for values from (0) to (10);
         create table s.many partition of s.events for values from (10) to (100) partition by range (id);
         create table s.tens partition of s.many for values from (10) to (50)";
    db.run(make);
    db.run("insert into s.events values (1), (11), (12)");
    let before = place.rows("s.events");
    let snapshot = place.taken("001_lose.sql", "delete from s.events where id > 1; delete from s.tens;");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(place.rows("s.events"), before);
    // One partition alone.
    let snapshot = place.taken("002_lose.sql", "delete from s.tens;");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(place.rows("s.events"), before);
    place.write("003_drop.sql", "drop schema s cascade;");
    let output = place.run(&["up", "--json"]);
    let applied: Value = serde_json::from_str(&output.1).unwrap();
    let copied: usize =
        applied["steps"].as_array().unwrap().iter().map(|s| s["snapshot"].as_array().unwrap().len()).sum();
    assert_eq!(copied, 1, "{applied}");
    let snapshot = snapshot_of(&output);
    place.refused(&["restore", &snapshot], &["table s.events was partitioned by RANGE (id)", "by hand"]);
    db.run(make);
    place.succeed(&["restore", &snapshot]);
    assert_eq!(place.rows("s.events"), before);
}

#[test]
fn rows_that_a_policy_hides_are_not_passed_over() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table kept (id int); insert into kept values (1), (2)");
    let snapshot = place.taken("001_lose.sql", "update kept set id = id + 10;");
    db.run("alter table kept enable row level security; create policy few on kept using (id = 11)");
    place.url_of("narrow");
    place.write("002_lose.sql", "delete from kept;");
    place.refused(&["up", "--skip-own", "--url-file", "url"], &["copy a table", "row-level security"]);
    place.refused(&["restore", &snapshot, "--url-file", "url"], &["row-level security"]);
    assert_eq!(db.column("select id from kept order by id"), ["11", "12"]);
    db.run("drop owned by narrow; drop role narrow");
}

#[test]
fn what_keys_empty_is_copied_too() {
    let place = Place::new(database());
    let db = &place.database;
    db.run(
        "create table a (id int primary key); insert into a values (1), (2);
         create table b (id int primary key, a int references a on delete cascade); insert into b values (3, 1), (4, 2);
         create table c (b int references b on delete set null); insert into c values (3), (4);
         create table d (c int, b int references b); insert into d values (5, null)",
    );
    let all = || [place.rows("a"), place.rows("b"), place.rows("c"), place.rows("d")];
    let before = all();
    let snapshot = place.taken("001_lose.sql", "delete from a where id = 1;");
    assert_eq!(db.value("select count(b) from c"), "1");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(all(), before);
    let snapshot = place.taken("002_lose.sql", "truncate a cascade;");
    assert_eq!(db.value("select count(*) from d"), "0");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(all(), before);
}

#[test]
fn triggers_rest_while_rows_are_put_back() {
    let place = Place::new(database());
    let db = &place.database;
    db.run(
        "create table kept (id int primary key, name text); insert into kept values (1, 'a');
         create table audit (id int);
         create function stamp() returns trigger language plpgsql as 'begin new.name := ''stamped''; return new; end';
         create function note() returns trigger language plpgsql as 'begin insert into audit values (1); return old; end';
         create trigger stamp before insert on kept for each row execute function stamp();
         create trigger note after delete on kept for each row execute function note();
         create trigger asleep before insert on kept for each row execute function stamp();
         create rule stays as on delete to kept where old.id = 2 do instead nothing;
         alter table kept enable always trigger note, disable trigger asleep",
    );
    let states = || db.column("select tgname || tgenabled::text from pg_trigger where not tgisinternal order by 1");
    let before = states();
    let snapshot = place.taken("001_lose.sql", "update kept set name = 'lost';");
    db.run("insert into kept values (2, 'later')");
    place.url_of("guest");
    let words = ["trigger note of public.kept", "rule stays of public.kept", "owner"];
    place.refused(&["restore", &snapshot, "--url-file", "url"], &words);
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.column("select id || name from kept"), ["1a"]);
    assert_eq!(db.value("select count(*) from audit"), "0");
    assert_eq!(states(), before);
    assert_eq!(db.value("select ev_enabled from pg_rewrite where rulename = 'stays'"), "O");
    db.run("drop owned by guest; drop role guest");
}

#[test]
fn names_are_read_as_postgres_reads_them() {
    let place = Place::new(database());
    let db = &place.database;
    db.run("create table Ärzte (id int); insert into Ärzte values (1)");
    let snapshot = place.taken("001_drop.sql", "DROP TABLE Ärzte;");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.value("select id from Ärzte"), "1");
}

#[test]
fn what_a_view_or_a_rule_hides_is_copied_too() {
    let place = Place::new(database());
    let db = &place.database;
    db.run(
        "create table people (id int primary key, name text); insert into people values (1, 'a'), (2, 'b');
         create view shown as select * from people where id > 1; create view few as select * from shown;
         create table log (id int primary key, name text); insert into log values (1, 'x');
         create table entries (id int); insert into entries values (1);
         create rule follow as on update to entries do also update log set name = 'lost'",
    );
    let all = || [place.rows("people"), place.rows("log"), place.rows("entries")];
    let before = all();
    let snapshot = place.taken("001_lose.sql", "update few set name = 'lost'; update entries set id = 2;");
    assert_eq!(
        db.value("select string_agg(name, ' ' order by name) from (table log union all table people)"),
        "a lost lost"
    );
    place.succeed(&["restore", &snapshot]);
    assert_eq!(all(), before);
}

#[test]
fn a_migration_takes_nothing_that_no_copy_holds() {
    let place = Place::new(database());
    let db = &place.database;
    let make = "create type mood as enum ('well'); create table people (id int, m mood); insert into people values (1, 'well')";
    db.run(make);
    db.run("create table gone (id int)");
    for (sql, table) in [
        ("drop type mood cascade;", "public.people"),
        ("do $$ begin alter table people alter id type bigint; end $$;", "public.people"),
        ("do $$ begin drop table gone; end $$;", "public.gone"),
    ] {
        place.write("001_hidden.sql", sql);
        for arguments in [&["up"][..], &["up", "--dry-run"]] {
            place.refused(arguments, &["001_hidden.sql: it drops", table, "LOCK TABLE", "--no-snapshot"]);
        }
    }
    assert_eq!(db.value("select m from people"), "well");
    place.succeed(&["up", "--no-snapshot"]);
    assert!(!place.exists("gone"));
    let snapshot = place.taken("002_named.sql", "lock table people; drop type mood cascade;");
    db.run("drop table people; create type mood as enum ('well')");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(place.rows("people"), ["people (1,well)"]);
    db.run("create type place as (town text, code text); create table homes (at place)");
    place.write("003_type.sql", "alter type place drop attribute code;");
    let output = place.succeed(&["up"]);
    assert!(output.contains("DROP ATTRIBUTE") && output.contains("LOCK TABLE"), "{output}");
    // What it made itself, what it only adds to, and what is copied with another table, is nothing lost.
    db.run("create table parts (id int) partition by range (id); create table part partition of parts default");
    db.run("create table parent (id int, x int); create table child () inherits (parent)");
    let plain = "create table made (id int); do $$ begin alter table people add n int; drop table made; end $$;
                 drop table parts; alter table parent drop column x;";
    place.write("004_plain.sql", plain);
    place.succeed(&["up", "--dry-run"]);
    place.succeed(&["up"]);
    place.write("004_plain.down.sql", "do $$ begin alter table people drop n; end $$;");
    place.refused(&["down"], &["004_plain.down.sql: it drops", "public.people"]);
    place.refused(&["down", "--dry-run"], &["004_plain.down.sql: it drops", "public.people"]);
}

#[test]
fn rows_are_written_with_every_digit_whatever_the_settings() {
    let place = Place::new(database());
    let db = &place.database;
    db.run(
        "create table kept (f float8, r real, d date, i interval, later date default '2026-04-03');
         insert into kept values (0.1::float8 + 0.2::float8, 16777217.0 / 3, '2026-04-03', '-1 day +02:03:04')",
    );
    let set = |setting: &str| db.run(&format!("alter database {} set {setting}", db.name));
    let sum = "set extra_float_digits = 1; set datestyle = 'ISO'; set intervalstyle = 'postgres'; select kept::text from kept";
    let before = db.value(sum);
    for setting in ["extra_float_digits = 0", "datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'"] {
        set(setting);
    }
    place.write("001_drop.sql", "drop table kept; create table shown as select '2026-04-03'::date::text as d;");
    let snapshot = snapshot_of(&place.run(&["up", "--json"]));
    assert_eq!(db.value("select d from shown"), "03/04/2026", "the migration has the database's own");
    set("datestyle = 'SQL, MDY'");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.value(sum), before);
}

#[test]
fn sequences_go_on_where_they_stood() {
    let place = Place::new(database());
    let db = &place.database;
    db.run(
        "create table far (id int generated by default as identity (start with 100000)); insert into far values (1);
         create function nothing() returns trigger language plpgsql as 'begin return null; end';
         create constraint trigger late after insert on far deferrable for each row execute function nothing();
         create table falling (id int generated always as identity (increment by -1));
         insert into falling default values; insert into falling default values;
         create table full_up (id smallint generated by default as identity); insert into full_up values (32767);
         select setval('full_up_id_seq', 32767);
         create table named (code text); create sequence order_no owned by named.code;
         alter table named alter code set default 'ORD-' || nextval('order_no');
         insert into named default values; insert into named default values;
         create table turning (id int generated by default as identity (maxvalue 3 cycle)); insert into turning values (3);
         select setval('turning_id_seq', 1);
         create table odd (id int generated by default as identity (start with 7 increment by 2));
         insert into odd default values; insert into odd default values; insert into odd values (10);
         create table plain (id serial); insert into plain default values; insert into plain default values;
         delete from plain where id = 2",
    );
    let tables = "far, falling, named, turning, odd, plain";
    let next = || -> Vec<String> {
        let column = |table: &str| if table == "named" { "code" } else { "id" };
        let sql = |table: &str| format!("select nextval(pg_get_serial_sequence('{table}', '{}'))", column(table));
        tables.split(", ").map(|table| db.value(&sql(table))).collect()
    };
    let full = || db.value("select last_value || is_called::text from full_up_id_seq");
    let deletes: Vec<String> = tables.split(", ").map(|table| format!("delete from {table};")).collect();
    let snapshot = place.taken("001_lose.sql", &format!("{} delete from full_up;", deletes.concat()));
    place.succeed(&["restore", &snapshot]);
    assert_eq!(next(), ["100000", "-3", "3", "2", "11", "3"]);
    assert_eq!(full(), "32767true");
    let snapshot = place.taken("002_drop.sql", &format!("drop table {tables}, full_up;"));
    place.succeed(&["restore", &snapshot]);
    assert_eq!(next(), ["100001", "-4", "4", "3", "13", "4"]);
    assert_eq!(full(), "32767true");
    let snapshot = place.taken("003_empty.sql", "truncate plain restart identity;");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.value("insert into plain default values returning id"), "5");
    // Those of a schema that is gone.
    db.run("create schema s; create table s.t (id serial); insert into s.t default values");
    let snapshot = place.taken("004_drop.sql", "drop schema s cascade;");
    place.succeed(&["restore", &snapshot]);
    assert_eq!(db.value("insert into s.t default values returning id"), "2");
}
