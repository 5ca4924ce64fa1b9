//! The statements on a source: columns, pages, counts, and which keys are still there.

use std::time::Duration;

use super::{Begin, Deletions, Relation, Shape, TableSource};
use crate::postgres::{quote_identifier, quote_literal};

/// What every reading runs under: nothing is written, times are written in one way, and numbers with all their digits.
/// The server gives up before we do at `limit`, or when the role's own limit says so, and nothing of ours is left
/// running there.
pub(super) fn begin(limit: Duration) -> String {
    let server = limit.as_millis() * 11 / 12;
    format!(
        "begin read only; set local timezone to 'UTC'; set local datestyle to 'ISO'; \
         set local intervalstyle to 'iso_8601'; set local extra_float_digits to 1; \
         select set_config('statement_timeout', '{server}ms', true) \
         where current_setting('statement_timeout')::interval not between '1 ms' and '{server} ms'"
    )
}

/// A statement and its parameters, all of them texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub sql: String,
    pub params: Vec<String>,
}

/// The table or query as what stands after FROM.
fn from(relation: &Relation) -> String {
    match relation {
        Relation::Table(name) => name.to_string(),
        Relation::Query(query) => format!("({}\n)", query.trim().trim_end_matches(';')),
    }
}

/// One row of nulls with the columns of the source, whether it has rows or none.
fn no_row(relation: &Relation) -> String {
    format!("(select q.* from (select 1) d left join (select * from {} s limit 0) q on true)", from(relation))
}

/// The names of the columns, a row each. `x.*` is the row also where a column is named `x`.
pub(super) fn columns(relation: &Relation) -> String {
    format!("select jsonb_object_keys(to_jsonb(x.*)) from {} x", no_row(relation))
}

/// The types of columns, in one row, as a JSON array; of a domain the type that it is over, as what is asked of values
/// goes by that.
pub(super) fn kinds(relation: &Relation, names: &[String]) -> String {
    let kind = |name: &String| {
        format!(
            "(with recursive d as (select t.oid, t.typtype, t.typbasetype from pg_catalog.pg_type t \
             where t.oid = pg_typeof(x.{}) union all select t.oid, t.typtype, t.typbasetype from d \
             join pg_catalog.pg_type t on t.oid = d.typbasetype where d.typtype = 'd') \
             select d.oid::regtype::text from d where d.typtype <> 'd')",
            quote_identifier(name)
        )
    };
    let types: Vec<String> = names.iter().map(kind).collect();
    format!("select array_to_json(array[{}]::text[])::text from {} x", types.join(", "), no_row(relation))
}

/// A type as a cast takes it: `character` and `bit` alone would cut to a length of one.
fn cast(kind: &str) -> String {
    let (base, array) = kind.strip_suffix("[]").map_or((kind, ""), |base| (base, "[]"));
    let base = match base {
        "character" => "bpchar",
        "bit" => "varbit",
        other => other,
    };
    format!("{base}{array}")
}

/// What is true where a cursor stands after all others for good: infinite times, and numbers that are none. `None`
/// where the type has no such values.
fn is_endless(source: &TableSource, shape: &Shape) -> Option<String> {
    let name = source.cursor.as_ref()?;
    let ends = match shape.kind(name)? {
        "date" | "timestamp with time zone" | "timestamp without time zone" | "interval" => "'infinity'",
        "real" | "double precision" | "numeric" => "'Infinity', 'NaN'",
        _ => return None,
    };
    Some(format!("q.{}::text in ({ends})", quote_identifier(name)))
}

/// Rows: their keys as a JSON array, their cursor, their flag, their columns as JSON. Not as `jsonb`, which fails the
/// statement for one `json` value that it cannot hold.
pub(super) fn page(source: &TableSource, shape: &Shape, begin: &Begin) -> Statement {
    let column = |name: &String| format!("q.{}", quote_identifier(name));
    let keys: Vec<String> = source.key.iter().map(column).collect();
    let key_texts: Vec<String> = keys.iter().map(|key| format!("{key}::text")).collect();
    let cursor = source.cursor.as_ref().map(column);
    let flag = match &source.deletions {
        Deletions::Flag(flag) if shape.kind(flag) == Some("boolean") => format!("coalesce({}, false)", column(flag)),
        Deletions::Flag(flag) => format!("{} is not null", column(flag)),
        Deletions::Ignored | Deletions::Missing => "false".to_owned(),
    };
    let fields: Vec<String> = shape.fields().iter().map(column).collect();
    let order: Vec<&str> = match begin {
        Begin::Keys(_) | Begin::NullCursors(_) => keys.iter().map(String::as_str).collect(),
        Begin::From(_) | Begin::After { .. } => cursor.iter().chain(&keys).map(String::as_str).collect(),
    };
    let cursor_text = match (&cursor, is_endless(source, shape)) {
        (Some(cursor), Some(endless)) => format!("case when {endless} then null else {cursor}::text end"),
        (Some(cursor), None) => format!("{cursor}::text"),
        (None, _) => "null::text".to_owned(),
    };
    let (condition, params) = condition(source, shape, begin);
    let sql = format!(
        "select json_build_array({})::text, {cursor_text}, {flag}, \
         (select row_to_json(f.*) from (select {}) f)::text \
         from {} q where {condition} order by {} limit {}",
        key_texts.join(", "),
        fields.join(", "),
        from(&source.relation),
        order.join(", "),
        source.page_rows
    );
    Statement { sql, params }
}

