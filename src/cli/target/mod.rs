//! Where a command goes: to a running server, or to a data directory that nobody holds.
//!
//! Both speak the same wire: without a server the routes of the API run inside this process, so that a command has one
//! code path and one set of errors.

mod local;
mod portions;
mod remote;

use std::io::{self, BufRead, BufReader, Read};
use std::path::{self, Path};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{CliError, Context, Failure, output};
use crate::manifest::Manifest;
use crate::storage::DataPaths;
use crate::types::CollectionName;

use local::Local;
use portions::{Portion, Reports};
pub(super) use remote::{Remote, read_key, shown};

/// Where a server is expected unless another address is given.
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:7117";
/// Bytes of a stream that wait to be sent.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// The variable with another address.
pub(super) const ADDRESS_VARIABLE: &str = "PANNIER_ADDR";

/// Whether a data directory may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It must be there.
    Existing,
    /// It is made where it is missing.
    Create,
}

/// Whom the command talks to.
pub(super) enum Target {
    /// A server.
    Server(Remote),
    /// A data directory, opened by this process.
    Directory(Box<Local>),
}

/// What came of a stream.
pub(super) struct Streamed {
    /// The report of all that was answered, also where an error ended the stream early; null where nothing was.
    pub report: Value,
    /// Why not all of it was taken.
    pub failure: Option<CliError>,
}

/// An answer: its status, its body.
struct Answer {
    status: u16,
    /// After how long the same request may succeed, where that is said.
    retry_after: Option<Duration>,
    body: String,
}

impl Target {
    /// A server where one is named; else the data directory; else, where another process holds that, its server.
    ///
    /// # Errors
    /// [`CliError::Open`] when the directory cannot be opened and no server of its store answers.
    pub(super) fn of(context: &Context, access: Access) -> Result<Self, CliError> {
        if let Some(server) = &context.server {
            return Ok(Self::Server(Remote::new(server, context)?));
        }
        let paths = DataPaths::new(&context.data);
        // Opening finishes a restore that was cut short.
        let is_new = !paths.format().exists() && !paths.restore_marker().exists();
        if access == Access::Existing && is_new {
            let detail = format!(
                "there is no data directory at {}; name another with --data, or a server with --server, or make one \
                 with `pannier import` or `pannier collection create`",
                context.data.display()
            );
            return Err(CliError::Refused(detail));
        }
        match context.open() {
            Ok(database) => {
                let local = Local::new(database)?;
                if is_new {
                    output::hint(context, format!("made a new data directory at {}", local.directory()));
                }
                Ok(Self::Directory(Box::new(local)))
            }
            Err(error) if error.failure() == Failure::Locked => match server_of_store(context) {
                Some(remote) => Ok(Self::Server(remote)),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Sends a request, with a JSON body or without, and returns the body of its success.
    ///
    /// # Errors
    /// [`CliError::Api`] for a refusal.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String, CliError> {
        let body = body.map(Value::to_string);
        let answer = match self {
            Self::Server(remote) => remote.call(method, path, body.as_deref())?,
            Self::Directory(local) => local.call(method, path, body)?,
        };
        self.unpack(answer)
    }

    /// As [`Target::call`], read into a value.
    ///
    /// # Errors
    /// As [`Target::call`], and [`CliError::Protocol`].
    pub(super) fn value(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        self.parse(&self.call(method, path, body)?)
    }

    /// Posts a stream of JSON lines, to a server a portion at a time. What was written before it failed is told, too.
    pub(super) fn stream(&self, path: &str, lines: &mut dyn Read) -> Streamed {
        let mut reports = Reports::default();
        let failure = self.send(path, lines, &mut reports).err();
        Streamed { report: reports.into_sum(), failure }
    }

    /// As [`Target::stream`], with the reports of what was sent.
    ///
    /// # Errors
    /// As [`Target::value`].
    fn send(&self, path: &str, lines: &mut dyn Read, reports: &mut Reports) -> Result<(), CliError> {
        let remote = match self {
            Self::Server(remote) => remote,
            Self::Directory(local) => return self.note(local.stream(path, lines)?, 0, reports),
        };
        let mut lines = BufReader::with_capacity(SEND_BUFFER_BYTES, lines);
        let mut sent = Vec::new();
        loop {
            let mut portion = Portion::of(&mut lines);
            sent.clear();
            portion.read_to_end(&mut sent).map_err(|e| CliError::io("read the input", e))?;
            let line_count = portion.line_count;
            let answer = remote.stream(path, &sent)?;
            self.note(answer, line_count, reports)?;
            if lines.fill_buf().map_err(|e| CliError::io("read the input", e))?.is_empty() {
                return Ok(());
            }
        }
    }

    /// Adds what an answer reports of a portion of so many lines.
    ///
    /// # Errors
    /// [`CliError::Api`] for a refusal, whose `progress` is added and which says how many documents were written in
    /// all.
    fn note(&self, answer: Answer, line_count: u64, reports: &mut Reports) -> Result<(), CliError> {
        if answer.is_success() {
            reports.add(self.parse(&answer.body)?, line_count);
            return Ok(());
        }
        let mut problem = answer.problem();
        let progress = problem.get_mut("progress").map(Value::take);
        let is_told = progress.is_some() || reports.upserted() > 0;
        if let Some(progress) = progress {
            reports.add(progress, line_count);
        }
        Err(match self.refusal(answer.status, &problem) {
            CliError::Api { code, mut detail } if is_told => {
                if code == "stopping" {
                    // The rest of the sentence is for those who send lines themselves.
                    detail = "the server is stopping".to_owned();
                }
                detail.push_str(&format!(" ({} had been written)", output::counted(reports.upserted(), "document")));
                CliError::Api { code, detail }
            }
            other => other,
        })
    }

    /// Whether this process holds the data directory.
    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Where documents go: the server's address, or the data directory.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Server(remote) => remote.base().to_owned(),
            Self::Directory(local) => local.directory().to_string(),
        }
    }

