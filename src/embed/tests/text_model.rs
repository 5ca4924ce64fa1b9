//! What a model does with texts and tokens, and what becomes of damaged files.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use serde_json::json;

use super::small::{config, install, safetensors};
use crate::embed::lock_file::LOCK_FILE;
use crate::embed::tokenizer::tests::small_tokenizer;
use crate::embed::{Cancellation, Compute, Device, EmbedError, InputKind, Models, Precision, TextModel};

const NAME: &str = "me/small";

fn open(dir: &Path) -> Result<Arc<TextModel>, EmbedError> {
    Models::new(dir.to_owned(), NonZeroUsize::new(2)).load(NAME)
}

/// The model after `change` has altered its directory.
fn changed(change: impl FnOnce(&Path)) -> Result<Arc<TextModel>, EmbedError> {
    let dir = tempfile::tempdir().unwrap();
    change(&install(dir.path(), NAME));
    open(dir.path())
}

#[test]
fn texts_become_unit_vectors_and_truncation_is_reported() {
    let model = changed(|_| {}).unwrap();
    assert_eq!((model.name(), model.dim(), model.max_tokens()), (NAME, 64, 16));
    let long = "c ".repeat(40);
    let texts = ["", "a", "a b c мир", &long];
    let result = model.embed(&texts, InputKind::Document).unwrap();
    // Two special tokens and the prefix's one.
    assert_eq!(result.token_counts, [3, 4, 7, 16]);
    assert_eq!(result.truncated, [false, false, false, true]);
    for (i, vector) in result.vectors.iter().enumerate() {
        let norm: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-6, "{norm}");
        let single = model.embed(&texts[i..=i], InputKind::Document).unwrap();
        assert_eq!(single.vectors[0], *vector, "{:?}", texts[i]);
    }
    assert!(model.embed(&[], InputKind::Query).unwrap().vectors.is_empty());
}

#[test]
fn a_mebibyte_is_cut_like_any_long_text() {
    let model = changed(|_| {}).unwrap();
    let long = "c мир ".repeat((1 << 20) / 8);
    let result = model.embed(&[&long, &long[..200]], InputKind::Query).unwrap();
    assert_eq!(result.token_counts, [16, 16]);
    assert_eq!(result.truncated, [true, true]);
    assert_eq!(result.vectors[0], result.vectors[1]);
}

#[test]
fn queries_and_documents_have_their_prefixes() {
    let model = changed(|_| {}).unwrap();
    let embed = |text, input| model.embed(&[text], input).unwrap().vectors.remove(0);
    assert_eq!(embed("c", InputKind::Query), model.embed_tokens(&[vec![2, 4, 7, 3]]).unwrap().vectors[0]);
    assert_eq!(embed("c", InputKind::Document), model.embed_tokens(&[vec![2, 5, 7, 3]]).unwrap().vectors[0]);
}

#[test]
fn tokens_are_checked_and_cut() {
    let model = changed(|_| {}).unwrap();
    let error = model.embed_tokens(&[vec![2, 3], vec![2, 10, 3]]).unwrap_err();
    assert!(matches!(error, EmbedError::Token { index: 1, token: 10, vocabulary: 10 }), "{error}");
    assert!(matches!(model.embed_tokens(&[vec![]]), Err(EmbedError::NoTokens { index: 0 })));
    let list = |letters: usize| [vec![2], vec![4; letters], vec![3]].concat();
    let result = model.embed_tokens(&[list(15), list(14)]).unwrap();
    assert_eq!((result.token_counts, result.truncated), (vec![16, 16], vec![true, false]));
    assert_eq!(result.vectors[0], result.vectors[1]);
    assert_eq!(result.vectors[0], model.embed(&["a ".repeat(40).as_str()], InputKind::Plain).unwrap().vectors[0]);
}

