//! Decides how each segment of a view is searched, from what the field index knows and what each way should cost.
//!
//! Costs are in nanoseconds on the machine that they were measured on; only their ratios decide.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::index::{LiveSegment, SegmentQuery, View, WANTED_RECALL, ef_for};
use crate::meta::RowBounds;
use crate::segment::WANTED_PASSING;
use crate::types::limits::MAX_EF;
use crate::types::{Filter, FilterUse, Method, Ordinal, RowSet, SearchRequest, SegmentExplain};

use super::maintenance::Job;
use super::{Collection, CollectionError};

/// Up to so many undecided rows are decoded before the plan is made.
const SETTLED_AT_ONCE: u32 = 256;
/// Of more, so many are decoded to estimate how many pass.
const SAMPLE: u32 = 64;

/// A row compared in a scan, beside its bytes.
const SCAN_ROW_NS: f64 = 12.0;
/// A row compared in a scan of all rows by blocks of bits.
const BLOCK_ROW_NS: f64 = 3.0;
/// A scan of packed rows, however few: the query's tables, and the candidates compared by codes.
const PACKED_SCAN_NS: f64 = 12_000.0;
/// A row compared in a scan of packed rows: 3 to 4 ns on a machine that walks in half the time that the figures below
/// say, so twice as much beside them.
const PACKED_ROW_NS: f64 = 6.0;
/// A byte of codes or nibbles in a scan.
const SCAN_BYTE_NS: f64 = 0.1;
/// A candidate compared again in f32.
const RESCORE_NS: f64 = 250.0;
/// A document decoded and held against a filter.
const DECODE_NS: f64 = 700.0;
/// One more candidate of a walk: the neighbours compared and the bookkeeping.
const WALK_EF_NS: f64 = 1_900.0;
/// The same of a walk among passing rows, where every neighbour passes.
const FILTERED_EF_NS: f64 = 3_900.0;
/// What it costs more for each neighbour that has to be walked through.
const THROUGH_EF_NS: f64 = 150.0;
/// Links of a row on the graph's lowest level, as a multiple of m.
const M0_PER_M: f64 = 2.0;
/// A row, passing or not, that a walk through rows that do not pass goes on from.
const THROUGH_NS: f64 = 1_400.0;
/// Such a walk costs more where rows that do not pass lie together and around the query: so much more, where nothing
/// passes.
const EXCLUDED_COST: f64 = 0.5;
/// Such a walk keeps at least so many candidates for each result, since what it keeps is compared again in f32.
const MIN_EF_PER_RESULT: f64 = 1.8;
/// Candidates of a walk among passing rows, as a multiple of those without a filter: the graph was built over all rows,
/// and links those that pass less well than one over them alone would.
const AMONG_EF: f64 = 2.0;
/// A walk among passing rows is thought of only where so many rows pass for each result: below, passing rows are too
/// few to be linked.
const MIN_MATCHES_PER_RESULT: f64 = 30.0;

/// How a view is searched.
pub struct SearchPlan {
    /// By segment of the view.
    pub segments: Vec<SegmentPlan>,
    /// Time that the plan took.
    pub took: Duration,
}

/// How one segment is searched, and why.
pub struct SegmentPlan {
    /// What to do.
    pub query: SegmentQuery,
    /// Why; what was done is filled in later.
    pub explain: SegmentExplain,
}

/// What a decision depends on.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// Live rows.
    live: f64,
    /// Whether a scan compares all rows by blocks of bits.
    in_blocks: bool,
    has_graph: bool,
    /// Bytes that a scan reads of a row.
    row_bytes: f64,
    m: u32,
    top_k: usize,
    exact: bool,
    /// Candidates that a walk keeps: as asked for, or enough for the wanted recall without a filter.
    ef: usize,
    /// Whether the caller asked for these.
    ef_is_asked: bool,
    /// `None` without a filter.
    filter: Option<FilterFacts>,
}

