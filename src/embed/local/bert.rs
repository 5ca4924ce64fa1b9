//! BERT on our own kernels: sequences laid end to end without padding, weights packed once.

use super::super::EmbedError;
use super::super::settings::{Architecture, Pooling};
use super::embeddings::Embeddings;
use super::kernels::{Epilogue, Kernels, PackedMatrix, Rows, WIDTH_MULTIPLE};
use super::weights::Weights;
use super::workspace::{Workspace, Workspaces};

/// A BERT encoder. It is shared by threads; each pass borrows a workspace.
#[derive(Debug)]
pub(super) struct Bert {
    architecture: Architecture,
    kernels: Kernels,
    embeddings: Embeddings,
    layers: Vec<Layer>,
    workspaces: Workspaces,
}

#[derive(Debug)]
struct Layer {
    /// Queries (divided by the root of the head's width), keys and values.
    qkv: PackedMatrix,
    attention_output: PackedMatrix,
    attention_norm: Norm,
    inner: PackedMatrix,
    output: PackedMatrix,
    output_norm: Norm,
}

/// Weight and bias of a layer normalisation.
#[derive(Debug)]
pub(super) struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Bert {
    /// Whether the kernels can run this shape.
    pub(super) fn fits(architecture: &Architecture) -> bool {
        architecture.hidden_act == "gelu"
            && architecture.intermediate_size.is_multiple_of(WIDTH_MULTIPLE)
            && architecture.head_width().is_multiple_of(WIDTH_MULTIPLE)
    }

    /// Packs the weights for `kernels`. The originals are not kept, but for the table of tokens, which stays mapped.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Storage`].
    pub(super) fn load(weights: Weights, architecture: &Architecture, kernels: Kernels) -> Result<Self, EmbedError> {
        let layers = (0..architecture.layers)
            .map(|index| Layer::load(&weights, architecture, kernels, index))
            .collect::<Result<_, _>>()?;
        let embeddings = Embeddings::load(weights, architecture)?;
        let architecture = architecture.clone();
        Ok(Self { architecture, kernels, embeddings, layers, workspaces: Workspaces::default() })
    }

    /// Encodes whole sequences in one pass. Every sequence has 1 to `max_positions` tokens of the vocabulary. Returns one
    /// pooled vector a sequence, shape `[hidden]`, in f64 and not normalised; it does not depend on the sequences beside it.
    pub(super) fn encode(&self, sequences: &[&[u32]], pooling: Pooling) -> Vec<Vec<f64>> {
        self.workspaces.with(&self.architecture, |workspace| {
            let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.len()).collect();
            self.forward(sequences, &lengths, workspace);
            pool(&workspace.hidden, &lengths, pooling)
        })
    }

    /// Leaves the last layer's vectors in `workspace.hidden`.
    fn forward(&self, sequences: &[&[u32]], lengths: &[usize], workspace: &mut Workspace) {
        let Workspace { hidden, middle, qkv, context, inner, scratch } = workspace;
        let kernels = &self.kernels;
        let epsilon = self.architecture.layer_norm_eps as f32;
        self.embeddings.look_up(sequences, hidden);
        kernels.layer_norm(hidden, &self.embeddings.norm.weight, &self.embeddings.norm.bias, epsilon);
        for layer in &self.layers {
            kernels.matmul(hidden, &layer.qkv, Epilogue::Bias, qkv);
            kernels.attention(qkv, lengths, self.architecture.heads, scratch, context);
            kernels.matmul(context, &layer.attention_output, Epilogue::BiasResidual(hidden), middle);
            kernels.layer_norm(middle, &layer.attention_norm.weight, &layer.attention_norm.bias, epsilon);
            kernels.matmul(middle, &layer.inner, Epilogue::BiasGelu, inner);
            kernels.matmul(inner, &layer.output, Epilogue::BiasResidual(middle), hidden);
            kernels.layer_norm(hidden, &layer.output_norm.weight, &layer.output_norm.bias, epsilon);
        }
    }
}

impl Layer {
    fn load(
        weights: &Weights,
        architecture: &Architecture,
        kernels: Kernels,
        index: usize,
    ) -> Result<Self, EmbedError> {
        let (hidden, wide) = (architecture.hidden_size, architecture.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let fill = |matrix: &mut PackedMatrix, at: usize, part: &str, shape: [usize; 2], scale: f32| {
            let weight = weights.tensor(&name(&format!("{part}.weight")), &shape)?;
            let bias = weights.tensor(&name(&format!("{part}.bias")), &shape[..1])?;
            matrix.fill(at, &weight, &bias, scale);
            Ok::<(), EmbedError>(())
        };
        let linear = |part: &str, shape: [usize; 2]| {
            let mut matrix = kernels.packed_matrix(shape[0], shape[1]);
            fill(&mut matrix, 0, part, shape, 1.0)?;
            Ok::<PackedMatrix, EmbedError>(matrix)
        };
        let mut qkv = kernels.packed_matrix(3 * hidden, hidden);
        let root = 1.0 / (architecture.head_width() as f32).sqrt();
        for (at, (part, scale)) in [("query", root), ("key", 1.0), ("value", 1.0)].into_iter().enumerate() {
            fill(&mut qkv, at * hidden, &format!("attention.self.{part}"), [hidden, hidden], scale)?;
        }
        Ok(Self {
            qkv,
            attention_output: linear("attention.output.dense", [hidden, hidden])?,
            attention_norm: Norm::load(weights, &name("attention.output.LayerNorm"), hidden)?,
            inner: linear("intermediate.dense", [wide, hidden])?,
            output: linear("output.dense", [hidden, wide])?,
            output_norm: Norm::load(weights, &name("output.LayerNorm"), hidden)?,
        })
    }
}

impl Norm {
    pub(super) fn load(weights: &Weights, name: &str, width: usize) -> Result<Self, EmbedError> {
        let part = |part: &str| weights.tensor(&format!("{name}.{part}"), &[width]).map(|values| values.into_owned());
        Ok(Self { weight: part("weight")?, bias: part("bias")? })
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
