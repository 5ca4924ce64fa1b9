//! What a condition asks of the terms of a field.

use super::term::{CELL_DEGREES, Cell, MAX_UNDECLARED_BYTES, Term, cell_of, cell_term, kind, scalar_term, string_term};
use crate::types::{Condition, EARTH_RADIUS_METERS, GeoPoint, Value};

/// Rounding of the distances that cells are judged by, in metres.
const SLACK_METERS: f64 = 1.0;

/// Terms of which a row needs one to pass, and what leaves a row open.
#[derive(Debug, Default, PartialEq)]
pub struct Ask {
    /// A row with one of these passes.
    pub terms: Vec<Term>,
    /// A row with a term in it passes.
    pub span: Option<Span>,
    /// A row with a term of one of these kinds may pass.
    pub open: Vec<u8>,
    /// Only rows whose value is an array pass.
    pub arrays_only: bool,
    /// The answer is the opposite.
    pub negated: bool,
    /// No document that has the field can pass, whatever its value: not even fields that were given up leave doubt.
    pub never: bool,
}

/// Terms next to each other.
#[derive(Debug, PartialEq)]
pub enum Span {
    /// From one term, or from behind it, for as long as they are of its kind and not beyond the other.
    Range { from: Term, after: bool, to: Option<(Term, bool)> },
    /// Those that begin so.
    Prefix(Term),
    /// Strings with this part; in an array only equal ones count.
    Part(String),
    /// Cells near a point.
    Circle(Circle),
}

/// All points at most so far from the centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Circle {
    pub center: GeoPoint,
    pub meters: f64,
}

/// How a cell lies to a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    Outside,
    Partly,
    Inside,
}

impl Ask {
    /// What a condition asks.
    pub fn of(condition: &Condition) -> Self {
        match condition {
            Condition::Exists(wanted) => {
                Self { terms: vec![vec![kind::PRESENT]], negated: !wanted, never: true, ..Self::default() }
            }
            Condition::Eq(value) => Self::one_of(std::slice::from_ref(value)),
            Condition::Ne(value) => Self { negated: true, ..Self::one_of(std::slice::from_ref(value)) },
            Condition::In(values) => Self::one_of(values),
            Condition::Nin(values) => Self { negated: true, ..Self::one_of(values) },
            Condition::Gt(bound) => Self::range(bound, |term| Self::above(term, true)),
            Condition::Gte(bound) => Self::range(bound, |term| Self::above(term, false)),
            Condition::Lt(bound) => Self::range(bound, |term| Self::below(term, false)),
            Condition::Lte(bound) => Self::range(bound, |term| Self::below(term, true)),
            Condition::Prefix(start) => {
                Self { span: Some(Span::Prefix(string_term(start))), open: vec![kind::LONG], ..Self::default() }
            }
            Condition::Contains(Value::String(part)) => {
                Self { span: Some(Span::Part(part.clone())), open: vec![kind::LONG], ..Self::default() }
            }
            Condition::Contains(value) => {
                let open = match value {
                    Value::Array(_) | Value::Object(_) => vec![kind::COMPOSITE],
                    _ => Vec::new(),
                };
                Self { terms: scalar_term(value).into_iter().collect(), open, arrays_only: true, ..Self::default() }
            }
            Condition::GeoRadius { center, meters } => {
                let circle = Circle { center: *center, meters: *meters };
                Self { span: Some(Span::Circle(circle)), ..Self::default() }
            }
        }
    }

    fn one_of(values: &[Value]) -> Self {
        let mut ask = Self::default();
        for value in values {
            match value {
                // Equal as a whole; or an element is, and then it is composite, and the field an array.
                Value::Array(_) => ask.open.push(kind::ARRAY),
                Value::Object(_) => ask.open.push(kind::COMPOSITE),
                Value::String(text) if text.len() > MAX_UNDECLARED_BYTES => {
                    ask.open.push(kind::LONG);
                    ask.terms.extend(scalar_term(value));
                }
                scalar => ask.terms.extend(scalar_term(scalar)),
            }
        }
        ask.open.sort_unstable();
        ask.open.dedup();
        ask.terms.sort_unstable();
        ask.terms.dedup();
        ask
    }

    fn range(bound: &Value, span: impl Fn(Term) -> Span) -> Self {
        match bound {
            Value::String(_) => Self { span: scalar_term(bound).map(span), open: vec![kind::LONG], ..Self::default() },
            Value::Int(_) | Value::Float(_) => {
                Self { never: scalar_term(bound).is_none(), span: scalar_term(bound).map(span), ..Self::default() }
            }
            // Nothing has an order with null, booleans, arrays and objects.
            _ => Self { never: true, ..Self::default() },
        }
    }

