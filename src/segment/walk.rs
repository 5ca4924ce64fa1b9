//! The walk over an HNSW graph (Malkov & Yashunin 2018), whatever holds the graph and the rows.

use super::graph::NO_NEIGHBOUR;
use super::pool::Candidate;
use super::scratch::{Nearest, Scratch, with_scratch};
use crate::types::Ordinal;

/// How hard a graph search tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkOptions {
    /// Most candidates to return.
    pub top_k: usize,
    /// Candidates kept while walking; raised to `top_k` where it is lower. More trades time for recall.
    pub ef: usize,
}

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Comparisons of the query with rows, rescoring left out.
    pub compared: u64,
    /// Rows whose neighbours a walk looked at.
    pub expanded: u64,
    /// Candidates compared again in f32.
    pub rescored: u64,
}

/// Rows that can be compared with a query.
pub(crate) trait Rows {
    /// Why a row could not be read.
    type Error;

    /// Hints that the row is read soon.
    fn prefetch(&self, ordinal: Ordinal);

    /// Rises as the row gets nearer to the query. `ordinal` is below the rows.
    fn closeness(&self, ordinal: Ordinal) -> Result<f32, Self::Error>;

    /// Replaces `closeness` by that of each of `ordinals`, in their order. Each is below the rows.
    fn compare(&self, ordinals: &[Ordinal], closeness: &mut Vec<f32>) -> Result<(), Self::Error> {
        closeness.clear();
        for &ordinal in ordinals {
            closeness.push(self.closeness(ordinal)?);
        }
        Ok(())
    }

    /// How much farther than this row another may seem and still be nearer; `None` where nobody would look for it.
    fn margin(&self, _of: Ordinal) -> Option<f32> {
        None
    }
}

/// The links of a graph that has at least one row.
pub(crate) trait Links {
    /// Why links could not be read.
    type Error;

    /// Rows of the graph.
    fn rows(&self) -> u32;

    /// Where walks begin, below the rows.
    fn entry(&self) -> Ordinal;

    /// Highest level.
    fn max_level(&self) -> u32;

    /// The list of a row on a level, filled up with [`NO_NEIGHBOUR`]. What it holds need not be sound.
    fn list(&self, ordinal: Ordinal, level: u32) -> Result<&[u32], Self::Error>;

    /// Hints that the row's list on level 0 is read soon.
    fn prefetch(&self, ordinal: Ordinal);

    /// The error for a neighbour that is no row.
    fn out_of_range(&self, ordinal: Ordinal, level: u32, neighbour: u32) -> Self::Error;
}

/// Walks to the `ef` nearest live rows, approximately, and leaves them in `scratch.pool`.
///
/// Rows that are not live are walked through, so that a filter does not tear the graph apart; they only do not count.
/// So the walk goes on until it holds `ef` live rows and nothing nearer is left, or has met every row.
pub(super) fn walk<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    ef: usize,
    mut live: impl FnMut(Ordinal) -> bool,
    scratch: &mut Scratch,
) -> Result<SearchStats, L::Error> {
    let mut stats = SearchStats::default();
    // What an earlier search left must not pass for this one's where a row cannot be read.
    scratch.pool.reset(ef);
    let start = descend(links, rows, scratch, &mut stats)?;
    scratch.visited.reset(links.rows());
    scratch.frontier.clear();
    scratch.visited.insert(start.ordinal);
    offer(start, &mut live, scratch);
    while let Some(ordinal) = next(scratch) {
        stats.expanded += 1;
        gather_new(links, ordinal, 0, scratch)?;
        scratch.batch.iter().for_each(|&neighbour| rows.prefetch(neighbour));
        if let Some(next) = scratch.pool.next_hint() {
            links.prefetch(next);
        }
        stats.compared += scratch.batch.len() as u64;
        rows.compare(&scratch.batch, &mut scratch.closeness)?;
        for at in 0..scratch.batch.len() {
            let candidate = Candidate { closeness: scratch.closeness[at], ordinal: scratch.batch[at] };
            if scratch.pool.admits(candidate.closeness) {
                offer(candidate, &mut live, scratch);
            }
        }
    }
    Ok(stats)
}

/// Walks to the `ef` nearest rows, approximately: nearest first.
pub(crate) fn walk_to_nearest<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    ef: usize,
) -> Result<Vec<Candidate>, L::Error> {
    with_scratch(|scratch| {
        walk(links, rows, ef, |_| true, scratch)?;
        Ok(scratch.pool.nearest(ef).collect())
    })
}

