//! The buffers of one forward pass, kept from one pass to the next.

use std::sync::{Mutex, PoisonError};

use super::super::settings::Architecture;
use super::kernels::{Aligned, Rows};

/// Buffers for the tokens of one pass. Each holds as many rows as the longest pass so far had tokens.
#[derive(Debug)]
pub(super) struct Workspace {
    /// Token vectors, shape `[tokens, hidden]`.
    pub hidden: Rows,
    /// Token vectors between attention and the feed-forward layer, shape `[tokens, hidden]`.
    pub middle: Rows,
    /// Queries, keys and values, shape `[tokens, 3 * hidden]`.
    pub qkv: Rows,
    /// What attention gathered, shape `[tokens, hidden]`.
    pub context: Rows,
    /// Inside the feed-forward layer, shape `[tokens, intermediate]`.
    pub inner: Rows,
    /// Keys, values and scores of one head.
    pub scratch: Aligned,
}

impl Workspace {
    fn new(architecture: &Architecture) -> Self {
        let hidden = architecture.hidden_size;
        Self {
            hidden: Rows::new(hidden),
            middle: Rows::new(hidden),
            qkv: Rows::new(3 * hidden),
            context: Rows::new(hidden),
            inner: Rows::new(architecture.intermediate_size),
            scratch: Aligned::default(),
        }
    }
}

/// Workspaces that no pass is using: as many as there have been passes at once.
#[derive(Debug, Default)]
pub(super) struct Workspaces {
    idle: Mutex<Vec<Workspace>>,
}

impl Workspaces {
    /// Lends a workspace to `act`.
    pub(super) fn with<T>(&self, architecture: &Architecture, act: impl FnOnce(&mut Workspace) -> T) -> T {
        // A pass that panicked took its workspace with it, so what the list holds is sound.
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut workspace = taken.unwrap_or_else(|| Workspace::new(architecture));
        let result = act(&mut workspace);
        idle().push(workspace);
        result
    }
}
