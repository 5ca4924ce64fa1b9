//! A loaded model: texts in, vectors out.

use std::path::Path;
use std::sync::Arc;

use rayon::ThreadPool;
use sha2::{Digest, Sha256};

use super::batcher::{Batcher, Cancellation, Encode, Urgency};
use super::cache::{Key, VectorCache, embed_through};
use super::files::WEIGHTS_FILE;
use super::head::Head;
use super::local::Encoder;
use super::lock_file::hex;
use super::settings::Settings;
use super::store::Place;
use super::tokenizer::{TOKENIZER_FILE, TextTokenizer, Tokens};
use super::{Compute, Dimensions, EmbedError, Embeddings, InputKind, Piece, Pooling, Precision, VerifiedFile};
use crate::types::{VectorError, check_vector, normalise};

/// A model ready to embed. It is shared by threads.
pub struct TextModel {
    name: String,
    fingerprint: String,
    /// Stands for the model in the cache.
    cached_as: String,
    /// What it would be in each precision.
    fingerprints: [(Precision, String); Precision::ALL.len()],
    settings: Settings,
    tokenizer: TextTokenizer,
    encoder: Arc<Passes>,
    head: Head,
    batcher: Arc<Batcher>,
    cache: Option<Arc<VectorCache>>,
}

/// What the models of a process share.
pub(super) struct Services {
    pub threads: Arc<ThreadPool>,
    pub batcher: Arc<Batcher>,
    pub cache: Option<Arc<VectorCache>>,
}

/// The encoder as the batcher runs it.
pub(super) struct Passes {
    pub encoder: Encoder,
    pub threads: Arc<ThreadPool>,
}

impl Encode for Passes {
    fn encode(&self, sequences: &[&[u32]], helpers: usize) -> Result<Vec<Vec<f64>>, EmbedError> {
        self.encoder.encode(sequences, helpers, &self.threads)
    }

    fn runs_alone(&self) -> bool {
        self.encoder.runs_alone()
    }
}

/// Changes when this code makes other vectors from the same files.
const FINGERPRINT_VERSION: &str = "pannier embedding 1";

impl TextModel {
    /// Loads an installed model whose files have been checked.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::CpuLevel`], [`EmbedError::Device`],
    /// [`EmbedError::Storage`].
    pub(super) fn load(
        place: &Place,
        files: &[VerifiedFile],
        compute: Compute,
        services: Services,
    ) -> Result<Self, EmbedError> {
        let Compute { precision, device, .. } = compute;
        Self::load_with(place, files, services, |path, settings| Encoder::load(path, settings, precision, device))
    }

    /// As [`TextModel::load`], to be run by candle's own forward.
    ///
    /// # Errors
    /// As [`TextModel::load`].
    pub(super) fn load_reference(
        place: &Place,
        files: &[VerifiedFile],
        services: Services,
    ) -> Result<Self, EmbedError> {
        Self::load_with(place, files, services, Encoder::load_reference)
    }

    fn load_with(
        place: &Place,
        files: &[VerifiedFile],
        services: Services,
        load: impl FnOnce(&Path, &Settings) -> Result<Encoder, EmbedError>,
    ) -> Result<Self, EmbedError> {
        let settings = Settings::read(place)?;
        let transformer = place.dir.join(&settings.transformer);
        let tokenizer = TextTokenizer::load(&transformer.join(TOKENIZER_FILE), &place.name, &settings)?;
        let head = Head::load(&place.dir, &settings.steps)?;
        let encoder = load(&transformer.join(WEIGHTS_FILE), &settings)?;
        let of = |precision| fingerprint(&settings, files, precision);
        let (fingerprint, fingerprints) =
            (of(encoder.precision()), Precision::ALL.map(|precision| (precision, of(precision))));
        let cached_as = match tokenizer.adds_tokens() {
            true => fingerprint.clone(),
            // Records of earlier versions may call texts whole that were cut.
            false => format!("{fingerprint} cuts are told"),
        };
        let Services { threads, batcher, cache } = services;
        let (name, encoder) = (place.name.clone(), Arc::new(Passes { encoder, threads }));
        Ok(Self { name, fingerprint, cached_as, fingerprints, settings, tokenizer, encoder, head, batcher, cache })
    }

