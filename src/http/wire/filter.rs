//! Filters as clients write them: `{"field": value}`, `{"field": {"$op": value}}`, `{"$and": [..]}`.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::room;
use super::value::WireValue;
use crate::http::error::{ApiError, Code};
use crate::types::limits::MAX_FILTER_NODES;
use crate::types::{Condition, Filter, FilterError, GeoPoint, Metadata, Value, contradiction};

/// How the message of a filter that is refused before it is understood starts.
pub(super) const REFUSED: &str = "filter ";
/// Bytes of memory that a filter may take, several times what its nodes do.
const MAX_BYTES: usize = 2 << 20;
const CONNECTIVES: &str = "$and, $or, $not";
const OPERATORS: &str = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $prefix, $contains, $geo_radius";
const RADIUS: &str = "{\"lat\": -90 to 90, \"lon\": -180 to 180, \"meters\": 0 or more}";

/// A filter as a client sent it, not yet understood.
#[derive(Debug)]
pub(crate) struct WireFilter(WireValue);

impl<'de> Deserialize<'de> for WireFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        room::within(MAX_BYTES, || WireValue::deserialize(deserializer)).map(Self).map_err(|error| {
            match error.to_string().starts_with(room::REFUSED) {
                true => {
                    D::Error::custom(format_args!("{REFUSED}too large; at most {MAX_FILTER_NODES} nodes are allowed"))
                }
                false => error,
            }
        })
    }
}

impl WireFilter {
    /// # Errors
    /// [`Code::InvalidFilter`] names the operator or the path at fault and what is allowed there.
    pub(crate) fn into_filter(self) -> Result<Filter, ApiError> {
        let filter = parse(self.0.0, true)?;
        filter.check()?;
        Ok(filter)
    }

    /// Reads a filter that stands in a query string as JSON.
    pub(crate) fn from_parameter(text: &str) -> Result<Filter, ApiError> {
        let super::value::WireMetadata(object) = super::json::parse_parameter("filter", text)?;
        WireFilter(WireValue(Value::Object(object))).into_filter()
    }
}

/// Why a filter is refused while it is read.
enum Refusal {
    /// It has no meaning; in words.
    Invalid(String),
    /// Its meaning is refused.
    Filter(FilterError),
}

impl From<String> for Refusal {
    fn from(detail: String) -> Self {
        Refusal::Invalid(detail)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(detail) => ApiError::new(Code::InvalidFilter, detail),
            Refusal::Filter(error) => error.into(),
        }
    }
}

/// An object of conditions, all of which hold; several keys mean and. `required`: no document passes the whole filter
/// that does not pass this one, as some do below `$or` and `$not`.
fn parse(value: Value, required: bool) -> Result<Filter, Refusal> {
    let Value::Object(object) = value else {
        return Err(format!("a filter is an object such as {{\"field\": \"value\"}}, not {}", value.kind()).into());
    };
    let mut parts =
        object.into_iter().map(|(key, value)| parse_entry(key, value, required)).collect::<Result<Vec<_>, _>>()?;
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) })
}

fn parse_entry(key: String, value: Value, required: bool) -> Result<Filter, Refusal> {
    match key.as_str() {
        "$and" => Ok(Filter::And(parse_list("$and", value, required)?)),
        "$or" => Ok(Filter::Or(parse_list("$or", value, false)?)),
        "$not" => Ok(Filter::Not(Box::new(parse(value, false)?))),
        _ if key.starts_with('$') => Err(format!(
            "{key:?} is no connective; allowed are {CONNECTIVES}, and operators stand below a field's name"
        )
        .into()),
        "" => Err("a field's name is empty; write {\"field\": value}".to_owned().into()),
        _ => parse_field(key, value, required),
    }
}