/// How many rows there are from `begin` on.
pub(super) fn count(source: &TableSource, shape: &Shape, begin: &Begin) -> Statement {
    let (condition, params) = condition(source, shape, begin);
    Statement { sql: format!("select count(*) from {} q where {condition}", from(&source.relation)), params }
}

/// How many rows from `begin` on have no key, and how many have the key of another.
pub(super) fn left_out(source: &TableSource, shape: &Shape, begin: &Begin) -> Statement {
    let (condition, params) = begun(source, shape, begin);
    let keys: Vec<String> = source.key.iter().map(|key| format!("q.{}", quote_identifier(key))).collect();
    let sql = format!(
        "select coalesce(sum(r.n) filter (where not r.known), 0)::int8, \
         coalesce(sum(r.n - 1) filter (where r.known), 0)::int8 \
         from (select count(*) as n, bool_and({}) as known from {} q where {condition} group by {}) r",
        known_keys(source),
        from(&source.relation),
        keys.join(", ")
    );
    Statement { sql, params }
}

/// Whether the key of a table is unique and never null by what its definition says; `None` for a query. Rows of tables
/// that inherit from it are in no index of it.
pub(super) fn tells_rows_apart(source: &TableSource) -> Option<String> {
    let Relation::Table(name) = &source.relation else { return None };
    let table = format!("to_regclass({})", quote_literal(&name.to_string()));
    let keys = source.key.iter().map(|key| quote_literal(key)).collect::<Vec<_>>().join(", ");
    Some(format!(
        "select (exists (select from pg_catalog.pg_index i where i.indrelid = {table} and i.indisunique \
         and i.indisvalid and i.indpred is null and i.indexprs is null \
         and (select array_agg(a.attname::text) from pg_catalog.pg_attribute a \
         where a.attrelid = i.indrelid and a.attnum = any(i.indkey)) <@ array[{keys}]::text[]) \
         and (select bool_and(a.attnotnull) from pg_catalog.pg_attribute a \
         where a.attrelid = {table} and a.attname::text = any(array[{keys}]::text[])) \
         and not exists (select from pg_catalog.pg_inherits h join pg_catalog.pg_class c on c.oid = h.inhparent \
         where h.inhparent = {table} and c.relkind = 'r'))::text"
    ))
}

/// That no column of the key is null.
fn known_keys(source: &TableSource) -> String {
    let known = source.key.iter().map(|key| format!("q.{} is not null", quote_identifier(key)));
    known.collect::<Vec<_>>().join(" and ")
}

/// Which rows are read from `begin` on.
fn condition(source: &TableSource, shape: &Shape, begin: &Begin) -> (String, Vec<String>) {
    let (condition, params) = begun(source, shape, begin);
    (format!("{condition} and {}", known_keys(source)), params)
}

/// Which rows come from `begin` on, also those without a key.
fn begun(source: &TableSource, shape: &Shape, begin: &Begin) -> (String, Vec<String>) {
    let typed = |name: &String, number: usize| {
        let kind = shape.kind(name).expect("a shape has the columns that its source names");
        format!("${number}::text::{}", cast(kind))
    };
    let quoted = |names: &[&String]| {
        names.iter().map(|name| format!("q.{}", quote_identifier(name))).collect::<Vec<_>>().join(", ")
    };
    let after = |names: &[&String]| {
        let values: Vec<String> = names.iter().enumerate().map(|(index, name)| typed(name, index + 1)).collect();
        format!("({}) > ({})", quoted(names), values.join(", "))
    };
    let keys: Vec<&String> = source.key.iter().collect();
    let cursor = source.cursor.as_ref();
    let cursor_name = cursor.map_or("null".to_owned(), |cursor| format!("q.{}", quote_identifier(cursor)));
    // Rows whose cursor stands after all others for good count as rows without one.
    let (no_cursor, has_cursor) = match is_endless(source, shape) {
        Some(endless) => {
            (format!("({cursor_name} is null or {endless})"), format!("{cursor_name} is not null and not {endless}"))
        }
        None => (format!("{cursor_name} is null"), format!("{cursor_name} is not null")),
    };
    match begin {
        Begin::Keys(None) => ("true".to_owned(), Vec::new()),
        Begin::Keys(Some(key)) => (after(&keys), key.clone()),
        Begin::NullCursors(None) => (no_cursor, Vec::new()),
        Begin::NullCursors(Some(key)) => (format!("{no_cursor} and {}", after(&keys)), key.clone()),
        Begin::From(None) => (has_cursor, Vec::new()),
        Begin::From(Some(value)) => {
            let value_of = cursor.map_or("$1".to_owned(), |cursor| typed(cursor, 1));
            let less = source.overlap.as_ref().map_or(String::new(), |overlap| match is_time(source, shape) {
                true => format!(" - {}::interval", quote_literal(overlap)),
                false => format!(" - {}::numeric", quote_literal(overlap)),
            });
            (format!("{cursor_name} >= {value_of}{less} and {has_cursor}"), vec![value.clone()])
        }
        Begin::After { cursor: value, key } => {
            let names: Vec<&String> = cursor.into_iter().chain(keys).collect();
            (format!("{} and {has_cursor}", after(&names)), [vec![value.clone()], key.clone()].concat())
        }
    }
}

