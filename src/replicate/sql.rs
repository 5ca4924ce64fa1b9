//! The statements on a sink's table, made of its layout; every statement is unnamed and takes arrays.

use crate::postgres::{ToSql, Type, VectorArray, quote_identifier, quote_literal};

use super::layout::{Column, ColumnKind, Layout, Mode, Source};
use super::row::{Cell, KEY_SEPARATOR};
use crate::types::Seq;

/// An array of one column's values, and its type.
pub(super) type Array = (Box<dyn ToSql + Sync + Send>, Type);

/// The cells of one column over all rows as one parameter.
pub(super) fn array_of<'a>(layout: &Layout, column: &Column, cells: impl Iterator<Item = &'a Cell>) -> Array {
    match column.kind {
        ColumnKind::Integer | ColumnKind::Timestamp => {
            let values: Vec<Option<i64>> = cells
                .map(|cell| match cell {
                    Cell::Integer(x) => Some(*x),
                    _ => None,
                })
                .collect();
            (Box::new(values), Type::INT8_ARRAY)
        }
        ColumnKind::Boolean => {
            let values: Vec<Option<bool>> = cells
                .map(|cell| match cell {
                    Cell::Boolean(x) => Some(*x),
                    _ => None,
                })
                .collect();
            (Box::new(values), Type::BOOL_ARRAY)
        }
        ColumnKind::Double => {
            let values: Vec<Option<f64>> = cells
                .map(|cell| match cell {
                    Cell::Double(x) => Some(*x),
                    _ => None,
                })
                .collect();
            (Box::new(values), Type::FLOAT8_ARRAY)
        }
        ColumnKind::Vector | ColumnKind::Halfvec => {
            let values = cells
                .map(|cell| match cell {
                    Cell::Vector(x) => Some(x.clone()),
                    _ => None,
                })
                .collect();
            (Box::new(VectorArray(values)), layout.extension.array.clone())
        }
        ColumnKind::Text | ColumnKind::Uuid | ColumnKind::Jsonb | ColumnKind::Numeric => {
            let values: Vec<Option<String>> = cells
                .map(|cell| match cell {
                    Cell::Text(x) => Some(x.clone()),
                    _ => None,
                })
                .collect();
            (Box::new(values), Type::TEXT_ARRAY)
        }
    }
}

/// The type of a column's parameter.
fn array_type(layout: &Layout, kind: ColumnKind) -> String {
    match kind {
        ColumnKind::Integer | ColumnKind::Timestamp => "int8[]".to_owned(),
        ColumnKind::Boolean => "bool[]".to_owned(),
        ColumnKind::Double => "float8[]".to_owned(),
        ColumnKind::Vector | ColumnKind::Halfvec => format!("{}[]", layout.extension.name("vector")),
        ColumnKind::Text | ColumnKind::Uuid | ColumnKind::Jsonb | ColumnKind::Numeric => "text[]".to_owned(),
    }
}

/// A value as it came, in the column's own type.
fn cast(layout: &Layout, kind: ColumnKind, value: &str) -> String {
    match kind {
        ColumnKind::Uuid => format!("{value}::uuid"),
        ColumnKind::Jsonb => format!("{value}::jsonb"),
        // Seconds apart, since intervals are multiplied by doubles, which do not tell microseconds of every year apart.
        ColumnKind::Timestamp => format!(
            "timestamptz 'epoch' + {value} / 1000000 * interval '1 second' + {value} % 1000000 * interval '1 microsecond'"
        ),
        ColumnKind::Numeric => format!("{value}::numeric"),
        ColumnKind::Halfvec => format!("{value}::{}", layout.extension.name("halfvec")),
        _ => value.to_owned(),
    }
}

fn unnest(layout: &Layout, kinds: impl Iterator<Item = ColumnKind>) -> (String, String) {
    let (mut arrays, mut names) = (Vec::new(), Vec::new());
    for (n, kind) in kinds.enumerate() {
        arrays.push(format!("${}::{}", n + 1, array_type(layout, kind)));
        names.push(format!("c{n}"));
    }
    (arrays.join(", "), names.join(", "))
}

/// Which rows a change may overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overwrites {
    /// All.
    Every,
    /// Those of older changes, and those that claim a change after this one, the newest there is: they are of another
    /// history.
    Older(Seq),
}