fn parse_list(connective: &str, value: Value, required: bool) -> Result<Vec<Filter>, Refusal> {
    match value {
        Value::Array(items) if !items.is_empty() => items.into_iter().map(|item| parse(item, required)).collect(),
        Value::Array(_) => Err(format!("{connective} is empty; give it at least one filter").into()),
        other => Err(format!("{connective} takes an array of filters, not {}", other.kind()).into()),
    }
}

fn parse_field(path: String, value: Value, required: bool) -> Result<Filter, Refusal> {
    let Value::Object(operators) = value else {
        return Ok(Filter::Field { path, condition: Condition::Eq(value) });
    };
    if !operators.keys().next().is_some_and(|key| key.starts_with('$')) {
        return Ok(plain_object(path, operators)?);
    }
    let condition = |(operator, operand): (String, Value)| parse_condition(&path, &operator, operand);
    let conditions = operators.into_iter().map(condition).collect::<Result<Vec<_>, String>>()?;
    // Operators side by side are meant for one value; an array of several is asked with $and.
    if required && let Some(reason) = contradiction(&path, &conditions.iter().collect::<Vec<_>>(), true) {
        return Err(Refusal::Filter(FilterError::Contradiction { reason }));
    }
    let field = |condition| Filter::Field { path: path.clone(), condition };
    let mut parts: Vec<_> = conditions.into_iter().map(field).collect();
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) })
}

/// Keys are in order and `$` comes before every letter: an object that does not start with an operator may hold none
/// but after `!`, `"`, `#` or an empty key.
fn plain_object(path: String, object: Metadata) -> Result<Filter, String> {
    if object.is_empty() {
        return Err(format!("the condition of {path:?} is empty; allowed are a value or {OPERATORS}"));
    }
    if let Some(operator) = object.keys().find(|key| key.starts_with('$')) {
        return Err(format!(
            "the condition of {path:?} mixes {operator:?} with field names; keep them apart with $and"
        ));
    }
    Ok(Filter::Field { path, condition: Condition::Eq(Value::Object(object)) })
}

fn parse_condition(path: &str, operator: &str, operand: Value) -> Result<Condition, String> {
    let takes = |what: &str, got: &Value| Err(format!("{operator} of {path:?} takes {what}, not {}", got.kind()));
    Ok(match (operator, operand) {
        ("$eq", value) => Condition::Eq(value),
        ("$ne", value) => Condition::Ne(value),
        ("$in", Value::Array(values)) => Condition::In(values),
        ("$nin", Value::Array(values)) => Condition::Nin(values),
        ("$in" | "$nin", other) => return takes("an array of values", &other),
        ("$exists", Value::Bool(wanted)) => Condition::Exists(wanted),
        ("$exists", other) => return takes("true or false", &other),
        ("$prefix", Value::String(start)) => Condition::Prefix(start),
        ("$prefix", other) => return takes("a string", &other),
        ("$contains", value @ (Value::String(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_))) => {
            Condition::Contains(value)
        }
        ("$contains", other) => return takes("a string, a number or a boolean", &other),
        ("$geo_radius", Value::Object(circle)) => parse_circle(path, &circle)?,
        ("$geo_radius", other) => return takes(RADIUS, &other),
        ("$gt" | "$gte" | "$lt" | "$lte", value) => {
            if !matches!(value, Value::Int(_) | Value::Float(_) | Value::String(_)) {
                return takes("a number or a string", &value);
            }
            match operator {
                "$gt" => Condition::Gt(value),
                "$gte" => Condition::Gte(value),
                "$lt" => Condition::Lt(value),
                _ => Condition::Lte(value),
            }
        }
        _ => return Err(format!("{operator:?} of {path:?} is no operator; allowed are {OPERATORS}")),
    })
}

