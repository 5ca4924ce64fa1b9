//! `/metrics` for Prometheus: counters as they stand, gauges read at the scrape.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::{counter, gauge};

use super::error::ApiError;
use super::state::AppState;
use crate::collection::{CollectionStats, SampledRecall};
use crate::database::Database;
use crate::replicate::{Phase, Shown, SinkStatus};
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
    // Without them, where they are not known.
    let replicator = state.replicator().ok().cloned();
    let serving = state.clone();
    let told = state
        .measuring(move |database| {
            let collections = database.collections();
            let stats: Vec<_> = collections.iter().map(|collection| (collection.name(), collection.stats())).collect();
            measure(database, &stats);
            gauge!(telemetry::ACCEPTING_WRITES).set(f64::from(u8::from(serving.disk_takes_writes())));
            gauge!(telemetry::PROCESS_START_TIME_SECONDS).set(started_at);
            let sinks = replicator.map(|replicator| replicator.list()).unwrap_or_default();
            Ok(recall_lines(&sampled(&stats)) + &replication_lines(&sinks))
        })
        .await?;
    let mut text = state.metrics().map(|metrics| metrics.render()).unwrap_or_default();
    text.push_str(&told);
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

/// What the samples say, by collection.
fn recall_lines(sampled: &[(String, SampledRecall)]) -> String {
    let mut text = String::new();
    let mut family = |name, kind, help, value: &dyn Fn(&SampledRecall) -> f64| {
        let values = sampled.iter().map(|(collection, recall)| (collection.as_str(), value(recall)));
        write_family(&mut text, (name, kind, help), "collection", values);
    };
    let sampled_hits = "Hits that searches which were answered again without the graph should have had.";
    family(telemetry::SEARCH_RECALL_SAMPLED_HITS_TOTAL, "counter", sampled_hits, &|recall| recall.sampled_hits as f64);
    let found_hits = "Of them, those that the searches had.";
    family(telemetry::SEARCH_RECALL_FOUND_HITS_TOTAL, "counter", found_hits, &|recall| recall.found_hits as f64);
    let share = "The share that the searches had.";
    family(telemetry::SEARCH_RECALL, "gauge", share, &|recall| recall.recall().unwrap_or(1.0));
    text
}

/// How the copies of each sink are doing: of one of many collections the worst lag and the sums.
fn replication_lines(sinks: &[Shown]) -> String {
    type Copies = [(CollectionName, SinkStatus)];
    let mut text = String::new();
    let mut family = |name, help, value: &dyn Fn(&Copies) -> f64| {
        let values = sinks.iter().map(|(settings, copies)| (settings.name.as_str(), value(copies)));
        write_family(&mut text, (name, "gauge", help), "sink", values);
    };
    let sum = |copies: &Copies, figure: fn(&SinkStatus) -> u64| copies.iter().map(|(_, s)| figure(s)).sum::<u64>();
    let worst =
        |copies: &Copies, figure: fn(&SinkStatus) -> f64| copies.iter().map(|(_, s)| figure(s)).fold(0.0, f64::max);
    let lag_seqs = "Changes that the copy lacks, also while it is paused.";
    family(telemetry::REPLICATION_LAG_SEQS, lag_seqs, &|copies| worst(copies, |status| status.lag_seqs as f64));
    let lag_seconds = "So long the copy has lacked a change, as this process saw.";
    family(telemetry::REPLICATION_LAG_SECONDS, lag_seconds, &|copies| worst(copies, |status| status.lag_seconds));
    let written = "Rows written to the copy since the process began.";
    family(telemetry::REPLICATION_ROWS_WRITTEN, written, &|copies| sum(copies, |status| status.rows_written) as f64);
    let dead_letters = "Documents that no row of the copy could hold.";
    family(telemetry::REPLICATION_DEAD_LETTERS, dead_letters, &|copies| {
        sum(copies, |status| status.dead_letters) as f64
    });
    family(telemetry::REPLICATION_STREAMING, "1 while the copy follows the changes, else 0.", &|copies| {
        let streams = copies.iter().all(|(_, status)| status.phase == Phase::Streaming) && !copies.is_empty();
        f64::from(u8::from(streams))
    });
    text
}

/// One metric of things that come and go, told by one label. Written here, since the recorder would go on telling of
/// what is gone.
fn write_family<'a>(
    text: &mut String,
    (name, kind, help): (&str, &str, &str),
    label: &str,
    values: impl Iterator<Item = (&'a str, f64)>,
) {
    for (n, (thing, value)) in values.enumerate() {
        if n == 0 {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        // Names of collections and sinks need no escapes.
        text.push_str(&format!("{name}{{{label}=\"{thing}\"}} {value}\n"));
    }
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
    use crate::replicate::{SecretFrom, SinkName, SinkSettings};

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
    fn copies_are_told_by_sink() {
        assert_eq!(replication_lines(&[]), "");
        let settings = SinkSettings::new(SinkName::new("s_1").unwrap(), "*", SecretFrom::Variable("URL".into()));
        let copy = |name: &str, lag_seconds, rows_written, phase| {
            (CollectionName::new(name).unwrap(), SinkStatus { lag_seconds, rows_written, phase, ..Default::default() })
        };
        let copies = vec![copy("a", 2.5, 3, Phase::Streaming), copy("b", 1.0, 4, Phase::Waiting)];
        let text = replication_lines(&[(settings, copies)]);
        for line in [
            "# TYPE pannier_replication_lag_seconds gauge",
            "pannier_replication_lag_seconds{sink=\"s_1\"} 2.5",
            "pannier_replication_lag_seqs{sink=\"s_1\"} 0",
            "pannier_replication_rows_written{sink=\"s_1\"} 7",
            "pannier_replication_dead_letters{sink=\"s_1\"} 0",
            "pannier_replication_streaming{sink=\"s_1\"} 0",
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
