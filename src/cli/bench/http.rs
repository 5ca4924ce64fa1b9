//! `bench http`: what HTTP costs beside the engine: one connection, many connections, a text in and ten hits out.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::super::{CliError, Context};
use super::cranfield::DataSetArgs;
use super::rows::{RowReader, Source};
use super::scratch::Scratch;
use super::stats::{Latencies, rate, rounded};
use super::store::{self, Store, bare_request};
use super::wire::{Connection, Request};
use super::{Places, report};
use crate::collection::DefinitionRequest;
use crate::embed::{DEFAULT_MODEL, InputKind};
use crate::http::wire::vector::to_base64;
use crate::types::{Query, SearchRequest};

/// Calls before the clock starts.
const WARM_UP: usize = 200;
const SEARCH: &str = "/v1/collections/bench/search";

/// What `bench http` measures.
#[derive(Args, Clone, Debug)]
pub(super) struct HttpArgs {
    /// Base vectors of the default model, little-endian f32, row after row, of length 1
    #[arg(long, value_name = "FILE")]
    vectors: PathBuf,
    /// Query vectors in the same form
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Documents
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    n: usize,
    /// Calls of each kind
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Searches by text
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    texts: u32,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=128))]
    connections: u32,
    /// Core of the engine and of the server, and core of the clients, such as 0,1; pins them by `taskset`
    #[arg(long, value_name = "N,N", value_parser = two_cores)]
    cores: Option<[usize; 2]>,
    /// Keep the database here, and use the one that an earlier run left
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    data_set: DataSetArgs,
}

/// The engine's own figures, on one thread.
struct Engine {
    vector: Latencies,
    text: Latencies,
    embed: Latencies,
}

pub(super) fn run(args: &HttpArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let scratch = Scratch::create(places)?;
    let dir = args.keep.clone().unwrap_or_else(|| scratch.path().join("data"));
    let mut reader = RowReader::open(&args.queries, 384)?;
    let queries = reader.read(reader.rows())?;
    let texts: Vec<String> = args.data_set.load(places)?.queries.into_iter().map(|query| query.text).collect();
    pin(args.core(0))?;
    let engine = engine(args, &dir, &queries, &texts, context)?;
    let server = Server::start(&dir, args.core(0), context)?;
    pin(args.core(1))?;
    let vectors: Vec<Request> = queries.iter().map(|vector| by_vector(&json!(vector))).collect();
    let base64: Vec<Request> = queries.iter().map(|vector| by_vector(&json!(to_base64(vector)))).collect();
    let by_text = |text: &String| Request::post(SEARCH, &json!({ "text": text, "top_k": 10 }));
    let texts: Vec<Request> = texts.iter().map(by_text).collect();
    let mut connection = Connection::open(server.address)?;
    let one = latencies(&mut connection, &vectors, args.calls as usize)?;
    let short = latencies(&mut connection, &base64, args.calls as usize)?;
    let empty = latencies(&mut connection, &[Request::get("/v1/collections/bench")], args.calls as usize)?;
    let text = latencies(&mut connection, &texts, args.texts as usize)?;
    let throughput = |requests| many(server.address, requests, args.connections as usize, args.calls as usize * 4);
    let (many, many_short) = (throughput(&vectors)?, throughput(&base64)?);
    drop(server);

    let p50 = |latencies: &Latencies| latencies.percentile_us(0.5);
    let parts = p50(&engine.embed) + p50(&engine.vector) + p50(&empty);
    let engine_per_s = engine.vector.per_second();
    let mut report = report::head("http");
    report["documents"] = json!(args.n);
    report["cores"] = json!(args.cores);
    report["calls"] = json!([
        row("engine, by vector", &engine.vector),
        row("HTTP, by vector", &one),
        row("HTTP, by vector in base64", &short),
        row("HTTP, no search", &empty),
        row("engine, embedding a query", &engine.embed),
        row("engine, by text", &engine.text),
        row("HTTP, by text", &text),
    ]);
    report["vector_p50_ratio"] = json!(rounded(p50(&one) / p50(&engine.vector), 2));
    report["base64_p50_ratio"] = json!(rounded(p50(&short) / p50(&engine.vector), 2));
    report["connections"] = json!(args.connections);
    report["engine_per_s"] = json!(rounded(engine_per_s, 0));
    report["http_per_s"] = json!(rounded(many, 0));
    report["per_s_ratio"] = json!(rounded(many / engine_per_s, 2));
    report["http_base64_per_s"] = json!(rounded(many_short, 0));
    report["base64_per_s_ratio"] = json!(rounded(many_short / engine_per_s, 2));
    report["text_parts_us"] = json!(rounded(parts, 0));
    report["text_p50_ratio"] = json!(rounded(p50(&text) / parts, 2));
    report::write(context, &report, || write_tables(&report))
}

