//! A document as the cells of a row, and the hash of a row as both sides compute it.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::half::half_bits;
use super::layout::{Column, ColumnKind, Layout, Mode, Source};
use crate::postgres::jsonb::{self, plain_number};
use crate::types::{Document, DocumentId, Seq, Value, lookup};

/// Between the columns of a composite key.
pub(super) const KEY_SEPARATOR: char = '\u{1f}';
/// Rows are told apart into so many buckets by the hash of their key.
pub(super) const BUCKETS: usize = 4_096;

/// A value of a row, as it travels.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    /// Texts, UUIDs, JSON, and numbers with all their digits.
    Text(String),
    /// Integers, and times in microseconds since the Unix epoch.
    Integer(i64),
    Boolean(bool),
    Double(f64),
    Vector(Vec<f32>),
}

/// A document as a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) id: DocumentId,
    pub(super) seq: Seq,
    pub(super) cells: Vec<Cell>,
    /// Bytes that it takes, about.
    pub(super) bytes: usize,
}

/// A document that no row can hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Poison {
    pub(super) id: DocumentId,
    pub(super) seq: Seq,
    /// A SQLSTATE, or `local` where nothing was sent.
    pub(super) code: String,
    pub(super) reason: String,
}

/// The row of a document.
///
/// # Errors
/// [`Poison`] with the reason why there can be none.
pub(super) fn row_of(layout: &Layout, document: &Document) -> Result<Row, Poison> {
    let (id, seq) = (&document.stored.id, document.seq);
    let poison = |reason: String| Poison { id: id.clone(), seq, code: "local".to_owned(), reason };
    let mut cells = Vec::with_capacity(layout.columns.len());
    let mut bytes = 0;
    for column in &layout.columns {
        let cell = cell_of(layout, column, document).map_err(&poison)?;
        if cell == Cell::Null && column.not_null {
            return Err(poison(format!("column {} must have a value", column.name)));
        }
        bytes += match &cell {
            Cell::Text(text) => text.len() + 8,
            Cell::Vector(vector) => 4 * vector.len() + 8,
            _ => 12,
        };
        cells.push(cell);
    }
    Ok(Row { id: id.clone(), seq, cells, bytes })
}

fn cell_of(layout: &Layout, column: &Column, document: &Document) -> Result<Cell, String> {
    let stored = &document.stored;
    let text = |text: &str| match text.contains('\0') {
        true => Err(format!("column {}: the text holds U+0000, which Postgres cannot store", column.name)),
        false => Ok(Cell::Text(text.to_owned())),
    };
    match &column.source {
        Source::Id => id_cell(layout, column, &stored.id),
        Source::Text => stored.text.as_deref().map_or(Ok(Cell::Null), text),
        Source::Vector if document.vector.is_empty() => Ok(Cell::Null),
        Source::Vector => match layout.mode {
            Mode::Rows => Ok(Cell::Vector(document.vector.clone())),
            Mode::Inside { .. } => Ok(Cell::Text(vector_json(&document.vector))),
        },
        Source::Metadata if stored.metadata.iter().any(|(k, v)| k.contains('\0') || jsonb::holds_nul(v)) => {
            Err(format!("column {}: the metadata hold U+0000, which Postgres cannot store", column.name))
        }
        Source::Metadata => Ok(Cell::Text(jsonb::object(&stored.metadata, plain_number))),
        Source::Field { path, default } => match (lookup(&stored.metadata, path), default) {
            (None | Some(Value::Null), Some(default)) => parse(column, default),
            (None | Some(Value::Null), None) => Ok(Cell::Null),
            (Some(value), _) => field_cell(column, value),
        },
        Source::Constant(None) => Ok(Cell::Null),
        Source::Constant(Some(constant)) => parse(column, constant),
        Source::CreatedAt => Ok(Cell::Integer(stored.created_at_ms.saturating_mul(1_000))),
        Source::UpdatedAt => Ok(Cell::Integer(stored.updated_at_ms.saturating_mul(1_000))),
        Source::Seq => Ok(Cell::Integer(document.seq.0 as i64)),
    }
}

