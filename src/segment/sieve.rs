//! The nearest of many rows that are seen once each, for lists too long to keep in order.

use super::pool::Candidate;

/// Keeps the nearest `keep`: in no order, with as many more as have not been sifted out yet.
///
/// A pool of hundreds would search and move its entries for each row that is taken. This one only adds it, and when twice
/// as many are held as wanted, the farther half is dropped: what that takes, spread over the rows added, is a few
/// comparisons.
#[derive(Debug)]
pub(super) struct Sieve {
    keep: usize,
    held: Vec<Candidate>,
    /// Closeness of the last of `keep` that were held when it was last sifted.
    floor: f32,
}

impl Sieve {
    /// `keep`: at least 1.
    pub(super) fn new(keep: usize) -> Self {
        assert!(keep > 0, "a sieve keeps at least one row");
        Self { keep, held: Vec::with_capacity(2 * keep), floor: f32::NEG_INFINITY }
    }

    /// No row that is farther is [admitted](Self::admits).
    #[inline]
    pub(super) fn floor(&self) -> f32 {
        self.floor
    }

    /// Whether a row of this closeness may be among the nearest of all seen so far.
    #[inline]
    pub(super) fn admits(&self, closeness: f32) -> bool {
        closeness > self.floor || self.held.len() < self.keep
    }

    /// Takes a row that it [`admits`](Self::admits).
    #[inline]
    pub(super) fn insert(&mut self, candidate: Candidate) {
        self.held.push(candidate);
        if self.held.len() == 2 * self.keep {
            self.sift();
        }
    }

    /// The nearest, at most as many as it keeps, in no order; of those equally far at the end any.
    pub(super) fn into_nearest(mut self) -> Vec<Candidate> {
        self.sift();
        self.held
    }

    fn sift(&mut self) {
        if self.held.len() <= self.keep {
            return;
        }
        let (_, last, _) = self.held.select_nth_unstable_by(self.keep - 1, |a, b| b.closeness.total_cmp(&a.closeness));
        self.floor = last.closeness;
        self.held.truncate(self.keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_nearest_of_any_number() {
        for keep in [1usize, 2, 7, 100] {
            for rows in [0u32, 1, 6, 7, 8, 13, 14, 15, 1_000] {
                let closeness = |row: u32| ((row * 7_919) % 1_009) as f32;
                let mut sieve = Sieve::new(keep);
                for ordinal in 0..rows {
                    if sieve.admits(closeness(ordinal)) {
                        sieve.insert(Candidate { closeness: closeness(ordinal), ordinal });
                    }
                }
                let mut found: Vec<u32> = sieve.into_nearest().iter().map(|candidate| candidate.ordinal).collect();
                found.sort_by(|&a, &b| closeness(b).total_cmp(&closeness(a)));
                let mut expected: Vec<u32> = (0..rows).collect();
                expected.sort_by(|&a, &b| closeness(b).total_cmp(&closeness(a)));
                expected.truncate(keep);
                assert_eq!(found, expected, "{keep} of {rows}");
            }
        }
    }

    #[test]
    fn rows_as_near_as_the_last_are_left_out_once_it_is_full() {
        let mut sieve = Sieve::new(2);
        for ordinal in 0..4 {
            assert!(sieve.admits(1.0));
            sieve.insert(Candidate { closeness: 1.0, ordinal });
        }
        assert!(!sieve.admits(1.0) && sieve.admits(1.1));
        assert_eq!(sieve.into_nearest().len(), 2);
    }
}
