//! A small BERT of seeded weights, installed as any sentence-transformers directory, for tests that embed.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Random;

/// The name that it is installed under.
pub const SMALL_MODEL: &str = "me/small";
/// Numbers in its vectors.
pub const SMALL_DIM: usize = 64;
/// The name of the same model without scaling to length 1, whose vectors may be cut.
pub const UNSCALED_MODEL: &str = "me/unscaled";
/// The name that the small cross-encoder is installed under.
pub const SMALL_CROSS_ENCODER: &str = "me/judge";
/// Tokens that it reads of a text, the two special ones included.
pub const SMALL_MAX_TOKENS: usize = 16;

const WIDE: usize = 96;
const POSITIONS: usize = 48;
/// Its words; every other one is the second of them.
const WORDS: [&str; 10] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b", "c", "d", ","];

/// Writes the model below a models directory. Its prefixes are `a ` for queries and `b ` for documents.
pub fn install_small_model(models: &Path) {
    let modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")];
    install(&models.join(SMALL_MODEL), &modules, json!({}));
}

/// Writes the same model without its last module below a models directory.
pub fn install_unscaled_model(models: &Path) {
    let modules = [("", "Transformer"), ("1_Pooling", "Pooling")];
    install(&models.join(UNSCALED_MODEL), &modules, json!({"is_matryoshka": true}));
}

fn install(dir: &Path, modules: &[(&str, &str)], settings: Value) {
    fs::create_dir_all(dir.join("1_Pooling")).unwrap();
    let write = |path: &str, json: Value| fs::write(dir.join(path), json.to_string()).unwrap();
    let mut config = json!({"model_type": "bert", "hidden_size": SMALL_DIM, "intermediate_size": WIDE,
        "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": WORDS.len(), "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "max_position_embeddings": POSITIONS, "hidden_act": "gelu", "pad_token_id": 0});
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    write("config.json", config);
    let module = |(index, (path, kind)): (usize, &(&str, &str))| json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}")});
    write("modules.json", modules.iter().enumerate().map(module).collect());
    write("1_Pooling/config.json", json!({"pooling_mode_mean_tokens": true}));
    write("sentence_bert_config.json", json!({"max_seq_length": SMALL_MAX_TOKENS}));
    write("config_sentence_transformers.json", json!({"prompts": {"query": "a ", "passage": "b "}}));
    write("tokenizer.json", tokenizer());
    fs::write(dir.join("model.safetensors"), weights(shapes())).unwrap();
}

/// Writes a cross-encoder of the same shape below a models directory; its scores pass a sigmoid.
pub fn install_small_cross_encoder(models: &Path) {
    let dir = models.join(SMALL_CROSS_ENCODER);
    fs::create_dir_all(&dir).unwrap();
    let config = json!({"model_type": "bert", "hidden_size": SMALL_DIM, "intermediate_size": WIDE,
        "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": WORDS.len(), "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "max_position_embeddings": POSITIONS, "hidden_act": "gelu", "pad_token_id": 0,
        "architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}});
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut tokenizer = tokenizer();
    let mark = |token: &str, kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let sequence = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    tokenizer["post_processor"]["pair"] =
        json!([mark("[CLS]", 0), sequence("A", 0), mark("[SEP]", 0), sequence("B", 1), mark("[SEP]", 1)]);
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let mut all: Vec<_> = shapes().into_iter().map(|(name, shape)| (format!("bert.{name}"), shape)).collect();
    for (name, rows) in [("bert.pooler.dense", SMALL_DIM), ("classifier", 1)] {
        all.push((format!("{name}.weight"), vec![rows, SMALL_DIM]));
        all.push((format!("{name}.bias"), vec![rows]));
    }
    fs::write(dir.join("model.safetensors"), weights(all)).unwrap();
}

fn tokenizer() -> Value {
    let vocabulary: Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let mark = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0), special(1), special(2), special(3)],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [mark("[CLS]"), sequence("A"), mark("[SEP]")], "pair": [sequence("A"), sequence("B")],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    })
}

/// Names and shapes of a BERT encoder's tensors.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
    for (table, rows) in [("word", WORDS.len()), ("position", POSITIONS), ("token_type", 2)] {
        add(format!("embeddings.{table}_embeddings.weight"), &[rows, SMALL_DIM]);
    }
    let mut parts = vec![("embeddings.LayerNorm".to_owned(), vec![SMALL_DIM])];
    for layer in 0..2 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            parts.push((name(part), vec![SMALL_DIM, SMALL_DIM]));
        }
        parts.push((name("intermediate.dense"), vec![WIDE, SMALL_DIM]));
        parts.push((name("output.dense"), vec![SMALL_DIM, WIDE]));
        parts.push((name("attention.output.LayerNorm"), vec![SMALL_DIM]));
        parts.push((name("output.LayerNorm"), vec![SMALL_DIM]));
    }
    for (part, shape) in parts {
        add(format!("{part}.weight"), &shape);
        add(format!("{part}.bias"), &shape[..1]);
    }
    shapes
}

/// A safetensors file: the length of a JSON header, the header, the numbers.
fn weights(shapes: Vec<(String, Vec<usize>)>) -> Vec<u8> {
    let (mut header, mut numbers) = (Map::new(), Vec::new());
    let mut random = Random(5);
    for (name, shape) in shapes {
        let from = numbers.len();
        // Norms near 1 and small weights keep activations in a lively range.
        let (scale, shift) = if name.ends_with("LayerNorm.weight") { (0.1, 1.0) } else { (0.2, 0.0) };
        for _ in 0..shape.iter().product::<usize>() {
            let x = (random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            numbers.extend_from_slice(&(x * scale + shift).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [from, numbers.len()]}));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // The numbers begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), &numbers].concat()
}