    /// Canonical name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.settings.dim()
    }

    /// Tokens read of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.settings.max_tokens
    }

    /// The precision in which it runs: [`Precision::Float32`] where another was asked for and this model's shape has
    /// none.
    pub fn precision(&self) -> Precision {
        self.encoder.encoder.precision()
    }

    /// SHA-256 in hexadecimal over all that decides the vectors: weights, tokenizer, architecture, pooling,
    /// normalisation, prefixes, length and precision. Whole vectors of equal fingerprints can be compared with each
    /// other.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// As [`TextModel::fingerprint`], for vectors that are cut to their first `dim` numbers: another one where more is
    /// done to them.
    pub fn fingerprint_at(&self, dim: usize) -> String {
        self.cut(&self.fingerprint, dim)
    }

    /// The precision in which the files of this model make vectors of `dim` numbers with this fingerprint; `None` where
    /// other files made them, or another version of this code.
    pub fn precision_of(&self, fingerprint: &str, dim: usize) -> Option<Precision> {
        let (precision, _) = self.fingerprints.iter().find(|(_, whole)| self.cut(whole, dim) == fingerprint)?;
        Some(*precision)
    }

    /// The fingerprint of vectors that are cut to `dim` numbers, of that of whole ones.
    fn cut(&self, whole: &str, dim: usize) -> String {
        match self.settings.layer_norm_before_cut && dim < self.dim() {
            true => hex(&Sha256::digest(format!("{whole}\nlayer norm before cut 1\n"))),
            false => whole.to_owned(),
        }
    }

    /// Embeds texts, each with the prefix that the model wants for `input`. Texts longer than the model reads are cut
    /// and reported in [`Embeddings::truncated`]. A text's vector does not depend on the texts beside it, but for
    /// rounding where candle runs the model. Texts that were embedded before are taken from the cache, where there is
    /// one; the others wait in the one queue of the process, a query before bulk work, under the
    /// [`super::Cancellation`] around this call.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`], [`EmbedError::Vector`], [`EmbedError::Compute`], [`EmbedError::Overloaded`],
    /// [`EmbedError::Cancelled`].
    pub fn embed(&self, texts: &[&str], input: InputKind) -> Result<Embeddings, EmbedError> {
        let prefix = self.prefix(input);
        let compute = |texts: &[&str]| {
            let encode = |text: &&str| {
                Cancellation::check_current()?;
                self.tokenizer.encode(prefix, text)
            };
            self.embed_all(texts.iter().map(encode).collect::<Result<_, _>>()?, input)
        };
        match &self.cache {
            Some(cache) => {
                let key = |text: &str| Key::new(&self.cached_as, prefix, text);
                embed_through(cache, key, self.dim(), texts, compute)
            }
            None => compute(texts),
        }
    }

    /// As [`TextModel::embed`], with vectors cut to their first `dimensions` numbers and scaled to length 1 again.
    ///
    /// # Errors
    /// [`EmbedError::Dimensions`] where the model was not trained for that, and as [`TextModel::embed`].
    pub fn embed_with(
        &self,
        texts: &[&str],
        input: InputKind,
        dimensions: Option<usize>,
    ) -> Result<Embeddings, EmbedError> {
        if let Some(dimensions) = dimensions {
            self.check_dimensions(dimensions)?;
        }
        let mut embeddings = self.embed(texts, input)?;
        if let Some(dimensions) = dimensions {
            self.shorten(&mut embeddings, dimensions)?;
        }
        Ok(embeddings)
    }

    /// To which lengths vectors can be cut.
    pub fn dimensions(&self) -> &Dimensions {
        &self.settings.dimensions
    }

    /// Whether vectors can be cut to their first `dimensions` numbers.
    ///
    /// # Errors
    /// [`EmbedError::Dimensions`] where not.
    pub fn check_dimensions(&self, dimensions: usize) -> Result<(), EmbedError> {
        if self.settings.dimensions.allow(dimensions, self.dim()) {
            return Ok(());
        }
        let (model, allowed) = (self.name.clone(), self.settings.dimensions.in_words(self.dim()));
        Err(EmbedError::Dimensions { model, got: dimensions, allowed })
    }

    /// Cuts whole vectors of this model to their first `dimensions` numbers and scales them to length 1 again. So
    /// vectors that were kept whole serve every length. Where the model's card says so, they pass a layer normalisation
    /// before.
    ///
    /// # Errors
    /// [`EmbedError::Dimensions`]; [`EmbedError::Vector`] where the numbers that are left are all zero.
    pub fn shorten(&self, embeddings: &mut Embeddings, dimensions: usize) -> Result<(), EmbedError> {
        self.check_dimensions(dimensions)?;
        if dimensions == self.dim() {
            return Ok(());
        }
        for vector in &mut embeddings.vectors {
            if self.settings.layer_norm_before_cut {
                subtract_mean(vector);
            }
            vector.truncate(dimensions);
        }
        self.scale_all(embeddings)
    }

    /// Scales vectors to length 1, where this model does not do so itself.
    ///
    /// # Errors
    /// [`EmbedError::Vector`] where one cannot be.
    pub fn scale(&self, embeddings: &mut Embeddings) -> Result<(), EmbedError> {
        match self.normalises() {
            true => Ok(()),
            false => self.scale_all(embeddings),
        }
    }

    fn scale_all(&self, embeddings: &mut Embeddings) -> Result<(), EmbedError> {
        for (index, vector) in embeddings.vectors.iter_mut().enumerate() {
            let dim = vector.len();
            normalise(vector, dim).map_err(|e| self.unusable(index, &e))?;
        }
        Ok(())
    }

    /// The tokens of a text with the prefix for `input`, all of them, however long it is.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`]; [`EmbedError::Cancelled`] where the [`super::Cancellation`] around this call was
    /// cancelled.
    pub fn tokenize(&self, text: &str, input: InputKind, with_special: bool) -> Result<Vec<Piece>, EmbedError> {
        Cancellation::check_current()?;
        self.tokenizer.pieces(&format!("{}{text}", self.prefix(input)), with_special)
    }

    /// How a text's vector comes of those of its tokens.
    pub fn pooling(&self) -> Pooling {
        self.settings.pooling
    }

    /// Whether vectors have length 1.
    pub fn normalises(&self) -> bool {
        self.settings.normalise
    }

    fn prefix(&self, input: InputKind) -> &str {
        match input {
            InputKind::Query => &self.settings.query_prefix,
            InputKind::Document => &self.settings.document_prefix,
            InputKind::Plain => "",
        }
    }

    /// Embeds texts that are tokens already, as the model reads them: special tokens included, nothing is added. What
    /// is beyond the model's length is cut as in a text, and reported. A list without the tokens that the model's
    /// tokenizer puts around every text is of another tokenizer and is refused.
    ///
    /// # Errors
    /// [`EmbedError::NoTokens`], [`EmbedError::Token`], [`EmbedError::ForeignTokens`], [`EmbedError::Tokenizer`],
    /// [`EmbedError::Vector`], [`EmbedError::Compute`], [`EmbedError::Overloaded`], [`EmbedError::Cancelled`].
    pub fn embed_tokens(&self, ids: &[Vec<u32>]) -> Result<Embeddings, EmbedError> {
        let (before, after) = self.around()?;
        let cut = |(index, ids): (usize, &Vec<u32>)| {
            if ids.is_empty() {
                return Err(EmbedError::NoTokens { index });
            }
            let is_whole = before.len() + after.len() <= ids.len();
            if !is_whole || !ids.starts_with(&before) || !ids.ends_with(&after) {
                let (before, after) = (before.clone(), after.clone());
                return Err(EmbedError::ForeignTokens { index, before, after });
            }
            let truncated = ids.len() > self.settings.max_tokens;
            let ids = match truncated {
                true => [&ids[..self.settings.max_tokens - after.len()], &after[..]].concat(),
                false => ids.clone(),
            };
            Ok(Tokens { ids, truncated })
        };
        self.embed_all(ids.iter().enumerate().map(cut).collect::<Result<_, _>>()?, InputKind::Document)
    }

    /// The tokens that the tokenizer puts before every text, and those behind.
    fn around(&self) -> Result<(Vec<u32>, Vec<u32>), EmbedError> {
        let (empty, letter) = (self.tokenizer.encode("", "")?.ids, self.tokenizer.encode("", "a")?.ids);
        let before = empty.iter().zip(&letter).take_while(|(one, other)| one == other).count();
        let (before, after) = empty.split_at(before);
        // A tokenizer that reads nothing in a letter does not tell the two apart.
        match letter.len() > empty.len() && letter.ends_with(after) {
            true => Ok((before.to_vec(), after.to_vec())),
            false => Ok(Default::default()),
        }
    }

    fn embed_all(&self, tokens: Vec<Tokens>, input: InputKind) -> Result<Embeddings, EmbedError> {
        let vocabulary = self.settings.architecture.vocab_size;
        for (index, Tokens { ids, .. }) in tokens.iter().enumerate() {
            if let Some(&token) = ids.iter().find(|&&token| token as usize >= vocabulary) {
                return Err(EmbedError::Token { index, token, vocabulary });
            }
            if ids.is_empty() {
                return Err(EmbedError::NoTokens { index });
            }
        }
        let token_counts: Vec<usize> = tokens.iter().map(|tokens| tokens.ids.len()).collect();
        let truncated = tokens.iter().map(|tokens| tokens.truncated).collect();
        let urgency = Urgency::of(input, tokens.len(), token_counts.iter().sum());
        let encoder: Arc<dyn Encode> = self.encoder.clone();
        let pooled = self.batcher.encode(&encoder, tokens.into_iter().map(|tokens| tokens.ids).collect(), urgency)?;
        let finish = |(index, vector): (usize, Vec<f64>)| self.finish(vector).map_err(|e| self.unusable(index, &e));
        Ok(Embeddings {
            vectors: pooled.into_iter().enumerate().map(finish).collect::<Result<_, _>>()?,
            token_counts,
            truncated,
            cached: 0,
        })
    }

    fn unusable(&self, index: usize, error: &VectorError) -> EmbedError {
        EmbedError::Vector { model: self.name.clone(), index, reason: error.to_string() }
    }

    fn finish(&self, pooled: Vec<f64>) -> Result<Vec<f32>, VectorError> {
        let mut vector: Vec<f32> = self.head.apply(pooled).iter().map(|&x| x as f32).collect();
        match self.settings.normalise {
            true => normalise(&mut vector, self.dim())?,
            false => drop(check_vector(&vector, self.dim())?),
        }
        Ok(vector)
    }
}

impl std::fmt::Debug for TextModel {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("TextModel")
            .field("name", &self.name)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// What a layer normalisation without weights does to a vector, but for its length.
fn subtract_mean(vector: &mut [f32]) {
    let mean = vector.iter().map(|&x| f64::from(x)).sum::<f64>() / vector.len() as f64;
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
}

/// Settings stand for the files they were read from, so that a comment in one of those changes nothing.
fn fingerprint(settings: &Settings, files: &[VerifiedFile], precision: Precision) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{FINGERPRINT_VERSION}\n{}\n", settings.identity()));
    match precision {
        Precision::Float32 => {}
        Precision::Float16 => hash.update("float16 1\n"),
        // The number changes with the way in which weights and activations are rounded.
        Precision::Int8 => hash.update("int8 2\n"),
    }
    // The transformer's weights come first, those of dense layers after them, in the order of the modules.
    for name in [WEIGHTS_FILE, TOKENIZER_FILE] {
        for file in files.iter().filter(|file| file.path.ends_with(name)) {
            hash.update(format!("{name} {}\n", file.sha256));
        }
    }
    hex(&hash.finalize())
}
