//! Terms: what a metadata value is in the field index, as bytes that sort as the values do.
//! Layout: `docs/formats/meta.md`.

use crate::types::{GeoPoint, Value};

/// Longest string of a declared field that is a term; a longer one is only known to be long.
pub const MAX_DECLARED_BYTES: usize = 512;
/// The same for fields that are not declared.
pub const MAX_UNDECLARED_BYTES: usize = 64;
/// Degrees of latitude and longitude that one cell spans: 1.1 km.
pub const CELL_DEGREES: f64 = 0.01;

/// The first byte of a term.
pub mod kind {
    /// The field is there.
    pub const PRESENT: u8 = 0x01;
    /// Its value is an array.
    pub const ARRAY: u8 = 0x02;
    /// The value, or an element of it, is an array or an object.
    pub const COMPOSITE: u8 = 0x03;
    /// The value, or an element of it, is a string too long to be a term.
    pub const LONG: u8 = 0x04;
    /// The value has no terms beside [`PRESENT`]: the field was given up.
    pub const OPAQUE: u8 = 0x05;
    /// null, of the value or an element of it, as all that follow.
    pub const NULL: u8 = 0x10;
    /// false.
    pub const FALSE: u8 = 0x20;
    /// true.
    pub const TRUE: u8 = 0x21;
    /// A number: 10 bytes.
    pub const NUMBER: u8 = 0x30;
    /// A string: its UTF-8.
    pub const STRING: u8 = 0x40;
    /// A point: the numbers of its cell, 2 bytes each.
    pub const CELL: u8 = 0x50;
}

/// The bytes of a term.
pub type Term = Vec<u8>;

/// Calls `add` with every term of a value. `max_string`: bytes of the longest string that is a term.
pub fn terms_of(value: &Value, max_string: usize, add: &mut impl FnMut(&[u8])) {
    add(&[kind::PRESENT]);
    match value {
        Value::Array(items) => {
            add(&[kind::ARRAY]);
            for item in items {
                element(item, max_string, add);
            }
        }
        value => element(value, max_string, add),
    }
}

fn element(value: &Value, max_string: usize, add: &mut impl FnMut(&[u8])) {
    match value {
        Value::Array(_) => add(&[kind::COMPOSITE]),
        Value::Object(_) => {
            add(&[kind::COMPOSITE]);
            if let Some(point) = GeoPoint::of(value) {
                add(&cell_term(cell_of(point)));
            }
        }
        Value::String(text) if text.len() > max_string => add(&[kind::LONG]),
        scalar => {
            if let Some(term) = scalar_term(scalar) {
                add(&term);
            }
        }
    }
}

/// The term of a scalar: equal values have equal terms, and greater numbers and strings greater ones. `None` for
/// arrays, objects and NaN.
pub fn scalar_term(value: &Value) -> Option<Term> {
    Some(match value {
        Value::Null => vec![kind::NULL],
        Value::Bool(false) => vec![kind::FALSE],
        Value::Bool(true) => vec![kind::TRUE],
        Value::Int(x) => number_term(int_parts(*x)),
        Value::Float(x) if !x.is_nan() => number_term((*x, 0)),
        Value::String(text) => string_term(text),
        Value::Float(_) | Value::Array(_) | Value::Object(_) => return None,
    })
}

/// The term of a string, or the beginning of the terms of all strings that start so.
pub fn string_term(text: &str) -> Term {
    let mut term = Vec::with_capacity(1 + text.len());
    term.push(kind::STRING);
    term.extend(text.as_bytes());
    term
}

/// An integer as the greatest f64 that is not above it, and what is left: f64 alone would round beyond 2^53.
fn int_parts(int: i64) -> (f64, u16) {
    let nearest = int as f64;
    let floor = if nearest as i128 > i128::from(int) { nearest.next_down() } else { nearest };
    // Neighbouring f64 below 2^63 are at most 1,024 apart.
    (floor, (i128::from(int) - floor as i128) as u16)
}

fn number_term((floor, rest): (f64, u16)) -> Term {
    // 0.0 and -0.0 are equal.
    let bits = (floor + 0.0).to_bits();
    let sortable = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    let mut term = Vec::with_capacity(11);
    term.push(kind::NUMBER);
    term.extend(sortable.to_be_bytes());
    term.extend(rest.to_be_bytes());
    term
}

/// A cell of the grid: row from the south pole, column from the date line.
pub type Cell = (u16, u16);

