//! `bench rewrites`: every document written again and again; what that leaves of disk, recall and speed.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::super::{CliError, Context};
use super::rows::{Source, VectorFiles};
use super::scratch::{Scratch, filesystem};
use super::stats::rounded;
use super::store::{self, BUILD_BATCH, Store, document, upsert};
use super::sweep::{self, Truth};
use super::{Places, report};
use crate::collection::DefinitionRequest;

/// What `bench rewrites` writes.
#[derive(Args, Clone, Debug)]
pub(super) struct RewritesArgs {
    /// Documents
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    n: u32,
    /// How often each is written again
    #[arg(long, value_name = "N", default_value_t = 10)]
    rewrites: usize,
    #[command(flatten)]
    files: VectorFiles,
}

pub(super) fn run(args: &RewritesArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let scratch = Scratch::create(places)?;
    let n = args.n as usize;
    let rows = Source::File(args.files.base()?).take(n)?;
    let queries = args.files.queries()?;
    let mut report = report::head("rewrites");
    report["documents"] = json!(n);
    report["rewrites"] = json!(args.rewrites);
    report["dim"] = json!(args.files.dim);
    report["queries"] = json!(queries.len());
    report["filesystem"] = json!(filesystem(scratch.path()));
    let run = Run { rows, queries, dim: args.files.dim, context };

    let fresh = run.open(&scratch, "fresh")?;
    let mut written = Written::default();
    run.write(&fresh, 0, &mut written)?;
    let (once, live_bytes) = run.measure(&fresh)?;
    fresh.close();

    let rewritten = run.open(&scratch, "rewritten")?;
    let mut written = Written::default();
    for left in (0..=args.rewrites).rev() {
        run.write(&rewritten, left, &mut written)?;
    }
    let started = Instant::now();
    rewritten.collection.settle()?;
    let settled = rewritten.collection.stats();
    report["settling_s"] = json!(rounded(started.elapsed().as_secs_f64(), 1));
    let (often, often_bytes) = run.measure(&rewritten)?;
    let merges = rewritten.database.merges();
    rewritten.close();

    let ratio = |bytes: u64| json!(rounded(bytes as f64 / live_bytes.max(1) as f64, 3));
    let of = |key: &str| often[key].as_f64().unwrap_or(0.0) / once[key].as_f64().unwrap_or(f64::NAN);
    report["fresh"] = once.clone();
    report["rewritten"] = often.clone();
    report["documents_per_s"] = json!(rounded((n * (args.rewrites + 1)) as f64 / written.took.as_secs_f64(), 0));
    report["live_bytes"] = json!(live_bytes);
    report["most_bytes_while_writing"] = json!(written.most_bytes);
    report["most_while_writing_to_live"] = ratio(written.most_bytes);
    report["settled_to_live"] = ratio(settled.disk_bytes);
    report["compacted_to_live"] = ratio(often_bytes);
    report["recall_ratio"] = json!(rounded(of("recall_at_10"), 4));
    report["qps_ratio"] = json!(rounded(of("qps_calls"), 3));
    report["merged_bytes"] = json!(merges.written_bytes);
    report["merged_to_written"] =
        json!(rounded(merges.written_bytes as f64 / (live_bytes as f64 * (args.rewrites + 1) as f64), 2));
    report::write(context, &report, || write_tables(&report))
}

/// What writing took.
#[derive(Default)]
struct Written {
    took: Duration,
    /// Most bytes of segments that stood at the end of a batch.
    most_bytes: u64,
}

struct Run<'a> {
    rows: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    dim: u32,
    context: &'a Context,
}

impl Run<'_> {
    fn open(&self, scratch: &Scratch, name: &str) -> Result<Store, CliError> {
        let options = store::options(self.context, self.context.threads);
        Store::open(&scratch.path().join(name), &DefinitionRequest::vectors(self.dim), options)
    }

    /// Writes every document: with its own vector where `left` is 0, else with that of another.
    fn write(&self, store: &Store, left: usize, written: &mut Written) -> Result<(), CliError> {
        let n = self.rows.len();
        let progress = report::progress(self.context, n, "documents written");
        for start in (0..n).step_by(BUILD_BATCH) {
            let batch = start..n.min(start + BUILD_BATCH);
            let rows = batch.clone().map(|row| document(row, self.rows[(row + left * (n / 7 + 1)) % n].clone()));
            written.took += upsert(&store.collection, rows.collect::<Result<Vec<_>, _>>()?)?;
            written.most_bytes = written.most_bytes.max(store.collection.stats().disk_bytes);
            progress.inc(batch.len() as u64);
        }
        progress.finish_and_clear();
        Ok(())
    }

    /// Compacts, and measures searches that name no effort. Returns the bytes of the segments too.
    fn measure(&self, store: &Store) -> Result<(Value, u64), CliError> {
        let optimise = super::writes::optimise(&store.collection)?;
        let progress = report::progress(self.context, 3 * self.queries.len(), "queries measured");
        let truth = Truth::gather(&store.collection, &self.queries, &progress)?;
        let mut figures = sweep::measure(&store.collection, &self.queries, &truth, None, &progress)?;
        progress.finish_and_clear();
        let stats = store.collection.stats();
        figures["optimise_s"] = json!(rounded(optimise.as_secs_f64(), 1));
        figures["segment_bytes"] = json!(stats.disk_bytes);
        figures["segments"] = json!(stats.segments);
        Ok((figures, stats.disk_bytes))
    }
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    let named = |key: &str| {
        let mut row = report[key].clone();
        row["name"] = json!(key);
        row
    };
    report::table(
        "after compaction",
        &[named("fresh"), named("rewritten")],
        &[
            ("", "name"),
            ("recall@10", "recall_at_10"),
            ("QPS", "qps_calls"),
            ("p50 us", "p50_us"),
            ("bytes", "segment_bytes"),
            ("optimise s", "optimise_s"),
        ],
    )?;
    report::fields(
        report,
        &[
            ("recall to fresh", "recall_ratio"),
            ("QPS to fresh", "qps_ratio"),
            ("disk to live, compacted", "compacted_to_live"),
            ("disk to live, merges done as they fell due", "settled_to_live"),
            ("disk to live, most while writing", "most_while_writing_to_live"),
            ("documents/s while merging", "documents_per_s"),
            ("bytes merged to bytes written", "merged_to_written"),
        ],
    )
}
