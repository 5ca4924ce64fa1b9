//! Encoders by candle: other devices, shapes that our kernels do not take, and the reference that they are tested
//! against.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::{bert, modernbert, nomic_bert, xlm_roberta};

use super::super::settings::{Architecture, Family, Local, Rotary};
use super::super::{EmbedError, Pooling};
use super::bert::distil_bert_names;
use super::pooling::pool;
use super::row_and_type;
use super::weights::Weights;

/// Most sequences of one forward pass.
const BATCH: usize = 32;
/// Most scores that a head of a pass has: those of a full batch of 512 tokens each.
const BATCH_SCORES: usize = BATCH * 512 * 512;
/// Most tokens of a sequence. Attention holds several tables of all scores of a layer, tokens times tokens for each
/// head.
const MAX_TOKENS: usize = 2_048;
/// Most scores of a sequence in a layer: those of 16 heads and so many tokens, 256 MiB a table.
const MAX_SCORES: usize = 16 * MAX_TOKENS * MAX_TOKENS;

/// An encoder of candle's.
pub(super) struct CandleEncoder {
    model: Model,
    device: Device,
    pad_token: u32,
    /// Held by the pass that runs.
    running: Mutex<()>,
}

enum Model {
    /// And DistilBERT, whose forward of candle's own has the approximate GELU only.
    Bert(bert::BertModel),
    Roberta(xlm_roberta::XLMRobertaModel),
    NomicBert(nomic_bert::NomicBertModel),
    ModernBert(modernbert::ModernBert),
}

/// Tokens of the longest sequence of an encoder of so many heads.
pub(super) fn most_tokens(heads: usize) -> usize {
    (MAX_SCORES / heads).isqrt().min(MAX_TOKENS)
}

/// Whether candle has this architecture.
pub(super) fn runs(architecture: &Architecture) -> bool {
    !matches!(architecture.family, Family::Mpnet { .. })
}

impl CandleEncoder {
    /// Copies the weights to the device.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Compute`], [`EmbedError::Unsupported`].
    pub(super) fn load(weights: &Weights, architecture: &Architecture, device: Device) -> Result<Self, EmbedError> {
        let mut tensors = HashMap::new();
        for (name, tensor) in weights.all()? {
            tensors.insert(name, tensor.to_device(&device).map_err(compute)?);
        }
        let model = match &architecture.family {
            Family::Mpnet { .. } => {
                return Err(EmbedError::Unsupported {
                    path: weights.path().to_owned(),
                    feature: "MPNet with this activation or these widths".to_owned(),
                    supported: "MPNet with \"gelu\" and widths of heads and layers that are multiples of 32",
                });
            }
            Family::DistilBert => {
                as_bert(&mut tensors, architecture, &device).map_err(compute)?;
                bert_model(tensors, architecture, &device)
            }
            Family::Bert => bert_model(tensors, architecture, &device),
            Family::Roberta => {
                let tensors = VarBuilder::from_tensors(tensors, DType::F32, &device);
                xlm_roberta::XLMRobertaModel::new(&roberta_config(architecture), tensors).map(Model::Roberta)
            }
            Family::NomicBert(rotary) => {
                let tensors = VarBuilder::from_tensors(tensors, DType::F32, &device);
                nomic_bert::NomicBertModel::load(tensors, &nomic_config(architecture, rotary)).map(Model::NomicBert)
            }
            Family::ModernBert(local) => {
                check_attention_norms(weights, architecture, &tensors)?;
                let tensors = tensors.into_iter().map(|(name, tensor)| (format!("model.{name}"), tensor)).collect();
                let tensors = VarBuilder::from_tensors(tensors, DType::F32, &device);
                modernbert::ModernBert::load(tensors, &modern_config(architecture, local)).map(Model::ModernBert)
            }
        };
        let model = model.map_err(|e| EmbedError::malformed(weights.path(), e))?;
        Ok(Self { model, device, pad_token: architecture.pad_token_id as u32, running: Mutex::default() })
    }

