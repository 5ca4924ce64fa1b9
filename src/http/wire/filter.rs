//! Filters as clients write them: `{"field": value}`, `{"field": {"$op": value}}`, `{"$and": [..]}`.

use serde::Deserialize;

use super::value::WireValue;
use crate::http::error::{ApiError, Code};
use crate::types::{Condition, Filter, Metadata, Value};

const CONNECTIVES: &str = "$and, $or, $not";
const OPERATORS: &str = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $prefix, $contains";

/// A filter as a client sent it, not yet understood.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct WireFilter(WireValue);

impl WireFilter {
    /// # Errors
    /// [`Code::InvalidFilter`] names the operator or the path at fault and what is allowed there.
    pub(crate) fn into_filter(self) -> Result<Filter, ApiError> {
        let filter = parse(self.0.0).map_err(|detail| ApiError::new(Code::InvalidFilter, detail))?;
        filter.check()?;
        Ok(filter)
    }

    /// Reads a filter that stands in a query string as JSON.
    pub(crate) fn from_parameter(text: &str) -> Result<Filter, ApiError> {
        let super::value::WireMetadata(object) = super::json::parse_parameter("filter", text)?;
        WireFilter(WireValue(Value::Object(object))).into_filter()
    }
}

/// An object of conditions, all of which hold; several keys mean and.
fn parse(value: Value) -> Result<Filter, String> {
    let Value::Object(object) = value else {
        return Err(format!("a filter is an object such as {{\"field\": \"value\"}}, not {}", value.kind()));
    };
    let mut parts = object.into_iter().map(|(key, value)| parse_entry(key, value)).collect::<Result<Vec<_>, _>>()?;
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) })
}

fn parse_entry(key: String, value: Value) -> Result<Filter, String> {
    match key.as_str() {
        "$and" => Ok(Filter::And(parse_list("$and", value)?)),
        "$or" => Ok(Filter::Or(parse_list("$or", value)?)),
        "$not" => Ok(Filter::Not(Box::new(parse(value)?))),
        _ if key.starts_with('$') => Err(format!(
            "{key:?} is no connective; allowed are {CONNECTIVES}, and operators stand below a field's name"
        )),
        "" => Err("a field's name is empty; write {\"field\": value}".to_owned()),
        _ => parse_field(key, value),
    }
}

fn parse_list(connective: &str, value: Value) -> Result<Vec<Filter>, String> {
    match value {
        Value::Array(items) if !items.is_empty() => items.into_iter().map(parse).collect(),
        Value::Array(_) => Err(format!("{connective} is empty; give it at least one filter")),
        other => Err(format!("{connective} takes an array of filters, not {}", other.kind())),
    }
}

fn parse_field(path: String, value: Value) -> Result<Filter, String> {
    let Value::Object(operators) = value else {
        return Ok(Filter::Field { path, condition: Condition::Eq(value) });
    };
    if !operators.keys().next().is_some_and(|key| key.starts_with('$')) {
        return plain_object(path, operators);
    }
    let condition = |(operator, operand): (String, Value)| {
        let condition = parse_condition(&path, &operator, operand)?;
        Ok(Filter::Field { path: path.clone(), condition })
    };
    let mut parts = operators.into_iter().map(condition).collect::<Result<Vec<_>, String>>()?;
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
        ];
        for (text, wanted) in cases {
            let error = read(text).unwrap_err();
            assert_eq!(error.code, Code::InvalidFilter, "{text}");
            assert!(error.detail.contains(wanted), "{text}: {}", error.detail);
        }
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
