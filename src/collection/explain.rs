//! What a search says of itself: how it was planned, and what it did.

use crate::index::{SegmentOutcome, View};
use crate::types::{Explain, Filter, Method, Plan};

use super::plan::SearchPlan;

/// One walk makes the answer approximate.
pub fn answered_by(segments: &[SegmentOutcome]) -> Plan {
    match segments.iter().any(|segment| matches!(segment.used, Method::Walk | Method::FilteredWalk)) {
        true => Plan::Graph,
        false => Plan::Exact,
    }
}

/// The plan with what came of it. What is in memory counts among the matches where no filter is to be held against it.
pub fn explain(
    plan: SearchPlan,
    outcomes: &[SegmentOutcome],
    view: &View,
    filter: Option<&Filter>,
    answered_by: Plan,
) -> Explain {
    let memtable_rows = view.memtables().map(|memtable| u64::from(memtable.live_rows())).sum();
    let segments: Vec<_> = plan
        .segments
        .into_iter()
        .zip(outcomes)
        .map(|(planned, outcome)| {
            let mut explain = planned.explain;
            explain.used = outcome.used;
            explain.compared = outcome.stats.compared;
            explain.rescored = outcome.stats.rescored;
            explain.decoded += outcome.decoded;
            explain
        })
        .collect();
    let in_segments: u64 = segments.iter().map(|segment| u64::from(segment.estimated_matches)).sum();
    Explain {
        plan: answered_by,
        estimated_matches: in_segments + if filter.is_none() { memtable_rows } else { 0 },
        planning: plan.took,
        segments,
        memtable_rows,
        database: Vec::new(),
    }
}
