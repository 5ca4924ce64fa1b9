//! The buffers of one forward pass, kept from one pass to the next.

use std::sync::{Mutex, PoisonError};

use crate::embed::MAX_PASS_TOKENS;
use crate::embed::local::kernels::{Rows, Scratch};

/// Widths of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::embed::local) struct Widths {
    /// Numbers of a token's vector.
    pub hidden: usize,
    /// Numbers inside the feed-forward network.
    pub intermediate: usize,
}

/// Buffers for the tokens of one pass. Each holds as many rows as the longest pass so far had tokens, at most
/// [`MAX_PASS_TOKENS`] from one pass to the next.
#[derive(Debug)]
pub(in crate::embed::local) struct Workspace {
    /// Token vectors, shape `[tokens, hidden]`.
    pub hidden: Rows,
    /// Token vectors between attention and the feed-forward network, shape `[tokens, hidden]`.
    pub middle: Rows,
    /// Queries, keys and values, shape `[tokens, 3 * hidden]`.
    pub qkv: Rows,
    /// What attention gathered, shape `[tokens, hidden]`.
    pub context: Rows,
    /// Inside the feed-forward network, shape `[tokens, intermediate]`.
    pub inner: Rows,
    /// What is gated there, shape `[tokens, intermediate]`; no memory without gates.
    pub up: Rows,
    pub scratch: Scratch,
}

impl Workspace {
    fn new(widths: Widths) -> Self {
        let Widths { hidden, intermediate } = widths;
        Self {
            hidden: Rows::new(hidden),
            middle: Rows::new(hidden),
            qkv: Rows::new(3 * hidden),
            context: Rows::new(hidden),
            inner: Rows::new(intermediate),
            up: Rows::new(intermediate),
            scratch: Scratch::default(),
        }
    }
}

/// Workspaces that no pass is using: as many as there have been passes at once, but for those of longer texts.
#[derive(Debug)]
pub(in crate::embed::local) struct Workspaces {
    widths: Widths,
    idle: Mutex<Vec<Workspace>>,
}

impl Workspaces {
    /// None yet.
    pub(in crate::embed::local) fn new(widths: Widths) -> Self {
        Self { widths, idle: Mutex::default() }
    }

    /// Lends a workspace to `act`.
    pub(in crate::embed::local) fn with<T>(&self, act: impl FnOnce(&mut Workspace) -> T) -> T {
        // A pass that panicked took its workspace with it, so what the list holds is sound.
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut workspace = taken.unwrap_or_else(|| Workspace::new(self.widths));
        let result = act(&mut workspace);
        // What a long text needs, hundreds of megabytes, is given back.
        if workspace.hidden.count() <= MAX_PASS_TOKENS {
            idle().push(workspace);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_kept_but_for_those_of_long_texts() {
        let workspaces = Workspaces::new(Widths { hidden: 32, intermediate: 32 });
        let idle_after = |tokens: usize| {
            workspaces.with(|workspace| workspace.hidden.set_count(tokens));
            workspaces.idle.lock().unwrap().len()
        };
        assert_eq!([1, MAX_PASS_TOKENS, MAX_PASS_TOKENS + 1, 1].map(idle_after), [1, 1, 0, 1]);
    }
}
