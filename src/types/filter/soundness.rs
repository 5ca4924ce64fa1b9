//! Filters that are mistakes: conditions that a declared type cannot meet, conditions that exclude each other, and
//! filters that nothing depends on.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::evaluate::{equal, order};
use super::{Condition, Filter, FilterError};
use crate::types::{FieldType, Value};

impl Filter {
    /// Checks the filter against the fields that a collection declares.
    ///
    /// # Errors
    /// [`FilterError::WrongType`] for a condition that a declared field can never be asked;
    /// [`FilterError::Contradiction`] where conditions exclude each other, so that no document can pass.
    pub fn check_fields(&self, fields: &BTreeMap<String, FieldType>) -> Result<(), FilterError> {
        self.check_types(fields)?;
        match self.impossible(fields) {
            Some(reason) => Err(FilterError::Contradiction { reason }),
            None => Ok(()),
        }
    }

    /// Whether every document of a collection that declares `fields` passes, as far as the filter alone tells: `{}`
    /// (also as the deciding branch of `$or`), an empty `$nin`, the negation of a contradiction.
    pub fn passes_everything(&self, fields: &BTreeMap<String, FieldType>) -> bool {
        self.pushed(true).passes_nothing(fields)
    }

    /// Whether no document passes, as far as the filter alone tells.
    fn passes_nothing(&self, fields: &BTreeMap<String, FieldType>) -> bool {
        self.constant() == Some(false)
            || match self {
                Filter::Or(parts) => parts.iter().all(|part| part.passes_nothing(fields)),
                Filter::And(parts) => {
                    parts.iter().any(|part| part.passes_nothing(fields)) || self.impossible(fields).is_some()
                }
                Filter::Not(_) | Filter::Field { .. } => false,
            }
    }

    /// The same filter, or its contrary where `negate` is true, with `$not` only at conditions that have no contrary.
    fn pushed(&self, negate: bool) -> Filter {
        let pushed = |parts: &[Filter]| parts.iter().map(|part| part.pushed(negate)).collect();
        match (self, negate) {
            (Filter::And(parts), false) | (Filter::Or(parts), true) => Filter::And(pushed(parts)),
            (Filter::Or(parts), false) | (Filter::And(parts), true) => Filter::Or(pushed(parts)),
            (Filter::Not(part), _) => part.pushed(!negate),
            (Filter::Field { .. }, false) => self.clone(),
            (Filter::Field { path, condition }, true) => {
                let condition = match condition {
                    Condition::Eq(value) => Condition::Ne(value.clone()),
                    Condition::Ne(value) => Condition::Eq(value.clone()),
                    Condition::In(values) => Condition::Nin(values.clone()),
                    Condition::Nin(values) => Condition::In(values.clone()),
                    Condition::Exists(wanted) => Condition::Exists(!wanted),
                    _ => return Filter::Not(Box::new(self.clone())),
                };
                Filter::Field { path: path.clone(), condition }
            }
        }
    }

    /// Whether documents pass, where that does not depend on them.
    fn constant(&self) -> Option<bool> {
        match self {
            Filter::And(parts) => constant_of(parts, false),
            Filter::Or(parts) => constant_of(parts, true),
            Filter::Not(part) => part.constant().map(|passes| !passes),
            Filter::Field { condition: Condition::In(values), .. } => values.is_empty().then_some(false),
            Filter::Field { condition: Condition::Nin(values), .. } => values.is_empty().then_some(true),
            Filter::Field { .. } => None,
        }
    }

    fn check_types(&self, fields: &BTreeMap<String, FieldType>) -> Result<(), FilterError> {
        match self {
            Filter::And(parts) | Filter::Or(parts) => parts.iter().try_for_each(|part| part.check_types(fields)),
            Filter::Not(part) => part.check_types(fields),
            Filter::Field { path, condition } => match fields.get(path) {
                Some(&declared) => check_type(path, condition, declared),
                None => Ok(()),
            },
        }
    }

    /// Why no document can pass, where that is plain to see.
    fn impossible(&self, fields: &BTreeMap<String, FieldType>) -> Option<String> {
        match self {
            Filter::Or(parts) => {
                let mut reasons = parts.iter().map(|part| part.impossible(fields));
                let first = reasons.next()??;
                reasons.all(|reason| reason.is_some()).then_some(first)
            }
            Filter::Not(_) | Filter::Field { .. } => None,
            Filter::And(_) => {
                let mut parts = Vec::new();
                self.flatten(&mut parts);
                parts.iter().find_map(|part| part.impossible(fields)).or_else(|| conflict(&parts, fields))
            }
        }
    }

