//! `bench clients`: many clients of one text each against the batch figure, and queries while a bulk import runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::super::{CliError, Context};
use super::cranfield::{Cranfield, DataSetArgs, Entry};
use super::local_server::LocalServer;
use super::scratch::Scratch;
use super::stats::{Latencies, median, rate, rounded};
use super::{Places, report};
use crate::collection::DefinitionRequest;
use crate::database::{Database, Options};
use crate::embed::{DEFAULT_MODEL, InputKind, TextModel};
use crate::types::CollectionName;

/// Texts of the short sample.
const TEXTS: usize = 512;
/// Texts of a batch of the batch figure.
const BATCH: usize = 32;
/// Queries before the clock starts.
const WARM_UP: usize = 20;
/// Lines of one import stream.
const IMPORT_LINES: usize = 256;
const COLLECTION: &str = "bench";

/// What `bench clients` measures.
#[derive(Args, Clone, Debug)]
pub(super) struct ClientsArgs {
    /// Clients at once, each with one text after the other
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=128))]
    clients: u32,
    /// Rounds of batches and clients in turn; the medians count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Queries, idle and during the import
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    queries: u32,
    #[command(flatten)]
    data_set: DataSetArgs,
}

pub(super) fn run(args: &ClientsArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let set = args.data_set.load(places)?;
    let scratch = Scratch::create(places)?;
    // Without the cache: the model is measured.
    let options = Options { vector_cache_bytes: Some(0), ..context.options() };
    let database = Database::open_with(scratch.path().join("data"), options)?;
    let name = CollectionName::new(COLLECTION)?;
    database.create_collection(&name, &DefinitionRequest::default())?;
    let model = database.models().load(DEFAULT_MODEL)?;
    let server = LocalServer::start(database.clone())?;
    let progress = report::progress(context, args.rounds as usize + 2, "measurements");

    let texts: Vec<&str> = set.titles.iter().take(TEXTS).map(String::as_str).collect();
    let (mut batches, mut clients) = (Vec::new(), Vec::new());
    for round in 0..=args.rounds {
        let of_batches = batch_rate(&model, &texts)?;
        let of_clients = clients_rate(&server, &texts, args.clients as usize)?;
        // The first round warms up.
        if round > 0 {
            batches.push(of_batches);
            clients.push(of_clients);
            progress.inc(1);
        }
    }
    let idle = query_latencies(&server, &set, args.queries as usize)?;
    progress.inc(1);
    let (busy, documents_per_s) = during_import(&server, &set, args.queries as usize)?;
    progress.finish_and_clear();

    let mut report = report::head("clients");
    report["model"] = json!({ "name": model.name(), "fingerprint": model.fingerprint() });
    report["threads"] = json!(context.threads);
    report["texts"] = json!(texts.len());
    report["clients"] = json!([rates(args.clients, &batches, &clients)]);
    report["queries"] =
        json!([latencies("idle", &idle, None), latencies("during an import", &busy, Some(documents_per_s))]);
    report["p99_ratio"] = json!(rounded(busy.percentile_us(0.99) / idle.percentile_us(0.99), 2));
    report["p50_ratio"] = json!(rounded(busy.percentile_us(0.5) / idle.percentile_us(0.5), 2));
    report::write(context, &report, || write_tables(&report))
}

/// Texts a second by batches in this process, one after the other, sorted by length.
fn batch_rate(model: &TextModel, texts: &[&str]) -> Result<f64, CliError> {
    let mut sorted = texts.to_vec();
    sorted.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let started = Instant::now();
    for batch in sorted.chunks(BATCH) {
        model.embed(batch, InputKind::Document)?;
    }
    Ok(rate(texts.len(), started.elapsed()))
}

/// Texts a second by clients over HTTP, each with a connection of its own and one text a request.
fn clients_rate(server: &LocalServer, texts: &[&str], clients: usize) -> Result<f64, CliError> {
    let url = server.url("/v1/embeddings");
    let next = AtomicUsize::new(0);
    let client = || -> Result<(), CliError> {
        let agent = agent();
        while let Some(text) = texts.get(next.fetch_add(1, Ordering::Relaxed)) {
            // As OpenAI's client asks.
            post(&agent, &url, &json!({ "model": DEFAULT_MODEL, "input": text, "encoding_format": "base64" }))?;
        }
        Ok(())
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        threads.into_iter().try_for_each(|thread| joined(thread.join()))
    })?;
    Ok(rate(texts.len(), started.elapsed()))
}

