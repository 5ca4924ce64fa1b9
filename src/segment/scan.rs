//! The scan: every row of a list compared, the nearest kept.

use super::pool::Candidate;
use super::scratch::Scratch;
use super::walk::{Rows, SearchStats};
use crate::types::Ordinal;

/// Rows that a scan compares at once, while as many are fetched.
const BATCH: usize = 8;

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
    scratch.pool.reset(keep);
    next_batch(rows, &mut ordinals, &check, &mut scratch.batch)?;
    while !scratch.batch.is_empty() {
        // The rows to come are fetched while these are compared.
        next_batch(rows, &mut ordinals, &check, &mut scratch.through)?;
        stats.compared += scratch.batch.len() as u64;
        rows.compare(&scratch.batch, &mut scratch.closeness)?;
        for (&ordinal, &closeness) in scratch.batch.iter().zip(&scratch.closeness) {
            if scratch.pool.admits(closeness) && admit(ordinal) {
                scratch.pool.insert(Candidate { closeness, ordinal });
            }
        }
        std::mem::swap(&mut scratch.batch, &mut scratch.through);
    }
    Ok(stats)
}

/// Replaces `batch` by the next of `ordinals`, and asks the memory for their rows.
#[inline]
fn next_batch<R: Rows>(
    rows: &R,
    ordinals: &mut impl Iterator<Item = Ordinal>,
    check: &impl Fn(Ordinal) -> Result<(), R::Error>,
    batch: &mut Vec<Ordinal>,
) -> Result<(), R::Error> {
    batch.clear();
    for ordinal in ordinals.take(BATCH) {
        check(ordinal)?;
        rows.prefetch(ordinal);
        batch.push(ordinal);
    }
    Ok(())
}
