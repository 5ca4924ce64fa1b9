//! Searches a segment whose rows may have several vectors: the nearest vectors, until they are of enough rows.
//!
//! A row counts by the nearest of its vectors. Whether it lives and passes the filter is asked of the row, so that no
//! vector of a row that was replaced or deleted can bring it back.

use crate::distance::VectorQuery;
use crate::segment::{Candidate, FilteredOptions, SearchStats, WalkOptions};
use crate::types::limits::MAX_EF;
use crate::types::{Method, Ordinal, RowSet};

use super::IndexError;
use super::one_segment::{SEEDS, SegmentQuery, Verifier};
use super::params::{WANTED_RECALL, ef_for};

/// Where the nearest vectors are of too few rows, so many times as many are looked for.
const MORE: usize = 4;

/// Replaces `out` by the nearest `top_k` rows that live and pass, each once. Returns how it was searched in the end.
///
/// `owners`: by vector its row, as [`crate::segment::Segment::owners`] has it.
///
/// # Errors
/// [`IndexError`] when the segment is damaged.
pub fn search_chunked(
    owners: &[Ordinal],
    top_k: usize,
    part: &SegmentQuery,
    vector: &VectorQuery,
    verifier: &mut Verifier<'_>,
    out: &mut Vec<Candidate>,
) -> Result<(Method, SearchStats), IndexError> {
    let (mut used, mut stats) = (part.method, SearchStats::default());
    let rows = verifier.live.segment.rows().max(1) as usize;
    let mut wanted = (top_k * owners.len().div_ceil(rows)).min(owners.len() + 1);
    let mut found = Vec::new();
    loop {
        let pass = Pass { owners, wanted, ef: part.ef, vector };
        pass.run(&mut used, &mut stats, verifier, &mut found)?;
        out.clear();
        nearest_of_each(owners, &found, top_k, out);
        // Fewer vectors than were asked for: there are no more.
        if out.len() == top_k || found.len() < wanted {
            compare_whole(verifier, vector, out)?;
            return Ok((used, stats));
        }
        wanted = (wanted * MORE).min(owners.len() + 1);
    }
}

/// Of each row the first candidate, as a candidate of its row.
fn nearest_of_each(owners: &[Ordinal], found: &[Candidate], top_k: usize, out: &mut Vec<Candidate>) {
    let mut seen = std::collections::HashSet::with_capacity(top_k);
    for candidate in found {
        let row = owners[candidate.ordinal as usize];
        if out.len() < top_k && seen.insert(row) {
            out.push(Candidate { ordinal: row, ..*candidate });
        }
    }
}

/// A walk may have missed the nearest vector of a row that it found by another.
fn compare_whole(verifier: &Verifier<'_>, vector: &VectorQuery, out: &mut [Candidate]) -> Result<(), IndexError> {
    for candidate in out.iter_mut() {
        candidate.closeness = vector.nearest(&verifier.live.segment.vectors(candidate.ordinal)?.in_full()).1;
    }
    out.sort_unstable_by(|a, b| b.closeness.total_cmp(&a.closeness).then(a.ordinal.cmp(&b.ordinal)));
    Ok(())
}

/// One search for so many vectors.
struct Pass<'a> {
    owners: &'a [Ordinal],
    wanted: usize,
    ef: usize,
    vector: &'a VectorQuery,
}

impl Pass<'_> {
    /// Replaces `found` by the nearest vectors of rows that live and pass, nearest first. `used` becomes the way that
    /// answered.
    fn run(
        &self,
        used: &mut Method,
        stats: &mut SearchStats,
        verifier: &mut Verifier<'_>,
        found: &mut Vec<Candidate>,
    ) -> Result<(), IndexError> {
        let live = verifier.live;
        // A walk keeps in order what it finds, which costs its square; a scan is there in a fraction of the time.
        if self.wanted > MAX_EF && matches!(*used, Method::Walk | Method::FilteredWalk) {
            *used = Method::Scan;
        }
        if *used == Method::FilteredWalk && !self.walk_among(stats, verifier, found)? {
            *used = Method::Scan;
        }
        let done = match *used {
            Method::FilteredWalk => return Ok(()),
            Method::Skip => {
                found.clear();
                return Ok(());
            }
            Method::Walk => {
                let options = WalkOptions { top_k: self.wanted, ef: self.ef_of(verifier) };
                let passes = |vector: Ordinal| {
                    let row = self.owners[vector as usize];
                    !live.dead.is_dead(row) && verifier.admits(row)
                };
                live.segment.search(self.vector, options, passes, found)?
            }
            Method::Scan if verifier.rows.is_none() => {
                let is_live = |vector: Ordinal| !live.dead.is_dead(self.owners[vector as usize]);
                live.segment.scan(self.vector, self.wanted, is_live, found)?
            }
            Method::Scan | Method::PackedScan | Method::Exact => {
                let rows = verifier.rows;
                let possible = (0..).zip(self.owners).filter(|&(_, &row)| {
                    !live.dead.is_dead(row) && rows.is_none_or(|rows| rows.possible().contains(row))
                });
                let (possible, admit) =
                    (possible.map(|(at, _)| at), |at: Ordinal| verifier.admits(self.owners[at as usize]));
                match *used {
                    Method::Exact => live.segment.scan_rows_exact(self.vector, self.wanted, possible, admit, found)?,
                    _ => live.segment.scan_rows(self.vector, self.wanted, possible, admit, found)?,
                }
            }
        };
        add(stats, done);
        Ok(())
    }

    /// Walks among the vectors of passing rows. Returns whether it found all that it was asked for.
    fn walk_among(
        &self,
        stats: &mut SearchStats,
        verifier: &Verifier<'_>,
        found: &mut Vec<Candidate>,
    ) -> Result<bool, IndexError> {
        let Some(passing) = verifier.rows.map(|rows| rows.certain()) else { return Ok(false) };
        let live = verifier.live;
        let vectors = RowSet::of(self.owners.len() as u32, |vector| {
            let row = self.owners[vector as usize];
            passing.contains(row) & !live.dead.is_dead(row)
        });
        let seeds = self.seeds(passing).into_iter().filter(|&seed| vectors.contains(seed)).collect::<Vec<_>>();
        let vectors_per_row = self.owners.len() as u64 / u64::from(live.segment.rows().max(1)) + 1;
        let max_compared = u64::from(passing.count()) * vectors_per_row;
        let options = FilteredOptions { top_k: self.wanted, ef: self.ef_of(verifier), max_compared };
        let Some(walked) = live.segment.search_filtered(self.vector, options, &seeds, &vectors, found)? else {
            return Ok(false);
        };
        add(stats, walked.stats);
        Ok(walked.finished && found.len() == self.wanted)
    }

    /// The first vectors of passing rows all over the segment.
    fn seeds(&self, passing: &RowSet) -> Vec<Ordinal> {
        let first = |row: Ordinal| self.owners.partition_point(|&owner| owner < row) as Ordinal;
        passing.spread(SEEDS).map(first).collect()
    }

    /// More vectors than rows are looked for, so the walk keeps more than was planned for the rows.
    fn ef_of(&self, verifier: &Verifier<'_>) -> usize {
        self.ef.max(ef_for(&verifier.live.segment, self.wanted, WANTED_RECALL)).max(self.wanted)
    }
}

fn add(stats: &mut SearchStats, more: SearchStats) {
    stats.compared += more.compared;
    stats.expanded += more.expanded;
    stats.rescored += more.rescored;
}
