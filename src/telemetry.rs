//! Names of the metrics, and the recorder that renders them for Prometheus.
//!
//! Base units, one-word prefix, and no label whose values are unbounded: never an id or a query. Recall alone is told
//! by collection, of those that stand at the scrape, since a mean over several would hide the one that is searched
//! badly; copies are told by sink, likewise.

use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Counter: requests answered, by `method`, `route` and `status`.
pub const HTTP_REQUESTS_TOTAL: &str = "pannier_http_requests_total";
/// Histogram, seconds: from the request's head to the response's head, by `method`, `route` and `status`.
pub const HTTP_REQUEST_DURATION_SECONDS: &str = "pannier_http_request_duration_seconds";
/// Gauge: requests being answered.
pub const HTTP_REQUESTS_IN_FLIGHT: &str = "pannier_http_requests_in_flight";
/// Gauge: open connections.
pub const HTTP_CONNECTIONS: &str = "pannier_http_connections";
/// Counter: documents written through the API.
pub const DOCUMENTS_UPSERTED_TOTAL: &str = "pannier_documents_upserted_total";
/// Counter: documents changed by patches.
pub const DOCUMENTS_UPDATED_TOTAL: &str = "pannier_documents_updated_total";
/// Counter: documents deleted through the API.
pub const DOCUMENTS_DELETED_TOTAL: &str = "pannier_documents_deleted_total";
/// Histogram, seconds: searches as the engine measures them, by `plan`.
pub const SEARCH_DURATION_SECONDS: &str = "pannier_search_duration_seconds";
/// Counter: tokens that the routes which answer with vectors read.
pub const EMBEDDING_TOKENS_TOTAL: &str = "pannier_embedding_tokens_total";
/// Gauge: texts that wait to be embedded, by `lane`.
pub const EMBEDDING_QUEUE_TEXTS: &str = "pannier_embedding_queue_texts";
/// Gauge: their tokens, by `lane`.
pub const EMBEDDING_QUEUE_TOKENS: &str = "pannier_embedding_queue_tokens";
/// Histogram: texts of a pass of the model, by `lane`.
pub const EMBEDDING_PASS_TEXTS: &str = "pannier_embedding_pass_texts";
/// Histogram: tokens of a pass of the model, by `lane`.
pub const EMBEDDING_PASS_TOKENS: &str = "pannier_embedding_pass_tokens";
/// Histogram, seconds: from queueing a text to the start of its pass, by `lane`.
pub const EMBEDDING_WAIT_SECONDS: &str = "pannier_embedding_wait_duration_seconds";
/// Counter: texts that were dropped from the queue because their caller had gone, by `lane`.
pub const EMBEDDING_DROPPED_TOTAL: &str = "pannier_embedding_dropped_total";
/// Counter: texts that were refused because too many waited, by `lane`.
pub const EMBEDDING_REFUSED_TOTAL: &str = "pannier_embedding_refused_total";
/// Counter: texts whose vector was in the cache.
pub const EMBEDDING_CACHE_HITS_TOTAL: &str = "pannier_embedding_cache_hits_total";
/// Counter: texts whose vector was not in the cache.
pub const EMBEDDING_CACHE_MISSES_TOTAL: &str = "pannier_embedding_cache_misses_total";
/// Gauge: collections.
pub const COLLECTIONS: &str = "pannier_collections";
/// Gauge: documents in all collections.
pub const DOCUMENTS: &str = "pannier_documents";
/// Gauge: segments in all collections.
pub const SEGMENTS: &str = "pannier_segments";
/// Gauge: bytes of all segments on disk.
pub const SEGMENT_BYTES: &str = "pannier_segment_bytes";
/// Counter: bytes that merging segments wrote, of unfinished ones too.
pub const MERGE_BYTES_TOTAL: &str = "pannier_merge_bytes_total";
/// Gauge, seconds: how long the merge rate held merging back since the start.
pub const MERGE_HELD_BACK_SECONDS: &str = "pannier_merge_held_back_seconds";
/// Gauge: found hits by sampled hits, by `collection`.
pub const SEARCH_RECALL: &str = "pannier_search_recall";
/// Counter: hits that sampled searches should have had, by `collection`.
pub const SEARCH_RECALL_SAMPLED_HITS_TOTAL: &str = "pannier_search_recall_sampled_hits_total";
/// Counter: of them, those that they had, by `collection`.
pub const SEARCH_RECALL_FOUND_HITS_TOTAL: &str = "pannier_search_recall_found_hits_total";
/// Gauge: memory for what filters that are asked often let through.
pub const PACKED_FILTER_BYTES: &str = "pannier_packed_filter_bytes";
/// Gauge: bytes of the change log on disk.
pub const LOG_BYTES: &str = "pannier_log_bytes";
/// Gauge: seq of the last change; every acknowledged change is on disk.
pub const LAST_SEQ: &str = "pannier_last_seq";
/// Gauge: 1 while writes are accepted, else 0.
pub const ACCEPTING_WRITES: &str = "pannier_accepting_writes";
/// Gauge, seconds since the Unix epoch: when the schedule last took a snapshot, or found nothing to take.
pub const SNAPSHOT_LAST_SUCCESS_TIMESTAMP_SECONDS: &str = "pannier_snapshot_last_success_timestamp_seconds";
/// Counter: times that the schedule could not take a snapshot.
pub const SNAPSHOT_FAILURES_TOTAL: &str = "pannier_snapshot_failures_total";
/// Gauge: changes that a sink's copy lacks, by `sink`.
pub const REPLICATION_LAG_SEQS: &str = "pannier_replication_lag_seqs";
/// Gauge, seconds: age of the oldest change that a sink's copy lacks, by `sink`.
pub const REPLICATION_LAG_SECONDS: &str = "pannier_replication_lag_seconds";
/// Gauge: rows that a sink wrote since the process began, by `sink`.
pub const REPLICATION_ROWS_WRITTEN: &str = "pannier_replication_rows_written";
/// Gauge: documents that no row of a sink could hold, by `sink`.
pub const REPLICATION_DEAD_LETTERS: &str = "pannier_replication_dead_letters";
/// Gauge: 1 while a sink follows the changes, else 0, by `sink`.
pub const REPLICATION_STREAMING: &str = "pannier_replication_streaming";
/// Gauge: connections with the database of collections that a call uses now, by `url`.
pub const BACKEND_CONNECTIONS_IN_USE: &str = "pannier_backend_connections_in_use";
/// Gauge: connections with it that are kept for the next call, by `url`.
pub const BACKEND_CONNECTIONS_RESTING: &str = "pannier_backend_connections_resting";
/// Gauge: calls that wait for a connection with it, by `url`.
pub const BACKEND_CALLS_WAITING: &str = "pannier_backend_calls_waiting";
/// Gauge, always 1: the version is its label.
pub const BUILD_INFO: &str = "pannier_build_info";
/// Gauge: resident memory of the process.
pub const PROCESS_RESIDENT_MEMORY_BYTES: &str = "process_resident_memory_bytes";
/// Gauge: when the process started, in seconds since the Unix epoch.
pub const PROCESS_START_TIME_SECONDS: &str = "process_start_time_seconds";

