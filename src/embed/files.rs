//! Which files a model consists of: those that the registry has hashes of, or those that its modules.json names.

use std::path::Path;

use super::EmbedError;
use super::registry::{KnownDigest, KnownModel};
use super::settings::{Following, MODULES_FILE, Modules};

/// A file of a model.
#[derive(Clone, Debug)]
pub(super) struct ModelFile {
    /// Relative to the model's directory, parts joined by '/'.
    pub path: String,
    /// Whether the model cannot be used without it.
    pub required: bool,
    /// What it must be, where the registry says.
    pub digest: Option<&'static KnownDigest>,
}

/// Weights in the only form that is read.
pub(super) const WEIGHTS_FILE: &str = "model.safetensors";
/// Weights in a form that is refused: reading it can run code.
pub(super) const PICKLE_FILE: &str = "pytorch_model.bin";

impl ModelFile {
    /// As the registry names it.
    pub(super) fn of(file: &'static super::KnownFile) -> Self {
        Self { path: file.path.to_owned(), required: file.required, digest: file.digest.as_ref() }
    }

    fn new(dir: &str, name: &str, required: bool) -> Self {
        Self { path: below(dir, name), required, digest: None }
    }

    /// Where weights of this name would lie as a pickle; `None` for files of another kind.
    pub(super) fn as_pickle(&self) -> Option<Self> {
        let dir = self.path.strip_suffix(WEIGHTS_FILE)?;
        Some(Self { path: format!("{dir}{PICKLE_FILE}"), required: false, digest: None })
    }
}

/// A file's path below a module's directory, which is empty for the model's own.
pub(super) fn below(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// The files of a model whose modules.json lies at `modules`; as long as that is not there, itself only.
///
/// # Errors
/// What [`Modules::read`] says of modules.json.
pub(super) fn model_files(known: Option<&'static KnownModel>, modules: &Path) -> Result<Vec<ModelFile>, EmbedError> {
    if let Some(known) = known
        && !known.files.is_empty()
    {
        return Ok(known.files.iter().map(ModelFile::of).collect());
    }
    let mut files = vec![ModelFile::new("", MODULES_FILE, true)];
    if !modules.is_file() {
        return Ok(files);
    }
    let modules = Modules::read(modules)?;
    files.push(ModelFile::new("", "config_sentence_transformers.json", false));
    let transformer = |name: &str, required| ModelFile::new(&modules.transformer, name, required);
    files.push(transformer("config.json", true));
    files.push(transformer("sentence_bert_config.json", false));
    files.push(transformer("tokenizer_config.json", false));
    files.push(ModelFile::new(&modules.pooling, "config.json", true));
    let dense = || {
        modules.following.iter().filter_map(|module| match module {
            Following::Dense(dir) => Some(dir.as_str()),
            Following::Normalise => None,
        })
    };
    files.extend(dense().map(|dir| ModelFile::new(dir, "config.json", true)));
    files.push(transformer("tokenizer.json", true));
    // The longest come last, so that a model that cannot be used is known before they are fetched.
    files.push(transformer(WEIGHTS_FILE, true));
    files.extend(dense().map(|dir| ModelFile::new(dir, WEIGHTS_FILE, true)));
    Ok(files)
}
