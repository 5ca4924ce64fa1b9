//! A transformer encoder of blocks: sequences laid end to end without padding, each layer normalised after its residuals.

use super::super::settings::Pooling;
use super::blocks::{Attention, Embeddings, FeedForward, Norm, Position, Widths, Workspace, Workspaces};
use super::kernels::Rows;

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

impl Transformer {
    /// Puts an encoder together.
    pub(super) fn new(embeddings: Embeddings, position: Position, layers: Vec<Layer>, widths: Widths) -> Self {
        Self { embeddings, position, layers, workspaces: Workspaces::new(widths) }
    }

    /// Encodes whole sequences in one pass. Every sequence has 1 to `max_positions` tokens of the vocabulary. Returns one
    /// pooled vector a sequence, shape `[hidden]`, in f64 and not normalised; it does not depend on the sequences beside it. Up to
    /// `helpers` other threads of the current pool help.
    pub(super) fn encode(&self, sequences: &[&[u32]], pooling: Pooling, helpers: usize) -> Vec<Vec<f64>> {
        self.workspaces.with(|workspace| {
            workspace.scratch.helpers = helpers;
            let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
            self.forward(sequences, &lengths, workspace);
            pool(&workspace.hidden, &lengths, pooling)
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

/// One vector for each sequence, in f64: sums of hundreds of f32 keep their last digits.
fn pool(hidden: &Rows, lengths: &[usize], pooling: Pooling) -> Vec<Vec<f64>> {
    let mut from = 0;
    let mut vectors = Vec::with_capacity(lengths.len());
    for &count in lengths {
        let tokens = match pooling {
            Pooling::Mean => from..from + count,
            Pooling::FirstToken => from..from + 1,
        };
        let scale = 1.0 / tokens.len() as f64;
        let mut vector = vec![0.0; hidden.width()];
        for token in tokens {
            for (sum, x) in vector.iter_mut().zip(hidden.row(token)) {
                *sum += f64::from(*x);
            }
        }
        vector.iter_mut().for_each(|sum| *sum *= scale);
        vectors.push(vector);
        from += count;
    }
    vectors
}
