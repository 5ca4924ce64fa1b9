//! What scheduled snapshots came to, where the build has a recorder for it.

#![cfg_attr(not(feature = "server"), expect(unused_variables, reason = "a build without a server records nothing"))]

#[cfg(feature = "server")]
use crate::telemetry;

/// Before the first: when the last one was taken, in milliseconds since the Unix epoch, where one was.
pub(super) fn begin(last_taken_ms: Option<i64>) {
    // It is there before the first failure, so that what looks for a rise sees one.
    #[cfg(feature = "server")]
    metrics::counter!(telemetry::SNAPSHOT_FAILURES_TOTAL).increment(0);
    if let Some(last) = last_taken_ms {
        succeeded(last);
    }
}

/// One was taken, or nothing had changed, at that time in milliseconds since the Unix epoch.
pub(super) fn succeeded(at_ms: i64) {
    #[cfg(feature = "server")]
    metrics::gauge!(telemetry::SNAPSHOT_LAST_SUCCESS_TIMESTAMP_SECONDS).set(at_ms as f64 / 1_000.0);
}

/// One could not be taken.
pub(super) fn failed() {
    #[cfg(feature = "server")]
    metrics::counter!(telemetry::SNAPSHOT_FAILURES_TOTAL).increment(1);
}
