//! `replicate`: add, list, status, pause, resume, verify, repair, remove.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::target::{Access, Target, url_file};
use super::{CliError, Context, output};

const PATH: &str = "/admin/replication";

/// The commands on copies in Postgres.
#[derive(Debug, Subcommand)]
pub enum ReplicateCommand {
    /// Copy a collection into a Postgres table, and keep the copy up to date
    Add(Box<AddArgs>),
    /// List the sinks
    List,
    /// Show how a sink is doing
    Status {
        /// Its name
        name: String,
    },
    /// Let a sink rest
    Pause {
        /// Its name
        name: String,
    },
    /// Set a sink to work again, also one that waits after a failure or was fenced
    Resume {
        /// Its name
        name: String,
    },
    /// Compare a copy with its collection and list every row that is missing, extra or different
    Verify {
        /// Its name
        name: String,
    },
    /// Mend what differs
    Repair {
        /// Its name
        name: String,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
        /// Take the sink over where its state in the database is another store's
        #[arg(long)]
        take_over: bool,
    },
    /// Remove a sink; its table stays
    Remove {
        /// Its name
        name: String,
    },
}

/// Arguments of `replicate add`.
#[derive(Args, Debug)]
#[command(after_help = "\
The connection URL is read by the server each time it connects, from an environment variable or a file; it is stored
only where --store-url asks for that. sslmode=verify-full&sslrootcert=FILE in the URL checks the server's certificate.")]
pub struct AddArgs {
    /// Its name: a-z, 0-9, _ and -
    name: String,
    /// Collection to copy, or * for every one
    #[arg(long, value_name = "NAME")]
    collection: String,
    /// Environment variable of the server with the connection URL [default: DATABASE_URL]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["url_file", "store_url"])]
    url_variable: Option<String>,
    /// File with the connection URL
    #[arg(long, value_name = "FILE", conflicts_with = "store_url")]
    url_file: Option<PathBuf>,
    /// Read the connection URL from stdin and store it in clear in the data directory
    #[arg(long)]
    store_url: bool,
    /// Shape of the table: pannier, learning_vectors_384_v1, embeddings, product_embeddings, jobs, vecs,
    /// match_documents or custom
    #[arg(long, value_name = "NAME")]
    layout: Option<String>,
    /// Table, with its schema; parts may stand in double quotes [default: the layout's]
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Option<String>,
    /// Fail where the table is not there, instead of making it
    #[arg(long)]
    no_create: bool,
    /// Type of the vector column where the table is made: vector or halfvec
    #[arg(long, value_name = "TYPE")]
    vector_type: Option<String>,
    /// Index made after everything is there: hnsw, ivfflat or none
    #[arg(long, value_name = "KIND")]
    index: Option<String>,
    /// Tenant whose rows these are (layout embeddings)
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// What the documents are (layout embeddings)
    #[arg(long, value_name = "NAME")]
    entity_type: Option<String>,
    /// Key column (layouts product_embeddings, jobs and custom)
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// Column and what it holds (layout custom), such as body=text or lang=metadata.language; may be repeated
    #[arg(long = "column", value_name = "COLUMN=FIELD", value_parser = parse_column)]
    columns: Vec<(String, String)>,
    /// What becomes of rows that the collection lacks, in a table that is there: refuse, keep or delete
    /// [default: refuse]
    #[arg(long, value_name = "WHAT")]
    extra_rows: Option<String>,
    /// Schema of the sink's own state [default: pannier]
    #[arg(long, value_name = "SCHEMA")]
    state_schema: Option<String>,
}

fn parse_column(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((column, field)) if !column.is_empty() && !field.is_empty() => Ok((column.to_owned(), field.to_owned())),
        _ => Err("write COLUMN=FIELD, such as body=text".to_owned()),
    }
}

impl AddArgs {
    fn body(&self, stdin: impl FnOnce() -> Result<String, CliError>) -> Result<Value, CliError> {
        let mut body = Map::new();
        let mut insert = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(key.to_owned(), value);
            }
        };
        let text = |value: &Option<String>| value.clone().map(Value::from);
        insert("name", Some(json!(self.name)));
        insert("collection", Some(json!(self.collection)));
        match (&self.url_file, self.store_url) {
            (Some(path), _) => insert("url_file", Some(json!(url_file(path)?))),
            (None, true) => insert("url", Some(json!(stdin()?.trim()))),
            (None, false) => {
                insert("url_variable", Some(json!(self.url_variable.as_deref().unwrap_or("DATABASE_URL"))));
            }
        }
        insert("layout", text(&self.layout));
        insert("table", text(&self.table));
        insert("create", self.no_create.then_some(json!(false)));
        insert("vector_type", text(&self.vector_type));
        insert("index", text(&self.index));
        insert("tenant", text(&self.tenant));
        insert("entity_type", text(&self.entity_type));
        insert("key", text(&self.key));
        let columns: Map<_, _> = self.columns.iter().map(|(column, field)| (column.clone(), json!(field))).collect();
        insert("columns", (!columns.is_empty()).then_some(Value::Object(columns)));
        insert("extra_rows", text(&self.extra_rows));
        insert("state_schema", text(&self.state_schema));
        Ok(Value::Object(body))
    }
}