/// The cell that a point lies in.
pub fn cell_of(point: GeoPoint) -> Cell {
    let at = |degrees: f64, span: f64| ((degrees / CELL_DEGREES) as u16).min((span / CELL_DEGREES) as u16 - 1);
    (at(point.lat() + 90.0, 180.0), at(point.lon() + 180.0, 360.0))
}

/// The term of a cell.
pub fn cell_term((row, column): Cell) -> Term {
    let mut term = vec![kind::CELL];
    term.extend(row.to_be_bytes());
    term.extend(column.to_be_bytes());
    term
}

/// The cell of a term.
pub fn decode_cell(term: &[u8]) -> Option<Cell> {
    match *term {
        [kind::CELL, a, b, c, d] => Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_they_compare() {
        let big = 1i64 << 53;
        let ascending = [
            Value::Float(f64::NEG_INFINITY),
            Value::Int(i64::MIN),
            Value::Int(i64::MIN + 1),
            Value::Int(-big - 1),
            Value::Int(-big),
            Value::Float(-1.5),
            Value::Int(-1),
            Value::Float(-1e-300),
            Value::Int(0),
            Value::Float(f64::MIN_POSITIVE),
            Value::Float(0.5),
            Value::Int(1),
            Value::Int(big),
            Value::Int(big + 1),
            Value::Float((big + 2) as f64),
            Value::Int(i64::MAX - 1),
            Value::Int(i64::MAX),
            Value::Float(9_223_372_036_854_775_808.0),
            Value::Float(f64::INFINITY),
        ];
        let terms: Vec<_> = ascending.iter().map(|value| scalar_term(value).unwrap()).collect();
        assert!(terms.windows(2).all(|pair| pair[0] < pair[1]), "{terms:?}");
        assert!(terms.iter().all(|term| term.len() == 11));
    }

    #[test]
    fn equal_values_have_one_term() {
        let same = [
            (Value::Int(1), Value::Float(1.0)),
            (Value::Float(0.0), Value::Float(-0.0)),
            (Value::Int(-(1 << 53)), Value::Float(-((1i64 << 53) as f64))),
        ];
        for (a, b) in same {
            assert_eq!(scalar_term(&a), scalar_term(&b), "{a:?} {b:?}");
        }
        assert_ne!(scalar_term(&Value::String("1".into())), scalar_term(&Value::Int(1)));
        assert_eq!(scalar_term(&Value::Float(f64::NAN)), None);
    }

    #[test]
    fn terms_have_these_bytes() {
        assert_eq!(scalar_term(&Value::Float(1.0)).unwrap(), [0x30, 0xbf, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            scalar_term(&Value::Int((1 << 53) + 1)).unwrap(),
            [0x30, 0xc3, 0x40, 0, 0, 0, 0, 0, 0, 0, 1],
            "2^53 and 1"
        );
        assert_eq!(string_term("é"), [0x40, 0xc3, 0xa9]);
        let point = GeoPoint::new(59.913, 10.752).unwrap();
        assert_eq!(cell_term(cell_of(point)), [0x50, 0x3a, 0x8f, 0x4a, 0x83]);
        assert_eq!(decode_cell(&cell_term((1, 2))), Some((1, 2)));
        assert_eq!(cell_of(GeoPoint::new(90.0, 180.0).unwrap()), (17_999, 35_999));
        assert_eq!(cell_of(GeoPoint::new(-90.0, -180.0).unwrap()), (0, 0));
    }

    #[test]
    fn a_value_has_the_terms_of_its_elements_and_of_its_form() {
        let terms = |value: &Value| {
            let mut found = Vec::new();
            terms_of(value, 3, &mut |term| found.push(term[0]));
            found
        };
        let text = |text: &str| Value::String(text.into());
        assert_eq!(terms(&text("abc")), [kind::PRESENT, kind::STRING]);
        assert_eq!(terms(&text("abcd")), [kind::PRESENT, kind::LONG]);
        let array = Value::Array(vec![Value::Null, Value::Array(vec![]), text("a")]);
        assert_eq!(terms(&array), [kind::PRESENT, kind::ARRAY, kind::NULL, kind::COMPOSITE, kind::STRING]);
        let point = Value::Object([("lat".to_owned(), Value::Int(1)), ("lon".to_owned(), Value::Int(1))].into());
        assert_eq!(terms(&point), [kind::PRESENT, kind::COMPOSITE, kind::CELL]);
    }
}
