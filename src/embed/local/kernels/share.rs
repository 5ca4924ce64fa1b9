//! One product computed by several threads, each its own columns.

use std::ops::Range;

use rayon::prelude::*;

/// Operands that threads share although they hold pointers.
struct Shared<T>(T);

// SAFETY: what the pointers lead to is read only, but for the product, of which no two threads have a column in common;
// the borrow of the product lasts until all threads are done. Covered by `matmul_does_not_depend_on_threads`.
unsafe impl<T> Sync for Shared<T> {}

/// Calls `run` for `shares` ranges that make up `0..panels`, on threads of the current pool.
pub(super) fn by_panels<T>(panels: usize, shares: usize, args: T, run: impl Fn(&T, Range<usize>) + Sync) {
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