/// A centre and a radius, and nothing else.
fn parse_circle(path: &str, circle: &Metadata) -> Result<Condition, String> {
    let refuse = |what: String| Err(format!("$geo_radius of {path:?} takes {RADIUS}; {what}"));
    if let Some(key) = circle.keys().find(|key| !["lat", "lon", "meters"].contains(&key.as_str())) {
        return refuse(format!("{key:?} is not one of its keys"));
    }
    let meters = match circle.get("meters") {
        Some(Value::Int(meters)) => *meters as f64,
        Some(Value::Float(meters)) => *meters,
        _ => return refuse("\"meters\" is missing or no number".to_owned()),
    };
    if !(meters.is_finite() && meters >= 0.0) {
        return refuse(format!("\"meters\" is {meters}"));
    }
    match GeoPoint::of(&Value::Object(circle.clone())) {
        Some(center) => Ok(Condition::GeoRadius { center, meters }),
        None => refuse("\"lat\" or \"lon\" is missing or outside its range".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Filter, ApiError> {
        serde_json::from_str::<WireFilter>(text).unwrap().into_filter()
    }

    fn field(path: &str, condition: Condition) -> Filter {
        Filter::Field { path: path.into(), condition }
    }

    #[test]
    fn every_form_is_understood() {
        let one = || Value::Int(1);
        let cases = [
            (r#"{}"#, Filter::And(vec![])),
            (r#"{"a":1}"#, field("a", Condition::Eq(one()))),
            (r#"{"a":null}"#, field("a", Condition::Eq(Value::Null))),
            (r#"{"a":[1]}"#, field("a", Condition::Eq(Value::Array(vec![one()])))),
            (r#"{"a":{"b":1}}"#, field("a", Condition::Eq(Value::Object([("b".to_owned(), one())].into())))),
            (r#"{"a.b":{"$eq":1}}"#, field("a.b", Condition::Eq(one()))),
            (r#"{"a":{"$ne":1}}"#, field("a", Condition::Ne(one()))),
            (r#"{"a":{"$gt":1}}"#, field("a", Condition::Gt(one()))),
            (r#"{"a":{"$gte":1.5}}"#, field("a", Condition::Gte(Value::Float(1.5)))),
            (r#"{"a":{"$lt":"x"}}"#, field("a", Condition::Lt(Value::String("x".into())))),
            (r#"{"a":{"$lte":1}}"#, field("a", Condition::Lte(one()))),
            (r#"{"a":{"$in":[1]}}"#, field("a", Condition::In(vec![one()]))),
            (r#"{"a":{"$nin":[]}}"#, field("a", Condition::Nin(vec![]))),
            (r#"{"a":{"$exists":false}}"#, field("a", Condition::Exists(false))),
            (r#"{"a":{"$prefix":"x"}}"#, field("a", Condition::Prefix("x".into()))),
            (r#"{"a":{"$contains":1}}"#, field("a", Condition::Contains(one()))),
            (
                r#"{"a":{"$geo_radius":{"lat":59.9,"lon":10,"meters":500}}}"#,
                field("a", Condition::GeoRadius { center: GeoPoint::new(59.9, 10.0).unwrap(), meters: 500.0 }),
            ),
            (r#"{"$not":{"a":1}}"#, Filter::Not(Box::new(field("a", Condition::Eq(one()))))),
            (r#"{"$or":[{"a":1}]}"#, Filter::Or(vec![field("a", Condition::Eq(one()))])),
            (
                r#"{"a":{"$gt":1,"$lt":2},"b":1}"#,
                Filter::And(vec![
                    Filter::And(vec![field("a", Condition::Gt(one())), field("a", Condition::Lt(Value::Int(2)))]),
                    field("b", Condition::Eq(one())),
                ]),
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(read(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        let cases = [
            (r#"[]"#, "not an array"),
            (r#"{"$nor":[]}"#, "\"$nor\""),
            (r#"{"$and":{}}"#, "$and takes an array"),
            (r#"{"$or":[]}"#, "$or is empty"),
            (r#"{"$and":[1]}"#, "not a number"),
            (r#"{"$not":[]}"#, "not an array"),
            (r#"{"price":{"$above":1}}"#, "\"$above\" of \"price\""),
            (r#"{"price":{"$above":1}}"#, OPERATORS),
            (r#"{"a":{}}"#, "\"a\" is empty"),
            (r##"{"a":{"#":1,"$gt":2}}"##, "mixes"),
            (r#"{"a":{"$gt":1,"b":2}}"#, "\"b\" of \"a\""),
            (r#"{"a":{"$in":1}}"#, "$in of \"a\" takes an array"),
            (r#"{"a":{"$gt":null}}"#, "$gt of \"a\" takes a number or a string, not null"),
            (r#"{"a":{"$exists":1}}"#, "true or false"),
            (r#"{"a":{"$prefix":1}}"#, "takes a string"),
            (r#"{"a":{"$contains":[1]}}"#, "$contains"),
            (r#"{"":1}"#, "empty"),
            (r#"{"a":{"$geo_radius":5}}"#, "\"meters\": 0 or more"),
            (r#"{"a":{"$geo_radius":{"lat":91,"lon":0,"meters":1}}}"#, "outside its range"),
            (r#"{"a":{"$geo_radius":{"lat":9,"lon":0}}}"#, "\"meters\" is missing"),
            (r#"{"a":{"$geo_radius":{"lat":9,"lon":0,"meters":-1}}}"#, "\"meters\" is -1"),
            (r#"{"a":{"$geo_radius":{"lat":9,"lon":0,"meters":1,"km":1}}}"#, "\"km\""),
        ];
        for (text, wanted) in cases {
            let error = read(text).unwrap_err();
            assert_eq!(error.code, Code::InvalidFilter, "{text}");
            assert!(error.detail.contains(wanted), "{text}: {}", error.detail);
        }
    }

    #[test]
    fn operators_side_by_side_must_leave_a_value() {
        for text in [
            r#"{"a":{"$gt":5,"$lt":3}}"#,
            r#"{"a":{"$eq":1,"$ne":1}}"#,
            r#"{"a":{"$exists":false,"$eq":1}}"#,
            r#"{"a":{"$in":[1,2],"$gt":2}}"#,
            r#"{"a":{"$gt":"x","$lt":3}}"#,
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.code, Code::ContradictoryFilter, "{text}");
            assert!(error.detail.contains("take one of the conditions out"), "{}", error.detail);
        }
        assert!(read(r#"{"a":{"$gt":3,"$lt":5}}"#).is_ok());
        for elsewhere in [
            r#"{"$or":[{"a":{"$gt":5,"$lt":3}},{"b":1}]}"#,
            r#"{"$not":{"a":{"$gt":5,"$lt":3}}}"#,
            r#"{"$or":[{"$and":[{"a":{"$gt":5,"$lt":3}}]},{"b":1}]}"#,
        ] {
            assert!(read(elsewhere).is_ok(), "{elsewhere}: documents can pass");
        }
        assert!(read(r#"{"$and":[{"a":{"$gt":5,"$lt":3}}]}"#).is_err());
        assert!(read(r#"{"$and":[{"a":{"$gt":5}},{"a":{"$lt":3}}]}"#).is_ok(), "an array may hold both");
    }

    #[test]
    fn limits_are_held() {
        let many = format!("{{\"a\":{{\"$in\":[{}0]}}}}", "0,".repeat(300));
        assert!(read(&many).unwrap_err().detail.contains("nodes"));
    }

    #[test]
    fn a_parameter_is_json() {
        assert_eq!(WireFilter::from_parameter(r#"{"a":1}"#).unwrap(), field("a", Condition::Eq(Value::Int(1))));
        assert_eq!(WireFilter::from_parameter("{a").unwrap_err().code, Code::InvalidParameter);
        assert_eq!(WireFilter::from_parameter(r#"{"$x":1}"#).unwrap_err().code, Code::InvalidFilter);
    }
}
