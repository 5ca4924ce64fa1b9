//! `collection`: create, list, show, delete.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::confirm::confirm;
use super::import::parse_field;
use super::target::{Access, Target, collection_path, url_file};
use super::template::{GuardArgs, TemplateArgs};
use super::{CliError, Context, output};
use crate::types::CollectionName;

/// The commands on collections.
#[derive(Debug, Subcommand)]
pub enum CollectionCommand {
    /// Create a collection; what is left out is filled in
    Create(Box<CreateArgs>),
    /// List all collections
    List,
    /// Show a collection's definition and figures
    Show {
        /// Its name
        name: String,
    },
    /// Delete a collection with all its documents
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Arguments of `collection create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Its name: a-z, 0-9, _ and -
    name: String,
    /// Model that embeds its texts [default: the default model; none where --dim is given]
    #[arg(long)]
    model: Option<String>,
    /// Numbers in a vector [default: the model's]
    #[arg(long, value_name = "N")]
    dim: Option<u32>,
    /// How closeness is measured [default: cosine]
    #[arg(long)]
    metric: Option<MetricName>,
    /// Declared metadata field, with its type: keyword, number, boolean or geo; may be repeated
    #[arg(long = "field", value_name = "NAME:TYPE", value_parser = parse_field)]
    fields: Vec<(String, String)>,
    /// Neighbours of a graph node [default: 16]
    #[arg(long, value_name = "N")]
    m: Option<u32>,
    /// Candidates considered while building the graph [default: 128]
    #[arg(long, value_name = "N")]
    ef_construction: Option<u32>,
    /// What the graph walk reads [default: int8]
    #[arg(long)]
    quantization: Option<QuantizationName>,
    /// How the vectors are stored [default: float32]
    #[arg(long)]
    storage: Option<StorageName>,
    /// How keyword search makes words of texts [default: english]
    #[arg(long, value_name = "NAME")]
    language: Option<LanguageName>,
    /// Split long texts into chunks of at most so many tokens, each with a vector of its own
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<u32>,
    /// Tokens that a chunk shares with the one before it [default: an eighth of it]
    #[arg(long, value_name = "N", requires = "chunk_tokens")]
    chunk_overlap: Option<u32>,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    template: TemplateArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

/// Where the documents of a new collection stand.
#[derive(Args, Debug)]
struct BackendArgs {
    /// Lets the documents stand in a database that any number of servers share
    #[arg(long, value_name = "NAME", value_parser = ["postgres"])]
    backend: Option<String>,
    /// Environment variable of the server with the database's URL [default: DATABASE_URL]
    #[arg(long, value_name = "NAME", requires = "backend", conflicts_with = "url_file")]
    url_variable: Option<String>,
    /// File on the server with the database's URL
    #[arg(long, value_name = "FILE", requires = "backend")]
    url_file: Option<PathBuf>,
    /// Schema of the table [default: pannier]
    #[arg(long, value_name = "NAME", requires = "backend")]
    schema: Option<String>,
    /// Table [default: the collection's name]
    #[arg(long, value_name = "NAME", requires = "backend")]
    table: Option<String>,
}

impl BackendArgs {
    fn body(&self) -> Result<Option<Value>, CliError> {
        let Some(name) = &self.backend else { return Ok(None) };
        let mut backend = Map::from_iter([("type".to_owned(), json!(name))]);
        let url_file = self.url_file.as_deref().map(url_file).transpose()?;
        insert(&mut backend, "url_file", url_file.map(Value::from));
        for (key, value) in [("url_variable", &self.url_variable), ("schema", &self.schema), ("table", &self.table)] {
            insert(&mut backend, key, value.as_ref().map(|value| json!(value)));
        }
        Ok(Some(Value::Object(backend)))
    }
}

/// Languages by their names in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LanguageName {
    /// English endings do not count.
    English,
    /// Russian endings do not count.
    Russian,
    /// Words as they are.
    None,
}

/// Metrics by their names in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricName {
    /// Cosine similarity.
    Cosine,
    /// Inner product.
    Dot,
    /// Euclidean distance.
    L2,
}

/// Quantizations by their names in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QuantizationName {
    /// One signed byte a component.
    Int8,
    /// The vectors themselves.
    None,
    /// One bit a component, for at least 768 of them.
    Binary,
}

/// Forms of stored vectors by their names in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageName {
    /// As they came.
    Float32,
    /// In half the bytes.
    Float16,
}

/// Runs a command on collections.
///
/// # Errors
/// [`CliError::Api`] when it is refused.
pub(super) fn run(command: &CollectionCommand, context: &Context) -> Result<(), CliError> {
    match command {
        CollectionCommand::Create(args) => create(args, context),
        CollectionCommand::List => list(context),
        CollectionCommand::Show { name } => show(&CollectionName::new(name)?, context),
        CollectionCommand::Delete { name, yes } => delete(&CollectionName::new(name)?, *yes, context),
    }
}

impl CreateArgs {
    fn body(&self) -> Result<Value, CliError> {
        let mut index = Map::new();
        insert(&mut index, "m", self.m.map(Value::from));
        insert(&mut index, "ef_construction", self.ef_construction.map(Value::from));
        insert(&mut index, "quantization", self.quantization.map(possible_name));
        insert(&mut index, "storage", self.storage.map(possible_name));
        let mut body = Map::new();
        insert(&mut body, "dim", self.dim.map(Value::from));
        insert(&mut body, "metric", self.metric.map(possible_name));
        let mut embedding = Map::new();
        insert(&mut embedding, "model", self.model.as_ref().map(|model| json!(model)));
        insert(&mut embedding, "template", self.template.body()?);
        insert(&mut body, "embedding", (!embedding.is_empty()).then_some(Value::Object(embedding)));
        insert(&mut body, "guard", self.guard.body());
        insert(&mut body, "backend", self.backend.body()?);
        insert(&mut body, "index", (!index.is_empty()).then_some(Value::Object(index)));
        let fields: Map<_, _> = self.fields.iter().map(|(name, kind)| (name.clone(), json!(kind))).collect();
        insert(&mut body, "fields", (!fields.is_empty()).then_some(Value::Object(fields)));
        insert(&mut body, "text", self.language.map(|language| json!({"language": possible_name(language)})));
        if let Some(tokens) = self.chunk_tokens {
            let mut chunks = Map::from_iter([("max_tokens".to_owned(), tokens.into())]);
            insert(&mut chunks, "overlap_tokens", self.chunk_overlap.map(Value::from));
            body.insert("chunks".to_owned(), Value::Object(chunks));
        }
        Ok(Value::Object(body))
    }
}

fn insert(object: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value);
    }
}

fn possible_name(value: impl ValueEnum) -> Value {
    value.to_possible_value().map_or(Value::Null, |value| Value::from(value.get_name()))
}

fn create(args: &CreateArgs, context: &Context) -> Result<(), CliError> {
    let name = CollectionName::new(&args.name)?;
    let target = Target::of(context, Access::Create)?;
    let definition = target.call("PUT", &collection_path(&name), Some(&args.body()?))?;
    if context.json {
        return output::json(definition);
    }
    output::hint(context, format!("collection {name} is there"));
    Ok(())
}

fn list(context: &Context) -> Result<(), CliError> {
    let target = Target::of(context, Access::Existing)?;
    if context.json {
        return output::json(target.call("GET", "/v1/collections", None)?);
    }
    let answer = target.value("GET", "/v1/collections", None)?;
    let collections = answer["collections"].as_array().map_or(&[][..], Vec::as_slice);
    if collections.is_empty() {
        output::hint(context, "there are no collections; make one with `pannier collection create NAME`");
        return Ok(());
    }
    let mut rows = vec![["name", "documents", "dim", "metric", "model"].map(str::to_owned).to_vec()];
    let mut away = Vec::new();
    for collection in collections {
        let name = CollectionName::new(collection["name"].as_str().unwrap_or_default())?;
        let documents = match target.value("GET", &format!("{}/stats", collection_path(&name)), None) {
            Ok(stats) => output::count(stats["documents"].as_u64().unwrap_or(0)),
            // Such as one in a database that does not answer: the others are shown all the same.
            Err(CliError::Api { code, detail }) => {
                away.push(format!("{name}: {detail}"));
                format!("- ({code})")
            }
            Err(error) => return Err(error),
        };
        rows.push(vec![
            name.to_string(),
            documents,
            collection["dim"].to_string(),
            collection["metric"].as_str().unwrap_or_default().to_owned(),
            collection["embedding"]["model"].as_str().unwrap_or("-").to_owned(),
        ]);
    }
    output::table(&rows, &[1, 2])?;
    away.iter().for_each(output::complain);
    Ok(())
}

fn show(name: &CollectionName, context: &Context) -> Result<(), CliError> {
    let target = Target::of(context, Access::Existing)?;
    let mut shown = target.value("GET", &collection_path(name), None)?;
    shown["stats"] = target.value("GET", &format!("{}/stats", collection_path(name)), None)?;
    if context.json {
        return output::json(shown);
    }
    let mut rows = Vec::new();
    flatten("", &shown, &mut rows);
    output::table(&rows, &[])
}

/// Every leaf of an object as a row of its path and its value.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&below, value, rows);
            }
        }
        Value::String(text) => rows.push(vec![path.to_owned(), text.clone()]),
        Value::Null => rows.push(vec![path.to_owned(), "-".to_owned()]),
        other => rows.push(vec![path.to_owned(), other.to_string()]),
    }
}

fn delete(name: &CollectionName, yes: bool, context: &Context) -> Result<(), CliError> {
    let target = Target::of(context, Access::Existing)?;
    let stats = target.value("GET", &format!("{}/stats", collection_path(name)), None)?;
    let documents = output::counted(stats["documents"].as_u64().unwrap_or(0), "document");
    if !yes {
        confirm(&format!("Delete collection {name} with {documents}?"), context)?;
    }
    let answer = target.call("DELETE", &collection_path(name), None)?;
    if context.json {
        return output::json(answer);
    }
    output::hint(context, format!("collection {name} with {documents} is deleted"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn body(arguments: &[&str]) -> Result<Value, String> {
        let all = ["pannier", "collection", "create", "c"].iter().chain(arguments);
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Collection(CollectionCommand::Create(args)) => Ok(args.body().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_the_api_s_body() {
        assert_eq!(body(&[]).unwrap(), json!({}));
        let full = [
            "--dim",
            "3",
            "--metric",
            "l2",
            "--model",
            "m",
            "--field",
            "price:number",
            "--field",
            "a:b:keyword",
            "--m",
            "8",
            "--ef-construction",
            "64",
            "--quantization",
            "binary",
            "--storage",
            "float16",
            "--language",
            "russian",
            "--chunk-tokens",
            "200",
            "--chunk-overlap",
            "9",
        ];
        let wanted = json!({"dim": 3, "metric": "l2", "embedding": {"model": "m"},
            "fields": {"price": "number", "a:b": "keyword"},
            "index": {"m": 8, "ef_construction": 64, "quantization": "binary", "storage": "float16"},
            "text": {"language": "russian"}, "chunks": {"max_tokens": 200, "overlap_tokens": 9}});
        assert_eq!(body(&full).unwrap(), wanted);
    }

    #[test]
    fn a_backend_is_named_whole_or_not_at_all() {
        assert_eq!(body(&["--backend", "postgres"]).unwrap(), json!({"backend": {"type": "postgres"}}));
        let named = ["--backend", "postgres", "--url-file", "/run/url", "--schema", "s", "--table", "t"];
        let wanted = json!({"backend": {"type": "postgres", "url_file": "/run/url", "schema": "s", "table": "t"}});
        assert_eq!(body(&named).unwrap(), wanted);
        let relative = body(&["--backend", "postgres", "--url-file", "url"]).unwrap();
        let absolute = std::env::current_dir().unwrap().join("url");
        assert_eq!(relative["backend"]["url_file"], absolute.to_str().unwrap());
        for wrong in [&["--table", "t"][..], &["--backend", "mysql"]] {
            assert!(body(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn field_types_are_those_of_the_api() {
        for wrong in ["price", "price:date", ":number"] {
            assert!(body(&["--field", wrong]).unwrap_err().contains("price:number"), "{wrong}");
        }
    }

    #[test]
    fn leaves_become_rows() {
        let mut rows = Vec::new();
        flatten("", &json!({"a": {"b": 1, "c": null}, "d": "x"}), &mut rows);
        assert_eq!(rows, [["a.b", "1"], ["a.c", "-"], ["d", "x"]]);
    }
}
