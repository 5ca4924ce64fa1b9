//! `bench busy`: searches over HTTP while the store is busy: building another collection's graph, and right after many
//! documents were written into the collection that is searched.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::super::{CliError, Context};
use super::local_server::LocalServer;
use super::rows::VectorFiles;
use super::scratch::Scratch;
use super::stats::{Latencies, cpu_seconds, rounded};
use super::store::{self, BUILD_BATCH, Store, bare_request, document, upsert};
use super::sweep::{TOP_K, Truth};
use super::wire::{Connection, Request};
use super::writes::optimise;
use super::{Places, report};
use crate::collection::{Collection, DefinitionRequest};
use crate::http::wire::vector::to_base64;
use crate::types::CollectionName;

/// Searches before the clock starts.
const WARM_UP: usize = 100;
/// Queries that recall is measured with right after the writes.
const RECALL_QUERIES: usize = 200;

/// What `bench busy` measures.
#[derive(Args, Clone, Debug)]
pub(super) struct BusyArgs {
    #[command(flatten)]
    files: VectorFiles,
    /// Documents that the collection has a graph over: the first vectors
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    n: usize,
    /// Documents written into another collection, then into this one: the first vectors again
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    writes: usize,
    /// Searches each time
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    searches: u32,
    /// Pause after each, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 2)]
    pause_ms: u64,
    /// Seconds after the writes at which searches are measured again
    #[arg(long, value_name = "N", default_value_t = 20)]
    later_s: u64,
}

pub(super) fn run(args: &BusyArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let scratch = Scratch::create(places)?;
    let queries = args.files.queries()?;
    let definition = DefinitionRequest::vectors(args.files.dim);
    let options = store::options(context, context.threads);
    let store = Store::open(&scratch.path().join("data"), &definition, options)?;
    let other = store.database.create_collection(&CollectionName::new("other")?, &definition)?.collection;
    let progress = report::progress(context, args.n + 2 * args.writes, "documents");
    let write = |collection: &Collection, first: usize, count: usize| -> Result<Duration, CliError> {
        let started = Instant::now();
        let mut rows = args.files.base()?;
        for start in (0..count).step_by(BUILD_BATCH) {
            let mut batch = rows.read(BUILD_BATCH.min(count - start))?;
            if batch.is_empty() {
                let reason = format!("{} holds {start} vectors, not {count}", args.files.vectors.display());
                return Err(CliError::Refused(reason));
            }
            let documents = batch.drain(..).enumerate().map(|(at, row)| document(first + start + at, row));
            let documents = documents.collect::<Result<Vec<_>, _>>()?;
            progress.inc(documents.len() as u64);
            upsert(collection, documents)?;
        }
        Ok(started.elapsed())
    };
    write(&store.collection, 0, args.n)?;
    optimise(&store.collection)?;
    let server = LocalServer::start(store.database.clone())?;
    let path = format!("/v1/collections/{}/search", store.collection.name());
    let by_vector = |query: &Vec<f32>| json!({ "vector": to_base64(query), "top_k": TOP_K, "include": [] });
    let requests: Vec<Request> = queries.iter().map(|query| Request::post(&path, &by_vector(query))).collect();
    let searches = |when: &str| measure(server.address(), &requests, args, when);

    let mut rows = vec![searches("idle")?];
    write(&other, 0, args.writes)?;
    rows.push(searches("while another collection's graph is built")?);
    optimise(&other)?;
    let took = write(&store.collection, args.n, args.writes)?;
    let written = Instant::now();
    let fresh = searches("right after the writes")?;
    let without_graph = scanned_segments(&store.collection);
    rows.push(fresh);
    let recall = recall(&store.collection, &queries[..queries.len().min(RECALL_QUERIES)])?;
    thread::sleep(Duration::from_secs(args.later_s).saturating_sub(written.elapsed()));
    rows.push(searches("later")?);
    optimise(&store.collection)?;
    rows.push(searches("idle again")?);
    progress.finish_and_clear();
    drop(server);
    drop(other);
    store.close();

    let idle_p99 = rows[0]["p99_ms"].as_f64().unwrap_or(f64::NAN);
    for row in &mut rows {
        row["p99_to_idle"] = row["p99_ms"].as_f64().map_or(Value::Null, |p99| json!(rounded(p99 / idle_p99, 1)));
    }
    let mut report = report::head("busy");
    report["documents"] = json!(args.n);
    report["writes"] = json!(args.writes);
    report["writes_s"] = json!(rounded(took.as_secs_f64(), 1));
    report["segments_without_graph"] = json!(without_graph);
    report["recall_right_after"] = json!(recall);
    report["later_s"] = json!(args.later_s);
    report["searches"] = json!(rows);
    report::write(context, &report, || write_tables(&report))
}

