//! `bench ingest`: documents a second, latency of durable writes, disk and memory, with vectors given and embedded.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::super::{CliError, Context};
use super::cranfield::DataSetArgs;
use super::rows::{Clusters, RowReader, Source};
use super::scratch::{Scratch, filesystem};
use super::stats::rounded;
use super::store::{document, id_of};
use super::writes::{Singles, measure_batches, measure_singles};
use super::{Places, report};
use crate::collection::DefinitionRequest;
use crate::embed::DEFAULT_MODEL;
use crate::types::NewDocument;

/// Documents of one call, in turn.
const BATCHES: [usize; 2] = [100, 1_000];
/// Threads that write single documents, in turn.
const CONCURRENCIES: [usize; 2] = [1, 8];
const SEED: u64 = 1;

/// What `bench ingest` writes.
#[derive(Args, Clone, Debug)]
pub(super) struct IngestArgs {
    /// Documents whose vectors are given
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    n: u32,
    /// Numbers in a vector
    #[arg(long, value_name = "N", default_value_t = 384)]
    dim: u32,
    /// Vectors to write, little-endian f32, row after row [default: synthetic ones]
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Documents that are written one a call
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    singles: u32,
    /// Cranfield documents to embed and write; 0 leaves embedding out
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    texts: usize,
    #[command(flatten)]
    data_set: DataSetArgs,
}

pub(super) fn run(args: &IngestArgs, places: &Places, context: &Context) -> Result<(), CliError> {
    let scratch = Scratch::create(places)?;
    let mut report = report::head("ingest");
    report["filesystem"] = json!(filesystem(scratch.path()));
    report["vectors"] = json!(args.source()?.describe());
    report["dim"] = json!(args.dim);
    report["durable"] = json!("a call returns when its change has been written and synced");

    let progress = report::progress(context, BATCHES.len() + CONCURRENCIES.len(), "of the measurements with vectors");
    let mut batches = Vec::new();
    for batch in BATCHES {
        let dir = scratch.path().join(format!("batch-{batch}"));
        let documents = args.documents()?;
        batches.push(measure_batches(&dir, &DefinitionRequest::vectors(args.dim), documents, batch, context)?);
        progress.inc(1);
    }
    let mut singles = Vec::new();
    for threads in CONCURRENCIES {
        let dir = scratch.path().join(format!("singles-{threads}"));
        let shape = Singles { count: args.singles as usize, threads, dim: args.dim };
        singles.push(measure_singles(&dir, &mut args.source()?, shape, context)?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    report["batches"] = json!(batches);
    report["singles"] = json!(singles);
    report["embedded"] = match args.texts {
        0 => Value::Null,
        texts => measure_embedded(args, texts, &scratch, places, context)?,
    };
    report::write(context, &report, || write_tables(&report))
}

impl IngestArgs {
    fn source(&self) -> Result<Source, CliError> {
        Ok(match &self.vectors {
            Some(path) => Source::File(RowReader::open(path, self.dim as usize)?),
            None => Source::Synthetic(Clusters::new(self.dim as usize, SEED)),
        })
    }

    fn documents(&self) -> Result<Vec<NewDocument>, CliError> {
        let rows = self.source()?.take(self.n as usize)?;
        rows.into_iter().enumerate().map(|(row, vector)| document(row, vector)).collect()
    }
}

/// Texts in, searchable documents out: the model is loaded before the clock starts.
fn measure_embedded(
    args: &IngestArgs,
    texts: usize,
    scratch: &Scratch,
    places: &Places,
    context: &Context,
) -> Result<Value, CliError> {
    let set = args.data_set.load(places)?;
    let started = Instant::now();
    context.model_store().load(DEFAULT_MODEL)?;
    let load = started.elapsed();
    let definition = DefinitionRequest { model: Some(DEFAULT_MODEL.to_owned()), ..DefinitionRequest::default() };
    let entries = || set.documents.iter().take(texts).enumerate();
    let documents: Vec<NewDocument> = entries()
        .map(|(row, entry)| Ok(NewDocument::from_text(id_of(row)?, entry.text.as_str())))
        .collect::<Result<_, CliError>>()?;
    let text_bytes: usize = entries().map(|(_, entry)| entry.text.len()).sum();
    let count = documents.len();
    let dir = scratch.path().join("embedded");
    let mut measured = measure_batches(&dir, &definition, documents, BATCHES[0], context)?;
    measured["text_bytes_per_document"] = json!(text_bytes / count.max(1));
    measured["model"] = json!(DEFAULT_MODEL);
    measured["model_load_s"] = json!(rounded(load.as_secs_f64(), 3));
    Ok(measured)
}

fn write_tables(report: &Value) -> Result<(), CliError> {
    let array = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let batch_columns = [
        ("documents", "documents"),
        ("a call", "batch"),
        ("documents/s", "documents_per_s"),
        ("p50 us a call", "batch_p50_us"),
        ("p99 us a call", "batch_p99_us"),
        ("calls", "batches"),
        ("optimise s", "optimise_s"),
        ("documents/s with it", "documents_per_s_with_optimise"),
        ("segment bytes a document", "segment_bytes_per_document"),
        ("directory bytes a document", "directory_bytes_per_document"),
        ("peak RSS MiB", "peak_rss_mib"),
    ];
    report::fields(report, &[("vectors", "vectors"), ("dim", "dim"), ("file system", "filesystem")])?;
    report::table("Vectors given, batches one after the other, each synced", &array("batches"), &batch_columns)?;
    report::table(
        "Vectors given, one document a call, each synced",
        &array("singles"),
        &[
            ("threads", "threads"),
            ("documents/s", "documents_per_s"),
            ("p50 us", "p50_us"),
            ("p99 us", "p99_us"),
            ("max us", "max_us"),
            ("calls", "calls"),
        ],
    )?;
    match &report["embedded"] {
        Value::Null => Ok(()),
        embedded => {
            let rows = std::slice::from_ref(embedded);
            report::table("Cranfield documents, embedded by the engine", rows, &batch_columns)
        }
    }
}