/// Runs a command on copies.
///
/// # Errors
/// [`CliError::Api`] when it is refused, [`CliError::Refused`] when a copy is not as it should be.
pub(super) fn run(command: &ReplicateCommand, context: &Context) -> Result<(), CliError> {
    let target = Target::of(context, Access::Existing)?;
    match command {
        ReplicateCommand::Add(args) => {
            let stdin = || {
                if io::stdin().is_terminal() {
                    let detail = "nothing is piped into stdin; pipe the URL in, or name its file with --url-file";
                    return Err(CliError::Usage(detail.to_owned()));
                }
                io::read_to_string(io::stdin()).map_err(|e| CliError::io("read the URL", e))
            };
            let added = target.call("POST", PATH, Some(&args.body(stdin)?))?;
            answer(
                context,
                &added,
                format!("sink {} is there; `pannier replicate status` says how it is doing", args.name),
            )
        }
        ReplicateCommand::List => list(&target.value("GET", PATH, None)?, context),
        ReplicateCommand::Status { name } => status(&target.value("GET", &path(name, ""), None)?, context),
        ReplicateCommand::Pause { name } => {
            answer(context, &target.call("POST", &path(name, "/pause"), None)?, format!("sink {name} rests"))
        }
        ReplicateCommand::Resume { name } => {
            answer(context, &target.call("POST", &path(name, "/resume"), None)?, format!("sink {name} works"))
        }
        ReplicateCommand::Remove { name } => {
            let removed = target.value("DELETE", &path(name, ""), None)?;
            if let Some(reason) = removed["left_behind"].as_str() {
                output::hint(context, format!("its state in the database is still there: {reason}"));
            }
            answer(context, &removed.to_string(), format!("sink {name} is removed; its table stays"))
        }
        ReplicateCommand::Verify { name } => verify(&target.value("POST", &path(name, "/verify"), None)?, context),
        ReplicateCommand::Repair { name, dry_run, take_over } => {
            let body = json!({"dry_run": dry_run, "take_over": take_over});
            repair(&target.value("POST", &path(name, "/repair"), Some(&body))?, *dry_run, context)
        }
    }
}

/// The path of a sink's routes; a name that needs an escape is no sink's.
fn path(name: &str, rest: &str) -> String {
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '~' }).collect();
    format!("{PATH}/{safe}{rest}")
}

fn answer(context: &Context, body: &str, hint: String) -> Result<(), CliError> {
    if context.json {
        return output::json(body);
    }
    output::hint(context, hint);
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn list(sinks: &Value, context: &Context) -> Result<(), CliError> {
    if context.json {
        return output::json(sinks);
    }
    let mut rows = vec![
        ["name", "collection", "layout", "table", "phase", "lag", "dead letters", "error"].map(str::to_owned).to_vec(),
    ];
    for sink in items(&sinks["sinks"]) {
        let front = [text(&sink["name"]), text(&sink["collection"]), text(&sink["layout"])];
        let resting = if sink["paused"] == true { "paused" } else { "-" };
        if items(&sink["copies"]).is_empty() {
            rows.push(front.iter().cloned().chain(["-", resting, "-", "-", "-"].map(str::to_owned)).collect());
        }
        for copy in items(&sink["copies"]) {
            let error = copy["error"]["code"].as_str().unwrap_or("-").to_owned();
            let back = [
                text(&copy["table"]),
                text(&copy["phase"]),
                text(&copy["lag_seqs"]),
                text(&copy["dead_letters"]),
                error,
            ];
            rows.push(front.iter().cloned().chain(back).collect());
        }
    }
    output::table(&rows, &[5, 6])
}

fn status(sink: &Value, context: &Context) -> Result<(), CliError> {
    if context.json {
        return output::json(sink);
    }
    let mut rows: Vec<Vec<String>> =
        ["name", "layout", "url", "paused"].iter().map(|key| vec![(*key).to_owned(), text(&sink[*key])]).collect();
    for copy in items(&sink["copies"]).iter().filter_map(Value::as_object) {
        for (key, value) in copy {
            let value = if key == "error" { text(&value["message"]) } else { text(value) };
            rows.push(vec![key.clone(), value]);
        }
    }
    output::table(&rows, &[])
}

/// The columns of a comparison: what stands above each, and the key of its figure.
const COMPARED: [(&str, &str); 8] = [
    ("collection", "collection"),
    ("documents", "documents"),
    ("rows", "rows"),
    ("missing", "missing_count"),
    ("extra", "extra_count"),
    ("different", "different_count"),
    ("no row", "no_row_count"),
    ("dead letters", "dead_letters"),
];
/// The lists of a comparison, and what is said of each row in them.
const LISTED: [(&str, &str); 4] =
    [("missing", "missing"), ("extra", "extra"), ("different", "different"), ("no_row", "no row to write into")];

fn print_compared<'a>(copies: impl Iterator<Item = &'a Value>) -> Result<(), CliError> {
    let mut rows = vec![COMPARED.map(|(title, _)| title.to_owned()).to_vec()];
    rows.extend(copies.map(|copy| COMPARED.map(|(_, key)| text(&copy[key])).to_vec()));
    output::table(&rows, &[1, 2, 3, 4, 5, 6, 7])
}