/// Finds the `ef` nearest rows on one level, approximately, from a row on it: `out` becomes them, nearest first.
pub(crate) fn nearest_on_level<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    level: u32,
    start: Candidate,
    ef: usize,
    out: &mut Vec<Candidate>,
) -> Result<(), L::Error> {
    with_scratch(|scratch| {
        scratch.pool.reset(ef);
        fill_pool(links, rows, level, start, |_| false, scratch)?;
        out.clear();
        out.extend(scratch.pool.nearest(ef));
        Ok(())
    })
}

/// Whether a walk to the `ef` nearest rows misses `row`, although what it finds is farther: the row where it reached
/// level 0, then those that it ends up with, nearest first. Of many rows as near a walk need not find all. Every walk
/// of more effort goes on where this one ends, and so finds what this one does.
pub(crate) fn walk_without<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    ef: usize,
    row: Ordinal,
) -> Result<Option<Vec<Candidate>>, L::Error> {
    with_scratch(|scratch| {
        let start = descend(links, rows, scratch, &mut SearchStats::default())?;
        scratch.pool.reset(ef);
        if start.ordinal == row || fill_pool(links, rows, 0, start, |taken| taken == row, scratch)? {
            return Ok(None);
        }
        let closeness = rows.closeness(row)?;
        Ok(scratch.pool.admits(closeness).then(|| [start].into_iter().chain(scratch.pool.nearest(ef)).collect()))
    })
}