    /// A collection's definition, or `None` where there is no such collection.
    ///
    /// # Errors
    /// As [`Target::value`].
    pub(super) fn find_collection(&self, name: &CollectionName) -> Result<Option<Value>, CliError> {
        match self.value("GET", &collection_path(name), None) {
            Ok(definition) => Ok(Some(definition)),
            Err(CliError::Api { code, .. }) if code == "collection_not_found" => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Server(remote) => remote.base().to_owned(),
            Self::Directory(_) => "this process".to_owned(),
        }
    }

    /// Reads the body of a success.
    ///
    /// # Errors
    /// [`CliError::Protocol`].
    pub(super) fn parse<'a, T: Deserialize<'a>>(&self, body: &'a str) -> Result<T, CliError> {
        serde_json::from_str(body)
            .map_err(|error| CliError::Protocol { address: self.address(), reason: error.to_string() })
    }

    /// The body of a success.
    fn unpack(&self, answer: Answer) -> Result<String, CliError> {
        match answer.is_success() {
            true => Ok(answer.body),
            false => Err(self.refusal(answer.status, &answer.problem())),
        }
    }

    /// What a problem says.
    fn refusal(&self, status: u16, problem: &Value) -> CliError {
        match (problem["code"].as_str(), problem["detail"].as_str()) {
            (Some(code), Some(detail)) => CliError::Api { code: code.to_owned(), detail: detail.to_owned() },
            _ => CliError::Protocol { address: self.address(), reason: format!("status {status}") },
        }
    }
}

impl Answer {
    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body of a refusal; null where it is no JSON.
    fn problem(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// The file of a URL as it is sent: from the root, since the server may run elsewhere than this command.
///
/// # Errors
/// [`CliError::Usage`] for a name that JSON cannot hold.
pub(super) fn url_file(path: &Path) -> Result<String, CliError> {
    let path = path::absolute(path).map_err(|e| CliError::io("find the file of the URL", e))?;
    let wrong = || {
        let detail = format!("{} is not UTF-8, and no request can name it; rename the file", path.display());
        CliError::Usage(detail)
    };
    path.to_str().map(str::to_owned).ok_or_else(wrong)
}

/// The path of a collection's routes. Its name needs no escapes.
pub(super) fn collection_path(name: &CollectionName) -> String {
    format!("/v1/collections/{name}")
}

/// The server that holds the data directory, if it listens where the environment says, or where servers listen by
/// default. Another store's server must not get what was meant for this one.
fn server_of_store(context: &Context) -> Option<Remote> {
    let store_id = store_id(context)?;
    let named = std::env::var(ADDRESS_VARIABLE).ok().filter(|address| !address.is_empty());
    let remote = Remote::expected(named.as_deref(), context).ok()?;
    (remote.version()?["store_id"].as_str() == Some(&store_id)).then_some(remote)
}

/// The id of the store in the data directory, if there is one that can be read.
pub(super) fn store_id(context: &Context) -> Option<String> {
    Some(Manifest::load(&DataPaths::new(&context.data)).ok()?.store_id.to_string())
}

/// Reads a whole body that has to be UTF-8.
fn read_body(mut body: impl Read, address: &str) -> Result<String, CliError> {
    let mut text = String::new();
    match body.read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(CliError::Protocol { address: address.to_owned(), reason: error.to_string() })
        }
        Err(error) => Err(CliError::io(format!("read the answer of {address}"), error)),
    }
}
