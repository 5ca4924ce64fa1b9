//! `doctor`: whether this machine, the data directory and the model are fit to serve.

mod data;
mod machine;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::target::{ADDRESS_VARIABLE, DEFAULT_ADDRESS, Remote, read_key, shown, store_id};
use super::{CliError, Context, output};
use crate::embed::{DEFAULT_MODEL, Device, EmbedError};
use crate::log::{self, Change};
use crate::manifest::Manifest;
use crate::storage::{DataPaths, is_open_to_others};
use crate::types::{Chain, CollectionName, Definition};

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Address that the server listens at, or is to [default: 127.0.0.1:7117]
    #[arg(long, value_name = "HOST:PORT", env = ADDRESS_VARIABLE)]
    addr: Option<String>,
    /// Model to check
    #[arg(long, value_name = "NAME", default_value = DEFAULT_MODEL)]
    model: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    /// It works, and something is to be known.
    Warn,
    /// It will not work.
    Fail,
}

/// One check's outcome.
#[derive(Debug)]
struct Finding {
    status: Status,
    name: &'static str,
    detail: String,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

impl Finding {
    fn new(status: Status, name: &'static str, detail: impl Into<String>) -> Self {
        Self { status, name, detail: detail.into() }
    }
}

/// Runs `doctor`. It changes nothing but a small file that it removes again.
///
/// # Errors
/// [`CliError::Refused`] when a check failed, after all of them were printed.
pub(super) fn run(args: &DoctorArgs, context: &Context) -> Result<(), CliError> {
    let mut findings = data::check(&context.data);
    findings.extend(machine::check());
    findings.extend(device(context));
    findings.extend(models(context, &args.model));
    findings.extend(context.api_key_file.as_deref().map(key_file));
    findings.push(address(context, args.addr.as_deref()));
    findings.extend(settings::check());
    print(&findings, context)?;
    match findings.iter().filter(|finding| finding.status == Status::Fail).count() as u64 {
        0 => Ok(()),
        failed => Err(CliError::Refused(format!("{} failed", output::counted(failed, "check")))),
    }
}

fn print(findings: &[Finding], context: &Context) -> Result<(), CliError> {
    if context.json {
        let checks: Vec<Value> = findings
            .iter()
            .map(|finding| json!({"status": finding.status.word(), "name": finding.name, "detail": finding.detail}))
            .collect();
        return output::json(json!({"checks": checks}));
    }
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| vec![finding.status.word().to_owned(), finding.name.to_owned(), finding.detail.clone()])
        .collect();
    output::table(&rows, &[])
}

/// The model that was named, and those that collections of the store embed with.
fn models(context: &Context, named: &str) -> Vec<Finding> {
    let mut users = BTreeMap::from([(named.to_owned(), Vec::new())]);
    for (name, definition) in collections(&DataPaths::new(&context.data)) {
        if let Some(embedding) = definition.embedding {
            users.entry(embedding.model).or_default().push(name.to_string());
        }
    }
    users.iter().map(|(name, users)| model(context, name, users)).collect()
}

/// The collections of a store that another process may have open. What cannot be read is told with the data directory.
fn collections(paths: &DataPaths) -> Vec<(CollectionName, Definition)> {
    let sealed = Manifest::load(paths).map_or(Vec::new(), |manifest| manifest.collections);
    let mut all: BTreeMap<_, _> = sealed.into_iter().map(|entry| (entry.id, (entry.name, entry.definition))).collect();
    log::salvage(paths, log::Needed::default(), &mut |_, change| match change {
        Change::CreateCollection { id, name, definition, .. } => _ = all.insert(id, (name, definition)),
        Change::DropCollection { id } => _ = all.remove(&id),
        Change::Upsert { .. } | Change::Delete { .. } => {}
    });
    all.into_values().collect()
}

/// `users`: collections whose texts and searches need it.
fn model(context: &Context, name: &str, users: &[String]) -> Finding {
    const NAME: &str = "model";
    match context.model_store().verify(name) {
        Ok(files) => {
            let size = output::bytes(files.iter().map(|file| file.size_bytes).sum());
            Finding::new(Status::Ok, NAME, format!("{name}, {} files of {size} are sound", files.len()))
        }
        // Documents that bring their vectors need none.
        Err(error @ (EmbedError::NotInstalled { .. } | EmbedError::Disabled)) if users.is_empty() => {
            Finding::new(Status::Warn, NAME, error.to_string())
        }
        Err(error) if users.is_empty() => Finding::new(Status::Fail, NAME, error.to_string()),
        Err(error) => Finding::new(Status::Fail, NAME, format!("{error}; it embeds for {}", users.join(", "))),
    }
}

/// The device that was asked for by its name.
fn device(context: &Context) -> Option<Finding> {
    const NAME: &str = "device";
    match context.model_store().check_device() {
        Err(error) => Some(Finding::new(Status::Fail, NAME, error.to_string())),
        Ok(()) if context.device == Device::Auto => None,
        Ok(()) => Some(Finding::new(Status::Ok, NAME, format!("models can run on {}", context.device))),
    }
}

fn key_file(path: &Path) -> Finding {
    const NAME: &str = "API key";
    let shown = path.display();
    match read_key(path) {
        Err(error) => Finding::new(Status::Fail, NAME, Chain(&error).to_string()),
        Ok(_) if is_open_to_others(path) => {
            let detail = format!("other users of this machine may read {shown}; run `chmod go= {shown}`");
            Finding::new(Status::Warn, NAME, detail)
        }
        Ok(_) => Finding::new(Status::Ok, NAME, format!("nobody but its owner may read {shown}")),
    }
}

fn address(context: &Context, address: Option<&str>) -> Finding {
    const NAME: &str = "address";
    let named = context.server.as_deref().or(address);
    let address = address.unwrap_or(DEFAULT_ADDRESS);
    let server = shown(named.unwrap_or(DEFAULT_ADDRESS));
    let remote = Remote::expected(named, context).ok();
    let version = remote.as_ref().and_then(Remote::version);
    if version.is_none() && remote.is_some_and(|remote| remote.wants_key()) {
        let detail = format!(
            "who answers at {server} wants an API key; name the server with --server and its key's file with \
             --api-key-file"
        );
        return Finding::new(Status::Warn, NAME, detail);
    }
    match (version, &context.server) {
        (Some(version), _) => {
            let number = version["version"].as_str().unwrap_or("unknown");
            let detail = format!("pannier {number} answers at {server}");
            match store_id(context) {
                Some(id) if version["store_id"] != id.as_str() => {
                    Finding::new(Status::Warn, NAME, format!("{detail}, and serves another data directory"))
                }
                _ => Finding::new(Status::Ok, NAME, detail),
            }
        }
        (None, Some(_)) => Finding::new(Status::Fail, NAME, format!("no pannier answers at {server}")),
        (None, None) => match std::net::TcpListener::bind(address) {
            Ok(_) => Finding::new(Status::Ok, NAME, format!("{address} is free")),
            Err(error) => {
                let detail = format!(
                    "{address} cannot be used ({error}), and no pannier answers there; choose another with --addr"
                );
                Finding::new(Status::Fail, NAME, detail)
            }
        },
    }
}
