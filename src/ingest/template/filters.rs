//! The filters of a template: those of Jinja that cannot make a text grow without bound, and some of our own.

use std::borrow::Cow;

use minijinja::filters as builtin;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, tests};

use super::jinja::words;
use crate::types::limits::MAX_TEXT_BYTES;

/// Names of what templates may use, and what adds it.
macro_rules! named {
    ($names:ident $add:ident $method:ident: $($name:literal => $function:expr),* $(,)?) => {
        pub(super) const $names: &[&str] = &[$($name),*];

        fn $add(environment: &mut Environment<'_>) {
            $(environment.$method($name, $function);)*
        }
    };
}

named! { FILTERS add_filters add_filter:
    "abs" => builtin::abs,
    "capitalize" => capitalize,
    "count" => builtin::length,
    "d" => builtin::default,
    "default" => builtin::default,
    "first" => builtin::first,
    "float" => builtin::float,
    "int" => builtin::int,
    "join" => join,
    "last" => builtin::last,
    "length" => builtin::length,
    "lower" => lower,
    "max" => builtin::max,
    "min" => builtin::min,
    "replace" => replace,
    "reverse" => builtin::reverse,
    "round" => builtin::round,
    "sort" => builtin::sort,
    "sum" => sum,
    "title" => title,
    "trim" => trim,
    "truncate" => truncate,
    "unique" => builtin::unique,
    "upper" => upper,
    "yes_no" => yes_no,
}

named! { TESTS add_tests add_test:
    "defined" => tests::is_defined,
    "undefined" => tests::is_undefined,
    "none" => tests::is_none,
    "string" => tests::is_string,
    "number" => tests::is_number,
    "sequence" => tests::is_sequence,
    "mapping" => tests::is_mapping,
}

/// The filter of the operands of `~`, which no template names.
pub(super) const TEXT: &str = "text";

/// Adds every filter and test that there is.
pub(super) fn add(environment: &mut Environment<'_>) {
    add_filters(environment);
    environment.add_filter(TEXT, text);
    add_tests(environment);
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

/// What plain `{{ }}` writes of a value: the text that filters of texts work on.
fn text(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    words(value, &mut text)?;
    Ok(text)
}

fn capitalize(value: &Value) -> Result<String, Error> {
    let text = text(value)?;
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase).into_iter().flatten();
    Ok(first.chain(characters.flat_map(char::to_lowercase)).collect())
}

fn lower(value: &Value) -> Result<String, Error> {
    Ok(text(value)?.to_lowercase())
}

fn title(value: &Value) -> Result<String, Error> {
    Ok(builtin::title(Cow::Owned(text(value)?)))
}

/// Without white space at both ends, or without these characters.
fn trim(value: &Value, characters: Option<Cow<'_, str>>) -> Result<String, Error> {
    let text = text(value)?;
    Ok(match characters {
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_owned(),
        None => text.trim().to_owned(),
    })
}

fn upper(value: &Value) -> Result<String, Error> {
    Ok(text(value)?.to_uppercase())
}

/// Another text in every place of one, which is nowhere where it is empty.
fn replace(value: &Value, from: &Value, to: &Value) -> Result<String, Error> {
    let (value, from, to) = (text(value)?, text(from)?, text(to)?);
    if from.is_empty() {
        return Ok(value);
    }
    let places = value.matches(&from).count();
    let len = value.len().saturating_add(places.saturating_mul(to.len()));
    if len > MAX_TEXT_BYTES {
        return Err(too_long());
    }
    Ok(value.replace(&from, &to))
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
fn truncate(value: &Value, characters: usize) -> Result<String, Error> {
    Ok(text(value)?.chars().take(characters).collect())
}

/// `yes` for what is true, else `no`; nothing where there is no value.
fn yes_no(value: &Value) -> &'static str {
    match value {
        value if value.is_undefined() || value.is_none() => "",
        value if value.is_true() => "yes",
        _ => "no",
    }
}
