//! `search`: the documents that fit a text, a vector or other documents best.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::target::{Access, Target, collection_path};
use super::{CliError, Context, output};
use crate::http::wire::scan::{ScanError, scan};
use crate::types::CollectionName;
use crate::types::limits::MAX_JSON_DEPTH;

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
  pannier search articles \"waterproof tent\" --mode hybrid --highlight
  pannier search articles --like tent-3 --unlike tent-kids --group-by category")]
pub struct SearchArgs {
    /// Collection to search
    collection: String,
    /// Text to search near
    #[arg(required_unless_present_any = ["vector", "id", "like"], conflicts_with_all = ["id", "like"])]
    text: Option<String>,
    /// Vector to search near, as a JSON array; with a text in hybrid mode
    #[arg(long, value_name = "JSON", conflicts_with_all = ["id", "like"])]
    vector: Option<String>,
    /// Stored document to search near
    #[arg(long, value_name = "ID", conflicts_with = "like")]
    id: Option<String>,
    /// Stored document to be like; may be repeated
    #[arg(long, value_name = "ID")]
    like: Vec<String>,
    /// Stored document to be unlike; may be repeated
    #[arg(long, value_name = "ID", requires = "like")]
    unlike: Vec<String>,
    /// What to look at [default: vector]
    #[arg(long, value_name = "MODE")]
    mode: Option<ModeName>,
    /// Of a hybrid search: weigh scores, the vectors' by this share, instead of fusing ranks
    #[arg(long, value_name = "SHARE")]
    alpha: Option<f64>,
    /// Most hits, or groups
    #[arg(long, short = 'k', value_name = "N", default_value_t = 10)]
    top_k: usize,
    /// Only documents whose metadata match, such as '{"price": {"$lt": 10}}'
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Leave out hits with a lower score
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    threshold: Option<f64>,
    /// Pass over so many hits, or groups
    #[arg(long, value_name = "N")]
    offset: Option<usize>,
    /// Group hits by a metadata field
    #[arg(long, value_name = "FIELD")]
    group_by: Option<String>,
    /// Most hits of a group [default: 1]
    #[arg(long, value_name = "N", requires = "group_by")]
    group_size: Option<usize>,
    /// Let a hit lose by being like those before it, 0 to 1
    #[arg(long, value_name = "SHARE")]
    diversity: Option<f64>,
    /// Put the best candidates in order by a cross-encoder, such as cross-encoder/ms-marco-MiniLM-L6-v2
    #[arg(long, value_name = "MODEL")]
    rerank: Option<String>,
    /// Candidates that it reads [default: 50]
    #[arg(long, value_name = "N", requires = "rerank")]
    rerank_top_n: Option<usize>,
    /// Count the values of a metadata field over the best documents; may be repeated
    #[arg(long = "facet", value_name = "FIELD")]
    facets: Vec<String>,
    /// Show the parts of each text that hold the query's words
    #[arg(long)]
    highlight: bool,
    /// Wait until keyword search sees every write
    #[arg(long)]
    refresh: bool,
    /// Compare with every document instead of walking the graph
    #[arg(long)]
    exact: bool,
    /// Candidates kept while walking the graph [default: chosen for recall]
    #[arg(long, value_name = "N")]
    ef_search: Option<usize>,
}

/// Modes by their names in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// Nearness of vectors.
    Vector,
    /// Words.
    Keyword,
    /// Both.
    Hybrid,
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
        return output::json(target.call("POST", &path, Some(&body))?);
    }
    let answer = target.value("POST", &path, Some(&body))?;
    let hits = hits_of(&answer);
    if !hits.is_empty() {
        output::table(&rows(&hits), &[0])?;
    }
    for (field, facet) in answer["facets"].as_object().into_iter().flatten() {
        output::table(&facet_rows(field, facet), &[1])?;
    }
    output::hint(context, summary(&answer, hits.len() as u64));
    Ok(())
}

