//! Every family of encoders against an independent forward: candle's where it has the model, else plain loops in f64.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::distilbert;
use rayon::ThreadPoolBuilder;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::candle::CandleEncoder;
use super::kernels::{CpuLevel, Kernels};
use super::mpnet::bucket;
use super::pooling::pool;
use super::transformer::Transformer;
use super::weights::Weights;
use super::{Backend, Encoder, bert, nomic_bert};
use crate::embed::settings::{Architecture, Family, Settings};
use crate::embed::tests::small::{VOCABULARY, config, random, serialise, settings, shapes};
use crate::embed::{self, EmbedError, Pooling, Precision};

/// A seeded model of some family.
struct Seeded {
    _dir: tempfile::TempDir,
    path: PathBuf,
    settings: Settings,
    shapes: Vec<(String, Vec<usize>)>,
}

impl Seeded {
    fn new(config: &Value, shapes: Vec<(String, Vec<usize>)>, prefix: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        // The small weights of the test model are 0.2 wide; biases by distance must stand out beside scores.
        let louder = |name: &str, values: &mut Vec<f32>| {
            if name.contains("relative_attention_bias") {
                values.iter_mut().for_each(|x| *x *= 8.0);
            }
        };
        fs::write(&path, serialise(shapes.clone(), prefix, Dtype::F32, louder)).unwrap();
        Self { _dir: dir, path, settings: settings(config), shapes }
    }

    fn weights(&self) -> Weights {
        Weights::open(&self.path, self.settings.architecture.word_table()).unwrap()
    }

    fn ours(&self, level: CpuLevel) -> Transformer {
        let (architecture, kernels) = (&self.settings.architecture, Kernels::new(level).unwrap());
        let loaded = match &architecture.family {
            Family::NomicBert(rotary) => {
                nomic_bert::load(self.weights(), architecture, rotary, kernels, Precision::Float32)
            }
            _ => bert::load(self.weights(), architecture, kernels, Precision::Float32),
        };
        loaded.unwrap()
    }

    fn candles(&self) -> CandleEncoder {
        CandleEncoder::load(&self.weights(), &self.settings.architecture, Device::Cpu).unwrap()
    }

    fn encoder(&self) -> Result<Encoder, EmbedError> {
        Encoder::load(&self.path, &self.settings, Precision::Float32, embed::Device::Cpu)
    }

    /// A tensor in f64.
    fn tensor(&self, name: &str) -> Vec<f64> {
        let (_, shape) = self.shapes.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}"));
        self.weights().tensor(name, shape).unwrap().iter().map(|x| f64::from(*x)).collect()
    }
}

/// Sequences of random tokens, of which some are padding.
fn sequences(longest: usize) -> Vec<Vec<u32>> {
    let token = |x: f32| ((x + 1.0) / 2.0 * VOCABULARY as f32) as u32 % VOCABULARY as u32;
    [1, 2, 3, 7, 16, 17, 33, 46, longest]
        .iter()
        .map(|&len| random(len as u64, len).into_iter().map(token).collect())
        .collect()
}

fn slices(sequences: &[Vec<u32>]) -> Vec<&[u32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

#[track_caller]
fn assert_like(got: &[Vec<f64>], want: &[Vec<f64>], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < tolerance, "{what}: sequence {i} is off by {off}");
        assert!(want.iter().any(|x| x.abs() > 0.1), "{what}: sequence {i} is hardly a vector");
    }
}

/// Our encoder on every level against candle's.
fn assert_as_candle(seeded: &Seeded, longest: usize) {
    let sequences = sequences(longest);
    for pooling in [Pooling::Mean, Pooling::FirstToken, Pooling::LastToken] {
        let want = seeded.candles().encode(&slices(&sequences), pooling).unwrap();
        for level in CpuLevel::available() {
            let got = seeded.ours(level).encode(&slices(&sequences), pooling, 0);
            assert_like(&got, &want, 5e-5, &format!("{level:?} {pooling:?}"));
        }
    }
    assert!(matches!(seeded.encoder().unwrap().backend, Backend::Kernels(_)));
}

fn with(mut json: Value, changes: Value) -> Value {
    json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json
}