/// Fills the scratch's pool, which is empty, from `start` on one level. Ends early, and returns true, once `stop` holds
/// for a row taken.
fn fill_pool<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    level: u32,
    start: Candidate,
    stop: impl Fn(Ordinal) -> bool,
    scratch: &mut Scratch,
) -> Result<bool, L::Error> {
    scratch.visited.reset(links.rows());
    scratch.visited.insert(start.ordinal);
    scratch.pool.insert(start);
    while let Some(ordinal) = scratch.pool.expand() {
        gather_new(links, ordinal, level, scratch)?;
        scratch.batch.iter().for_each(|&neighbour| rows.prefetch(neighbour));
        if let Some(next) = scratch.pool.next_hint() {
            links.prefetch(next);
        }
        rows.compare(&scratch.batch, &mut scratch.closeness)?;
        for (&ordinal, &closeness) in scratch.batch.iter().zip(&scratch.closeness) {
            if scratch.pool.admits(closeness) {
                scratch.pool.insert(Candidate { closeness, ordinal });
                if stop(ordinal) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Goes to the nearest row on a level that single steps find from `start`, which is on it.
pub(crate) fn step_on_level<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    level: u32,
    start: Candidate,
) -> Result<Candidate, L::Error> {
    with_scratch(|scratch| step(links, rows, level, start, scratch, &mut SearchStats::default()))
}

/// Makes the neighbours of a row that were not met before the scratch's batch, and marks them as met.
#[inline]
fn gather_new<L: Links>(links: &L, ordinal: Ordinal, level: u32, scratch: &mut Scratch) -> Result<(), L::Error> {
    let rows = links.rows();
    let list = links.list(ordinal, level)?;
    // Half of the neighbours were met before, unpredictably: each is written down, and kept by the count alone.
    scratch.batch.resize(list.len(), 0);
    let mut new = 0;
    for &neighbour in list {
        if neighbour >= rows {
            if neighbour == NO_NEIGHBOUR {
                break;
            }
            return Err(links.out_of_range(ordinal, level, neighbour));
        }
        scratch.batch[new] = neighbour;
        new += usize::from(scratch.visited.insert(neighbour));
    }
    scratch.batch.truncate(new);
    Ok(())
}

/// Goes down the upper levels, on each to the nearest row that single steps find.
pub(super) fn descend<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    scratch: &mut Scratch,
    stats: &mut SearchStats,
) -> Result<Candidate, L::Error> {
    let mut best = Candidate { closeness: rows.closeness(links.entry())?, ordinal: links.entry() };
    stats.compared += 1;
    for level in (1..=links.max_level()).rev() {
        best = step(links, rows, level, best, scratch, stats)?;
    }
    Ok(best)
}

/// Goes on from `best` on one level as long as a neighbour is nearer.
fn step<L: Links, R: Rows<Error = L::Error>>(
    links: &L,
    rows: &R,
    level: u32,
    mut best: Candidate,
    scratch: &mut Scratch,
    stats: &mut SearchStats,
) -> Result<Candidate, L::Error> {
    loop {
        let from = best.ordinal;
        scratch.batch.clear();
        for neighbour in neighbours(links, from, level)? {
            scratch.batch.push(neighbour?);
        }
        scratch.batch.iter().for_each(|&neighbour| rows.prefetch(neighbour));
        rows.compare(&scratch.batch, &mut scratch.closeness)?;
        stats.compared += scratch.batch.len() as u64;
        for (&ordinal, &closeness) in scratch.batch.iter().zip(&scratch.closeness) {
            if closeness > best.closeness {
                best = Candidate { closeness, ordinal };
            }
        }
        if best.ordinal == from {
            return Ok(best);
        }
    }
}

/// The neighbours of a row, each held against the rows.
#[inline]
fn neighbours<L: Links>(
    links: &L,
    ordinal: Ordinal,
    level: u32,
) -> Result<impl Iterator<Item = Result<Ordinal, L::Error>>, L::Error> {
    let rows = links.rows();
    let list = links.list(ordinal, level)?;
    Ok(list.iter().take_while(|&&neighbour| neighbour != NO_NEIGHBOUR).map(move |&neighbour| {
        if neighbour < rows { Ok(neighbour) } else { Err(links.out_of_range(ordinal, level, neighbour)) }
    }))
}

/// Live rows go to the pool, the others to the frontier. The pool admits the candidate.
#[inline]
fn offer(candidate: Candidate, live: &mut impl FnMut(Ordinal) -> bool, scratch: &mut Scratch) {
    if live(candidate.ordinal) {
        scratch.pool.insert(candidate);
    } else {
        scratch.frontier.push(Nearest(candidate));
    }
}

/// The nearest row to expand that can still lead to something nearer than the pool's last.
#[inline]
fn next(scratch: &mut Scratch) -> Option<Ordinal> {
    let unexpanded = scratch.pool.nearest_unexpanded();
    let Some(&Nearest(waiting)) = scratch.frontier.peek() else { return scratch.pool.expand() };
    match unexpanded {
        Some(closeness) if closeness >= waiting.closeness => scratch.pool.expand(),
        _ if !scratch.pool.admits(waiting.closeness) => scratch.pool.expand(),
        _ => scratch.frontier.pop().map(|Nearest(candidate)| candidate.ordinal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring in which each row knows its two neighbours; row r stands at r on a line.
    struct Ring {
        rows: u32,
        query: f32,
        lists: Vec<Vec<u32>>,
    }

    impl Ring {
        fn new(rows: u32, query: f32) -> Self {
            let lists = (0..rows).map(|r| vec![(r + 1) % rows, (r + rows - 1) % rows, NO_NEIGHBOUR, 7]).collect();
            Self { rows, query, lists }
        }

        fn walk(&self, ef: usize, live: impl FnMut(Ordinal) -> bool) -> Result<Vec<Ordinal>, String> {
            let mut scratch = Scratch::default();
            walk(self, self, ef, live, &mut scratch)?;
            Ok(scratch.pool.nearest(ef).map(|candidate| candidate.ordinal).collect())
        }
    }

    impl Rows for Ring {
        type Error = String;

        fn prefetch(&self, _: Ordinal) {}

        fn closeness(&self, ordinal: Ordinal) -> Result<f32, String> {
            Ok(-(ordinal as f32 - self.query).abs())
        }
    }

    impl Links for Ring {
        type Error = String;

        fn rows(&self) -> u32 {
            self.rows
        }

        fn entry(&self) -> Ordinal {
            0
        }

        fn max_level(&self) -> u32 {
            1
        }

        fn list(&self, ordinal: Ordinal, _: u32) -> Result<&[u32], String> {
            Ok(&self.lists[ordinal as usize])
        }

        fn prefetch(&self, _: Ordinal) {}

        fn out_of_range(&self, ordinal: Ordinal, level: u32, neighbour: u32) -> String {
            format!("{ordinal} {level} {neighbour}")
        }
    }

    #[test]
    fn finds_the_nearest() {
        assert_eq!(Ring::new(100, 41.2).walk(4, |_| true).unwrap(), [41, 42, 40, 43]);
    }

    #[test]
    fn walks_through_rows_that_are_not_live_until_enough_are_found() {
        let ring = Ring::new(100, 41.2);
        assert_eq!(ring.walk(3, |row| row % 10 == 0).unwrap(), [40, 50, 30]);
        assert_eq!(ring.walk(3, |row| row == 99).unwrap(), [99]);
        assert!(ring.walk(3, |_| false).unwrap().is_empty());
    }

    #[test]
    fn a_neighbour_that_is_no_row_is_an_error() {
        let mut ring = Ring::new(100, 41.2);
        ring.lists[41][1] = 100;
        assert_eq!(ring.walk(4, |_| true).unwrap_err(), "41 1 100");
    }

    #[test]
    fn a_graph_of_one_row_is_walked() {
        let mut ring = Ring::new(1, 0.0);
        ring.lists[0] = vec![NO_NEIGHBOUR; 4];
        assert_eq!(ring.walk(10, |_| true).unwrap(), [0]);
    }
}
