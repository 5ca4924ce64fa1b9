//! `import`: the documents of a file into a collection.

mod debezium;
mod lines;
mod postgres;
mod report;
mod writing;

use std::time::Instant;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::read::{self, FieldTypes, Format, Mapping, STDIN};
use super::target::{Access, Target, collection_path};
use super::{CliError, Context, output};
use crate::types::{CollectionName, FieldType};

use lines::Lines;
use report::Report;

/// Arguments of `import`.
#[derive(Args, Debug)]
#[command(
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    after_help = "\
A document needs an id and a text or a vector. Every other field becomes metadata, and so do the fields of an object
named `metadata`. Cells of a CSV file stay strings, unless the collection declares the field as number or boolean.
Documents as the API returns and takes them, with `chunks` or vectors as base64, are taken as they are.
A document whose id is there already is replaced, so running an import twice does no harm. Where the collection has a
template, texts are made of the fields, and a field `text` is one of them.

Examples:
  pannier import articles articles.jsonl --create
  pannier import products products.csv --create --field price:number --id-field sku --text-field title
  zcat dump.json.gz | pannier import articles - --format json"
)]
pub struct ImportArgs {
    #[command(subcommand)]
    source: Option<SourceCommand>,
    /// Collection to write into
    #[arg(required = true)]
    collection: Option<String>,
    /// File to read, or - for stdin
    #[arg(required = true)]
    file: Option<String>,
    /// What is in the file [default: by its extension]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Create the collection with the default model where it is missing
    #[arg(long)]
    create: bool,
    /// With --create: a metadata field of a type, keyword, number, boolean or geo; may be repeated
    #[arg(long = "field", value_name = "NAME:TYPE", value_parser = parse_field, requires = "create")]
    fields: Vec<(String, String)>,
    /// Field that holds the id
    #[arg(long, value_name = "FIELD", default_value = "id")]
    id_field: String,
    /// Field that holds the text; several are joined, each on its own line [default: text, where there is no template]
    #[arg(long = "text-field", value_name = "FIELD")]
    text_fields: Vec<String>,
    /// Field that holds the vector, as an array of numbers or as base64 of little-endian f32
    #[arg(long, value_name = "FIELD", default_value = "vector")]
    vector_field: String,
    /// Fields to keep as metadata, joined by commas [default: all others]
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    metadata_fields: Option<Vec<String>>,
}

/// Other sources than files.
#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Read a table or a query of a Postgres, once or again and again, only what changed
    Postgres(Box<postgres::PostgresArgs>),
    /// Apply change events of Debezium, one JSON object a line
    Debezium(debezium::DebeziumArgs),
}

/// Runs `import`.
///
/// # Errors
/// [`CliError::Lines`] when some documents did not get in, after all others have.
pub(super) fn run(args: &ImportArgs, context: &Context) -> Result<(), CliError> {
    let (collection, file) = match (&args.source, &args.collection, &args.file) {
        (Some(SourceCommand::Postgres(source)), ..) => return postgres::run(source, context),
        (Some(SourceCommand::Debezium(source)), ..) => return debezium::run(source, context),
        (_, Some(collection), Some(file)) => (collection, file),
        _ => return Err(CliError::Usage("name a collection and a file".to_owned())),
    };
    let name = CollectionName::new(collection)?;
    let format = match (args.format, file.as_str()) {
        (Some(format), _) => format,
        (None, STDIN) => Format::Jsonl,
        (None, file) => Format::of_name(file)?,
    };
    // Before anything is created: arguments that contradict and a file that is not there change nothing.
    args.mapping(false)?;
    let (input, len_bytes) = read::open(file)?;
    let target = Target::of(context, if args.create { Access::Create } else { Access::Existing })?;
    let definition = find_definition(&target, &name, args)?;
    let progress = output::byte_progress(context, len_bytes);
    let makes_texts = definition.as_ref().is_some_and(|there| !there["embedding"]["template"].is_null());
    let mapping = args.mapping(makes_texts)?;
    let types = mapping.types(declared_types(definition.as_ref(), args));
    // An input that is of another format, or ends within its first record, creates nothing either.
    let mut records = format.records(read::buffered(input, &progress), types)?.peekable();
    if let Some(Err(error)) = records.next_if(Result::is_err) {
        return Err(error);
    }
    if definition.is_none() {
        create(&target, &name, args)?;
    }

    let started = Instant::now();
    let named = args.text_fields.iter().chain(args.metadata_fields.iter().flatten()).cloned();
    let mut lines = Lines::new(Box::new(records), mapping, format, file, progress.clone()).expecting(named);
    let streamed = target.stream(&format!("{}/import", collection_path(&name)), &mut lines);
    progress.finish_and_clear();
    let read = lines.finish();
    let report = Report::new(streamed.report, &read, started.elapsed());
    report.print_refusals(&read);
    if context.json {
        output::json(report.to_json())?;
    }
    output::hint(context, report.summary(&name, &target.place(), &read));
    if let Some(error) = streamed.failure {
        output::hint(
            context,
            "The import ended early. Running it again does no harm: documents that are there are replaced.",
        );
        return Err(error);
    }
    for field in read.unseen.iter().filter(|_| read.understood > 0) {
        output::hint(context, format!("No {} of {file} has the field {field:?}; is it misspelt?", format.unit()));
    }
    match read.broken {
        Some(error) => Err(error),
        None if report.failed > 0 => {
            Err(CliError::Lines { failed: report.failed, total: read.count, unit: format.unit() })
        }
        None => Ok(()),
    }
}

