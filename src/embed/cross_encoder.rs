//! A loaded cross-encoder: a query and texts in, a score for each text out.
//!
//! Query and text are read together, `[CLS] query [SEP] text [SEP]`, so each attends to the other; the vector of the
//! first token passes the pooler and the classifier (Nogueira & Cho 2019).

use std::sync::Arc;

use super::batcher::{Batcher, Cancellation, Encode, Urgency};
use super::files::WEIGHTS_FILE;
use super::head::Head;
use super::local::{Encoder, read_linear};
use super::model::{Passes, Services};
use super::settings::{Activation, CrossEncoderSettings};
use super::store::Place;
use super::tokenizer::{TOKENIZER_FILE, TextTokenizer};
use super::{Compute, EmbedError, InputKind};

/// A model that says how well a text answers a query. It is shared by threads.
pub struct CrossEncoder {
    name: String,
    max_tokens: usize,
    tokenizer: TextTokenizer,
    encoder: Arc<Passes>,
    head: Head,
    batcher: Arc<Batcher>,
}

impl CrossEncoder {
    /// Loads an installed model whose files have been checked.
    ///
    /// # Errors
    /// [`EmbedError::Malformed`], [`EmbedError::Unsupported`], [`EmbedError::CpuLevel`], [`EmbedError::Device`],
    /// [`EmbedError::Storage`].
    pub(super) fn load(place: &Place, compute: Compute, services: Services) -> Result<Self, EmbedError> {
        let CrossEncoderSettings { encoder, activation } = CrossEncoderSettings::read(place)?;
        let tokenizer = TextTokenizer::load(&place.dir.join(TOKENIZER_FILE), &place.name, &encoder)?;
        let (hidden, path) = (encoder.architecture.hidden_size, place.dir.join(WEIGHTS_FILE));
        let pooler = read_linear(&path, "pooler.dense", [hidden, hidden], true)?;
        let classifier = read_linear(&path, "classifier", [1, hidden], true)?;
        let head = Head::of_layers([(pooler, Activation::Tanh), (classifier, activation)]);
        let Services { threads, batcher, .. } = services;
        let max_tokens = encoder.max_tokens;
        let encoder = Encoder::load(&path, &encoder, compute.precision, compute.device)?;
        let encoder = Arc::new(Passes { encoder, threads });
        Ok(Self { name: place.name.clone(), max_tokens, tokenizer, encoder, head, batcher })
    }

    /// Canonical name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens read of a query and a text together, special tokens included; of more, the longer of the two is cut.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// How well each text answers the query: rises with relevance, 0 to 1 or without bounds, as the model's
    /// configuration says. A text's score does not depend on the texts beside it.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`], [`EmbedError::Vector`], [`EmbedError::Compute`], [`EmbedError::Overloaded`],
    /// [`EmbedError::Cancelled`].
    pub fn score(&self, query: &str, texts: &[&str]) -> Result<Vec<f32>, EmbedError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let query = self.tokenizer.side(query)?;
        let pair = |text: &&str| {
            Cancellation::check_current()?;
            self.tokenizer.pair(&query, &self.tokenizer.side(text)?)
        };
        let pairs = texts.iter().map(pair).collect::<Result<Vec<Vec<u32>>, EmbedError>>()?;
        let urgency = Urgency::of(InputKind::Query, pairs.len(), pairs.iter().map(Vec::len).sum());
        let encoder: Arc<dyn Encode> = self.encoder.clone();
        let first = self.batcher.encode(&encoder, pairs, urgency)?;
        let score = |(index, vector): (usize, Vec<f64>)| {
            let score = self.head.apply(vector).first().copied().unwrap_or(f64::NAN) as f32;
            let reason = "its score is not a number".to_owned();
            let unusable = || EmbedError::Vector { model: self.name.clone(), index, reason };
            if score.is_finite() { Ok(score) } else { Err(unusable()) }
        };
        first.into_iter().enumerate().map(score).collect()
    }
}

impl std::fmt::Debug for CrossEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("CrossEncoder").field("name", &self.name).finish_non_exhaustive()
    }
}