/// Upper bounds of the histogram of searches, in seconds: one by vector takes tens of microseconds, one that embeds its
/// text milliseconds, one that reranks seconds.
const SEARCH_BUCKETS: [f64; 16] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 30.0];

/// Upper bounds of the other duration histograms, in seconds: a small request takes less than a millisecond, a large
/// write seconds.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Upper bounds of the histograms of pass sizes.
const PASS_TEXTS_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
const PASS_TOKENS_BUCKETS: [f64; 8] = [8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Installs the process-wide recorder on the first call; every call returns a handle that renders it.
///
/// # Errors
/// [`BuildError`] when the program around this crate has installed a recorder of its own.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(SEARCH_DURATION_SECONDS.to_owned()), &SEARCH_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(EMBEDDING_PASS_TEXTS.to_owned()), &PASS_TEXTS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(EMBEDDING_PASS_TOKENS.to_owned()), &PASS_TOKENS_BUCKETS)?
        .install_recorder()?;
    describe();
    *installed = Some(handle.clone());
    Ok(handle)
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(HTTP_REQUESTS_TOTAL, "Requests answered.");
    describe_histogram!(HTTP_REQUEST_DURATION_SECONDS, Unit::Seconds, "Time to answer a request.");
    describe_gauge!(HTTP_REQUESTS_IN_FLIGHT, "Requests being answered.");
    describe_gauge!(HTTP_CONNECTIONS, "Open connections.");
    describe_counter!(DOCUMENTS_UPSERTED_TOTAL, "Documents written through the API.");
    describe_counter!(DOCUMENTS_UPDATED_TOTAL, "Documents changed by patches.");
    describe_counter!(DOCUMENTS_DELETED_TOTAL, "Documents deleted through the API.");
    describe_histogram!(SEARCH_DURATION_SECONDS, Unit::Seconds, "Searches as the engine measures them.");
    describe_counter!(EMBEDDING_TOKENS_TOTAL, "Tokens read by the routes that answer with vectors.");
    describe_gauge!(EMBEDDING_QUEUE_TEXTS, "Texts that wait to be embedded.");
    describe_gauge!(EMBEDDING_QUEUE_TOKENS, "Tokens that wait to be embedded.");
    describe_histogram!(EMBEDDING_PASS_TEXTS, "Texts of a pass of the model.");
    describe_histogram!(EMBEDDING_PASS_TOKENS, "Tokens of a pass of the model.");
    describe_histogram!(EMBEDDING_WAIT_SECONDS, Unit::Seconds, "Time from queueing a text to the start of its pass.");
    describe_counter!(EMBEDDING_DROPPED_TOTAL, "Texts dropped from the queue because their caller had gone.");
    describe_counter!(EMBEDDING_REFUSED_TOTAL, "Texts refused because too many waited.");
    describe_counter!(EMBEDDING_CACHE_HITS_TOTAL, "Texts whose vector was in the cache.");
    describe_counter!(EMBEDDING_CACHE_MISSES_TOTAL, "Texts whose vector was not in the cache.");
    describe_gauge!(COLLECTIONS, "Collections.");
    describe_gauge!(DOCUMENTS, "Documents in all collections.");
    describe_gauge!(SEGMENTS, "Segments in all collections.");
    describe_gauge!(SEGMENT_BYTES, Unit::Bytes, "Bytes of all segments on disk.");
    describe_counter!(MERGE_BYTES_TOTAL, Unit::Bytes, "Bytes that merging segments wrote.");
    describe_gauge!(MERGE_HELD_BACK_SECONDS, Unit::Seconds, "Time that the merge rate held merging back.");
    describe_gauge!(PACKED_FILTER_BYTES, Unit::Bytes, "Memory for what filters that are asked often let through.");
    describe_gauge!(LOG_BYTES, Unit::Bytes, "Bytes of the change log on disk.");
    describe_gauge!(LAST_SEQ, "Seq of the last change.");
    describe_gauge!(ACCEPTING_WRITES, "1 while writes are accepted, else 0.");
    let last_success = "When the schedule last took a snapshot, or found nothing to take.";
    describe_gauge!(SNAPSHOT_LAST_SUCCESS_TIMESTAMP_SECONDS, Unit::Seconds, last_success);
    describe_counter!(SNAPSHOT_FAILURES_TOTAL, "Times that the schedule could not take a snapshot.");
    describe_gauge!(BACKEND_CONNECTIONS_IN_USE, "Connections with the database of collections that a call uses now.");
    describe_gauge!(BACKEND_CONNECTIONS_RESTING, "Connections with it that are kept for the next call.");
    describe_gauge!(BACKEND_CALLS_WAITING, "Calls that wait for a connection with it.");
    describe_gauge!(BUILD_INFO, "Always 1; the version is a label.");
    describe_gauge!(PROCESS_RESIDENT_MEMORY_BYTES, Unit::Bytes, "Resident memory of the process.");
    describe_gauge!(PROCESS_START_TIME_SECONDS, Unit::Seconds, "Start of the process since the Unix epoch.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_metrics_has_every_name_and_no_other() {
        let names = include_str!("telemetry.rs").lines().filter(|line| line.starts_with("pub const "));
        let mut names: Vec<&str> = names.filter_map(|line| line.split('"').nth(1)).collect();
        let page = include_str!("../docs/operations/metrics.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut listed: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        names.sort();
        listed.sort();
        assert!(names.len() > 40, "{}", names.len());
        assert_eq!(listed, names);
    }

    #[test]
    fn searches_have_buckets_of_their_own() {
        let recorder = install_recorder().unwrap();
        metrics::histogram!(SEARCH_DURATION_SECONDS, "plan" => "test").record(0.00003);
        let text = recorder.render();
        for (bound, count) in [("0.000025", 0), ("0.00005", 1), ("30", 1)] {
            let line = format!("{SEARCH_DURATION_SECONDS}_bucket{{plan=\"test\",le=\"{bound}\"}} {count}");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_recorder_is_installed_once_and_renders_what_is_counted() {
        let first = install_recorder().unwrap();
        let second = install_recorder().unwrap();
        metrics::counter!("pannier_test_total").increment(3);
        assert!(first.render().contains("pannier_test_total 3"), "{}", first.render());
        assert_eq!(first.render().contains("pannier_test_total"), second.render().contains("pannier_test_total"));
    }
}