fn verify(report: &Value, context: &Context) -> Result<(), CliError> {
    if context.json {
        output::json(report)?;
    } else {
        print_compared(items(&report["copies"]).iter())?;
        for copy in items(&report["copies"]) {
            for (list, said) in LISTED {
                for key in items(&copy[list]) {
                    output::line(format!(
                        "{said}\t{}\t{}",
                        text(&copy["collection"]),
                        text(key).replace('\u{1f}', "/")
                    ))?;
                }
            }
        }
    }
    match report["equal"] == true {
        true => Ok(()),
        false => Err(CliError::Refused(unequal(report))),
    }
}

/// Why a copy is not equal, and what helps.
fn unequal(report: &Value) -> String {
    let dead: u64 = items(&report["copies"]).iter().filter_map(|copy| copy["dead_letters"].as_u64()).sum();
    let letters = match dead {
        0 => String::new(),
        1 => "; there is 1 dead letter, and the table dead_letters says why".to_owned(),
        _ => format!("; there are {dead} dead letters, and the table dead_letters says why"),
    };
    format!("the copy differs{letters}; `pannier replicate repair` mends what can be mended")
}

fn repair(report: &Value, dry_run: bool, context: &Context) -> Result<(), CliError> {
    if context.json {
        output::json(report)?;
    } else {
        print_compared(items(&report["copies"]).iter().map(|copy| &copy["before"]))?;
    }
    let sum = |key: &str| items(&report["copies"]).iter().filter_map(|copy| copy[key].as_u64()).sum::<u64>();
    let left = |copy: &Value| {
        ["missing_count", "extra_count", "different_count", "dead_letters"]
            .iter()
            .filter_map(|key| copy["after"][*key].as_u64())
            .sum::<u64>()
    };
    let left: u64 = items(&report["copies"]).iter().map(left).sum();
    let done = match dry_run {
        true => "nothing was changed".to_owned(),
        false => format!("{} written, {} deleted, {left} left", sum("written"), sum("deleted")),
    };
    if !context.json {
        output::hint(context, done);
    }
    match left == 0 || dry_run {
        true => Ok(()),
        false => Err(CliError::Refused("some rows could not be mended".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn body(arguments: &[&str]) -> Value {
        let cli = Cli::try_parse_from(["pannier", "replicate", "add", "s"].iter().chain(arguments)).unwrap();
        match cli.command {
            Command::Replicate(ReplicateCommand::Add(args)) => args.body(|| Ok("postgres://h/x\n".into())).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_repair_that_leaves_rows_fails_in_json_too() {
        let report = |left: u64| json!({"copies": [{"written": 1, "deleted": 0, "after": {"missing_count": left}}]});
        for form in [&["--quiet"][..], &["--json"]] {
            let context = Cli::try_parse_from([&["pannier", "doctor"], form].concat()).unwrap().context;
            assert!(repair(&report(0), false, &context).is_ok(), "{form:?}");
            assert!(repair(&report(2), true, &context).is_ok(), "{form:?}, dry run");
            let left = repair(&report(2), false, &context).unwrap_err();
            assert!(left.to_string().contains("could not be mended"), "{form:?} {left}");
        }
    }

    #[test]
    fn arguments_become_a_body_without_a_secret_unless_asked() {
        let plain = body(&["--collection", "c"]);
        assert_eq!(plain, json!({"name": "s", "collection": "c", "url_variable": "DATABASE_URL"}));
        let full = body(&["--collection", "*", "--store-url", "--layout", "custom", "--column", "a=id", "--no-create"]);
        assert_eq!(full["url"], "postgres://h/x");
        assert_eq!((&full["columns"], &full["create"]), (&json!({"a": "id"}), &json!(false)));
        assert!(Cli::try_parse_from(["pannier", "replicate", "add", "s"]).is_err());
    }
}