impl ImportArgs {
    /// `makes_texts`: whether the collection has a template.
    fn mapping(&self, makes_texts: bool) -> Result<Mapping, CliError> {
        let text_fields = match self.text_fields.is_empty() && !makes_texts {
            true => vec!["text".to_owned()],
            false => self.text_fields.clone(),
        };
        let mut named = vec![&self.id_field, &self.vector_field];
        named.extend(&text_fields);
        for (index, name) in named.iter().enumerate() {
            if named[..index].contains(name) {
                return Err(CliError::Usage(format!(
                    "field {name:?} is named twice; id, text and vector need a field each"
                )));
            }
        }
        Ok(Mapping {
            id_field: self.id_field.clone(),
            text_fields,
            vector_field: self.vector_field.clone(),
            metadata_fields: self.metadata_fields.clone(),
        })
    }
}

/// The collection's definition; `None` where it is to be created.
fn find_definition(target: &Target, name: &CollectionName, args: &ImportArgs) -> Result<Option<Value>, CliError> {
    let Some(definition) = target.find_collection(name)? else {
        if args.create {
            return Ok(None);
        }
        let detail = format!(
            "there is no collection {name}; add --create for one with the default model, or make it with \
             `pannier collection create {name}`"
        );
        return Err(CliError::Refused(detail));
    };
    for (field, kind) in &args.fields {
        let declared = definition["fields"].get(field).and_then(Value::as_str);
        if declared != Some(kind) {
            let is = declared.map_or("does not declare it".to_owned(), |is| format!("declares it as {is}"));
            let detail =
                format!("--field {field}:{kind}: collection {name} is there already and {is}; leave --field out");
            return Err(CliError::Refused(detail));
        }
    }
    Ok(Some(definition))
}

/// The fields that the collection declares, or will.
fn declared_types(definition: Option<&Value>, args: &ImportArgs) -> FieldTypes {
    let Some(definition) = definition else {
        let declared = args.fields.iter();
        return declared.filter_map(|(field, kind)| Some((field.clone(), field_type(kind)?))).collect();
    };
    fields_of(definition)
}

/// The fields that a definition declares.
pub(super) fn fields_of(definition: &Value) -> FieldTypes {
    let declared = definition["fields"].as_object().into_iter().flatten();
    declared.filter_map(|(field, kind)| Some((field.clone(), field_type(kind.as_str()?)?))).collect()
}

fn create(target: &Target, name: &CollectionName, args: &ImportArgs) -> Result<(), CliError> {
    let fields: Map<_, _> = args.fields.iter().map(|(field, kind)| (field.clone(), json!(kind))).collect();
    target.call("PUT", &collection_path(name), Some(&json!({ "fields": fields })))?;
    Ok(())
}

/// A field and its type, as `--field` takes them.
///
/// # Errors
/// A sentence that says what to write.
pub(super) fn parse_field(text: &str) -> Result<(String, String), String> {
    let (name, kind) = text.rsplit_once(':').ok_or("write it as NAME:TYPE, such as price:number")?;
    match field_type(kind) {
        Some(_) if !name.is_empty() => Ok((name.to_owned(), kind.to_owned())),
        _ => Err("the type is keyword, number, boolean or geo, such as price:number".to_owned()),
    }
}

/// A type by its name in the API.
fn field_type(name: &str) -> Option<FieldType> {
    match name {
        "keyword" => Some(FieldType::Keyword),
        "number" => Some(FieldType::Number),
        "boolean" => Some(FieldType::Boolean),
        "geo" => Some(FieldType::Geo),
        _ => None,
    }
}
