//! A filter as a SQL condition: true for exactly the rows whose documents [`Filter::matches`] passes.
//!
//! Every value is a parameter of type `text`. Every condition is true or false and never NULL, so that `not` means what
//! it means here.

use std::collections::HashMap;

use crate::postgres::jsonb;
use crate::types::{Condition, EARTH_RADIUS_METERS, Filter, GeoPoint, Value};

use super::json;

/// Most dots of a path. A path of n dots names 2^n places, since names may have dots themselves.
const MAX_DOTS: usize = 6;

/// A condition and its parameters.
#[derive(Debug, Default)]
pub(super) struct Where {
    pub sql: String,
    /// All of type `text`.
    pub params: Vec<String>,
    /// Where each stands among them.
    places: HashMap<String, usize>,
    first: usize,
}

impl Where {
    /// The condition of a filter, true without one; its parameters are `$first` and following.
    ///
    /// # Errors
    /// What Postgres cannot do, as a clause after "which".
    pub fn new(filter: Option<&Filter>, first: usize) -> Result<Self, String> {
        let mut made = Self { first, ..Self::default() };
        made.sql = match filter {
            Some(filter) => made.filter(filter)?,
            None => "true".to_owned(),
        };
        Ok(made)
    }

    fn param(&mut self, text: impl Into<String>) -> Result<String, String> {
        let text = text.into();
        if text.contains('\0') {
            return Err("holds no text with U+0000, and the filter has one; take it out".to_owned());
        }
        let params = &mut self.params;
        let place = *self.places.entry(text).or_insert_with_key(|text| {
            params.push(text.clone());
            params.len() - 1
        });
        Ok(format!("${}", self.first + place))
    }

    fn json(&mut self, value: &Value) -> Result<String, String> {
        if jsonb::holds_nul(value) {
            return Err("holds no text with U+0000, and the filter has one; take it out".to_owned());
        }
        Ok(format!("{}::jsonb", self.param(json::value(value))?))
    }

    fn filter(&mut self, filter: &Filter) -> Result<String, String> {
        let joined = |parts: Vec<String>, word: &str, empty: &str| match parts.is_empty() {
            true => empty.to_owned(),
            false => format!("({})", parts.join(word)),
        };
        Ok(match filter {
            Filter::And(parts) => {
                joined(parts.iter().map(|p| self.filter(p)).collect::<Result<_, _>>()?, " and ", "true")
            }
            Filter::Or(parts) => {
                joined(parts.iter().map(|p| self.filter(p)).collect::<Result<_, _>>()?, " or ", "false")
            }
            Filter::Not(part) => format!("(not {})", self.filter(part)?),
            Filter::Field { path, condition } => self.field(path, condition)?,
        })
    }

    fn field(&mut self, path: &str, condition: &Condition) -> Result<String, String> {
        Ok(match condition {
            Condition::Exists(true) => format!("({} is not null)", self.value_at(path)?),
            Condition::Exists(false) => format!("({} is null)", self.value_at(path)?),
            Condition::Eq(value) => self.equals_one(path, std::slice::from_ref(value))?,
            Condition::Ne(value) => format!("(not {})", self.equals_one(path, std::slice::from_ref(value))?),
            Condition::In(values) => self.equals_one(path, values)?,
            Condition::Nin(values) => format!("(not {})", self.equals_one(path, values)?),
            Condition::Gt(value) => self.compares(path, ">", value)?,
            Condition::Gte(value) => self.compares(path, ">=", value)?,
            Condition::Lt(value) => self.compares(path, "<", value)?,
            Condition::Lte(value) => self.compares(path, "<=", value)?,
            Condition::Prefix(start) => {
                let start = self.param(start.as_str())?;
                let fits = format!(
                    "case when jsonb_typeof(x) = 'string' then starts_with(x #>> '{{}}', {start}) else false end"
                );
                self.of_value(path, &any(&fits))?
            }
            Condition::Contains(part) => {
                let equal = self.equal("x", part)?;
                let text = match part {
                    Value::String(text) => {
                        let part = self.param(text.as_str())?;
                        format!("when 'string' then strpos((v #>> '{{}}') collate \"C\", {part}) > 0 ")
                    }
                    _ => String::new(),
                };
                let fits = format!("case jsonb_typeof(v) {text}when 'array' then {} else false end", any(&equal));
                self.of_value(path, &fits)?
            }
            Condition::GeoRadius { center, meters } => {
                let fits = self.near(*center, *meters)?;
                self.of_value(path, &any(&fits))?
            }
        })
    }

