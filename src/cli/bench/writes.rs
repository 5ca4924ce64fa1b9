//! How fast documents become durable: batches one after the other, and single documents from several threads.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::{CliError, Context};
use super::rows::Source;
use super::scratch::directory_bytes;
use super::stats::{Latencies, peak_rss_mib, rate, reset_peak_rss, rounded, whole};
use super::store::{Store, document, upsert};
use crate::collection::{Collection, DefinitionRequest};
use crate::types::NewDocument;

/// Upserts `documents` into a new database in batches, then seals, merges and builds the graph. Every batch is durable
/// when its call returns.
///
/// # Errors
/// [`CliError::Open`], [`CliError::Collection`].
pub(super) fn measure_batches(
    dir: &Path,
    definition: &DefinitionRequest,
    documents: Vec<NewDocument>,
    batch: usize,
    context: &Context,
) -> Result<Value, CliError> {
    reset_peak_rss();
    let count = documents.len();
    let store = Store::open(dir, definition, context.options())?;
    let mut durations = Vec::new();
    let started = Instant::now();
    let mut documents = documents.into_iter();
    loop {
        let part: Vec<_> = documents.by_ref().take(batch).collect();
        if part.is_empty() {
            break;
        }
        durations.push(upsert(&store.collection, part)?);
    }
    let ingest = started.elapsed();
    let optimise = optimise(&store.collection)?;
    let segment_bytes = store.collection.stats().disk_bytes;
    store.close();
    let latencies = Latencies::new(durations);
    Ok(json!({
        "documents": count,
        "batch": batch,
        "seconds": rounded(ingest.as_secs_f64(), 3),
        "documents_per_s": whole(rate(count, ingest)),
        "batches": latencies.count(),
        "batch_p50_us": whole(latencies.percentile_us(0.5)),
        "batch_p99_us": whole(latencies.percentile_us(0.99)),
        "optimise_s": rounded(optimise.as_secs_f64(), 3),
        "documents_per_s_with_optimise": whole(rate(count, ingest + optimise)),
        "segment_bytes_per_document": segment_bytes / count.max(1) as u64,
        "directory_bytes_per_document": directory_bytes(dir) / count.max(1) as u64,
        "peak_rss_mib": peak_rss_mib(),
    }))
}

/// Seals, merges and builds the graph; how long that took.
pub(super) fn optimise(collection: &Collection) -> Result<Duration, CliError> {
    let started = Instant::now();
    collection.optimise()?;
    Ok(started.elapsed())
}

/// Upserts `count` documents, one a call, from `threads` threads at once into a new database.
///
/// # Errors
/// [`CliError::Open`], [`CliError::Collection`].
pub(super) fn measure_singles(
    dir: &Path,
    source: &mut Source,
    shape: Singles,
    context: &Context,
) -> Result<Value, CliError> {
    let definition = DefinitionRequest::vectors(shape.dim);
    let store = Store::open(dir, &definition, context.options())?;
    let documents: Vec<NewDocument> = source
        .take(shape.count)?
        .into_iter()
        .enumerate()
        .map(|(row, vector)| document(row, vector))
        .collect::<Result<_, _>>()?;
    let share = documents.len().div_ceil(shape.threads).max(1);
    let started = Instant::now();
    let durations = thread::scope(|scope| {
        let writers: Vec<_> = documents
            .chunks(share)
            .map(|part| scope.spawn(|| part.iter().map(|one| upsert(&store.collection, vec![one.clone()])).collect()))
            .collect();
        let join = |writer: thread::ScopedJoinHandle<'_, Result<Vec<Duration>, CliError>>| {
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        writers.into_iter().map(join).collect::<Result<Vec<_>, _>>()
    })?;
    let elapsed = started.elapsed();
    store.close();
    let latencies = Latencies::new(durations.into_iter().flatten().collect());
    Ok(json!({
        "threads": shape.threads,
        "calls": latencies.count(),
        "documents_per_s": whole(rate(latencies.count(), elapsed)),
        "p50_us": whole(latencies.percentile_us(0.5)),
        "p99_us": whole(latencies.percentile_us(0.99)),
        "max_us": whole(latencies.percentile_us(1.0)),
    }))
}

/// How single documents are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Singles {
    /// Documents in all.
    pub count: usize,
    /// Threads that write them.
    pub threads: usize,
    /// Numbers in a vector.
    pub dim: u32,
}
