//! A loaded model: texts in, vectors out.

use std::sync::Arc;

use rayon::ThreadPool;
use sha2::{Digest, Sha256};

use super::batcher::{Batcher, Encode, Lane};
use super::cache::{Key, VectorCache, embed_through};
use super::local::Encoder;
use super::lock_file::hex;
use super::settings::{Pooling, Settings};
use super::store::Place;
use super::tokenizer::{TextTokenizer, Tokens, tokenizer_path};
use super::{EmbedError, Embeddings, InputKind, Piece, VerifiedFile};
use crate::types::{VectorError, check_vector, normalise};

/// A model ready to embed. It is shared by threads.
pub struct TextModel {
    name: String,
    fingerprint: String,
    settings: Settings,
    tokenizer: TextTokenizer,
    encoder: Arc<Passes>,
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
struct Passes {
    encoder: Encoder,
    threads: Arc<ThreadPool>,
}

impl Encode for Passes {
    fn encode(&self, sequences: &[&[u32]]) -> Result<Vec<Vec<f64>>, EmbedError> {
        self.encoder.encode(sequences, &self.threads)
    }
}

/// Changes when this code makes other vectors from the same files.
const FINGERPRINT_VERSION: &str = "pannier embedding 1";

impl TextModel {
    /// Loads an installed model whose files have been checked.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::CpuLevel`], [`EmbedError::Storage`].
    pub(super) fn load(place: &Place, files: &[VerifiedFile], services: Services) -> Result<Self, EmbedError> {
        let settings = Settings::read(place)?;
        let tokenizer = TextTokenizer::load(&tokenizer_path(&place.dir), &place.name, settings.max_tokens)?;
        let encoder = Encoder::load(&place.dir.join("model.safetensors"), &settings)?;
        let fingerprint = fingerprint(&settings, files);
        let Services { threads, batcher, cache } = services;
        let (name, encoder) = (place.name.clone(), Arc::new(Passes { encoder, threads }));
        Ok(Self { name, fingerprint, settings, tokenizer, encoder, batcher, cache })
    }

    /// Canonical name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.settings.architecture.hidden_size
    }

    /// Tokens read of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.settings.max_tokens
    }

    /// SHA-256 in hexadecimal over all that decides the vectors: weights, tokenizer, architecture, pooling, normalisation,
    /// prefixes and length. Vectors of equal fingerprints can be compared with each other.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Embeds texts, each with the prefix that the model wants for `input`. Texts longer than the model reads are cut and
    /// reported in [`Embeddings::truncated`]. A text's vector does not depend on the texts beside it. Texts that were
    /// embedded before are taken from the cache, where there is one; the others wait in the one queue of the process, a
    /// query before bulk work, under the [`super::Cancellation`] around this call.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`], [`EmbedError::Vector`], [`EmbedError::Compute`], [`EmbedError::Overloaded`],
    /// [`EmbedError::Cancelled`].
    pub fn embed(&self, texts: &[&str], input: InputKind) -> Result<Embeddings, EmbedError> {
        let prefix = self.prefix(input);
        let compute = |texts: &[&str]| {
            let encode = |text: &&str| self.tokenizer.encode(prefix, text);
            self.embed_all(texts.iter().map(encode).collect::<Result<_, _>>()?, input)
        };
        match &self.cache {
            Some(cache) => {
                let key = |text: &str| Key::new(&self.fingerprint, prefix, text);
                embed_through(cache, key, self.dim(), texts, compute)
            }
            None => compute(texts),
        }
    }

    /// Embeds texts that are tokens already, as the model reads them: special tokens included, nothing is added. What is
    /// beyond the model's length is cut and reported.
    ///
    /// # Errors
    /// [`EmbedError::NoTokens`], [`EmbedError::Token`], [`EmbedError::Vector`], [`EmbedError::Compute`],
    /// [`EmbedError::Overloaded`], [`EmbedError::Cancelled`].
    pub fn embed_tokens(&self, ids: &[Vec<u32>]) -> Result<Embeddings, EmbedError> {
        let cut = |(index, ids): (usize, &Vec<u32>)| match ids.len() {
            0 => Err(EmbedError::NoTokens { index }),
            len => {
                let kept = len.min(self.settings.max_tokens);
                Ok(Tokens { ids: ids[..kept].to_vec(), truncated: kept < len })
            }
        };
        self.embed_all(ids.iter().enumerate().map(cut).collect::<Result<_, _>>()?, InputKind::Document)
    }

    /// The tokens of a text with the prefix for `input`, all of them, however long it is.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`].
    pub fn tokenize(&self, text: &str, input: InputKind, with_special: bool) -> Result<Vec<Piece>, EmbedError> {
        self.tokenizer.pieces(&format!("{}{text}", self.prefix(input)), with_special)
    }

    /// How a text's vector comes of those of its tokens: `mean` or `cls`.
    pub fn pooling(&self) -> &'static str {
        match self.settings.pooling {
            Pooling::Mean => "mean",
            Pooling::FirstToken => "cls",
        }
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
        let lane = Lane::of(input, tokens.len(), token_counts.iter().sum());
        let encoder: Arc<dyn Encode> = self.encoder.clone();
        let pooled = self.batcher.encode(&encoder, tokens.into_iter().map(|tokens| tokens.ids).collect(), lane)?;
        let finish = |(index, vector): (usize, Vec<f64>)| {
            self.finish(&vector).map_err(|e| EmbedError::Vector {
                model: self.name.clone(),
                index,
                reason: e.to_string(),
            })
        };
        Ok(Embeddings {
            vectors: pooled.into_iter().enumerate().map(finish).collect::<Result<_, _>>()?,
            token_counts,
            truncated,
            cached: 0,
        })
    }

    fn finish(&self, pooled: &[f64]) -> Result<Vec<f32>, VectorError> {
        let mut vector: Vec<f32> = pooled.iter().map(|&x| x as f32).collect();
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

/// Settings stand for the files they were read from, so that a comment in one of those changes nothing.
fn fingerprint(settings: &Settings, files: &[VerifiedFile]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{FINGERPRINT_VERSION}\n{}\n", settings.identity()));
    for name in ["model.safetensors", "tokenizer.json"] {
        let digest = files.iter().find(|file| file.path.ends_with(name)).map_or("none", |file| &file.sha256);
        hash.update(format!("{name} {digest}\n"));
    }
    hex(&hash.finalize())
}
