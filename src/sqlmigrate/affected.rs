//! Which tables a migration changes, as far as its text says: what a function or a DO block does stays hidden.

use std::collections::BTreeSet;

use super::split::{Statement, Word};

/// A table as a statement names it: with its schema or without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub schema: Option<String>,
    pub name: String,
}

/// What happens to a table, and so which others change with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// It gets rows: no other table changes.
    Insert,
    /// So do those whose keys say ON UPDATE CASCADE, SET NULL or SET DEFAULT.
    Update,
    /// So do those whose keys say ON DELETE CASCADE, SET NULL or SET DEFAULT.
    Delete,
    /// It is altered, dropped or emptied: no key acts.
    Whole,
    /// `TRUNCATE .. CASCADE`: all that refer to it are emptied, too.
    TruncateCascade,
}

/// What statements change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Affected {
    pub tables: BTreeSet<(Named, Change)>,
    /// Schemas that are dropped with everything in them.
    pub schemas: BTreeSet<String>,
}

/// The tables that statements alter, drop, empty, lock or write to.
pub(super) fn affected(statements: &[Statement]) -> Affected {
    let mut all = Affected::default();
    for statement in statements {
        of_definition(statement, &mut all);
        of_writes(statement, &mut all);
    }
    all
}

/// Whether statements take values out of columns of a type, wherever those are: no table changes by it.
pub(super) fn drops_attribute(statements: &[Statement]) -> bool {
    let drops = |statement: &Statement| statement.begins(&["alter", "type"]) && statement.has(&["drop", "attribute"]);
    statements.iter().any(drops)
}

fn of_definition(statement: &Statement, all: &mut Affected) {
    let skip = |index: usize, words: &[&str]| {
        words.iter().fold(index, |at, word| if statement.word(at) == Some(word) { at + 1 } else { at })
    };
    if statement.begins(&["alter", "table"]) {
        let named = name_at(statement, skip(2, &["if", "exists", "only"]));
        all.tables.extend(named.map(|(name, _)| (name, Change::Whole)));
    } else if statement.begins(&["drop", "table"]) {
        let names = names_at(statement, skip(2, &["if", "exists"]));
        all.tables.extend(names.into_iter().map(|name| (name, Change::Whole)));
    } else if statement.begins(&["lock"]) {
        // With `LOCK TABLE` a migration declares the tables that it changes where its text does not show them
        // (functions, `DO` blocks).
        let names = names_at(statement, skip(1, &["table"]));
        all.tables.extend(names.into_iter().map(|name| (name, Change::Whole)));
    } else if statement.begins(&["truncate"]) {
        let change = if statement.has(&["cascade"]) { Change::TruncateCascade } else { Change::Whole };
        let names = names_at(statement, skip(1, &["table", "only"]));
        all.tables.extend(names.into_iter().map(|name| (name, change)));
    } else if statement.begins(&["drop", "schema"]) {
        all.schemas.extend(names_at(statement, skip(2, &["if", "exists"])).into_iter().map(|named| named.name));
    }
}

/// Writes stand anywhere: at the start, or below WITH.
fn of_writes(statement: &Statement, all: &mut Affected) {
    for at in 0..statement.words.len() {
        let before = at.checked_sub(1).and_then(|before| statement.word(before));
        let (name, changes) = match (statement.word(at), statement.word(at + 1)) {
            (Some("insert"), Some("into")) if statement.has(&["do", "update"]) => (at + 2, &[Change::Update][..]),
            (Some("insert"), Some("into")) => (at + 2, &[Change::Insert][..]),
            (Some("copy"), _) if at == 0 && statement.has(&["from"]) => (at + 1, &[Change::Insert][..]),
            // What a MERGE does stands at its end, perhaps after words of what it reads.
            (Some("merge"), Some("into")) => (at + 2, &[Change::Update, Change::Delete][..]),
            (Some("delete"), Some("from")) => (at + 2, &[Change::Delete][..]),
            // FOR UPDATE locks, ON UPDATE belongs to a foreign key, DO UPDATE to the INSERT before it.
            (Some("update"), Some("set")) => continue,
            (Some("update"), _) if !matches!(before, Some("for" | "on" | "do" | "key" | "before" | "after" | "or")) => {
                (at + 1, &[Change::Update][..])
            }
            _ => continue,
        };
        let name = if statement.word(name) == Some("only") { name + 1 } else { name };
        if let Some((name, _)) = name_at(statement, name) {
            all.tables.extend(changes.iter().map(|change| (name.clone(), *change)));
        }
    }
}

