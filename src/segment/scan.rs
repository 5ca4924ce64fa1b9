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

/// Factor by which the number of rows kept grows where a rejected row may, within rounding, be as near as the last one
/// wanted.
const WIDER: usize = 4;

/// How many rows a scan keeps.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    /// Of these the caller wants the nearest.
    pub(super) wanted: usize,
    /// Kept at least; more where they are too near to each other for what rows are compared by.
    pub(super) least: usize,
}

/// Leaves the nearest of `ordinals` that are admitted in the scratch's pool. `check`: whether there is such a row.
pub(super) fn scan<R: Rows>(
    rows: &R,
    Keep { wanted, least }: Keep,
    mut ordinals: impl Iterator<Item = Ordinal>,
    check: impl Fn(Ordinal) -> Result<(), R::Error>,
    mut admit: impl FnMut(Ordinal) -> bool,
    scratch: &mut Scratch,
) -> Result<SearchStats, R::Error> {
    let mut stats = SearchStats::default();
    let mut keep = least;
    let Scratch { pool, sieve, sieve_before: before, batch, closeness, .. } = scratch;
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
        loop {
            before.clone_from(sieve);
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
            // Rows of earlier batches were rejected with room to spare, and more so now.
            let is_wide = |(wanted, last): (Candidate, Candidate)| match rows.margin(wanted.ordinal) {
                Some(margin) => last.closeness < wanted.closeness - margin,
                None => true,
            };
            if sieve.ranked(wanted).is_none_or(is_wide) {
                break;
            }
            keep *= WIDER;
            before.widen(keep);
            sieve.clone_from(before);
        }
    }
}
