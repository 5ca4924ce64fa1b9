//! What is read of a directory, and what is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::embed::registry::find;
use crate::embed::store::Store;
use crate::embed::tests::small::install;

/// The settings of the small model after `change` has altered its directory.
fn changed(change: impl FnOnce(&Path)) -> Result<Settings, EmbedError> {
    let dir = tempfile::tempdir().unwrap();
    change(&install(dir.path(), "me/small"));
    Settings::read(&Store::new(dir.path().to_owned()).place("me/small").unwrap())
}

fn with(path: &str, json: &Value) -> Result<Settings, EmbedError> {
    changed(|dir| {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), json.to_string()).unwrap();
    })
}

fn modules(following: &[&str]) -> Value {
    let kinds = ["Transformer", "Pooling"].iter().chain(following).enumerate();
    let path = |index: usize, kind: &str| if index == 0 { String::new() } else { format!("{index}_{kind}") };
    kinds.map(|(i, kind)| json!({"idx": i, "path": path(i, kind), "type": format!("a.b.{kind}")})).collect()
}

fn architecture(json: Value) -> Result<Architecture, EmbedError> {
    Architecture::from_json(&json, Path::new("config.json"))
}

#[test]
fn dense_layers_are_read_and_must_fit() {
    let dense = |inputs: usize, outputs: usize, activation: &str| json!({"in_features": inputs, "out_features": outputs, "bias": false, "activation_function": activation});
    let read = |config: &Value| {
        changed(|dir| {
            fs::write(dir.join("modules.json"), modules(&["Dense", "Dropout", "Normalize"]).to_string()).unwrap();
            fs::create_dir(dir.join("2_Dense")).unwrap();
            fs::write(dir.join("2_Dense/config.json"), config.to_string()).unwrap();
        })
    };
    let settings = read(&dense(64, 32, "torch.nn.modules.activation.Tanh")).unwrap();
    let want = Dense { dir: "2_Dense".to_owned(), inputs: 64, outputs: 32, bias: false, activation: Activation::Tanh };
    assert_eq!((settings.dim(), settings.normalise), (32, true));
    assert_eq!(settings.steps, [Step::Dense(want)]);
    assert!(settings.identity().ends_with(" dense=64x32 bias=false activation=Tanh"), "{}", settings.identity());
    for (config, says) in [
        (dense(63, 32, "a.Tanh"), "it gets 64"),
        (dense(64, 0, "a.Tanh"), "it makes 0"),
        (dense(64, 1 << 30, "a.Tanh"), "1 to 4096"),
        (dense(64, 32, "a.Softplus"), "Softplus"),
        (json!({}), "in_features"),
    ] {
        assert!(read(&config).unwrap_err().to_string().contains(says), "{config}");
    }
}

#[test]
fn modules_are_read_in_order_and_strange_ones_refused() {
    let order = |following: &[&str]| with("modules.json", &modules(following)).map(|s| (s.steps.len(), s.normalise));
    assert_eq!(order(&[]).unwrap(), (0, false));
    assert_eq!(order(&["Normalize"]).unwrap(), (0, true));
    assert_eq!(order(&["Normalize", "Normalize"]).unwrap(), (1, true));
    assert!(order(&["Normalize", "CNN"]).unwrap_err().to_string().contains("CNN"));
    assert!(order(&["Normalize"; 20]).is_err());
    for json in [json!([]), json!([{"path": "", "type": "a.Pooling"}]), json!({"path": ""})] {
        assert!(with("modules.json", &json).is_err(), "{json}");
    }
    for path in ["..", "/etc", "a/b", ".hidden", ""] {
        let mut json = modules(&[]);
        json[1]["path"] = path.into();
        assert!(with("modules.json", &json).is_err(), "{path}");
    }
}

#[test]
fn a_transformer_may_lie_in_a_directory_of_its_own() {
    let settings = changed(|dir| {
        let mut json = modules(&["Normalize"]);
        json[0]["path"] = "0_Transformer".into();
        fs::write(dir.join("modules.json"), json.to_string()).unwrap();
        fs::create_dir(dir.join("0_Transformer")).unwrap();
        for file in ["config.json", "sentence_bert_config.json"] {
            fs::rename(dir.join(file), dir.join("0_Transformer").join(file)).unwrap();
        }
    });
    let settings = settings.unwrap();
    assert_eq!((settings.transformer.as_str(), settings.max_tokens), ("0_Transformer", 16));
}

