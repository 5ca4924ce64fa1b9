//! `template`: what a collection's template makes of documents, and the options that make templates and guards.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::import::fields_of;
use super::read::{self, FieldTypes, Format, Mapping, STDIN, write_json_line};
use super::target::{Access, Target, collection_path};
use super::{CliError, Context, output};
use crate::types::CollectionName;
use crate::types::limits::MAX_DOCUMENTS_PER_REQUEST;

/// The commands on templates.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Show the texts that a template makes of documents; nothing is embedded, nothing is written
    Preview(PreviewArgs),
}

/// Arguments of `template preview`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pannier template preview products products.csv --id-field sku
  pannier template preview products products.csv --template '{{name}} costs {{price}}'")]
pub struct PreviewArgs {
    /// Collection whose template it is
    collection: String,
    /// File of documents, or - for stdin
    file: String,
    /// What is in the file [default: by its extension]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Field that holds the id
    #[arg(long, value_name = "FIELD", default_value = "id")]
    id_field: String,
    /// Most documents to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    #[command(flatten)]
    template: TemplateArgs,
}

/// Options that say how fields become texts.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Template")]
pub struct TemplateArgs {
    /// Jinja template over the metadata fields, such as '{{title}} by {{author.name}}'
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "template_file")]
    template: Option<String>,
    /// File that holds the Jinja template
    #[arg(long, value_name = "FILE")]
    template_file: Option<PathBuf>,
    /// Fields that become `name: value. `, in this order; `all` for every field
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', conflicts_with_all = ["template", "template_file"])]
    template_fields: Option<Vec<String>>,
    /// With --template-fields: fields to leave out [default: product_id,updated_at,created_at,deleted, unless
    /// they are named]
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', requires = "template_fields")]
    template_exclude: Option<Vec<String>>,
    /// With --template-fields: a field that is embedded apart, and how much it counts, such as name:3; may be repeated
    #[arg(long = "template-weight", value_name = "FIELD:WEIGHT", value_parser = parse_weight, requires = "template_fields")]
    template_weights: Vec<(String, f64)>,
}

/// Options that say which personal data are kept out.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Personal data")]
pub struct GuardArgs {
    /// Keep personal data out: refuse documents that carry any, or redact them
    #[arg(long, value_name = "ACTION")]
    guard: Option<GuardName>,
    /// With --guard: what to look for, joined by commas: email, phone, card, iban, ssn, ip [default: all]
    #[arg(long, value_name = "KINDS", value_delimiter = ',', requires = "guard",
          value_parser = ["email", "phone", "card", "iban", "ssn", "ip"])]
    guard_kinds: Option<Vec<String>>,
    /// With --guard: fields that are not looked into, joined by commas
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', requires = "guard")]
    guard_allow: Vec<String>,
}

/// Actions of a guard by their names in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GuardName {
    /// The request is refused.
    Refuse,
    /// A mark takes its place.
    Redact,
}

fn parse_weight(text: &str) -> Result<(String, f64), String> {
    let wrong = || "write it as FIELD:WEIGHT, such as name:3".to_owned();
    let (field, weight) = text.rsplit_once(':').ok_or_else(wrong)?;
    let weight: f64 = weight.parse().map_err(|_| wrong())?;
    if field.is_empty() { Err(wrong()) } else { Ok((field.to_owned(), weight)) }
}

impl TemplateArgs {
    /// The template as the API takes it, if one is asked for.
    ///
    /// # Errors
    /// [`CliError::Io`] when its file cannot be read.
    pub(super) fn body(&self) -> Result<Option<Value>, CliError> {
        if let Some(path) = &self.template_file {
            let text = std::fs::read_to_string(path)
                .map_err(|e| CliError::io(format!("read the template {}", path.display()), e))?;
            return Ok(Some(json!(text.trim_end())));
        }
        if let Some(template) = &self.template {
            return Ok(Some(json!(template)));
        }
        let Some(fields) = &self.template_fields else { return Ok(None) };
        let mut body = Map::new();
        if fields.as_slice() != ["all"] {
            body.insert("fields".to_owned(), json!(fields));
        }
        if let Some(exclude) = &self.template_exclude {
            body.insert("exclude".to_owned(), json!(exclude));
        }
        if !self.template_weights.is_empty() {
            let weights: Map<_, _> = self.template_weights.iter().map(|(f, w)| (f.clone(), json!(w))).collect();
            body.insert("weights".to_owned(), Value::Object(weights));
        }
        Ok(Some(Value::Object(body)))
    }
}