impl SearchArgs {
    fn body(&self) -> Result<Value, CliError> {
        let mut body = Map::new();
        let mode = self.mode.and_then(|mode| mode.to_possible_value()).map(|value| value.get_name().to_owned());
        let like = (!self.like.is_empty()).then(|| json!({"positive": self.like, "negative": self.unlike}));
        let rerank = self.rerank.as_ref().map(|model| match self.rerank_top_n {
            Some(top_n) => json!({"model": model, "top_n": top_n}),
            None => json!({"model": model}),
        });
        let given = [
            ("top_k", Some(json!(self.top_k))),
            ("text", self.text.as_ref().map(|text| json!(text))),
            ("id", self.id.as_ref().map(|id| json!(id))),
            ("like", like),
            ("mode", mode.map(Value::from)),
            ("alpha", self.alpha.map(Value::from)),
            ("offset", self.offset.map(Value::from)),
            ("group_by", self.group_by.as_ref().map(|field| json!(field))),
            ("group_size", self.group_size.map(Value::from)),
            ("diversity", self.diversity.map(Value::from)),
            ("rerank", rerank),
            ("facets", (!self.facets.is_empty()).then(|| json!(self.facets))),
            ("highlight", self.highlight.then_some(Value::Bool(true))),
            ("refresh", self.refresh.then_some(Value::Bool(true))),
            ("threshold", self.threshold.map(Value::from)),
            ("ef_search", self.ef_search.map(Value::from)),
            ("exact", self.exact.then_some(Value::Bool(true))),
        ];
        body.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        for (option, value) in [("vector", &self.vector), ("filter", &self.filter)] {
            if let Some(text) = value {
                body.insert(option.to_owned(), parse(option, text)?);
            }
        }
        Ok(Value::Object(body))
    }
}

fn parse(option: &str, text: &str) -> Result<Value, CliError> {
    // As the server reads a body; what is read here comes to it as it was understood.
    scan(text.as_bytes()).map_err(|error| {
        CliError::Usage(match error {
            ScanError::TooDeep { .. } => format!("--{option} is nested deeper than {MAX_JSON_DEPTH} levels"),
            ScanError::Integer { offset } => {
                format!("--{option}: the integer at byte {offset} is outside {} to {}", i64::MIN, i64::MAX)
            }
        })
    })?;
    serde_json::from_str(text).map_err(|error| CliError::Usage(format!("--{option} is not valid JSON: {error}")))
}

/// The hits, those of groups one group after another, each with its group's value.
fn hits_of(answer: &Value) -> Vec<(Option<&Value>, &Value)> {
    fn list(value: &Value) -> std::slice::Iter<'_, Value> {
        value.as_array().map_or(&[][..], Vec::as_slice).iter()
    }
    match &answer["groups"] {
        Value::Array(groups) => {
            groups.iter().flat_map(|group| list(&group["hits"]).map(|hit| (Some(&group["value"]), hit))).collect()
        }
        _ => list(&answer["hits"]).map(|hit| (None, hit)).collect(),
    }
}

fn rows(hits: &[(Option<&Value>, &Value)]) -> Vec<Vec<String>> {
    let grouped = hits.iter().any(|(group, _)| group.is_some());
    let mut header = ["score", "id", "text"].map(str::to_owned).to_vec();
    if grouped {
        header.insert(1, "group".to_owned());
    }
    let row = |(group, hit): &(Option<&Value>, &Value)| {
        let score = hit["score"].as_f64().map_or_else(String::new, |score| format!("{score:.4}"));
        let id = output::cut(hit["id"].as_str().unwrap_or_default(), ID_WIDTH);
        let mut row = vec![score, id, output::cut(&text_of(hit), TEXT_WIDTH)];
        if let Some(group) = group {
            row.insert(1, output::cut(&plain(group), ID_WIDTH));
        }
        row
    };
    std::iter::once(header).chain(hits.iter().map(row)).collect()
}

