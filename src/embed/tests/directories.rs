//! Directories of somebody's own: dense layers, cut vectors, other places of files, pickles.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rayon::ThreadPoolBuilder;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::small::{config, cosine, install, known_model, serialise};
use crate::embed::batcher::Batcher;
use crate::embed::model::Services;
use crate::embed::store::{Check, Place, check_files};
use crate::embed::{
    Compute, Dimensions, EmbedError, Embeddings, InputKind, KnownModel, Models, PullProgress, TextModel,
};

const NAME: &str = "me/small";

fn write(path: &Path, json: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, json.to_string()).unwrap();
}

/// The small model after `change` has altered its directory.
fn changed(change: impl FnOnce(&Path)) -> Result<Arc<TextModel>, EmbedError> {
    let dir = tempfile::tempdir().unwrap();
    change(&install(dir.path(), NAME));
    Models::new(dir.path().to_owned(), None).load(NAME)
}

fn modules(following: &[(&str, &str)]) -> Value {
    let all = [("Transformer", ""), ("Pooling", "1_Pooling")];
    all.iter().chain(following).map(|(kind, path)| json!({"path": path, "type": format!("a.{kind}")})).collect()
}

/// Adds a dense layer from 64 numbers to 8, its weights as `dense` makes them of the shapes.
fn add_dense(dir: &Path, bias: bool) {
    write(&dir.join("modules.json"), &modules(&[("Dense", "2_Dense"), ("Normalize", "3_Normalize")]));
    let settings = json!({"in_features": 64, "out_features": 8, "bias": bias,
        "activation_function": "torch.nn.modules.activation.Tanh"});
    write(&dir.join("2_Dense/config.json"), &settings);
    let shapes = vec![("linear.weight".to_owned(), vec![8, 64]), ("linear.bias".to_owned(), vec![8])];
    fs::write(dir.join("2_Dense/model.safetensors"), serialise(shapes, "", Dtype::F32, |_, _| {})).unwrap();
}

