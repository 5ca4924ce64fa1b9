//! `name: value. ` for every field, and values as plain words.

use crate::types::limits::MAX_TEXT_BYTES;
use crate::types::{FieldsTemplate, Metadata, Value, Weight, lookup};

use super::{Part, Rendered, TemplateError};

/// The text of a document, and its parts where fields have weights.
///
/// # Errors
/// [`TemplateError::TooLong`].
pub(super) fn render(template: &FieldsTemplate, metadata: &Metadata) -> Result<Rendered, TemplateError> {
    let (mut text, mut rest, mut parts) = (String::new(), String::new(), Vec::new());
    for (name, value) in chosen(template, metadata) {
        let from = text.len();
        write_field(name, value, template, &mut text)?;
        let written = text[from..].trim_end();
        match template.weights.get(name) {
            _ if written.is_empty() => {}
            Some(&weight) => parts.push(Part { text: written.to_owned(), weight }),
            None => rest.push_str(&text[from..]),
        }
    }
    text.truncate(text.trim_end().len());
    if parts.is_empty() {
        return Ok(Rendered { text, parts });
    }
    rest.truncate(rest.trim_end().len());
    if !rest.is_empty() {
        parts.push(Part { text: rest, weight: Weight::ONE });
    }
    Ok(Rendered { text, parts })
}

/// The fields that become text, in their order.
fn chosen<'a>(template: &'a FieldsTemplate, metadata: &'a Metadata) -> Vec<(&'a str, &'a Value)> {
    let fields: Vec<(&str, &Value)> = match template.only.is_empty() {
        true => metadata.iter().map(|(name, value)| (name.as_str(), value)).collect(),
        false => template.only.iter().filter_map(|name| Some((name.as_str(), lookup(metadata, name)?))).collect(),
    };
    fields.into_iter().filter(|(name, _)| !is_excluded(template, name)).collect()
}

fn is_excluded(template: &FieldsTemplate, path: &str) -> bool {
    template.exclude.iter().any(|excluded| excluded == path)
}

/// Writes `name: value. `, an object as its fields by their paths, and nothing where there is no value.
///
/// # Errors
/// [`TemplateError::TooLong`] as soon as `out` is: a path stands there once for each field below it.
fn write_field(path: &str, value: &Value, template: &FieldsTemplate, out: &mut String) -> Result<(), TemplateError> {
    if let Value::Object(inner) = value {
        for (name, value) in inner {
            let below = format!("{path}.{name}");
            if !is_excluded(template, &below) {
                write_field(&below, value, template, out)?;
            }
        }
        return Ok(());
    }
    let start = out.len();
    out.push_str(path);
    out.push_str(": ");
    let value_start = out.len();
    write_value(value, out);
    match out[value_start..].trim().is_empty() {
        true => out.truncate(start),
        false => out.push_str(". "),
    }
    match out.len() > MAX_TEXT_BYTES {
        true => Err(TemplateError::TooLong { max: MAX_TEXT_BYTES }),
        false => Ok(()),
    }
}

/// A value in words: numbers plain, booleans as yes and no, null as nothing, the items of an array joined by commas.
pub(super) fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => {}
        Value::Bool(true) => out.push_str("yes"),
        Value::Bool(false) => out.push_str("no"),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&plain(*number)),
        Value::String(text) => out.push_str(text.trim()),
        Value::Array(items) => {
            let words = items.iter().map(|item| {
                let mut word = String::new();
                write_value(item, &mut word);
                word
            });
            let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
            out.push_str(&words.join(", "));
        }
        Value::Object(inner) => {
            let words = inner.iter().filter_map(|(name, value)| {
                let mut word = format!("{name}: ");
                let start = word.len();
                write_value(value, &mut word);
                (word.len() > start).then_some(word)
            });
            out.push_str(&words.collect::<Vec<_>>().join(", "));
        }
    }
}

/// A number without an exponent, and without a fraction where it is whole.
pub(super) fn plain(number: f64) -> String {
    format!("{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_above_many_fields_is_refused_before_it_is_written_for_each() {
        let inner: Metadata = (0..1_000).map(|n| (format!("f{n}"), Value::Int(1))).collect();
        let path = "p".repeat(MAX_TEXT_BYTES / 4);
        let mut text = String::new();
        let written = write_field(&path, &Value::Object(inner), &FieldsTemplate::default(), &mut text);
        assert_eq!(written, Err(TemplateError::TooLong { max: MAX_TEXT_BYTES }));
        assert!(text.len() < 2 * MAX_TEXT_BYTES, "{}", text.len());
    }

    #[test]
    fn numbers_are_plain() {
        let cases = [(1_200.0, "1200"), (0.5, "0.5"), (-3.25, "-3.25"), (1e21, "1000000000000000000000"), (0.1, "0.1")];
        for (number, wanted) in cases {
            assert_eq!(plain(number), wanted);
        }
    }
}