impl HttpArgs {
    fn core(&self, which: usize) -> Option<usize> {
        self.cores.map(|cores| cores[which])
    }
}

fn two_cores(text: &str) -> Result<[usize; 2], String> {
    let cores = text.split(',').map(|core| core.trim().parse().ok()).collect::<Option<Vec<usize>>>();
    cores.and_then(|cores| cores.try_into().ok()).ok_or_else(|| "it is not two numbers, such as 0,1".to_owned())
}

/// Fills the collection where it is not there yet, and measures the engine in this process.
fn engine(
    args: &HttpArgs,
    dir: &Path,
    queries: &[Vec<f32>],
    texts: &[String],
    context: &Context,
) -> Result<Engine, CliError> {
    let options = store::options(context, Some(NonZeroUsize::MIN));
    let store = Store::open(dir, &DefinitionRequest::default(), options)?;
    let collection = &store.collection;
    if collection.stats().documents != args.n as u64 {
        let progress = report::progress(context, args.n, "documents");
        store::fill(collection, &mut Source::File(RowReader::open(&args.vectors, 384)?), args.n, |n| {
            progress.inc(n as u64)
        })?;
        collection.optimise()?;
        progress.finish_and_clear();
    }
    let model = store.database.models().load(DEFAULT_MODEL)?;
    let search = |request: &SearchRequest| timed(|| Ok(collection.search(request).map(drop)?));
    let vectors: Vec<_> = queries.iter().map(|query| bare_request(query, 10)).collect();
    let by_text: Vec<_> = texts.iter().map(|text| SearchRequest::new(Query::Text(text.clone()))).collect();
    let engine = Engine {
        vector: measure(&vectors, args.calls as usize, search)?,
        text: measure(&by_text, args.texts as usize, search)?,
        embed: measure(texts, args.texts as usize, |text: &String| {
            timed(|| Ok(model.embed(&[text], InputKind::Query).map(drop)?))
        })?,
    };
    store.close();
    Ok(engine)
}

fn timed(call: impl FnOnce() -> Result<(), CliError>) -> Result<Duration, CliError> {
    let started = Instant::now();
    call()?;
    Ok(started.elapsed())
}

/// Warms up, then calls with one after the other of `inputs`, over again.
fn measure<T>(
    inputs: &[T],
    count: usize,
    mut call: impl FnMut(&T) -> Result<Duration, CliError>,
) -> Result<Latencies, CliError> {
    inputs.iter().cycle().take(WARM_UP.min(count)).try_for_each(|input| call(input).map(drop))?;
    Ok(Latencies::new(inputs.iter().cycle().take(count).map(call).collect::<Result<_, _>>()?))
}

fn by_vector(vector: &Value) -> Request {
    Request::post(SEARCH, &json!({ "vector": vector, "top_k": 10, "include": [] }))
}

fn latencies(connection: &mut Connection, requests: &[Request], count: usize) -> Result<Latencies, CliError> {
    measure(requests, count, |request| timed(|| connection.send(request).map(drop)))
}