/// Searches by text, one after the other on one connection.
fn query_latencies(server: &LocalServer, set: &Cranfield, count: usize) -> Result<Latencies, CliError> {
    let url = server.url(&format!("/v1/collections/{COLLECTION}/search"));
    let agent = agent();
    let query = |index: usize| -> Result<Duration, CliError> {
        let body = json!({ "text": set.queries[index % set.queries.len()].text, "top_k": 10 });
        let started = Instant::now();
        post(&agent, &url, &body)?;
        Ok(started.elapsed())
    };
    (0..WARM_UP).try_for_each(|index| query(index).map(drop))?;
    Ok(Latencies::new((0..count).map(query).collect::<Result<_, _>>()?))
}

/// The same searches while one client imports abstracts to be embedded, a stream of a few hundred lines after the
/// other: one without an end would be buffered for minutes ahead. Returns also documents a second of the import.
fn during_import(server: &LocalServer, set: &Cranfield, count: usize) -> Result<(Latencies, f64), CliError> {
    let stop = AtomicBool::new(false);
    let url = server.url(&format!("/v1/collections/{COLLECTION}/import"));
    thread::scope(|scope| {
        let import = scope.spawn(|| -> Result<(u64, Duration), CliError> {
            let (agent, started, mut documents) = (agent(), Instant::now(), 0);
            let mut lines = set.documents.iter().cycle().enumerate();
            while !stop.load(Ordering::Relaxed) {
                let line = |(index, entry): (usize, &Entry)| json!({ "id": index.to_string(), "text": entry.text });
                let body: String = lines.by_ref().take(IMPORT_LINES).map(|row| format!("{}\n", line(row))).collect();
                let request = agent.post(&url).set("content-type", "application/x-ndjson");
                documents += read_json(request.send_string(&body))?["upserted"].as_u64().unwrap_or_default();
            }
            Ok((documents, started.elapsed()))
        });
        let latencies = query_latencies(server, set, count);
        stop.store(true, Ordering::Relaxed);
        let (documents, took) = joined(import.join())?;
        Ok((latencies?, rate(documents as usize, took)))
    })
}

fn agent() -> ureq::Agent {
    ureq::AgentBuilder::new().timeout(Duration::from_secs(120)).build()
}

fn post(agent: &ureq::Agent, url: &str, body: &Value) -> Result<Value, CliError> {
    read_json(agent.post(url).set("content-type", "application/json").send_string(&body.to_string()))
}

fn read_json(answer: Result<ureq::Response, ureq::Error>) -> Result<Value, CliError> {
    let answer = answer.map_err(|error| CliError::Refused(format!("the measured server: {error}")))?;
    let text = answer.into_string().map_err(|e| CliError::io("read an answer", e))?;
    serde_json::from_str(&text).map_err(|error| CliError::Refused(format!("the measured server: {error}")))
}

fn joined<T>(result: thread::Result<Result<T, CliError>>) -> Result<T, CliError> {
    result.unwrap_or_else(|_| Err(CliError::Refused("a client's thread panicked".to_owned())))
}

fn rates(clients: u32, batches: &[f64], of_clients: &[f64]) -> Value {
    let round = |values: &[f64]| values.iter().map(|value| rounded(*value, 1)).collect::<Vec<_>>();
    json!({
        "clients": clients,
        "batch_texts_per_s": rounded(median(batches), 1),
        "client_texts_per_s": rounded(median(of_clients), 1),
        "ratio": rounded(median(of_clients) / median(batches), 3),
        "batch_runs": round(batches),
        "client_runs": round(of_clients),
    })
}

fn latencies(when: &str, latencies: &Latencies, documents_per_s: Option<f64>) -> Value {
    let ms = |share: f64| rounded(latencies.percentile_us(share) / 1e3, 2);
    json!({
        "when": when, "calls": latencies.count(), "p50_ms": ms(0.5), "p95_ms": ms(0.95), "p99_ms": ms(0.99),
        "max_ms": ms(1.0), "documents_per_s": documents_per_s.map(|rate| rounded(rate, 1)),
    })
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    let array = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let columns = [
        ("clients", "clients"),
        ("texts/s", "client_texts_per_s"),
        ("batches of 32, texts/s", "batch_texts_per_s"),
        ("ratio", "ratio"),
    ];
    report::table("Short texts, one a request, over HTTP", &array("clients"), &columns)?;
    let columns = [
        ("queries", "when"),
        ("calls", "calls"),
        ("p50 ms", "p50_ms"),
        ("p95 ms", "p95_ms"),
        ("p99 ms", "p99_ms"),
        ("max ms", "max_ms"),
        ("imported/s", "documents_per_s"),
    ];
    report::table("Searches by text, over HTTP", &array("queries"), &columns)?;
    report::fields(report, &[("p50, during / idle", "p50_ratio"), ("p99, during / idle", "p99_ratio")])
}
