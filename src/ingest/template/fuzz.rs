//! Templates of any text over any fields.

use std::collections::BTreeMap;

use super::Templater;
use crate::types::limits::MAX_TEXT_BYTES;
use crate::types::{DocumentId, FieldsTemplate, Metadata, TemplateDefinition, Value};

/// The text before the first zero byte as a template; what is between the next ones is names and values of a document's
/// fields. Whether it is a template that makes a text of them.
pub fn template(bytes: &[u8]) -> bool {
    let mut parts = bytes.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let source = parts.next().unwrap_or_default().into_owned();
    let parts: Vec<_> = parts.collect();
    let mut metadata: Metadata =
        parts.chunks(2).map(|pair| (pair[0].clone().into_owned(), value(pair.get(1).map_or("", |v| v)))).collect();
    metadata.insert("inner".to_owned(), Value::Object(metadata.clone()));
    metadata.insert("list".to_owned(), Value::Array(metadata.values().cloned().collect()));
    let id = DocumentId::new("fuzz").expect("a constant");

    let fields = FieldsTemplate { only: Vec::new(), exclude: vec![source.clone()], weights: BTreeMap::new() };
    let makes_a_text = |definition: TemplateDefinition| {
        if definition.check().is_ok()
            && let Ok(templater) = Templater::new(&definition)
            && let Ok(rendered) = templater.render(&id, &metadata)
        {
            assert!(rendered.text.len() <= MAX_TEXT_BYTES, "{} bytes", rendered.text.len());
            return true;
        }
        false
    };
    makes_a_text(TemplateDefinition::Fields(fields));
    makes_a_text(TemplateDefinition::Jinja(source))
}

fn value(text: &str) -> Value {
    match (text, text.parse(), text.parse::<f64>()) {
        ("", ..) => Value::Null,
        ("true" | "false", ..) => Value::Bool(text == "true"),
        (_, Ok(int), _) => Value::Int(int),
        (_, _, Ok(float)) if float.is_finite() => Value::Float(float),
        _ => Value::String(text.to_owned()),
    }
}
