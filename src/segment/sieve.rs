//! The nearest of many rows that are seen once each.

use super::pool::Candidate;
use crate::types::Ordinal;

/// Memory for more rows is taken as they come: a search may want more than there are.
const MOST_RESERVED: usize = 1_024;

/// Keeps the nearest `keep`, and some more that have not been sifted out yet.
///
/// A pool searches and moves its entries for each row that is taken, which no processor foresees. This one only adds
/// the row at the end, and when half as many more are held as wanted, the farthest are dropped: what that takes, spread
/// over the rows added, is a few comparisons of whole numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Sieve {
    keep: usize,
    /// See [`key`].
    held: Vec<u64>,
    /// Closeness of the last of `keep` that were held when it was last sifted.
    floor: f32,
}

impl Sieve {
    /// As after [`Sieve::reset`].
    pub(super) fn new(keep: usize) -> Self {
        let mut sieve = Self::default();
        sieve.reset(keep);
        sieve
    }

    /// Forgets every row. `keep`: at least 1.
    pub(super) fn reset(&mut self, keep: usize) {
        assert!(keep > 0, "a sieve keeps at least one row");
        self.keep = keep;
        self.held.clear();
        self.held.reserve(self.most().min(MOST_RESERVED));
        self.floor = f32::NEG_INFINITY;
    }

    /// Keeps so many from now on, which are more than before. What was dropped stays dropped.
    pub(super) fn widen(&mut self, keep: usize) {
        self.keep = keep;
    }

    /// The row that is the `rank`-th nearest, counted from 1, and the last of as many as it keeps; `None` where it
    /// holds fewer.
    pub(super) fn ranked(&mut self, rank: usize) -> Option<(Candidate, Candidate)> {
        self.sift();
        let last = self.keep.checked_sub(1).filter(|_| self.held.len() == self.keep && rank <= self.keep)?;
        let (nearer, last, _) = self.held.select_nth_unstable(last);
        let last = candidate(*last);
        match nearer.len() < rank {
            true => Some((last, last)),
            false => Some((candidate(*nearer.select_nth_unstable(rank - 1).1), last)),
        }
    }

    /// Rows held before the farthest are dropped.
    fn most(&self) -> usize {
        self.keep + self.keep / 2 + 16
    }

    /// No row that is farther is [admitted](Self::admits) any more.
    #[inline]
    pub(super) fn floor(&self) -> f32 {
        self.floor
    }

    /// Whether a row of this closeness may be among the nearest seen so far. Of equals, those seen earlier come first.
    #[inline]
    pub(super) fn admits(&self, closeness: f32) -> bool {
        closeness > self.floor || self.held.len() < self.keep
    }

    /// Takes a row that it [`admits`](Self::admits).
    #[inline]
    pub(super) fn insert(&mut self, candidate: Candidate) {
        self.held.push(key(candidate));
        if self.held.len() == self.most() {
            self.sift();
        }
    }

    /// The nearest, at most as many as it keeps, in no order. Of those equally far at the end the ones of the lowest
    /// ordinals, where rows were seen in ascending order.
    pub(super) fn nearest(&mut self) -> impl ExactSizeIterator<Item = Candidate> + '_ {
        self.sift();
        self.held.iter().map(|&key| candidate(key))
    }

    /// As [`Sieve::nearest`], nearest first, ties by ascending ordinal.
    pub(super) fn nearest_in_order(&mut self) -> impl ExactSizeIterator<Item = Candidate> + '_ {
        self.sift();
        self.held.sort_unstable();
        self.held.iter().map(|&key| candidate(key))
    }

    fn sift(&mut self) {
        if self.held.len() <= self.keep {
            return;
        }
        let (_, last, _) = self.held.select_nth_unstable(self.keep - 1);
        self.floor = candidate(*last).closeness;
        self.held.truncate(self.keep);
    }
}

/// A number that is smaller the nearer a row is, and among equally near ones the lower its ordinal. Negative numbers
/// count down from the sign on, so their other bits are turned; closer is less, so all are.
#[inline]
fn key(candidate: Candidate) -> u64 {
    let bits = candidate.closeness.to_bits();
    let descending = if bits >> 31 == 0 { !(bits | 1 << 31) } else { bits };
    u64::from(descending) << 32 | u64::from(candidate.ordinal)
}

/// Undoes [`key`].
#[inline]
fn candidate(key: u64) -> Candidate {
    let descending = (key >> 32) as u32;
    let bits = if descending >> 31 == 0 { !descending & !(1 << 31) } else { descending };
    Candidate { closeness: f32::from_bits(bits), ordinal: key as Ordinal }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_nearness(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
        b.closeness.total_cmp(&a.closeness).then(a.ordinal.cmp(&b.ordinal))
    }

    #[test]
    fn keeps_the_nearest_of_any_number() {
        for keep in [1usize, 2, 7, 40, 100] {
            for rows in [0u32, 1, 6, 7, 8, 13, 14, 15, 1_000] {
                // Many are as near as others.
                let row = |row: u32| Candidate { closeness: ((row * 7_919) % 101) as f32 - 50.0, ordinal: row };
                let (mut sieve, mut asked) = (Sieve::new(keep), 0);
                for candidate in (0..rows).map(row) {
                    if sieve.admits(candidate.closeness) {
                        assert!(candidate.closeness >= sieve.floor());
                        sieve.insert(candidate);
                        asked += 1;
                    }
                }
                let mut expected: Vec<Candidate> = (0..rows).map(row).collect();
                expected.sort_by(by_nearness);
                expected.truncate(keep);
                assert_eq!(sieve.nearest_in_order().collect::<Vec<_>>(), expected, "{keep} of {rows}");
                let mut found: Vec<Candidate> = sieve.nearest().collect();
                found.sort_by(by_nearness);
                assert_eq!(found, expected);
                assert!(asked < 500 || keep >= 40, "{asked} were taken for {keep}");
            }
        }
    }

    #[test]
    fn numbers_have_the_order_of_closeness() {
        let numbers =
            [f32::INFINITY, f32::MAX, 1.5, 1.0, f32::MIN_POSITIVE, 0.0, -0.0, -1e-40, -1.0, -2.5, f32::NEG_INFINITY];
        let keys: Vec<u64> = numbers.iter().map(|&closeness| key(Candidate { closeness, ordinal: 9 })).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:x?}");
        for (&key, &closeness) in keys.iter().zip(&numbers) {
            assert_eq!((candidate(key).closeness.to_bits(), candidate(key).ordinal), (closeness.to_bits(), 9));
        }
        let of = |ordinal| key(Candidate { closeness: -3.0, ordinal });
        assert!(of(0) < of(1) && of(1) < of(Ordinal::MAX));
    }

    #[test]
    fn rows_as_near_as_the_last_are_left_out_once_it_is_full() {
        let mut sieve = Sieve::new(2);
        for ordinal in 0..19 {
            assert!(sieve.admits(1.0));
            sieve.insert(Candidate { closeness: 1.0, ordinal });
        }
        assert!(!sieve.admits(1.0) && sieve.admits(1.1));
        assert_eq!(sieve.nearest().map(|near| near.ordinal).max(), Some(1));
        sieve.reset(3);
        assert!(sieve.admits(-9.0) && sieve.nearest().len() == 0);
    }
}