fn roberta_config() -> Value {
    with(
        config(),
        json!({"model_type": "xlm-roberta", "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}),
    )
}

fn mpnet_config() -> Value {
    let changes = json!({"model_type": "mpnet", "pad_token_id": 1, "relative_attention_num_buckets": 32,
        "layer_norm_eps": 1e-5, "max_position_embeddings": 402});
    with(config(), changes)
}

/// The tensors of BERT under MPNet's names.
fn mpnet_shapes(config: &Value) -> Vec<(String, Vec<usize>)> {
    let renamed = |name: String| {
        let mut name = name.replace("attention.output.LayerNorm", "attention.LayerNorm");
        name = name.replace("attention.output.dense", "attention.attn.o");
        for (part, letter) in [("query", "q"), ("key", "k"), ("value", "v")] {
            name = name.replace(&format!("attention.self.{part}"), &format!("attention.attn.{letter}"));
        }
        name
    };
    let kept = shapes(config).into_iter().filter(|(name, _)| !name.contains("token_type"));
    let bias = ("encoder.relative_attention_bias.weight".to_owned(), vec![32, 2]);
    kept.map(|(name, shape)| (renamed(name), shape)).chain([bias]).collect()
}

fn nomic_config() -> Value {
    json!({"model_type": "nomic_bert", "n_embd": 64, "n_head": 2, "n_layer": 2, "n_inner": 96, "n_positions": 600,
        "vocab_size": VOCABULARY, "type_vocab_size": 2, "layer_norm_epsilon": 1e-12, "activation_function": "swiglu",
        "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0})
}

fn nomic_shapes(biases: bool) -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![VOCABULARY, 64]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, 64]),
    ];
    let mut add = |name: String, shape: &[usize], bias: bool| {
        shapes.push((format!("{name}.weight"), shape.to_vec()));
        if bias {
            shapes.push((format!("{name}.bias"), shape[..1].to_vec()));
        }
    };
    add("emb_ln".to_owned(), &[64], true);
    for layer in 0..2 {
        let mut part = |name: &str, shape: &[usize], bias| add(format!("encoder.layers.{layer}.{name}"), shape, bias);
        part("attn.Wqkv", &[192, 64], biases);
        part("attn.out_proj", &[64, 64], biases);
        part("mlp.fc11", &[96, 64], biases);
        part("mlp.fc12", &[96, 64], biases);
        part("mlp.fc2", &[64, 96], biases);
        part("norm1", &[64], true);
        part("norm2", &[64], true);
    }
    shapes
}

fn distil_config(activation: &str) -> Value {
    json!({"model_type": "distilbert", "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 2,
        "vocab_size": VOCABULARY, "max_position_embeddings": 48, "activation": activation, "pad_token_id": 0,
        "initializer_range": 0.02})
}

/// The tensors of BERT under DistilBERT's names.
fn distil_shapes() -> Vec<(String, Vec<usize>)> {
    let names = [
        ("encoder.layer", "transformer.layer"),
        ("attention.output.LayerNorm", "sa_layer_norm"),
        ("attention.self.query", "attention.q_lin"),
        ("attention.self.key", "attention.k_lin"),
        ("attention.self.value", "attention.v_lin"),
        ("attention.output.dense", "attention.out_lin"),
        ("intermediate.dense", "ffn.lin1"),
        ("output.dense", "ffn.lin2"),
        ("output.LayerNorm", "output_layer_norm"),
    ];
    let renamed = |name: String| names.iter().fold(name, |name, (from, to)| name.replace(from, to));
    let kept = shapes(&config()).into_iter().filter(|(name, _)| !name.contains("token_type"));
    kept.map(|(name, shape)| (renamed(name), shape)).collect()
}

#[test]
fn roberta_agrees_with_candle() {
    for prefix in ["", "roberta."] {
        assert_as_candle(&Seeded::new(&roberta_config(), shapes(&roberta_config()), prefix), 46);
    }
}

#[test]
fn nomic_bert_agrees_with_candle() {
    assert_as_candle(&Seeded::new(&nomic_config(), nomic_shapes(false), ""), 600);
    let biases = json!({"qkv_proj_bias": true, "mlp_fc1_bias": true, "mlp_fc2_bias": true});
    assert_as_candle(&Seeded::new(&with(nomic_config(), biases), nomic_shapes(true), ""), 100);
}

