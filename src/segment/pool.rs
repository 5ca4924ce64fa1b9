//! The best candidates so far: a bounded list, nearest first, that remembers which of them a walk has expanded.

use crate::types::Ordinal;

/// Marks an expanded entry; ordinals stay below it.
const EXPANDED: u32 = 1 << 31;
/// A list of fewer candidates is short.
const SHORT: usize = 64;

/// A row and how close it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Rises with closeness; see [`crate::distance`].
    pub closeness: f32,
    /// The row.
    pub ordinal: Ordinal,
}

/// At most `capacity` candidates, nearest first; of equally close ones the earlier inserted stands first.
///
/// A sorted array beats heaps here: it is short, moves are one copy, and the bound is its last entry.
#[derive(Debug, Default)]
pub(super) struct Pool {
    capacity: usize,
    entries: Vec<Candidate>,
    /// Every entry before it is expanded.
    cursor: usize,
}

impl Pool {
    /// Empties the pool and sets its capacity, at least 1.
    pub(super) fn reset(&mut self, capacity: usize) {
        assert!(capacity > 0, "a pool holds at least one candidate");
        self.capacity = capacity;
        self.entries.clear();
        self.cursor = 0;
    }

    /// Empties the pool and fills it with candidates, at most `capacity` and nearest first.
    pub(super) fn fill(&mut self, capacity: usize, nearest: impl ExactSizeIterator<Item = Candidate>) {
        assert!(nearest.len() <= capacity, "{} candidates for {capacity} places", nearest.len());
        self.reset(capacity);
        self.entries.extend(nearest);
    }

    /// Whether a candidate of this closeness would be taken.
    #[inline]
    pub(super) fn admits(&self, closeness: f32) -> bool {
        self.entries.len() < self.capacity || self.entries.last().is_some_and(|last| closeness > last.closeness)
    }

    /// Takes a candidate that it [`admits`](Self::admits), and drops the farthest when it is full.
    #[inline]
    pub(super) fn insert(&mut self, candidate: Candidate) {
        if self.entries.len() == self.capacity {
            self.entries.pop();
        }
        let at = match self.entries.len() {
            0..SHORT => self.insert_in_short(candidate),
            _ => {
                let at = self.entries.partition_point(|entry| entry.closeness >= candidate.closeness);
                self.entries.insert(at, candidate);
                at
            }
        };
        self.cursor = self.cursor.min(at);
    }

    /// Moves the farther ones one by one, which are too few for a search and a copy to pay.
    #[inline]
    fn insert_in_short(&mut self, candidate: Candidate) -> usize {
        let mut at = self.entries.len();
        self.entries.push(candidate);
        while at > 0 && self.entries[at - 1].closeness < candidate.closeness {
            self.entries[at] = self.entries[at - 1];
            at -= 1;
        }
        self.entries[at] = candidate;
        at
    }

    /// The closeness of the nearest candidate that is not expanded.
    #[inline]
    pub(super) fn nearest_unexpanded(&mut self) -> Option<f32> {
        while self.entries.get(self.cursor).is_some_and(|entry| entry.ordinal & EXPANDED != 0) {
            self.cursor += 1;
        }
        self.entries.get(self.cursor).map(|entry| entry.closeness)
    }

    /// Marks that candidate as expanded and returns its row.
    #[inline]
    pub(super) fn expand(&mut self) -> Option<Ordinal> {
        self.nearest_unexpanded()?;
        let entry = &mut self.entries[self.cursor];
        let ordinal = entry.ordinal;
        entry.ordinal |= EXPANDED;
        self.cursor += 1;
        Some(ordinal)
    }

    /// The row that would be expanded next if nothing nearer came.
    #[inline]
    pub(super) fn next_hint(&self) -> Option<Ordinal> {
        self.entries.get(self.cursor).map(|entry| entry.ordinal & !EXPANDED)
    }

    /// The `count` nearest, nearest first.
    pub(super) fn nearest(&self, count: usize) -> impl ExactSizeIterator<Item = Candidate> + '_ {
        let entries = &self.entries[..count.min(self.entries.len())];
        entries.iter().map(|entry| Candidate { ordinal: entry.ordinal & !EXPANDED, ..*entry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(pool: &mut Pool, closeness: f32, ordinal: Ordinal) -> bool {
        let admits = pool.admits(closeness);
        if admits {
            pool.insert(Candidate { closeness, ordinal });
        }
        admits
    }

    fn ordinals(pool: &Pool) -> Vec<Ordinal> {
        pool.nearest(usize::MAX).map(|candidate| candidate.ordinal).collect()
    }

    #[test]
    fn keeps_the_nearest_in_order() {
        let mut pool = Pool::default();
        pool.reset(3);
        for (closeness, ordinal) in [(0.1, 1), (0.5, 2), (0.3, 3), (0.4, 4)] {
            assert!(insert(&mut pool, closeness, ordinal));
        }
        assert_eq!(ordinals(&pool), [2, 4, 3]);
        assert!(!insert(&mut pool, 0.3, 5), "as far as the last of a full pool");
        assert!(insert(&mut pool, 0.5, 6));
        assert_eq!(ordinals(&pool), [2, 6, 4], "the earlier of equals stands first");
        pool.reset(1);
        assert!(ordinals(&pool).is_empty());
    }

    #[test]
    fn expands_each_once_nearest_first() {
        let mut pool = Pool::default();
        pool.reset(4);
        insert(&mut pool, 0.2, 1);
        insert(&mut pool, 0.3, 2);
        assert_eq!(pool.expand(), Some(2));
        insert(&mut pool, 0.4, 3);
        assert_eq!(pool.nearest_unexpanded(), Some(0.4));
        assert_eq!((pool.expand(), pool.expand(), pool.expand()), (Some(3), Some(1), None));
        insert(&mut pool, 0.1, 4);
        assert_eq!(pool.next_hint(), Some(4));
        assert_eq!(pool.expand(), Some(4));
        assert_eq!(ordinals(&pool), [3, 2, 1, 4]);
    }
}