/// Names joined by commas.
fn names_at(statement: &Statement, mut at: usize) -> Vec<Named> {
    let mut names = Vec::new();
    loop {
        at += usize::from(statement.word(at) == Some("only"));
        let Some((name, next)) = name_at(statement, at) else { return names };
        names.push(name);
        // A star after a table's name is an old way of saying that its children are meant too.
        let next = if statement.words.get(next) == Some(&Word::Sign('*')) { next + 1 } else { next };
        match statement.words.get(next) {
            Some(Word::Sign(',')) => at = next + 1,
            _ => return names,
        }
    }
}

/// A name with its schema or without, and what position follows it.
fn name_at(statement: &Statement, at: usize) -> Option<(Named, usize)> {
    let part = |at: usize| match statement.words.get(at)? {
        Word::Plain(name) | Word::Quoted(name) => Some(name.clone()),
        Word::Sign(_) | Word::Text => None,
    };
    let first = part(at)?;
    if statement.words.get(at + 1) == Some(&Word::Sign('.'))
        && let Some(name) = part(at + 2)
    {
        return Some((Named { schema: Some(first), name }, at + 3));
    }
    Some((Named { schema: None, name: first }, at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlmigrate::split::split;

    fn tables(sql: &str) -> Vec<String> {
        let all = affected(&split(sql).unwrap());
        let show = |named: Named| named.schema.map_or(named.name.clone(), |schema| format!("{schema}.{}", named.name));
        let names: BTreeSet<Named> = all.tables.into_iter().map(|(name, _)| name).collect();
        names.into_iter().map(show).chain(all.schemas.into_iter().map(|schema| format!("{schema}.*"))).collect()
    }

    #[test]
    fn tables_are_found_where_statements_name_them() {
        let cases: [(&str, &[&str]); 12] = [
            ("alter table if exists only S.\"My T\" add column a int", &["s.My T"]),
            ("drop table if exists a, b.c cascade", &["a", "b.c"]),
            ("truncate a, only b", &["a", "b"]),
            ("update only a set b = (select 1 from c)", &["a"]),
            ("with x as (delete from a returning *) insert into b select * from x", &["a", "b"]),
            ("insert into a values (1) on conflict (i) do update set b = 1", &["a"]),
            ("create table a (b int references c on update cascade); select * from d for update", &[]),
            ("drop schema if exists s cascade", &["s.*"]),
            ("merge into a using b on true when matched then delete", &["a"]),
            ("comment on table a is 'drop table b'", &[]),
            ("ALTER TABLE Ärzte drop column x; drop table \"Ä\", ЗАКАЗЫ", &["Ä", "Ärzte", "ЗАКАЗЫ"]),
            ("lock table only a, s.b in exclusive mode", &["a", "s.b"]),
        ];
        for (sql, wanted) in cases {
            assert_eq!(tables(sql), wanted, "{sql}");
        }
    }

    #[test]
    fn what_happens_to_a_table_is_told() {
        let cases: [(&str, &[Change]); 10] = [
            ("copy a (i) from '/file' with (format csv)", &[Change::Insert]),
            ("copy a to '/file'", &[]),
            ("copy (select 1 from a) to '/file'", &[]),
            ("insert into a values (1)", &[Change::Insert]),
            ("insert into a values (1) on conflict (i) do update set i = 2", &[Change::Update]),
            ("update a set i = 1; delete from a", &[Change::Update, Change::Delete]),
            ("merge into a using b on true when matched then delete", &[Change::Update, Change::Delete]),
            ("drop table a cascade", &[Change::Whole]),
            ("truncate a restart identity", &[Change::Whole]),
            ("truncate only a restart identity cascade", &[Change::TruncateCascade]),
        ];
        for (sql, wanted) in cases {
            let all = affected(&split(sql).unwrap());
            assert_eq!(all.tables.into_iter().map(|(_, change)| change).collect::<Vec<_>>(), wanted, "{sql}");
        }
    }
}
