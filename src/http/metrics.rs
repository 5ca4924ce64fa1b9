//! `/metrics` for Prometheus: counters as they stand, gauges read at the scrape.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::gauge;

use super::error::ApiError;
use super::state::AppState;
use crate::database::Database;
use crate::telemetry;

/// The text format that Prometheus reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders all metrics.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain", description = "Prometheus's text format."))
)]
pub(crate) async fn render(State(state): State<AppState>) -> Result<impl IntoResponse, ApiError> {
    let started_at = state.started_at().as_millisecond() as f64 / 1_000.0;
    state
        .engine(move |database| {
            measure(database);
            gauge!(telemetry::PROCESS_START_TIME_SECONDS).set(started_at);
            Ok(())
        })
        .await?;
    let text = state.metrics().map(|metrics| metrics.render()).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text))
}

fn measure(database: &Database) {
    let collections = database.collections();
    let stats: Vec<_> = collections.iter().map(|collection| collection.stats()).collect();
    let health = database.health();
    gauge!(telemetry::COLLECTIONS).set(collections.len() as f64);
    gauge!(telemetry::DOCUMENTS).set(stats.iter().map(|s| s.documents).sum::<u64>() as f64);
    gauge!(telemetry::SEGMENTS).set(stats.iter().map(|s| s.segments).sum::<u64>() as f64);
    gauge!(telemetry::SEGMENT_BYTES).set(stats.iter().map(|s| s.disk_bytes).sum::<u64>() as f64);
    gauge!(telemetry::LOG_BYTES).set(health.log_bytes as f64);
    gauge!(telemetry::LAST_SEQ).set(health.last_seq.0 as f64);
    gauge!(telemetry::ACCEPTING_WRITES).set(f64::from(u8::from(health.accepting_writes)));
    gauge!(telemetry::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    if let Some(bytes) = resident_bytes() {
        gauge!(telemetry::PROCESS_RESIDENT_MEMORY_BYTES).set(bytes as f64);
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

    #[test]
    fn resident_memory_is_read_from_the_kernels_words() {
        assert_eq!(parse_resident_bytes("VmSize:\t  9 kB\nVmRSS:\t   1234 kB\n"), Some(1_234 * 1_024));
        assert_eq!(parse_resident_bytes("VmRSS:\t 12 MB"), None);
        assert_eq!(parse_resident_bytes(""), None);
    }
}