    fn above(term: Term, after: bool) -> Span {
        Span::Range { from: term, after, to: None }
    }

    fn below(term: Term, inclusive: bool) -> Span {
        Span::Range { from: vec![term[0]], after: false, to: Some((term, inclusive)) }
    }
}

impl Circle {
    /// The first term to look at, and the last row of cells.
    pub fn rows(&self) -> (Term, u16) {
        let degrees = (self.meters.max(0.0) / EARTH_RADIUS_METERS).to_degrees() + CELL_DEGREES;
        let row = |lat: f64| GeoPoint::new(lat.clamp(-90.0, 90.0), 0.0).map_or(0, |point| cell_of(point).0);
        (cell_term((row(self.center.lat() - degrees), 0)), row(self.center.lat() + degrees))
    }

    /// How a cell lies to it, judged by the cell's middle and the farthest that a corner can be from it.
    pub fn overlap(&self, (row, column): Cell) -> Overlap {
        let middle = |cell: u16, start: f64| (start + (f64::from(cell) + 0.5) * CELL_DEGREES).min(-start);
        let (lat, lon) = (middle(row, -90.0), middle(column, -180.0));
        let Some(point) = GeoPoint::new(lat, lon) else { return Overlap::Partly };
        let half = (CELL_DEGREES / 2.0).to_radians() * EARTH_RADIUS_METERS;
        let nearest_equator = (lat.abs() - CELL_DEGREES).max(0.0);
        let reach = half + half * nearest_equator.to_radians().cos() + SLACK_METERS;
        let distance = self.center.distance_meters(point);
        if distance + reach <= self.meters {
            Overlap::Inside
        } else if distance - reach > self.meters {
            Overlap::Outside
        } else {
            Overlap::Partly
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(lat: f64, lon: f64) -> GeoPoint {
        GeoPoint::new(lat, lon).unwrap()
    }

    /// Points of a cell, its corners and a grid inside.
    fn points_of((row, column): Cell) -> impl Iterator<Item = GeoPoint> {
        (0..=4).flat_map(move |a| {
            (0..=4).filter_map(move |b| {
                let at = |cell: u16, part: i32| (f64::from(cell) + f64::from(part) / 4.001) * CELL_DEGREES;
                GeoPoint::new(at(row, a) - 90.0, at(column, b) - 180.0)
            })
        })
    }

    #[test]
    fn cells_are_never_judged_wrong() {
        let centers =
            [point(59.9, 10.7), point(0.0, 179.999), point(-89.99, 0.0), point(90.0, 5.0), point(-0.003, 0.0)];
        let mut seen = [0; 3];
        for center in centers {
            for meters in [0.0, 300.0, 1_500.0, 40_000.0, 2e7] {
                let circle = Circle { center, meters };
                let (first, last) = circle.rows();
                let first = super::super::term::decode_cell(&first).unwrap().0;
                for step in -60i32..=60 {
                    let lat = (center.lat() + f64::from(step) * 0.011).clamp(-90.0, 90.0);
                    for turn in [-20.0, -0.5, -0.02, 0.0, 0.006, 0.3, 179.0] {
                        let lon = (center.lon() + turn + 540.0).rem_euclid(360.0) - 180.0;
                        let cell = cell_of(point(lat, lon));
                        let overlap = circle.overlap(cell);
                        seen[overlap as usize] += 1;
                        for point in points_of(cell) {
                            let inside = center.distance_meters(point) <= meters;
                            assert!(!inside || overlap != Overlap::Outside, "{circle:?} {cell:?}");
                            assert!(inside || overlap != Overlap::Inside, "{circle:?} {cell:?}");
                            assert!(!inside || (first..=last).contains(&cell.0), "{circle:?} {cell:?}");
                        }
                    }
                }
            }
        }
        assert!(seen.iter().all(|&count| count > 100), "{seen:?}");
    }

    #[test]
    fn what_no_term_tells_is_left_open() {
        let ask = |condition: Condition| Ask::of(&condition);
        assert_eq!(ask(Condition::Eq(Value::Array(vec![]))).open, [kind::ARRAY]);
        assert_eq!(ask(Condition::Ne(Value::Object([].into()))).open, [kind::COMPOSITE]);
        assert_eq!(ask(Condition::Eq(Value::String("x".repeat(65)))).open, [kind::LONG]);
        assert!(ask(Condition::Eq(Value::String("x".into()))).open.is_empty());
        assert!(ask(Condition::Gt(Value::Null)).never && ask(Condition::Lt(Value::Float(f64::NAN))).never);
        assert!(ask(Condition::Contains(Value::Int(1))).arrays_only);
    }
}