/// The id in the type of its column.
fn id_cell(layout: &Layout, column: &Column, id: &DocumentId) -> Result<Cell, String> {
    match column.kind {
        ColumnKind::Integer => match id.as_str().parse::<i64>() {
            // Two documents would be one row.
            Ok(number) if number.to_string() != id.as_str() => {
                Err(format!("column {} is a number, and the id is another spelling of {number}", column.name))
            }
            Ok(number) => Ok(Cell::Integer(number)),
            Err(_) => Err(format!("column {} is a number, and the id is none", column.name)),
        },
        ColumnKind::Uuid => Ok(Cell::Text(uuid_of(&layout.collection, id).to_string())),
        _ => Ok(Cell::Text(id.as_str().to_owned())),
    }
}

/// The id where it is a UUID in its usual spelling; else one made of the collection and the id (RFC 9562, version 5).
fn uuid_of(collection: &str, id: &DocumentId) -> Uuid {
    match Uuid::parse_str(id.as_str()) {
        Ok(uuid) if uuid.to_string() == id.as_str() => uuid,
        _ => Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("pannier:{collection}/{id}").as_bytes()),
    }
}

fn field_cell(column: &Column, value: &Value) -> Result<Cell, String> {
    if jsonb::holds_nul(value) {
        return Err(format!("column {}: the field holds U+0000, which Postgres cannot store", column.name));
    }
    match (column.kind, value) {
        (ColumnKind::Jsonb, value) => Ok(Cell::Text(jsonb::value(value, plain_number))),
        (ColumnKind::Boolean, Value::Bool(x)) => Ok(Cell::Boolean(*x)),
        (ColumnKind::Integer, Value::Int(x)) => Ok(Cell::Integer(*x)),
        (ColumnKind::Double, Value::Int(x)) if *x as f64 as i128 != i128::from(*x) => {
            Err(format!("column {} is double precision, which has no {x}; bigint and numeric have", column.name))
        }
        (ColumnKind::Double, Value::Int(x)) => Ok(Cell::Double(*x as f64)),
        (ColumnKind::Double, Value::Float(x)) => Ok(Cell::Double(*x)),
        (ColumnKind::Numeric, Value::Int(x)) => Ok(Cell::Text(x.to_string())),
        (ColumnKind::Numeric, Value::Float(x)) => Ok(Cell::Text(plain_number(*x))),
        (_, Value::String(text)) => parse(column, text),
        (ColumnKind::Text, other) => Ok(Cell::Text(jsonb::value(other, plain_number))),
        (kind, other) => Err(format!("column {} is {}, and the field is {}", column.name, kind.name(), other.kind())),
    }
}

/// Why a column cannot hold its constant.
pub(super) fn unfit_constant(column: &Column) -> Option<String> {
    match &column.source {
        Source::Constant(Some(constant)) => parse(column, constant)
            .err()
            .map(|_| format!("column {} is {}, which {constant:?} is not", column.name, column.kind.name())),
        _ => None,
    }
}

/// A text in the type of its column.
fn parse(column: &Column, text: &str) -> Result<Cell, String> {
    let cell = match column.kind {
        ColumnKind::Text => Some(Cell::Text(text.to_owned())),
        ColumnKind::Uuid => Uuid::parse_str(text).ok().map(|uuid| Cell::Text(uuid.to_string())),
        ColumnKind::Integer => text.parse().ok().map(Cell::Integer),
        ColumnKind::Boolean => text.parse().ok().map(Cell::Boolean),
        ColumnKind::Double => text.parse().ok().filter(|x: &f64| x.is_finite()).map(Cell::Double),
        ColumnKind::Numeric => decimal(text).map(Cell::Text),
        ColumnKind::Timestamp => text.parse().ok().map(|at: jiff::Timestamp| Cell::Integer(at.as_microsecond())),
        ColumnKind::Jsonb => Some(Cell::Text(jsonb::value(&Value::String(text.to_owned()), plain_number))),
        ColumnKind::Vector | ColumnKind::Halfvec => None,
    };
    cell.ok_or_else(|| format!("column {} is {}, and the text cannot be read as one", column.name, column.kind.name()))
}

