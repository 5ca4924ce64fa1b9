//! What a statement needs or must not have around it, known before anything runs.

use super::split::Statement;

/// How a statement goes together with a transaction of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It runs within one.
    Within,
    /// Postgres refuses it within one.
    Outside,
    /// It would end ours.
    EndsIt,
    /// It waits for data that a file of statements cannot give.
    NeedsInput,
}

/// How a statement fits.
pub(super) fn fit(statement: &Statement) -> Fit {
    if statement.begins(&["copy"]) && statement.has(&["from", "stdin"]) {
        return Fit::NeedsInput;
    }
    if ends_transaction(statement) {
        return Fit::EndsIt;
    }
    match needs_to_stand_alone(statement) {
        true => Fit::Outside,
        false => Fit::Within,
    }
}

fn ends_transaction(statement: &Statement) -> bool {
    let first = statement.word(0).unwrap_or_default();
    matches!(first, "begin" | "commit" | "end" | "abort")
        || statement.begins(&["start", "transaction"])
        || statement.begins(&["prepare", "transaction"])
        // Back to a savepoint is within the transaction.
        || (first == "rollback" && !statement.has(&["to"]))
}

/// The statements that call `PreventInTransactionBlock` in Postgres 16 to 18.
fn needs_to_stand_alone(statement: &Statement) -> bool {
    let begins = |words: &[&str]| statement.begins(words);
    let concurrently = statement.has(&["concurrently"]);
    match statement.word(0).unwrap_or_default() {
        "vacuum" => true,
        "create" => {
            begins(&["create", "database"])
                || begins(&["create", "tablespace"])
                || (concurrently && (begins(&["create", "index"]) || begins(&["create", "unique", "index"])))
                // A subscription makes a slot on the other server, unless it is told not to connect.
                || (begins(&["create", "subscription"]) && !statement.has(&["connect"]))
        }
        "drop" => {
            begins(&["drop", "database"])
                || begins(&["drop", "tablespace"])
                || begins(&["drop", "subscription"])
                || (concurrently && begins(&["drop", "index"]))
        }
        "reindex" => {
            concurrently
                || begins(&["reindex", "database"])
                || begins(&["reindex", "schema"])
                || begins(&["reindex", "system"])
        }
        "alter" => {
            begins(&["alter", "system"])
                || (begins(&["alter", "database"]) && statement.has(&["set", "tablespace"]))
                || (concurrently && statement.has(&["detach", "partition"]))
                || (begins(&["alter", "subscription"]) && statement.has(&["refresh"]))
        }
        "cluster" => statement.words.iter().filter(|word| **word != super::split::Word::Sign(';')).count() == 1,
        "discard" => begins(&["discard", "all"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlmigrate::split::split;

    fn fit_of(sql: &str) -> Fit {
        fit(&split(sql).unwrap()[0])
    }

    #[test]
    fn statements_that_stand_alone_are_known() {
        let outside = [
            "create index concurrently on t (a)",
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);",
            "drop index concurrently i",
            "reindex table concurrently t",
            "reindex (verbose) index concurrently i",
            "vacuum analyze t",
            "create database d",
            "alter system set work_mem = '1MB'",
            "alter table t detach partition p concurrently",
            "cluster;",
            "/* c */ -- d\n Vacuum",
        ];
        for sql in outside {
            assert_eq!(fit_of(sql), Fit::Outside, "{sql}");
        }
        let within = [
            "create index i on t (a)",
            "create index \"concurrently\" on t (a)",
            "insert into t values ('vacuum; create database d')",
            "analyze t",
            "cluster t using i",
            "refresh materialized view concurrently m",
            "rollback to savepoint a",
            "savepoint a",
            "copy t from '/tmp/x'",
        ];
        for sql in within {
            assert_eq!(fit_of(sql), Fit::Within, "{sql}");
        }
    }

    #[test]
    fn transactions_of_its_own_and_input_are_known() {
        for sql in [
            "begin;",
            "BEGIN WORK",
            "start transaction",
            "commit",
            "end",
            "rollback",
            "abort",
            "prepare transaction 'a'",
        ] {
            assert_eq!(fit_of(sql), Fit::EndsIt, "{sql}");
        }
        assert_eq!(fit_of("copy t (a) from stdin;"), Fit::NeedsInput);
    }
}