/// Answers a second to many connections, each with one request after the other.
fn many(address: SocketAddr, requests: &[Request], connections: usize, count: usize) -> Result<f64, CliError> {
    let next = AtomicUsize::new(0);
    let client = || -> Result<(), CliError> {
        let mut connection = Connection::open(address)?;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(());
            }
            connection.send(&requests[at % requests.len()])?;
        }
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections).map(|_| scope.spawn(client)).collect();
        let ended = clients.into_iter().map(|client| client.join());
        let panicked = || CliError::Refused("a client's thread panicked".to_owned());
        ended.map(|result| result.unwrap_or_else(|_| Err(panicked()))).collect::<Result<Vec<()>, _>>()
    })?;
    Ok(rate(count, started.elapsed()))
}

/// A server in a process of its own, so that it can have a core of its own. It ends when dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(dir: &Path, core: Option<usize>, context: &Context) -> Result<Self, CliError> {
        let fail = |e| CliError::io("start the measured server", e);
        let program = std::env::current_exe().map_err(fail)?;
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["--json", "--threads", "1", "--precision", context.precision.name()]);
        if let Some(models) = &context.models {
            command.arg("--models").arg(models);
        }
        command.arg("--data").arg(dir).args(["serve", "--addr", "127.0.0.1:0", "--vector-cache-mib", "0"]);
        let mut process = command.stdout(Stdio::piped()).spawn().map_err(fail)?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(fail)?;
        }
        let announced: Value = serde_json::from_str(&line).unwrap_or_default();
        let address = announced["address"].as_str().and_then(|url| url.strip_prefix("http://")?.parse().ok());
        match address {
            Some(address) => Ok(Self { process, address }),
            None => {
                _ = process.kill();
                Err(CliError::Refused(format!("the measured server did not start: {line}")))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing was written, so that nothing is lost.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            tracing::warn!(%error, "the measured server could not be ended");
        }
    }
}

/// Binds this process, with the threads that it will start, to a core.
fn pin(core: Option<usize>) -> Result<(), CliError> {
    let Some(core) = core else { return Ok(()) };
    let fail = |e| CliError::io("run taskset", e);
    let arguments = ["-a", "-c", "-p", &core.to_string(), &std::process::id().to_string()].map(str::to_owned);
    let pinned = Command::new("taskset").args(arguments).stdout(Stdio::null()).status().map_err(fail)?;
    match pinned.success() {
        true => Ok(()),
        false => Err(CliError::Refused(format!("taskset could not bind this process to core {core}"))),
    }
}

fn row(what: &str, latencies: &Latencies) -> Value {
    let us = |share: f64| rounded(latencies.percentile_us(share), 0);
    json!({ "what": what, "calls": latencies.count(), "p50_us": us(0.5), "p95_us": us(0.95), "p99_us": us(0.99) })
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    let columns = [
        ("one at a time", "what"),
        ("calls", "calls"),
        ("p50 us", "p50_us"),
        ("p95 us", "p95_us"),
        ("p99 us", "p99_us"),
    ];
    report::table("Latency", report["calls"].as_array().map_or(&[], Vec::as_slice), &columns)?;
    report::fields(
        report,
        &[
            ("by vector, HTTP p50 / engine p50", "vector_p50_ratio"),
            ("by vector in base64, HTTP p50 / engine p50", "base64_p50_ratio"),
            ("connections", "connections"),
            ("engine, searches/s", "engine_per_s"),
            ("HTTP, searches/s", "http_per_s"),
            ("HTTP / engine, searches/s", "per_s_ratio"),
            ("HTTP in base64, searches/s", "http_base64_per_s"),
            ("HTTP in base64 / engine, searches/s", "base64_per_s_ratio"),
            ("embedding + search + HTTP, us", "text_parts_us"),
            ("by text, HTTP p50 / the sum", "text_p50_ratio"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cores_are_two_numbers() {
        assert_eq!(two_cores("0,1"), Ok([0, 1]));
        assert_eq!(two_cores("3, 2"), Ok([3, 2]));
        for wrong in ["", "0", "0,1,2", "a,b", "-1,0"] {
            assert!(two_cores(wrong).is_err(), "{wrong}");
        }
    }
}