    /// The parts of nested ands.
    fn flatten<'a>(&'a self, parts: &mut Vec<&'a Filter>) {
        match self {
            Filter::And(inner) => inner.iter().for_each(|part| part.flatten(parts)),
            other => parts.push(other),
        }
    }
}

/// The constant that `$and` (`decisive` is false) or `$or` (`decisive` is true) of these parts has, if any.
fn constant_of(parts: &[Filter], decisive: bool) -> Option<bool> {
    let mut together = Some(!decisive);
    for part in parts {
        match part.constant() {
            Some(passes) if passes == decisive => return Some(decisive),
            Some(_) => {}
            None => together = None,
        }
    }
    together
}

/// Why parts that must all hold cannot.
fn conflict(parts: &[&Filter], fields: &BTreeMap<String, FieldType>) -> Option<String> {
    let mut by_path: BTreeMap<&str, Vec<&Condition>> = BTreeMap::new();
    for part in parts {
        match part {
            Filter::Field { path, condition } => by_path.entry(path).or_default().push(condition),
            Filter::Not(inner) if parts.contains(&inner.as_ref()) => {
                return Some("one part of it is the $not of another".to_owned());
            }
            _ => {}
        }
    }
    by_path.into_iter().find_map(|(path, conditions)| {
        let single = matches!(fields.get(path), Some(FieldType::Number | FieldType::Boolean));
        contradiction(path, &conditions, single)
    })
}

/// Why a field cannot meet all `conditions`, where that is plain to see.
///
/// `single`: the field holds one value. An array can be both above 5 and below 3, by different elements.
pub fn contradiction(path: &str, conditions: &[&Condition], single: bool) -> Option<String> {
    let because = |what: String| Some(format!("{path:?} cannot {what}"));
    if conditions.iter().any(|c| matches!(c, Condition::Exists(false))) && conditions.iter().any(|c| wants_value(c)) {
        return because("be missing and have a value".to_owned());
    }
    let excluded = conditions.iter().flat_map(|condition| match condition {
        Condition::Ne(value) => std::slice::from_ref(value),
        Condition::Nin(values) => values.as_slice(),
        _ => &[],
    });
    let excluded: Vec<&Value> = excluded.collect();
    for condition in conditions {
        let wanted = wanted(condition).unwrap_or_default();
        if !wanted.is_empty() && wanted.iter().all(|w| excluded.iter().any(|e| equal(w, e))) {
            return because("be equal to a value and not equal to it".to_owned());
        }
    }
    if !single {
        return None;
    }
    let disjoint = pairs(conditions).find(|(a, b)| !can_share_a_value(a, b));
    disjoint.and_then(|(a, b)| because(format!("be {} and {}", describe(a), describe(b))))
}

fn pairs<'a>(conditions: &'a [&'a Condition]) -> impl Iterator<Item = (&'a Condition, &'a Condition)> {
    conditions.iter().enumerate().flat_map(|(at, &a)| conditions[at + 1..].iter().map(move |&b| (a, b)))
}

fn wants_value(condition: &Condition) -> bool {
    !matches!(condition, Condition::Exists(false) | Condition::Ne(_) | Condition::Nin(_))
}

/// The values of which one is wanted, for conditions that list them.
fn wanted(condition: &Condition) -> Option<&[Value]> {
    match condition {
        Condition::Eq(value) => Some(std::slice::from_ref(value)),
        Condition::In(values) => Some(values),
        _ => None,
    }
}

/// Whether one value may meet both; `true` in doubt.
fn can_share_a_value(a: &Condition, b: &Condition) -> bool {
    // That one is about an array as a whole, which may hold what the other wants beside it.
    if [a, b].iter().any(|condition| matches!(condition, Condition::Contains(_))) {
        return true;
    }
    match (wanted(a), wanted(b)) {
        (Some(values), _) => values.is_empty() || values.iter().any(|value| meets(value, b)),
        (None, Some(values)) => values.is_empty() || values.iter().any(|value| meets(value, a)),
        (None, None) => match (lower(a), upper(b), lower(b), upper(a)) {
            (Some(low), Some(high), _, _) | (_, _, Some(low), Some(high)) => leaves_room(low, high),
            _ => true,
        },
    }
}

