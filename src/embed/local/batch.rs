//! How a request's sequences are shared among passes, and so among threads.

use std::ops::Range;

/// Tokens of a pass at which its buffers still fit the second-level cache's neighbourhood, while the weights, read once
/// a pass, cost little against the arithmetic.
const PASS_TOKENS: usize = 512;
/// Fewer tokens than this are not worth reading all weights once more.
const MIN_PASS_TOKENS: usize = 32;

/// Splits sequences of these lengths into runs of about equal token counts: no more than [`PASS_TOKENS`] but for a single
/// longer sequence, and fewer where that keeps all `threads` busy.
pub(super) fn split(lengths: &[usize], threads: usize) -> Vec<Range<usize>> {
    let total: usize = lengths.iter().sum();
    let budget = total.div_ceil(threads.max(1)).clamp(MIN_PASS_TOKENS, PASS_TOKENS);
    let mut passes = Vec::new();
    let (mut from, mut tokens) = (0, 0);
    for (index, &length) in lengths.iter().enumerate() {
        if tokens > 0 && tokens + length > budget {
            passes.push(from..index);
            (from, tokens) = (index, 0);
        }
        tokens += length;
    }
    if from < lengths.len() {
        passes.push(from..lengths.len());
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_in_order_whole_and_within_the_budget() {
        for (count, length) in [(1, 3), (7, 100), (500, 16), (3, 700), (1000, 1), (40, 256)] {
            let lengths = vec![length; count];
            for threads in [1, 2, 16] {
                let passes = split(&lengths, threads);
                let mut next = 0;
                for pass in &passes {
                    assert_eq!(pass.start, next);
                    assert!(pass.len() == 1 || pass.len() * length <= PASS_TOKENS, "{pass:?}");
                    next = pass.end;
                }
                assert_eq!(next, count);
            }
        }
        assert!(split(&[], 2).is_empty());
    }

    #[test]
    fn threads_share_what_is_worth_sharing() {
        assert_eq!(split(&[100, 100], 2), [0..1, 1..2]);
        assert_eq!(split(&[10, 10, 10], 4).len(), 1);
        assert_eq!(split(&[16; 32], 1).len(), 1);
    }
}
