//! The best k of a stream, nearest first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something with a closeness, and a rank that decides ties: the lower one comes first.
#[derive(Clone, Copy, Debug)]
pub struct Ranked<T> {
    /// Rises with closeness; finite.
    pub closeness: f32,
    /// Decides ties.
    pub item: T,
}

impl<T: Ord> Ord for Ranked<T> {
    /// The better one is less, so that the heap's greatest is the worst kept.
    fn cmp(&self, other: &Self) -> Ordering {
        other.closeness.total_cmp(&self.closeness).then_with(|| self.item.cmp(&other.item))
    }
}

impl<T: Ord> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Ord> Eq for Ranked<T> {}

/// Keeps the best `k` of what is pushed.
pub struct TopK<T> {
    k: usize,
    heap: BinaryHeap<Ranked<T>>,
}

impl<T: Ord> TopK<T> {
    /// Keeps up to `k`.
    pub fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::with_capacity(k.min(1_024) + 1) }
    }

    /// Whether something of this closeness could still be kept: a cheap test before the rest of the work.
    pub fn admits(&self, closeness: f32) -> bool {
        self.heap.len() < self.k || self.heap.peek().is_some_and(|worst| closeness >= worst.closeness)
    }

    /// Offers one.
    pub fn push(&mut self, closeness: f32, item: T) {
        if !self.admits(closeness) {
            return;
        }
        self.heap.push(Ranked { closeness, item });
        if self.heap.len() > self.k {
            self.heap.pop();
        }
    }

    /// What was kept, nearest first, ties by ascending item.
    pub fn into_sorted(self) -> Vec<Ranked<T>> {
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_best_and_breaks_ties_by_item() {
        let mut top = TopK::new(3);
        for (closeness, item) in [(0.1, 1), (0.5, 9), (0.5, 2), (0.9, 7), (0.5, 4), (0.2, 0)] {
            top.push(closeness, item);
        }
        let kept: Vec<i32> = top.into_sorted().into_iter().map(|r| r.item).collect();
        assert_eq!(kept, [7, 2, 4]);
    }

    #[test]
    fn zero_keeps_nothing() {
        let mut top = TopK::new(0);
        top.push(1.0, 1);
        assert!(top.into_sorted().is_empty());
    }
}
