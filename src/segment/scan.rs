//! The scan: every row of a list compared, the nearest kept.

use super::pool::Candidate;
use super::scratch::Scratch;
use super::walk::{Rows, SearchStats};
use crate::types::Ordinal;

/// Ordinals taken at once.
const TAKEN: usize = 1_024;
/// Rows compared at once.
const COMPARED: usize = 4;
/// Rows between those compared and those that the memory is asked for: about as many as a core can have under way.
const AHEAD: usize = 8;

/// Leaves the `keep` nearest of `ordinals` that are admitted in the scratch's pool. `check`: whether there is such a row.
pub(super) fn scan<R: Rows>(
    rows: &R,
    keep: usize,
    mut ordinals: impl Iterator<Item = Ordinal>,
    check: impl Fn(Ordinal) -> Result<(), R::Error>,
    mut admit: impl FnMut(Ordinal) -> bool,
    scratch: &mut Scratch,
) -> Result<SearchStats, R::Error> {
    let mut stats = SearchStats::default();
    let Scratch { pool, sieve, batch, closeness, .. } = scratch;
    // What an earlier search left must not pass for this one's where a row cannot be read.
    pool.reset(keep);
    sieve.reset(keep);
    loop {
        batch.clear();
        batch.extend(ordinals.by_ref().take(TAKEN));
        if batch.is_empty() {
            pool.fill(keep, sieve.nearest_in_order());
            return Ok(stats);
        }
        batch.iter().try_for_each(|&ordinal| check(ordinal))?;
        stats.compared += batch.len() as u64;
        let mut ahead = batch.iter();
        ahead.by_ref().take(AHEAD).for_each(|&ordinal| rows.prefetch(ordinal));
        for compared in batch.chunks(COMPARED) {
            ahead.by_ref().take(COMPARED).for_each(|&ordinal| rows.prefetch(ordinal));
            rows.compare(compared, closeness)?;
            for (&ordinal, &closeness) in compared.iter().zip(closeness.iter()) {
                if sieve.admits(closeness) && admit(ordinal) {
                    sieve.insert(Candidate { closeness, ordinal });
                }
            }
        }
    }
}