#[test]
fn tokens_of_another_tokenizer_are_refused() {
    let model = changed(|_| {}).unwrap();
    for foreign in [vec![4], vec![2], vec![4, 5], vec![2, 4], vec![4, 3], vec![3, 4, 2], vec![4; 40]] {
        let error = model.embed_tokens(&[vec![2, 3], foreign.clone()]).unwrap_err();
        let text = error.to_string();
        let EmbedError::ForeignTokens { index, before, after } = error else { panic!("{foreign:?}: {text}") };
        assert_eq!((index, before, after), (1, vec![2], vec![3]));
        assert!(text.contains("check_embedding_ctx_length=False"), "{text}");
    }
    // One whose tokenizer adds nothing takes any list of its vocabulary.
    let bare = changed(|dir| {
        let mut tokenizer = small_tokenizer();
        tokenizer["post_processor"] = serde_json::Value::Null;
        fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    });
    let bare = bare.unwrap();
    let result = bare.embed_tokens(&[vec![4, 5], vec![4; 17]]).unwrap();
    assert_eq!((result.token_counts, result.truncated), (vec![2, 16], vec![false, true]));
    let of_text = bare.embed(&["a b", &"a ".repeat(17)], InputKind::Plain).unwrap();
    assert_eq!((of_text.token_counts, of_text.truncated), (vec![2, 16], vec![false, true]));
    assert_eq!(of_text.vectors, result.vectors);
}

#[test]
fn a_text_of_a_caller_who_has_gone_is_not_tokenised() {
    let (model, gone) = (changed(|_| {}).unwrap(), Cancellation::new());
    let tokenize = || model.tokenize("a b", InputKind::Plain, false).map(|pieces| pieces.len());
    assert_eq!(gone.scope(tokenize).unwrap(), 2);
    gone.cancel();
    let result = gone.scope(tokenize);
    assert!(matches!(result, Err(EmbedError::Cancelled)), "{result:?}");
}

#[test]
fn one_load_serves_all_and_the_second_start_hashes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = install(dir.path(), NAME);
    let models = Models::new(dir.path().to_owned(), None);
    let loaded: Vec<Arc<TextModel>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| models.clone().load(NAME).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(loaded.iter().all(|model| Arc::ptr_eq(model, &loaded[0])));
    let lock = fs::read(path.join(LOCK_FILE)).unwrap();
    assert_eq!(open(dir.path()).unwrap().fingerprint(), loaded[0].fingerprint());
    assert_eq!(fs::read(path.join(LOCK_FILE)).unwrap(), lock);
    let installed = models.installed().unwrap();
    assert_eq!(installed.len(), 1);
    assert_eq!((installed[0].name.as_str(), installed[0].dim, installed[0].max_tokens), (NAME, 64, 16));
    assert_eq!(models.verify(NAME).unwrap().len(), 7);
}

#[test]
fn the_fingerprint_follows_everything_that_decides_the_vectors() {
    let write = |path: &'static str, json: serde_json::Value| {
        changed(move |dir| fs::write(dir.join(path), json.to_string()).unwrap()).unwrap()
    };
    let mut eps = config();
    eps["layer_norm_eps"] = 1e-5.into();
    let prompts = json!({"prompts": {"query": "c ", "passage": "b "}});
    let mut prints = vec![
        changed(|_| {}).unwrap(),
        write("config.json", eps),
        write("sentence_bert_config.json", json!({"max_seq_length": 12})),
        write("1_Pooling/config.json", json!({"pooling_mode_cls_token": true})),
        write("config_sentence_transformers.json", prompts),
        changed(|dir| {
            let weights = safetensors(&config(), "", Dtype::F32, |name, x| {
                if name.ends_with("query.bias") {
                    x[0] += 1.0;
                }
            });
            fs::write(dir.join("model.safetensors"), weights).unwrap();
        })
        .unwrap(),
    ];
    let same = changed(|dir| {
        let text = fs::read_to_string(dir.join("config.json")).unwrap();
        fs::write(dir.join("config.json"), format!("{text}\n")).unwrap();
    });
    assert_eq!(same.unwrap().fingerprint(), prints[0].fingerprint());
    prints.sort_by(|a, b| a.fingerprint().cmp(b.fingerprint()));
    prints.dedup_by(|a, b| a.fingerprint() == b.fingerprint());
    assert_eq!(prints.len(), 6);
    assert_eq!(prints[0].fingerprint().len(), 64);
}

