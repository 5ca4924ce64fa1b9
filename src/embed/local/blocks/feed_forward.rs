//! The feed-forward half of a layer, plus the residual.

use super::{Linear, Workspace};
use crate::embed::local::kernels::Epilogue;

/// A layer's feed-forward network. Shapes: `inner`, `gate` and `up` `[intermediate, hidden]`, `output`
/// `[hidden, intermediate]`.
#[derive(Debug)]
pub(in crate::embed::local) enum FeedForward {
    /// `output(gelu(inner(x)))`.
    Gelu { inner: Linear, output: Linear },
    /// `output(silu(gate(x)) * up(x))` (Shazeer 2020).
    SwiGlu { gate: Linear, up: Linear, output: Linear },
}

impl FeedForward {
    /// Leaves `feed_forward(middle) + middle` in `hidden`.
    pub(in crate::embed::local) fn apply(&self, workspace: &mut Workspace) {
        let Workspace { hidden, middle, inner: wide, up: other, scratch, .. } = workspace;
        let output = match self {
            FeedForward::Gelu { inner, output } => {
                inner.apply(middle, Epilogue::BiasGelu, scratch, wide);
                output
            }
            FeedForward::SwiGlu { gate, up, output } => {
                up.apply(middle, Epilogue::Bias, scratch, other);
                gate.apply(middle, Epilogue::BiasSiluTimes(other), scratch, wide);
                output
            }
        };
        output.apply(wide, Epilogue::BiasResidual(middle), scratch, hidden);
    }
}