/// A number with all digits that a text gives it, as `trim_scale` leaves them; one with an exponent as a double.
fn decimal(text: &str) -> Option<String> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_plain = [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_plain || whole.len() + fraction.len() == 0 {
        return text.parse().ok().filter(|x: &f64| x.is_finite()).map(plain_number);
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let number = match (whole, fraction) {
        ("", "") => return Some("0".to_owned()),
        (whole, "") => whole.to_owned(),
        ("", fraction) => format!("0.{fraction}"),
        (whole, fraction) => format!("{whole}.{fraction}"),
    };
    Some(if is_negative { format!("-{number}") } else { number })
}

/// The numbers of a vector as `jsonb` prints them.
fn vector_json(vector: &[f32]) -> String {
    let number = |x: &f32| if *x == 0.0 { "0".to_owned() } else { x.to_string() };
    format!("[{}]", vector.iter().map(number).collect::<Vec<_>>().join(", "))
}

/// The text of a row's key, as `concat_ws` makes it of the key's columns.
pub(super) fn key_text(layout: &Layout, cells: &[Cell]) -> String {
    key_text_of(layout.key.iter().map(|&index| &cells[index]))
}

/// The same of the key's cells alone.
pub(super) fn key_text_of<'a>(cells: impl Iterator<Item = &'a Cell>) -> String {
    let part = |cell: &Cell| match cell {
        Cell::Text(text) => text.clone(),
        Cell::Integer(number) => number.to_string(),
        Cell::Boolean(_) | Cell::Double(_) | Cell::Vector(_) | Cell::Null => String::new(),
    };
    cells.map(part).collect::<Vec<_>>().join(&KEY_SEPARATOR.to_string())
}

/// The key of a document, whether or not it can have a row.
pub(super) fn key_of(layout: &Layout, id: &DocumentId) -> Result<Vec<Cell>, String> {
    let cell = |&index: &usize| {
        let column = &layout.columns[index];
        match &column.source {
            Source::Id => id_cell(layout, column, id),
            Source::Constant(Some(constant)) => parse(column, constant),
            _ => Err(format!("column {} cannot be a key", column.name)),
        }
    };
    layout.key.iter().map(cell).collect()
}

/// The bucket of a key: the first 12 bits of its SHA-256.
pub(super) fn bucket_of(key: &str) -> usize {
    let hash = Sha256::digest(key.as_bytes());
    (usize::from(hash[0]) << 4) | (usize::from(hash[1]) >> 4)
}

/// The hash of a row: the first 8 bytes of the SHA-256 of its hashed columns, each as 1 and its bytes, or 0 for NULL,
/// followed by two zeros. `sql.rs` writes the same down for Postgres.
pub(super) fn hash_of(layout: &Layout, cells: &[Cell]) -> i64 {
    let mut hash = Sha256::new();
    for (column, cell) in layout.columns.iter().zip(cells) {
        if column.source == Source::Seq {
            continue;
        }
        match cell {
            Cell::Null => hash.update([0]),
            cell => {
                hash.update([1]);
                update(&mut hash, column.kind, cell);
            }
        }
        hash.update([0, 0]);
    }
    let bytes = hash.finalize();
    i64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

fn update(hash: &mut Sha256, kind: ColumnKind, cell: &Cell) {
    match cell {
        Cell::Null => {}
        Cell::Text(text) => hash.update(text.as_bytes()),
        Cell::Integer(number) => hash.update(number.to_string().as_bytes()),
        Cell::Boolean(x) => hash.update(if *x { b"true".as_slice() } else { b"false" }),
        Cell::Double(x) => hash.update(x.to_be_bytes()),
        Cell::Vector(vector) => {
            hash.update((vector.len() as u16).to_be_bytes());
            hash.update([0, 0]);
            match kind {
                ColumnKind::Halfvec => vector.iter().for_each(|x| hash.update(half_bits(*x).to_be_bytes())),
                _ => vector.iter().for_each(|x| hash.update(x.to_be_bytes())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_digits_and_lose_zeros() {
        for (text, wanted) in [
            ("0012.3400", Some("12.34")),
            ("+.50", Some("0.5")),
            ("-0.0", Some("0")),
            ("-7.", Some("-7")),
            ("9007199254740993", Some("9007199254740993")),
            ("0.30000000000000000004", Some("0.30000000000000000004")),
            ("1e3", Some("1000")),
            ("-2.5E-3", Some("-0.0025")),
            ("1e400", None),
            ("", None),
            ("-", None),
            (".", None),
            ("NaN", None),
            ("--1", None),
        ] {
            assert_eq!(decimal(text).as_deref(), wanted, "{text}");
        }
    }
}