#[derive(Clone, Copy, Debug)]
struct FilterFacts {
    /// Whether no row may pass, dead ones included. Nothing less lets a segment be passed over: the other figures are
    /// estimates.
    passes_none: bool,
    /// Live rows that may pass.
    possible: f64,
    /// Of them not decided yet, as far as can be told: which of the rows live is not asked.
    undecided: f64,
    /// Whether every row is decided.
    is_exact: bool,
    /// Live rows that should pass.
    matches: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Decision {
    method: Method,
    ef: usize,
    scan_ns: f64,
    walk_ns: Option<f64>,
    /// Of a scan of packed rows, where that would be the cheapest way.
    packed_ns: Option<f64>,
}

impl Collection {
    /// Plans a search of `top_k` results over a view. `is_exact`: whether every document that passes is to be compared.
    ///
    /// # Errors
    /// [`CollectionError::Segment`] when a document that is decoded for an estimate is damaged.
    pub(super) fn plan(
        &self,
        view: &View,
        request: &SearchRequest,
        top_k: usize,
        is_exact: bool,
    ) -> Result<SearchPlan, CollectionError> {
        let started = Instant::now();
        let plan = |live| self.plan_segment(live, request, top_k, is_exact);
        let segments = view.segments.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        Ok(SearchPlan { segments, took: started.elapsed() })
    }

    fn plan_segment(
        &self,
        live: &Arc<LiveSegment>,
        request: &SearchRequest,
        top_k: usize,
        is_exact: bool,
    ) -> Result<SegmentPlan, CollectionError> {
        let rows = live.segment.rows();
        let selected = request.filter.as_ref().map(|filter| self.select(live, filter)).transpose()?;
        let live_share = f64::from(live.live_rows()) / f64::from(rows.max(1));
        let vectors = (f64::from(live.segment.vector_count()) / f64::from(rows.max(1))).max(1.0);
        let definition = self.definition();
        let filter = selected.as_ref().map(|selected| {
            let undecided = f64::from(selected.filter_use.undecided) * live_share;
            let certain = f64::from(selected.filter_use.certain) * live_share;
            let matches = certain + undecided * selected.undecided_share;
            let passes_none = selected.filter_use.certain + selected.filter_use.undecided == 0;
            let is_exact = selected.filter_use.undecided == 0;
            FilterFacts { passes_none, possible: certain + undecided, undecided, is_exact, matches }
        });
        let candidates = filter.map_or(f64::from(live.live_rows()), |filter| filter.possible);
        let facts = Facts {
            live: f64::from(live.live_rows()),
            in_blocks: filter.is_none_or(|filter| filter.is_exact) && live.segment.scans_in_blocks(candidates as u32),
            has_graph: live.segment.has_graph(),
            // A scan compares every vector of a row.
            row_bytes: live.segment.scanned_bytes_a_row() as f64 * vectors
                + (vectors - 1.0) * SCAN_ROW_NS / SCAN_BYTE_NS,
            m: definition.index.m,
            top_k,
            exact: is_exact,
            ef: request.ef_search.unwrap_or_else(|| ef_for(&live.segment, top_k, WANTED_RECALL)).max(top_k),
            ef_is_asked: request.ef_search.is_some(),
            filter,
        };
        let decision = decide(&facts);
        let rows_passing = selected.as_ref().map(|selected| &selected.rows);
        let packing = &self.engine.shared.packing;
        let packed = rows_passing.filter(|_| decision.packed_ns.is_some()).and_then(|rows| packing.ask(live, rows));
        let decision = match packed {
            Some(_) => Decision { method: Method::PackedScan, ..decision },
            None => decision,
        };
        let estimated_matches = filter.map_or(facts.live, |filter| filter.matches).round() as u32;
        let (rows_passing, filter_use, decoded) = match selected {
            Some(selected) => (Some(selected.rows), Some(selected.filter_use), selected.decoded),
            None => (None, None, 0),
        };
        let walks = matches!(decision.method, Method::Walk | Method::FilteredWalk);
        Ok(SegmentPlan {
            query: SegmentQuery { method: decision.method, ef: decision.ef, rows: rows_passing, packed },
            explain: SegmentExplain {
                segment: live.id,
                rows,
                dead: live.dead.count(),
                filter: filter_use,
                estimated_matches,
                scan_cost_us: decision.scan_ns / 1e3,
                walk_cost_us: decision.walk_ns.map(|ns| ns / 1e3),
                packed_cost_us: decision.packed_ns.map(|ns| ns / 1e3),
                planned: decision.method,
                used: decision.method,
                ef: walks.then_some(decision.ef),
                compared: 0,
                rescored: 0,
                decoded,
            },
        })
    }