#[test]
fn distil_bert_agrees_with_candle_in_both_forms() {
    let seeded = Seeded::new(&distil_config("gelu"), distil_shapes(), "");
    assert_as_candle(&seeded, 46);
    // candle's own DistilBERT has the approximate GELU; with ReLU it is exact, and so are the names.
    let seeded = Seeded::new(&distil_config("relu"), distil_shapes(), "distilbert.");
    let tensors: HashMap<String, Tensor> = seeded.weights().all().unwrap().into_iter().collect();
    let tensors = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let config: distilbert::Config = serde_json::from_value(distil_config("relu")).unwrap();
    let reference = distilbert::DistilBertModel::load(tensors, &config).unwrap();
    let encoder = seeded.encoder().unwrap();
    assert!(matches!(encoder.backend, Backend::Candle(_)));
    let threads = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let sequences = sequences(46);
    let got = encoder.encode(&slices(&sequences), 0, &threads).unwrap();
    for (i, sequence) in sequences.iter().enumerate() {
        let ids = Tensor::from_vec(sequence.clone(), (1, sequence.len()), &Device::Cpu).unwrap();
        let visible = Tensor::zeros((1, 1, 1, sequence.len()), DType::U8, &Device::Cpu).unwrap();
        let hidden = reference.forward(&ids, &visible).unwrap().to_vec3::<f32>().unwrap();
        let tokens: Vec<&[f32]> = hidden[0].iter().map(Vec::as_slice).collect();
        assert_like(&got[i..=i], &[pool(&tokens, Pooling::Mean)], 5e-5, "DistilBERT");
    }
}

fn modern_config() -> Value {
    json!({"model_type": "modernbert", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "norm_eps": 1e-5,
        "hidden_activation": "gelu", "pad_token_id": 0, "global_attn_every_n_layers": 3, "global_rope_theta": 160_000.0,
        "local_attention": 8, "local_rope_theta": 10_000.0})
}

fn modern_shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("embeddings.tok_embeddings.weight".to_owned(), vec![VOCABULARY, 64]),
        ("embeddings.norm.weight".to_owned(), vec![64]),
        ("final_norm.weight".to_owned(), vec![64]),
    ];
    for layer in 0..4 {
        let mut add =
            |part: &str, shape: &[usize]| shapes.push((format!("layers.{layer}.{part}.weight"), shape.to_vec()));
        add("attn.Wqkv", &[192, 64]);
        add("attn.Wo", &[64, 64]);
        add("mlp.Wi", &[192, 64]);
        add("mlp.Wo", &[64, 96]);
        add("mlp_norm", &[64]);
        if layer > 0 {
            add("attn_norm", &[64]);
        }
    }
    shapes
}

#[test]
fn modern_bert_runs_by_candle_whatever_the_batch() {
    let threads = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let sequences = sequences(64);
    let encode = |prefix: &str| {
        let encoder = Seeded::new(&modern_config(), modern_shapes(), prefix).encoder().unwrap();
        assert!(matches!(encoder.backend, Backend::Candle(_)));
        let batch = encoder.encode(&slices(&sequences), 0, &threads).unwrap();
        for (i, sequence) in sequences.iter().enumerate() {
            let single = encoder.encode(&[sequence], 0, &threads).unwrap();
            assert_like(&batch[i..=i], &single, 2e-5, "ModernBERT");
        }
        batch
    };
    assert_eq!(encode(""), encode("model."));
}

#[test]
fn mpnet_agrees_with_plain_loops_up_to_its_last_position() {
    for prefix in ["", "mpnet."] {
        let seeded = Seeded::new(&mpnet_config(), mpnet_shapes(&mpnet_config()), prefix);
        let sequences = sequences(400);
        let want: Vec<Vec<f64>> = sequences.iter().map(|sequence| mpnet_mean(&seeded, sequence)).collect();
        for level in CpuLevel::available() {
            let got = seeded.ours(level).encode(&slices(&sequences), Pooling::Mean, 0);
            assert_like(&got, &want, 5e-5, &format!("{level:?} {prefix:?}"));
        }
        assert!(matches!(seeded.encoder().unwrap().backend, Backend::Kernels(_)));
    }
    // candle has no MPNet, so shapes beyond the kernels are refused.
    let relu = with(mpnet_config(), json!({"hidden_act": "relu"}));
    let error = Seeded::new(&relu, mpnet_shapes(&relu), "").encoder().unwrap_err();
    assert!(matches!(error, EmbedError::Unsupported { .. }), "{error}");
}