    /// Waits until no other pass runs. One pass computes on all threads, and several would only need more memory. Not
    /// to be asked within a pool: a thread that waits for its part of a pass may take up another pass meanwhile.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes sequences as [`super::Encoder::encode`] does. Sequences of like length share a padded batch.
    ///
    /// # Errors
    /// [`EmbedError::Compute`].
    pub(super) fn encode(&self, sequences: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f64>>, EmbedError> {
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&index| sequences[index].len());
        let mut vectors = vec![Vec::new(); sequences.len()];
        let mut left = order.as_slice();
        while !left.is_empty() {
            // The last of a batch is the longest.
            let fits = |count: &usize| count * sequences[left[count - 1]].len().pow(2) <= BATCH_SCORES;
            let count = (1..=left.len().min(BATCH)).take_while(fits).last().unwrap_or(1);
            let (batch, rest) = left.split_at(count);
            let members: Vec<&[u32]> = batch.iter().map(|&index| sequences[index]).collect();
            let encoded = self.encode_batch(&members, pooling).map_err(compute)?;
            for (&index, vector) in batch.iter().zip(encoded) {
                vectors[index] = vector;
            }
            left = rest;
        }
        Ok(vectors)
    }

    fn encode_batch(&self, sequences: &[&[u32]], pooling: Pooling) -> candle_core::Result<Vec<Vec<f64>>> {
        let device = &self.device;
        let longest = sequences.iter().map(|sequence| sequence.len()).max().unwrap_or(0);
        let shape = (sequences.len(), longest);
        let (mut ids, mut types, mut mask) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in sequences {
            let padding = std::iter::repeat_n((self.pad_token, 0), longest - sequence.len());
            let (rows, kinds): (Vec<u32>, Vec<u32>) =
                sequence.iter().map(|token| row_and_type(*token)).chain(padding).unzip();
            ids.extend(rows);
            types.extend(kinds);
            mask.resize(mask.len() + sequence.len(), 1f32);
            mask.resize(mask.len() + longest - sequence.len(), 0f32);
        }
        let ids = Tensor::from_vec(ids, shape, device)?;
        let types = Tensor::from_vec(types, shape, device)?;
        let mask = Tensor::from_vec(mask, shape, device)?;
        let hidden = match &self.model {
            Model::Bert(model) => model.forward(&ids, &types, Some(&mask))?,
            Model::Roberta(model) => model.forward(&ids, &mask, &types, None, None, None)?,
            Model::NomicBert(model) => model.forward(&ids, None, Some(&mask.to_dtype(DType::U8)?))?,
            Model::ModernBert(model) => model.forward(&ids, &mask)?,
        };
        let hidden = hidden.to_vec3::<f32>()?;
        let pooled = hidden.iter().zip(sequences).map(|(tokens, sequence)| {
            let tokens: Vec<&[f32]> = tokens[..sequence.len()].iter().map(Vec::as_slice).collect();
            pool(&tokens, pooling)
        });
        Ok(pooled.collect())
    }
}

impl std::fmt::Debug for CandleEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("CandleEncoder").field("device", &self.device).finish_non_exhaustive()
    }
}

/// Holds a ModernBERT to a norm before the attention of every layer but the first: candle takes any of them for one
/// that the model does without.
fn check_attention_norms(
    weights: &Weights,
    architecture: &Architecture,
    tensors: &HashMap<String, Tensor>,
) -> Result<(), EmbedError> {
    let name = |layer: usize| format!("layers.{layer}.attn_norm.weight");
    if tensors.contains_key(&name(0)) {
        let reason = format!("it holds {}, and the first layer has no such norm", name(0));
        return Err(EmbedError::malformed(weights.path(), reason));
    }
    (1..architecture.layers).try_for_each(|layer| weights.tensor(&name(layer), &[architecture.hidden_size]).map(drop))
}

fn bert_model(
    tensors: HashMap<String, Tensor>,
    architecture: &Architecture,
    device: &Device,
) -> candle_core::Result<Model> {
    let tensors = VarBuilder::from_tensors(tensors, DType::F32, device);
    bert::BertModel::load(tensors, &bert_config(architecture)).map(Model::Bert)
}