    /// What is known of the rows of a segment that pass a filter. A few rows that the field index leaves open are
    /// settled at once; of many, some are looked at.
    pub(super) fn select(&self, live: &Arc<LiveSegment>, filter: &Filter) -> Result<Selected, CollectionError> {
        let meta = &self.engine.shared.meta;
        let resolved = meta.resolve(self.state.identity.id, live.id, live.segment.rows(), filter);
        if resolved.damaged {
            self.engine.shared.ask(Job::Seal(self.state.clone()));
        }
        let mut selected = Selected {
            filter_use: FilterUse {
                certain: resolved.bounds.certain_count(),
                undecided: 0,
                undecided_fields: resolved.undecided_fields,
            },
            rows: resolved.bounds,
            undecided_share: 0.0,
            decoded: 0,
        };
        if !selected.rows.is_exact() {
            selected.look_at_undecided(live, filter)?;
        }
        Ok(selected)
    }
}

/// The rows of a segment that pass a filter, as far as is known.
pub struct Selected {
    /// The rows, dead ones included.
    pub rows: Arc<RowBounds>,
    filter_use: FilterUse,
    /// Which share of the undecided rows should pass.
    undecided_share: f64,
    decoded: u64,
}

impl Selected {
    /// Rows that are dead stay so, and are not read: what is damaged in them harms nobody.
    fn look_at_undecided(&mut self, live: &LiveSegment, filter: &Filter) -> Result<(), CollectionError> {
        let undecided = self.rows.undecided();
        let count = undecided.count();
        self.filter_use.undecided = count;
        let lives = |row: &Ordinal| !live.dead.is_dead(*row);
        let passes = |row| Ok::<_, CollectionError>(filter.matches(&live.segment.metadata(row)?));
        if count <= SETTLED_AT_ONCE {
            let mut certain: RowSet = self.rows.certain().clone();
            for row in undecided.iter().filter(lives) {
                self.decoded += 1;
                if passes(row)? {
                    certain.insert(row);
                }
            }
            self.filter_use.certain = certain.count();
            self.filter_use.undecided = 0;
            self.rows = Arc::new(RowBounds::exact(certain));
            return Ok(());
        }
        let (mut looked_at, mut passed) = (0u32, 0u32);
        for row in undecided.spread(SAMPLE).filter(lives) {
            looked_at += 1;
            passed += u32::from(passes(row)?);
        }
        self.decoded = u64::from(looked_at);
        // Half a row more, so that a filter that no sampled row passes is not taken for one that none passes.
        self.undecided_share = ((f64::from(passed) + 0.5) / f64::from(looked_at.max(1))).min(1.0);
        Ok(())
    }
}

/// Chooses the cheapest way that finds enough, and says what another would cost that would be cheaper once the rows are
/// packed.
fn decide(facts: &Facts) -> Decision {
    let decision = decide_unpacked(facts);
    let chosen_ns = match decision.method {
        Method::Scan => decision.scan_ns,
        Method::Walk | Method::FilteredWalk => decision.walk_ns.unwrap_or(f64::INFINITY),
        Method::Skip | Method::Exact | Method::PackedScan => return decision,
    };
    // An effort that is asked for is meant for a walk.
    let decided = facts.filter.filter(|filter| facts.has_graph && !facts.ef_is_asked && filter.is_exact);
    let packed_ns = decided.map(|filter| {
        let kept = over_fetch(facts.top_k).min(filter.possible);
        PACKED_SCAN_NS + filter.possible * PACKED_ROW_NS + kept * RESCORE_NS
    });
    Decision { packed_ns: packed_ns.filter(|&ns| ns < chosen_ns), ..decision }
}

/// Chooses among the ways that there are for any filter.
fn decide_unpacked(facts: &Facts) -> Decision {
    let candidates = facts.filter.map_or(facts.live, |filter| filter.possible);
    let scan_ns = scan_ns(facts, candidates);
    let scan = |walk_ns| Decision { method: Method::Scan, ef: 0, scan_ns, walk_ns, packed_ns: None };
    if facts.filter.map_or(facts.live < 0.5, |filter| filter.passes_none) {
        return Decision { method: Method::Skip, scan_ns: 0.0, ..scan(None) };
    }
    if facts.exact {
        return Decision { method: Method::Exact, ..scan(None) };
    }
    if !facts.has_graph {
        return scan(None);
    }
    let Some(filter) = facts.filter else {
        let ef = facts.ef;
        // Nothing but an exact search asks for a scan where there is a graph and no filter.
        return Decision { method: Method::Walk, ef, ..scan(Some(WALK_EF_NS * ef as f64)) };
    };
    let share = (filter.matches / facts.live.max(1.0)).clamp(1e-9, 1.0);
    let (method, ef, walk_ns) = walk_for(facts, filter, share);
    let too_few = filter.matches < MIN_MATCHES_PER_RESULT * facts.top_k as f64;
    if too_few || scan_ns <= walk_ns {
        return scan(Some(walk_ns));
    }
    Decision { method, ef, ..scan(Some(walk_ns)) }
}

/// The better walk for a filter that `share` of the rows pass: its candidates and its cost.
fn walk_for(facts: &Facts, filter: FilterFacts, share: f64) -> (Method, usize, f64) {
    // A region that holds `ef` rows has this many that pass.
    let ef = facts.ef as f64 * if facts.ef_is_asked { 1.0 } else { share };
    let ef = ef.max(MIN_EF_PER_RESULT * facts.top_k as f64).min(facts.ef as f64);
    let walked = ef / share;
    let decoded = 3.0 * walked * filter.undecided / filter.possible;
    let through_ns = walked * THROUGH_NS * (1.0 + EXCLUDED_COST * (1.0 - share)) + decoded * DECODE_NS;
    let among_ef = facts.ef as f64 * if facts.ef_is_asked { 1.0 } else { AMONG_EF };
    let among_ns = among_ef * filtered_ef_ns(share, facts.m);
    // Among passing rows leads no way to one that is not decided.
    match !filter.is_exact || through_ns < among_ns {
        true => (Method::Walk, ef as usize, through_ns),
        false => (Method::FilteredWalk, (among_ef as usize).min(MAX_EF), among_ns),
    }
}

/// A scan of so many rows; those that are near enough to count are decoded where they are undecided.
fn scan_ns(facts: &Facts, candidates: f64) -> f64 {
    let kept = over_fetch(facts.top_k);
    let compared = match facts.in_blocks {
        true => facts.live * BLOCK_ROW_NS,
        false => candidates * (SCAN_ROW_NS + SCAN_BYTE_NS * facts.row_bytes),
    };
    let decoded = facts.filter.filter(|filter| filter.undecided > 0.0).map_or(0.0, |filter| {
        let share = (filter.matches / filter.possible).clamp(1e-9, 1.0);
        // Of rows in random order, kept * (1 + ln(n / kept)) are at their turn among the best `kept`.
        let admitted = kept * (1.0 + (filter.matches / kept).max(1.0).ln());
        (admitted / share).min(candidates) * filter.undecided / filter.possible
    });
    compared + decoded * DECODE_NS + kept.min(candidates) * RESCORE_NS
}

/// Candidates that a scan compares in f32.
fn over_fetch(top_k: usize) -> f64 {
    3.0 * top_k as f64 + 10.0
}

/// One more candidate of a walk among passing rows, of which `share` of all rows pass.
fn filtered_ef_ns(share: f64, m: u32) -> f64 {
    let links = M0_PER_M * f64::from(m);
    let through = ((WANTED_PASSING as f64 / (links * share)).min(links) - 1.0).max(0.0);
    FILTERED_EF_NS + through * THROUGH_EF_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(filter: Option<FilterFacts>) -> Facts {
        Facts {
            live: 100_000.0,
            in_blocks: false,
            has_graph: true,
            row_bytes: 384.0,
            m: 16,
            top_k: 10,
            exact: false,
            ef: 15,
            ef_is_asked: false,
            filter,
        }
    }

    fn passing(matches: f64) -> Facts {
        let passes_none = matches == 0.0;
        facts(Some(FilterFacts { passes_none, possible: matches, undecided: 0.0, is_exact: true, matches }))
    }

    fn undecided(matches: f64) -> Facts {
        let (possible, undecided) = (100_000.0, 100_000.0);
        facts(Some(FilterFacts { passes_none: false, possible, undecided, is_exact: false, matches }))
    }

    #[test]
    fn few_matches_are_scanned_and_many_walked() {
        assert_eq!(decide(&facts(None)).method, Method::Walk);
        assert_eq!(decide(&passing(0.0)).method, Method::Skip);
        assert_eq!(decide(&passing(0.3)).method, Method::Scan, "one row of three lives: it may be the one that passes");
        for matches in [1.0, 100.0, 1_000.0] {
            assert_eq!(decide(&passing(matches)).method, Method::Scan, "{matches}");
        }
        for matches in [5_000.0, 10_000.0, 20_000.0] {
            assert_eq!(decide(&passing(matches)).method, Method::FilteredWalk, "{matches}");
        }
        assert_eq!(decide(&passing(60_000.0)).method, Method::Walk);
        assert_eq!(decide(&passing(99_000.0)).method, Method::Walk);
        let nearly_all_dead = FilterFacts { undecided: 0.4, is_exact: false, ..passing(10_000.0).filter.unwrap() };
        assert_ne!(decide(&facts(Some(nearly_all_dead))).method, Method::FilteredWalk, "it meets decided rows only");
        assert_eq!(decide(&undecided(50_000.0)).method, Method::Walk);
        assert_eq!(decide(&undecided(50.0)).method, Method::Scan);
    }

    #[test]
    fn what_was_asked_for_is_done() {
        assert_eq!(decide(&Facts { exact: true, ..passing(50_000.0) }).method, Method::Exact);
        assert_eq!(decide(&Facts { has_graph: false, ..passing(50_000.0) }).method, Method::Scan);
        assert_eq!(decide(&Facts { ef: 77, ef_is_asked: true, ..passing(99_000.0) }).ef, 77);
        assert_eq!(decide(&Facts { ef: 77, ..facts(None) }).ef, 77);
    }

    #[test]
    fn packing_pays_where_neither_few_nor_most_rows_pass() {
        let packed_ns = |facts: &Facts| decide(facts).packed_ns;
        for matches in [1_000.0, 5_000.0, 10_000.0] {
            let decision = decide(&passing(matches));
            let chosen_ns = if decision.method == Method::Scan { decision.scan_ns } else { decision.walk_ns.unwrap() };
            assert!(decision.packed_ns.is_some_and(|ns| ns < chosen_ns), "{matches}: {decision:?}");
        }
        for matches in [0.0, 100.0, 50_000.0, 99_000.0] {
            assert_eq!(packed_ns(&passing(matches)), None, "{matches}");
        }
        let some = passing(5_000.0);
        let asked_for = [
            Facts { exact: true, ..some },
            Facts { ef: 15, ef_is_asked: true, ..some },
            Facts { has_graph: false, ..some },
            undecided(5_000.0),
            facts(None),
        ];
        assert!(asked_for.iter().all(|facts| packed_ns(facts).is_none()));
    }

    #[test]
    fn costs_grow_with_what_is_to_be_done() {
        let scan = |matches| decide(&passing(matches)).scan_ns;
        assert!(scan(1_000.0) < scan(10_000.0));
        let in_blocks = |matches| decide(&Facts { in_blocks: true, ..passing(matches) }).scan_ns;
        assert!(in_blocks(50_000.0) < scan(50_000.0) / 2.0 && in_blocks(50_000.0) == in_blocks(20_000.0));
        let walk = |matches| decide(&passing(matches)).walk_ns.unwrap();
        assert!(walk(50_000.0) < walk(5_000.0));
        assert!(decide(&undecided(5_000.0)).scan_ns > decide(&undecided(50_000.0)).scan_ns);
    }
}
