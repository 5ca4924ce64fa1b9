//! What a filter means for one document: the reference that every index is held to.

use std::cmp::Ordering;

use super::{Condition, Filter};
use crate::types::metadata::lookup;
use crate::types::{GeoPoint, Metadata, Value};

impl Filter {
    /// Whether a document with these metadata passes.
    pub fn matches(&self, metadata: &Metadata) -> bool {
        match self {
            Filter::And(parts) => parts.iter().all(|p| p.matches(metadata)),
            Filter::Or(parts) => parts.iter().any(|p| p.matches(metadata)),
            Filter::Not(part) => !part.matches(metadata),
            Filter::Field { path, condition } => condition.matches(lookup(metadata, path)),
        }
    }
}

impl Condition {
    pub(super) fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Condition::Exists(wanted) => value.is_some() == *wanted,
            Condition::Ne(other) => !value.is_some_and(|v| any(v, |x| equal(x, other))),
            Condition::Nin(others) => !value.is_some_and(|v| others.iter().any(|o| any(v, |x| equal(x, o)))),
            _ => value.is_some_and(|v| self.fits(v)),
        }
    }

    fn fits(&self, value: &Value) -> bool {
        match self {
            Condition::Eq(other) => any(value, |x| equal(x, other)),
            Condition::In(others) => others.iter().any(|o| any(value, |x| equal(x, o))),
            Condition::Gt(other) => any(value, |x| order(x, other) == Some(Ordering::Greater)),
            Condition::Gte(other) => any(value, |x| order(x, other).is_some_and(Ordering::is_ge)),
            Condition::Lt(other) => any(value, |x| order(x, other) == Some(Ordering::Less)),
            Condition::Lte(other) => any(value, |x| order(x, other).is_some_and(Ordering::is_le)),
            Condition::Prefix(start) => any(value, |x| matches!(x, Value::String(s) if s.starts_with(start.as_str()))),
            Condition::Contains(part) => match (value, part) {
                (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
                (Value::Array(items), part) => items.iter().any(|x| equal(x, part)),
                _ => false,
            },
            Condition::GeoRadius { center, meters } => {
                any(value, |x| GeoPoint::of(x).is_some_and(|point| center.distance_meters(point) <= *meters))
            }
            Condition::Ne(_) | Condition::Nin(_) | Condition::Exists(_) => self.matches(Some(value)),
        }
    }
}

/// Whether the value itself, or one element of an array, fits.
fn any(value: &Value, fits: impl Fn(&Value) -> bool) -> bool {
    fits(value) || matches!(value, Value::Array(items) if items.iter().any(fits))
}

/// Whether two values are equal; 1 equals 1.0, inside arrays and objects it does not.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => order(a, b) == Some(Ordering::Equal),
        _ => a == b,
    }
}

/// Orders numbers with numbers and strings with strings; anything else has no order.
pub(super) fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => Some(x.cmp(y)),
        (Value::Float(x), Value::Float(y)) => x.partial_cmp(y),
        (Value::Int(x), Value::Float(y)) => order_int_float(*x, *y),
        (Value::Float(x), Value::Int(y)) => order_int_float(*y, *x).map(Ordering::reverse),
        (Value::String(x), Value::String(y)) => Some(x.cmp(y)),
        _ => None,
    }
}

/// Compares without rounding the integer: 2^53 + 1 as an f64 would equal 2^53.
fn order_int_float(int: i64, float: f64) -> Option<Ordering> {
    /// 2^63: the first f64 above every i64.
    const TOP: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        return None;
    }
    if float >= TOP {
        return Some(Ordering::Less);
    }
    if float < -TOP {
        return Some(Ordering::Greater);
    }
    let whole = float.trunc();
    Some(int.cmp(&(whole as i64)).then_with(|| 0.0.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn sample() -> Metadata {
        BTreeMap::from([
            ("price".into(), Value::Float(9.5)),
            ("count".into(), Value::Int(3)),
            ("name".into(), Value::String("Anna".into())),
            ("tags".into(), Value::Array(vec![Value::String("red".into()), Value::String("blue".into())])),
            ("a.b".into(), Value::Int(1)),
            ("shop".into(), Value::Object(BTreeMap::from([("city".into(), Value::String("Oslo".into()))]))),
            ("none".into(), Value::Null),
        ])
    }

    fn holds(path: &str, condition: Condition) -> bool {
        Filter::Field { path: path.into(), condition }.matches(&sample())
    }

    #[test]
    fn each_condition_has_a_yes_and_a_no() {
        let text = |s: &str| Value::String(s.into());
        let cases = [
            ("count", Condition::Eq(Value::Float(3.0)), true),
            ("count", Condition::Eq(text("3")), false),
            ("count", Condition::Ne(Value::Int(3)), false),
            ("missing", Condition::Ne(Value::Int(3)), true),
            ("price", Condition::Gt(Value::Int(9)), true),
            ("price", Condition::Gt(Value::Float(9.5)), false),
            ("price", Condition::Gte(Value::Float(9.5)), true),
            ("price", Condition::Lt(Value::Int(10)), true),
            ("price", Condition::Lte(Value::Int(9)), false),
            ("name", Condition::Gt(Value::Int(1)), false),
            ("name", Condition::Prefix("An".into()), true),
            ("name", Condition::Prefix("an".into()), false),
            ("name", Condition::Contains(text("nn")), true),
            ("tags", Condition::Contains(text("red")), true),
            ("tags", Condition::Contains(text("re")), false),
            ("tags", Condition::Eq(text("blue")), true),
            ("tags", Condition::Ne(text("blue")), false),
            ("tags", Condition::In(vec![text("x"), text("red")]), true),
            ("tags", Condition::Nin(vec![text("x"), text("red")]), false),
            ("missing", Condition::Nin(vec![text("x")]), true),
            ("missing", Condition::In(vec![Value::Null]), false),
            ("none", Condition::Exists(true), true),
            ("none", Condition::Eq(Value::Null), true),
            ("missing", Condition::Exists(false), true),
            ("a.b", Condition::Eq(Value::Int(1)), true),
            ("shop.city", Condition::Eq(text("Oslo")), true),
            ("shop.street", Condition::Exists(true), false),
        ];
        for (path, condition, wanted) in cases {
            assert_eq!(holds(path, condition.clone()), wanted, "{path} {condition:?}");
        }
    }

    #[test]
    fn connectives_follow_boolean_algebra() {
        let yes = || Filter::eq("count", Value::Int(3));
        let no = || Filter::eq("count", Value::Int(4));
        assert!(Filter::And(vec![]).matches(&sample()));
        assert!(!Filter::Or(vec![]).matches(&sample()));
        assert!(Filter::Or(vec![no(), yes()]).matches(&sample()));
        assert!(!Filter::And(vec![no(), yes()]).matches(&sample()));
        assert!(Filter::Not(Box::new(no())).matches(&sample()));
    }

    #[test]
    fn large_integers_compare_without_rounding() {
        let big = (1i64 << 53) + 1;
        assert_eq!(order_int_float(big, (1i64 << 53) as f64), Some(Ordering::Greater));
        assert_eq!(order_int_float(i64::MAX, 9.3e18), Some(Ordering::Less));
        assert_eq!(order_int_float(i64::MIN, -9.3e18), Some(Ordering::Greater));
        assert_eq!(order_int_float(-1, -1.5), Some(Ordering::Greater));
        assert_eq!(order_int_float(1, 1.5), Some(Ordering::Less));
    }
}
