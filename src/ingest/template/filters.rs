//! The filters of a template: those of Jinja that cannot make a text grow without bound, and some of our own.

use std::borrow::Cow;

use minijinja::filters as builtin;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, tests};

use super::jinja::words;
use crate::types::limits::MAX_TEXT_BYTES;

/// Adds every filter and test that there is.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("abs", builtin::abs);
    environment.add_filter("capitalize", builtin::capitalize);
    environment.add_filter("count", builtin::length);
    environment.add_filter("d", builtin::default);
    environment.add_filter("default", builtin::default);
    environment.add_filter("first", builtin::first);
    environment.add_filter("float", builtin::float);
    environment.add_filter("int", builtin::int);
    environment.add_filter("join", join);
    environment.add_filter("last", builtin::last);
    environment.add_filter("length", builtin::length);
    environment.add_filter("lower", builtin::lower);
    environment.add_filter("max", builtin::max);
    environment.add_filter("min", builtin::min);
    environment.add_filter("replace", replace);
    environment.add_filter("reverse", builtin::reverse);
    environment.add_filter("round", builtin::round);
    environment.add_filter("sort", builtin::sort);
    environment.add_filter("sum", sum);
    environment.add_filter("title", builtin::title);
    environment.add_filter("trim", builtin::trim);
    environment.add_filter("truncate", truncate);
    environment.add_filter("unique", builtin::unique);
    environment.add_filter("upper", builtin::upper);
    environment.add_filter("yes_no", yes_no);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("string", tests::is_string);
    environment.add_test("number", tests::is_number);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("mapping", tests::is_mapping);
}

fn too_long() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a filter makes a text of more than {MAX_TEXT_BYTES} bytes"))
}

/// The items of an array, as words, with something between them; nothing where there is no array.
fn join(value: &Value, between: Option<Cow<'_, str>>) -> Result<String, Error> {
    if value.is_undefined() || value.is_none() {
        return Ok(String::new());
    }
    let between = between.as_deref().unwrap_or("");
    let mut text = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            text.push_str(between);
        }
        words(&item, &mut text)?;
        if text.len() > MAX_TEXT_BYTES {
            return Err(too_long());
        }
    }
    Ok(text)
}

/// Another text in every place of one.
fn replace(value: Cow<'_, str>, from: Cow<'_, str>, to: Cow<'_, str>) -> Result<String, Error> {
    let places = value.matches(&*from).count();
    let len = value.len().saturating_add(places.saturating_mul(to.len()));
    if len > MAX_TEXT_BYTES {
        return Err(too_long());
    }
    Ok(value.replace(&*from, &to))
}

/// The sum of the numbers of an array. Only of numbers: texts added one by one are copied again and again.
fn sum(values: &Value) -> Result<Value, Error> {
    let (mut whole, mut broken) = (Some(0i64), 0f64);
    for value in values.try_iter()? {
        if !matches!(value.kind(), ValueKind::Number) {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("can only sum numbers, not {}", value.kind())));
        }
        broken += f64::try_from(value.clone())?;
        whole = whole.zip(value.as_i64()).and_then(|(sum, value)| sum.checked_add(value));
    }
    Ok(whole.map_or_else(|| Value::from(broken), Value::from))
}

/// The first characters of a text.
fn truncate(value: Cow<'_, str>, characters: usize) -> String {
    value.chars().take(characters).collect()
}

/// `yes` for what is true, else `no`; nothing where there is no value.
fn yes_no(value: &Value) -> &'static str {
    match value {
        value if value.is_undefined() || value.is_none() => "",
        value if value.is_true() => "yes",
        _ => "no",
    }
}
