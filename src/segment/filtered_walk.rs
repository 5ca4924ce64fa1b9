//! The walk from passing row to passing row: for filters that a field index has decided.
//!
//! Only rows that pass are compared. Where a neighbour does not pass, its own neighbours are looked at in its stead
//! (the two-hop expansion of ACORN-1, Patel et al. 2024), so that the passing rows are linked to each other about as
//! densely as all rows are. The walk starts from where the graph's upper levels lead and from passing rows all over the
//! segment: where those near the query do not pass, it still begins among rows that do.

use super::graph::NO_NEIGHBOUR;
use super::pool::Candidate;
use super::scratch::Scratch;
use super::walk::{Links, Rows, SearchStats, descend};
use crate::types::Ordinal;

/// How hard a walk among passing rows tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilteredOptions {
    /// Most candidates to return.
    pub top_k: usize,
    /// Candidates kept while walking; raised to `top_k` where it is lower.
    pub ef: usize,
    /// Rows to compare before it gives up: what a scan of the passing rows would compare.
    pub max_compared: u64,
}

/// What a walk among passing rows did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilteredStats {
    /// As of any walk.
    pub stats: SearchStats,
    /// Whether it ended by itself; if not, what it found is not the nearest.
    pub finished: bool,
}

/// Passing neighbours wanted of a row before the neighbours of those that do not pass are left alone.
const WANTED: usize = 24;
/// Lists between the one looked at and the one that the memory is asked for. Most rows need few of them, so that asking
/// for all at once would mostly be in vain.
const LISTS_AHEAD: usize = 5;

/// Walks to the `ef` nearest passing rows, approximately, and leaves them in `scratch.pool`.
///
/// `seeds`: passing rows to start from beside the graph's entry point.
pub(super) fn walk_filtered<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    options: FilteredOptions,
    seeds: &[Ordinal],
    passes: &impl Fn(Ordinal) -> bool,
    scratch: &mut Scratch,
) -> Result<FilteredStats, L::Error> {
    let mut stats = SearchStats::default();
    let start = descend(links, rows, scratch, &mut stats)?;
    scratch.visited.reset(links.rows());
    scratch.pool.reset(options.ef.max(options.top_k));
    scratch.batch.clear();
    for &seed in seeds {
        if scratch.visited.insert(seed) {
            scratch.batch.push(seed);
        }
    }
    compare(rows, &mut stats, scratch)?;
    scratch.batch.clear();
    if !passes(start.ordinal) {
        gather(links, start.ordinal, passes, scratch)?;
    } else if scratch.visited.insert(start.ordinal) {
        scratch.batch.push(start.ordinal);
    }
    compare(rows, &mut stats, scratch)?;
    while let Some(ordinal) = scratch.pool.expand() {
        if stats.compared > options.max_compared {
            return Ok(FilteredStats { stats, finished: false });
        }
        stats.expanded += 1;
        scratch.batch.clear();
        gather(links, ordinal, passes, scratch)?;
        if let Some(next) = scratch.pool.next_hint() {
            links.prefetch(next);
        }
        compare(rows, &mut stats, scratch)?;
    }
    Ok(FilteredStats { stats, finished: true })
}

/// Offers the rows of the batch to the pool.
#[inline]
fn compare<R: Rows>(rows: &R, stats: &mut SearchStats, scratch: &mut Scratch) -> Result<(), R::Error> {
    scratch.batch.iter().for_each(|&ordinal| rows.prefetch(ordinal));
    stats.compared += scratch.batch.len() as u64;
    rows.compare(&scratch.batch, &mut scratch.closeness)?;
    for (&ordinal, &closeness) in scratch.batch.iter().zip(&scratch.closeness) {
        if scratch.pool.admits(closeness) {
            scratch.pool.insert(Candidate { closeness, ordinal });
        }
    }
    Ok(())
}

/// Adds the passing rows one and two links away from `ordinal` that were not met before to the batch.
#[inline]
fn gather<L: Links>(
    links: &L,
    ordinal: Ordinal,
    passes: &impl Fn(Ordinal) -> bool,
    scratch: &mut Scratch,
) -> Result<(), L::Error> {
    let rows = links.rows();
    scratch.through.clear();
    for &neighbour in links.list(ordinal, 0)? {
        if neighbour >= rows {
            if neighbour == NO_NEIGHBOUR {
                break;
            }
            return Err(links.out_of_range(ordinal, 0, neighbour));
        }
        if !passes(neighbour) {
            scratch.through.push(neighbour);
        } else if scratch.visited.insert(neighbour) {
            scratch.batch.push(neighbour);
        }
    }
    if scratch.batch.len() < WANTED {
        scratch.through.iter().take(LISTS_AHEAD).for_each(|&between| links.prefetch(between));
    }
    for at in 0..scratch.through.len() {
        if scratch.batch.len() >= WANTED {
            break;
        }
        if let Some(&ahead) = scratch.through.get(at + LISTS_AHEAD) {
            links.prefetch(ahead);
        }
        let between = scratch.through[at];
        // Its neighbours were looked at before, from another row.
        if !scratch.visited.insert(between) {
            continue;
        }
        gather_passing(links, between, passes, scratch)?;
    }
    Ok(())
}

/// Adds the passing neighbours of a row that were not met before to the batch.
#[inline]
fn gather_passing<L: Links>(
    links: &L,
    ordinal: Ordinal,
    passes: &impl Fn(Ordinal) -> bool,
    scratch: &mut Scratch,
) -> Result<(), L::Error> {
    let rows = links.rows();
    let list = links.list(ordinal, 0)?;
    let start = scratch.batch.len();
    // Few pass, unpredictably: each is written down, and kept by the count alone.
    scratch.batch.resize(start + list.len(), 0);
    let mut passing = start;
    for &neighbour in list {
        if neighbour >= rows {
            if neighbour == NO_NEIGHBOUR {
                break;
            }
            return Err(links.out_of_range(ordinal, 0, neighbour));
        }
        scratch.batch[passing] = neighbour;
        passing += usize::from(passes(neighbour));
    }
    let mut new = start;
    for at in start..passing {
        let neighbour = scratch.batch[at];
        scratch.batch[new] = neighbour;
        new += usize::from(scratch.visited.insert(neighbour));
    }
    scratch.batch.truncate(new);
    Ok(())
}