    /// Whether a condition on `v`, the value at a path, holds; false where there is none.
    fn of_value(&mut self, path: &str, fits: &str) -> Result<String, String> {
        let value = self.value_at(path)?;
        Ok(format!("coalesce((select {fits} from (select {value} as v) as at_path where v is not null), false)"))
    }

    fn value_at(&mut self, path: &str) -> Result<String, String> {
        value_at(path, |name| self.param(name))
    }

    /// Whether the value at a path, or an element of it, equals one of these.
    fn equals_one(&mut self, path: &str, values: &[Value]) -> Result<String, String> {
        if values.is_empty() {
            return Ok("false".to_owned());
        }
        let is_plain = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_));
        if !path.contains('.') && values.iter().all(is_plain) {
            // What `@>` means for a plain value, and what the index on the metadata answers.
            let mut contained = Vec::with_capacity(2 * values.len());
            for value in values {
                for form in [value.clone(), Value::Array(vec![value.clone()])] {
                    let object = Value::Object([(path.to_owned(), form)].into());
                    contained.push(format!("metadata @> {}", self.json(&object)?));
                }
            }
            return Ok(format!("({})", contained.join(" or ")));
        }
        let mut equal_to_one = |side: &str| {
            let equal = values.iter().map(|value| self.equal(side, value)).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, String>(equal.join(" or "))
        };
        let fits = format!("({} or {})", equal_to_one("v")?, any(&equal_to_one("x")?));
        self.of_value(path, &fits)
    }

    /// Whether one side equals a value. Within arrays and objects 1 is not 1.0, which `jsonb` tells apart only in its
    /// text.
    fn equal(&mut self, side: &str, value: &Value) -> Result<String, String> {
        let other = self.json(value)?;
        Ok(match value {
            Value::Array(_) | Value::Object(_) => format!("({side} = {other} and {side}::text = ({other})::text)"),
            _ => format!("({side} = {other})"),
        })
    }

    fn compares(&mut self, path: &str, operator: &str, value: &Value) -> Result<String, String> {
        let fits = match value {
            Value::Int(_) | Value::Float(_) => {
                let bound = self.param(json::value(value))?;
                format!(
                    "case when jsonb_typeof(x) = 'number' then x::numeric {operator} {bound}::numeric else false end"
                )
            }
            Value::String(text) => {
                let bound = self.param(text.as_str())?;
                format!(
                    "case when jsonb_typeof(x) = 'string' then (x #>> '{{}}') collate \"C\" {operator} {bound} \
                     else false end"
                )
            }
            // Nothing else has an order.
            _ => return Ok("false".to_owned()),
        };
        self.of_value(path, &any(&fits))
    }

    /// Whether `x` is a point at most so far away: the steps of [`GeoPoint::distance_meters`] in their order. Postgres
    /// refuses products too small for a double, so what is smaller than 1e-100 degrees counts as zero.
    fn near(&mut self, center: GeoPoint, meters: f64) -> Result<String, String> {
        let lat = self.param(tiny_is_zero(center.lat()))?;
        let lon = self.param(tiny_is_zero(center.lon()))?;
        let meters = self.param(format!("{meters:?}"))?;
        let number = |name: &str| format!("jsonb_typeof(x -> '{name}') = 'number'");
        let within = |name: &str, bound: u32| format!("(x -> '{name}')::numeric between -{bound} and {bound}");
        let degrees = |name: &str| {
            format!("case when abs((x -> '{name}')::numeric) < 1e-100 then 0 else (x -> '{name}')::float8 end")
        };
        let apart = |of: &str| format!("case when abs({of}) < 1e-100 then 0 else {of} end");
        let place = format!("select {} as lat, {} as lon", degrees("lat"), degrees("lon"));
        let angles = format!(
            "select radians(lat) as lat, {} as lats, {} as lons from ({place}) as place",
            apart(&format!("(radians(lat) - radians({lat}::float8))")),
            apart(&format!("(lon - {lon}::float8)")),
        );
        let sines = format!(
            "select lat, sin(lats / 2.0::float8) as lats, sin(radians(lons) / 2.0::float8) as lons \
             from ({angles}) as angles"
        );
        Ok(format!(
            "case when jsonb_typeof(x) = 'object' then case when {} and {} then case when {} and {} then \
             (select 2.0::float8 * {EARTH_RADIUS_METERS}::float8 * asin(sqrt(least(greatest(\
             lats * lats + cos(radians({lat}::float8)) * cos(lat) * lons * lons, 0), 1))) \
             <= {meters}::float8 from ({sines}) as sines) \
             else false end else false end else false end",
            number("lat"),
            number("lon"),
            within("lat", 90),
            within("lon", 180),
        ))
    }
}

