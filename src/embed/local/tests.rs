//! Our encoder against candle's, on every level, with seeded weights and with the genuine model.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use rayon::ThreadPoolBuilder;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::candle::CandleEncoder;
use super::kernels::{CpuLevel, Kernels};
use super::transformer::Transformer;
use super::weights::Weights;
use super::{Backend, Encoder, bert, kernels_for};
use crate::embed::settings::Settings;
use crate::embed::store::Store;
use crate::embed::tests::small::{POSITIONS, VOCABULARY, config, cosine, random, safetensors, settings};
use crate::embed::{self, DEFAULT_MODEL, EmbedError, Pooling, Precision, default_models_dir};

struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn file(bytes: &[u8]) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    File { _dir: dir, path }
}

fn open(path: &Path, settings: &Settings) -> Weights {
    Weights::open(path, settings.architecture.word_table()).unwrap()
}

fn ours(path: &Path, settings: &Settings, level: CpuLevel, precision: Precision) -> Transformer {
    let kernels = Kernels::new(level).unwrap();
    bert::load(open(path, settings), &settings.architecture, kernels, precision).unwrap()
}

fn candles(path: &Path, settings: &Settings) -> CandleEncoder {
    CandleEncoder::load(&open(path, settings), &settings.architecture, Device::Cpu).unwrap()
}

fn narrow(vector: &[f64]) -> Vec<f32> {
    vector.iter().map(|x| *x as f32).collect()
}

/// Sequences of every length up to the limit, of random tokens.
fn sequences() -> Vec<Vec<u32>> {
    let token = |x: f32| ((x + 1.0) / 2.0 * VOCABULARY as f32) as u32 % VOCABULARY as u32;
    (1..=POSITIONS).map(|len| random(len as u64, len).into_iter().map(token).collect()).collect()
}

#[track_caller]
fn assert_like(ours: &[Vec<f64>], reference: &[Vec<f64>], what: &str) {
    assert_eq!(ours.len(), reference.len());
    for (i, (got, want)) in ours.iter().zip(reference).enumerate() {
        let cosine = cosine(&narrow(got), &narrow(want));
        assert!(cosine > 0.999_999, "{what}: sequence {i} has the cosine {cosine}");
        let off = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 2e-5, "{what}: sequence {i} is off by {off}");
    }
}

#[test]
fn every_level_and_every_pooling_agrees_with_candle() {
    let settings = settings(&config());
    let sequences = sequences();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    for (prefix, dtype) in [("", Dtype::F32), ("bert.", Dtype::BF16)] {
        let file = file(&safetensors(&config(), prefix, dtype, |_, _| {}));
        let reference = candles(&file.path, &settings);
        for level in CpuLevel::available() {
            let bert = ours(&file.path, &settings, level, Precision::Float32);
            for pooling in [Pooling::Mean, Pooling::FirstToken] {
                let want = reference.encode(&sequences, pooling).unwrap();
                let what = format!("{level:?} {pooling:?} {dtype:?}");
                assert_like(&bert.encode(&sequences, pooling, 0), &want, &what);
            }
        }
    }
}

#[test]
fn every_level_and_every_precision_is_near_candle() {
    let settings = settings(&config());
    let file = file(&safetensors(&config(), "", Dtype::F32, |_, _| {}));
    let sequences = sequences();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let want = candles(&file.path, &settings).encode(&sequences, Pooling::Mean).unwrap();
    for level in CpuLevel::available() {
        for (precision, floor) in [(Precision::Float16, 0.999_999), (Precision::Int8, 0.999)] {
            let got = ours(&file.path, &settings, level, precision).encode(&sequences, Pooling::Mean, 0);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let cosine = cosine(&narrow(got), &narrow(want));
                assert!(cosine > floor, "{level:?} {precision:?}: sequence {i} has the cosine {cosine}");
            }
        }
    }
}

#[test]
fn a_shape_beyond_the_kernels_is_of_float32_whatever_is_asked_for() {
    let mut config = config();
    config["hidden_act"] = "relu".into();
    let settings = settings(&config);
    let file = file(&safetensors(&config, "", Dtype::F32, |_, _| {}));
    let encoder = Encoder::load(&file.path, &settings, Precision::Int8, embed::Device::Cpu).unwrap();
    assert_eq!(encoder.precision(), Precision::Float32);
}

#[test]
fn a_sequence_does_not_depend_on_those_beside_it_nor_on_threads() {
    let settings = settings(&config());
    let file = file(&safetensors(&config(), "", Dtype::F32, |_, _| {}));
    let sequences = sequences();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    for precision in Precision::ALL {
        let encoder = Encoder::load(&file.path, &settings, precision, embed::Device::Cpu).unwrap();
        let mut results = Vec::new();
        for threads in [1, 2, 5] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let batch = encoder.encode(&sequences, threads - 1, &pool).unwrap();
            for (sequence, vector) in sequences.iter().zip(&batch) {
                assert_eq!(
                    encoder.encode(&[sequence], 0, &pool).unwrap()[0],
                    *vector,
                    "{precision:?} {threads} threads"
                );
            }
            results.push(batch);
        }
        assert!(results.iter().all(|result| *result == results[0]), "{precision:?}");
    }
}

