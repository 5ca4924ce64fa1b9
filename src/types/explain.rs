//! What `explain` tells of a search: how it was planned, at which estimated costs, and what it then did.

use std::time::Duration;

use super::{Plan, SegmentId};

/// How one segment was searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// No row of it passes the filter.
    Skip,
    /// Every row that may pass was compared in f32.
    Exact,
    /// Every row that may pass was compared by its code, the best again in f32.
    Scan,
    /// Every row that passes was compared by bits that are packed for this filter, the best by codes, the best of these
    /// in f32.
    PackedScan,
    /// A walk over the graph; rows that do not pass are walked through.
    Walk,
    /// A walk from passing row to passing row, over up to two links at once.
    FilteredWalk,
}

/// Where the answer to a filter came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterUse {
    /// Rows that the field index says pass, dead ones included.
    pub certain: u32,
    /// Rows whose documents have to be decoded to know.
    pub undecided: u32,
    /// Fields that the index could not decide for some row, with the reason in the documentation of filters.
    pub undecided_fields: Vec<String>,
}

/// How one segment was planned and searched.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentExplain {
    /// The segment.
    pub segment: SegmentId,
    /// Rows in it, dead ones included.
    pub rows: u32,
    /// Rows replaced or deleted.
    pub dead: u32,
    /// What the field index knew; `None` without a filter.
    pub filter: Option<FilterUse>,
    /// Live rows that should pass.
    pub estimated_matches: u32,
    /// What a scan of the rows that may pass should cost, in microseconds.
    pub scan_cost_us: f64,
    /// What the better walk should cost, in microseconds; `None` where the segment has no graph.
    pub walk_cost_us: Option<f64>,
    /// What a scan of packed rows should cost, in microseconds; `None` where another way is cheaper.
    pub packed_cost_us: Option<f64>,
    /// What was planned.
    pub planned: Method,
    /// What was done: a walk that finds too little, or looks at more than a scan would, is followed by a scan.
    pub used: Method,
    /// Candidates kept while walking.
    pub ef: Option<usize>,
    /// Rows compared by code or in f32, rescoring left out.
    pub compared: u64,
    /// Rows compared again in f32.
    pub rescored: u64,
    /// Documents decoded to evaluate the filter, those of the estimate included.
    pub decoded: u64,
}

/// How a search was planned and what it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    /// As [`super::SearchResponse::plan`].
    pub plan: Plan,
    /// Live documents that should pass the filter; all of them without one.
    pub estimated_matches: u64,
    /// Time spent on the filter and the plan, before anything was compared.
    pub planning: Duration,
    /// By ascending number.
    pub segments: Vec<SegmentExplain>,
    /// Rows in memory, compared one by one where they pass.
    pub memtable_rows: u64,
    /// What the planner of the database said, line by line, where documents stand in one.
    pub database: Vec<String>,
}
