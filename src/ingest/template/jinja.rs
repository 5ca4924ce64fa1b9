//! Templates in Jinja, over the metadata fields of a document.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

use minijinja::value::{Value as Jinjaed, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::{TemplateError, fields, filters, joins, names, syntax};
use crate::types::limits::MAX_TEXT_BYTES;
use crate::types::{DocumentId, Metadata, Value};

/// Steps of the template machine that one document may take.
const MAX_STEPS: u64 = 20_000;
/// The name under which the document's id is known, and all of its fields as one object.
const ID: &str = "id";
const METADATA: &str = "metadata";

/// A template that was checked and can be parsed.
pub(super) struct Jinja {
    environment: Environment<'static>,
    source: String,
}

impl Jinja {
    pub(super) fn new(source: &str) -> Result<Self, TemplateError> {
        syntax::check(source)?;
        let mut environment = Environment::empty();
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_formatter(|out, _, value| {
            let mut text = String::new();
            words(value, &mut text)?;
            out.write_str(&text).map_err(Error::from)
        });
        filters::add(&mut environment);
        environment.template_from_str(source).map_err(|error| of_parsing(&error))?;
        names::check(source)?;
        let source = joins::as_texts(source);
        environment.template_from_str(&source).map_err(|error| of_parsing(&error))?;
        Ok(Self { environment, source })
    }

    pub(super) fn render(&self, id: &DocumentId, metadata: &Metadata) -> Result<String, TemplateError> {
        let template = self.environment.template_from_str(&self.source).map_err(|error| of_parsing(&error))?;
        let mut fields: BTreeMap<String, Jinjaed> =
            metadata.iter().map(|(name, value)| (name.clone(), jinjaed(value))).collect();
        fields.insert(METADATA.to_owned(), object(metadata));
        fields.insert(ID.to_owned(), Jinjaed::from(id.as_str()));
        let mut out = Capped { bytes: Vec::new(), is_full: false };
        let rendered = template.render_captured_to(Jinjaed::from(fields), &mut out).map(drop);
        if out.is_full {
            return Err(TemplateError::TooLong { max: MAX_TEXT_BYTES });
        }
        rendered.map_err(|error| of_rendering(&error))?;
        let text = String::from_utf8(out.bytes).expect("a template machine writes strings");
        Ok(text.trim().to_owned())
    }
}

fn of_parsing(error: &Error) -> TemplateError {
    TemplateError::Syntax { line: error.line().unwrap_or(1), reason: reason(error) }
}

fn of_rendering(error: &Error) -> TemplateError {
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::TooSlow { max: MAX_STEPS },
        _ => TemplateError::Failed { line: error.line().unwrap_or(1), reason: reason(error) },
    }
}

/// How the details begin that repeat what a document holds, and what is said instead.
const TELLING: [(&str, &str); 2] = [
    ("unable to calculate ", "a number is divided by zero, or a result is too large"),
    ("unknown keyword argument ", "an argument has a name that the filter does not know"),
];

/// What went wrong, without the values of the document.
fn reason(error: &Error) -> String {
    let told = |detail| {
        let telling = TELLING.iter().find(|(begin, _)| str::starts_with(detail, begin));
        telling.map_or(detail, |(_, instead)| instead)
    };
    match error.detail().map(told) {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn jinjaed(value: &Value) -> Jinjaed {
    match value {
        Value::Null => Jinjaed::from(()),
        Value::Bool(value) => Jinjaed::from(*value),
        Value::Int(value) => Jinjaed::from(*value),
        Value::Float(value) => Jinjaed::from(*value),
        Value::String(value) => Jinjaed::from(value.as_str()),
        Value::Array(items) => items.iter().map(jinjaed).collect(),
        Value::Object(map) => object(map),
    }
}

fn object(map: &Metadata) -> Jinjaed {
    Jinjaed::from(map.iter().map(|(name, value)| (name.clone(), jinjaed(value))).collect::<BTreeMap<_, _>>())
}

/// Writes a value as words: numbers plain, nothing for null and for what is not there, the items of an array joined by
/// commas.
pub(super) fn words(value: &Jinjaed, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(()),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => {
                out.push_str(&fields::plain(number));
                Ok(())
            }
            Err(error) => Err(error),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                words(&item, out)?;
                if out.len() > MAX_TEXT_BYTES {
                    break;
                }
            }
            Ok(())
        }
        ValueKind::Map => {
            for (index, name) in value.try_iter()?.enumerate() {
                let before = if index > 0 { ", " } else { "" };
                write!(out, "{before}{name}: ").map_err(Error::from)?;
                words(&value.get_item(&name)?, out)?;
            }
            Ok(())
        }
        _ => match value.as_str() {
            Some(text) => {
                out.push_str(text);
                Ok(())
            }
            None => write!(out, "{value}").map_err(Error::from),
        },
    }
}

/// Bytes up to the longest text.
struct Capped {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_TEXT_BYTES {
            self.is_full = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