#[test]
fn a_dense_layer_follows_the_pooling() {
    let plain = changed(|dir| write(&dir.join("modules.json"), &modules(&[]))).unwrap();
    let pooled = plain.embed(&["a b"], InputKind::Query).unwrap().vectors.remove(0);
    let shapes = vec![("linear.weight".to_owned(), vec![8, 64]), ("linear.bias".to_owned(), vec![8])];
    let weights = serialise(shapes, "", Dtype::F32, |_, _| {});
    let file = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let numbers = |name: &str| -> Vec<f32> {
        let bytes = file.tensor(name).unwrap().data().to_vec();
        bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    for with_bias in [false, true] {
        let model = changed(|dir| add_dense(dir, with_bias)).unwrap();
        assert_eq!(model.dim(), 8);
        let got = model.embed(&["a b"], InputKind::Query).unwrap().vectors.remove(0);
        let want: Vec<f32> = numbers("linear.weight")
            .chunks(64)
            .zip(numbers("linear.bias"))
            .map(|(row, bias)| {
                let sum: f32 = row.iter().zip(&pooled).map(|(a, b)| a * b).sum();
                (sum + if with_bias { bias } else { 0.0 }).tanh()
            })
            .collect();
        assert!(cosine(&got, &want) > 0.999_999, "{got:?} {want:?}");
        let norm: f32 = got.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
}

#[test]
fn the_fingerprint_follows_dense_weights_and_their_files_are_checked() {
    let print = |change: &dyn Fn(&Path)| {
        let model = changed(|dir| {
            add_dense(dir, true);
            change(dir);
        });
        model.unwrap().fingerprint().to_owned()
    };
    let shapes = vec![("linear.weight".to_owned(), vec![8, 64]), ("linear.bias".to_owned(), vec![8])];
    let other = serialise(shapes, "", Dtype::F32, |_, x| x[0] += 1.0);
    assert_eq!(print(&|_| {}), print(&|_| {}));
    assert_ne!(print(&|_| {}), print(&|dir| fs::write(dir.join("2_Dense/model.safetensors"), &other).unwrap()));
    let dir = tempfile::tempdir().unwrap();
    let path = install(dir.path(), NAME);
    add_dense(&path, true);
    let models = || Models::new(dir.path().to_owned(), None);
    assert_eq!(models().verify(NAME).unwrap().len(), 9);
    fs::write(path.join("2_Dense/model.safetensors"), &other).unwrap();
    assert!(matches!(models().load(NAME), Err(EmbedError::Damaged { .. })));
    fs::remove_file(path.join("2_Dense/model.safetensors")).unwrap();
    assert!(matches!(models().load(NAME), Err(EmbedError::NotInstalled { .. })));
}

#[test]
fn unsound_dense_weights_are_errors() {
    let with = |bytes: &[u8]| {
        let loaded = changed(|dir| {
            add_dense(dir, true);
            fs::write(dir.join("2_Dense/model.safetensors"), bytes).unwrap();
        });
        loaded.unwrap_err().to_string()
    };
    let shapes = |rows: usize| vec![("linear.weight".to_owned(), vec![rows, 64])];
    assert!(with(&serialise(shapes(8), "", Dtype::F32, |_, _| {})).contains("linear.bias is missing"));
    assert!(with(&serialise(shapes(7), "", Dtype::F32, |_, _| {})).contains("2_Dense"));
    assert!(with(b"").contains("2_Dense") && with(b"\x80\x04pickled").contains("pickle"));
}

#[test]
fn vectors_are_cut_where_the_model_allows_it_and_refused_elsewhere() {
    let mut listed = config();
    listed["matryoshka_dimensions"] = json!([16, 32]);
    let model = changed(|dir| write(&dir.join("config.json"), &listed)).unwrap();
    assert_eq!(model.dimensions(), &Dimensions::OneOf(vec![16, 32]));
    let texts = ["a", "b c"];
    let whole = model.embed(&texts, InputKind::Document).unwrap();
    assert_eq!(model.embed_with(&texts, InputKind::Document, None).unwrap(), whole);
    assert_eq!(model.embed_with(&texts, InputKind::Document, Some(64)).unwrap(), whole);
    let cut = model.embed_with(&texts, InputKind::Document, Some(16)).unwrap();
    assert_eq!((&cut.token_counts, &cut.truncated), (&whole.token_counts, &whole.truncated));
    for (cut, whole) in cut.vectors.iter().zip(&whole.vectors) {
        let norm: f64 = cut.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!(cut.len() == 16 && (norm - 1.0).abs() < 1e-6, "{norm}");
        assert!(cosine(cut, &whole[..16]) > 0.999_999);
    }
    for asked in [0, 1, 17, 65, usize::MAX] {
        let error = model.embed_with(&texts, InputKind::Document, Some(asked)).unwrap_err();
        assert!(matches!(error, EmbedError::Dimensions { got, .. } if got == asked), "{error}");
        assert!(error.to_string().contains("16, 32, 64"), "{error}");
    }
    let error = changed(|_| {}).unwrap().check_dimensions(32).unwrap_err();
    assert!(error.to_string().contains("64 only"), "{error}");
}

#[test]
fn whole_vectors_are_normalised_before_they_are_cut_where_the_card_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = install(dir.path(), NAME);
    let load = |layer_norm_before_cut| {
        let known = KnownModel { shortest: Some(8), layer_norm_before_cut, ..known_model(NAME) };
        let place = Place { name: NAME.to_owned(), known: Some(Box::leak(Box::new(known))), dir: path.clone() };
        let files = check_files(&place, Check::Changed).unwrap();
        let threads = Arc::new(ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let services = Services { threads, batcher: Arc::new(Batcher::start(1).unwrap()), cache: None };
        TextModel::load(&place, &files, Compute::default(), services).unwrap()
    };
    let [plain, normed] = [false, true].map(load);
    let whole: Vec<f32> = (1..=64).map(|x| x as f32).collect();
    let cut = |model: &TextModel, dim| {
        let mut embeddings = Embeddings { vectors: vec![whole.clone()], ..Embeddings::default() };
        model.shorten(&mut embeddings, dim).unwrap();
        embeddings.vectors.remove(0)
    };
    // The mean of 1 to 64 is 32.5, their variance (64^2 - 1) / 12.
    let layer_norm: Vec<f32> = whole.iter().map(|x| (x - 32.5) / (4095f32 / 12.0).sqrt()).collect();
    assert!(cosine(&cut(&normed, 16), &layer_norm[..16]) > 0.999_999);
    assert!(cosine(&cut(&plain, 16), &whole[..16]) > 0.999_999);
    assert_eq!(cut(&normed, 64), whole);
    assert_eq!([64, 16].map(|dim| plain.fingerprint_at(dim)), [plain.fingerprint(), plain.fingerprint()]);
    assert_eq!(normed.fingerprint_at(64), plain.fingerprint());
    assert!(normed.fingerprint_at(16) != plain.fingerprint() && normed.fingerprint_at(16).len() == 64);
}

#[test]
fn a_model_in_a_directory_of_its_own_works_and_can_be_pulled() {
    let dir = tempfile::tempdir().unwrap();
    let path = install(dir.path(), "source");
    let inner = path.join("0_Transformer");
    fs::create_dir(&inner).unwrap();
    for file in ["config.json", "sentence_bert_config.json", "tokenizer.json", "model.safetensors"] {
        fs::rename(path.join(file), inner.join(file)).unwrap();
    }
    let mut json = modules(&[("Normalize", "2_Normalize")]);
    json[0]["path"] = "0_Transformer".into();
    write(&path.join("modules.json"), &json);
    let models = Models::new(dir.path().join("models"), None);
    models.pull(NAME, Some(&path), &mut |_: PullProgress| {}).unwrap();
    let got = models.load(NAME).unwrap().embed(&["a b"], InputKind::Query).unwrap();
    assert_eq!(got, changed(|_| {}).unwrap().embed(&["a b"], InputKind::Query).unwrap());
    assert_eq!(models.installed().unwrap().len(), 1);
}

#[test]
fn pickles_are_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = install(dir.path(), NAME);
    let pickled = path.join("pytorch_model.bin");
    fs::rename(path.join("model.safetensors"), &pickled).unwrap();
    let error = Models::new(dir.path().to_owned(), None).load(NAME).unwrap_err();
    assert!(matches!(&error, EmbedError::Pickle { path } if *path == pickled), "{error}");
    assert!(error.to_string().contains("safe_serialization=True"), "{error}");
    let models = Models::new(dir.path().join("models"), None);
    let error = models.pull("me/other", Some(&path), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("pickle") && error.contains("pannier model pull NAME --from"), "{error}");
    for start in [&b"\x80\x02}q"[..], b"PK\x03\x04\x14\0\0\0\x08\x08"] {
        let error = changed(|dir| fs::write(dir.join("model.safetensors"), start).unwrap()).unwrap_err();
        assert!(matches!(error, EmbedError::Pickle { .. }), "{error}");
    }
}
