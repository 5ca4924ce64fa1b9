//! A transformer encoder of blocks: sequences laid end to end without padding, each layer normalised after its
//! residuals.

use super::super::Pooling;
use super::super::settings::{Architecture, Family};
use super::blocks::{Attention, Embeddings, FeedForward, Norm, Position, Widths, Workspace, Workspaces};
use super::kernels::WIDTH_MULTIPLE;
use super::pooling;

/// An encoder of the post-norm kind: BERT and its family. It is shared by threads; each pass borrows a workspace.
#[derive(Debug)]
pub(super) struct Transformer {
    embeddings: Embeddings,
    position: Position,
    layers: Vec<Layer>,
    workspaces: Workspaces,
}

/// One layer: attention, then the feed-forward network, each with its residual normalised.
#[derive(Debug)]
pub(super) struct Layer {
    pub attention: Attention,
    pub attention_norm: Norm,
    pub feed_forward: FeedForward,
    pub output_norm: Norm,
}

/// Whether the kernels can run this shape.
pub(super) fn fits(architecture: &Architecture) -> bool {
    let family = match &architecture.family {
        Family::Bert | Family::Roberta | Family::Mpnet { .. } | Family::DistilBert => architecture.hidden_act == "gelu",
        Family::NomicBert(rotary) => !rotary.interleaved,
        Family::ModernBert(_) => false,
    };
    family
        && architecture.intermediate_size.is_multiple_of(WIDTH_MULTIPLE)
        && architecture.head_width().is_multiple_of(WIDTH_MULTIPLE)
}

impl Transformer {
    /// Puts an encoder together.
    pub(super) fn new(embeddings: Embeddings, position: Position, layers: Vec<Layer>, widths: Widths) -> Self {
        Self { embeddings, position, layers, workspaces: Workspaces::new(widths) }
    }

    /// Encodes whole sequences in one pass. Every sequence has 1 to `max_positions` tokens of the vocabulary. Returns
    /// one pooled vector a sequence, shape `[hidden]`, in f64 and not normalised; it does not depend on the sequences
    /// beside it. Up to `helpers` other threads of the current pool help.
    pub(super) fn encode(&self, sequences: &[&[u32]], pooling: Pooling, helpers: usize) -> Vec<Vec<f64>> {
        self.workspaces.with(|workspace| {
            workspace.scratch.helpers = helpers;
            let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
            self.forward(sequences, &lengths, workspace);
            let mut from = 0;
            let pooled = lengths.iter().map(|&count| {
                let tokens: Vec<&[f32]> = (from..from + count).map(|row| workspace.hidden.row(row)).collect();
                from += count;
                pooling::pool(&tokens, pooling)
            });
            pooled.collect()
        })
    }

    /// Leaves the last layer's vectors in `workspace.hidden`.
    fn forward(&self, sequences: &[&[u32]], lengths: &[usize], workspace: &mut Workspace) {
        self.embeddings.look_up(sequences, &mut workspace.hidden);
        for layer in &self.layers {
            layer.attention.apply(&self.position, lengths, workspace);
            layer.attention_norm.apply(&mut workspace.middle);
            layer.feed_forward.apply(workspace);
            layer.output_norm.apply(&mut workspace.hidden);
        }
    }
}
