//! `/metrics` for Prometheus: counters as they stand, gauges read at the scrape.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::{counter, gauge};

use super::error::ApiError;
use super::state::AppState;
use crate::collection::{CollectionStats, SampledRecall};
use crate::database::Database;
use crate::telemetry;
use crate::types::CollectionName;

/// The text format that Prometheus reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders all metrics.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain", description = "Prometheus's text format."))
)]
pub(crate) async fn render(State(state): State<AppState>) -> Result<impl IntoResponse, ApiError> {
    let started_at = state.started_at().as_millisecond() as f64 / 1_000.0;
    for (url, figures) in state.collections().pools() {
        let url = url.name();
        gauge!(telemetry::BACKEND_CONNECTIONS_IN_USE, "url" => url.clone()).set(figures.in_use as f64);
        gauge!(telemetry::BACKEND_CONNECTIONS_RESTING, "url" => url.clone()).set(figures.resting as f64);
        gauge!(telemetry::BACKEND_CALLS_WAITING, "url" => url).set(figures.waiting as f64);
    }
    let recall = state
        .measuring(move |database| {
            let collections = database.collections();
            let stats: Vec<_> = collections.iter().map(|collection| (collection.name(), collection.stats())).collect();
            measure(database, &stats);
            gauge!(telemetry::PROCESS_START_TIME_SECONDS).set(started_at);
            Ok(recall_lines(&sampled(&stats)))
        })
        .await?;
    let mut text = state.metrics().map(|metrics| metrics.render()).unwrap_or_default();
    text.push_str(&recall);
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text))
}

fn measure(database: &Database, stats: &[(&CollectionName, CollectionStats)]) {
    let health = database.health();
    let sum = |figure: fn(&CollectionStats) -> u64| stats.iter().map(|(_, stats)| figure(stats)).sum::<u64>() as f64;
    gauge!(telemetry::COLLECTIONS).set(stats.len() as f64);
    gauge!(telemetry::DOCUMENTS).set(sum(|stats| stats.documents));
    gauge!(telemetry::SEGMENTS).set(sum(|stats| stats.segments));
    gauge!(telemetry::SEGMENT_BYTES).set(sum(|stats| stats.disk_bytes));
    let merges = database.merges();
    counter!(telemetry::MERGE_BYTES_TOTAL).absolute(merges.written_bytes);
    gauge!(telemetry::MERGE_HELD_BACK_SECONDS).set(merges.held_back.as_secs_f64());
    gauge!(telemetry::PACKED_FILTER_BYTES).set(database.packed_bytes() as f64);
    gauge!(telemetry::LOG_BYTES).set(health.log_bytes as f64);
    gauge!(telemetry::LAST_SEQ).set(health.last_seq.0 as f64);
    gauge!(telemetry::ACCEPTING_WRITES).set(f64::from(u8::from(health.accepting_writes)));
    gauge!(telemetry::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    if let Some(bytes) = resident_bytes() {
        gauge!(telemetry::PROCESS_RESIDENT_MEMORY_BYTES).set(bytes as f64);
    }
}

/// Collections of which searches were sampled.
fn sampled(stats: &[(&CollectionName, CollectionStats)]) -> Vec<(String, SampledRecall)> {
    let named = stats.iter().map(|(name, stats)| (name.to_string(), stats.recall));
    named.filter(|(_, recall)| recall.sampled_hits > 0).collect()
}

/// What the samples say, by collection. Written here, since the recorder would go on telling of dropped collections.
fn recall_lines(sampled: &[(String, SampledRecall)]) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&SampledRecall) -> f64| {
        if !sampled.is_empty() {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        for (collection, recall) in sampled {
            // Names of collections need no escapes.
            text.push_str(&format!("{name}{{collection=\"{collection}\"}} {}\n", value(recall)));
        }
    };
    let sampled_hits = "Hits that searches which were answered again without the graph should have had.";
    family(telemetry::SEARCH_RECALL_SAMPLED_HITS_TOTAL, "counter", sampled_hits, &|recall| recall.sampled_hits as f64);
    let found_hits = "Of them, those that the searches had.";
    family(telemetry::SEARCH_RECALL_FOUND_HITS_TOTAL, "counter", found_hits, &|recall| recall.found_hits as f64);
    let share = "The share that the searches had.";
    family(telemetry::SEARCH_RECALL, "gauge", share, &|recall| recall.recall().unwrap_or(1.0));
    text
}

/// Resident memory as the kernel tells it; `None` where there is no `/proc`.
fn resident_bytes() -> Option<u64> {
    parse_resident_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recall_is_told_by_collection() {
        assert_eq!(recall_lines(&[]), "");
        let text = recall_lines(&[("a-1".to_owned(), SampledRecall { sampled_hits: 20, found_hits: 19 })]);
        for line in [
            "# TYPE pannier_search_recall_sampled_hits_total counter",
            "pannier_search_recall_sampled_hits_total{collection=\"a-1\"} 20",
            "pannier_search_recall_found_hits_total{collection=\"a-1\"} 19",
            "# TYPE pannier_search_recall gauge",
            "pannier_search_recall{collection=\"a-1\"} 0.95",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn resident_memory_is_read_from_the_kernels_words() {
        assert_eq!(parse_resident_bytes("VmSize:\t  9 kB\nVmRSS:\t   1234 kB\n"), Some(1_234 * 1_024));
        assert_eq!(parse_resident_bytes("VmRSS:\t 12 MB"), None);
        assert_eq!(parse_resident_bytes(""), None);
    }
}
