//! Self-attention: queries, keys and values by one product, and what they gather by another, plus the residual.

use super::{Linear, Position, Workspace};
use crate::embed::local::kernels::{Epilogue, Kernels};

/// A layer's self-attention.
#[derive(Debug)]
pub(in crate::embed::local) struct Attention {
    pub kernels: Kernels,
    /// Queries (divided by the root of the head's width), keys and values, shape `[3 * hidden, hidden]`.
    pub qkv: Linear,
    /// Shape `[hidden, hidden]`.
    pub output: Linear,
    pub heads: usize,
}

impl Attention {
    /// Leaves `attention(hidden) + hidden` in `middle`. `lengths`: tokens of each sequence, in order.
    pub(in crate::embed::local) fn apply(&self, position: &Position, lengths: &[usize], workspace: &mut Workspace) {
        let Workspace { hidden, middle, qkv, context, scratch, .. } = workspace;
        self.qkv.apply(hidden, Epilogue::Bias, scratch, qkv);
        let bias = match position {
            Position::InEmbeddings => None,
            Position::Rotary(rotary) => {
                rotary.apply(qkv, lengths);
                None
            }
            Position::Relative(bias) => Some(bias),
        };
        self.kernels.attention(qkv, lengths, self.heads, bias, scratch, context);
        self.output.apply(context, Epilogue::BiasResidual(hidden), scratch, middle);
    }
}