/// The condition on the row `t` that it may be overwritten by the change `seq`; `None` where every row may.
fn overwritable(layout: &Layout, overwrites: Overwrites, seq: &str) -> Option<String> {
    let (Some(column), Overwrites::Older(newest)) = (layout.seq, overwrites) else { return None };
    let (column, newest) = (layout.quoted(column), i64::try_from(newest.0).unwrap_or(i64::MAX));
    Some(format!("(t.{column} is null or t.{column} < {seq} or t.{column} > {newest})"))
}

/// Whether [`delete`] takes an array of seqs.
pub(super) fn is_guarded(layout: &Layout, overwrites: Overwrites) -> bool {
    overwritable(layout, overwrites, "").is_some()
}

/// Writes rows: one array a column. A row that may not be overwritten stays.
pub(super) fn upsert(layout: &Layout, overwrites: Overwrites) -> String {
    let (arrays, names) = unnest(layout, layout.columns.iter().map(|column| column.kind));
    let table = &layout.table;
    if let Mode::Inside { column, field } = &layout.mode {
        let (column, path) = (quote_identifier(column), quote_literal(&format!("{{{field}}}")));
        let key = cast(layout, layout.columns[0].kind, "u.c0");
        return format!(
            "update {table} t set {column} = jsonb_set(coalesce(t.{column}, '{{}}'::jsonb), {path}, u.c1::jsonb) \
             from unnest({arrays}) as u({names}) where t.{} = {key} and u.c1 is not null",
            layout.quoted(0)
        );
    }
    let columns: Vec<String> = (0..layout.columns.len()).map(|index| layout.quoted(index)).collect();
    let values: Vec<String> =
        layout.columns.iter().enumerate().map(|(n, c)| cast(layout, c.kind, &format!("u.c{n}"))).collect();
    let keys: Vec<String> = layout.key.iter().map(|&index| layout.quoted(index)).collect();
    let sets: Vec<String> = (0..layout.columns.len())
        .filter(|index| !layout.key.contains(index))
        .map(|index| format!("{0} = excluded.{0}", layout.quoted(index)))
        .collect();
    let new = layout.seq.map(|seq| format!("excluded.{}", layout.quoted(seq))).unwrap_or_default();
    let guard = overwritable(layout, overwrites, &new).map(|guard| format!(" where {guard}")).unwrap_or_default();
    let action = if sets.is_empty() { "nothing".to_owned() } else { format!("update set {}{guard}", sets.join(", ")) };
    format!(
        "insert into {table} as t ({}) select {} from unnest({arrays}) as u({names}) on conflict ({}) do {action}",
        columns.join(", "),
        values.join(", "),
        keys.join(", ")
    )
}

/// Deletes rows: one array a key column, and one of the seqs of the deletes where rows are guarded. A row that may not
/// be overwritten stays.
pub(super) fn delete(layout: &Layout, overwrites: Overwrites) -> String {
    let mut kinds: Vec<ColumnKind> = layout.key.iter().map(|&index| layout.columns[index].kind).collect();
    let guard = match overwritable(layout, overwrites, &format!("d.c{}", kinds.len())) {
        Some(guard) => {
            kinds.push(ColumnKind::Integer);
            format!(" and {guard}")
        }
        None => String::new(),
    };
    let (arrays, names) = unnest(layout, kinds.iter().copied());
    let matches: Vec<String> = layout
        .key
        .iter()
        .enumerate()
        .map(|(n, &index)| {
            let value = cast(layout, layout.columns[index].kind, &format!("d.c{n}"));
            format!("t.{} = {value}", layout.quoted(index))
        })
        .collect();
    let (table, condition) = (&layout.table, matches.join(" and "));
    match &layout.mode {
        Mode::Rows => format!("delete from {table} t using unnest({arrays}) as d({names}) where {condition}{guard}"),
        Mode::Inside { column, field } => {
            let (holds, column, field) = (has_field(column, field), quote_identifier(column), quote_literal(field));
            format!(
                "update {table} t set {column} = t.{column} - {field} from unnest({arrays}) as d({names}) \
                 where {condition} and {holds}"
            )
        }
    }
}

/// That a JSON column has the field. Arrays and strings have it too for `?`, where an element or the whole is its name:
/// those are somebody else's.
fn has_field(column: &str, field: &str) -> String {
    let (column, field) = (quote_identifier(column), quote_literal(field));
    format!("jsonb_typeof(t.{column}) = 'object' and t.{column} ? {field}")
}

