//! Our cross-encoder against candle's forward with token types, pooler and classifier, on seeded weights.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::BertModel;
use serde_json::{Value, json};

use super::candle::bert_config;
use super::weights::Weights;
use crate::embed::settings::CrossEncoderSettings;
use crate::embed::store::Store;
use crate::embed::tests::small::{POSITIONS, install_cross_encoder};
use crate::embed::tokenizer::tests::pair_tokenizer;
use crate::embed::{Cancellation, EmbedError, InputKind, Models};

const NAME: &str = "me/judge";
const HIDDEN: usize = 64;

fn install(models: &Path, change: impl FnOnce(&mut Value)) {
    install_cross_encoder(models, NAME, change);
}

/// The score before the last activation, by candle.
fn reference(models: &Path, ids: &[u32], types: &[u32]) -> f64 {
    let place = Store::new(models.to_owned()).place(NAME).unwrap();
    let architecture = CrossEncoderSettings::read(&place).unwrap().encoder.architecture;
    let path = models.join(NAME).join("model.safetensors");
    let weights = Weights::open(&path, architecture.word_table()).unwrap();
    let tensors: HashMap<String, Tensor> = weights.all().unwrap().into_iter().collect();
    let tensors = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let bert = BertModel::load(tensors, &bert_config(&architecture)).unwrap();
    let row = |values: &[u32]| Tensor::new(values, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let hidden = bert.forward(&row(ids), &row(types), None).unwrap();
    let first: Vec<f32> = hidden.get(0).unwrap().get(0).unwrap().to_vec1().unwrap();
    let dense = |name: &str, shape: [usize; 2], x: &[f64]| -> Vec<f64> {
        let (weight, bias) = super::read_linear(&path, name, shape, true).unwrap();
        let sum = |(row, bias): (&[f32], &f32)| {
            f64::from(*bias) + row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>()
        };
        weight.chunks_exact(shape[1]).zip(&bias).map(sum).collect()
    };
    let first: Vec<f64> = first.into_iter().map(f64::from).collect();
    let pooled: Vec<f64> = dense("pooler.dense", [HIDDEN, HIDDEN], &first).into_iter().map(f64::tanh).collect();
    dense("classifier", [1, HIDDEN], &pooled)[0]
}

#[test]
fn scores_are_those_of_candle() {
    let dir = tempfile::tempdir().unwrap();
    let identity = json!({"activation_fn": "torch.nn.modules.linear.Identity"});
    install(dir.path(), |config| config["sentence_transformers"] = identity);
    let models = Models::new(dir.path().to_owned(), None);
    let model = models.load_cross_encoder(NAME).unwrap();
    // Of a text that is too long the end is cut: both together fit with three special tokens.
    let long = "c ".repeat(100);
    let cut = [vec![2, 4, 5, 3], vec![7; POSITIONS - 5], vec![3]].concat();
    let cut_types = [vec![0; 4], vec![1; POSITIONS - 4]].concat();
    let cases: [(&str, Vec<u32>, Vec<u32>); 4] = [
        ("c , a", vec![2, 4, 5, 3, 7, 9, 4, 3], vec![0, 0, 0, 0, 1, 1, 1, 1]),
        ("a b", vec![2, 4, 5, 3, 4, 5, 3], vec![0, 0, 0, 0, 1, 1, 1]),
        ("bb", vec![2, 4, 5, 3, 5, 6, 3], vec![0, 0, 0, 0, 1, 1, 1]),
        (&long, cut, cut_types),
    ];
    let texts: Vec<&str> = cases.iter().map(|(text, ..)| *text).collect();
    let scores = model.score("a b", &texts).unwrap();
    for ((text, ids, types), score) in cases.iter().zip(&scores) {
        let want = reference(dir.path(), ids, types);
        assert!((f64::from(*score) - want).abs() < 2e-5, "{text}: {score} is not {want}");
        assert_eq!(model.score("a b", &[text]).unwrap()[0].to_bits(), score.to_bits(), "alone as among others");
    }
    assert!(scores[0] != scores[1]);
    assert_eq!(model.score("a b", &[]).unwrap(), Vec::<f32>::new());
    // What looks like the token between the texts is read as that token, and ends nothing.
    let want = reference(dir.path(), &[2, 4, 3, 5, 3, 7, 3], &[0, 0, 0, 0, 0, 1, 1]);
    let score = f64::from(model.score("a [SEP] b", &["c"]).unwrap()[0]);
    assert!((score - want).abs() < 2e-5, "{score} is not {want}");
}

#[test]
fn scores_of_shapes_that_candle_runs_are_of_two_texts_too() {
    for (key, value) in
        [("num_attention_heads", json!(4)), ("intermediate_size", json!(72)), ("hidden_act", json!("relu"))]
    {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), |config| {
            config["sentence_transformers"] = json!({"activation_fn": "torch.nn.modules.linear.Identity"});
            config[key] = value.clone();
        });
        let model = Models::new(dir.path().to_owned(), None).load_cross_encoder(NAME).unwrap();
        // The second pair is padded to the length of the first.
        let scores = model.score("a b", &["c , a", "b"]).unwrap();
        let pairs: [(&[u32], &[u32]); 2] =
            [(&[2, 4, 5, 3, 7, 9, 4, 3], &[0, 0, 0, 0, 1, 1, 1, 1]), (&[2, 4, 5, 3, 5, 3], &[0, 0, 0, 0, 1, 1])];
        for ((ids, types), score) in pairs.into_iter().zip(scores) {
            let want = reference(dir.path(), ids, types);
            assert!((f64::from(score) - want).abs() < 2e-5, "{key} {ids:?}: {score} is not {want}");
        }
    }
}