#[test]
fn shapes_beyond_the_kernels_run_by_candle() {
    let odd = |key: &str, value: Value| {
        let mut json = config();
        json[key] = value;
        json
    };
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for config in
        [odd("num_attention_heads", json!(4)), odd("hidden_act", json!("relu")), odd("intermediate_size", json!(72))]
    {
        let settings = settings(&config);
        let file = file(&safetensors(&config, "", Dtype::F32, |_, _| {}));
        let encoder = Encoder::load(&file.path, &settings, Precision::Float32, embed::Device::Cpu).unwrap();
        assert!(matches!(encoder.backend, Backend::Candle(_)), "{config}");
        let sequences: [&[u32]; 3] = [&[1, 2, 3], &[4], &[5, 6, 7, 8, 9]];
        let batch = encoder.encode(&sequences, 0, &pool).unwrap();
        for (sequence, vector) in sequences.iter().zip(&batch) {
            assert_like(&encoder.encode(&[sequence], 0, &pool).unwrap(), std::slice::from_ref(vector), "single");
        }
    }
}

#[test]
fn damaged_weights_are_errors() {
    let settings = settings(&config());
    let load = |bytes: &[u8]| {
        Encoder::load(&file(bytes).path, &settings, Precision::Float32, embed::Device::Cpu).map(|_| ()).unwrap_err()
    };
    let whole = safetensors(&config(), "", Dtype::F32, |_, _| {});
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for len in (0..header).step_by(7).chain([header, header + 1, whole.len() / 2, whole.len() - 1]) {
        assert!(matches!(load(&whole[..len]), EmbedError::Malformed { .. }), "{len}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(matches!(load(&longer), EmbedError::Malformed { .. }));
    let mut huge = whole.clone();
    huge[..8].fill(0xff);
    assert!(matches!(load(&huge), EmbedError::Malformed { .. }));
    // Every bit of the header: another file, or one that says what is wrong; never a panic.
    for bit in (0..header * 8).step_by(5) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = Encoder::load(&file(&flipped).path, &settings, Precision::Float32, embed::Device::Cpu);
    }
    let text = std::str::from_utf8(&whole[8..header]).unwrap();
    let text = text.replace("layer.1.output.dense.bias", "layer.1.output.dense.bijs");
    let renamed = [&whole[..8], text.as_bytes(), &whole[header..]].concat();
    assert!(load(&renamed).to_string().contains("layer.1.output.dense.bias is missing"));
    let mut wider = config();
    wider["intermediate_size"] = 128.into();
    assert!(load(&safetensors(&wider, "", Dtype::F32, |_, _| {})).to_string().contains("has the shape"));
}

/// Every this many sequences are encoded again by the slowest level, which takes seconds for all of them.
const SCALAR_SAMPLE: usize = 4;

#[test]
fn the_genuine_model_agrees_with_candle_up_to_its_last_position() {
    let place = Store::new(default_models_dir()).place(DEFAULT_MODEL).unwrap();
    let path = place.dir.join("model.safetensors");
    if !path.is_file() {
        assert!(std::env::var_os("CI").is_none(), "{DEFAULT_MODEL} is not installed");
        eprintln!("SKIPPED: {DEFAULT_MODEL} is not installed in {}", default_models_dir().display());
        return;
    }
    let settings = Settings::read(&place).unwrap();
    let vocabulary = settings.architecture.vocab_size as f32;
    let sequences: Vec<Vec<u32>> = [1, 2, 3, 16, 255, 256, 511, 512]
        .iter()
        .map(|&len| random(len as u64, len).iter().map(|x| ((x + 1.0) / 2.0 * (vocabulary - 1.0)) as u32).collect())
        .collect();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let want = candles(&path, &settings).encode(&sequences, Pooling::Mean).unwrap();
    let mut checked = 0;
    for level in CpuLevel::available() {
        let bert = ours(&path, &settings, level, Precision::Float32);
        let step = if level == CpuLevel::Scalar { SCALAR_SAMPLE } else { 1 };
        for index in (0..sequences.len()).step_by(step) {
            let got = bert.encode(&sequences[index..=index], Pooling::Mean, 0);
            let cosine = cosine(&narrow(&got[0]), &narrow(&want[index]));
            assert!(cosine >= 0.99999, "{level:?} {} tokens: {cosine}", sequences[index].len());
            checked += 1;
        }
    }
    assert!(checked >= 2);
}

#[test]
fn a_level_can_be_forced_and_a_wrong_one_is_refused() {
    for level in CpuLevel::available() {
        assert_eq!(kernels_for(Some(level.name().to_owned())).unwrap().level(), level);
    }
    assert_eq!(kernels_for(Some(String::new())).unwrap().level(), CpuLevel::fastest());
    let error = kernels_for(Some("sse".to_owned())).unwrap_err();
    assert!(matches!(&error, EmbedError::CpuLevel { .. }) && error.to_string().contains("scalar"), "{error}");
}