fn meets(value: &Value, condition: &Condition) -> bool {
    condition.matches(Some(value))
}

/// The bound below, and whether it belongs to the range.
fn lower(condition: &Condition) -> Option<(&Value, bool)> {
    match condition {
        Condition::Gt(value) => Some((value, false)),
        Condition::Gte(value) => Some((value, true)),
        _ => None,
    }
}

fn upper(condition: &Condition) -> Option<(&Value, bool)> {
    match condition {
        Condition::Lt(value) => Some((value, false)),
        Condition::Lte(value) => Some((value, true)),
        _ => None,
    }
}

fn leaves_room(low: (&Value, bool), high: (&Value, bool)) -> bool {
    match order(low.0, high.0) {
        Some(Ordering::Less) => true,
        Some(Ordering::Equal) => low.1 && high.1,
        Some(Ordering::Greater) | None => false,
    }
}

/// A condition in words that follow "be".
fn describe(condition: &Condition) -> String {
    match condition {
        Condition::Eq(value) => format!("equal to {}", show(value)),
        Condition::In(_) => "one of a list".to_owned(),
        Condition::Gt(value) => format!("above {}", show(value)),
        Condition::Gte(value) => format!("at least {}", show(value)),
        Condition::Lt(value) => format!("below {}", show(value)),
        Condition::Lte(value) => format!("at most {}", show(value)),
        Condition::Prefix(start) => format!("a text that begins with {start:?}"),
        Condition::Contains(value) => format!("something that contains {}", show(value)),
        Condition::GeoRadius { .. } => "a point".to_owned(),
        Condition::Ne(value) => format!("other than {}", show(value)),
        Condition::Nin(_) => "outside a list".to_owned(),
        Condition::Exists(_) => "there".to_owned(),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Int(x) => x.to_string(),
        Value::Float(x) => x.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Bool(x) => x.to_string(),
        other => other.kind().to_owned(),
    }
}

fn check_type(path: &str, condition: &Condition, declared: FieldType) -> Result<(), FilterError> {
    let refuse = |asked: String, fix| Err(FilterError::WrongType { path: path.to_owned(), declared, asked, fix });
    let check_values = |values: &[Value]| match values.iter().find(|value| !may_equal(value, declared)) {
        Some(value) => refuse(value.kind().to_owned(), FIX_VALUE[declared as usize]),
        None => Ok(()),
    };
    let one = std::slice::from_ref;
    match condition {
        Condition::Exists(_) => Ok(()),
        Condition::Eq(value) | Condition::Ne(value) => check_values(one(value)),
        Condition::In(values) | Condition::Nin(values) => check_values(values),
        Condition::Gt(bound) | Condition::Gte(bound) | Condition::Lt(bound) | Condition::Lte(bound) => match declared {
            FieldType::Number if matches!(bound, Value::Int(_) | Value::Float(_)) => Ok(()),
            FieldType::Number => refuse(format!("a range of {}", bound.kind()), "compare it with a number"),
            FieldType::Keyword => {
                refuse("a range".to_owned(), "use $prefix or $in, or declare the field as number to compare")
            }
            FieldType::Boolean => refuse("a range".to_owned(), "use {\"$eq\": true} or {\"$eq\": false}"),
            FieldType::Geo => refuse("a range".to_owned(), "use $geo_radius"),
        },
        Condition::Prefix(_) if declared == FieldType::Keyword => Ok(()),
        Condition::Prefix(_) => refuse("a prefix".to_owned(), "$prefix is for keyword fields"),
        Condition::Contains(value) if declared == FieldType::Keyword => check_values(one(value)),
        Condition::Contains(_) => refuse("a part".to_owned(), "$contains is for keyword fields"),
        Condition::GeoRadius { .. } if declared == FieldType::Geo => Ok(()),
        Condition::GeoRadius { .. } => refuse("a radius".to_owned(), "$geo_radius is for geo fields"),
    }
}

/// By declared type.
const FIX_VALUE: [&str; 4] = [
    "compare it with a string",
    "compare it with a number",
    "compare it with true or false",
    "compare it with $geo_radius, or ask with $exists",
];