/// Searches one after the other on one connection, with pauses.
fn measure(address: SocketAddr, requests: &[Request], args: &BusyArgs, when: &str) -> Result<Value, CliError> {
    let mut connection = Connection::open(address)?;
    let (mut over_http, mut within) = (Vec::new(), Vec::new());
    let (began, cpu_before) = (Instant::now(), cpu_seconds());
    for (at, request) in requests.iter().cycle().take(WARM_UP + args.searches as usize).enumerate() {
        let started = Instant::now();
        let answer = connection.send(request)?;
        let took = started.elapsed();
        if at >= WARM_UP {
            let answer: Value = serde_json::from_slice(answer)
                .map_err(|error| CliError::Refused(format!("the measured server's answer: {error}")))?;
            over_http.push(took);
            within.push(Duration::from_secs_f64(answer["took_ms"].as_f64().unwrap_or_default() / 1e3));
        }
        thread::sleep(Duration::from_millis(args.pause_ms));
    }
    let cpu = cpu_before.zip(cpu_seconds()).map(|(before, after)| (after - before) / began.elapsed().as_secs_f64());
    let (over_http, within) = (Latencies::new(over_http), Latencies::new(within));
    let ms = |latencies: &Latencies, share: f64| rounded(latencies.percentile_us(share) / 1e3, 2);
    Ok(json!({
        "when": when,
        "calls": over_http.count(),
        "p50_ms": ms(&over_http, 0.5),
        "p95_ms": ms(&over_http, 0.95),
        "p99_ms": ms(&over_http, 0.99),
        "server_p50_ms": ms(&within, 0.5),
        "server_p99_ms": ms(&within, 0.99),
        "cores_busy": cpu.map(|cores| rounded(cores, 1)),
    }))
}

/// Segments that are scanned.
fn scanned_segments(collection: &Collection) -> u64 {
    let stats = collection.stats();
    stats.segments - stats.graph_segments
}

/// Of what an exact search finds, the share that searches find.
fn recall(collection: &Collection, queries: &[Vec<f32>]) -> Result<f64, CliError> {
    let requests: Vec<_> = queries.iter().map(|query| bare_request(query, TOP_K)).collect();
    let truth = Truth::of(collection, &requests, &indicatif::ProgressBar::hidden())?;
    let right = |(at, request)| -> Result<usize, CliError> { Ok(truth.right(at, &collection.search(request)?.hits)) };
    let right = requests.iter().enumerate().map(right).sum::<Result<usize, _>>()?;
    Ok(rounded(right as f64 / truth.wanted().max(1) as f64, 4))
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    let columns = [
        ("searches over HTTP", "when"),
        ("calls", "calls"),
        ("p50 ms", "p50_ms"),
        ("p95 ms", "p95_ms"),
        ("p99 ms", "p99_ms"),
        ("p99 to idle", "p99_to_idle"),
        ("in the server, p50 ms", "server_p50_ms"),
        ("p99 ms", "server_p99_ms"),
        ("cores busy", "cores_busy"),
    ];
    report::table("Latency", report["searches"].as_array().map_or(&[], Vec::as_slice), &columns)?;
    report::fields(
        report,
        &[
            ("documents with a graph", "documents"),
            ("documents written", "writes"),
            ("writing took, s", "writes_s"),
            ("segments without a graph right after", "segments_without_graph"),
            ("recall@10 right after", "recall_right_after"),
            ("later, s after the writes", "later_s"),
        ],
    )
}
