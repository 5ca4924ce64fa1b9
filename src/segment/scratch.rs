//! Memory that searches of one thread use again and again, so that a search allocates nothing.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::apart::ReadRow;
use super::pool::{Candidate, Pool};
use super::sieve::Sieve;
use crate::types::{Ordinal, RowSet};

/// What one walk or scan needs; any state it is left in is fine for the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) visited: Visited,
    /// Rows that pass a filter and were not met yet.
    pub(super) unmet: RowSet,
    pub(super) pool: Pool,
    pub(super) sieve: Sieve,
    /// As it was before rows that may have to be looked at again.
    pub(super) sieve_before: Sieve,
    pub(super) frontier: BinaryHeap<Nearest>,
    pub(super) batch: Vec<Ordinal>,
    /// Rows that do not pass a filter, to be walked through.
    pub(super) through: Vec<Ordinal>,
    /// Of each of the batch.
    pub(super) closeness: Vec<f32>,
    /// Of queries, of their two kinds.
    pub(super) codes: Vec<i8>,
    pub(super) nibbles: Vec<i8>,
    /// A vector of a large segment.
    pub(super) row: ReadRow,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Lends this thread's scratch; a search inside a search gets a fresh one.
pub(super) fn with_scratch<T>(search: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let result = search(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

/// Orders candidates by closeness, for a heap whose top is the nearest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nearest(pub(super) Candidate);

impl Ord for Nearest {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.closeness.total_cmp(&other.0.closeness).then(other.0.ordinal.cmp(&self.0.ordinal))
    }
}

impl PartialOrd for Nearest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Nearest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Nearest {}

/// Which rows a walk has met: those marked with the number of the walk, so that the next walk clears nothing.
#[derive(Debug, Default)]
pub(super) struct Visited {
    marks: Vec<u8>,
    walk: u8,
}

impl Visited {
    /// Forgets every row and makes room for `rows`.
    pub(super) fn reset(&mut self, rows: u32) {
        if self.marks.len() < rows as usize {
            self.marks.resize(rows as usize, self.walk);
        }
        self.walk = self.walk.wrapping_add(1);
        if self.walk == 0 {
            self.marks.fill(0);
            self.walk = 1;
        }
    }

    /// Returns whether `ordinal`, which is below the rows, is new.
    #[inline]
    pub(super) fn insert(&mut self, ordinal: Ordinal) -> bool {
        std::mem::replace(&mut self.marks[ordinal as usize], self.walk) != self.walk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_are_counted_once_and_forgotten() {
        let mut visited = Visited::default();
        visited.reset(130);
        assert!(visited.insert(0) && visited.insert(64) && visited.insert(129));
        assert!(!visited.insert(0) && !visited.insert(129));
        visited.reset(70);
        assert!(visited.insert(0) && visited.insert(69));
        visited.reset(1_000);
        assert!(visited.insert(129) && visited.insert(999));
        for _ in 0..1_000 {
            visited.reset(500);
            assert!(visited.insert(7) && !visited.insert(7));
        }
        assert!(visited.insert(129), "marks of a walk long ago do not count");
    }

    #[test]
    fn nested_searches_do_not_share_scratch() {
        with_scratch(|outer| {
            outer.batch.push(1);
            with_scratch(|inner| assert!(inner.batch.is_empty()));
            assert_eq!(outer.batch, [1]);
        });
    }
}