impl GuardArgs {
    /// The guard as the API takes it, if one is asked for.
    pub(super) fn body(&self) -> Option<Value> {
        let action = match self.guard? {
            GuardName::Refuse => "refuse",
            GuardName::Redact => "redact",
        };
        let mut body = json!({"action": action, "allow": self.guard_allow});
        if let Some(kinds) = &self.guard_kinds {
            body["kinds"] = json!(kinds);
        }
        Some(body)
    }
}

/// Runs a command on templates.
///
/// # Errors
/// [`CliError::Api`] when the template fails on a document.
pub(super) fn run(command: &TemplateCommand, context: &Context) -> Result<(), CliError> {
    let TemplateCommand::Preview(args) = command;
    let name = CollectionName::new(&args.collection)?;
    let format = match (args.format, args.file.as_str()) {
        (Some(format), _) => format,
        (None, STDIN) => Format::Jsonl,
        (None, file) => Format::of_name(file)?,
    };
    let target = Target::of(context, Access::Existing)?;
    // Cells are read as an import reads them.
    let types = target.find_collection(&name)?.map(|definition| fields_of(&definition)).unwrap_or_default();
    let documents = documents(args, format, types)?;
    let mut body = json!({ "documents": documents });
    if let Some(template) = args.template.body()? {
        body["template"] = template;
    }
    let answer = target.value("POST", &format!("{}/template/preview", collection_path(&name)), Some(&body))?;
    if context.json {
        return output::json(answer);
    }
    for preview in answer["previews"].as_array().into_iter().flatten() {
        let id = preview["id"].as_str().unwrap_or_default();
        output::line(format!("{id}: {}", preview["text"].as_str().unwrap_or("(no text)")))?;
        for part in preview["parts"].as_array().into_iter().flatten() {
            output::line(format!("    {} x {}", part["weight"], part["text"].as_str().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// The first documents of the file, all of their fields as metadata.
fn documents(args: &PreviewArgs, format: Format, types: FieldTypes) -> Result<Vec<Value>, CliError> {
    let (input, _) = read::open(&args.file)?;
    let buffered = Box::new(std::io::BufReader::new(input));
    let mapping = Mapping {
        id_field: args.id_field.clone(),
        text_fields: Vec::new(),
        vector_field: "vector".to_owned(),
        metadata_fields: None,
    };
    let limit = usize::from(args.limit).min(MAX_DOCUMENTS_PER_REQUEST);
    let mut documents = Vec::new();
    for record in format.records(buffered, mapping.types(types))?.take(limit) {
        let record = record?;
        let document =
            record.content.and_then(|object| mapping.document(object, record.columns.as_deref().unwrap_or_default()));
        let document = document.map_err(|error| {
            CliError::Refused(format!("{}: {} {}: {}", args.file, format.unit(), record.position, error.detail))
        })?;
        let mut line = Vec::new();
        write_json_line(&mut line, &document).map_err(|e| CliError::io("write a document", e))?;
        let mut value: Value = serde_json::from_slice(&line).map_err(|error| CliError::Other(Box::new(error)))?;
        // A vector says nothing about the text.
        value.as_object_mut().map(|object| object.remove("vector"));
        documents.push(value);
    }
    if documents.is_empty() {
        return Err(CliError::Refused(format!("{} holds no documents", args.file)));
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        template: TemplateArgs,
        #[command(flatten)]
        guard: GuardArgs,
    }

    fn bodies(arguments: &[&str]) -> (Option<Value>, Option<Value>) {
        let line = Line::try_parse_from(["x"].iter().chain(arguments)).unwrap_or_else(|error| panic!("{error}"));
        (line.template.body().unwrap(), line.guard.body())
    }

    #[test]
    fn options_become_the_api_s_bodies() {
        assert_eq!(bodies(&[]), (None, None));
        assert_eq!(bodies(&["--template", "{{a}}"]).0, Some(json!("{{a}}")));
        assert_eq!(bodies(&["--template-fields", "all"]).0, Some(json!({})));
        let fields = ["--template-fields", "a,b.c", "--template-exclude", "", "--template-weight", "a:3"];
        assert_eq!(bodies(&fields).0, Some(json!({"fields": ["a", "b.c"], "exclude": [""], "weights": {"a": 3.0}})));
        let guard = ["--guard", "redact", "--guard-kinds", "email,ip", "--guard-allow", "x"];
        assert_eq!(bodies(&guard).1, Some(json!({"action": "redact", "kinds": ["email", "ip"], "allow": ["x"]})));
        assert!(Line::try_parse_from(["x", "--template-weight", "a"]).is_err());
        let unknown =
            Line::try_parse_from(["x", "--guard", "redact", "--guard-kinds", "emal"]).err().unwrap().to_string();
        assert!(unknown.contains("email, phone, card"), "{unknown}");
    }
}