/// The value at a path as SQL: the first of the places that the path may mean which is there. `sql`: of a name.
///
/// # Errors
/// What Postgres cannot do, as a clause after "which".
pub(super) fn value_at(path: &str, mut sql: impl FnMut(&str) -> Result<String, String>) -> Result<String, String> {
    let dots = path.matches('.').count();
    if dots > MAX_DOTS {
        return Err(format!("looks for fields of at most {MAX_DOTS} dots, and {path:?} has {dots}"));
    }
    let mut places = Vec::new();
    for names in readings(path) {
        let mut place = "metadata".to_owned();
        for name in names {
            place.push_str(" -> ");
            place.push_str(&sql(name)?);
        }
        places.push(format!("({place})"));
    }
    Ok(match places.as_slice() {
        [only] => only.clone(),
        _ => format!("coalesce({})", places.join(", ")),
    })
}

fn tiny_is_zero(degrees: f64) -> String {
    if degrees.abs() < 1e-100 { "0".to_owned() } else { format!("{degrees:?}") }
}

/// Whether a condition on `x` holds for `v` or, where it is an array, for one of its elements.
fn any(fits: &str) -> String {
    format!(
        "exists (select 1 from jsonb_array_elements(case when jsonb_typeof(v) = 'array' then v \
         else jsonb_build_array(v) end) as e(x) where {fits})"
    )
}

/// What a path may mean, in the order in which [`crate::types::lookup`] tries it: lists of names.
fn readings(path: &str) -> Vec<Vec<&str>> {
    let mut found = vec![vec![path]];
    for (dot, _) in path.match_indices('.') {
        for mut rest in readings(&path[dot + 1..]) {
            rest.insert(0, &path[..dot]);
            found.push(rest);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_in_the_order_of_lookups() {
        let wanted: [&[&str]; 4] = [&["a.b.c"], &["a", "b.c"], &["a", "b", "c"], &["a.b", "c"]];
        assert_eq!(readings("a.b.c"), wanted);
        assert_eq!(readings(""), [[""]]);
    }

    #[test]
    fn nothing_of_a_filter_is_written_into_the_statement() {
        let hostile = "'); drop table x; --";
        let text = || Value::String(hostile.into());
        let conditions = [
            Condition::Eq(text()),
            Condition::Nin(vec![text(), Value::Array(vec![text()])]),
            Condition::Gt(text()),
            Condition::Prefix(hostile.into()),
            Condition::Contains(text()),
            Condition::Exists(true),
        ];
        for condition in conditions {
            let filter = Filter::Field { path: format!("a.{hostile}"), condition };
            let made = Where::new(Some(&filter), 3).unwrap();
            assert!(!made.sql.contains("drop"), "{}", made.sql);
            assert!(made.sql.contains("$3") && !made.sql.contains("$2"), "{}", made.sql);
        }
    }

    #[test]
    fn what_postgres_cannot_hold_or_follow_is_refused() {
        let nul = Filter::eq("a", Value::String("x\0".into()));
        assert!(Where::new(Some(&nul), 1).unwrap_err().contains("U+0000"));
        let deep = Filter::eq("a.b.c.d.e.f.g.h", Value::Null);
        assert!(Where::new(Some(&deep), 1).unwrap_err().contains("7"));
        assert_eq!(Where::new(None, 1).unwrap().sql, "true");
    }
}
