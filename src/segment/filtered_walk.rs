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
use crate::distance::select_members;
use crate::types::{Ordinal, RowSet};

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
pub const WANTED_PASSING: usize = 16;
/// Lists between the one looked at and the one that the memory is asked for. Most rows need few of them, so that asking
/// for all at once would mostly be in vain.
const LISTS_AHEAD: usize = 8;

/// Walks to the `ef` nearest of the `passing` rows, approximately, and leaves them in `scratch.pool`.
///
/// `seeds`: passing rows to start from beside the graph's entry point.
pub(super) fn walk_filtered<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    options: FilteredOptions,
    seeds: &[Ordinal],
    passing: &RowSet,
    scratch: &mut Scratch,
) -> Result<FilteredStats, L::Error> {
    let mut stats = SearchStats::default();
    // As in a walk of all rows.
    scratch.pool.reset(options.ef.max(options.top_k));
    let start = descend(links, rows, scratch, &mut stats)?;
    scratch.visited.reset(links.rows());
    scratch.unmet.copy_from(passing);
    scratch.batch.clear();
    scratch.batch.extend(seeds.iter().copied().filter(|&seed| scratch.unmet.take(seed)));
    compare(rows, &mut stats, scratch)?;
    scratch.batch.clear();
    if !passing.contains(start.ordinal) {
        gather(links, start.ordinal, passing, scratch)?;
    } else if scratch.unmet.take(start.ordinal) {
        scratch.batch.push(start.ordinal);
    }
    compare(rows, &mut stats, scratch)?;
    while let Some(ordinal) = scratch.pool.expand() {
        if stats.compared > options.max_compared {
            return Ok(FilteredStats { stats, finished: false });
        }
        stats.expanded += 1;
        scratch.batch.clear();
        gather(links, ordinal, passing, scratch)?;
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
fn gather<L: Links>(links: &L, ordinal: Ordinal, passing: &RowSet, scratch: &mut Scratch) -> Result<(), L::Error> {
    let list = gather_unmet(links, ordinal, scratch)?;
    if scratch.batch.len() >= WANTED_PASSING {
        return Ok(());
    }
    scratch.through.clear();
    select_members::<false>(passing.words(), links.rows(), list, &mut scratch.through);
    scratch.through.iter().take(LISTS_AHEAD).for_each(|&between| links.prefetch(between));
    for at in 0..scratch.through.len() {
        if scratch.batch.len() >= WANTED_PASSING {
            break;
        }
        if let Some(&ahead) = scratch.through.get(at + LISTS_AHEAD) {
            links.prefetch(ahead);
        }
        let between = scratch.through[at];
        // If not new, its neighbours were looked at before, from another row.
        if scratch.visited.insert(between) {
            gather_unmet(links, between, scratch)?;
        }
    }
    Ok(())
}

/// Adds the passing neighbours of a row that were not met before to the batch. Returns all its neighbours.
#[inline]
fn gather_unmet<'a, L: Links>(
    links: &'a L,
    ordinal: Ordinal,
    scratch: &mut Scratch,
) -> Result<&'a [Ordinal], L::Error> {
    let list = links.list(ordinal, 0)?;
    let Scratch { unmet, batch, .. } = scratch;
    let start = batch.len();
    let neighbours = select_members::<true>(unmet.words(), links.rows(), list, batch);
    if let Some(&neighbour) = list.get(neighbours)
        && neighbour != NO_NEIGHBOUR
    {
        return Err(links.out_of_range(ordinal, 0, neighbour));
    }
    // A damaged list may name a row twice.
    let mut new = start;
    for at in start..batch.len() {
        batch[new] = batch[at];
        new += usize::from(unmet.take(batch[at]));
    }
    batch.truncate(new);
    Ok(&list[..neighbours])
}