/// The rows that are ours: `from .. where ..`, over the alias `t`. A row without a key is nobody's.
fn ours(layout: &Layout) -> String {
    let inside = match &layout.mode {
        Mode::Rows => String::new(),
        Mode::Inside { column, field } => format!(" and {}", has_field(column, field)),
    };
    let keyed: String =
        layout.key.iter().map(|&index| format!(" and t.{} is not null", layout.quoted(index))).collect();
    format!("from {} t where {}{keyed}{inside}", layout.table, layout.scope_condition())
}

/// Whether there is a row of ours.
pub(super) fn any_row(layout: &Layout) -> String {
    format!("select exists (select {})", ours(layout))
}

/// The text of a row's key.
fn key(layout: &Layout) -> String {
    let parts: Vec<String> = layout.key.iter().map(|&index| format!("t.{}::text", layout.quoted(index))).collect();
    match parts.as_slice() {
        [only] => only.clone(),
        parts => format!("concat_ws({}, {})", quote_literal(&KEY_SEPARATOR.to_string()), parts.join(", ")),
    }
}

/// The hash of a row, as `row::hash_of` computes it.
fn hash(layout: &Layout) -> String {
    let columns = layout.columns.iter().filter(|column| column.source != Source::Seq).map(|column| {
        let name = match (&layout.mode, &column.source) {
            (Mode::Inside { field, .. }, Source::Vector) => {
                format!("(t.{} -> {})", quote_identifier(&column.name), quote_literal(field))
            }
            _ => format!("t.{}", quote_identifier(&column.name)),
        };
        let text = |text: String| format!("convert_to({text}, 'UTF8')");
        let bytes = match column.kind {
            ColumnKind::Text | ColumnKind::Uuid | ColumnKind::Jsonb | ColumnKind::Boolean => {
                text(format!("{name}::text"))
            }
            ColumnKind::Integer => text(format!("{name}::int8::text")),
            ColumnKind::Double => format!("float8send({name}::float8)"),
            ColumnKind::Numeric => text(format!("trim_scale({name})::text")),
            // No number is infinity: such a row differs from every document's, and hinders no other.
            ColumnKind::Timestamp => text(format!(
                "case when isfinite({name}) then round(extract(epoch from {name}) * 1000000)::text \
                 else {name}::text end"
            )),
            ColumnKind::Vector => format!("{}({name})", layout.extension.name("vector_send")),
            ColumnKind::Halfvec => format!("{}({name})", layout.extension.name("halfvec_send")),
        };
        format!("coalesce('\\x01'::bytea || {bytes}, '\\x00'::bytea) || '\\x0000'::bytea")
    });
    let all: Vec<String> = columns.collect();
    format!("('x' || encode(substring(sha256({}) from 1 for 8), 'hex'))::bit(64)::int8", all.join(" || "))
}

/// Key, bucket and hash of our rows, and whether they claim a younger change than `newest`, which none can have: later
/// changes would pass such a row over.
fn hashed(layout: &Layout, newest: Seq) -> String {
    let newest = i64::try_from(newest.0).unwrap_or(i64::MAX);
    let ahead = layout.seq.map(|seq| format!("coalesce(t.{} > {newest}, false)", layout.quoted(seq)));
    format!(
        "(select {0} as k, \
         ('x' || encode(substring(sha256(convert_to({0}, 'UTF8')) from 1 for 2), 'hex'))::bit(12)::int4 as b, \
         {1} as h, {2} as f {3}) y",
        key(layout),
        hash(layout),
        ahead.as_deref().unwrap_or("false"),
        ours(layout)
    )
}

/// Of each bucket its number, its rows, the sum of their hashes, and how many claim a younger change than `newest`.
pub(super) fn buckets(layout: &Layout, newest: Seq) -> String {
    let counted = "count(*)::int8, sum(h)::text, (count(*) filter (where f))::int8";
    format!("select b::int4, {counted} from {} group by b", hashed(layout, newest))
}

/// Key and hash of every row in the buckets `$1`, and whether it claims a younger change than `newest`.
pub(super) fn rows_of_buckets(layout: &Layout, newest: Seq) -> String {
    format!("select k, h, f from {} where b = any($1::int4[])", hashed(layout, newest))
}

/// The keys that the table has of those in `$1`, an array of the one key column, whosever the rows are.
pub(super) fn rows_of_keys(layout: &Layout) -> String {
    let index = layout.key[0];
    let kind = layout.columns[index].kind;
    let (arrays, names) = unnest(layout, [kind].into_iter());
    let value = cast(layout, kind, "u.c0");
    format!(
        "select {} from {} t join unnest({arrays}) as u({names}) on t.{} = {value}",
        key(layout),
        layout.table,
        layout.quoted(index)
    )
}