/// Whether a field of the type can hold the value; null fits any.
fn may_equal(value: &Value, declared: FieldType) -> bool {
    match (declared, value) {
        (_, Value::Null) => true,
        (FieldType::Keyword, Value::String(_)) => true,
        (FieldType::Keyword, Value::Array(items)) => items.iter().all(|item| matches!(item, Value::String(_))),
        (FieldType::Number, Value::Int(_) | Value::Float(_)) => true,
        (FieldType::Boolean, Value::Bool(_)) => true,
        (FieldType::Geo, Value::Object(_)) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GeoPoint;

    fn fields() -> BTreeMap<String, FieldType> {
        [
            ("word", FieldType::Keyword),
            ("price", FieldType::Number),
            ("open", FieldType::Boolean),
            ("place", FieldType::Geo),
        ]
        .map(|(name, kind)| (name.to_owned(), kind))
        .into()
    }

    fn field(path: &str, condition: Condition) -> Filter {
        Filter::Field { path: path.into(), condition }
    }

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    fn radius() -> Condition {
        Condition::GeoRadius { center: GeoPoint::new(0.0, 0.0).unwrap(), meters: 1.0 }
    }

    #[test]
    fn conditions_must_suit_the_declared_type() {
        let right = [
            field("word", Condition::Prefix("a".into())),
            field("word", Condition::Contains(text("a"))),
            field("word", Condition::In(vec![text("a"), Value::Null])),
            field("price", Condition::Gte(Value::Float(1.5))),
            field("price", Condition::Eq(Value::Null)),
            field("open", Condition::Ne(Value::Bool(true))),
            field("place", radius()),
            field("place", Condition::Exists(true)),
            field("undeclared", Condition::Gt(text("a"))),
        ];
        for filter in right {
            assert_eq!(filter.check_fields(&fields()), Ok(()), "{filter:?}");
        }
        let wrong = [
            (field("word", Condition::Gt(text("a"))), "$prefix"),
            (field("word", Condition::Eq(Value::Int(1))), "a string"),
            (field("word", radius()), "geo fields"),
            (field("price", Condition::Lt(text("9"))), "a number"),
            (field("price", Condition::In(vec![Value::Int(1), text("2")])), "a number"),
            (field("price", Condition::Prefix("1".into())), "keyword"),
            (field("price", Condition::Contains(Value::Int(1))), "keyword"),
            (field("open", Condition::Eq(Value::Int(1))), "true or false"),
            (field("open", Condition::Gt(Value::Int(0))), "$eq"),
            (field("place", Condition::Lt(Value::Int(1))), "$geo_radius"),
            (field("place", Condition::Eq(text("Oslo"))), "$geo_radius"),
        ];
        for (filter, fix) in wrong {
            for filter in [filter.clone(), Filter::Not(Box::new(filter.clone())), Filter::Or(vec![filter])] {
                let error = filter.check_fields(&fields()).unwrap_err();
                assert!(matches!(error, FilterError::WrongType { .. }), "{filter:?}");
                assert!(error.to_string().contains(fix), "{error}");
            }
        }
    }

    #[test]
    fn conditions_that_exclude_each_other_are_refused() {
        let int = Value::Int;
        let both = |a, b| Filter::And(vec![a, b]);
        let price = |condition| field("price", condition);
        let any = |condition| field("any", condition);
        let impossible = [
            both(price(Condition::Gt(int(5))), price(Condition::Lt(int(3)))),
            both(price(Condition::Gt(int(5))), price(Condition::Lte(int(5)))),
            both(price(Condition::Eq(int(5))), price(Condition::Eq(int(6)))),
            both(price(Condition::Lt(int(5))), price(Condition::In(vec![int(6), int(7)]))),
            both(any(Condition::Eq(int(1))), any(Condition::Ne(Value::Float(1.0)))),
            both(any(Condition::In(vec![int(1), int(2)])), any(Condition::Nin(vec![int(2), int(1)]))),
            both(any(Condition::Exists(false)), any(Condition::Eq(int(1)))),
            both(any(Condition::Gt(int(1))), Filter::Not(Box::new(any(Condition::Gt(int(1)))))),
        ];
        for filter in impossible {
            let nested = both(field("word", Condition::Exists(true)), filter.clone());
            for filter in [Filter::Or(vec![filter.clone(), filter.clone()]), filter, nested] {
                let error = filter.check_fields(&fields()).unwrap_err();
                assert!(matches!(error, FilterError::Contradiction { .. }), "{filter:?}");
            }
        }
    }

    #[test]
    fn filters_that_depend_on_nothing_are_known() {
        let (all, none) = (|| Filter::And(vec![]), || Filter::Or(vec![]));
        let some = || field("any", Condition::Exists(true));
        let not = |part| Filter::Not(Box::new(part));
        let eq = |n| field("any", Condition::Eq(Value::Int(n)));
        let above = |n| field("any", Condition::Gt(Value::Int(n)));
        let price = |condition| field("price", condition);
        for filter in [
            all(),
            Filter::And(vec![all(), all()]),
            Filter::And(vec![Filter::And(vec![all()])]),
            Filter::Or(vec![some(), all()]),
            not(none()),
            not(Filter::And(vec![some(), none()])),
            not(field("any", Condition::In(vec![]))),
            field("any", Condition::Nin(vec![])),
            not(Filter::And(vec![some(), not(some())])),
            Filter::Or(vec![some(), not(some())]),
            Filter::Or(vec![eq(1), not(eq(1))]),
            Filter::Or(vec![eq(1), Filter::Or(vec![none(), field("any", Condition::Ne(Value::Int(1)))])]),
            Filter::Or(vec![some(), field("any", Condition::Exists(false))]),
            not(Filter::And(vec![field("any", Condition::Exists(false)), eq(1)])),
            not(not(Filter::Or(vec![above(1), not(above(1))]))),
            Filter::And(vec![all(), Filter::Or(vec![above(1), not(above(1))])]),
            not(Filter::And(vec![price(Condition::Gt(Value::Int(5))), price(Condition::Lt(Value::Int(3)))])),
        ] {
            assert!(filter.passes_everything(&fields()), "{filter:?}");
        }
        for filter in [
            some(),
            none(),
            not(all()),
            not(some()),
            Filter::And(vec![all(), some()]),
            Filter::Or(vec![some(), none()]),
            Filter::And(vec![all(), Filter::Or(vec![some()])]),
            field("any", Condition::In(vec![])),
            field("any", Condition::Nin(vec![Value::Null])),
            Filter::Or(vec![eq(1), not(eq(2))]),
            Filter::Or(vec![above(1), not(above(2))]),
            Filter::Or(vec![some(), field("other", Condition::Exists(false))]),
            Filter::And(vec![eq(1), not(eq(1))]),
            not(Filter::And(vec![above(5), field("any", Condition::Lt(Value::Int(3)))])),
        ] {
            assert!(!filter.passes_everything(&fields()), "{filter:?}");
        }
    }

    #[test]
    fn an_array_may_contain_one_value_beside_another() {
        let contains = Condition::Contains(text("green"));
        for wanted in [Condition::In(vec![text("red"), text("blue")]), Condition::Eq(text("red"))] {
            assert_eq!(contradiction("tags", &[&wanted, &contains], true), None);
            assert_eq!(contradiction("tags", &[&contains, &wanted], true), None);
            let array = Value::Array(vec![text("red"), text("green")]);
            assert!(wanted.matches(Some(&array)) && contains.matches(Some(&array)));
        }
    }

    #[test]
    fn what_an_array_or_another_branch_can_meet_is_not() {
        let int = Value::Int;
        let possible = [
            Filter::And(vec![field("any", Condition::Gt(int(5))), field("any", Condition::Lt(int(3)))]),
            Filter::And(vec![field("word", Condition::Eq(text("a"))), field("word", Condition::Eq(text("b")))]),
            Filter::And(vec![field("price", Condition::Gte(int(5))), field("price", Condition::Lte(int(5)))]),
            Filter::And(vec![field("any", Condition::Exists(false)), field("any", Condition::Ne(int(5)))]),
            Filter::Or(vec![
                Filter::And(vec![field("price", Condition::Gt(int(5))), field("price", Condition::Lt(int(3)))]),
                field("price", Condition::Eq(int(1))),
            ]),
            field("any", Condition::In(vec![])),
            Filter::And(vec![]),
            Filter::Or(vec![]),
        ];
        for filter in possible {
            assert_eq!(filter.check_fields(&fields()), Ok(()), "{filter:?}");
        }
    }
}