#[test]
fn every_pooling_is_read_in_both_spellings() {
    for (old, new, want) in [
        ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
        ("pooling_mode_cls_token", "cls", Pooling::FirstToken),
        ("pooling_mode_max_tokens", "max", Pooling::Max),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::MeanSqrtLength),
        ("pooling_mode_weightedmean_tokens", "weightedmean", Pooling::WeightedMean),
        ("pooling_mode_lasttoken", "lasttoken", Pooling::LastToken),
    ] {
        for json in [json!({old: true}), json!({"pooling_mode": new})] {
            assert_eq!(with("1_Pooling/config.json", &json).unwrap().pooling, want, "{json}");
        }
    }
    assert!(with("1_Pooling/config.json", &json!({})).unwrap_err().to_string().contains("by nothing"));
    let without = json!({"pooling_mode": "mean", "include_prompt": false});
    assert!(with("1_Pooling/config.json", &without).unwrap_err().to_string().contains("include_prompt"));
}

#[test]
fn lengths_and_case_are_those_of_the_files() {
    let length = |sentence: Value, tokenizer: Value| {
        let settings = changed(|dir| {
            fs::write(dir.join("sentence_bert_config.json"), sentence.to_string()).unwrap();
            fs::write(dir.join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
        });
        settings.map(|settings| (settings.max_tokens, settings.lower_case))
    };
    assert_eq!(length(json!({"max_seq_length": 12, "do_lower_case": true}), json!({})).unwrap(), (12, true));
    assert_eq!(length(json!({"max_seq_length": null}), json!({"model_max_length": 20})).unwrap(), (20, false));
    assert_eq!(length(json!({}), json!({"model_max_length": 1e30})).unwrap(), (48, false));
    assert_eq!(length(json!({"max_seq_length": 1000}), json!({})).unwrap(), (48, false));
    assert!(length(json!({"max_seq_length": 2}), json!({})).is_err());
    assert!(length(json!({"max_seq_length": -1}), json!({})).is_err());
}

#[test]
fn prompts_are_those_of_the_files() {
    let prompts =
        |json: Value| with("config_sentence_transformers.json", &json).map(|s| (s.query_prefix, s.document_prefix));
    let both = |query: &str, document: &str| (query.to_owned(), document.to_owned());
    assert_eq!(prompts(json!({})).unwrap(), both("", ""));
    assert_eq!(prompts(json!({"prompts": {"query": "q: ", "corpus": "c: "}})).unwrap(), both("q: ", "c: "));
    let named = json!({"prompts": {"query": "q: ", "other": "o: "}, "default_prompt_name": "other"});
    assert_eq!(prompts(named).unwrap(), both("q: ", "o: "));
    assert!(prompts(json!({"prompts": {}, "default_prompt_name": "query"})).is_err());
    assert!(prompts(json!({"prompts": 3})).is_err());
}

#[test]
fn matryoshka_lengths_are_those_of_the_configuration() {
    let dimensions = |more: Value| {
        let mut json = crate::embed::tests::small::config();
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with("config.json", &json).unwrap().dimensions
    };
    assert_eq!(dimensions(json!({})), Dimensions::Whole);
    assert_eq!(dimensions(json!({"is_matryoshka": true})), Dimensions::From(1));
    let listed = dimensions(json!({"matryoshka_dimensions": [64, 16, 0]}));
    assert_eq!(listed, Dimensions::OneOf(vec![16, 64]));
    assert!(listed.allow(16, 64) && listed.allow(64, 64) && !listed.allow(17, 64) && !listed.allow(0, 64));
    assert_eq!(listed.in_words(64), "16, 64");
    assert!(!Dimensions::From(8).allow(7, 64) && !Dimensions::From(8).allow(65, 64));
    assert_eq!(
        (Dimensions::From(8).in_words(64), Dimensions::Whole.in_words(64)),
        ("8 to 64".into(), "64 only".into())
    );
}

#[test]
fn lengths_are_bounded_where_attention_takes_memory_with_their_square() {
    let modern = |heads: u64| {
        json!({"model_type": "modernbert", "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
            "num_attention_heads": heads, "vocab_size": 50_368, "max_position_embeddings": 8192, "norm_eps": 1e-5,
            "hidden_activation": "gelu", "pad_token_id": 50_283, "global_attn_every_n_layers": 3,
            "global_rope_theta": 160_000.0, "local_attention": 128, "local_rope_theta": 10_000.0})
    };
    let max_tokens = |config: Value, length: u64| {
        let settings = changed(|dir| {
            fs::write(dir.join("config.json"), config.to_string()).unwrap();
            fs::write(dir.join("sentence_bert_config.json"), json!({"max_seq_length": length}).to_string()).unwrap();
        });
        settings.unwrap().max_tokens
    };
    assert_eq!((max_tokens(modern(12), 8192), max_tokens(modern(12), 512)), (2048, 512));
    assert_eq!(max_tokens(modern(64), 8192), 1024);
    let mut bert = crate::embed::tests::small::config();
    bert["max_position_embeddings"] = 8192.into();
    assert_eq!(max_tokens(bert.clone(), 8192), 8192);
    bert["hidden_act"] = "relu".into();
    assert_eq!(max_tokens(bert, 8192), 2048);
}

#[test]
fn files_that_contradict_the_registry_are_of_another_model() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path(), "thenlper/gte-small");
    let place = Store::new(dir.path().to_owned()).place("gte-small").unwrap();
    assert!(place.known.is_some_and(|known| std::ptr::eq(known, find("gte-small").unwrap())));
    let error = Settings::read(&place).unwrap_err().to_string();
    assert!(error.contains("make 64 numbers") && error.contains("another name"), "{error}");
}