/// Whether the cursor is a time.
pub(super) fn is_time(source: &TableSource, shape: &Shape) -> bool {
    let kind = source.cursor.as_ref().and_then(|cursor| shape.kind(cursor));
    matches!(kind, Some("date" | "timestamp with time zone" | "timestamp without time zone"))
}

/// Which of the keys in the first parameter, an array of texts, the source has.
pub(super) fn existing(source: &TableSource, key: &str, kind: &str) -> String {
    let column = format!("q.{}", quote_identifier(key));
    format!(
        "select {column}::text from {} q where {column} = any($1::text[]::{}[])",
        from(&source.relation),
        cast(kind)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::QualifiedName;

    fn source() -> (TableSource, Shape) {
        let source = TableSource {
            relation: Relation::Table(QualifiedName::new("public", "t")),
            key: vec!["id".into()],
            cursor: Some("at".into()),
            overlap: Some("1 min".into()),
            deletions: Deletions::Flag("gone".into()),
            columns: None,
            exclude: vec![],
            page_rows: 10,
        };
        let columns = [("id", "bigint"), ("at", "timestamp with time zone"), ("gone", "boolean")];
        let shape = Shape::new(&source, columns.map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec());
        (source, shape.unwrap())
    }

    #[test]
    fn ties_at_the_cursor_are_told_apart_by_the_key() {
        let (source, shape) = source();
        let begin = Begin::After { cursor: "2024-01-01 00:00:00+00".into(), key: vec!["7".into()] };
        let Statement { sql, params } = page(&source, &shape, &begin);
        let wanted = "(q.\"at\", q.\"id\") > ($1::text::timestamp with time zone, $2::text::bigint)";
        assert!(sql.contains(wanted) && sql.contains("order by q.\"at\", q.\"id\" limit 10"), "{sql}");
        assert_eq!(params, ["2024-01-01 00:00:00+00", "7"]);
        let again = page(&source, &shape, &Begin::From(Some("x".into()))).sql;
        assert!(again.contains("q.\"at\" >= $1::text::timestamp with time zone - '1 min'::interval"), "{again}");
    }

    #[test]
    fn a_key_of_a_fixed_length_is_compared_whole() {
        for (kind, wanted) in
            [("character", "bpchar"), ("bit[]", "varbit[]"), ("character varying", "character varying")]
        {
            assert_eq!(cast(kind), wanted);
        }
    }

    #[test]
    fn a_column_named_as_an_alias_is_no_row() {
        let (source, shape) = source();
        let sql = page(&source, &shape, &Begin::From(None)).sql;
        assert!(sql.contains("row_to_json(f.*)") && columns(&source.relation).contains("to_jsonb(x.*)"), "{sql}");
    }

    #[test]
    fn a_cursor_never_moves_to_a_time_after_all_others() {
        let (source, shape) = source();
        let endless = "q.\"at\"::text in ('infinity')";
        let wanted = |begin: &Begin| page(&source, &shape, begin).sql;
        let late = wanted(&Begin::From(Some("x".into())));
        assert!(late.contains(&format!("and q.\"at\" is not null and not {endless}")), "{late}");
        assert!(late.contains(&format!("case when {endless} then null")), "{late}");
        let none = wanted(&Begin::NullCursors(None));
        assert!(none.contains(&format!("(q.\"at\" is null or {endless})")), "{none}");
        let plain = TableSource { cursor: Some("id".into()), overlap: None, ..source };
        assert!(!page(&plain, &shape, &Begin::From(None)).sql.contains(" in ("));
    }

    #[test]
    fn a_query_may_end_with_a_comment_or_a_semicolon() {
        let relation = Relation::Query("select 1 as id -- one;".into());
        assert!(columns(&relation).contains("-- one\n)"), "{}", columns(&relation));
    }
}
