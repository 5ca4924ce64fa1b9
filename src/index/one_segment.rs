//! Searches one segment in the way that the plan chose.

use std::borrow::Cow;
use std::sync::Arc;

use crate::distance::VectorQuery;
use crate::meta::RowBounds;
use crate::segment::{Candidate, FilteredOptions, PackedRows, SearchStats, SegmentError, WalkOptions};
use crate::types::{Filter, Method, Ordinal};

use super::IndexError;
use super::chunked::search_chunked;
use super::searcher::IndexQuery;
use super::view::LiveSegment;

/// Passing rows that a walk among passing rows starts from.
pub(super) const SEEDS: u32 = 32;

/// How to search one segment.
#[derive(Clone)]
pub struct SegmentQuery {
    /// The way.
    pub method: Method,
    /// Candidates kept while walking.
    pub ef: usize,
    /// Which rows pass the filter, as far as is known; `None` without a filter.
    pub rows: Option<Arc<RowBounds>>,
    /// The rows that pass, packed, where they are to be searched so.
    pub packed: Option<Arc<PackedRows>>,
}

/// What searching one segment took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentOutcome {
    /// The way it was searched in the end.
    pub used: Method,
    /// Rows compared.
    pub stats: SearchStats,
    /// Documents decoded to evaluate the filter.
    pub decoded: u64,
}

/// Evaluates the filter where the field index left a row open.
pub(super) struct Verifier<'a> {
    pub(super) live: &'a LiveSegment,
    filter: Option<&'a Filter>,
    pub(super) rows: Option<&'a RowBounds>,
    decoded: u64,
    damage: Option<SegmentError>,
}

impl Verifier<'_> {
    /// Whether a row that may pass does.
    pub(super) fn admits(&mut self, ordinal: Ordinal) -> bool {
        let (Some(filter), Some(rows)) = (self.filter, self.rows) else { return true };
        if rows.certain().contains(ordinal) {
            return true;
        }
        if !rows.possible().contains(ordinal) {
            return false;
        }
        self.decoded += 1;
        match self.live.segment.metadata(ordinal) {
            Ok(metadata) => filter.matches(&metadata),
            Err(error) => {
                self.damage.get_or_insert(error);
                false
            }
        }
    }
}

/// Replaces `out` by the nearest rows of a segment that live and pass the filter, nearest first.
///
/// # Errors
/// [`IndexError`] when the segment is damaged.
pub fn search_segment(
    live: &LiveSegment,
    query: &IndexQuery<'_>,
    part: &SegmentQuery,
    vector: &VectorQuery,
    out: &mut Vec<Candidate>,
) -> Result<SegmentOutcome, IndexError> {
    let rows = part.rows.as_deref();
    let mut verifier = Verifier { live, filter: query.filter, rows, decoded: 0, damage: None };
    let mut used = part.method;
    let owners = live.segment.owners()?;
    let stats = match part.method {
        _ if owners.is_some() => {
            let found = search_chunked(owners.unwrap_or_default(), query.top_k, part, vector, &mut verifier, out)?;
            used = found.0;
            found.1
        }
        Method::Skip => SearchStats::default(),
        Method::PackedScan if let Some(packed) = &part.packed => {
            let alive = |row| !live.dead.is_dead(row);
            live.segment.scan_packed(packed, vector, query.top_k, alive, out)?
        }
        Method::Exact | Method::Scan | Method::PackedScan => {
            scan(live, query, part.method, vector, &mut verifier, out)?
        }
        Method::Walk => {
            let options = WalkOptions { top_k: query.top_k, ef: part.ef };
            let passes = |row| !live.dead.is_dead(row) && verifier.admits(row);
            live.segment.search(vector, options, passes, out)?
        }
        Method::FilteredWalk => {
            let walked = rows.map(|rows| walk(live, query, part.ef, vector, rows, out)).transpose()?;
            let (mut stats, found_all) = walked.unwrap_or_default();
            if !found_all {
                used = Method::Scan;
                let scanned = scan(live, query, used, vector, &mut verifier, out)?;
                stats.compared += scanned.compared;
                stats.rescored += scanned.rescored;
            }
            stats
        }
    };
    match verifier.damage {
        Some(error) => Err(error.into()),
        None => Ok(SegmentOutcome { used, stats, decoded: verifier.decoded }),
    }
}

/// Walks among passing rows. Returns what it did, and whether it found what there is to find: all it was asked for, or
/// every row.
fn walk(
    live: &LiveSegment,
    query: &IndexQuery<'_>,
    ef: usize,
    vector: &VectorQuery,
    rows: &RowBounds,
    out: &mut Vec<Candidate>,
) -> Result<(SearchStats, bool), IndexError> {
    let (passing, count) = (rows.certain(), rows.certain_count());
    let seeds: Vec<Ordinal> = passing.spread(SEEDS).filter(|&row| !live.dead.is_dead(row)).collect();
    let options = FilteredOptions { top_k: query.top_k, ef, max_compared: u64::from(count) };
    let passing = match live.dead.count() {
        0 => Cow::Borrowed(passing),
        _ => {
            let mut alive = passing.clone();
            live.dead.take_out_of(&mut alive);
            Cow::Owned(alive)
        }
    };
    let Some(walked) = live.segment.search_filtered(vector, options, &seeds, &passing, out)? else {
        return Ok(Default::default());
    };
    Ok((walked.stats, walked.finished && (out.len() == query.top_k || out.len() as u32 == count)))
}

/// Compares every live row that may pass.
fn scan(
    live: &LiveSegment,
    query: &IndexQuery<'_>,
    method: Method,
    vector: &VectorQuery,
    verifier: &mut Verifier<'_>,
    out: &mut Vec<Candidate>,
) -> Result<SearchStats, SegmentError> {
    let (segment, dead) = (&live.segment, &live.dead);
    let exact = method == Method::Exact;
    match verifier.rows {
        None if exact => segment.scan_exact(vector, query.top_k, |row| !dead.is_dead(row), out),
        None => segment.scan(vector, query.top_k, |row| !dead.is_dead(row), out),
        // Rows to decode keep to the other way, which asks about fewer.
        Some(rows) if !exact && rows.is_exact() && segment.scans_in_blocks(rows.certain_count()) => {
            segment.scan(vector, query.top_k, |row| rows.certain().contains(row) && !dead.is_dead(row), out)
        }
        Some(rows) => {
            if let Some(list) = rows.list().filter(|_| !exact) {
                let alive = list.iter().copied().filter(|&row| !dead.is_dead(row));
                return segment.scan_rows(vector, query.top_k, alive, |_| true, out);
            }
            let possible = rows.possible().iter().filter(|&row| !dead.is_dead(row));
            let admit = |row| verifier.admits(row);
            match exact {
                true => segment.scan_rows_exact(vector, query.top_k, possible, admit, out),
                false => segment.scan_rows(vector, query.top_k, possible, admit, out),
            }
        }
    }
}
