//! The same surface in a build without local models: every call says so.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    Compute, Dimensions, EmbedError, Embeddings, InputKind, InstalledModel, Piece, Precision, PullProgress,
    VerifiedFile,
};

/// The models directory, which this build does not read.
#[derive(Clone, Debug)]
pub struct Models {
    dir: PathBuf,
}

/// A loaded model; there is none in this build.
#[derive(Debug)]
pub struct TextModel(Infallible);

/// A loaded cross-encoder; there is none in this build.
#[derive(Debug)]
pub struct CrossEncoder(Infallible);

/// Whether somebody still waits for an answer, which this build does not ask.
#[derive(Clone, Copy, Debug)]
pub struct Cancellation;

impl Cancellation {
    /// Nobody has gone.
    ///
    /// # Errors
    /// None.
    pub fn check_current() -> Result<(), EmbedError> {
        Ok(())
    }
}

impl CrossEncoder {
    /// Scores texts.
    ///
    /// # Errors
    /// Never called.
    pub fn score(&self, _query: &str, _texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
        match self.0 {}
    }
}

impl Models {
    /// Remembers `dir`.
    pub fn new(dir: PathBuf, _threads: Option<NonZeroUsize>) -> Models {
        Models { dir }
    }

    /// Remembers `dir`.
    pub fn computing(dir: PathBuf, _compute: Compute) -> Models {
        Models { dir }
    }

    /// Keeps nothing: no vectors are made.
    pub fn keep_vectors(&self, _path: PathBuf, _max_bytes: Option<u64>) {}

    /// The models directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Nothing tells: there are no models.
    ///
    /// # Errors
    /// None.
    pub fn check_name(&self, _name: &str) -> Result<(), EmbedError> {
        Ok(())
    }

    /// Nothing runs.
    ///
    /// # Errors
    /// Always [`EmbedError::Disabled`].
    pub fn check_device(&self) -> Result<(), EmbedError> {
        Err(EmbedError::Disabled)
    }

    /// No model can be loaded.
    ///
    /// # Errors
    /// Always [`EmbedError::Disabled`].
    pub fn load(&self, _name: &str) -> Result<Arc<TextModel>, EmbedError> {
        Err(EmbedError::Disabled)
    }

    /// No model can be loaded.
    ///
    /// # Errors
    /// Always [`EmbedError::Disabled`].
    pub fn load_cross_encoder(&self, _name: &str) -> Result<Arc<CrossEncoder>, EmbedError> {
        Err(EmbedError::Disabled)
    }

    /// No model can be loaded.
    ///
    /// # Errors
    /// Always [`EmbedError::Disabled`].
    pub fn load_reference(&self, _name: &str) -> Result<TextModel, EmbedError> {
        Err(EmbedError::Disabled)
    }

    /// No model is usable.
    ///
    /// # Errors
    /// Always [`EmbedError::Disabled`].
    pub fn installed(&self) -> Result<Vec<InstalledModel>, EmbedError> {
        Err(EmbedError::Disabled)
    }

    /// No model can be verified.
    ///
    /// # Errors
    /// Always [`EmbedError::Disabled`].
    pub fn verify(&self, _name: &str) -> Result<Vec<VerifiedFile>, EmbedError> {
        Err(EmbedError::Disabled)
    }

    /// No model can be fetched.
    ///
    /// # Errors
    /// Always [`EmbedError::Disabled`].
    pub fn pull(
        &self,
        _name: &str,
        _from: Option<&Path>,
        _progress: &mut dyn FnMut(PullProgress),
    ) -> Result<InstalledModel, EmbedError> {
        Err(EmbedError::Disabled)
    }
}

impl TextModel {
    /// Canonical name.
    pub fn name(&self) -> &str {
        match self.0 {}
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        match self.0 {}
    }

    /// Tokens read of a text.
    pub fn max_tokens(&self) -> usize {
        match self.0 {}
    }

    /// The precision in which it runs.
    pub fn precision(&self) -> Precision {
        match self.0 {}
    }

    /// Digest over all that decides the vectors.
    pub fn fingerprint(&self) -> &str {
        match self.0 {}
    }

    /// Digest over all that decides the vectors, cut to their first `dim` numbers.
    pub fn fingerprint_at(&self, _dim: usize) -> String {
        match self.0 {}
    }

    /// The precision of a fingerprint.
    pub fn precision_of(&self, _fingerprint: &str, _dim: usize) -> Option<Precision> {
        match self.0 {}
    }

    /// Embeds texts.
    ///
    /// # Errors
    /// Never called.
    pub fn embed(&self, _texts: &[&str], _input: InputKind) -> Result<Embeddings, EmbedError> {
        match self.0 {}
    }

    /// Embeds texts, in vectors of another length.
    ///
    /// # Errors
    /// Never called.
    pub fn embed_with(
        &self,
        _texts: &[&str],
        _input: InputKind,
        _dimensions: Option<usize>,
    ) -> Result<Embeddings, EmbedError> {
        match self.0 {}
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// Never called.
    pub fn tokenize(&self, _text: &str, _input: InputKind, _with_special: bool) -> Result<Vec<Piece>, EmbedError> {
        match self.0 {}
    }

    /// To which lengths vectors can be cut.
    pub fn dimensions(&self) -> &Dimensions {
        match self.0 {}
    }

    /// Whether vectors can be cut.
    ///
    /// # Errors
    /// Never called.
    pub fn check_dimensions(&self, _dimensions: usize) -> Result<(), EmbedError> {
        match self.0 {}
    }

    /// Cuts vectors.
    ///
    /// # Errors
    /// Never called.
    pub fn shorten(&self, _embeddings: &mut Embeddings, _dimensions: usize) -> Result<(), EmbedError> {
        match self.0 {}
    }

    /// Scales vectors to length 1.
    ///
    /// # Errors
    /// Never called.
    pub fn scale(&self, _embeddings: &mut Embeddings) -> Result<(), EmbedError> {
        match self.0 {}
    }

    /// Embeds lists of tokens.
    ///
    /// # Errors
    /// Never called.
    pub fn embed_tokens(&self, _ids: &[Vec<u32>]) -> Result<Embeddings, EmbedError> {
        match self.0 {}
    }
}
