//! One product computed by several threads, each its own columns.

use std::ops::Range;

use rayon::prelude::*;

/// Operands that threads share although they hold pointers.
struct Shared<T>(T);

// SAFETY: `by_panels`'s caller promises that threads may share it, and nobody else makes one.
unsafe impl<T> Sync for Shared<T> {}

/// Calls `run` for `shares` ranges that make up `0..panels`, on threads of the current pool.
///
/// # Safety
/// Threads may share `args`: what its pointers lead to is valid until this returns and is only read, but for what `run`
/// writes, which no two ranges have in common.
pub(super) unsafe fn by_panels<T>(panels: usize, shares: usize, args: T, run: impl Fn(&T, Range<usize>) + Sync) {
    let shares = shares.clamp(1, panels.max(1));
    if shares == 1 {
        return run(&args, 0..panels);
    }
    let args = &Shared(args);
    let bound = |share: usize| share * panels / shares;
    (0..shares).into_par_iter().with_max_len(1).for_each(|share| {
        let Shared(args) = args;
        run(args, bound(share)..bound(share + 1));
    });
}