/// MPNet by the book, in f64: the mean of the last layer's vectors.
fn mpnet_mean(seeded: &Seeded, tokens: &[u32]) -> Vec<f64> {
    let Architecture { hidden_size: width, heads, layers, layer_norm_eps, pad_token_id, .. } =
        seeded.settings.architecture;
    let (words, positions) = ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight");
    let (words, positions) = (seeded.tensor(words), seeded.tensor(positions));
    let biases = seeded.tensor("encoder.relative_attention_bias.weight");
    let norm = |rows: &mut [Vec<f64>], name: &str| {
        let (weight, bias) = (seeded.tensor(&format!("{name}.weight")), seeded.tensor(&format!("{name}.bias")));
        for row in rows {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            for (i, x) in row.iter_mut().enumerate() {
                *x = (*x - mean) / (variance + layer_norm_eps).sqrt() * weight[i] + bias[i];
            }
        }
    };
    let linear = |rows: &[Vec<f64>], name: &str| -> Vec<Vec<f64>> {
        let (weight, bias) = (seeded.tensor(&format!("{name}.weight")), seeded.tensor(&format!("{name}.bias")));
        let dot = |row: &[f64], k: usize| -> f64 {
            row.iter().zip(&weight[k * row.len()..]).map(|(a, b)| a * b).sum::<f64>() + bias[k]
        };
        rows.iter().map(|row| (0..bias.len()).map(|k| dot(row, k)).collect()).collect()
    };
    let mut counted = pad_token_id;
    let mut hidden: Vec<Vec<f64>> = Vec::new();
    for &token in tokens {
        let padding = token as usize == pad_token_id;
        counted += usize::from(!padding);
        let position = if padding { pad_token_id } else { counted };
        hidden.push((0..width).map(|k| words[token as usize * width + k] + positions[position * width + k]).collect());
    }
    norm(&mut hidden, "embeddings.LayerNorm");
    for layer in 0..layers {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let [q, k, v] = ["q", "k", "v"].map(|part| linear(&hidden, &name(&format!("attention.attn.{part}"))));
        let mut context = vec![vec![0.0; width]; tokens.len()];
        let head_width = width / heads;
        for head in 0..heads {
            let part = head * head_width..(head + 1) * head_width;
            for (i, gathered) in context.iter_mut().enumerate() {
                let score = |j: usize| {
                    let dot: f64 = q[i][part.clone()].iter().zip(&k[j][part.clone()]).map(|(a, b)| a * b).sum();
                    dot / (head_width as f64).sqrt() + biases[bucket(j as isize - i as isize, 32) * heads + head]
                };
                let weights: Vec<f64> = (0..tokens.len()).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in weights.iter().enumerate() {
                    part.clone().for_each(|c| gathered[c] += weight / total * v[j][c]);
                }
            }
        }
        let add = |rows: &mut [Vec<f64>], others: &[Vec<f64>]| {
            rows.iter_mut().zip(others).for_each(|(row, other)| row.iter_mut().zip(other).for_each(|(x, y)| *x += y));
        };
        add(&mut hidden, &linear(&context, &name("attention.attn.o")));
        norm(&mut hidden, &name("attention.LayerNorm"));
        let mut inner = linear(&hidden, &name("intermediate.dense"));
        inner.iter_mut().flatten().for_each(|x| *x = gelu(*x));
        add(&mut hidden, &linear(&inner, &name("output.dense")));
        norm(&mut hidden, &name("output.LayerNorm"));
    }
    (0..width).map(|k| hidden.iter().map(|row| row[k]).sum::<f64>() / tokens.len() as f64).collect()
}

/// The exact GELU; erf by its series, which converges for every argument.
fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    x / 2.0 * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * sum)
}

#[test]
fn a_missing_tensor_of_any_family_is_named() {
    let families = [
        (roberta_config(), shapes(&roberta_config())),
        (mpnet_config(), mpnet_shapes(&mpnet_config())),
        (nomic_config(), nomic_shapes(false)),
        (distil_config("gelu"), distil_shapes()),
        (modern_config(), modern_shapes()),
    ];
    for (config, shapes) in families {
        for missing in 0..shapes.len() {
            let mut left = shapes.clone();
            let (name, _) = left.remove(missing);
            let error = Seeded::new(&config, left, "").encoder().unwrap_err();
            assert!(matches!(&error, EmbedError::Malformed { .. }) && error.to_string().contains(&name), "{error}");
        }
    }
}

#[test]
fn a_norm_that_modern_bert_must_or_must_not_have_is_named() {
    let refused = |shapes| {
        let error = Seeded::new(&modern_config(), shapes, "model.").encoder().unwrap_err();
        assert!(matches!(error, EmbedError::Malformed { .. }), "{error}");
        error.to_string()
    };
    let first = vec![("layers.0.attn_norm.weight".to_owned(), vec![64])];
    let error = refused([modern_shapes(), first].concat());
    assert!(error.contains("it holds layers.0.attn_norm.weight"), "{error}");
    let mut shapes = modern_shapes();
    shapes.iter_mut().filter(|(name, _)| name == "layers.2.attn_norm.weight").for_each(|(_, shape)| *shape = vec![32]);
    let error = refused(shapes);
    assert!(error.contains("layers.2.attn_norm.weight has the shape [32]"), "{error}");
}
