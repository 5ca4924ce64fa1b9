//! The best of many scores, with everything that is equal to the last of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Lowest bits of a score that are cut off. In which order the words of a query are added up depends on what was found
/// before, and with it the last bits of a sum: equals would differ from one search to the next.
const UNSURE_BITS: u32 = 10;

/// A document that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// At least 0.
    pub score: f32,
    /// Its segment.
    pub segment: usize,
    /// Its number there.
    pub document: u32,
}

/// Collects what may be among the best.
pub struct Best {
    wanted: usize,
    /// The best scores, as bits: those of numbers that are not negative rise with them.
    scores: BinaryHeap<Reverse<u32>>,
    kept: Vec<Found>,
    /// How many are kept before those that have become too bad are dropped.
    room: usize,
}

impl Best {
    /// Of the best `wanted`, at least one.
    pub fn new(wanted: usize) -> Self {
        Self { wanted, scores: BinaryHeap::new(), kept: Vec::new(), room: 2 * wanted }
    }

    /// Only greater scores are of use.
    pub fn threshold(&self) -> f32 {
        match self.worst() {
            Some(score) => score.next_down(),
            None => f32::MIN,
        }
    }

    /// The last of the best scores, once there are as many as wanted.
    fn worst(&self) -> Option<f32> {
        let full = self.scores.len() == self.wanted;
        self.scores.peek().filter(|_| full).map(|Reverse(bits)| f32::from_bits(*bits))
    }

    /// Takes a document into account.
    pub fn offer(&mut self, segment: usize, document: u32, score: f32) {
        let score = cut(score);
        if let Some(worst) = self.worst() {
            if score < worst {
                return;
            }
            if score > worst {
                self.scores.pop();
                self.scores.push(Reverse(score.to_bits()));
            }
        } else {
            self.scores.push(Reverse(score.to_bits()));
        }
        if self.kept.len() == self.room {
            let worst = self.worst().unwrap_or(0.0);
            self.kept.retain(|found| found.score >= worst);
            self.room = (2 * self.kept.len()).max(self.room);
        }
        self.kept.push(Found { score, segment, document });
    }

    /// The hits above the lowest score that was kept, and those at it. With fewer hits than wanted, all are in the
    /// first list.
    pub fn into_found(self) -> (Vec<Found>, Vec<Found>) {
        let worst = self.worst().unwrap_or(-1.0);
        let (better, others): (Vec<_>, Vec<_>) = self.kept.into_iter().partition(|found| found.score > worst);
        (better, others.into_iter().filter(|found| found.score == worst).collect())
    }
}

/// A score without what is unsure of it.
pub fn cut(score: f32) -> f32 {
    f32::from_bits(score.max(0.0).to_bits() >> UNSURE_BITS << UNSURE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(found: &[Found]) -> Vec<(usize, u32)> {
        found.iter().map(|found| (found.segment, found.document)).collect()
    }

    #[test]
    fn the_best_are_kept_and_everything_equal_to_the_last() {
        let scores = [1.0, 3.0, 2.0, 2.0, 0.5, 4.0, 2.0, 1.0];
        let mut best = Best::new(4);
        for (document, score) in (0..).zip(scores) {
            best.offer(document as usize % 2, document, score);
        }
        assert!(best.threshold() < 2.0 && best.threshold() > 1.99, "{}", best.threshold());
        let (better, equal) = best.into_found();
        assert_eq!((documents(&better), documents(&equal)), (vec![(1, 1), (1, 5)], vec![(0, 2), (1, 3), (0, 6)]));
    }

    #[test]
    fn fewer_than_wanted_are_all_kept() {
        let mut best = Best::new(3);
        best.offer(0, 0, 0.0);
        best.offer(0, 1, 5.0);
        assert_eq!(best.threshold(), f32::MIN);
        let (better, equal) = best.into_found();
        assert_eq!((documents(&better), equal), (vec![(0, 0), (0, 1)], vec![]));
    }

    #[test]
    fn many_that_get_better_leave_no_trace_of_the_worse() {
        let mut best = Best::new(2);
        for document in 0..1_000 {
            best.offer(0, document, document as f32);
        }
        assert!(best.kept.len() <= 4, "{}", best.kept.len());
        let (better, equal) = best.into_found();
        assert_eq!((documents(&better), documents(&equal)), (vec![(0, 999)], vec![(0, 998)]));
    }

    #[test]
    fn sums_in_another_order_are_equal() {
        let (one, other) = (1.1_f32 + 2.3 + 3.7, 3.7_f32 + 2.3 + 1.1);
        assert!(one != other && cut(one) == cut(other));
        assert!(cut(3.0) == 3.0 && 1.0 - cut(7.1) / 7.1 < 1e-4);
    }
}