/// The parts of a text that hold the query's words, marked as in Markdown; else the text.
fn text_of(hit: &Value) -> String {
    let parts = hit["highlights"].as_array().map_or(&[][..], Vec::as_slice);
    if parts.is_empty() {
        return hit["text"].as_str().unwrap_or_default().to_owned();
    }
    let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
    let marked = parts.join(" ").replace("<mark>", "**").replace("</mark>", "**");
    marked.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

fn facet_rows(field: &str, facet: &Value) -> Vec<Vec<String>> {
    let values = facet["values"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |value: &Value| vec![output::cut(&plain(&value["value"]), ID_WIDTH), value["count"].to_string()];
    std::iter::once(vec![field.to_owned(), "documents".to_owned()]).chain(values.iter().map(row)).collect()
}

/// A string without its quotes, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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
        let more =
            ["--like", "x", "--like", "y", "--unlike", "z", "--group-by", "g", "--group-size", "2", "--facet", "f"];
        let wanted = json!({"like": {"positive": ["x", "y"], "negative": ["z"]}, "top_k": 10, "group_by": "g",
            "group_size": 2, "facets": ["f"]});
        assert_eq!(body(&more).unwrap(), wanted);
        let rerank = ["a", "--rerank", "m", "--rerank-top-n", "20"];
        let wanted = json!({"text": "a", "top_k": 10, "rerank": {"model": "m", "top_n": 20}});
        assert_eq!(body(&rerank).unwrap(), wanted);
        let hybrid = ["a", "--vector", "[1]", "--mode", "hybrid", "--alpha", "0.3", "--highlight", "--offset", "5"];
        let wanted = json!({"text": "a", "vector": [1], "mode": "hybrid", "alpha": 0.3, "highlight": true, "offset": 5,
            "top_k": 10});
        assert_eq!(body(&hybrid).unwrap(), wanted);
    }

    #[test]
    fn one_query_and_valid_json_are_asked_for() {
        assert!(body(&[]).is_err());
        assert!(body(&["a", "--id", "b"]).is_err());
        assert!(body(&["a", "--filter", "{"]).unwrap_err().contains("--filter is not valid JSON"));
    }

    #[test]
    fn integers_beyond_64_bits_are_refused_and_not_rounded() {
        let largest = body(&["a", "--filter", r#"{"n":9223372036854775807}"#]).unwrap();
        assert_eq!(largest["filter"]["n"], i64::MAX);
        for number in ["9223372036854775808", "18446744073709551617"] {
            for (option, text) in [("filter", format!(r#"{{"n":{number}}}"#)), ("vector", format!("[1,{number}]"))] {
                let refused = body(&["a", &format!("--{option}"), &text, "--mode", "hybrid"]).unwrap_err();
                assert!(refused.contains(&format!("--{option}: the integer at byte ")), "{refused}");
            }
        }
        assert!(body(&["a", "--filter", &"[".repeat(1_000)]).unwrap_err().contains("--filter is nested deeper"));
    }

    #[test]
    fn a_table_says_score_id_and_the_start_of_the_text() {
        let answer = json!({"hits": [{"id": "a", "score": 0.51239, "text": "one\ntwo"}, {"id": "b", "score": -0.1}]});
        let table = rows(&hits_of(&answer));
        assert_eq!(table[1], ["0.5124", "a", "one two"]);
        assert_eq!(table[2], ["-0.1000", "b", ""]);
        let hit = json!({"id": "a", "score": 1, "text": "x", "highlights": ["a <mark>&lt;b&gt;</mark>"]});
        let answer = json!({"hits": [], "groups": [{"value": "g", "hits": [hit]}]});
        let table = rows(&hits_of(&answer));
        assert_eq!(table, [["score", "group", "id", "text"], ["1.0000", "g", "a", "a **<b>**"]]);
        let facet = json!({"values": [{"value": true, "count": 3}], "documents": 9});
        assert_eq!(facet_rows("f", &facet), [["f", "documents"], ["true", "3"]]);
    }
}
