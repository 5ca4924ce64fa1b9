//! The Cranfield collection: 1,400 abstracts, 225 questions, and which abstract answers which question.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::super::CliError;
use super::Places;

/// Judgements from this value on mean relevant. The collection's values are 0, 1 and, once, 3; the gain is 1 for each.
const RELEVANT_FROM: i64 = 1;

/// Where the collection is.
#[derive(Args, Clone, Debug)]
pub(super) struct DataSetArgs {
    /// Directory of documents.jsonl, queries.jsonl and qrels.tsv [default: data/cranfield in the shared directory]
    #[arg(long, value_name = "DIR")]
    data_set: Option<PathBuf>,
}

/// A document or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Unique among its kind.
    pub id: String,
    /// Its text, on one line. A document's begins with its title; two documents have none.
    pub text: String,
}

/// The collection in memory.
#[derive(Clone, Debug)]
pub(super) struct Cranfield {
    /// In the file's order.
    pub documents: Vec<Entry>,
    /// In the file's order.
    pub queries: Vec<Entry>,
    /// Query id to the ids of the documents that answer it.
    pub relevant: HashMap<String, HashSet<String>>,
}

impl DataSetArgs {
    /// Reads the collection.
    ///
    /// # Errors
    /// [`CliError::Refused`] when it is not there or is not what it should be.
    pub fn load(&self, places: &Places) -> Result<Cranfield, CliError> {
        let dir = self.data_set.clone().unwrap_or_else(|| places.shared.join("data").join("cranfield"));
        Ok(Cranfield {
            documents: parse_entries(&read(&dir, "documents.jsonl")?, "documents.jsonl")?,
            queries: parse_entries(&read(&dir, "queries.jsonl")?, "queries.jsonl")?,
            relevant: parse_judgements(&read(&dir, "qrels.tsv")?)?,
        })
    }
}

fn read(dir: &Path, name: &str) -> Result<String, CliError> {
    fs::read_to_string(dir.join(name)).map_err(|error| {
        CliError::Refused(format!(
            "the Cranfield collection is not in {} ({name}: {error}); give its directory with --data-set DIR, or the \
             directory that holds data/cranfield with --shared DIR or PANNIER_SHARED",
            dir.display()
        ))
    })
}

fn parse_entries(text: &str, name: &str) -> Result<Vec<Entry>, CliError> {
    let entry = |(index, line): (usize, &str)| {
        let value: Value = serde_json::from_str(line)
            .map_err(|error| CliError::Refused(format!("{name}, line {}: {error}", index + 1)))?;
        let field = |key: &str| value[key].as_str().map(str::to_owned);
        match (field("id"), field("text")) {
            (Some(id), Some(text)) => Ok(Entry { id, text: text.split_whitespace().collect::<Vec<_>>().join(" ") }),
            _ => Err(CliError::Refused(format!("{name}, line {}: no \"id\" or no \"text\"", index + 1))),
        }
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(entry).collect()
}

/// Lines `query_id TAB document_id TAB relevance` below a line of names.
fn parse_judgements(text: &str) -> Result<HashMap<String, HashSet<String>>, CliError> {
    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    for (index, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty()) {
        let mut fields = line.split('\t');
        let (Some(query), Some(document), Some(relevance), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(CliError::Refused(format!("qrels.tsv, line {}: not three fields", index + 1)));
        };
        let relevance: i64 = relevance
            .trim()
            .parse()
            .map_err(|_| CliError::Refused(format!("qrels.tsv, line {}: relevance {relevance:?}", index + 1)))?;
        if relevance >= RELEVANT_FROM {
            relevant.entry(query.to_owned()).or_default().insert(document.to_owned());
        }
    }
    Ok(relevant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_entries_and_judgements() {
        let entries = parse_entries("{\"id\":\"1\",\"title\":\"t\",\"text\":\" a \\n b\"}\n\n", "x").unwrap();
        assert_eq!(entries, [Entry { id: "1".into(), text: "a b".into() }]);
        let judged =
            parse_judgements("query_id\tdocument_id\trelevance\n1\t10\t1\n1\t11\t0\n1\t12\t3\n2\t10\t0\n").unwrap();
        assert_eq!(judged, HashMap::from([("1".into(), HashSet::from(["10".into(), "12".into()]))]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let message = |result: Result<(), CliError>| result.unwrap_err().to_string();
        let entries = |text| message(parse_entries(text, "queries.jsonl").map(drop));
        assert!(entries("{\"id\":\"1\",\"text\":\"a\"}\n{\"id\":2}").contains("queries.jsonl, line 2"));
        assert!(entries("{").contains("queries.jsonl, line 1"));
        for bad in ["1\t2", "1\t2\tx", "1\t2\t1\t1"] {
            assert!(message(parse_judgements(&format!("head\n{bad}")).map(drop)).contains("line 2"), "{bad}");
        }
    }

    #[test]
    fn a_missing_collection_says_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { shared: dir.path().to_owned(), scratch: None };
        let error = DataSetArgs { data_set: None }.load(&places).unwrap_err().to_string();
        assert!(error.contains("data/cranfield") && error.contains("--data-set"), "{error}");
    }
}