/// Gives a DistilBERT's tensors BERT's names, and all tokens the type 0, which adds nothing.
fn as_bert(
    tensors: &mut HashMap<String, Tensor>,
    architecture: &Architecture,
    device: &Device,
) -> candle_core::Result<()> {
    for (from, to) in (0..architecture.layers).flat_map(distil_bert_names) {
        for part in ["weight", "bias"] {
            if let Some(tensor) = tensors.remove(&format!("{from}.{part}")) {
                tensors.insert(format!("{to}.{part}"), tensor);
            }
        }
    }
    let types = Tensor::zeros((1, architecture.hidden_size), DType::F32, device)?;
    tensors.insert("embeddings.token_type_embeddings.weight".to_owned(), types);
    Ok(())
}

pub(super) fn bert_config(architecture: &Architecture) -> bert::Config {
    bert::Config {
        vocab_size: architecture.vocab_size,
        hidden_size: architecture.hidden_size,
        num_hidden_layers: architecture.layers,
        num_attention_heads: architecture.heads,
        intermediate_size: architecture.intermediate_size,
        hidden_act: match architecture.hidden_act.as_str() {
            "gelu" => bert::HiddenAct::Gelu,
            "relu" => bert::HiddenAct::Relu,
            _ => bert::HiddenAct::GeluApproximate,
        },
        max_position_embeddings: architecture.max_positions,
        type_vocab_size: architecture.type_vocab_size.max(1),
        layer_norm_eps: architecture.layer_norm_eps,
        pad_token_id: architecture.pad_token_id,
        ..bert::Config::default()
    }
}

fn roberta_config(architecture: &Architecture) -> xlm_roberta::Config {
    xlm_roberta::Config {
        hidden_size: architecture.hidden_size,
        layer_norm_eps: architecture.layer_norm_eps,
        attention_probs_dropout_prob: 0.0,
        hidden_dropout_prob: 0.0,
        num_attention_heads: architecture.heads,
        position_embedding_type: "absolute".to_owned(),
        intermediate_size: architecture.intermediate_size,
        hidden_act: match architecture.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "relu" => Activation::Relu,
            _ => Activation::NewGelu,
        },
        num_hidden_layers: architecture.layers,
        vocab_size: architecture.vocab_size,
        max_position_embeddings: architecture.max_positions,
        type_vocab_size: architecture.type_vocab_size,
        pad_token_id: architecture.pad_token_id as u32,
    }
}

fn nomic_config(architecture: &Architecture, rotary: &Rotary) -> nomic_bert::Config {
    let [qkv_proj_bias, mlp_fc1_bias, mlp_fc2_bias] = rotary.biases;
    nomic_bert::Config {
        vocab_size: architecture.vocab_size,
        n_embd: architecture.hidden_size,
        n_head: architecture.heads,
        n_layer: architecture.layers,
        n_inner: architecture.intermediate_size,
        n_positions: architecture.max_positions,
        type_vocab_size: architecture.type_vocab_size,
        layer_norm_epsilon: architecture.layer_norm_eps,
        rotary_emb_fraction: 1.0,
        rotary_emb_base: rotary.base,
        rotary_emb_interleaved: rotary.interleaved,
        qkv_proj_bias,
        mlp_fc1_bias,
        mlp_fc2_bias,
        activation_function: architecture.hidden_act.clone(),
        prenorm: false,
        model_type: None,
    }
}

fn modern_config(architecture: &Architecture, local: &Local) -> modernbert::Config {
    modernbert::Config {
        vocab_size: architecture.vocab_size,
        hidden_size: architecture.hidden_size,
        num_hidden_layers: architecture.layers,
        num_attention_heads: architecture.heads,
        intermediate_size: architecture.intermediate_size,
        max_position_embeddings: architecture.max_positions,
        layer_norm_eps: architecture.layer_norm_eps,
        pad_token_id: architecture.pad_token_id as u32,
        global_attn_every_n_layers: local.global_every,
        global_rope_theta: local.global_base,
        local_attention: local.window,
        local_rope_theta: local.local_base,
        classifier_config: None,
    }
}

fn compute(error: candle_core::Error) -> EmbedError {
    EmbedError::Compute { reason: error.to_string() }
}