#[test]
fn a_score_passes_a_sigmoid_unless_the_file_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), |_| {});
    let model = Models::new(dir.path().to_owned(), None).load_cross_encoder(NAME).unwrap();
    let want = reference(dir.path(), &[2, 4, 3, 7, 3], &[0, 0, 0, 1, 1]);
    let score = f64::from(model.score("a", &["c"]).unwrap()[0]);
    assert!((score - 1.0 / (1.0 + (-want).exp())).abs() < 1e-5, "{score} {want}");
}

#[test]
fn what_nobody_waits_for_is_not_tokenised() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), |_| {});
    let tokenizer = pair_tokenizer("[NONE]").to_string();
    fs::write(dir.path().join(NAME).join("tokenizer.json"), &tokenizer).unwrap();
    let text_model = crate::embed::tests::small::install(dir.path(), "me/small");
    fs::write(text_model.join("tokenizer.json"), &tokenizer).unwrap();
    let models = Models::new(dir.path().to_owned(), None);
    let (judge, model) = (models.load_cross_encoder(NAME).unwrap(), models.load("me/small").unwrap());
    let score = || judge.score("a", &["unheard-of"]).map(drop);
    let embed = || model.embed(&["unheard-of"], InputKind::Plain).map(drop);
    let gone = Cancellation::new();
    gone.cancel();
    for act in [&score as &dyn Fn() -> Result<(), EmbedError>, &embed] {
        let error = act().unwrap_err();
        assert!(matches!(error, EmbedError::Tokenizer { .. }), "{error}");
        let error = gone.scope(act).unwrap_err();
        assert!(matches!(error, EmbedError::Cancelled), "{error}");
    }
}

#[test]
fn other_models_are_refused_by_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let models = || Models::new(dir.path().to_owned(), None);
    assert!(matches!(models().load_cross_encoder(NAME), Err(EmbedError::Unknown { .. })));
    let known = models().load_cross_encoder("cross-encoder/ms-marco-MiniLM-L-6-v2");
    assert!(matches!(known, Err(EmbedError::NotInstalled { .. })), "{known:?}");
    install(dir.path(), |_| {});
    assert!(matches!(models().load(NAME), Err(EmbedError::Unsupported { .. })));
    assert_eq!(models().installed().unwrap()[0].dim, 1);
    crate::embed::tests::small::install(dir.path(), "me/small");
    assert!(matches!(models().load_cross_encoder("me/small"), Err(EmbedError::Unsupported { .. })));
    for (key, value) in
        [("id2label", json!({"0": "a", "1": "b"})), ("type_vocab_size", json!(1)), ("model_type", json!("roberta"))]
    {
        // A directory of its own: what was loaded once must stay what it was.
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), |config| config[key] = value);
        let loaded = Models::new(dir.path().to_owned(), None).load_cross_encoder(NAME);
        assert!(matches!(loaded, Err(EmbedError::Unsupported { .. })), "{key}: {loaded:?}");
    }
}
