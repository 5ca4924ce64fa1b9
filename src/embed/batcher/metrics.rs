//! The batcher's metrics, where the build has a recorder for them.

#![cfg_attr(not(feature = "server"), expect(unused_variables, reason = "a build without a server records nothing"))]

use std::time::Instant;

use super::Lane;
use super::queue::Pass;
#[cfg(feature = "server")]
use crate::telemetry;

#[cfg(feature = "server")]
fn label(lane: Lane) -> &'static str {
    match lane {
        Lane::Interactive => "interactive",
        Lane::Bulk => "bulk",
    }
}

/// A lane has changed.
pub(super) fn waiting(lane: Lane, texts: usize, tokens: usize) {
    #[cfg(feature = "server")]
    {
        metrics::gauge!(telemetry::EMBEDDING_QUEUE_TEXTS, "lane" => label(lane)).set(texts as f64);
        metrics::gauge!(telemetry::EMBEDDING_QUEUE_TOKENS, "lane" => label(lane)).set(tokens as f64);
    }
}

/// A pass begins.
pub(super) fn started(pass: &Pass, now: Instant) {
    #[cfg(feature = "server")]
    {
        let lane = label(pass.lane);
        metrics::histogram!(telemetry::EMBEDDING_PASS_TOKENS, "lane" => lane).record(pass.tokens as f64);
        metrics::histogram!(telemetry::EMBEDDING_PASS_TEXTS, "lane" => lane).record(pass.entries.len() as f64);
        let waits = metrics::histogram!(telemetry::EMBEDDING_WAIT_SECONDS, "lane" => lane);
        for entry in &pass.entries {
            waits.record(now.duration_since(entry.queued_at).as_secs_f64());
        }
    }
}

/// Entries were dropped because their caller has gone.
pub(super) fn dropped(lane: Lane, count: usize) {
    #[cfg(feature = "server")]
    if count > 0 {
        metrics::counter!(telemetry::EMBEDDING_DROPPED_TOTAL, "lane" => label(lane)).increment(count as u64);
    }
}

/// A request was refused because too much waits.
pub(super) fn refused(lane: Lane, count: usize) {
    #[cfg(feature = "server")]
    metrics::counter!(telemetry::EMBEDDING_REFUSED_TOTAL, "lane" => label(lane)).increment(count as u64);
}
