//! Rows as the binary form of COPY: the fastest way into a table that was made a moment ago and holds nothing else.

use uuid::Uuid;

use super::half::half_bits;
use super::layout::{Column, ColumnKind, Layout};
use super::row::{Cell, Row};

/// From the Unix epoch to 2000-01-01, where Postgres begins to count.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The statement.
pub(super) fn statement(layout: &Layout) -> String {
    let columns: Vec<String> = (0..layout.columns.len()).map(|index| layout.quoted(index)).collect();
    format!("copy {} ({}) from stdin with (format binary)", layout.table, columns.join(", "))
}

/// What follows it: header, rows and trailer (the manual's chapter on COPY). Columns have the very types of their
/// kinds, as in a table of our own making.
pub(super) fn encode(layout: &Layout, rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + rows.iter().map(|row| row.bytes + 8 * row.cells.len()).sum::<usize>());
    out.extend(SIGNATURE);
    out.extend([0; 8]);
    for row in rows {
        out.extend((layout.columns.len() as i16).to_be_bytes());
        for (column, cell) in layout.columns.iter().zip(&row.cells) {
            field(column, cell, &mut out);
        }
    }
    out.extend((-1i16).to_be_bytes());
    out
}

/// A length and the bytes; -1 for NULL.
fn field(column: &Column, cell: &Cell, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend((-1i32).to_be_bytes());
    match (column.kind, cell) {
        (_, Cell::Null) => return,
        (ColumnKind::Uuid, Cell::Text(text)) => out.extend(Uuid::parse_str(text).unwrap_or_default().as_bytes()),
        (ColumnKind::Jsonb, Cell::Text(text)) => {
            // The version of the form.
            out.push(1);
            out.extend(text.as_bytes());
        }
        (_, Cell::Text(text)) => out.extend(text.as_bytes()),
        (ColumnKind::Timestamp, Cell::Integer(us)) => out.extend((us - POSTGRES_EPOCH_US).to_be_bytes()),
        (_, Cell::Integer(number)) => out.extend(number.to_be_bytes()),
        (_, Cell::Boolean(x)) => out.push(u8::from(*x)),
        (_, Cell::Double(x)) => out.extend(x.to_be_bytes()),
        (kind, Cell::Vector(vector)) => {
            out.extend((vector.len() as u16).to_be_bytes());
            out.extend([0; 2]);
            match kind {
                ColumnKind::Halfvec => vector.iter().for_each(|x| out.extend(half_bits(*x).to_be_bytes())),
                _ => vector.iter().for_each(|x| out.extend(x.to_be_bytes())),
            }
        }
    }
    let len = (out.len() - at - 4) as i32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::layout::Source;
    use super::*;

    #[test]
    fn golden_fields() {
        let bytes = |kind, cell: Cell| {
            let mut out = Vec::new();
            field(&Column::needed("c", kind, Source::Id), &cell, &mut out);
            out
        };
        assert_eq!(bytes(ColumnKind::Text, Cell::Null), [0xff; 4]);
        assert_eq!(bytes(ColumnKind::Text, Cell::Text("é".into())), [0, 0, 0, 2, 0xc3, 0xa9]);
        assert_eq!(bytes(ColumnKind::Jsonb, Cell::Text("{}".into())), [0, 0, 0, 3, 1, b'{', b'}']);
        assert_eq!(bytes(ColumnKind::Boolean, Cell::Boolean(true)), [0, 0, 0, 1, 1]);
        let time = bytes(ColumnKind::Timestamp, Cell::Integer(POSTGRES_EPOCH_US + 1_000));
        assert_eq!(time, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x03, 0xe8]);
        let vector = bytes(ColumnKind::Vector, Cell::Vector(vec![1.0]));
        assert_eq!(vector, [0, 0, 0, 8, 0, 1, 0, 0, 0x3f, 0x80, 0, 0]);
        let half = bytes(ColumnKind::Halfvec, Cell::Vector(vec![1.0, -2.0]));
        assert_eq!(half, [0, 0, 0, 8, 0, 2, 0, 0, 0x3c, 0, 0xc0, 0]);
    }
}
