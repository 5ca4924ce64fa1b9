//! The statements on a source: columns, pages, counts, and which keys are still there.

use super::{Begin, Deletions, Relation, Shape, TableSource};
use crate::postgres::{quote_identifier, quote_literal};

/// What every reading runs under: nothing is written, and times are written in one way.
pub(super) const BEGIN: &str =
    "begin read only; set local timezone to 'UTC'; set local datestyle to 'ISO'; set local intervalstyle to 'iso_8601'";

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

/// The names of the columns, a row each.
pub(super) fn columns(relation: &Relation) -> String {
    format!("select jsonb_object_keys(to_jsonb(x)) from {} x", no_row(relation))
}

/// The types of columns, in one row, as a JSON array.
pub(super) fn kinds(relation: &Relation, names: &[String]) -> String {
    let types: Vec<String> =
        names.iter().map(|name| format!("pg_typeof(x.{})::text", quote_identifier(name))).collect();
    format!("select array_to_json(array[{}]::text[])::text from {} x", types.join(", "), no_row(relation))
}

/// Rows: their keys as a JSON array, their cursor, their flag, their columns as JSON.
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
    let (condition, params) = condition(source, shape, begin);
    let sql = format!(
        "select json_build_array({})::text, {}::text, {flag}, \
         (select to_jsonb(f) from (select {}) f)::text \
         from {} q where {condition} order by {} limit {}",
        key_texts.join(", "),
        cursor.as_deref().unwrap_or("null"),
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

fn condition(source: &TableSource, shape: &Shape, begin: &Begin) -> (String, Vec<String>) {
    let typed = |name: &String, number: usize| {
        format!("${number}::text::{}", shape.kind(name).expect("a shape has the columns that its source names"))
    };
    let quoted = |names: &[&String]| {
        names.iter().map(|name| format!("q.{}", quote_identifier(name))).collect::<Vec<_>>().join(", ")
    };
    let after = |names: &[&String]| {
        let values: Vec<String> = names.iter().enumerate().map(|(index, name)| typed(name, index + 1)).collect();
        format!("({}) > ({})", quoted(names), values.join(", "))
    };
    let keys: Vec<&String> = source.key.iter().collect();
    let known_keys =
        keys.iter().map(|key| format!("q.{} is not null", quote_identifier(key))).collect::<Vec<_>>().join(" and ");
    let cursor = source.cursor.as_ref();
    let cursor_name = cursor.map_or("null".to_owned(), |cursor| format!("q.{}", quote_identifier(cursor)));
    let (condition, params) = match begin {
        Begin::Keys(None) => ("true".to_owned(), Vec::new()),
        Begin::Keys(Some(key)) => (after(&keys), key.clone()),
        Begin::NullCursors(None) => (format!("{cursor_name} is null"), Vec::new()),
        Begin::NullCursors(Some(key)) => (format!("{cursor_name} is null and {}", after(&keys)), key.clone()),
        Begin::From(None) => (format!("{cursor_name} is not null"), Vec::new()),
        Begin::From(Some(value)) => {
            let value_of = cursor.map_or("$1".to_owned(), |cursor| typed(cursor, 1));
            let less =
                source.overlap.as_ref().map_or(String::new(), |overlap| match cursor.and_then(|c| shape.kind(c)) {
                    Some("date" | "timestamp with time zone" | "timestamp without time zone") => {
                        format!(" - {}::interval", quote_literal(overlap))
                    }
                    _ => format!(" - {}::numeric", quote_literal(overlap)),
                });
            (format!("{cursor_name} >= {value_of}{less}"), vec![value.clone()])
        }
        Begin::After { cursor: value, key } => {
            let names: Vec<&String> = cursor.into_iter().chain(keys).collect();
            (after(&names), [vec![value.clone()], key.clone()].concat())
        }
    };
    (format!("{condition} and {known_keys}"), params)
}

/// Which of the keys in the first parameter, an array of texts, the source has.
pub(super) fn existing(source: &TableSource, key: &str, kind: &str) -> String {
    let column = format!("q.{}", quote_identifier(key));
    format!("select {column}::text from {} q where {column} = any($1::text[]::{kind}[])", from(&source.relation))
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
    fn a_query_may_end_with_a_comment_or_a_semicolon() {
        let relation = Relation::Query("select 1 as id -- one;".into());
        assert!(columns(&relation).contains("-- one\n)"), "{}", columns(&relation));
    }
}
