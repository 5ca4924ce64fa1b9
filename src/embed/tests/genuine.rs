//! The models themselves, against vectors that others made of the same texts: ONNX Runtime, and numpy.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::small::cosine;
use crate::embed::{Compute, DEFAULT_MODEL, EmbedError, InputKind, Models, Precision, TextModel, default_models_dir};

const REFERENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/minilm_reference.json"));

const MPNET: &str = "sentence-transformers/all-mpnet-base-v2";
const MPNET_REFERENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mpnet_reference.json"));

/// `None`, with a line that says so, where the model is not installed; in CI the default one is.
fn genuine(name: &str) -> Option<Arc<TextModel>> {
    static MODELS: OnceLock<Models> = OnceLock::new();
    match MODELS.get_or_init(|| Models::new(default_models_dir(), None)).load(name) {
        Ok(model) => Some(model),
        Err(error @ EmbedError::NotInstalled { .. }) => {
            assert!(std::env::var_os("CI").is_none() || name != DEFAULT_MODEL, "{error}");
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn vectors_are_those_of_the_reference() {
    let Some(model) = genuine(DEFAULT_MODEL) else { return };
    let reference: Value = serde_json::from_str(REFERENCE).unwrap();
    let entries = reference["texts"].as_array().unwrap();
    let texts: Vec<&str> = entries.iter().map(|entry| entry["text"].as_str().unwrap()).collect();
    let result = model.embed(&texts, InputKind::Document).unwrap();
    let mut whole = 0;
    for (entry, vector) in entries.iter().zip(&result.vectors) {
        let text = &entry["text"];
        for (got, want) in vector.iter().zip(numbers(&entry["head"])) {
            assert!((got - want).abs() < 2e-6, "{text}: {got} is not {want}");
        }
        if !entry["vector"].is_null() {
            let cosine = cosine(vector, &numbers(&entry["vector"]));
            assert!(cosine > 0.999_999_9, "{text}: {cosine}");
            whole += 1;
        }
    }
    assert_eq!((entries.len(), whole), (12, 3));
    assert_eq!(result.truncated.iter().filter(|cut| **cut).count(), 2);
    assert_eq!((result.token_counts[11], result.truncated[11]), (256, true));
}

#[test]
fn a_batch_equals_its_singles_whatever_the_lengths() {
    let Some(model) = genuine(DEFAULT_MODEL) else { return };
    let word = "word ";
    let texts: Vec<String> = ["", "a", "Привет, мир", "hello world"]
        .into_iter()
        .map(str::to_owned)
        // Two special tokens: 253, 254, 255 words stand on both sides of the limit; 511 to 513 tokens are well beyond.
        .chain([253, 254, 255, 509, 510, 511].map(|count| word.repeat(count)))
        .chain([word.repeat((1 << 20) / word.len())])
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let batch = model.embed(&texts, InputKind::Document).unwrap();
    assert_eq!(batch.token_counts, [2, 3, batch.token_counts[2], 4, 255, 256, 256, 256, 256, 256, 256]);
    assert_eq!(batch.truncated, [false, false, false, false, false, false, true, true, true, true, true]);
    for (index, text) in texts.iter().enumerate() {
        let single = model.embed(&[text], InputKind::Document).unwrap();
        let off = single.vectors[0].iter().zip(&batch.vectors[index]).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) <= 1e-5, "text {index}");
    }
    // What is cut is not read.
    assert_eq!(batch.vectors[5], batch.vectors[10]);
}

#[test]
fn the_other_precisions_are_near_and_of_another_fingerprint() {
    let Some(exact) = genuine(DEFAULT_MODEL) else { return };
    let reference: Value = serde_json::from_str(REFERENCE).unwrap();
    let entries = reference["texts"].as_array().unwrap();
    let texts: Vec<&str> = entries.iter().map(|entry| entry["text"].as_str().unwrap()).collect();
    let want = exact.embed(&texts, InputKind::Document).unwrap();
    for (precision, floor) in [(Precision::Float16, 0.999_99), (Precision::Int8, 0.997)] {
        let models = Models::computing(default_models_dir(), Compute { precision, ..Compute::default() });
        let model = models.load(DEFAULT_MODEL).unwrap();
        assert_eq!(model.precision(), precision);
        assert_ne!(model.fingerprint(), exact.fingerprint(), "{precision:?}");
        let batch = model.embed(&texts, InputKind::Document).unwrap();
        for ((text, vector), want) in texts.iter().zip(&batch.vectors).zip(&want.vectors) {
            let cosine = cosine(vector, want);
            assert!(cosine >= floor, "{precision:?} {text}: {cosine}");
            let single = model.embed(&[text], InputKind::Document).unwrap();
            let off = single.vectors[0].iter().zip(vector).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off <= 1e-5, "{precision:?} {text}: {off}");
        }
    }
}

#[test]
fn mpnets_vectors_are_those_of_the_reference() {
    let Some(model) = genuine(MPNET) else { return };
    let reference: Value = serde_json::from_str(MPNET_REFERENCE).unwrap();
    let entries = reference["texts"].as_array().unwrap();
    let texts: Vec<&str> = entries.iter().map(|entry| entry["text"].as_str().unwrap()).collect();
    let result = model.embed(&texts, InputKind::Document).unwrap();
    let mut whole = 0;
    for (i, (entry, vector)) in entries.iter().zip(&result.vectors).enumerate() {
        let text = &entry["text"];
        assert_eq!(result.token_counts[i] as u64, entry["tokens"].as_u64().unwrap(), "{text}");
        for (got, want) in vector.iter().zip(numbers(&entry["head"])) {
            assert!((got - want).abs() < 5e-6, "{text}: {got} is not {want}");
        }
        if !entry["vector"].is_null() {
            let cosine = cosine(vector, &numbers(&entry["vector"]));
            assert!(cosine > 0.999_999, "{text}: {cosine}");
            whole += 1;
        }
    }
    assert_eq!((entries.len(), whole, model.dim(), model.max_tokens()), (12, 3, 768, 384));
}
