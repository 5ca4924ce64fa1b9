//! A small BERT with seeded weights, written as a sentence-transformers directory.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::embed::settings::{Architecture, Settings};
use crate::embed::tokenizer::tests::{pair_tokenizer, small_tokenizer};
use crate::embed::{Dimensions, KnownModel, ModelKind, Pooling};

/// Tokens that the small tokenizer knows.
pub(crate) const VOCABULARY: usize = 10;
pub(crate) const POSITIONS: usize = 48;

/// config.json of a shape that the kernels take.
pub(crate) fn config() -> Value {
    json!({
        "model_type": "bert", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": VOCABULARY, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS, "hidden_act": "gelu", "pad_token_id": 0,
    })
}

/// What the small model's directory says, for tests that need no directory.
pub(crate) fn settings(config: &Value) -> Settings {
    let architecture = Architecture::from_json(config, Path::new("config.json")).unwrap();
    Settings {
        max_tokens: architecture.usable_positions(),
        architecture,
        transformer: String::new(),
        pooling: Pooling::Mean,
        steps: Vec::new(),
        normalise: true,
        dimensions: Dimensions::Whole,
        layer_norm_before_cut: false,
        lower_case: false,
        query_prefix: String::new(),
        document_prefix: String::new(),
    }
}

/// The small model as one that the registry knows, without files of its own.
pub(crate) fn known_model(name: &'static str) -> KnownModel {
    KnownModel {
        name,
        kind: ModelKind::Embedding,
        aliases: &[],
        licence: "MIT",
        dim: 64,
        max_tokens: 16,
        pooling: Pooling::Mean,
        shortest: None,
        layer_norm_before_cut: false,
        query_prefix: "",
        document_prefix: "",
        revision: "main",
        package: None,
        files: &[],
    }
}

/// Seeded numbers in -1..1 (splitmix64).
pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Names and shapes of a BERT encoder's tensors.
pub(crate) fn shapes(config: &Value) -> Vec<(String, Vec<usize>)> {
    let number = |name: &str| config[name].as_u64().unwrap() as usize;
    let (hidden, wide) = (number("hidden_size"), number("intermediate_size"));
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![number("vocab_size"), hidden]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![number("max_position_embeddings"), hidden]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![number("type_vocab_size"), hidden]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![hidden]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![hidden]),
    ];
    for layer in 0..number("num_hidden_layers") {
        let mut add = |part: &str, shape: &[usize]| {
            shapes.push((format!("encoder.layer.{layer}.{part}.weight"), shape.to_vec()));
            shapes.push((format!("encoder.layer.{layer}.{part}.bias"), shape[..1].to_vec()));
        };
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            add(part, &[hidden, hidden]);
        }
        add("intermediate.dense", &[wide, hidden]);
        add("output.dense", &[hidden, wide]);
        add("attention.output.LayerNorm", &[hidden]);
        add("output.LayerNorm", &[hidden]);
    }
    shapes
}

/// A safetensors file of seeded weights; each name gets `prefix`, and `change` may alter a tensor's numbers.
pub(crate) fn safetensors(config: &Value, prefix: &str, dtype: Dtype, change: impl Fn(&str, &mut Vec<f32>)) -> Vec<u8> {
    serialise(shapes(config), prefix, dtype, change)
}

/// As [`safetensors`], for tensors of these names and shapes.
pub(crate) fn serialise(
    shapes: Vec<(String, Vec<usize>)>,
    prefix: &str,
    dtype: Dtype,
    change: impl Fn(&str, &mut Vec<f32>),
) -> Vec<u8> {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .enumerate()
        .map(|(seed, (name, shape))| {
            let mut values = random(seed as u64, shape.iter().product());
            // Norms near 1 and weights near 1 / sqrt(width) keep activations in a lively range.
            let (scale, shift) = if is_norm(&name) && name.ends_with("weight") { (0.1, 1.0) } else { (0.2, 0.0) };
            values.iter_mut().for_each(|x| *x = *x * scale + shift);
            change(&name, &mut values);
            (format!("{prefix}{name}"), shape, values.iter().flat_map(|x| encode(*x, dtype)).collect())
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn is_norm(name: &str) -> bool {
    ["LayerNorm.", "layer_norm.", "norm1.", "norm2.", "emb_ln.", "norm."].iter().any(|part| name.contains(part))
}

fn encode(x: f32, dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => x.to_le_bytes().to_vec(),
        // The upper half of an f32, cut off.
        Dtype::BF16 => x.to_le_bytes()[2..].to_vec(),
        other => panic!("no test writes {other:?}"),
    }
}

/// Writes a whole model below `models`, under `name`; returns its directory.
pub(crate) fn install(models: &Path, name: &str) -> PathBuf {
    let dir = models.join(name);
    fs::create_dir_all(dir.join("1_Pooling")).unwrap();
    let write = |path: &str, json: Value| fs::write(dir.join(path), json.to_string()).unwrap();
    write("config.json", config());
    write(
        "modules.json",
        json!([
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ]),
    );
    write("1_Pooling/config.json", json!({"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}));
    write("sentence_bert_config.json", json!({"max_seq_length": 16, "do_lower_case": false}));
    write("config_sentence_transformers.json", json!({"prompts": {"query": "a ", "passage": "b "}}));
    write("tokenizer.json", small_tokenizer());
    fs::write(dir.join("model.safetensors"), safetensors(&config(), "", Dtype::F32, |_, _| {})).unwrap();
    dir
}

/// Writes a cross-encoder of seeded weights below `models`, under `name`; returns its directory. `change` may alter its
/// config.json.
pub(crate) fn install_cross_encoder(models: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let dir = models.join(name);
    fs::create_dir_all(&dir).unwrap();
    let mut config = config();
    config["architectures"] = json!(["BertForSequenceClassification"]);
    config["id2label"] = json!({"0": "LABEL_0"});
    change(&mut config);
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("tokenizer.json"), pair_tokenizer("[UNK]").to_string()).unwrap();
    let hidden = config["hidden_size"].as_u64().unwrap() as usize;
    let mut shapes: Vec<_> = shapes(&config).into_iter().map(|(name, shape)| (format!("bert.{name}"), shape)).collect();
    shapes.push(("bert.pooler.dense.weight".into(), vec![hidden, hidden]));
    shapes.push(("bert.pooler.dense.bias".into(), vec![hidden]));
    shapes.push(("classifier.weight".into(), vec![1, hidden]));
    shapes.push(("classifier.bias".into(), vec![1]));
    fs::write(dir.join("model.safetensors"), serialise(shapes, "", Dtype::F32, |_, _| {})).unwrap();
    dir
}

/// Cosine of the angle between two vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
