//! How a search was planned, on the wire.

use serde::Serialize;
use utoipa::ToSchema;

use super::answer::WirePlan;
use crate::types::{Explain, Method, SegmentExplain};

/// How a search was planned and what it did.
#[derive(Serialize, ToSchema)]
#[schema(as = Explain)]
pub(super) struct ExplainView<'a> {
    plan: WirePlan,
    /// Documents that should pass the filter, of those in segments; all of the collection without one.
    estimated_matches: u64,
    /// Microseconds spent on the filter and the plan, before anything was compared.
    planning_us: f64,
    /// By ascending number.
    segments: Vec<SegmentView<'a>>,
    /// Documents in memory; each that passes is compared.
    memtable_documents: u64,
    /// What the planner of the database said, line by line; left out where documents stand in no database.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    database: &'a [String],
}

/// How one segment was planned and searched.
#[derive(Serialize, ToSchema)]
#[schema(as = SegmentExplain)]
struct SegmentView<'a> {
    segment: u64,
    rows: u32,
    /// Rows replaced or deleted.
    dead_rows: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<FilterView<'a>>,
    /// Documents that should pass.
    estimated_matches: u32,
    costs: CostsView,
    planned: WireMethod,
    /// Another than planned where a walk found too little, or looked at more than a scan would.
    used: WireMethod,
    /// Candidates kept while walking.
    #[serde(skip_serializing_if = "Option::is_none")]
    ef: Option<usize>,
    /// Rows compared, those compared again in f32 left out.
    compared: u64,
    /// Rows compared again in f32.
    rescored: u64,
    /// Documents decoded to evaluate the filter.
    decoded: u64,
}

/// What the field index knew.
#[derive(Serialize, ToSchema)]
#[schema(as = FilterExplain)]
struct FilterView<'a> {
    /// `full`: it decided every row; `partial`: documents were decoded for some; `none`: it decided no row.
    index: &'static str,
    /// Rows that pass by the index alone, dead ones included.
    certain: u32,
    /// Rows whose documents had to be decoded to know.
    undecided: u32,
    /// Fields that the index left undecided for some row.
    undecided_fields: &'a [String],
}

/// Estimates in microseconds; only their ratio counts.
#[derive(Serialize, ToSchema)]
#[schema(as = CostsExplain)]
struct CostsView {
    scan_us: f64,
    /// Null where the segment has no graph, or nothing passes.
    #[schema(required)]
    walk_us: Option<f64>,
    /// Of a scan of packed rows; null where another way is cheaper.
    #[schema(required)]
    packed_us: Option<f64>,
}

/// A way to search a segment.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SearchMethod)]
enum WireMethod {
    /// No document of it passes.
    Skip,
    /// Every row that may pass was compared in f32.
    Exact,
    /// Every row that may pass was compared by its code, the best again in f32.
    Scan,
    /// Every row that passes was compared by bits that are packed for this filter, which is asked often; the best by
    /// their codes, the best of these in f32.
    PackedScan,
    /// By the graph, through rows that do not pass.
    Walk,
    /// By the graph, from passing row to passing row.
    FilteredWalk,
}

impl From<Method> for WireMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::Skip => WireMethod::Skip,
            Method::Exact => WireMethod::Exact,
            Method::Scan => WireMethod::Scan,
            Method::PackedScan => WireMethod::PackedScan,
            Method::Walk => WireMethod::Walk,
            Method::FilteredWalk => WireMethod::FilteredWalk,
        }
    }
}

impl<'a> ExplainView<'a> {
    pub(super) fn of(explain: &'a Explain) -> Self {
        Self {
            plan: explain.plan.into(),
            estimated_matches: explain.estimated_matches,
            planning_us: tenths(explain.planning.as_secs_f64() * 1e6),
            segments: explain.segments.iter().map(SegmentView::of).collect(),
            memtable_documents: explain.memtable_rows,
            database: &explain.database,
        }
    }
}

impl<'a> SegmentView<'a> {
    fn of(segment: &'a SegmentExplain) -> Self {
        let filter = segment.filter.as_ref().map(|filter| FilterView {
            index: match (filter.undecided_fields.is_empty(), filter.undecided == segment.rows) {
                (true, _) => "full",
                (false, true) => "none",
                (false, false) => "partial",
            },
            certain: filter.certain,
            undecided: filter.undecided,
            undecided_fields: &filter.undecided_fields,
        });
        Self {
            segment: segment.segment.0,
            rows: segment.rows,
            dead_rows: segment.dead,
            filter,
            estimated_matches: segment.estimated_matches,
            costs: CostsView {
                scan_us: tenths(segment.scan_cost_us),
                walk_us: segment.walk_cost_us.map(tenths),
                packed_us: segment.packed_cost_us.map(tenths),
            },
            planned: segment.planned.into(),
            used: segment.used.into(),
            ef: segment.ef,
            compared: segment.compared,
            rescored: segment.rescored,
            decoded: segment.decoded,
        }
    }
}

fn tenths(us: f64) -> f64 {
    (us * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FilterUse, Plan, SegmentId};
    use std::time::Duration;

    #[test]
    fn a_plan_is_written_exactly_so() {
        let filter = FilterUse { certain: 5, undecided: 7, undecided_fields: vec!["a".into()] };
        let explain = Explain {
            plan: Plan::Graph,
            estimated_matches: 9,
            planning: Duration::from_nanos(12_340),
            segments: vec![SegmentExplain {
                segment: SegmentId(3),
                rows: 100,
                dead: 1,
                filter: Some(filter),
                estimated_matches: 9,
                scan_cost_us: 12.34,
                walk_cost_us: None,
                packed_cost_us: Some(2.0),
                planned: Method::FilteredWalk,
                used: Method::Scan,
                ef: Some(64),
                compared: 12,
                rescored: 4,
                decoded: 2,
            }],
            database: Vec::new(),
            memtable_rows: 8,
        };
        let wanted = concat!(
            r#"{"plan":"graph","estimated_matches":9,"planning_us":12.3,"segments":[{"segment":3,"rows":100,"#,
            r#""dead_rows":1,"filter":{"index":"partial","certain":5,"undecided":7,"undecided_fields":["a"]},"#,
            r#""estimated_matches":9,"costs":{"scan_us":12.3,"walk_us":null,"packed_us":2.0},"planned":"filtered_walk","#,
            r#""used":"scan","ef":64,"compared":12,"rescored":4,"decoded":2}],"memtable_documents":8}"#,
        );
        assert_eq!(serde_json::to_string(&ExplainView::of(&explain)).unwrap(), wanted);
    }
}
