//! BERT by candle: other devices, shapes that our kernels do not take, and the reference that they are tested against.

use std::collections::HashMap;

use candle_core::utils::{cuda_is_available, metal_is_available};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, HiddenAct};

use super::super::EmbedError;
use super::super::settings::{Architecture, Pooling};
use super::weights::Weights;

/// Most sequences of one forward pass.
const BATCH: usize = 32;

/// candle's BERT encoder.
pub(super) struct CandleBert {
    model: BertModel,
    pad_token: u32,
}

/// The CPU.
pub(super) fn cpu() -> Device {
    Device::Cpu
}

/// The device that this build and machine have beside the CPU, else the CPU.
///
/// # Errors
/// [`EmbedError::Compute`] where the build has one and it cannot be opened.
pub(super) fn device() -> Result<Device, EmbedError> {
    let device = if cuda_is_available() {
        Device::new_cuda(0)
    } else if metal_is_available() {
        Device::new_metal(0)
    } else {
        Ok(Device::Cpu)
    };
    device.map_err(compute)
}

impl CandleBert {
    /// Copies the weights to the device.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Compute`].
    pub(super) fn load(weights: &Weights, architecture: &Architecture, device: Device) -> Result<Self, EmbedError> {
        let mut tensors = HashMap::new();
        for (name, tensor) in weights.all()? {
            tensors.insert(name, tensor.to_device(&device).map_err(compute)?);
        }
        let tensors = VarBuilder::from_tensors(tensors, DType::F32, &device);
        let model =
            BertModel::load(tensors, &config(architecture)).map_err(|e| EmbedError::malformed(weights.path(), e))?;
        Ok(Self { model, pad_token: architecture.pad_token_id as u32 })
    }

    /// Encodes sequences as [`super::Encoder::encode`] does. Sequences of like length share a padded batch.
    ///
    /// # Errors
    /// [`EmbedError::Compute`].
    pub(super) fn encode(&self, sequences: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f64>>, EmbedError> {
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&index| sequences[index].len());
        let mut vectors = vec![Vec::new(); sequences.len()];
        for batch in order.chunks(BATCH) {
            let members: Vec<&[u32]> = batch.iter().map(|&index| sequences[index]).collect();
            let encoded = self.encode_batch(&members, pooling).map_err(compute)?;
            for (&index, vector) in batch.iter().zip(encoded) {
                vectors[index] = vector;
            }
        }
        Ok(vectors)
    }

    fn encode_batch(&self, sequences: &[&[u32]], pooling: Pooling) -> candle_core::Result<Vec<Vec<f64>>> {
        let device = &self.model.device;
        let longest = sequences.iter().map(|sequence| sequence.len()).max().unwrap_or(0);
        let shape = (sequences.len(), longest);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for sequence in sequences {
            ids.extend_from_slice(sequence);
            ids.resize(ids.len() + longest - sequence.len(), self.pad_token);
            mask.resize(mask.len() + sequence.len(), 1f32);
            mask.resize(mask.len() + longest - sequence.len(), 0f32);
        }
        let ids = Tensor::from_vec(ids, shape, device)?;
        let mask = Tensor::from_vec(mask, shape, device)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?.to_vec3::<f32>()?;
        Ok(hidden.iter().zip(sequences).map(|(tokens, sequence)| pool(&tokens[..sequence.len()], pooling)).collect())
    }
}

impl std::fmt::Debug for CandleBert {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("CandleBert").field("device", &self.model.device).finish_non_exhaustive()
    }
}

fn pool(tokens: &[Vec<f32>], pooling: Pooling) -> Vec<f64> {
    let tokens = match pooling {
        Pooling::Mean => tokens,
        Pooling::FirstToken => &tokens[..1],
    };
    let mean = |k| tokens.iter().map(|token| f64::from(token[k])).sum::<f64>() / tokens.len() as f64;
    (0..tokens[0].len()).map(mean).collect()
}

fn config(architecture: &Architecture) -> Config {
    Config {
        vocab_size: architecture.vocab_size,
        hidden_size: architecture.hidden_size,
        num_hidden_layers: architecture.layers,
        num_attention_heads: architecture.heads,
        intermediate_size: architecture.intermediate_size,
        hidden_act: match architecture.hidden_act.as_str() {
            "gelu" => HiddenAct::Gelu,
            "relu" => HiddenAct::Relu,
            _ => HiddenAct::GeluApproximate,
        },
        max_position_embeddings: architecture.max_positions,
        type_vocab_size: architecture.type_vocab_size,
        layer_norm_eps: architecture.layer_norm_eps,
        pad_token_id: architecture.pad_token_id,
        ..Config::default()
    }
}

fn compute(error: candle_core::Error) -> EmbedError {
    EmbedError::Compute { reason: error.to_string() }
}
