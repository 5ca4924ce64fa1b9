//! `search`: the documents nearest to a text, a vector or another document.

use clap::Args;
use serde_json::{Map, Value, json};

use super::target::{Access, Target, collection_path};
use super::{CliError, Context, output};
use crate::types::CollectionName;

/// Characters of a hit's text in a table.
const TEXT_WIDTH: usize = 80;
/// Characters of an id in a table.
const ID_WIDTH: usize = 32;

/// Arguments of `search`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pannier search articles \"something warm for the mountains\"
  pannier search articles \"sleeping bag\" --filter '{\"price\": {\"$lt\": 100}}' --top-k 3 --json
  pannier search articles --id tent-3")]
pub struct SearchArgs {
    /// Collection to search
    collection: String,
    /// Text to search near
    #[arg(required_unless_present_any = ["vector", "id"], conflicts_with_all = ["vector", "id"])]
    text: Option<String>,
    /// Vector to search near, as a JSON array
    #[arg(long, value_name = "JSON", conflicts_with = "id")]
    vector: Option<String>,
    /// Stored document to search near
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Most hits
    #[arg(long, short = 'k', value_name = "N", default_value_t = 10)]
    top_k: usize,
    /// Only documents whose metadata match, such as '{"price": {"$lt": 10}}'
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Leave out hits with a lower score
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// Compare with every document instead of walking the graph
    #[arg(long)]
    exact: bool,
    /// Candidates kept while walking the graph [default: chosen for recall]
    #[arg(long, value_name = "N")]
    ef_search: Option<usize>,
}

/// Runs `search`.
///
/// # Errors
/// [`CliError::Api`] when the query is refused.
pub(super) fn run(args: &SearchArgs, context: &Context) -> Result<(), CliError> {
    let name = CollectionName::new(&args.collection)?;
    let body = args.body()?;
    let target = Target::of(context, Access::Existing)?;
    let path = format!("{}/search", collection_path(&name));
    if context.json {
        return output::line(target.call("POST", &path, Some(&body))?);
    }
    let answer = target.value("POST", &path, Some(&body))?;
    let hits = answer["hits"].as_array().map_or(&[][..], Vec::as_slice);
    if !hits.is_empty() {
        output::table(&rows(hits), &[0])?;
    }
    output::hint(context, summary(&answer, hits.len() as u64));
    Ok(())
}

impl SearchArgs {
    fn body(&self) -> Result<Value, CliError> {
        let mut body = Map::new();
        body.insert("top_k".to_owned(), json!(self.top_k));
        if let Some(text) = &self.text {
            body.insert("text".to_owned(), json!(text));
        }
        if let Some(id) = &self.id {
            body.insert("id".to_owned(), json!(id));
        }
        for (option, value) in [("vector", &self.vector), ("filter", &self.filter)] {
            if let Some(text) = value {
                body.insert(option.to_owned(), parse(option, text)?);
            }
        }
        if let Some(threshold) = self.threshold {
            body.insert("threshold".to_owned(), json!(threshold));
        }
        if let Some(ef_search) = self.ef_search {
            body.insert("ef_search".to_owned(), json!(ef_search));
        }
        if self.exact {
            body.insert("exact".to_owned(), json!(true));
        }
        Ok(Value::Object(body))
    }
}

fn parse(option: &str, text: &str) -> Result<Value, CliError> {
    serde_json::from_str(text).map_err(|error| CliError::Usage(format!("--{option} is not valid JSON: {error}")))
}

fn rows(hits: &[Value]) -> Vec<Vec<String>> {
    let header = ["score", "id", "text"].map(str::to_owned).to_vec();
    let row = |hit: &Value| {
        let score = hit["score"].as_f64().map_or_else(String::new, |score| format!("{score:.4}"));
        let id = output::cut(hit["id"].as_str().unwrap_or_default(), ID_WIDTH);
        vec![score, id, output::cut(hit["text"].as_str().unwrap_or_default(), TEXT_WIDTH)]
    };
    std::iter::once(header).chain(hits.iter().map(row)).collect()
}

fn summary(answer: &Value, hits: u64) -> String {
    let took_ms = answer["took_ms"].as_f64().unwrap_or_default();
    let plan = answer["plan"].as_str().unwrap_or("unknown");
    let cut = if answer["truncated"] == true { ", the text was longer than the model reads" } else { "" };
    format!("{} in {took_ms:.1} ms ({plan}{cut})", output::counted(hits, "hit"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn body(arguments: &[&str]) -> Result<Value, String> {
        let all = ["pannier", "search", "c"].iter().chain(arguments);
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        let Command::Search(args) = cli.command else { panic!("{:?}", cli.command) };
        args.body().map_err(|error| error.to_string())
    }

    #[test]
    fn options_become_the_api_s_body() {
        assert_eq!(body(&["a"]).unwrap(), json!({"text": "a", "top_k": 10}));
        let full = ["--vector", "[1,0.5]", "-k", "3", "--filter", r#"{"a":1}"#, "--threshold", "-0.5", "--exact"];
        let wanted = json!({"vector": [1, 0.5], "top_k": 3, "filter": {"a": 1}, "threshold": -0.5, "exact": true});
        assert_eq!(body(&full).unwrap(), wanted);
        assert_eq!(body(&["--id", "x"]).unwrap(), json!({"id": "x", "top_k": 10}));
    }

    #[test]
    fn one_query_and_valid_json_are_asked_for() {
        assert!(body(&[]).is_err());
        assert!(body(&["a", "--id", "b"]).is_err());
        assert!(body(&["a", "--filter", "{"]).unwrap_err().contains("--filter is not valid JSON"));
    }

    #[test]
    fn a_table_says_score_id_and_the_start_of_the_text() {
        let hits = [json!({"id": "a", "score": 0.51239, "text": "one\ntwo"}), json!({"id": "b", "score": -0.1})];
        let rows = rows(&hits);
        assert_eq!(rows[1], ["0.5124", "a", "one two"]);
        assert_eq!(rows[2], ["-0.1000", "b", ""]);
    }
}