#[test]
fn every_precision_has_a_fingerprint_and_vectors_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), NAME);
    let computing = |precision| Compute { precision, ..Compute::default() };
    let load = |precision| Models::computing(dir.path().to_owned(), computing(precision)).load(NAME).unwrap();
    let models = Precision::ALL.map(load);
    let vectors =
        models.each_ref().map(|model| model.embed(&["a b c"], InputKind::Document).unwrap().vectors.remove(0));
    assert_eq!(models[0].fingerprint(), open(dir.path()).unwrap().fingerprint());
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        assert_ne!(models[a].fingerprint(), models[b].fingerprint());
        assert_ne!(vectors[a], vectors[b]);
    }
    let reference = Models::new(dir.path().to_owned(), None).load_reference(NAME).unwrap();
    assert_eq!(reference.fingerprint(), models[0].fingerprint());
    for precision in Precision::ALL {
        assert_eq!(Precision::from_name(precision.name()), Some(precision));
    }
    assert_eq!(Precision::from_name("bf16"), None);
}

#[test]
fn the_cpu_runs_a_model_in_every_build_and_a_device_that_is_not_built_for_none() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), NAME);
    let load = |device| Models::computing(dir.path().to_owned(), Compute { device, ..Compute::default() }).load(NAME);
    assert_eq!(load(Device::Cpu).unwrap().embed(&["a b"], InputKind::Document).unwrap().vectors.len(), 1);
    for (device, built) in [(Device::Cuda(0), cfg!(feature = "cuda")), (Device::Metal(0), cfg!(feature = "metal"))] {
        if !built {
            let error = load(device).unwrap_err();
            assert!(error.to_string().contains(&format!("cannot run on {device}: this program was built")), "{error}");
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_errors_that_name_them() {
    let with = |path: &'static str, text: &str| {
        let text = text.to_owned();
        changed(move |dir| fs::write(dir.join(path), text).unwrap()).map(|_| ()).unwrap_err()
    };
    let file = |error: &EmbedError| match error {
        EmbedError::Malformed { path, .. } | EmbedError::Unsupported { path, .. } => path.clone(),
        other => panic!("{other}"),
    };
    for path in ["config.json", "modules.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"] {
        for text in ["", "{", "[]", "null", "\u{80}\u{4}pickle"] {
            assert!(file(&with(path, text)).ends_with(path), "{path} {text:?}");
        }
    }
    let changes = [
        ("model_type", json!("t5")),
        ("pad_token_id", json!(10)),
        ("hidden_act", json!("silu")),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(1u64 << 60)),
        ("num_attention_heads", json!(3)),
        ("num_attention_heads", json!(0)),
        ("vocab_size", json!(1u64 << 40)),
        ("num_hidden_layers", json!(100_000)),
        ("layer_norm_eps", json!(-1)),
        ("position_embedding_type", json!("relative_key")),
        ("max_position_embeddings", json!(2)),
    ];
    for (key, value) in changes {
        let mut json = config();
        json[key] = value.clone();
        let error = with("config.json", &json.to_string());
        assert!(
            matches!(error, EmbedError::Malformed { .. } | EmbedError::Unsupported { .. }),
            "{key} {value}: {error}"
        );
    }
    let other = json!([{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling"},
        {"path": "2_CNN", "type": "a.CNN"}]);
    assert!(matches!(with("modules.json", &other.to_string()), EmbedError::Unsupported { .. }));
    let outside = json!([{"path": "", "type": "a.Transformer"}, {"path": "../../1_Pooling", "type": "a.Pooling"}]);
    assert!(matches!(with("modules.json", &outside.to_string()), EmbedError::Malformed { .. }));
    let both = json!({"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true});
    let error = with("1_Pooling/config.json", &both.to_string());
    assert!(error.to_string().contains("pooling by mean + max"), "{error}");
}

#[test]
fn a_tokenizer_that_knows_more_than_the_weights_is_an_error() {
    let mut small = config();
    small["vocab_size"] = 9.into();
    let loaded = changed(|dir| {
        fs::write(dir.join("config.json"), small.to_string()).unwrap();
        fs::write(dir.join("model.safetensors"), safetensors(&small, "", Dtype::F32, |_, _| {})).unwrap();
    });
    let error = loaded.unwrap_err();
    assert!(matches!(&error, EmbedError::Malformed { path, .. } if path.ends_with("tokenizer.json")), "{error}");
    assert!(error.to_string().contains("another model"), "{error}");
}

/// The model in some precision, a tensor's first `count` numbers replaced.
fn with_numbers(precision: Precision, tensor: &str, count: usize, number: f32) -> Result<Arc<TextModel>, EmbedError> {
    let dir = tempfile::tempdir().unwrap();
    let weights = safetensors(&config(), "", Dtype::F32, |name, x| {
        if name.ends_with(tensor) {
            x[..count].fill(number);
        }
    });
    fs::write(install(dir.path(), NAME).join("model.safetensors"), weights).unwrap();
    let compute = Compute { threads: NonZeroUsize::new(2), precision, ..Compute::default() };
    Models::computing(dir.path().to_owned(), compute).load(NAME)
}

#[test]
fn weights_that_are_not_finite_are_refused_in_every_precision() {
    for precision in Precision::ALL {
        for tensor in
            ["layer.1.output.dense.bias", "layer.0.attention.self.query.weight", "embeddings.LayerNorm.weight"]
        {
            for number in [f32::NAN, f32::INFINITY] {
                let error = with_numbers(precision, tensor, 1, number).unwrap_err().to_string();
                assert!(error.contains(tensor) && error.contains("not finite"), "{precision:?}: {error}");
            }
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_where_candle_runs_the_model() {
    let mut relu = config();
    relu["hidden_act"] = "relu".into();
    for (tensor, dtype) in
        [("layer.0.intermediate.dense.bias", Dtype::F32), ("layer.1.output.dense.weight", Dtype::BF16)]
    {
        let weights = safetensors(&relu, "bert.", dtype, |name, x| {
            if name.ends_with(tensor) {
                x[3] = f32::NAN;
            }
        });
        let loaded = changed(|dir| {
            fs::write(dir.join("config.json"), relu.to_string()).unwrap();
            fs::write(dir.join("model.safetensors"), weights).unwrap();
        });
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains(tensor) && error.contains("not finite"), "{error}");
    }
}

#[test]
fn weights_beyond_half_precision_are_refused_by_it_alone() {
    let load = |precision, number| with_numbers(precision, "layer.1.output.dense.weight", 1, number);
    let error = load(Precision::Float16, -65_600.0).unwrap_err().to_string();
    assert!(error.contains("6.56e4") && error.contains("float16"), "{error}");
    for (precision, number) in
        [(Precision::Float16, -65_504.0), (Precision::Float32, -65_600.0), (Precision::Int8, -65_600.0)]
    {
        let loaded = load(precision, number);
        assert!(loaded.is_ok(), "{precision:?}: {loaded:?}");
    }
}

#[test]
fn sums_that_are_not_finite_make_an_error_instead_of_a_vector() {
    // Of 64 numbers whose squares have the mean 1 one at least is beyond 1.
    let model = with_numbers(Precision::Float32, "layer.1.output.LayerNorm.weight", 64, f32::MAX).unwrap();
    let error = model.embed(&["a", "b"], InputKind::Query).unwrap_err();
    assert!(matches!(error, EmbedError::Vector { index: 0, .. }), "{error}");
}

#[test]
fn unknown_and_absent_models_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let models = Models::new(dir.path().to_owned(), None);
    let error = models.load("gpt-17").unwrap_err();
    assert!(matches!(error, EmbedError::Unknown { .. }) && error.to_string().contains("all-MiniLM-L6-v2"), "{error}");
    assert!(matches!(models.load("all-MiniLM-L6-v2"), Err(EmbedError::NotInstalled { .. })));
    assert!(matches!(models.load("../etc"), Err(EmbedError::Name { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(Models::new(PathBuf::from("/nowhere/at/all"), None).installed().unwrap().is_empty());
}