/// config.json of models that people use, as far as it is read.
#[test]
fn the_encoders_of_known_models_are_understood() {
    let xlm = json!({"model_type": "xlm-roberta", "hidden_size": 768, "intermediate_size": 3072, "hidden_act": "gelu",
        "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 250_002, "type_vocab_size": 1,
        "max_position_embeddings": 514, "layer_norm_eps": 1e-5, "pad_token_id": 1, "position_embedding_type": "absolute"});
    let roberta = architecture(xlm.clone()).unwrap();
    assert_eq!(
        (roberta.family.clone(), roberta.first_position(), roberta.usable_positions()),
        (Family::Roberta, 2, 512)
    );
    let mut mpnet = xlm.clone();
    mpnet["model_type"] = "mpnet".into();
    mpnet.as_object_mut().unwrap().remove("type_vocab_size");
    let mpnet = architecture(mpnet).unwrap();
    assert_eq!((mpnet.family.clone(), mpnet.usable_positions()), (Family::Mpnet { buckets: 32 }, 512));
    let nomic = json!({"model_type": "nomic_bert", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_inner": 3072,
        "n_positions": 8192, "vocab_size": 30528, "type_vocab_size": 2, "layer_norm_epsilon": 1e-12, "prenorm": false,
        "activation_function": "swiglu", "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_scale_base": null,
        "rotary_emb_interleaved": false, "rotary_scaling_factor": null, "qkv_proj_bias": false, "mlp_fc1_bias": false,
        "mlp_fc2_bias": false, "use_rms_norm": null, "causal": false, "parallel_block": false});
    let rotary = Rotary { base: 1000.0, interleaved: false, biases: [false; 3] };
    let read = architecture(nomic.clone()).unwrap();
    assert_eq!((read.usable_positions(), read.head_width(), &read.family), (8192, 64, &Family::NomicBert(rotary)));
    // A file that names no types reads none, and makes other vectors of the same weights.
    assert!(read.identity().ends_with("biases: [false, false, false] })"), "{}", read.identity());
    let mut untyped = nomic.clone();
    untyped.as_object_mut().unwrap().remove("type_vocab_size");
    assert_eq!(architecture(untyped).unwrap().identity(), format!("{} no types", read.identity()));
    for (key, value) in [
        ("prenorm", json!(true)),
        ("rotary_scaling_factor", json!(2.0)),
        ("rotary_emb_fraction", json!(0.5)),
        ("rotary_emb_base", json!(0)),
        ("n_head", json!(0)),
        ("n_head", json!(768)),
        ("activation_function", json!("gelu")),
        ("n_positions", json!(1u64 << 40)),
    ] {
        let mut json = nomic.clone();
        json[key] = value;
        assert!(architecture(json).is_err(), "{key}");
    }
    let distil = json!({"model_type": "distilbert", "dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12,
        "vocab_size": 30522, "max_position_embeddings": 512, "activation": "gelu", "pad_token_id": 0});
    let distil = architecture(distil).unwrap();
    assert_eq!((distil.type_vocab_size, distil.layers, distil.family), (0, 6, Family::DistilBert));
    let mut strange = xlm;
    strange["model_type"] = "bert".into();
    strange["position_embedding_type"] = "alibi".into();
    assert!(architecture(strange).unwrap_err().to_string().contains("alibi"));
}
